"""What a decoding step costs beside dense attention: `python benchmarks/decode_step.py lengths=32768 methods=quest`.

One layer of 32 query and 8 KV heads of 128 channels, 5 % of the keys, one thread unless `threads=`, `dtype=float32`;
after `watched=33` rows, which observers of kept sets see; keys and values lie as in a context of the engine.
A row per stack: milliseconds of append, select and attend, medians of `runs=5` steps that alternate with dense ones;
megabytes that a step has to read; and how many times as fast as the best way to attend to everything it is. With one
thread, milliseconds are the thread's own: other work on the machine is not counted.
"""

import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from arguments import given
from safetensors.torch import save_file
from torch import Tensor

from sahub.attention.buffers import apart
from sahub.attention.call import Geometry
from sahub.attention.stack import Stack, StackState
from sahub.builders.build import build_stack
from sahub.engine.call_stats import Inputs
from sahub.timing.clock import Clock, clock_of
from sahub.timing.step import PLAIN, sparse_step
from sahub.timing.step import dense_step as timed_way

HEADS, KV_HEADS, DIM, DENSITY, WATCHED = 32, 8, 128, 0.05, 33
SINK, LOCAL = {"name": "sink", "sink_size": 128}, {"name": "local", "window_size": 128}
OURS = {
    "streaming_llm": {"name": "local"},
    "quest": {"page_size": 16, "label_bits": 16},
    "quest:4bit": {"page_size": 16, "label_bits": 4},
    "quest:max": {"page_size": 16, "label_bits": 16, "group": "max"},
    "quest:4bit:max": {"page_size": 16, "label_bits": 4, "group": "max"},
    "double_sparsity": {},
    "double_sparsity:max": {"group": "max"},
    "pqcache": {},
    "pqcache:max": {"group": "max"},
    "hash_attention": {},
    "hash_attention:max": {"group": "max"},
    "snapkv": {},
    "snapkv:max": {"group": "max"},
    "tova": {},
    "expected_attention": {},
    "expected_attention:max": {"group": "max"},
    "magic_pig": {"lsh_l": 75, "lsh_k": 10},
    "socket": {"lsh_l": 55, "lsh_k": 11},
    "oracle_top_k": {},
    "random_sampling": {},
    "adaptive_sampling": {"max_density": 0.1, "base_rate_sampling": {"of_budget": 0.2, "at_least": 2}},
}
FOLDER = TemporaryDirectory()  # of the weights of hash_attention
DTYPES = ("float32", "bfloat16", "float16")
WITHOUT_DENSITY = {"magic_pig", "adaptive_sampling"}


@torch.inference_mode()
def main(*arguments: str) -> None:
    """Print a table for every length."""
    usual = {"methods": ",".join(OURS), "lengths": "32768", "runs": "5", "threads": "1", "dtype": "float32"}
    asked = given({**usual, "watched": str(WATCHED)}, arguments, {"methods": OURS, "dtype": DTYPES})
    torch.set_num_threads(int(asked["threads"]))
    clock = clock_of(torch.device("cpu"), int(asked["threads"]))
    for length in map(int, asked["lengths"].split(",")):
        sys.stdout.write(f"\n{length} keys, {asked['dtype']}, {asked['threads']} thread(s); milliseconds\n")
        sys.stdout.write(
            f"{'':24}{'append':>8}{'select':>8}{'attend':>8}{'sum':>8}{'dense':>8}{'MB':>8}{'x dense':>9}\n"
        )
        room = int(asked["watched"]) + int(asked["runs"]) + 1
        keys = Keys(length, getattr(torch, asked["dtype"]), room=room)
        for name in asked["methods"].split(","):
            sys.stdout.write(row(name, keys, int(asked["runs"]), clock, int(asked["watched"])) + "\n")
            sys.stdout.flush()


class Keys:
    """Keys and values of a cache with room for some more, as the engine holds them, and queries for each step."""

    def __init__(self, length: int, dtype: torch.dtype, device: str = "cpu", *, room: int = 128) -> None:
        self.length, room, noise = length, length + room, torch.Generator().manual_seed(0)
        mean = torch.randn(1, KV_HEADS, 1, DIM, generator=noise)  # keys of a model have one
        keys = torch.randn(1, KV_HEADS, room, DIM, generator=noise) + mean
        values = torch.randn(1, KV_HEADS, room, DIM, generator=noise)
        self.k, self.v = (apart(one.shape, one).copy_(one) for one in (x.to(device, dtype) for x in (keys, values)))
        self.q = torch.randn(1, HEADS, room, DIM, generator=noise).to(device, dtype)

    def call(self, start: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """q of the rows from start to end, and all keys and values up to end."""
        return self.q[:, :, start:end], self.k[:, :, :end], self.v[:, :, :end]

    def inputs(self, end: int) -> Inputs:
        """The call of the row whose key is the last of `end`."""
        return Inputs(*self.call(end - 1, end), mask=None, scale=DIM**-0.5)


def row(name: str, keys: Keys, runs: int, clock: Clock, watched: int) -> str:
    """A line of the table."""
    stack = stack_of(name)
    state, end = prefilled(stack, keys, watched), keys.length + watched
    step(state, keys, end, clock)  # makes room
    ends = range(end + 1, end + 1 + runs)
    seconds = [step(state, keys, one, clock) + dense_step(keys, one, clock) for one in ends]
    append, select, attended, *dense = (median(part) * 1e3 for part in zip(*seconds, strict=True))
    total, best = append + select + attended, min(dense)
    ratio = median(min(one[3:]) / sum(one[:3]) for one in seconds)
    size = megabytes(stack, state, keys, end + runs)
    return f"{name:24}{append:8.1f}{select:8.1f}{attended:8.1f}{total:8.1f}{best:8.1f}{size:8.1f}{ratio:9.2f}"


def stack_of(name: str) -> Stack:
    """Sink, window and a method at its builder's own fields, or streaming_llm."""
    method = name.partition(":")[0]
    stage = {"name": method, **OURS[name]}
    if method not in WITHOUT_DENSITY:
        stage["density"] = DENSITY
    if method == "hash_attention":
        stage |= hash_weights()
    stages = [SINK, stage] if method == "streaming_llm" else [SINK, LOCAL, stage]
    return build_stack(stages, density=0.1 if method == "adaptive_sampling" else DENSITY)


def hash_weights() -> dict:
    """Fields of hash_attention with weights of this geometry, one linear function of 32 bits for each KV head."""
    noise, file = torch.Generator().manual_seed(0), Path(FOLDER.name) / "hashes.safetensors"
    tensors = {
        f"layers.0.{side}.0.weight": torch.randn(KV_HEADS, DIM, 32, generator=noise) for side in ("query", "key")
    }
    save_file(tensors | {f"layers.0.{side}.0.bias": torch.zeros(KV_HEADS, 32) for side in ("query", "key")}, file)
    return {"weights": str(file), "hat_bits": 32, "hat_mlp_layers": 1, "hat_mlp_hidden_size": 1}


def prefilled(stack: Stack, keys: Keys, watched: int = WATCHED) -> StackState:
    """A state whose prefix has ended, and whose observers have seen their rows."""
    state = stack.new_state(layer=0)
    state.append(keys.k[:, :, : keys.length], keys.v[:, :, : keys.length])
    state.freeze()
    state = state.fork()  # as for a question of the engine, which appends to a copy
    for end in range(keys.length + 1, keys.length + watched):
        state.append(keys.k[:, :, end - 1 : end], keys.v[:, :, end - 1 : end])
        state.observe(*keys.call(end - 1, end))
    return state


def step(state: StackState, keys: Keys, end: int, clock: Clock) -> tuple[float, ...]:
    """Seconds of append, select and attend for the row whose key is the last of `end`."""
    return sparse_step(state, keys.inputs(end), clock)[-1].values[:3]


def dense_step(keys: Keys, end: int, clock: Clock) -> tuple[float, ...]:
    """Seconds of each way to attend to everything."""
    return tuple(timed_way(way, keys.inputs(end), clock)[-1].attend for way in PLAIN.values())


def megabytes(stack: Stack, state: StackState, keys: Keys, end: int) -> float:
    """What a step has to read: the chosen keys and values, once for each block that is chosen alone, and the index."""
    selection = state.select(*keys.call(end - 1, end))
    units = HEADS if selection.slots.shape[1] == HEADS else KV_HEADS
    chosen = float(selection.num_kept().double().mean()) * units * 2 * DIM * keys.k.element_size()
    geometry = Geometry(num_layers=1, num_heads=HEADS, num_kv_heads=KV_HEADS, head_dim=DIM)
    return (chosen + stack.aux_bits(geometry, end) * end * KV_HEADS / 8) / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])
