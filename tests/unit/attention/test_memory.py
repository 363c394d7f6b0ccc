"""Targets of index bits, alone and beside a density, and the ledger of what a step reads."""

import pytest
from arithmetic import run

from sahub.attention.call import Geometry
from sahub.config.cell import compose_cell
from sahub.engine.outcome import bytes_per_step
from sahub.errors import ConfigError
from sahub.methods.quest import Quest
from sahub.search.limits import limits_of
from sahub.search.trial import space_of_cell

GEOMETRY = Geometry(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64)


@pytest.mark.parametrize("bits", [32, 64, 128])
def test_alone_the_budget_is_searched_and_nothing_above_the_target_runs(bits):
    study = run(f"objective=memory_{bits}", "search.num_samples=16")
    complete = [trial for trial in study.trials if trial.state == "complete"]
    assert all(trial.measures["aux_bits"] <= bits and trial.feasible for trial in complete)
    assert study.best is not None
    assert len({trial.point["quest.density"] for trial in complete}) > 3
    rejected = [trial for trial in study.trials if trial.state == "rejected"]
    assert all(trial.reason.startswith(f"objective.aux_bits={bits}: this point needs ") for trial in rejected)
    for trial in rejected:
        sizes = {name: trial.point[f"quest.{name}"] for name in ("page_size", "label_bits")}
        assert Quest(density=0.1, **sizes).aux_bits(GEOMETRY, 1000) > bits


def test_beside_a_density_the_budget_is_the_target():
    cell = compose_cell(["objective=memory_64", "objective.density=0.1"])
    assert (cell.settings.objective.budget, cell.settings.objective.budget_max) == (0.1, 0.1)
    assert "quest.density" not in space_of_cell(cell).free
    assert cell.builder["stages"]["quest"]["density"] == 0.1
    assert cell.choices.objective == "memory_64_density_0.1"
    study = run("objective=memory_64", "objective.density=0.1", "builder.stages.quest.density=0.3")
    assert study.best is None
    assert all(trial.excess["density"] > 0 for trial in study.trials if trial.state == "complete")


def test_a_builder_that_cannot_meet_it_says_the_tightest_limit_and_what_came_closest():
    closest = r"objective.aux_bits=1: this point needs 2.5 bits per key and KV head \(.*page_size=128 .*label_bits=2\)"
    with pytest.raises(
        ConfigError, match=rf"no point of the space is within its limits \(\d+ tried\); the closest: {closest}"
    ):
        run("objective=memory_32", "objective.aux_bits=1", "search.num_samples=2000", *PINNED)
    with pytest.raises(ConfigError, match=r"builder.limits.aux_bits=0.5: this point needs 2.5 bits"):
        run(
            "objective=memory_32",
            "objective.aux_bits=1",
            "builder.limits.aux_bits=0.5",
            "search.num_samples=2000",
            *PINNED,
        )


PINNED = [f"builder.stages.{field}" for field in ("sink.sink_size=4", "local.window_size=8", "quest.density=0.1")]


def test_targets_do_not_bind_the_yardstick():
    assert limits_of(compose_cell(["objective=memory_32", "builder=dense"])) == {}
    assert limits_of(compose_cell(["objective=memory_32", "builder=oracle_topk"])) == {"objective.aux_bits": 32}


def test_a_step_reads_the_kept_keys_with_their_values_and_the_index():
    dense = bytes_per_step(32768, 1.0, 0.0, 2 * 128 * 2)  # bf16, head_dim 128
    assert dense == 32768 * 256 * 2
    assert bytes_per_step(32768, 0.1, 16.0, 2 * 128 * 2) == pytest.approx(0.1 * dense + 32768 * 2)
    study = run("objective=memory_64")
    for trial in study.trials:
        if trial.state == "complete":
            assert trial.measures["bytes_per_step"] == 1000 * trial.measures["aux_bits"] / 8  # of keys without size


LIMIT = """
def at_most(stack, geometry, num_keys, *, pages):
    if pages == 0:
        raise ValueError("no pages")
    quest = stack.stages[-1]
    count = num_keys / quest.page_size
    return None if count <= pages else f"{count:g} pages"
"""


def test_a_limit_of_ones_own_refuses_points(tmp_path, monkeypatch):
    (tmp_path / "my_limits.py").write_text(LIMIT)
    monkeypatch.syspath_prepend(tmp_path)
    given = "++builder.limits.check={_target_: my_limits.at_most, pages: %d}"
    study = run(*PINNED, "search.num_samples=20", given % 40)  # 1000 keys
    refused = [trial for trial in study.trials if trial.state == "rejected"]
    assert refused
    assert {trial.reason.partition(" ")[0] for trial in refused} == {"builder.limits.check=my_limits.at_most:"}
    sizes = {next(one.rpartition("=")[2] for one in t.overrides if "page_size=" in one) for t in study.trials
             if t.state == "complete"}  # fmt: skip
    assert sizes <= {"32", "64", "128"}
    with pytest.raises(ConfigError, match=r"ValueError: no pages"):
        run(*PINNED, given % 0)
    with pytest.raises(ConfigError, match=r"builder.limits.check._target_=my_limits.nothing: cannot be imported"):
        run(*PINNED, "++builder.limits.check={_target_: my_limits.nothing}")
