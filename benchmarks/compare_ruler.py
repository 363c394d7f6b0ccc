"""RULER's prompts as its authors make them beside ours: dense accuracy of one model on both, task by task.

    python benchmarks/compare_ruler.py FOLDER --model smollm2

FOLDER holds <task>/validation.jsonl as RULER's own scripts write them (model_template_type base). No chat template:
one BOS and the prompt as it stands. Greedy answers of a batch of prompts, each ended once it holds all that is asked,
which no further token can take back. Results go to a file, task by task; what is there is not made again.
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from sahub import scores
from sahub.config.cell import compose_cell
from sahub.data.examples import Example, Question
from sahub.data.loading import load_examples
from sahub.doctor import batched
from sahub.engine.model import Model
from sahub.engine.requests import load
from sahub.models.weights import spec_of
from sahub.stats.intervals import holm, mean_interval

TASKS = (
    "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3",
    "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe",
)  # fmt: skip


def prompts(task: str, side: str, options: argparse.Namespace, model: Model) -> list[tuple[str, Question]]:
    """Whole prompts with their questions. Theirs hold no line break before the start of the answer, ours do."""
    path = [f"task.path={options.folder}"] if side == "theirs" else []
    spec = spec_of(compose_cell([f"task=ruler/{task}", *path]))
    limits = {"length": options.length - 1, "count_tokens": model.count_tokens, "seed": 0}
    found: list[Example] = []
    for split in ("validate", "search"):
        found += load_examples(spec, split=split, limit=None if path else options.n, **limits)
    line = "" if side == "theirs" else "\n"
    whole = [
        (f"{example.context}{question.text}{line}{question.answer_prefix}", question)
        for example in found
        for question in example.questions
    ]
    return whole[: options.n]


def answers(
    model: Model, asked: list[tuple[str, Question]], task: str, options: argparse.Namespace
) -> list[tuple[float, int]]:
    """The score of every answer, and the tokens of its prompt."""
    bos = model.tokenizer.bos_token_id
    ids = [[*([] if bos is None else [bos]), *model.encode(text)] for text, _ in asked]
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    found: dict[int, float] = {}
    for start in range(0, len(order), options.batch):
        batch = order[start : start + options.batch]
        prompts = [
            batched.Prompt(ids=tuple(ids[i]), max_new_tokens=min(asked[i][1].max_new_tokens, options.tokens))
            for i in batch
        ]

        def is_over(row: int, answer: list[int], batch: list[int] = batch) -> bool:
            return _score(model, answer, asked[batch[row]][1], task) == 1.0

        for index, answer in zip(batch, batched.answers(model, prompts, is_over), strict=True):
            found[index] = _score(model, answer, asked[index][1], task)
    return [(found[index], len(ids[index])) for index in range(len(ids))]


def _score(model: Model, ids: list[int], question: Question, task: str) -> float:
    return scores.score(f"ruler/{task}", model.decode(ids), question.references)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The difference of two means of scores in [0, 1] and its 95 % interval: that of each, joined as Newcombe does."""
    one, other = mean_interval(ours), mean_interval(theirs)
    mean = one.mean - other.mean
    down = math.hypot(one.mean - one.low, other.high - other.mean)
    return mean, mean - down, mean + math.hypot(one.high - one.mean, other.mean - other.low)


def permuted(ours: Sequence[float], theirs: Sequence[float], draws: int = 20_000) -> float:
    """How often scores that are dealt out at random differ as much: a two-sided p."""
    rng, pool, n = random.Random(0), [*ours, *theirs], len(ours)
    seen, count = abs(fmean(ours) - fmean(theirs)), 0
    for _ in range(draws):
        rng.shuffle(pool)
        count += abs(fmean(pool[:n]) - fmean(pool[n:])) >= seen - 1e-12
    return (count + 1) / (draws + 1)


def table(results: dict[str, dict[str, list[list[float]]]]) -> str:
    """A row per task: tokens and accuracies with their number, the difference, its interval and Holm's p."""
    found = {task: sides for task, sides in results.items() if {"ours", "theirs"} <= sides.keys()}
    of = {task: [[score for score, _ in sides[side]] for side in ("ours", "theirs")] for task, sides in found.items()}
    rows = []
    for (task, sides), p in zip(found.items(), holm([permuted(*pair) for pair in of.values()]), strict=True):
        mean, low, high = difference(*of[task])
        counts = " | ".join(_counted(sides[side]) for side in ("theirs", "ours"))
        rows.append(f"| {task} | {counts} | {100 * mean:+.1f} [{100 * low:+.0f},{100 * high:+.0f}] | {p:.2g} |")
    head = "| task | theirs, % (n, tokens) | ours, % (n, tokens) | ours - theirs | p, Holm |\n|---|---|---|---|---|"
    return "\n".join([head, *rows])


def _counted(side: list[list[float]]) -> str:
    tokens = [int(count) for _, count in side]
    return f"{100 * fmean(score for score, _ in side):.1f} ({len(side)}, {min(tokens)}-{max(tokens)})"


def main() -> None:
    """Answer what is not answered yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument(
        "--tokens", type=int, default=64, help="of an answer, at most; the task's number where it is less"
    )
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--tasks", nargs="*", default=TASKS)
    parser.add_argument("--results", type=Path, default=Path("compare_ruler.json"))
    options = parser.parse_args()
    model = load(compose_cell([f"model={options.model}", "protocol.template=none"]))
    results = json.loads(options.results.read_text("utf-8")) if options.results.exists() else {}
    for task in options.tasks:
        for side in ("theirs", "ours"):
            if side not in results.setdefault(task, {}):
                begin = time.perf_counter()
                results[task][side] = answers(model, prompts(task, side, options, model), task, options)
                options.results.write_text(json.dumps(results), "utf-8")
                sys.stderr.write(f"{task} {side} {time.perf_counter() - begin:.0f} s\n")
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
