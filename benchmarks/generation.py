"""Milliseconds of a generated token, sparse beside dense, as a search pays them: `python benchmarks/generation.py`.

One context of `tokens=4096`, one question, `answer=32` tokens, one thread; builders' own values at `objective=`. Each
round generates with every stack in turn, forth and back; a token is the difference between an answer of that length and
of one token. Dense is the model's own attention. `models=smollm2` for SmolLM2 (see conf/model/smollm2.yaml).
Seconds are the thread's own.
"""

import sys
import time
from dataclasses import replace
from statistics import median

import torch
from arguments import given
from many_rows import opened

from sahub.config.cell import compose_cell
from sahub.data import vocabulary
from sahub.engine.session import Attention
from sahub.search.trial import attention_of


def main(*arguments: str) -> None:
    """Print a line for every builder."""
    usual = {"models": "embedded", "tokens": "4096", "answer": "32", "rounds": "5", "objective": "sparsity_10"}
    asked = given({**usual, "builders": "quest,pqcache,snapkv,streaming_llm"}, arguments)
    torch.set_num_threads(1)
    for name in asked["models"].split(","):
        told(name, asked)


def told(name: str, asked: dict[str, str]) -> None:
    """The lines of one model."""
    session, context = opened(name, int(asked["tokens"]))
    most = int(asked["answer"])
    question = session.model.question_ids(vocabulary.question("quiet-river-1"), "")
    prefix = session.prefix(context, len(question) + most + 1)
    ways = {"dense": Attention()}
    for builder in asked["builders"].split(","):
        cell = compose_cell([f"model={name}", f"builder={builder}", f"objective={asked['objective']}"])
        ways[builder] = replace(attention_of(cell, ()), measure=0)

    def seconds(way: Attention) -> float:
        marks = [time.thread_time()]
        for length in (1, most + 1):
            session.generate(prefix, question, way, max_new_tokens=length)
            marks.append(time.thread_time())
        return (marks[2] - marks[1] - (marks[1] - marks[0])) / most

    found: dict[str, list[float]] = {builder: [] for builder in ways}
    for number in range(int(asked["rounds"]) + 1):
        for builder in sorted(ways, reverse=bool(number % 2)):
            took = seconds(ways[builder])
            if number:  # the first makes the indexes
                found[builder].append(took)
    for builder, each in found.items():
        ratio = median(dense / one for dense, one in zip(found["dense"], each, strict=True))
        sys.stdout.write(
            f"{name}, {prefix.length} tokens, {builder}: {1e3 * median(each):.1f} ms a token, {ratio:.2f} x\n"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
