"""A method of another package: found by its entry point, searched by its metadata, known to other processes."""

import subprocess
import sys

import pytest
from commands import TINY, environment, installed, one, read, sahub

MODULE = '''
"""Keeps every nth key."""
from dataclasses import dataclass, field

import torch

from sahub.attention.stage import Stage


@dataclass(frozen=True, kw_only=True)
class EveryNth(Stage):
    nth: int = field(default=8, metadata={"unit": "keys", "search": {"choices": [4, 8, 16]}})

    def add(self, call, taken, index):
        ranks = torch.arange(0, call.rows.num_keys, self.nth)[None, None]
        inside = ranks < call.rows.counts[..., None]
        return taken.of(call.rows.positions(ranks)[:, None], torch.where(inside, 0.0, float("-inf"))[:, None])
'''
SEND = """
import pickle, sys
from sahub.builders.build import build_stack
sys.stdout.buffer.write(pickle.dumps(build_stack({"sink": {"sink_size": 4}, "every_nth": {"nth": 4}})))
"""
RECEIVE = """
import pickle, sys
print(pickle.load(sys.stdin.buffer))
"""


@pytest.fixture
def site(tmp_path):
    """A folder to import from that holds the package as pip would leave it."""
    installed(tmp_path / "site", "every_nth", "[sahub.methods]\nevery_nth = every_nth:EveryNth\n")
    (tmp_path / "site" / "every_nth.py").write_text(MODULE, encoding="utf-8")
    return tmp_path / "site"


def test_a_method_of_another_package_is_searched(tmp_path, site):
    env = environment(site)
    typed = ["builder=compose", "compose=[sink,every_nth]", "task=ruler/niah_single_1", "objective=sparsity_25"]
    done = sahub("search", *typed, *TINY, "compute=inline", "phases=[search]", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    best = read(one(tmp_path, "embedded_ruler_niah_single_1_compose_sink_every_nth_sparsity_25.json"))
    assert "compose=[sink,every_nth]" in best["overrides"]
    assert any(item.startswith("builder.stages.every_nth.nth=") for item in best["stage_overrides"])
    assert best["figures"]["density"] <= 0.25


@pytest.mark.slow
def test_workers_know_it_without_being_told(tmp_path, site):
    env = environment(site)
    sent = subprocess.run([sys.executable, "-c", SEND], env=env, cwd=tmp_path, capture_output=True, check=True)
    got = subprocess.run(
        [sys.executable, "-c", RECEIVE], env=env, cwd=tmp_path, input=sent.stdout, capture_output=True, check=True
    )
    assert "EveryNth(nth=4)" in got.stdout.decode()


def test_a_package_that_cannot_be_loaded_is_named(tmp_path, site):
    (site / "every_nth.py").write_text("import nowhere_at_all\n", encoding="utf-8")
    done = sahub("search", "builder=compose", "compose=[sink,every_nth]", cwd=tmp_path, env=environment(site))
    assert done.returncode == 1
    assert (
        "every_nth: its entry point every_nth:EveryNth cannot be loaded: No module named 'nowhere_at_all'"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
