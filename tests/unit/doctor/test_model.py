"""What the doctor finds: a model that can be used, ones that cannot and why, and a sparse path that is not honest."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sahub.config.cell import Cell, compose_cell
from sahub.doctor import examine, selfcheck
from sahub.doctor.questions import asked_of
from sahub.doctor.report import Report, bytes_text, count_text
from sahub.engine.model import wrap_model
from sahub.engine.session import Attention
from sahub.errors import ConfigError, MissingFiles, SparseNeverRan
from sahub.models.weights import EMBEDDED

TASKS = ["ruler/niah_single_1", "ruler/niah_multikey_2"]
QUICK = ["compute.threads=1", "doctor.requests=2", "doctor.timing_tokens=64", "doctor.max_new_tokens=8"]


def doctor(directory: Path, *overrides: str) -> Cell:
    return compose_cell([*QUICK, *overrides], command="doctor", directory=directory)


def written(directory: Path) -> dict:
    return json.loads((directory / "doctor.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("embedded")
    assert examine(doctor(folder, f"doctor.tasks=[{','.join(TASKS)}]", "doctor.lengths=[512]"))
    return written(folder)


@pytest.fixture(scope="module")
def config() -> dict:
    return json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))


def test_the_parts_of_the_packaged_model_are_told(embedded, config):
    shape, held, words = embedded["architecture"], embedded["weights"], embedded["tokenizer"]
    assert (shape["class"], shape["sliding_window"]) == ("LlamaForCausalLM", None)
    assert (shape["num_layers"], shape["head_dim"]) == (config["num_hidden_layers"], config["head_dim"])
    assert (shape["num_heads"], shape["num_kv_heads"]) == (config["num_attention_heads"], config["num_key_value_heads"])
    assert shape["rope"]["rope_type"] == "default"
    assert (held["dtypes"], held["max_context_length"]) == (
        ["float32"],
        compose_cell([]).settings.model.max_context_length,
    )
    assert held["bytes"] == 4 * held["num_parameters"]
    assert words["prompts_begin_with_bos"]
    assert not words["doubled_bos"]
    assert (words["has_chat_template"], words["stop_tokens"]) == (False, ["<|eos|>"])


def test_its_sparse_path_is_honest(embedded, config):
    path = embedded["sparse_path"]
    assert max(path["everything_kept_difference"].values()) <= path["allowed_difference"]
    assert path["rewound_difference"] == 0
    assert path["sparse_calls"] == path["expected_calls"] == 8 * config["num_hidden_layers"]
    assert 0 < path["density"] <= path["asked_density"] == 0.1
    assert path["sparse_difference"] > path["allowed_difference"]


def test_its_dense_accuracy_has_intervals(embedded):
    rows = embedded["dense_accuracy"]
    assert [(row["task"], row["length"], row["n"]) for row in rows] == [(task, 512, 2) for task in TASKS]
    assert all(0 <= row["score"]["low"] <= row["score"]["mean"] <= row["score"]["high"] <= 1 for row in rows)


def test_its_costs_are_measured(embedded, config):
    spent = embedded["costs"]
    channels = config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    assert spent["kv_bytes_per_1k_tokens"] == 1000 * 2 * 4 * channels  # keys and values in fp32
    for name in ("prefill_seconds_per_1k_tokens", "decode_ms_per_token", "sparse_decode_ms_per_token"):
        assert spent[name] > 0
    assert spent["tokens"] == 64
    assert 50e6 < spent["peak_bytes"] <= 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert spent["free_bytes"] > 0
    assert spent["largest_context_tokens"] == min(embedded["weights"]["max_context_length"], spent["fits_tokens"])


def test_it_can_be_used(embedded, config):
    layers = f"sparse attention in {config['num_hidden_layers']} of {config['num_hidden_layers']} layers"
    assert embedded["usable"]
    assert embedded["problems"] == []
    assert embedded["good_for"][0] == layers
    assert embedded["verdict"].startswith(f"can be used for: {layers}; contexts up to ")


def unsupported(family: str):
    from transformers import DeepseekV3Config, GPT2Config, MambaConfig

    return {
        "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=64, n_positions=128),
        "mamba": MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=64, state_size=4),
        "deepseek_v3": DeepseekV3Config(hidden_size=16, num_hidden_layers=2, vocab_size=64, kv_lora_rank=16),
    }[family]


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gpt2", "none of 2 layers has attention that can be made sparse (its attention: GPT2Attention)"),
        ("mamba", "num_attention_heads=None: it has no attention"),
        ("deepseek_v3", "kv_lora_rank=16: multi-head latent attention is not supported"),
    ],
)
def test_an_architecture_that_is_not_supported_is_explained_from_its_configuration(family, reason, tmp_path, capsys):
    unsupported(family).save_pretrained(tmp_path / "model")  # no weights: there is nothing to load
    assert not examine(doctor(tmp_path, "model=hf", f"model.path={tmp_path / 'model'}"))
    found, said = written(tmp_path), capsys.readouterr().out
    assert not found["usable"]
    assert found["architecture"]["num_layers"] == 2
    assert found["verdict"].startswith(
        "can be used for: nothing here. not for: any search or validation because model="
    )
    assert reason in found["verdict"]
    assert f"verdict: {found['verdict']}" in said.splitlines()


def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "lama"}', encoding="utf-8")
    assert not examine(doctor(tmp_path, "model=hf", f"model.path={tmp_path / 'model'}"))
    first, files = capsys.readouterr().out.splitlines()
    assert f"model.path={tmp_path / 'model'}: config.json: model_type=lama: not known to transformers" in first
    assert files == f"files: {tmp_path / 'doctor.json'}"


def test_missing_weights_are_named_with_the_command_that_fetches_them(tmp_path):
    with pytest.raises(MissingFiles, match="hf download nobody/nothing"):
        examine(doctor(tmp_path, "model=hf", "model.path=nobody/nothing"))
    assert "hf download nobody/nothing" in written(tmp_path)["verdict"]


def test_a_random_model_runs_but_tells_no_methods_apart(tmp_path, make_model, tokenizer, capsys):
    make_model("qwen3").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    asked = ["doctor.tasks=[ruler/niah_single_1]", "doctor.lengths=[100,800,9000]"]
    assert examine(doctor(tmp_path, "model=hf", f"model.path={tmp_path / 'model'}", *asked))
    verdict = written(tmp_path)["verdict"]
    assert "sparse attention in 2 of 2 layers" in verdict
    assert "ruler/niah_single_1 at 800 because its dense accuracy of 0.0 [0,84] % is too low to tell methods" in verdict
    assert "at 9,000 because longer than the 4,096 tokens that the model reads" in verdict
    assert "at 100 because task=ruler/niah_single_1: " in verdict  # bytes: 100 tokens hold no needle
    assert "sparse path" in capsys.readouterr().out


@pytest.fixture
def model(make_model, tokenizer):
    return wrap_model(make_model(), tokenizer, name="tiny")


def attention() -> Attention:
    from sahub.builders.build import build_stack

    return Attention(
        stack=build_stack([{"name": "sink", "sink_size": 4}, {"name": "local", "density": 0.2}]), measure=0
    )


def test_attention_that_is_not_plain_is_found_out(model):
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def louder(module, query, *arguments, **settings):
        return sdpa_attention_forward(module, 1.5 * query, *arguments, **settings)

    AttentionInterface.register("louder", louder)
    model.hf.set_attn_implementation("louder")
    facts = selfcheck.sparse_path(model, attention())
    block, as_list = selfcheck.problems(facts)
    assert "with every key kept (as a block) its logits differ" in block
    assert "with every key kept (as a list) its logits differ" in as_list


def test_a_hook_that_is_not_asked_is_found_out(model, monkeypatch):
    monkeypatch.setattr("sahub.engine.routing.NAME", "sdpa")
    with pytest.raises(SparseNeverRan, match="sparse attention never ran"):
        selfcheck.sparse_path(model, attention())


def test_each_way_to_be_dishonest_has_its_words(model):
    facts = selfcheck.sparse_path(model, replace(attention(), dense_layers=(1,)))
    assert selfcheck.problems(facts) == []
    assert (facts["sparse_layers"], facts["expected_calls"]) == (1, 8)
    changes = {"sparse_calls": 7, "rewound_difference": 1.0, "sparse_difference": 0.0}
    assert len(selfcheck.problems({**facts, **changes})) == 3
    [broken] = selfcheck.problems({**facts, "allowed_difference": None})
    assert "not finite" in broken


def test_logits_that_are_not_numbers_are_a_finding(model):
    with torch.no_grad():
        model.hf.lm_head.weight.fill_(float("nan"))
    [problem] = selfcheck.problems(selfcheck.sparse_path(model, attention()))
    assert "not finite" in problem


def test_questions_are_of_the_split_that_searches_use_and_names_are_checked(tmp_path):
    cell = doctor(tmp_path, "doctor.lengths=[300,400]", "doctor.seed=7", "model.max_context_length=900")
    asked = asked_of(cell)
    assert [(one.choices.task, one.settings.search.max_context_length) for one in asked] == [
        (task, length) for task in cell.settings.doctor.tasks for length in (300, 400)
    ]
    assert {one.settings.search.seed for one in asked} == {7}
    assert {one.settings.model for one in asked} == {cell.settings.model}
    assert {f"{one.settings.task.benchmark}/{one.settings.task.subset}" for one in asked} == set(
        cell.settings.doctor.tasks
    )
    with pytest.raises(ConfigError, match=r"doctor.tasks=ruler/niah_singel_1: no such task; did you mean ruler/niah_s"):
        asked_of(doctor(tmp_path, "doctor.tasks=[ruler/niah_singel_1]"))


def test_the_verdict_is_in_plain_words():
    report = Report(subject="model m", good_for=["this", "that"], not_for=[("more", "of reasons")])
    assert report.verdict == "can be used for: this; that. not for: more because of reasons"
    report.problems.append("it is broken")
    assert report.verdict == "can be used for: nothing here. not for: any search or validation because it is broken"


def test_sizes_are_written_for_people():
    assert [bytes_text(one) for one in (512, 4_096_000, 19.6e9, 2e12)] == ["512 B", "4.1 MB", "19.6 GB", "2.0 TB"]
    assert [count_text(one) for one in (12, 4096, 3_410_176, 8_030_261_248)] == ["12", "4.1 k", "3.41 M", "8.03 B"]
