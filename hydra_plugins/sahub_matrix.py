"""The launcher and the sweeper of sahub: Hydra accepts plug-ins from this namespace only, and imports them at start."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher


class MatrixLauncher(Launcher):
    """Plans every cell of a sweep in a directory named after its choices; `sahub.cli.main` then runs them all."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[list[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from sahub.cli.sweep import plan_jobs

        return plan_jobs(self, job_overrides, initial_job_idx)


class MatrixSweeper(BasicSweeper):
    """Hydra's basic sweeper, with globs over nested names, `configs=DIR`, and an error where a sweep is empty."""

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        from sahub.cli.sweep import jobs

        return jobs(self.config, overrides, max_batch_size)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: the launcher composes every cell before any of them is run."""


ConfigStore.instance().store(
    group="hydra/launcher", name="sahub", node={"_target_": f"{__name__}.MatrixLauncher"}, provider="sahub"
)
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="sahub",
    node={"_target_": f"{__name__}.MatrixSweeper", "max_batch_size": None, "params": {}},
    provider="sahub",
)
