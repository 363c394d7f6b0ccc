"""SmolLM2-135M-Instruct from its wheel: what holds of the small packaged model holds of one that people use."""

import json

import pytest
from commands import one, read, sahub

from sahub import build_stack
from sahub.config.cell import compose_cell
from sahub.doctor import anatomy, answers, selfcheck
from sahub.engine.evaluate import Plan, evaluate
from sahub.engine.requests import Prepared, load
from sahub.engine.session import Attention, Session
from sahub.results.validate import accuracy
from sahub.search.trial import attention_of

pytestmark = pytest.mark.real

CELL = [
    "model=smollm2", "task=ruler/niah_single_1", "builder=quest", "search.max_context_length=512",
    "search.max_requests=6", "search.decide=0", "search.max_new_tokens=16",
]  # fmt: skip


@pytest.fixture(scope="module")
def cell():
    return compose_cell(CELL)


@pytest.fixture(scope="module")
def model(cell):
    return load(cell)


def test_the_file_is_read_whole(model):
    assert (model.stored, model.max_context_length) == ("Q4_1, dequantised", 8192)
    assert (model.geometry.num_layers, model.geometry.num_heads, model.geometry.num_kv_heads) == (30, 9, 3)
    assert sum(weight.numel() for weight in model.hf.parameters()) == 134_515_008
    held = anatomy.weights(model, 134_515_008)
    assert ("stored as", "Q4_1, dequantised") in anatomy.weights_rows(held)


def test_its_prompts_are_those_of_its_chat_template(model):
    ids = model.context_ids("Some text.") + model.question_ids(" Why?", "")
    assert model.tokenizer.decode(ids) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nSome text. Why?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [model.decode([stop]) for stop in model.stop_ids] == [""]
    assert model.tokenizer.convert_ids_to_tokens(sorted(model.stop_ids)) == ["<|im_end|>"]
    pieces = model.tokenizer.tokenize("12  345\n\n6")
    assert pieces == ["1", "2", "ĠĠ", "3", "4", "5", "ĊĊ", "6"]


def test_it_finds_a_needle(model, cell):
    session = Session(model)
    requests = Prepared(model).requests(cell, "search")
    found = answers.dense(session, requests, Plan(task="ruler/niah_single_1", max_new_tokens=16))
    assert found.state == "complete"
    assert accuracy(found).mean >= 0.8


def test_its_sparse_path_is_honest(model, cell):
    facts = selfcheck.sparse_path(model, attention_of(cell, ()))
    assert selfcheck.problems(facts) == []
    assert max(facts["everything_kept_difference"].values()) < 1e-3
    assert (facts["sparse_layers"], facts["sparse_calls"]) == (30, facts["expected_calls"])
    assert 0.02 < facts["density"] < 0.2


def test_a_search_and_its_validation(tmp_path):
    done = sahub(
        "search", *CELL, "compute=inline", "search.num_samples=3", "search.batch=2", "search.promote=1",
        "search.calibrate=0", "search.max_requests=2", "validate.max_requests=3", "validate.max_context_length=512",
        "validate.max_new_tokens=12", "objective.density=0.25", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "model smollm2 (Q4_1, dequantised)" in done.stdout
    summary = json.loads(one(tmp_path, "benchmark_summary.json").read_text("utf-8"))
    [row] = summary["cells"]
    assert row["ok"]
    assert row["weights"] == "Q4_1, dequantised"
    assert row["validation"]["dense_score"]["mean"] >= 0.6
    [best] = [file for file in tmp_path.rglob("optimal_configs/*.json") if not file.stem.endswith("_trials")]
    assert read(best)["weights"] == "Q4_1, dequantised"


def test_the_dense_builder_is_dense(model, cell):
    requests = Prepared(model).requests(cell, "search")[:1]
    dense = Attention(stack=build_stack([{"name": "dense"}]), measure=0)
    [outcome] = evaluate(Session(model), requests, [dense], Plan(task="ruler/niah_single_1", max_new_tokens=12))
    assert outcome.state == "complete", outcome.reason
    assert outcome.measures()["answer_kl"] < 1e-6
