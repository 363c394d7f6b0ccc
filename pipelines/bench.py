"""`python -m pipelines.bench ...`: the same as `sahub bench ...`."""

import sys

from sahub.cli.main import run

if __name__ == "__main__":
    sys.exit(run("bench", sys.argv[1:]))
