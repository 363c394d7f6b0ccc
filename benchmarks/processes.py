"""Which processes belong to a run: those whose command line or environment names its folder."""

import os
from pathlib import Path


def belonging_to(folder: Path) -> dict[int, str]:
    """Process id -> command, of all that live and name the folder, this process aside."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            dead = "\nState:\tZ" in (process / "status").read_text()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if str(folder).encode() in seen and not dead and int(process.name) != os.getpid():
            found[int(process.name)] = command
    return found
