"""`python -m pipelines.completion ...`: the same as `sahub completion ...`."""

import sys

from sahub.cli.commands.completion import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
