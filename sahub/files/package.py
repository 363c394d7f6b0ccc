"""Where the package lies: whatever is shipped beside the code is found from here."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
