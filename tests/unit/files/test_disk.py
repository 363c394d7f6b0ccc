"""A disk that is full when results are written: one line that names the file."""

import errno
import os

import pytest
from commands import forked

from sahub.files.atomic import write_text

TINY = [
    "compute=inline",
    "phases=[search]",
    "search.num_samples=1",
    "search.max_requests=1",
    "search.decide=0",
    "search.promote=0",
]


def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(
        os, "fsync", lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(tmp_path / "file.json", "{}")
    assert caught.value.filename == str(tmp_path / "file.json")
    assert not list(tmp_path.iterdir())


FULL = """
import errno, os, sys
from pathlib import Path
from sahub.cli.main import run
real = os.fsync
def full(file):
    written = Path(f"/proc/self/fd/{file}").readlink()
    if sys.argv[1] in written.as_posix() or written.read_bytes().startswith(sys.argv[1].encode("latin-1")):
        raise OSError(errno.ENOSPC, "No space left on device")
    real(file)
os.fsync = full
sys.exit(run("search", sys.argv[2:]))
"""


@pytest.mark.parametrize(("begins", "name"), [("\x89PNG", ".png"), ("SQLite", "_study.db")])
def test_a_run_on_a_full_disk_says_one_line(tmp_path, begins, name):
    more = ["search.calibrate=0", "search.max_context_length=400", "builder=local"]
    done = forked(FULL, begins, *TINY, *more, cwd=tmp_path)
    assert done.returncode == 1
    [said] = done.stderr.strip().splitlines()
    assert name in said
    assert "No space left on device; make room and run the same command again" in said
