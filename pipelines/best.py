"""`python -m pipelines.best ...`: the same as `sahub best ...`."""

import sys

from sahub.cli.main import run

if __name__ == "__main__":
    sys.exit(run("best", sys.argv[1:]))
