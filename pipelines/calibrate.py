"""`python -m pipelines.calibrate ...`: the same as `sahub calibrate ...`."""

import sys

from sahub.cli.commands.calibrate import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
