"""The command line: `sahub search ...`, `validate`, `doctor`, `best`, the same as `python -m pipelines.search ...`."""

import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from sahub import extensions
from sahub.cli.endings import ENDINGS, Run, say
from sahub.config.arguments import options_first, replacing
from sahub.config.choices import COMMANDS, FILE_COMMANDS, conf_dir, group_choices
from sahub.errors import ConfigError, SahubError, did_you_mean, disk_trouble
from sahub.files.atomic import ERROR_FILE, write_text

log = logging.getLogger(__name__)
CACHED = {"search", "validate"}  # what they have finished they find again
SHOWING = {"-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "--hydra-help"}  # Hydra's own, without cells

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sahub.config.cell import Cell


def main() -> None:
    """`sahub COMMAND ...`: exit status 0 when every cell succeeded, 1 when not, 2 for no such command."""
    command, *arguments = sys.argv[1:] or [""]
    if command in COMMANDS:
        sys.exit(run(command, arguments))
    if command in FILE_COMMANDS:
        sys.exit(extensions.member("cli/commands", command).main(arguments))
    if command == "--version":
        sys.stdout.write(f"sahub {version('sahub')}\n")
        sys.exit(0)
    if command not in {"", "-h", "--help"}:
        say(f"sahub {command}: no such command{did_you_mean(command, (*COMMANDS, *FILE_COMMANDS))}")
        sys.exit(2)
    from sahub.cli.overview import overview  # light: commands do not pay for it

    sys.stdout.write(overview())
    sys.exit(0)


def run(command: str, arguments: Sequence[str]) -> int:
    """Plan the cells that the arguments ask for and run them; the exit status."""
    if {"-h", "--help"} & set(arguments):
        from sahub.cli.one_key import asked_help  # light: whatever runs does not pay for it

        return _told(lambda: asked_help(command, arguments, _roots(arguments)))
    from sahub.compute.signals import Stopped, stoppable  # light: `--help` and a wrong name do not pay for it

    planned = Run()
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is not the news
    try:
        with stoppable(), _warnings_in_the_log():
            plan_cells(planned, command, arguments)
            return ENDINGS.get(command, run_cells)(planned)
    except SahubError as error:
        say(str(error))
        return 1
    except Stopped as stop:
        say("interrupted" + ("; run the same command again: what was finished is kept" if command in CACHED else ""))
        return stop.status
    except Exception as error:
        if disk := disk_trouble(error):
            say(disk)
            return 1
        first = (str(error).splitlines() or [""])[0]
        file = _write_traceback(planned.directory)
        say(f"{type(error).__name__}: {first[:300]}", *([f"the full traceback is in {file}"] if file else []))
        raise SystemExit(1) from error


def _told(text: Callable[[], str]) -> int:
    try:
        sys.stdout.write(text())
    except SahubError as error:
        say(str(error))
        return 1
    return 0


def plan_cells(planned: Run, command: str, arguments: Sequence[str]) -> None:
    """Let Hydra compose the configuration of every cell, and plan each; ConfigError in our words where it cannot."""
    from hydra.core.hydra_config import HydraConfig  # light: `--help` and a wrong name do not pay for it
    from hydra.types import RunMode

    from sahub.cli.preflight import check_plugins, check_read
    from sahub.config.cell import check_typed, plan
    from sahub.config.overrides import typed_overrides

    def collect(cfg: "DictConfig") -> None:
        job = HydraConfig.get()
        planned.directory = Path(job.sweep.dir if job.mode == RunMode.MULTIRUN else job.runtime.output_dir).absolute()
        try:
            check_plugins((), job)
            check_read(command, cfg, typed_overrides(job))
            planned.cells.append(plan(cfg))
        except SahubError as error:
            planned.problems.append(str(error))
            if job.mode == RunMode.MULTIRUN and command != "best":
                write_text(Path(job.runtime.output_dir) / ERROR_FILE, f"{error}\n")

    check_plugins(arguments)
    given = _given(command, arguments)
    _composed(command, given, arguments, collect)
    for cell in planned.cells:
        check_typed(cell)
    if not planned.cells and not planned.problems and not {item.partition("=")[0] for item in given} & SHOWING:
        raise ConfigError(f"{' '.join(arguments)}: asks for no cell; a sweep has one value of each key at least")


def _given(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra wants them: options first, suites and best files as the sweeps that they are."""
    from sahub.config.suites import swept  # light: `--help` and a wrong name do not pay for it

    given = replacing(options_first(arguments))
    several = any(item.startswith("configs=") and item != "configs=null" for item in given) and command == "validate"
    suites = swept(given, group_choices("task", _roots(arguments)))
    if several or suites != given:
        given = ["--multirun", *(item for item in suites if item not in {"-m", "--multirun"})]
    return given + (["hydra.run.dir=."] if command == "best" else [])  # it writes nothing


def _composed(
    command: str, given: Sequence[str], arguments: Sequence[str], collect: "Callable[[DictConfig], None]"
) -> None:
    """Hand every configuration that Hydra composes to `collect`."""
    import hydra  # light: `--help` and a wrong name do not pay for it

    from sahub.cli.commands import command_line
    from sahub.config.explain import composing

    raw = os.environ.get("HYDRA_FULL_ERROR") == "1"
    with nullcontext() if raw else composing(_roots(arguments)[1:]), command_line(command, given):
        hydra.main(config_path=str(conf_dir()), config_name=command, version_base="1.3")(collect)()


def run_cells(planned: Run) -> int:
    """Check the stages of every cell, then run all cells that can be; the exit status."""
    from sahub.cli.preflight import check_compared  # light: `--help` and a wrong name do not pay for it
    from sahub.models.weights import check_files

    check_compared(planned.cells)
    refused = _refused(planned.cells, check_files)
    if len(refused) < len(planned.cells):
        from sahub.run.check import check_cell  # imports torch: only once everything cheap is right

        refused |= _refused([cell for cell in planned.cells if cell.directory not in refused], check_cell)
    say(*dict.fromkeys([*planned.problems, *refused.values()]))
    status = 1 if planned.problems or refused else 0
    cells = [cell for cell in planned.cells if cell.directory not in refused]
    if not cells:
        return status
    if any(cell.settings.dry_run for cell in cells):
        from sahub.run.estimate import lines  # light: `--help` and a wrong name do not pay for it

        sys.stdout.write("".join(f"{line}\n" for line in lines(cells)))
        return status

    from sahub.results.cell_result import failures  # light: `--help` and a wrong name do not pay for it
    from sahub.run.matrix import run_matrix

    results = run_matrix(planned.cells, planned.directory, show=True, refused=refused)
    say(*dict.fromkeys(planned.problems), *(f"{which}: {said}" for said, which in failures(results).items()))
    return status if all(result.ok for result in results) else 1


def _refused(cells: Sequence["Cell"], check: Callable[["Cell"], None]) -> dict[Path, str]:
    """Why cells cannot be run, by directory."""
    refused = {}
    for cell in cells:
        try:
            check(cell)
        except SahubError as error:
            refused[cell.directory] = str(error)
    return refused


def _roots(arguments: Sequence[str]) -> list[Path]:
    """The folders with configuration files: ours, then that of --config-dir."""
    pairs = pairwise([*arguments, ""])
    typed = [Path(after) for item, after in pairs if item in {"--config-dir", "-cd"}]
    typed += [Path(item.partition("=")[2]) for item in arguments if item.startswith("--config-dir=")]
    return [conf_dir(), *(folder for folder in typed if folder.is_dir())]


@contextmanager
def _warnings_in_the_log() -> Iterator[None]:
    """Within this, warnings of libraries stand in the log and not on the screen, unless Python was told what to do."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.showwarning = lambda message, category, file, line, *_: log.info(
                "%s:%s: %s: %s", file, line, category.__name__, message
            )
        yield


def _write_traceback(directory: Path | None) -> Path | None:
    """The file that the traceback is in; None where no folder takes it."""
    for folder in (directory, Path(tempfile.gettempdir())):
        if folder is not None and folder.is_dir():
            with suppress(OSError):
                return write_text(folder / f"error_{os.getpid()}.txt", traceback.format_exc())
    return None
