"""A disk that is full when results are written: one line that names the file."""

import errno
import os
from pathlib import Path

import pytest

from sahub.cli import run
from sahub.store import write_text

TINY = ["compute=inline", "phases=[search]", "search.num_samples=1", "search.max_requests=1", "search.promote=0"]


def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(
        os, "fsync", lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(tmp_path / "file.json", "{}")
    assert caught.value.filename == str(tmp_path / "file.json")
    assert not list(tmp_path.iterdir())


def test_a_run_on_a_full_disk_says_one_line(tmp_path, monkeypatch, capsys):
    real = os.fsync

    def full(file):
        if "optimal_configs" in Path(f"/proc/self/fd/{file}").readlink().as_posix():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.chdir(tmp_path)
    more = ["search.calibrate=0", "search.max_context_length=400", "builder=local"]
    assert run("search", [*TINY, *more, f"results_dir={tmp_path}"]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "_trials.json: No space left on device; make room and run the same command again" in said[0]
