"""What questions of a context gain by being answered together: `python benchmarks/many_rows.py models=embedded`.

Quest at 10 % on one context of `tokens=4096`, `questions=8`, 32-token answers, one thread: questions a second one by
one and together, in pairs that alternate, and the median of their ratios; prefix and indexes are there before.
With `models=smollm2` for SmolLM2 (see conf/model/smollm2.yaml). Seconds are the thread's own.
"""

import sys
import time
from statistics import median

import torch
from arguments import given

import sahub
from sahub.config.cell import compose_cell
from sahub.data import vocabulary
from sahub.engine.session import Attention, Session

STACK = [{"name": "sink", "sink_size": 8}, {"name": "local", "window_size": 32}, {"name": "quest", "density": 0.1}]
ANSWER = 32


def main(*arguments: str) -> None:
    """Print a line for every model."""
    asked = given({"models": "embedded", "tokens": "4096", "questions": "8", "pairs": "3"}, arguments)
    torch.set_num_threads(1)
    for name in asked["models"].split(","):
        told(name, int(asked["tokens"]), int(asked["questions"]), int(asked["pairs"]))


def opened(name: str, tokens: int) -> tuple[Session, tuple[int, ...]]:
    """A session with a model whose answers are as long as they may be, and a context of about so many tokens."""
    loaded = sahub.load_model(compose_cell([f"model={name}"]).settings.model.path or name).model
    loaded.stop_ids = frozenset()
    line = f"\n{vocabulary.NOISE}"
    text = vocabulary.instruction() + line * (tokens // loaded.count_tokens(line))
    return Session(loaded), tuple(loaded.context_ids(text))


def told(name: str, tokens: int, num: int, pairs: int) -> None:
    """The line of one model."""
    session, context = opened(name, tokens)
    loaded = session.model
    questions = [loaded.question_ids(vocabulary.question(f"quiet-river-{number}"), "") for number in range(num)]
    prefix = session.prefix(context, max(map(len, questions)) + ANSWER)
    attention = Attention(stack=sahub.build_stack(STACK), measure=0)

    def one_by_one() -> list[list[int]]:
        return [session.generate(prefix, one, attention, max_new_tokens=ANSWER).ids for one in questions]

    def together() -> list[list[int]]:
        found: list[list[int]] = [[] for _ in questions]
        for numbers in session.batches(prefix, questions, attention):
            asked = [questions[number] for number in numbers]
            runs = session.generate_together(prefix, asked, attention, [ANSWER] * len(asked))
            for number, run in zip(numbers, runs, strict=True):
                found[number] = run.ids
        return found

    session.generate(prefix, questions[0], attention, max_new_tokens=2)  # makes the indexes
    seconds, same = [], True
    for _ in range(pairs):
        marks, answers = [time.thread_time()], []
        for way in (one_by_one, together):
            answers.append(way())
            marks.append(time.thread_time())
        seconds.append((marks[1] - marks[0], marks[2] - marks[1]))
        same &= answers[0] == answers[1]
    alone, many = (num / median(one) for one in zip(*seconds, strict=True))
    ratio = median(one / other for one, other in seconds)
    sys.stdout.write(
        f"{name}: {prefix.length} tokens, {num} questions: {alone:.2f} questions a second one by one, {many:.2f} "
        f"together, {ratio:.2f} x; answers {'equal' if same else 'DIFFER'}\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
