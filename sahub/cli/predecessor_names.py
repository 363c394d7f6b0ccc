"""The predecessor's names for methods, fields, builders and tasks; only its importer knows them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LOST_RANGE = "the range is what the earlier stages leave"
LOST_SEED = "here one seed stands for all: search.seed"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of the predecessor as a stage here.

    fields  their field -> ours
    always  what ours has besides, so that it does what theirs did
    lost    their field -> why it is not carried
    values  our field -> their value as ours
    """

    name: str
    fields: Mapping[str, str] = field(default_factory=dict)
    always: Mapping[str, Any] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


# By the class of their configuration, less `Masker` and `Config`, in lower case.
METHODS = {
    "sink": Method(name="sink", fields=_same("sink_size")),
    "local": Method(name="local", fields=_same("window_size"), always={"density": None}),
    "oracletopk": Method(name="oracle_top_k", fields=_same("heavy_size"), always={"density": None}),
    "oracletopp": Method(name="oracle_top_p", fields=_same("top_p"), always={"mass": "residual"}),
    "randomsampling": Method(name="random_sampling", fields=_same("sampling_rate"), always={"density": None}),
    "adaptivesampling": Method(
        name="adaptive_sampling",
        fields=_same("base_rate_sampling", "epsilon", "delta", "mode"),
        always={"max_density": None},
        lost={
            "init_offset": LOST_RANGE,
            "local_offset": LOST_RANGE,
            "use_exact_estimation": "sums are always estimated from the sample",
        },
    ),
    "magicpig": Method(
        name="magic_pig",
        fields=_same("lsh_l", "lsh_k", "center"),
        always={"min_hits": 1, "transform": "simple_lsh"},
        lost={"packing": "codes are always packed to their bits", "seed": LOST_SEED},
        values={"center": lambda given: "keys" if given is True else "none" if given is False else given},
    ),
    "questtopk": Method(
        name="quest",
        fields=_same("heavy_size", "page_size", "label_bits"),
        always={"density": None, "min_pages": 3},
    ),
    "doublesparsitytopk": Method(
        name="double_sparsity",
        fields=_same("heavy_size", "group_factor", "label_bits", "channel_selection"),
        always={"density": None},
        lost={
            "sorted_channel_file": "a file of another machine; give builder.stages.double_sparsity.sorted_channel_file"
        },
    ),
    "hashattentiontopk": Method(
        name="hash_attention",
        fields=_same("heavy_size", "hat_bits", "hat_mlp_layers", "hat_mlp_hidden_size", "hat_mlp_activation"),
        always={"density": None, "weights": None},
        lost={
            "hat_weight_file": "a pickle, which could run code: convert it with sahub convert_hash_weights, give "
            "builder.stages.hash_attention.weights",
            "hat_weights": "weights are read from a file; give builder.stages.hash_attention.weights",
        },
    ),
    "pqcache": Method(
        name="pqcache",
        fields=_same("heavy_size", "pq_group_factor", "pq_bits", "kmeans_iter", "metric"),
        always={"density": None},
        lost={"init_offset": "centroids are of all keys, whatever the sink keeps"},
    ),
    "sockettopk": Method(
        name="socket",
        fields={"heavy_size": "heavy_size", "K": "lsh_k", "L": "lsh_l", "tau": "tau"},
        always={"density": None},
        lost={"seed": LOST_SEED},
    ),
}
METHODS["pqcachetopk"], METHODS["socket"] = METHODS["pqcache"], METHODS["sockettopk"]
IGNORED = {"causal"}  # which did nothing

# By the stages after sink and local.
BUILDERS = {
    ("oracle_top_k",): "oracle_topk",
    ("oracle_top_p",): "oracle_topp",
    ("random_sampling",): "random_sampling",
    ("adaptive_sampling",): "adaptive_sampling",
    ("quest",): "quest",
    ("double_sparsity",): "double_sparsity",
    ("hash_attention",): "hash_attention",
    ("pqcache",): "pqcache",
    ("socket",): "socket",
    ("magic_pig",): "magic_pig",
    ("oracle_top_k", "adaptive_sampling"): "vattention_oracle",
    ("hash_attention", "adaptive_sampling"): "vattention_hash_attention",
    ("pqcache", "adaptive_sampling"): "vattention_pqcache",
}
BENCHMARKS = {"longbenchv2": "longbench_v2", "zeroscrolls": "zero_scrolls", "infinitebench": "infinite_bench"}


def method_of(kind: str) -> Method | None:
    """The method behind a class name such as `QuestTopKMaskerConfig`; None where there is none."""
    return METHODS.get(_plain(kind))


def is_ignored(kind: str) -> bool:
    """Whether a class did nothing in the predecessor."""
    return _plain(kind) in IGNORED


def builder_of(labels: tuple[str, ...]) -> str:
    """The builder whose stages these are; `compose` where there is none."""
    return BUILDERS.get(labels[2:], "compose") if labels[:2] == ("sink", "local") else "compose"


def task_of(task: str) -> tuple[str, int | None]:
    """The task here, and the length of its texts where the name says it: `ruler32k/vt` is ruler/vt at 32768 tokens."""
    benchmark, _, subset = task.partition("/")
    found = re.fullmatch(r"ruler(\d+)k", benchmark)
    length = int(found[1]) * 1024 if found else None
    return f"{'ruler' if found else BENCHMARKS.get(benchmark, benchmark)}/{subset}", length


def objective_of(masker_name: str) -> list[str]:
    """The overrides of the objective that a name such as `..._sparsity_obj_10_memory_obj_64` tells of."""
    share = re.search(r"sparsity_obj(?:ective)?_(\d+)", masker_name)
    bits = re.search(r"(?:memory_obj(?:ective)?|aux_mem)_(\d+)", masker_name)
    density = [f"objective.density={int(share[1]) / 100:g}"] if share and int(share[1]) else []
    if bits:
        known = int(bits[1]) in {32, 64, 128}
        return [*([f"objective=memory_{bits[1]}"] if known else [f"objective.aux_bits={bits[1]}"]), *density]
    if share and int(share[1]) in {2, 5, 10, 15, 20, 25, 50}:
        return [f"objective=sparsity_{share[1]}"]
    return density or ["objective=default"]


def _plain(kind: str) -> str:
    return kind.lower().replace("masker", "").replace("config", "")
