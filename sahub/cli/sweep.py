"""A sweep: which jobs it consists of, and a directory for each, named after what it is."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.core.utils import JobReturn, configure_log, run_job
from omegaconf import DictConfig, open_dict, read_write

from sahub.config.arguments import replacing
from sahub.config.cell import choices_of
from sahub.config.choices import CELL_GROUPS, address, group_choices
from sahub.config.overrides import parse, typed_overrides
from sahub.config.suites import expanded
from sahub.errors import ConfigError, did_you_mean, listed
from sahub.files.names import file_name
from sahub.results import best_file

Job = list[str]  # the overrides of one cell


def jobs(config: DictConfig, overrides: Sequence[Override], batch: int | None) -> list[list[Job]]:
    """Batches of jobs: the product of all sweeps, times the winners of `configs` where that is set; suites taken apart.

    Raises ConfigError where a glob matches nothing, or a sweep has no values.
    """
    folders = [Path(source.path) for source in config.hydra.runtime.config_sources if source.schema == "file"]
    named = [
        _expanded(override, folders) if override.value_type == ValueType.GLOB_CHOICE_SWEEP else override
        for override in overrides
    ]
    for override in named:
        _check_values(override)
    [product] = BasicSweeper.split_arguments(named, None)
    if config.configs is not None:
        typed = [override.key_or_group for override in overrides]
        files = winner_files(config.configs, Path(config.results_dir).expanduser())
        found = [winner_overrides(file, typed) for file in files]
        product = [[*first, *then] for first, then in itertools.product(found, product)]
    tasks = group_choices("task", folders)
    every = [tuple(one) for job in product for one in expanded(job, tasks)]
    product = [replacing(one) for one in dict.fromkeys(every)]  # the same cell twice is one
    size = batch or len(product)
    return [product[start : start + size] for start in range(0, len(product), size)]


def _check_values(override: Override) -> None:
    if not override.is_sweep_override():
        return
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: holds no list of values; a sweep has some, as 1,2,3 or range(1,4)")
    try:
        first = next(override.sweep_string_iterator(), None)
    except ValueError as error:  # a step of 0
        raise ConfigError(f"{override.input_line}: {error}") from error
    if first is None:
        raise ConfigError(f"{override.input_line}: has no values")


def _expanded(override: Override, folders: Sequence[Path]) -> Override:
    """A glob over the nested names of a group as a plain list of choices."""
    group, glob = override.key_or_group, override.value()
    choices = group_choices(group, folders)
    names = glob.filter(choices)
    if not names:
        known = [*choices, *(choice.partition("/")[0] for choice in choices)]
        close = "".join(did_you_mean(re.sub(r"\W*\*\W*", "", pattern), known) for pattern in glob.include)
        raise ConfigError(
            f"{override.input_line}: matches nothing{close}\nchoices: {listed(choices) or f'{group} is no group'}"
        )
    return OverridesParser.create(override.config_loader).parse_override(
        f"{override.get_key_element()}={','.join(names)}"
    )


def winner_files(configs: str, results_dir: Path) -> list[Path]:
    """The best file `configs`, those below the directory `configs`, or below the newest run where it is `latest`."""
    if configs == "latest":
        runs = [run for kind in ("outputs", "multirun") for run in (results_dir / kind).glob("*") if any(_best(run))]
        if not runs:
            raise ConfigError(
                f"configs=latest: no run with optimal_configs in {results_dir}/outputs or {results_dir}/multirun"
            )
        return list(_best(max(runs, key=lambda run: (run.name, run.as_posix()))))
    folder = Path(configs).expanduser()
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise ConfigError(f"configs={configs}: no such folder or file (must be a run, a best file, or latest)")
    files = list(_best(folder))
    if not files:
        raise ConfigError(f"configs={configs}: holds no winner (no optimal_configs/*.json below it)")
    return files


def _best(folder: Path) -> Iterator[Path]:
    files = [*folder.glob("*.json")] if folder.name == "optimal_configs" else [*folder.rglob("optimal_configs/*.json")]
    return (file for file in sorted(files) if not file.stem.endswith("_trials"))


def winner_overrides(file: Path, typed: Sequence[str] = ()) -> Job:
    """The overrides that a best file names, as far as it may; `typed`: the keys that the person has typed beside it."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: is no best file ({type(error).__name__}: {str(error)[:200]})") from error
    return best_file.check(str(file), content, typed)


def plan_jobs(launcher: Any, job_overrides: Sequence[Job], first: int) -> list[JobReturn]:
    """Compose every job, then run the task function (which plans) on each in a directory of its own."""
    context, root = launcher.hydra_context, Path(launcher.config.hydra.sweep.dir)
    configs = [context.config_loader.load_sweep_config(launcher.config, list(job)) for job in job_overrides]
    returns = []
    for number, (config, name) in enumerate(zip(configs, directory_names(configs, job_overrides), strict=True), first):
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            if config.hydra.sweep.subdir == "by_choices":
                config.hydra.sweep.subdir = name
        returns.append(
            run_job(
                hydra_context=context,
                task_function=launcher.task_function,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        )
    with read_write(configs[-1].hydra.runtime):  # from here on the log of the whole sweep
        configs[-1].hydra.runtime.output_dir = str(root.absolute())
    configure_log(configs[-1].hydra.job_logging, configs[-1].hydra.verbose)
    return returns


def directory_names(configs: Sequence[DictConfig], job_overrides: Sequence[Job]) -> list[str]:
    """`{model}_{task}_{builder}_{objective}`; where jobs share that, what they differ in is added."""
    names = [
        choices_of(config, config.hydra.runtime.choices, parse(typed_overrides(config.hydra))).name
        for config in configs
    ]
    shared = {item for item in itertools.chain(*job_overrides) if all(item in job for job in job_overrides)}
    counts = Counter(names)
    for index, job in enumerate(job_overrides):
        if counts[names[index]] > 1:
            own = [item for item in job if item not in shared and address(item) not in CELL_GROUPS]
            names[index] = file_name(re.sub(r"[^\w.=-]+", "_", "_".join([names[index], *own])))
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        names[index] = f"{name}_{seen[name]}" if seen[name] > 1 else name
    return names
