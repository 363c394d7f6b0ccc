"""What a run would take, from what the cache knows of contexts of the same model, task and length."""

import pytest

import sahub
from sahub.config.cell import compose_cell
from sahub.engine.evaluate import PLANNED, Plan
from sahub.files.journal import Journal
from sahub.models.weights import digest_of_model
from sahub.run import estimate

TASK = "ruler/niah_multikey_2"


@pytest.fixture
def cell(tmp_path):
    return compose_cell(
        [
            "model=embedded", f"task={TASK}", "compute=inline", f"cache_dir={tmp_path}", "phases=[search]",
            "search.num_samples=5", "search.max_requests=10", "search.decide=4", "search.promote=1",
            "search.calibrate=0", "search.max_context_length=1024",
        ]
    )  # fmt: skip


def put(cell, name: str, fidelity: str, seconds: float) -> None:
    folder = cell.settings.cache_dir
    plan = Plan(task=TASK, fidelity=fidelity)
    told = [getattr(plan, one) for one in PLANNED]
    key = {"model": {"files": digest_of_model(None, None, folder)}, "plan": told, "name": name}
    Journal(folder).put(key, {"answers": [{"n_context": 900}], "seconds": seconds})


def test_seconds_are_those_of_points_and_of_what_generates_afterwards(cell):
    assert estimate.seconds_of(cell) is None
    estimate._kept.cache_clear()
    put(cell, "forced", "teacher", 0.5)
    put(cell, "answered", "generate", 3.0)
    assert estimate.seconds_of(cell) == pytest.approx(5 * 10 * 0.5 + (2 * 4 + 2 * 4) * 3.0)


def test_seconds_are_known_of_what_was_run(tmp_path):
    names = {"models": ["embedded"], "tasks": [TASK], "builders": ["streaming_llm"], "objectives": ["sparsity_10"]}
    limits = [
        "phases=[validate]", "validate.max_requests=1", "validate.max_context_length=512", "validate.max_new_tokens=2",
        "task.length=512", "compute=inline", f"cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    asked = compose_cell(["model=embedded", f"task={TASK}", "builder=streaming_llm", "objective=sparsity_10", *limits])
    assert estimate.seconds_of(asked) is None
    estimate._kept.cache_clear()
    sahub.optimize_matrix(**names, overrides=limits, directory=tmp_path / "out")
    assert estimate.seconds_of(asked) > 0
