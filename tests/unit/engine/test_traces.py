"""Traces in files: shared, whole or made again, within their budgets."""

import json
import subprocess
import sys

import pytest
import torch

from sahub import build_stack
from sahub.engine.model import wrap_model
from sahub.engine.record import bytes_of_layer, record, spread
from sahub.engine.replay import replay
from sahub.engine.session import Session
from sahub.engine.traces import drop_oldest, read_trace, write_trace
from sahub.errors import ConfigError

CONTEXT = tuple(range(20, 220))
QUESTION, ANSWER = [7, 9, 30, 41], [5, 6, 7]
STACK = build_stack([{"name": "sink", "sink_size": 2}, {"name": "quest", "density": 0.2}])
CPU = torch.device("cpu")


@pytest.fixture
def session(make_model, tokenizer, tmp_path):
    model = wrap_model(make_model(num_hidden_layers=3), tokenizer)
    return Session(model, fingerprint={"files": "x"}, traces=tmp_path / "traces")


def asked(session, **rest):
    return session.trace_of(session.prefix(CONTEXT, 32), QUESTION, ANSWER, **rest)


def test_a_trace_in_a_file_gives_what_one_in_memory_gives(session):
    mapped = asked(session)
    in_memory = record(session.model, session.prefix(CONTEXT, 32), QUESTION, ANSWER)
    assert mapped.is_mapped
    assert not in_memory.is_mapped
    assert {key: one.summary() for key, one in replay(mapped, STACK).items()} == {
        key: one.summary() for key, one in replay(in_memory, STACK).items()
    }


def test_another_session_reads_the_file_and_makes_nothing(session, monkeypatch):
    asked(session)
    [file] = session._traces.folder.iterdir()
    other = Session(session.model, fingerprint={"files": "x"}, traces=session._traces.folder)
    monkeypatch.setattr("sahub.engine.session.record", None)
    assert asked(other).is_mapped
    assert [*session._traces.folder.iterdir()] == [file]


def test_another_model_and_another_question_have_files_of_their_own(session):
    asked(session)
    asked(Session(session.model, fingerprint={"files": "y"}, traces=session._traces.folder))
    session.trace_of(session.prefix(CONTEXT, 32), [1, 2], ANSWER)
    assert len([*session._traces.folder.iterdir()]) == 3


@pytest.mark.parametrize("harm", ["cut", "empty", "foreign"])
def test_a_torn_file_is_made_again(session, harm, caplog):
    asked(session)
    [file] = session._traces.folder.iterdir()
    whole = file.read_bytes()
    file.unlink()  # a new one: the old is mapped
    file.write_bytes({"cut": whole[:-100], "empty": b"", "foreign": json.dumps({"a": 1}).encode()}[harm])
    session._traces._held.clear()
    assert asked(session).is_mapped
    assert "damaged trace" in caplog.text
    assert file.read_bytes() == whole


def test_where_nothing_can_be_written_traces_stay_in_memory(session, caplog, tmp_path):
    (tmp_path / "traces").write_text("a file where the folder should be")
    assert not asked(session).is_mapped
    assert "no trace can be kept there" in caplog.text


def test_the_files_that_were_not_used_for_longest_leave(session, tmp_path):
    trace = record(session.model, session.prefix(CONTEXT, 32), QUESTION, ANSWER)
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file in files:
        write_trace(file, trace)
    size = files[0].stat().st_size
    assert read_trace(files[0], CPU) is not None  # used
    drop_oldest(tmp_path, 2 * size, but=files[2])
    assert [file.exists() for file in files] == [True, False, True]
    drop_oldest(tmp_path, 0, but=files[2])
    assert [file.exists() for file in files] == [False, False, True]


def test_beyond_the_budget_layers_are_left_out_and_never_keys(session, caplog):
    caplog.set_level("INFO")
    whole = asked(session)
    each = whole.groups[0].at(slice(1)).nbytes
    few = asked(session, most=2 * each)
    assert few.groups[0].numbers == (0, 2)
    assert few.groups[0].keys.shape[2] == whole.groups[0].keys.shape[2]
    assert {layer for layer, _ in replay(few, STACK)} == {0, 2}
    assert "holds 2 of 3 layers: [0, 2]" in caplog.text
    with pytest.raises(ConfigError, match=r"protocol\.trace_mib=0: must be at least 1,"):
        asked(session, most=each - 1)


def test_the_bytes_of_a_layer_are_those_of_its_tensors(session):
    group = asked(session).groups[0]
    tokens, rows = group.keys.shape[2], group.queries.shape[2]
    assert group.nbytes == 3 * bytes_of_layer(tokens, rows, (4, 2), (16, 16), 4)


def test_two_of_32_layers_of_eight_billion_parameters():
    """The documented number: 32,768 tokens, 128 rows of the question and 128 of the answer, bf16."""
    each = bytes_of_layer(32768, 256, heads=(32, 8), widths=(128, 128), itemsize=2)
    assert each == 32768 * 8 * 256 * 2 + 256 * 32 * (128 * 2 + 128 * 4) == 140_509_184
    assert spread(range(32), each, 2 * each) == (8, 24)
    assert len(spread(range(32), each, 1 << 30)) == 7


READER = """
import sys, torch, psutil
from pathlib import Path
from sahub.engine.traces import read_trace
before = psutil.Process().memory_full_info().uss
trace = read_trace(Path(sys.argv[1]), torch.device("cpu"))
assert sum(float(one.sum()) for group in trace.groups for one in (group.keys, group.values)) is not None
print(trace.groups[0].nbytes, psutil.Process().memory_full_info().uss - before)
"""


def test_two_that_read_a_trace_share_its_pages(session, tmp_path):
    trace = record(session.model, session.prefix(CONTEXT, 32), QUESTION, ANSWER)
    [group] = trace.groups
    wide = {name: getattr(group, name).repeat(1, 1, 400, 1) for name in ("keys", "values")}
    trace.groups = [type(group)(**{**vars(group), **wide})]
    write_trace(tmp_path / "a.safetensors", trace)
    ours = read_trace(tmp_path / "a.safetensors", CPU)
    assert all(torch.equal(getattr(ours.groups[0], name), wide[name]) for name in wide)  # touches every page
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path / "a.safetensors")], stdout=subprocess.PIPE, text=True
    ) as reader:
        size, own = map(int, reader.communicate(timeout=60)[0].split())
    assert size > 30 << 20
    assert own < size / 10
