"""What a search found, in figures: of a trial, of the last decision, of every budget of a frontier."""

from typing import Any

from sahub.search.trial import Study, Trial


def figures(trial: Trial) -> dict[str, Any]:
    """A trial's numbers."""
    return {"value": trial.value, "feasible": trial.feasible, **trial.measures}


def decided(study: Study) -> dict[str, Any] | None:
    """What the last decision was made on; None where it was not asked."""
    decision = study.decision
    if decision is None:
        return None
    tried = {"winner": decision.winner, "default": decision.default}
    shown = {name: figures(trial) if trial.state == "complete" else None for name, trial in tried.items()}
    return {
        "stays": decision.stays,
        "contexts": decision.default.contexts,
        "overrides": list(decision.winner.overrides),
        **shown,
    }


def frontier_rows(study: Study) -> list[dict[str, Any]]:
    """The winner for each budget of a frontier, and its figures on contexts that did not choose it."""
    return [
        {
            "budget": name,
            "overrides": list(found.trial.overrides),
            **figures(found.trial),
            "checked": figures(found.checked) if found.checked.state == "complete" else None,
        }
        for name, found in study.frontier.items()
    ]
