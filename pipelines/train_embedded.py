"""`python -m pipelines.train_embedded ...`: the same as `sahub train_embedded ...`."""

import sys

from sahub.cli.commands.train_embedded import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
