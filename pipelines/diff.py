"""`python -m pipelines.diff ...`: the same as `sahub diff ...`."""

import sys

from sahub.cli.commands.diff import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
