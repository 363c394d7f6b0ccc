"""`python -m pipelines.doctor ...`: the same as `sahub doctor ...`."""

import sys

from sahub.cli.main import run

if __name__ == "__main__":
    sys.exit(run("doctor", sys.argv[1:]))
