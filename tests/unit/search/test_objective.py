"""What is minimised: combined scores, mean squared errors, and functions of a person's own."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sahub.cli.sweep import winner_overrides
from sahub.config.cell import compose_cell
from sahub.engine.outcome import Outcome
from sahub.engine.session import Attention
from sahub.errors import ConfigError, RunError
from sahub.measures import MEASURES
from sahub.measures.attention_error import error_by_example
from sahub.measures.attention_mse import mse_by_example
from sahub.run.check import check_cell
from sahub.search.objective import completed, excess_over, function_of, needs, value_of
from sahub.search.trial import judge, space_of_cell

TAKEN = {"attention_error": 0.3, "attention_mse": 0.002, "benchmark_score": 0.75, "density": 0.2, "aux_bits": 8.0}
OWN = """
def weighed(measures, bits=0.0):
    return measures["answer_kl"] + bits * measures["aux_bits"]

def broken(measures):
    return 1 / 0

def nan(measures):
    return float("nan")

def text(measures):
    return "0.5"

def greedy(measures):
    measures.clear()
    return 1

number = 3
"""


def objective(*overrides: str):
    return compose_cell(["objective=sparsity_25", *overrides]).settings.objective


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with functions, in the working directory and of a name that no other test uses."""
    name = f"own_objectives_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    return name


@pytest.mark.parametrize(("typed", "e"), [([], 0.3), (["objective.error=mse"], 0.002)])
@pytest.mark.parametrize("penalty", [1, 0, 2.5])
def test_combined_score_is_the_error_and_a_penalty_for_the_lost_score(typed: list[str], e: float, penalty: float):
    given = [] if penalty == 1 else [f"objective.penalty={penalty}"]
    asked = objective("objective.measure=combined_score", *given, *typed)
    found = completed(asked, TAKEN)
    assert found["combined_score"] == pytest.approx(e + penalty * 0.25)
    assert value_of(asked, found) == pytest.approx(0.99 * (e + penalty * 0.25) + 0.01 * 0.2)
    with pytest.raises(RunError, match="has no benchmark_score"):
        completed(asked, {name: number for name, number in TAKEN.items() if name != "benchmark_score"})


def test_every_measure_says_which_fidelity_it_needs():
    assert {name for name, one in MEASURES.items() if one.fidelity == "generate"} == {
        "benchmark_score", "combined_score",
    }  # fmt: skip
    for name, one in MEASURES.items():
        assert needs(objective(f"objective.measure={name}")) == one.fidelity
    own = "objective.function={_target_: os.path.join}"
    assert needs(objective(own)) == "teacher"
    assert needs(objective(own, "objective.measure=combined_score")) == "teacher"  # the function replaces it
    assert needs(objective(own, "objective.needs=generate")) == "generate"


@pytest.mark.parametrize(
    ("density", "kv", "of", "feasible"),
    [
        (0.25, 0.6, "density", True),
        (0.25024, 0.6, "density", True),  # a thousandth of the target, for what rounding does
        (0.2503, 0.6, "density", False),
        (0.2, 0.25, "kv", True),
        (0.2, 0.26, "kv", False),
    ],
)
def test_feasible_is_what_is_measured_within_the_target(density: float, kv: float, of: str, feasible: bool):
    asked, measures = (
        objective("objective.measure=answer_kl", f"objective.budget_of={of}"),
        {"density": density, "kv_density": kv, "answer_kl": 0.0},
    )
    assert (excess_over(asked, measures)["density"] <= 0) == feasible
    spent = kv if of == "kv" else density
    assert value_of(asked, measures) == pytest.approx(0.01 * spent + 10 * max(0.0, spent - 0.25))


def test_a_budget_of_kv_heads_is_searched_below_its_target():
    free = space_of_cell(
        compose_cell(["builder=double_sparsity", "objective=sparsity_10", "objective.budget_of=kv"])
    ).free
    assert (free["double_sparsity.density"].low, free["double_sparsity.density"].high) == (0.0125, 0.1)
    assert "double_sparsity.density" not in space_of_cell(compose_cell(["builder=double_sparsity"])).free


def test_mean_squared_error_is_over_the_elements_of_the_output():
    torch.manual_seed(0)
    sparse, dense = torch.randn(2, 2, 3, 5, 8), torch.randn(2, 2, 3, 5, 8)  # example, layer, rows, heads, channels
    micro = [
        {
            "example": str(example),
            "layer": layer,
            "error": float((sparse - dense)[example, layer, row].square().sum()),
            "norm": float(dense[example, layer, row].square().sum()),
            "elements": 40,
        }
        for example in range(2)
        for layer in range(2)
        for row in range(3)
    ]
    for example in range(2):
        per_layer = (sparse - dense)[example].square().mean((1, 2, 3))
        assert mse_by_example(micro)[str(example)] == pytest.approx(float(per_layer.mean()), rel=1e-5)
        relative = ((sparse - dense)[example].square().sum((1, 2, 3)) / dense[example].square().sum((1, 2, 3))).sqrt()
        assert error_by_example(micro)[str(example)] == pytest.approx(float(relative.mean()), rel=1e-5)


@pytest.mark.parametrize("measure", ["attention_error", "attention_mse", "combined_score"])
def test_errors_that_are_not_measured_are_known_before_any_work(measure: str):
    with pytest.raises(ConfigError, match=f"measure_error=off: objective.measure={measure} needs it"):
        check_cell(compose_cell([f"objective.measure={measure}", "protocol.measure_error=off"]))
    check_cell(compose_cell([f"objective.measure={measure}"]))


def test_a_function_gives_the_value_itself(own: str):
    asked = objective(f"objective.function={{_target_: {own}.weighed, bits: 0.1}}")
    measures = {"answer_kl": 0.5, "density": 0.9, "aux_bits": 8}
    found = completed(asked, measures)
    assert value_of(asked, found) == found["function"] == pytest.approx(0.5 + 0.8)
    greedy = objective(f"objective.function._target_={own}.greedy")
    assert completed(greedy, measures) == {**measures, "function": 1.0}


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("broken", "ZeroDivisionError: division by zero"),
        ("nan", "gave nan; must be a finite number"),
        ("text", "gave '0.5'; must be a finite number"),
        ("weighed", r"KeyError: 'answer_kl' \(measures: density"),
    ],
)
def test_what_a_function_does_wrong_fails_its_trial_by_name(own: str, name: str, cause: str, monkeypatch):
    cell = compose_cell([f"objective.function._target_={own}.{name}"])
    outcome = Outcome(attention=Attention(), aux_bits=0.0)
    monkeypatch.setattr(Outcome, "measures", lambda self: {"density": 0.1, "aux_bits": 0.0})
    trial = judge(cell, (), outcome, "teacher")
    assert (trial.state, trial.value, dict(trial.measures)) == ("failed", None, {})
    with pytest.raises(RunError, match=f"objective.function={own}.{name}: {cause}"):
        completed(cell.settings.objective, outcome.measures())
    assert trial.reason.startswith(f"objective.function={own}.{name}: ")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere_at_all.f", "cannot be imported (ModuleNotFoundError"),
        ("OWN.missing", "cannot be imported (AttributeError"),
        ("OWN.number", "must be a function, not a int"),
        ("weighed", "must be the name of a function, my_module.my_function"),
    ],
)
def test_a_function_that_cannot_be_is_named_before_any_work(own: str, target: str, message: str):
    with pytest.raises(ConfigError) as caught:
        check_cell(compose_cell([f"objective.function._target_={target.replace('OWN', own)}"]))
    assert message in str(caught.value)


def test_a_function_beside_the_files_of_config_dir_is_found(own: str, tmp_path: Path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    asked = objective(f"objective.function._target_={own}.weighed")
    target = asked.function["_target_"]
    assert function_of("objective.function", target, str(tmp_path))({"answer_kl": 1.0, "aux_bits": 0}) == 1.0


@pytest.mark.parametrize(
    "override",
    [
        "objective.function._target_=os.system",
        "++objective.function={_target_: a.b}",
        "builder.limits.check={_target_: a.b}",
    ],
)
def test_a_best_file_does_not_name_code(tmp_path: Path, override: str):
    best = tmp_path / "best.json"
    best.write_text(json.dumps({"overrides": ["builder=quest", override]}))
    with pytest.raises(ConfigError, match="must not name code"):
        winner_overrides(best)


def test_other_places_take_no_target():
    with pytest.raises(ConfigError, match="_target_"):
        check_cell(compose_cell(["builder.stages.quest._target_=os.system"]))


@pytest.mark.parametrize("measure", [name for name, one in MEASURES.items() if one.ties])
def test_stacks_that_change_as_many_tokens_are_told_apart_by_kl_and_by_nothing_more(measure: str) -> None:
    asked = objective(f"objective.measure={measure}")

    def value(changed: float, kl: float) -> float:
        return value_of(asked, {measure: changed, "answer_kl": kl, "density": 0.1})

    assert value(0.0, 0.01) < value(0.0, 0.02) < value(0.0, 50.0) < value(1 / 64, 0.0)


def test_no_value_is_ever_infinite():
    asked = replace(objective("objective.measure=answer_kl"), density=None)
    assert math.isfinite(value_of(asked, {"answer_kl": 1.0, "density": 0.7}))
