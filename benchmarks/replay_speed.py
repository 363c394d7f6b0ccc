"""Replay and teacher forcing beside the naive flow: `python benchmarks/replay_speed.py [--old=FOLDER] model=...`.

Prints the median seconds of a context and stack, of one thread and without those of its neighbours, and ratios; with
`--stacks` those of eight stacks of quest that share an index, after each other:

naive    load the model, prefill and generate the answer with the stack, as a trial that keeps nothing; once
old      forced by a checkout of commit 0059f21 in FOLDER, by the Python of its .venv, in turns with what follows
forced   question and dense answer through the model
replay   on their trace

Further arguments are overrides of a search (model.dtype=bfloat16, objective=sparsity_5; task.length=4096 with
search.max_context_length=4096).
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

from sahub.config.cell import Cell, compose_cell
from sahub.engine.requests import Prepared, load
from sahub.engine.session import Attention, Session
from sahub.search.objective import reads_errors
from sahub.search.trial import attention_of

BUILDERS = {name: [[f"builder={name}"]] for name in ("quest", "streaming_llm", "double_sparsity", "pqcache", "snapkv")}
DENSITIES = 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15
STACKS = {"8 stacks of quest": [["builder=quest", f"builder.stages.quest.density={one}"] for one in DENSITIES]}
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


def attention(cell: Cell) -> Attention:
    """The builder's own stack, as a search asks it."""
    how = attention_of(cell, ())
    return how if reads_errors(cell.settings.objective) else replace(how, measure=0)


def main() -> None:
    """Print a line per builder, or of all stacks."""
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

    for name, stacks in (STACKS if "--stacks" in sys.argv else BUILDERS).items():
        every = [[*given, *stack] for stack in stacks]
        hows = [attention(compose_cell(at)) for at in every]
        ways: dict[str, Callable[[], float]] = {}
        if old is not None:
            ways["old"] = lambda: sum(old.forced(at) for at in every)  # noqa: B023
        ways["forced"] = lambda: sum(seconds(session.force, prefix, question, answer, how) for how in hows)  # noqa: B023
        ways["replay"] = lambda: sum(seconds(session.replay, prefix, question, answer, how) for how in hows)  # noqa: B023
        for took in ways.values():
            took()
        turns = [{way: took() for way, took in ways.items()} for _ in range(TURNS)]
        found = {"naive": sum(seconds(naive, how) for how in hows)}
        found |= {way: median(turn[way] for turn in turns) for way in ways}
        shown = ", ".join(f"{way} {number:.3f} s" for way, number in found.items())
        slow = ("naive", "old") if old else ("naive",)
        ratios = [f"{fast} {found[way] / found[fast]:.1f} x {way}" for fast in ("forced", "replay") for way in slow]
        print(f"{name}: {shown}; {', '.join(ratios)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
