"""Replay and teacher forcing beside the naive flow: `python benchmarks/replay_speed.py [--old=FOLDER] model=...`.

Prints the median seconds of a context and stack, of one thread and without those of its neighbours, and ratios:

naive    load the model, prefill and generate the answer with the stack, as a trial that keeps nothing; once
old      forced by a checkout of commit 0059f21 in FOLDER, by the Python of its .venv, in turns with what follows
forced   question and dense answer through the model
replay   on their trace

Further arguments are overrides of a search (model.dtype=bfloat16, objective=sparsity_5).
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sahub.config.cell import compose_cell
from sahub.engine.requests import Prepared, load
from sahub.engine.session import Session
from sahub.search.objective import reads_errors
from sahub.search.trial import attention_of

BUILDERS = ("quest", "streaming_llm", "double_sparsity", "pqcache", "snapkv")
TURNS = 5
OLD = """
import json, sys, time
import torch
torch.set_num_threads(1)
from sahub.config import compose_cell
from sahub.model import load_model
from sahub.session import Session
from sahub.trials import attention_of
asked = json.loads(sys.stdin.readline())
settings = compose_cell(asked["given"]).settings.model
session = Session(load_model(settings.path, dtype=settings.dtype))
prefix = session.prefix(tuple(asked["context"]), 128)
for line in sys.stdin:
    how = attention_of(compose_cell(json.loads(line)), ())
    begin = time.process_time()
    session.force(prefix, asked["question"], asked["answer"], how)
    print(time.process_time() - begin, flush=True)
"""


class Old:
    """The other checkout, in a process of its own."""

    def __init__(self, folder: str, asked: dict[str, Any]) -> None:
        python = str(Path(folder) / ".venv" / "bin" / "python")
        self._process = subprocess.Popen(
            [python, "-c", OLD], cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._write(asked)

    def _write(self, value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def forced(self, given: Sequence[str]) -> float:
        """CPU seconds of one forced answer."""
        self._write(given)
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())


def seconds(work: Callable[..., object], *given: object) -> float:
    """CPU seconds of a call."""
    begin = time.process_time()
    work(*given)
    return time.process_time() - begin


def main() -> None:
    """Print a line per builder."""
    torch.set_num_threads(1)
    folder = next((one.partition("=")[2] for one in sys.argv[1:] if one.startswith("--old=")), None)
    given = [one for one in sys.argv[1:] if not one.startswith("--")]
    cell = compose_cell(["task=ruler/niah_single_1", "search.max_context_length=1024", *given])
    model = load(cell)
    session, request = Session(model), Prepared(model).requests(cell, "search")[0]
    prefix, question = session.prefix(request.context_ids, request.room(48)), list(request.question_ids[0])
    answer = session.dense_answer(prefix, request.context_ids, tuple(question), max_new_tokens=48).ids
    asked = {"context": request.context_ids, "question": question, "answer": answer, "given": given}
    old = Old(folder, asked) if folder else None
    print(f"{model.hf.dtype}, {prefix.length} keys, {len(question)} + {len(answer)} rows")  # noqa: T201

    def naive(how: Any) -> None:
        alone = Session(load(cell))
        alone.generate(alone.prefix(request.context_ids, 128), question, how, max_new_tokens=len(answer))

    for builder in BUILDERS:
        at = [*given, f"builder={builder}"]
        here = compose_cell(at)
        how = attention_of(here, ())
        how = how if reads_errors(here.settings.objective) else replace(how, measure=0)  # as a search asks
        ways: dict[str, Callable[[], float]] = {} if old is None else {"old": lambda: old.forced(at)}  # noqa: B023
        ways["forced"] = lambda: seconds(session.force, prefix, question, answer, how)  # noqa: B023
        ways["replay"] = lambda: seconds(session.replay, prefix, question, answer, how)  # noqa: B023
        for way in ways.values():
            way()
        turns = [{name: way() for name, way in ways.items()} for _ in range(TURNS)]
        found = {"naive": seconds(naive, how)} | {name: median(turn[name] for turn in turns) for name in ways}
        shown = ", ".join(f"{name} {number:.3f} s" for name, number in found.items())
        slow = ("naive", "old") if old else ("naive",)
        ratios = [f"{fast} {found[name] / found[fast]:.1f} x {name}" for fast in ("forced", "replay") for name in slow]
        print(f"{builder}: {shown}; {', '.join(ratios)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
