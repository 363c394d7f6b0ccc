"""Which questions a doctor asks: one cell per task and length."""

from dataclasses import replace
from pathlib import Path

from sahub.config.cell import Cell, composed, settings_of
from sahub.config.choices import conf_dir, group_choices
from sahub.config.group_schemas import Task
from sahub.data.loading import missing
from sahub.errors import ConfigError, did_you_mean, listed
from sahub.models.weights import check_files, spec_of


def asked_of(cell: Cell) -> list[Cell]:
    """The cell with each of `doctor.tasks` at each of `doctor.lengths`, on contexts of the split that searches use.

    Contexts that validate results stay unseen. Raises ConfigError for a task that there is not.
    """
    settings, found = cell.settings, []
    limits = replace(
        settings.search,
        seed=settings.doctor.seed,
        max_requests=settings.doctor.requests,
        decide=0,
        max_new_tokens=settings.doctor.max_new_tokens,
    )
    for name in settings.doctor.tasks:
        task, choices = _task(name, cell.config_dir), replace(cell.choices, task=name)
        for length in settings.doctor.lengths:
            search = replace(limits, max_context_length=length)
            found.append(replace(cell, choices=choices, settings=replace(settings, task=task, search=search)))
    return found


def _task(name: str, config_dir: str | None) -> Task:
    known = group_choices("task", [conf_dir(), *([Path(config_dir)] if config_dir else [])])
    if name not in known:
        raise ConfigError(f"doctor.tasks={name}: no such task{did_you_mean(name, known)}\nchoices: {listed(known)}")
    return settings_of(composed([f"task={name}"], config_dir=config_dir)[0]).task


def check_data(cell: Cell) -> None:
    """Raise MissingFiles where the task's data are not on this machine, naming the model's files too if they are not.

    A model alone may be missing: much of the data can be examined without one.
    """
    if missing(spec_of(cell)):
        check_files(cell)
