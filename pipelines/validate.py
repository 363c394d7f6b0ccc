"""`python -m pipelines.validate ...`: the same as `sahub validate ...`."""

import sys

from sahub.cli.main import run

if __name__ == "__main__":
    sys.exit(run("validate", sys.argv[1:]))
