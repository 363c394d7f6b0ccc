"""`python -m pipelines.report ...`: the same as `sahub report ...`."""

import sys

from sahub.cli.commands.report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
