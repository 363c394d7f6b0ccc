"""Git LFS pointers: what a clone holds in place of large files that were never fetched."""

from pathlib import Path

ADVICE = "a Git LFS pointer, not the file itself; fetch it: git lfs pull, or hf download"
_START = b"version https://git-lfs.github.com/spec/"
_LONGEST = 1024  # bytes, as its specification says


def is_pointer(file: Path) -> bool:
    """Whether a file is a pointer. Raises OSError."""
    if file.stat().st_size > _LONGEST:
        return False
    with file.open("rb") as stream:
        return stream.read(len(_START)) == _START
