"""What every method keeps of seeded calls, as it was stored: faster code must choose the same keys.

`python tests/golden/test_selections.py` stores the selections of the code as it is in selections.json.
"""

import base64
import json
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hash_files import hash_fields
from omegaconf import OmegaConf

from sahub.builders.build import build_stack

FILE = Path(__file__).with_name("selections.json")
BUDGET, PAD, ROWS = 0.15, 17, 3
SHAPES = [(1, 4, 1, 16, 110), (1, 8, 4, 16, 220), (2, 4, 2, 32, 330)]  # batch, query heads, KV heads, head_dim, keys
OTHERS = {
    "quest, 16 bits": {"name": "quest", "density": BUDGET, "page_size": 4},
    "quest, union": {"name": "quest", "density": BUDGET, "page_size": 8, "group": "union"},
    "quest, sum": {"name": "quest", "density": BUDGET, "page_size": 8, "group": "sum"},
    "quest, max": {"name": "quest", "density": BUDGET, "page_size": 8, "group": "max", "label_bits": 2},
    "quest, top_p": {"name": "quest", "select": {"top_p": 0.6}, "page_size": 4},
    "double_sparsity, 16 bits": {"name": "double_sparsity", "density": BUDGET, "label_bits": 16, "group_factor": 4},
    "double_sparsity, 3 bits": {"name": "double_sparsity", "heavy_size": 20, "label_bits": 3, "group_factor": 2},
    "pqcache, ip": {"name": "pqcache", "density": BUDGET, "pq_group_factor": 4, "pq_bits": 4, "metric": "ip"},
    "expected_attention, score": {"name": "expected_attention", "density": BUDGET, "window_size": 2, "rank": "score"},
    "snapkv, max": {"name": "snapkv", "density": BUDGET, "window_size": 2, "pooling": "max"},
    "magic_pig, simple_lsh": {"name": "magic_pig", "lsh_l": 20, "lsh_k": 4, "transform": "simple_lsh"},
    "oracle_top_k, values": {"name": "oracle_top_k", "density": BUDGET, "rank": "value_weighted"},
}


@cache
def stacks() -> dict:
    """The builders of conf/, and stages with other fields after a sink."""
    found = {name: [{"name": "sink", "sink_size": 2}, stage] for name, stage in OTHERS.items()}
    for path in sorted({*Path("conf/builder").glob("*.yaml")} - {Path("conf/builder/compose.yaml")}):
        objective = {"budget": BUDGET, "budget_max": BUDGET, "budget_search": {}}
        config = OmegaConf.merge(OmegaConf.load(path), {"objective": objective})
        found[path.stem] = OmegaConf.to_container(config, resolve=True)["stages"]
    return found


def keeps(stages, shape) -> list[list[torch.Tensor]]:
    """Inclusion probabilities at some rows and at the one after them, without and with padding: fp32 [b, h, q, k]."""
    batch, heads, groups, dim, keys = shape
    noise = torch.Generator().manual_seed(keys)
    q = torch.randn(batch, heads, ROWS + 1, dim, generator=noise) * 2
    k, v = (torch.randn(batch, groups, keys, dim, generator=noise) for _ in range(2))
    if "hash_attention" in stages:
        fields = hash_fields(heads=heads, head_dim=dim)
        stages = {**stages, "hash_attention": {**stages["hash_attention"], **fields}}
    valid = torch.arange(keys) >= torch.tensor([PAD, 0][:batch])[:, None]
    found = []
    for mask in (None, valid):
        state = build_stack(stages, density=BUDGET).new_state(layer=0, seed=1)
        start = keys - ROWS - 1
        for end in (start, keys - 1, keys):
            new = slice(state.length, end)
            state.append(k[:, :, new], v[:, :, new], None if mask is None else mask[:, new])
            if end == start:
                state.freeze()
                continue
            chosen = state.select(q[:, :, new.start - start : end - start], k[:, :, :end], v[:, :, :end])
            found.append(chosen.probabilities())
    return found


def text_of(chances: list[torch.Tensor]) -> list[str]:
    """Which keys are kept, as packed bits, and the probabilities of those that were sampled, as fp16."""
    flat = torch.cat([one.flatten() for one in chances])
    drawn = flat[flat > 0]
    parts = [np.packbits(flat.numpy() > 0).tobytes()]
    if bool((drawn < 1).any()):
        parts.append(drawn.half().numpy().tobytes())
    return [base64.b85encode(zlib.compress(part, 9)).decode() for part in parts]


@cache
def stored() -> dict:
    return json.loads(FILE.read_text())


def of_text(parts: list[str], shapes: list[torch.Size]) -> list[torch.Tensor]:
    """What `text_of` wrote down of tensors of these shapes."""
    sizes = [shape.numel() for shape in shapes]
    raw = [zlib.decompress(base64.b85decode(part)) for part in parts]
    kept = torch.from_numpy(np.unpackbits(np.frombuffer(raw[0], np.uint8))[: sum(sizes)].astype(np.float32))
    if len(raw) > 1:
        kept[kept > 0] = torch.from_numpy(np.frombuffer(raw[1], np.float16).astype(np.float32))
    return [one.view(shape) for one, shape in zip(kept.split(sizes), shapes, strict=True)]


@pytest.mark.parametrize("name", stacks())
def test_a_stack_keeps_what_it_kept(name: str) -> None:
    for shape, text in zip(SHAPES, stored()[name], strict=True):
        found = keeps(stacks()[name], shape)
        for now, then in zip(found, of_text(text, [one.shape for one in found]), strict=True):
            torch.testing.assert_close(now.half().float(), then, atol=1e-3, rtol=1e-3)


def main() -> None:
    """Store what every stack keeps."""
    FILE.write_text(
        json.dumps(
            {name: [text_of(keeps(stages, shape)) for shape in SHAPES] for name, stages in stacks().items()},
            indent=0,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
