"""Finished work is found again exactly where everything that determines it is the same."""

import errno
import json
from dataclasses import asdict, replace

import pytest
import torch

from sahub.builders.build import build_stack
from sahub.data.examples import TaskSpec
from sahub.data.loading import load_examples
from sahub.engine.evaluate import Plan, evaluate
from sahub.engine.model import wrap_model
from sahub.engine.requests import prepare
from sahub.engine.session import Attention, Session
from sahub.files import journal
from sahub.files.journal import FORMAT, NUMERIC, OTHER, Journal, numbers_version
from sahub.files.package import ROOT
from sahub.models.weights import digest_of_files

PLAN = Plan(task="ruler/niah_multikey_2", metric="string_match_all", fidelity="generate", max_new_tokens=3)
STAGES = [{"name": "sink", "sink_size": 4}, {"name": "local", "window_size": 8}]


@pytest.fixture(scope="module")
def model(make_model, tokenizer):
    return wrap_model(make_model(), tokenizer, name="tiny")


@pytest.fixture(scope="module")
def requests(model):
    spec = TaskSpec(
        benchmark="ruler",
        subset="niah_multikey_2",
        metric="string_match_all",
        max_new_tokens=8,
        options={"num_examples": 2},
    )
    examples = load_examples(spec, split="search", limit=2, length=700, count_tokens=model.count_tokens, seed=0)
    return prepare(model, examples, max_context_length=700, max_new_tokens=4, truncation="middle")


@pytest.fixture
def run(model, requests, tmp_path):
    torch.set_num_threads(1)

    def go(*, fingerprint="weights", plan=PLAN, stages=STAGES, folder=tmp_path, force=False, over=requests, seed=0):
        session = Session(model, fingerprint=fingerprint)
        before = replace(model.counters)
        attentions = [Attention(), Attention(stack=build_stack(stages), seed=seed)]
        outcomes = evaluate(session, over, attentions, plan, journal=Journal(folder, force=force))
        after = model.counters
        return (
            outcomes,
            after.computed - before.computed,
            after.served - before.served,
            after.prefills - before.prefills,
        )

    return go


def figures(outcomes):
    return [([asdict(answer) | {"seconds": 0} for answer in one.answers], one.micro, one.aux_bits) for one in outcomes]


def test_a_second_run_computes_nothing_and_finds_the_same_numbers(run):
    first, computed, served, _ = run()
    again, computed_again, served_again, prefills = run()
    assert (computed, served) == (4, 0)
    assert (computed_again, served_again, prefills) == (0, 4, 0)
    assert figures(again) == figures(first)
    assert [one.measures() for one in again] == [one.measures() for one in first]


def test_a_run_that_was_cut_short_is_continued_at_its_first_missing_context(run, requests):
    run(over=requests[:1])
    _, computed, served, prefills = run()
    assert (computed, served, prefills) == (2, 2, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other weights"},
        {"plan": replace(PLAN, max_new_tokens=2)},
        {"plan": replace(PLAN, fidelity="teacher")},
        {"stages": [STAGES[0], {"name": "local", "window_size": 9}]},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_moves_a_number_moves_the_key(run, change):
    run()
    _, computed, _, _ = run(**change)
    assert computed >= 2  # dense answers do not depend on the stack


def test_other_references_are_other_scores(run, requests):
    run()
    question = replace(requests[0].example.questions[0], references=("nothing",))
    other = replace(requests[0], example=replace(requests[0].example, questions=(question,)))
    assert run(over=[other])[1] == 2


def test_a_new_time_limit_does_not_throw_work_away(run):
    run()
    assert run(plan=replace(PLAN, timeout_s=1e4))[1] == 0


def test_force_does_everything_again(run):
    run()
    assert run(force=True)[1] == 4


def test_a_model_without_files_is_never_kept(run):
    run(fingerprint=None)
    assert run(fingerprint=None)[1] == 4


def entries(folder):
    return sorted((folder / "journal").rglob("*.json"))


def test_a_damaged_entry_is_named_and_done_again(run, tmp_path, caplog):
    first, *_ = run()
    for file, text in zip(entries(tmp_path), ["", "{", f'{{"format": {FORMAT}}}', "[]"], strict=True):
        file.write_text(text)
    assert not list(Journal(tmp_path).newest(9))
    again, computed, _, _ = run()
    assert computed == 4
    assert figures(again) == figures(first)
    assert str(entries(tmp_path)[0]) in caplog.text
    assert run()[1] == 0  # and repaired


def test_an_entry_whose_value_was_changed_is_damaged(run, tmp_path, caplog):
    first, *_ = run()
    for file in entries(tmp_path):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"value": {}}))
    assert not list(Journal(tmp_path).newest(9))
    again, computed, _, _ = run()
    assert computed == 4
    assert figures(again) == figures(first)
    assert "a damaged entry" in caplog.text


def test_an_entry_from_a_newer_version_is_named_and_not_used(run, tmp_path, caplog):
    run()
    for file in entries(tmp_path):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": FORMAT + 1}))
    assert run()[1] == 4
    assert "newer sahub" in caplog.text


def test_a_full_disk_is_named_once_and_survived(run, monkeypatch, caplog):
    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sahub.files.journal.write_sealed", full)
    outcomes, computed, _, _ = run()
    assert computed == 4
    assert all(one.state == "complete" for one in outcomes)
    assert caplog.text.count("No space left on device") == 1


def test_weights_are_hashed_once_until_they_change(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    first = digest_of_files([file], tmp_path / "memo")
    assert digest_of_files([file], tmp_path / "memo") == first
    assert len(list((tmp_path / "memo").iterdir())) == 1
    file.write_bytes(b"two")
    assert digest_of_files([file], tmp_path / "memo") != first


def test_a_byte_in_a_room_moves_the_version_of_numbers_where_the_room_decides_numbers(tmp_path, monkeypatch):
    rooms = {file.relative_to(ROOT).parts[0] for file in ROOT.rglob("*.py") if file.parent != ROOT}
    assert rooms <= {*NUMERIC, *OTHER}
    assert not {*NUMERIC} & {*OTHER}
    for room in (*NUMERIC, *OTHER):
        (tmp_path / room).mkdir()
        (tmp_path / room / "inside.py").write_text("x = 1\n")
    monkeypatch.setattr(journal, "ROOT", tmp_path)
    before = numbers_version.__wrapped__()
    for room in (*NUMERIC, *OTHER):
        file = tmp_path / room / "inside.py"
        file.write_text("x = 2\n")
        assert (numbers_version.__wrapped__() != before) == (room in NUMERIC), room
        file.write_text("x = 1\n")
    assert numbers_version.__wrapped__() == before


def test_an_entry_of_another_shape_or_another_key_is_not_used(tmp_path, caplog):
    journal, shape = Journal(tmp_path), {"answers": [{"score": (float, None)}], "seconds": float}
    good = {"answers": [{"score": 1}, {"score": None}], "seconds": 0.5}
    for value in (
        good,
        {**good, "answers": [{"score": True}]},
        {"seconds": 1.0},
        [good],
        "x",
        {**good, "seconds": "1"},
    ):
        journal.put({"a": 1}, value)
        assert (Journal(tmp_path).get({"a": 1}, shape) == value) == (value is good)
        assert len(list(journal.newest(9, {"value": shape}))) == (value is good)
    journal.put({"a": 1}, good)
    [file] = entries(tmp_path)
    other = journal._file({"a": 2})
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(file.read_bytes())
    assert Journal(tmp_path).get({"a": 2}, shape) is None
    assert Journal(tmp_path).get({"a": 1}, shape) == good
    assert "a damaged entry" in caplog.text
