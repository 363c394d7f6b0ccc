"""The predecessor's result files as best files: what they say becomes overrides, what cannot be carried is named.

A file is read as JSON and nothing else: its strings are names of a closed list, or text of letters, digits and `._/-`.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sahub.cli import predecessor_names
from sahub.config.cell import compose_cell
from sahub.config.choices import conf_dir, group_choices
from sahub.config.grammar import written
from sahub.config.overrides import parse
from sahub.errors import ConfigError, did_you_mean, listed
from sahub.files.atomic import write_json
from sahub.results import best_file
from sahub.results.cell_files import versions
from sahub.results.reproduce import command_line, merged, reproducing
from sahub.search.trial import attention_of

NEEDED: dict[str, Any] = {"model": str, "task": str, "masker_name": str, "sparse_config": (dict, type(None))}
FIGURES = ("score", "search_time", "num_trials")  # of an objective and a measure that are not ours
KNOWN = {*NEEDED, *FIGURES, "hyperparams", "masker_classes"}


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A field that a best file cannot carry, and why."""

    field: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The best file that was written, the line that validates it, and what it does not carry."""

    path: Path
    command: str
    lost: tuple[Lost, ...]


def import_file(file: str, output: str, typed: Sequence[str] = ()) -> Imported:
    """Write `output/optimal_configs/<cell>.json` from a result file; `typed` overrides win over what it says.

    Raises ConfigError as `file: field=value: what must hold` for a file that is no result, that holds none (the mark of
    a failed search), or that names what is not here.
    """
    raw, data = _read(file)
    lost: list[Lost] = []
    stages = list(_stages(file, data["sparse_config"], lost))
    labels = tuple(label for label, _ in stages)
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"{file}: sparse_config.masker_configs: {twice[0]} stands there twice; every method once")
    parse(typed)  # before anything is composed
    if refused := [(item, why) for item in typed if (why := best_file.refusal(item))]:
        raise ConfigError(": ".join(refused[0]))
    said = [*_fields(stages), *typed]
    cell = compose_cell([*_choices(file, data, labels, typed), *said])
    attention_of(cell, ())  # every stage is built: wrong values end here
    lost += _rest(data, {label: dict(fields) for label, fields in stages})
    # Every field that the file says is pinned, also where it is the builder's own value.
    lines = merged(reproducing(cell), [item for item in said if item.lstrip("+").startswith("builder.stages.")])
    best = {
        **asdict(cell.choices),
        "overrides": lines,
        "commands": {one: command_line(one, lines) for one in ("search", "validate")},
        "stage_overrides": [item.lstrip("+") for item in lines if item.lstrip("+").startswith("builder.stages.")],
        "figures": None,  # nothing was measured here
        "imported": {"file": Path(file).name, "sha256": hashlib.sha256(raw).hexdigest()}
        | {name: data[name] for name in ("masker_name", *FIGURES, "hyperparams") if name in data},
        "not_carried": [asdict(one) for one in lost],
        "versions": versions(),
    }
    path = Path(output).expanduser() / "optimal_configs" / f"{cell.name}.json"
    if path.exists():
        raise ConfigError(f"output={output}: {path} exists; give another folder")
    write_json(path, best)
    return Imported(path=path, command=command_line("validate", [f"configs={output}"]), lost=tuple(lost))


def _read(file: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes and the content of a result file, its outline checked."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no number")

    try:
        raw = Path(file).expanduser().read_bytes()
        data = json.loads(raw.decode("utf-8"), parse_constant=refuse)
    except OSError as error:
        raise ConfigError(f"file={file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"file={file}: is no JSON file ({str(error)[:200]})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"file={file}: must hold one object, the result of a search, not a {type(data).__name__}")
    for name, kind in NEEDED.items():
        if name not in data:
            raise ConfigError(f"{file}: has no {name}; a result has {', '.join(NEEDED)}")
        if not isinstance(data[name], kind):
            raise ConfigError(f"{file}: {name}={_short(data[name])}: must be {'text' if kind is str else 'an object'}")
    score = data.get("score")
    if data["sparse_config"] is not None and (score == 100 or (score == 5 and not data.get("num_trials"))):
        raise ConfigError(
            f"{file}: score={score}: is the mark of a search that measured nothing; there is no winner in it"
        )
    return raw, data


def _stages(file: str, config: Any, lost: list[Lost]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(method, our fields) of every stage, what is not carried in `lost`."""
    if config is None:
        yield "dense", {}
        return
    maskers = config.get("masker_configs")
    if config.get("type") != "ResearchAttentionConfig" or not isinstance(maskers, list) or not maskers:
        raise ConfigError(f"{file}: sparse_config: must be a ResearchAttentionConfig with a list of masker_configs")
    for number, masker in enumerate(maskers):
        here = f"sparse_config.masker_configs[{number}]"
        if not isinstance(masker, dict) or not isinstance(masker.get("type"), str):
            raise ConfigError(f"{file}: {here}={_short(masker)}: must be an object with type and params")
        kind, given = masker["type"], masker.get("params", {})
        if not isinstance(given, dict):
            raise ConfigError(f"{file}: {here}.params={_short(given)}: must be an object")
        method = predecessor_names.method_of(kind)
        if method is None:
            if not predecessor_names.is_ignored(kind):
                known = sorted({one.name for one in predecessor_names.METHODS.values()})
                raise ConfigError(
                    f"{file}: {here}.type={_short(kind)}: no such method; those known: {', '.join(known)}"
                )
            lost.append(Lost(field=here, value=kind, reason="it did nothing"))
            continue
        yield method.name, _params(file, here, method, given, lost)


def _params(
    file: str, here: str, method: predecessor_names.Method, given: Mapping[str, Any], lost: list[Lost]
) -> dict[str, Any]:
    found = dict(method.always)
    for name, value in given.items():
        address = f"{here}.params.{name}"
        if name in method.fields:
            field = method.fields[name]
            found[field] = method.values.get(field, lambda same: same)(_checked(file, address, value))
        elif value is not None:
            lost.append(
                Lost(field=address, value=value, reason=method.lost.get(name, f"{method.name} has no such field"))
            )
    return found


def _checked(file: str, address: str, value: Any) -> Any:
    """A number, a truth value or a plain word. Raises ConfigError for anything else."""
    number = isinstance(value, int | float) and math.isfinite(value)
    if number or (isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w-]*", value)):
        return value
    raise ConfigError(f"{file}: {address}={_short(value)}: must be a number or a name")


def _choices(file: str, data: Mapping[str, Any], labels: tuple[str, ...], typed: Sequence[str]) -> list[str]:
    """Model, task, builder and objective as overrides, less those that are typed."""
    given = {item.partition("=")[0] for item in typed}
    found = ["builder=dense"] if labels == ("dense",) else [f"builder={predecessor_names.builder_of(labels)}"]
    found += [f"compose=[{','.join(labels)}]"] if found == ["builder=compose"] else []
    if "model" not in given:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", data["model"]):
            raise ConfigError(
                f"{file}: model={_short(data['model'])}: must be org/name; or give model=... beside the file"
            )
        found += ["model=hf", f"model.path={written(data['model'])}"]
    if "task" not in given:
        task, length = predecessor_names.task_of(data["task"])
        if task not in (known := group_choices("task", [conf_dir()])):
            raise ConfigError(
                f"{file}: task={_short(data['task'])}: no such task here{did_you_mean(task, known)}; "
                f"give task=... beside the file: {listed(known)}"
            )
        found.append(f"task={task}")
        found += [f"{phase}.max_context_length={length}" for phase in ("search", "validate") if length]
    objective = predecessor_names.objective_of(data["masker_name"])
    return found + ([] if given & {"objective", "objective.density", "objective.aux_bits"} else objective)


def _fields(stages: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    return [
        f"builder.stages.{label}.{field}={written(value)}"
        for label, fields in stages
        for field, value in fields.items()
    ]


def _rest(data: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> Iterator[Lost]:
    """What a file says beside its stack: figures of another measure, hyperparameters that contradict it, strangers."""
    for name in FIGURES:
        if data.get(name) is not None:
            reason = "of the predecessor's own objective and measure; kept under `imported`"
            yield Lost(field=name, value=data[name], reason=reason)
    for name, value in (data.get("hyperparams") or {}).items() if isinstance(data.get("hyperparams"), dict) else ():
        kind, _, field = str(name).partition("_")
        method = predecessor_names.method_of(kind)
        ours = method.fields.get(field) if method else None
        if method is None or ours is None:
            if method is None or field not in method.lost:
                yield Lost(field=f"hyperparams.{name}", value=value, reason="no such field")
            continue
        theirs = method.values.get(ours, lambda same: same)(value)
        if stages.get(method.name, {}).get(ours) != theirs:
            stands = stages.get(method.name, {}).get(ours)
            yield Lost(field=f"hyperparams.{name}", value=value, reason=f"the stack, which counts, says {stands}")
    for name in data.keys() - KNOWN:
        yield Lost(field=name, value=data[name], reason="not known")


def _short(value: Any) -> str:
    return str(value)[:100]
