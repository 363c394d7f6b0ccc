"""The families of the fuzzer: what is put in, and what must hold of how it ends."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import task_rows
import yaml
from hypothesis import strategies as st
from inputs import ANSWERS, CELLS, PLACES, TEXTS, VALUES, changed, same

from sahub import scores
from sahub.cli.sweep import winner_overrides
from sahub.config.cell import compose_cell, composed, plan
from sahub.config.choices import conf_dir, group_choices
from sahub.config.explain import composing
from sahub.config.grammar import addressed, parsed, written
from sahub.config.ranges import keys
from sahub.config.settings import Settings
from sahub.errors import DataError, SahubError
from sahub.files.atomic import write_sealed
from sahub.files.journal import FORMAT, Journal
from sahub.results import lookup, winners
from sahub.results.lookup import look_up
from sahub.results.reproduce import reproducing
from sahub.run.estimate import _read as estimated

Case = Any


@dataclass(frozen=True)
class Family:
    """Inputs, a check that raises what is wrong, and how many of all cases are its."""

    inputs: st.SearchStrategy
    check: Callable[[Case, Path], None]
    share: int


# --------------------------------------------------------------------------------------------------- overrides
KEYS = [*(key for key, _ in keys(Settings)), *(
    f"builder.stages.quest.{name}" for name in ("page_size", "density", "label_bits", "method", "nobody")
)]  # fmt: skip
CHOSEN = [
    (group, name)
    for group in ("builder", "objective", "sampler", "model")
    for name in group_choices(group, [conf_dir()])
]
RAW = st.one_of(
    TEXTS,
    st.sampled_from(["1,2", "range(3)", "glob(*)", "{a: b}", "[1,", "${", "choice(1,2)", "0", "-1", "null", "1e9"]),
)
OVERRIDES = st.lists(
    st.one_of(
        st.builds("{}{}={}".format, st.sampled_from(["", "", "+", "++", "~"]), st.sampled_from(KEYS), RAW),
        st.builds(lambda key, value: (key, value), st.sampled_from(KEYS), VALUES),
        st.builds("~{}".format, st.sampled_from(KEYS)),
        st.sampled_from(CHOSEN).map("=".join),
        TEXTS,
    ),
    min_size=1,
    max_size=3,
)


def overrides(case: Case, folder: Path) -> None:
    """A cell is composed with what was typed, and composed again from what it writes of itself."""
    typed = [item if isinstance(item, str) else f"{item[0]}={written(item[1])}" for item in case]
    with composing():
        cell = compose_cell(typed)
    for item in case:
        if not isinstance(item, str) and isinstance(item[1], str | int) and sum(item[0] in one for one in typed) == 1:
            found = dict(addressed(cell.composed)).get(item[0], item[1])
            read = type(found)(item[1]) if type(found) in (int, float, str) else item[1]  # by the type of the key
            assert same(found, read) or "builder" in item[0], item
    again = compose_cell(reproducing(cell))
    assert same(again.builder, cell.builder), "another builder"
    assert again.settings.search == cell.settings.search, "other settings"


# --------------------------------------------------------------------------------------------------- files
BASES = [f"{group}/{name}" for group, name in [*CHOSEN, ("task", "longbench/qasper"), ("protocol", "default")]]


@cache
def base(name: str) -> Any:
    return yaml.safe_load((conf_dir() / f"{name}.yaml").read_text("utf-8")) or {}


def files(case: Case, folder: Path) -> None:
    """A changed file of --config-dir is composed and planned."""
    (name, place, value), group = case, case[0].partition("/")[0]
    file = folder / "own" / group / "mine.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = value if isinstance(value, bytes) else yaml.safe_dump(changed(base(name), place, value)).encode()
    file.write_bytes(content)
    with composing([folder / "own"]):
        plan(*composed([f"{group}=mine"], config_dir=str(folder / "own")))


# --------------------------------------------------------------------------------------------------- rows
SUFFIXES = ("jsonl", "json", "parquet")
TASKS = st.sampled_from(group_choices("task", [conf_dir()]))
CHANGES = st.one_of(CELLS, st.just("gone"))
ROWS = st.tuples(TASKS, st.sampled_from(SUFFIXES), st.integers(0, 5), st.integers(0, 12), CHANGES)


class Unwritten(SahubError):
    """A file that cannot be: no table holds such a column."""


@cache
def rows_of(name: str) -> list[dict[str, Any]]:
    return json.loads(f"[{','.join(task_rows.lines(task_rows.rows_of(name)).splitlines())}]")


@cache
def references_of(name: str) -> Counter:
    found = read(name, Path(f"whole-{name.replace('/', '-')}.jsonl"), rows_of(name))
    return Counter(asked.references for example in found for asked in example.questions)


def read(name: str, file: Path, held: list[dict[str, Any]]) -> list[Any]:
    try:
        task_rows.write(file, held)
    except Exception as error:
        raise Unwritten("no table holds such a column") from error
    return task_rows.everything(task_rows.spec(name, path=str(file)))


def rows(case: Case, folder: Path) -> None:
    """One changed cell: examples, or an error of one line that names the file."""
    name, suffix, number, place, value = case
    held, file = rows_of(name), folder / f"x.{suffix}"
    column = sorted(held[0])[place % len(held[0])]
    row = {key: item for key, item in held[number].items() if key != column}
    row |= {} if value == "gone" else {column: value}
    try:
        found = read(name, file, [*held[:number], row, *held[number + 1 :]])
    except DataError as error:
        if str(file) in str(error) and "\n" not in str(error):
            raise
        raise AssertionError(f"no place: {error}") from error
    if name.startswith("longbench/") and column == "answers":  # read again, slowly
        expected = references_of(name).copy()
        expected[tuple(slowly(held[number][column]))] -= 1
        expected[tuple(slowly(value))] += 1
        ours = Counter(asked.references for example in found for asked in example.questions)
        assert +ours == +expected, f"references {ours - expected} for {value!r}"


def slowly(value: Any) -> list[str]:
    """The texts of a cell, said once more: what is empty left out, whole numbers without a point."""
    texts = []
    for item in value if isinstance(value, list) else [value]:
        text = "" if item is None else f"{item:.0f}" if isinstance(item, float) and item == round(item) else str(item)
        texts += [text] if text.strip() else []
    return texts


# --------------------------------------------------------------------------------------------------- scores
METRICS = [
    (f"{name}/{subset}", metric)
    for name, benchmark in scores.BENCHMARKS.items()
    for subset, metrics in benchmark.subsets.items()
    for metric in [*metrics, *(one for one, found in benchmark.on_request.get(subset, {}).items() if found)]
    if metric != "bert_score"
]  # fmt: skip
WRITTEN = st.one_of(ANSWERS, TEXTS, st.text("abAB12 .,()[]{}':", max_size=30))
SCORES = st.tuples(
    st.sampled_from(METRICS), WRITTEN, st.one_of(WRITTEN, st.lists(WRITTEN, max_size=3), CELLS),
    st.one_of(st.none(), st.lists(WRITTEN, max_size=3)),
)  # fmt: skip


def score(case: Case, folder: Path) -> None:
    """A number from 0 to 1, the same as another way to it gives, also as the only row of a data set."""
    (task, metric), prediction, references, classes = case
    found = scores.score(task, prediction, references, classes=classes, metric=metric)
    assert isinstance(found, float), f"{metric}: {found!r}"
    assert 0 <= found <= 1, f"{metric}: {found!r}"
    if found == 1 and metric in scores.metrics_of(task):  # what can be matched is not refused at loading
        scores.reference_check(task)(references, classes)
    golds = [references] if isinstance(references, str) else references
    if metric == "string_match_all" and not any(map(str.isspace, prediction + "".join(golds))):
        plain = prediction.lower()
        if plain.isprintable() and all(map(str.isprintable, golds)):
            assert found == sum(gold.lower() in plain for gold in golds) / len(golds), "string_match_all"
    if metric == "count" and prediction.isascii():
        numbers = "".join(sign if sign.isdigit() else " " for sign in prediction).split()
        assert found == (max(numbers.count(gold) for gold in golds) / len(numbers) if numbers else 0), "count"


# --------------------------------------------------------------------------------------------------- caches
CACHES = st.tuples(
    st.sampled_from(["best", "winner", "journal", "bytes"]), PLACES, st.one_of(CELLS, VALUES, st.binary(max_size=8))
)


@cache
def cell() -> Any:
    return compose_cell([], command="best")


@cache
def plain_lines() -> list[str]:
    return reproducing(cell())


@cache
def best() -> dict[str, Any]:
    figures = {"value": 0.25, "feasible": True, "density": 0.09, "aux_bits": 16.0, "answer_kl": 0.2}
    lines = ["builder=quest", "builder.stages.quest.page_size=8", "search.seed=0", "task.where={a: 1}"]
    choices = {name: getattr(cell().choices, name) for name in ("model", "task", "builder", "objective")}
    return choices | {
        "overrides": lines, "to_type": [], "stage_overrides": lines[1:2], "figures": figures, "mean_figures": figures,
        "tasks": ["ruler/vt"], "n": 10, "trials": {"complete": 4}, "versions": {"sahub": "1"}, "seed": 0,
    }  # fmt: skip


@cache
def entry() -> dict[str, Any]:
    winners.keep(cell(), best())
    [file] = winners.folder_of(None).glob("*.json")
    held = json.loads(file.read_text("utf-8"))
    return {"file": file, "entry": {name: item for name, item in held.items() if name != "seal"}}


def caches(case: Case, folder: Path) -> None:
    """A changed best file is refused or composes; a changed entry of the cache is not used, or is what it says."""
    kind, place, value = case
    if kind in ("best", "bytes"):
        file = folder / "best.json"
        content = json.dumps(changed(best(), place, plain(value))).encode("utf-8", "surrogatepass")
        file.write_bytes(content[: len(content) // 2] + value if isinstance(value, bytes) else content)
        with composing():
            for item in winner_overrides(file):
                parsed(item)
    elif kind == "winner":
        try:
            write_sealed(entry()["file"], changed(entry()["entry"], place, plain(value)))
        except (DataError, AttributeError, TypeError, ValueError):  # no entry at all
            return
        with patch.object(lookup, "reproducing", lambda _: plain_lines()):  # of the cell alone, and slow
            assert look_up(cell()).source in ("task", "default")
        winners.folder_of(None).mkdir(exist_ok=True)
    else:
        key = {"a": 1, "plan": ["ruler/vt", 1, True], "model": {"files": "x"}}
        journal = Journal(folder)
        kept = {"format": FORMAT, "key": key, "value": {"answers": [{"n_context": 3}], "micro": [], "seconds": 1.0}}
        try:
            write_sealed(journal._file(key), changed(kept, place, plain(value)))
        except (DataError, AttributeError, TypeError, ValueError):
            return
        journal.get(key)
        list(estimated(journal))


def plain(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, bytes):
        return value.hex()
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=str))
    except (ValueError, TypeError):
        return None


FAMILIES = {
    "overrides": Family(OVERRIDES, overrides, 3),
    "files": Family(st.tuples(st.sampled_from(BASES), PLACES, st.one_of(VALUES, st.binary(max_size=20))), files, 2),
    "rows": Family(ROWS, rows, 25),
    "scores": Family(SCORES, score, 60),
    "caches": Family(CACHES, caches, 10),
}
