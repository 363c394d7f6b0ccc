"""What one more token costs every index, at 4k, 16k and 64k keys: `python benchmarks/append_cost.py`.

Microseconds of appending one key to the frozen index of one layer (8 KV heads of 64 channels; hash_attention: 4 of
32, as its packaged weights are), median of 50.
"""

import sys
import time
from statistics import median

import torch

from sahub.builders.build import build_stack

STAGES = {
    "quest": {"page_size": 16, "label_bits": 4},
    "double_sparsity": {"group_factor": 8},
    "pqcache": {"kmeans_iter": 1},
    "hash_attention": {
        "weights": "embedded", "hat_bits": 32, "hat_mlp_layers": 3, "hat_mlp_hidden_size": 128,
        "hat_mlp_activation": "silu",
    },
    "socket": {"lsh_l": 55, "lsh_k": 11},
    "magic_pig": {"lsh_l": 50, "lsh_k": 8},
    "snapkv": {},
    "tova": {},
    "expected_attention": {},
}  # fmt: skip
WITHOUT_BUDGET = {"magic_pig"}
HEADS = {"hash_attention": (4, 32)}
LENGTHS = (4096, 16384, 65536)


def main() -> None:
    """Print a row per method; exit 1 where 64k costs more than three times what 4k does."""
    torch.set_num_threads(1)
    slow = []
    sys.stdout.write(f"{'us per token':18}" + "".join(f"{length:>10}" for length in LENGTHS) + "\n")
    for name, fields in STAGES.items():
        stage = {"name": name, **fields, **({} if name in WITHOUT_BUDGET else {"density": 0.1})}
        costs = [cost(stage, length) for length in LENGTHS]
        sys.stdout.write(f"{name:18}" + "".join(f"{one:10.0f}" for one in costs) + "\n")
        slow += [name] if costs[-1] > 3 * costs[0] else []
    sys.exit(f"not O(1): {', '.join(slow)}" if slow else 0)


def cost(stage: dict, length: int) -> float:
    """Median microseconds of one append."""
    noise = torch.Generator().manual_seed(0)
    heads, channels = HEADS.get(stage["name"], (8, 64))
    k = torch.randn(1, heads, length, channels, generator=noise)
    state = build_stack([{"name": "sink", "sink_size": 4}, stage]).new_state(layer=0)
    state.append(k, k)
    state.freeze()
    token = k[:, :, :1]
    state.append(token, token)  # makes room
    seconds = []
    for _ in range(50):
        begin = time.perf_counter()
        state.append(token, token)
        seconds.append(time.perf_counter() - begin)
    return median(seconds) * 1e6


if __name__ == "__main__":
    main()
