"""`python -m pipelines`: the same as `sahub`."""

from sahub.cli.main import main

if __name__ == "__main__":
    main()
