"""Workers share one trace: what its file takes, and what each process that reads it takes of its own.

    python benchmarks/trace_memory.py [--tokens 32768] [--layers 2] [--workers 2]

Layers of Llama-3.1-8B (32 query and 8 KV heads of 128) in bf16, of random numbers. Every process maps the file, reads
all of it and replays a stack. Prints MiB of each: what is its own (USS), and what it shares (RSS less USS).
"""

import argparse
import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from sahub import build_stack
from sahub.engine.record import bytes_of_layer
from sahub.engine.replay import replay
from sahub.engine.trace import Layers, Trace
from sahub.engine.traces import read_trace, write_trace

HEADS, KV_HEADS, WIDTH = 32, 8, 128
QUESTION, ANSWER = 16, 16  # rows that are kept
STACK = [{"name": "sink", "sink_size": 8}, {"name": "local", "window_size": 64}]


def made(tokens: int, layers: int) -> Trace:
    """A trace of random numbers."""
    rows = QUESTION + ANSWER
    group = Layers(
        numbers=tuple(range(layers)),
        scale=WIDTH**-0.5,
        softcap=None,
        keys=torch.randn(layers, KV_HEADS, tokens, WIDTH).bfloat16(),
        values=torch.randn(layers, KV_HEADS, tokens, WIDTH).bfloat16(),
        queries=torch.randn(layers, HEADS, rows, WIDTH).bfloat16(),
        outputs=torch.randn(layers, rows, HEADS, WIDTH),
        sinks=None,
    )
    return Trace(length=tokens - rows, example=0, question=QUESTION, rows=tuple(range(rows)), groups=[group])


def work(file: Path, channel: Connection) -> None:
    """Before and after the trace was read, and once more while all others hold it."""
    torch.set_num_threads(1)
    channel.send(_memory())
    trace = read_trace(file, torch.device("cpu"))
    assert trace is not None
    for group in trace.groups:
        for tensor in (group.keys, group.values, group.queries, group.outputs):
            tensor.view(-1)[::512].float().sum()  # touches every page
    channel.send(_memory())
    channel.recv()
    channel.send(_memory())
    replay(trace, build_stack(STACK))
    channel.send(_memory())
    channel.recv()


def _memory() -> dict[str, float]:
    """MiB of this process."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text("utf-8").splitlines()[1:])
    kib = {line[0].rstrip(":"): int(line[1]) for line in lines}
    own = kib["Private_Clean"] + kib["Private_Dirty"]
    return {"shared": (kib["Rss"] - own) / 1024, "own": own / 1024}


def main() -> None:
    """Print a line per process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.safetensors"
        write_trace(file, made(options.tokens, options.layers))
        each = bytes_of_layer(options.tokens, QUESTION + ANSWER, (HEADS, KV_HEADS), (WIDTH, WIDTH), 2)
        print(  # noqa: T201
            f"{options.layers} layers of {options.tokens} tokens: {options.layers * each / 2**20:.0f} MiB by the "
            f"formula, {file.stat().st_size / 2**20:.0f} MiB in the file"
        )
        pipes = [spawn.Pipe() for _ in range(options.workers)]
        workers = [spawn.Process(target=work, args=(file, theirs)) for _, theirs in pipes]
        for worker in workers:
            worker.start()
        before, _ = ([ours.recv() for ours, _ in pipes] for _ in range(2))
        for ours, _ in pipes:
            ours.send(None)
        held, replayed = ([ours.recv() for ours, _ in pipes] for _ in range(2))
        for number, stages in enumerate(zip(before, held, replayed, strict=True)):
            named = zip(("before", "with the trace", "after a replay"), stages, strict=True)
            shown = (f"{name}: own {mib['own']:.0f}, shared {mib['shared']:.0f}" for name, mib in named)
            print(f"worker {number}, MiB: {'; '.join(shown)}")  # noqa: T201
        for ours, _ in pipes:
            ours.send(None)
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()
