"""`python -m pipelines.import_hub ...`: the same as `sahub import_hub ...`."""

import sys

from sahub.cli.commands.import_hub import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
