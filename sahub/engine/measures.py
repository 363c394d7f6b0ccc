"""How far a sparse run is from the dense one: attention error, and the distance of its answers."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor


def answer_kl(dense: Tensor, sparse: Tensor) -> float:
    """Mean over answer tokens of KL(dense || sparse), in nats; logits fp32 [n, vocabulary] for the same tokens."""
    p, q = dense.log_softmax(-1), sparse.log_softmax(-1)
    # Rounding can leave -1e-10 for two equal distributions; no number stays no number.
    return float((p.exp() * (p - q)).sum(-1).mean().clamp(min=0.0))


def answer_nll(logits: Tensor, ids: Sequence[int]) -> float:
    """Mean negative log-likelihood of the ids [n] under logits fp32 [n, vocabulary], in nats."""
    target = torch.tensor(list(ids), device=logits.device)
    return float(torch.nn.functional.cross_entropy(logits, target))


def bytes_per_step(num_keys: float, kv_density: float, aux_bits: float, key_bytes: int) -> float:
    """Bytes that one decode step reads, per sequence, sparse layer and KV head, over num_keys keys.

    bytes = num_keys * kv_density * key_bytes + num_keys * aux_bits / 8

    kv_density  share of the keys that some query head of the KV head attends to: what a kernel loads
    aux_bits    index bits read per key and KV head
    key_bytes   bytes of a key with its value in the model's dtype, (d + dv) * bytes an element; dense reads all of them
    """
    return num_keys * (kv_density * key_bytes + aux_bits / 8)


def error_by_example(micro: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Attention error of each example: mean over layers of sqrt(sum |sparse - dense|^2 / sum |dense|^2) of its rows.

    Layers and rows where the dense output was not computed are left out.
    """
    return {
        example: fmean(math.sqrt(error / norm) for error, norm in layers)
        for example, layers in _by_layer(micro, "norm").items()
    }


def mse_by_example(micro: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean over layers of sum |sparse - dense|^2 / number of elements of the attention output, of each example."""
    return {
        example: fmean(error / elements for error, elements in layers)
        for example, layers in _by_layer(micro, "elements").items()
    }


def _by_layer(micro: Sequence[Mapping[str, Any]], over: str) -> dict[str, list[tuple[float, float]]]:
    """(sum of squared differences, sum of `over`) of every layer of every example, where they were measured."""
    sums: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for row in micro:
        if row["norm"]:
            pair = sums[row["example"]][row["layer"]]
            pair[0] += row["error"]
            pair[1] += row[over]
    return {example: [(error, size) for error, size in layers.values()] for example, layers in sums.items()}
