"""`python -m pipelines.train_hash ...`: the same as `sahub train_hash ...`."""

import sys

from sahub.cli.commands.train_hash import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
