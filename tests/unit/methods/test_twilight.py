"""Top-p over every scorer: as few units as carry the share of the mass that the scorer sees, within a bound."""

import math

import pytest
import torch
from hash_files import hash_fields

from sahub.attention.call import Call
from sahub.attention.rows import rows_of
from sahub.builders.build import build_stack
from sahub.errors import ConfigError

D, SINKS, KEYS, ROWS = 8, 2, 40, 3
SCORERS = {
    "quest": {"page_size": 4, "label_bits": 4},
    "double_sparsity": {"group_factor": 1, "label_bits": 4},
    "pqcache": {"pq_bits": 3},
    "hash_attention": hash_fields(heads=2, head_dim=D),
    "socket": {"lsh_l": 4, "lsh_k": 5, "tau": 0.3},
}


def kept_by(name, select):
    """(kept bool [h, q, k], unit masses [h, q, m], keys of a unit) of sink + scorer on one sequence."""
    noise = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, *shape, generator=noise) for shape in ((4, ROWS, D), (2, KEYS, D), (2, KEYS, 6)))
    stack = build_stack([{"name": "sink", "sink_size": SINKS}, {"name": name, **SCORERS[name], "select": select}])
    state = stack.new_state(layer=0)
    prefix = KEYS - ROWS
    state.append(k[:, :, :prefix], v[:, :, :prefix])
    state.freeze()
    state.append(k[:, :, prefix:], v[:, :, prefix:])
    call = Call(q=q, k=k, v=v, scale=D**-0.5, rows=rows_of(q, k, None))
    index = state.indexes[1]
    if name == "socket":  # its scores are masses
        mass, size = index.scores(call, 0.3), 1
    else:
        scores = index.scores(call)
        mass, size = scores.logits.double().exp(), scores.page_size
    return state.select(q, k, v).probabilities()[0] > 0, mass[0].double(), size


def wanted(mass, size, row, top_p, most):
    """The keys in plain Python: units in order of mass until the units before hold more than top_p; `most` added."""
    last = KEYS - ROWS + row
    units = {}
    for unit, one in enumerate(mass.tolist()):
        keys = [j for j in range(unit * size, (unit + 1) * size) if j <= last]
        new = [j for j in keys if j >= SINKS]
        if new:
            units[unit] = (one, len(new), keys)
    whole = sum(one * num for one, num, _ in units.values())
    held, added = 0.0, []
    for unit in sorted(units, key=lambda one: (-units[one][0], -one)):
        one, num, keys = units[unit]
        if held > top_p * whole:
            break
        added += [j for j in reversed(keys) if j >= SINKS]
        held += one * num
    return {*range(SINKS), *added[:most]}


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize(("top_p", "max_density"), [(0.85, None), (0.5, None), (0.95, 0.3), (0.0, None)])
def test_top_p_takes_as_few_units_as_carry_the_mass_over_every_scorer(name, top_p, max_density):
    select = {"top_p": top_p, **({} if max_density is None else {"max_density": max_density})}
    kept, mass, size = kept_by(name, select)
    for row in range(ROWS):
        valid = KEYS - ROWS + row + 1
        most = None if max_density is None else math.floor(max_density * valid + 1e-6) - SINKS
        for head in range(4):
            found = set(kept[head, row].nonzero().flatten().tolist())
            assert found == wanted(mass[head, row], size, row, top_p, most), (head, row)


def test_the_bound_holds_for_thresholds_too_and_for_nothing_else():
    few, _, _ = kept_by("hash_attention", {"threshold": -10, "max_density": 0.25})
    every, _, _ = kept_by("hash_attention", {"threshold": -10})
    assert few.sum(-1).flatten().tolist() == 4 * [9, 9, 10]
    assert every.sum(-1).flatten().tolist() == 4 * [38, 39, 40]
    for stage, message in (
        ({"select": {"density": 0.1, "max_density": 0.2}}, "bounds top_p and threshold, not density"),
        ({"select": {"top_p": 0.1, "max_density": 2}}, "max_density=2: must be a share"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_stack([{"name": "quest", **stage}])
