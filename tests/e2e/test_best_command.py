"""`sahub best` as a process: what it prints and saves, and that it needs no torch and writes nothing by itself."""

from dataclasses import asdict
from pathlib import Path

from commands import many


def test_look_ups_need_no_torch_and_leave_nothing_behind(tmp_path: Path):
    from sahub.config.cell import compose_cell
    from sahub.results import winners

    cell = compose_cell(["task=ruler/vt"])
    chosen = ["builder.stages.quest.page_size=8", "builder.stages.quest.label_bits=2"]
    best = {
        "stage_overrides": chosen,
        "overrides": ["search.seed=5", *chosen],
        "figures": {"value": 0.25, "density": 0.09},
    }
    best |= {"mean_figures": None, "tasks": ["ruler/vt"], "commands": {"validate": "rm -rf /"}}
    made = {"n": 10, "trials": {"complete": 40}, "versions": {"sahub": "0.1.0"}, "seed": 0}
    winners.keep(cell, {**asdict(cell.choices), **best, **made})
    work = tmp_path / "work"
    work.mkdir()
    lines = [
        ["task=ruler/vt"],
        ["task=ruler/vt", "save=mine/builder/vt_quest.yaml"],
        ["show=all"],
        ["task=ruler/vt", "--config-dir", "mine", "builder=vt_quest"],
        ["builder=qest"],
        ["search.num_samples=3"],
    ]
    (one, saved, every), imported = many("best", lines[:3], work)
    assert imported == []
    assert one[0] == saved[0] == every[0] == 0
    assert "the winner of its search\n  builder.stages.quest.page_size=8\n" in one[1]
    assert f"python -m pipelines.validate search.seed=5 {' '.join(chosen)}\n" in one[1]
    assert "rm -rf" not in one[1]  # a winner's lines are made anew
    assert "python -m pipelines.search --config-dir mine builder=vt_quest" in saved[1]
    assert "quest.page_size=8 quest.label_bits=2" in every[1]
    assert [str(file.relative_to(work)) for file in work.rglob("*") if file.is_file()] == ["mine/builder/vt_quest.yaml"]
    (default, unknown, unread), _ = many("best", lines[3:], work)
    assert (default[0], unknown[0], unread[0]) == (0, 1, 1)
    assert "no winner in the cache: the builder's own values" in default[1]
    assert "builder=qest: no such builder; did you mean quest?" in unknown[1]
    assert "search.num_samples=3: `sahub best` does not read it" in unread[1]
