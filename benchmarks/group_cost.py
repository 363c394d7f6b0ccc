"""What it costs that heads of a KV head choose together: `python benchmarks/group_cost.py model=embedded contexts=6`.

Replays stacks at 10 % of the keys on dense answers about generated contexts of `tokens=1000`: for each method and group
the share of the softmax that is lost, the error of the attention, and the share of the keys that a head attends to and
that a KV head reads.
"""

import sys
from random import Random
from statistics import mean

import torch
from arguments import given

import sahub.api
from sahub.config.cell import compose_cell
from sahub.data import vocabulary

DENSITY = 0.1
GROUPS = ("none", "max", "sum", "union")
SHOWN = ("mass_lost", "attention_error", "density", "kv_density")
STAGES = {
    "quest": {"page_size": 16, "label_bits": 4},
    "double_sparsity": {"group_factor": 4},
    "pqcache": {},
    "snapkv": {},
    "expected_attention": {},
}


def main(*arguments: str) -> None:
    """Print a row for every method and group."""
    asked = given({"model": "embedded", "contexts": "6", "tokens": "1000"}, arguments)
    torch.set_num_threads(1)
    model = sahub.load_model(compose_cell([f"model={asked['model']}"]).settings.model.path or asked["model"])
    traces = [trace(model, Random(number), int(asked["tokens"])) for number in range(int(asked["contexts"]))]
    sys.stdout.write(f"{asked['model']}\n{'':32}{'mass_lost':>10}{'error':>10}{'density':>9}{'kv':>7}\n")
    for name, fields in STAGES.items():
        for group in GROUPS:
            stage = {"name": name, **fields, "density": DENSITY, "group": group}
            stack = [{"name": "sink", "sink_size": 8}, {"name": "local", "window_size": 16}, stage]
            found = [sahub.replay(trace, stack, rows="answer") for trace in traces]
            lost, error, density, kv = (mean(one[key] for one in found) for key in SHOWN)
            sys.stdout.write(f"{name:24}{group:8}{lost:10.4f}{error:10.4f}{density:9.3f}{kv:7.3f}\n")
            sys.stdout.flush()


def trace(model: sahub.api.Model, rng: Random, tokens: int) -> sahub.api.Trace:
    """A dense answer about one of many numbers."""
    names, lines = [], [vocabulary.instruction()]
    while model.model.count_tokens("\n".join(lines)) < tokens:
        names.append(vocabulary.key(rng))
        lines.append(vocabulary.needle(names[-1], vocabulary.number(rng)))
    asked = rng.choice(names)
    prefix = vocabulary.answer_prefix(asked)
    return model.trace("\n".join(lines), vocabulary.question(asked), answer_prefix=prefix, max_new_tokens=16)


if __name__ == "__main__":
    main(*sys.argv[1:])
