"""Texts as names of files: one name in the folder that it is put into, whatever the text says, and not too long."""

import hashlib
import re

LONGEST = 150  # bytes of UTF-8; file systems take 255, and endings are put behind


def file_name(text: str) -> str:
    """The text as the name of one file or folder; a long one is cut, and what it was told by a hash."""
    name = re.sub(r"[/\x00-\x1f\x7f\ud800-\udfff]", "_", text)
    name = re.sub(r"^\.", "_", name) or "_"
    raw = name.encode()
    if len(raw) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{raw[: LONGEST - len(digest) - 1].decode(errors='ignore')}-{digest}"
