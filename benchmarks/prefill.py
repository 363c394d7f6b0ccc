"""A context that passes in pieces, which are joined, beside one pass: `python benchmarks/prefill.py model=smollm2`.

Prints CPU seconds of one thread, medians of runs that alternate, and the most bytes that were held beside what was
there before, keys and values included, for a context of `tokens=4096` random tokens; `pieces=512,1024,8192` are the
tokens that pass together, the last the one that the others are compared with. Further arguments are overrides of a
search.
"""

import sys
import time
from statistics import median

import torch

from sahub.config.cell import compose_cell
from sahub.engine.contexts.prefill import prefill
from sahub.engine.contexts.store import trim
from sahub.engine.requests import load
from sahub.timing.clock import peak

ROUNDS = 4  # the first is not counted


def main(*arguments: str) -> None:
    """Print a line for every size of the pieces."""
    torch.set_num_threads(1)
    given = {"tokens": "4096", "pieces": "512,1024,8192"}
    own = [argument for argument in arguments if argument.partition("=")[0] in given]
    given |= dict(argument.split("=", 1) for argument in own)
    rest = [argument for argument in arguments if argument not in own]
    model = load(compose_cell(["task=ruler/niah_single_1", *rest]))
    vocabulary = model.hf.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, (1, int(given["tokens"])), generator=torch.Generator().manual_seed(0))
    pieces = [int(one) for one in given["pieces"].split(",")]
    seconds: dict[int, list[float]] = {piece: [] for piece in pieces}
    most: dict[int, int] = {}
    for number in range(ROUNDS):
        for piece in pieces[:: -1 if number % 2 else 1]:
            trim()
            with peak(model.device) as held:
                begin = time.process_time()
                prefix = prefill(model.hf, ids, room=16, chunk=piece)
                took = time.process_time() - begin
            most[piece] = max(most.get(piece, 0), held.added or 0)
            seconds[piece] += [took] * (number > 0)
            del prefix
    for piece in pieces:
        ratios = [one / whole for one, whole in zip(seconds[piece], seconds[pieces[-1]], strict=True)]
        sys.stdout.write(
            f"{piece} at once: {median(seconds[piece]):.2f} s ({median(ratios):.2f} x), {most[piece] / 2**20:.0f} MiB\n"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
