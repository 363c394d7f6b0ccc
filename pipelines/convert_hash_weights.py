"""`python -m pipelines.convert_hash_weights ...`: the same as `sahub convert_hash_weights ...`."""

import sys

from sahub.cli.commands.convert_hash_weights import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
