"""`python -m pipelines.export_zero_scrolls ...`: the same as `sahub export_zero_scrolls ...`."""

import sys

from sahub.cli.commands.export_zero_scrolls import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
