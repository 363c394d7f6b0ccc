"""What an index holds while it is built."""

import pytest
import torch
from hash_files import hash_fields
from temporaries import Largest

from sahub.builders.build import build_stack

HEADS, KEYS, DIM = 4, 16384, 32
STAGES = [
    {"name": "quest", "page_size": 16},
    {"name": "double_sparsity", "group_factor": 8},
    {"name": "pqcache", "pq_group_factor": 2, "pq_bits": 4, "kmeans_iter": 1},
    {"name": "magic_pig", "lsh_l": 20, "lsh_k": 8},
    {"name": "magic_pig", "lsh_l": 20, "lsh_k": 8, "transform": "simple_lsh"},
    {"name": "socket", "lsh_l": 20, "lsh_k": 8},
    {"name": "hash_attention"},
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage["name"])
def test_an_index_is_built_without_a_tensor_as_large_as_the_keys(stage):
    if stage["name"] == "hash_attention":
        stage = stage | hash_fields(heads=HEADS, head_dim=DIM)
    keys = torch.randn(1, HEADS, KEYS, DIM, generator=torch.Generator().manual_seed(0))
    budget = {} if stage["name"] == "magic_pig" else {"density": 0.1}
    state = build_stack([stage | budget]).new_state(layer=0)
    with torch.inference_mode(), Largest() as largest:
        state.append(keys, keys)
        state.freeze()
    assert largest.nbytes < keys.nbytes
