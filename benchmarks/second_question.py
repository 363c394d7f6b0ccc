"""What a second question about a context costs, as a share of the first: `python benchmarks/second_question.py`.

The first pays for the prefill of 4,096 tokens, the second rewinds it. Median of nine pairs, one process, one thread.
"""

import argparse
import statistics
import sys
import time

import torch

import sahub
from sahub.data import vocabulary

STACK = [{"name": "sink", "sink_size": 8}, {"name": "local", "window_size": 32}, {"name": "quest", "density": 0.1}]


def main() -> None:
    """Print the ratio for dense and for sparse answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--new-tokens", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = sahub.load_model("embedded")
    line = f"\n{vocabulary.NOISE}"
    text = vocabulary.instruction() + line * (options.tokens // model.model.count_tokens(line))
    for name, stack in (("dense", None), ("quest at 10 %", sahub.build_stack(STACK))):
        ratios = []
        for repeat in range(options.repeats + 1):
            context = f"{name} {repeat}\n{text}"  # a context never seen before

            def seconds(key: str, context: str = context, stack: sahub.attention.stack.Stack | None = stack) -> float:
                begin = time.perf_counter()
                model.answer(context, vocabulary.question(key), stack, max_new_tokens=options.new_tokens)
                return time.perf_counter() - begin

            first, second = seconds("quiet-river"), seconds("golden-lion")
            ratios.append(second / first)
        median = statistics.median(ratios[1:])  # the first pair warms up
        sys.stdout.write(f"{name}: question 2 / question 1 = {median:.3f} (median of {options.repeats})\n")


if __name__ == "__main__":
    main()
