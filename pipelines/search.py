"""`python -m pipelines.search ...`: the same as `sahub search ...`."""

import sys

from sahub.cli.main import run

if __name__ == "__main__":
    sys.exit(run("search", sys.argv[1:]))
