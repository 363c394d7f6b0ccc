"""The predecessor's result files: what becomes of every field, and what is refused by name."""

import json

import pytest
from commands import read

from sahub.cli.commands.import_hub import main
from sahub.cli.predecessor_import import import_file
from sahub.cli.sweep import winner_overrides
from sahub.config.cell import compose_cell
from sahub.errors import ConfigError
from sahub.search.trial import attention_of, space_of_cell

SINK = {"type": "SinkMaskerConfig", "params": {"sink_size": 128}}
LOCAL = {"type": "LocalMaskerConfig", "params": {"window_size": 128}}
PQ = {"heavy_size": 0.025, "pq_group_factor": 4, "pq_bits": 8, "kmeans_iter": 10, "init_offset": 128, "metric": "ip"}
ADAPTIVE = {"base_rate_sampling": 0.05, "epsilon": 0.025, "delta": 0.05, "init_offset": 128, "local_offset": 128}
QUEST = ("QuestTopKMaskerConfig", {"heavy_size": 0.0921875, "page_size": 32, "label_bits": 4})
PIG = ("MagicPigConfig", {"lsh_l": 32, "lsh_k": 8, "center": True, "packing": "int64", "seed": 42})


def result(*maskers, **changes):
    """A file as the predecessor writes it, of these (type, params) after sink and local."""
    configs = [SINK, LOCAL, *({"type": kind, "params": params} for kind, params in maskers)]
    return {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "task": "ruler32k/vt",
        "masker_name": "sink_local_other_sparsity_obj_10",
        "sparse_config": {"type": "ResearchAttentionConfig", "masker_configs": configs},
        "masker_classes": [one["type"] for one in configs],
        "hyperparams": {},
        "score": 0.09,
        "search_time": 4728.1,
        "num_trials": 144,
        **changes,
    }


def write(folder, content):
    file = folder / "result.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(file)


def imported(folder, content, *typed):
    found = import_file(write(folder, content), str(folder / "imported"), typed)
    return found, compose_cell(winner_overrides(found.path))


@pytest.mark.parametrize(
    ("masker", "builder", "fields"),
    [
        (QUEST, "quest", {**QUEST[1], "density": None, "min_pages": 3}),
        (("OracleTopKConfig", {"heavy_size": 128}), "oracle_topk", {"heavy_size": 128, "density": None}),
        (("OracleTopPMaskerConfig", {"top_p": 0.9}), "oracle_topp", {"top_p": 0.9}),
        (("RandomSamplingMaskerConfig", {"sampling_rate": 0.09}), "random_sampling", {"sampling_rate": 0.09}),
        (
            ("DoubleSparsityTopKMaskerConfig", {"heavy_size": 0.1, "group_factor": 8, "label_bits": 2}),
            "double_sparsity",
            {"group_factor": 8, "label_bits": 2, "heavy_size": 0.1},
        ),
        (("PQCacheConfig", PQ), "pqcache", {"pq_group_factor": 4, "pq_bits": 8, "metric": "ip", "heavy_size": 0.025}),
        (("SocketTopKMaskerConfig", {"heavy_size": 0.1, "K": 11, "L": 50, "tau": 0.4}), "socket", {"lsh_l": 50}),
        (PIG, "magic_pig", {"lsh_l": 32, "center": "keys", "min_hits": 1, "transform": "simple_lsh"}),
    ],
)
def test_every_method_becomes_its_builder(tmp_path, masker, builder, fields):
    found, cell = imported(tmp_path, result(masker))
    assert (cell.groups["builder"], cell.choices.task.partition("_")[0]) == (builder, "ruler/vt")
    assert (cell.choices.model, cell.choices.objective) == ("Llama-3.1-8B-Instruct", "sparsity_10")
    assert cell.settings.validate.max_context_length == 32768
    assert {"oracle_top_k.rank"} >= space_of_cell(cell).free.keys()  # which is not said there
    sink, local, stage = attention_of(cell, ()).stack.stages
    assert (sink.sink_size, local.window_size) == (128, 128)
    assert {name: getattr(stage, name) for name in fields} == fields
    lost = {one.field.rpartition(".")[2] for one in found.lost}
    assert lost == {"score", "search_time", "num_trials"} | (masker[1].keys() & {"init_offset", "packing", "seed"})
    assert read(found.path)["figures"] is None
    assert read(found.path)["imported"]["score"] == 0.09


def test_stacks_of_two_methods_and_any_other(tmp_path):
    adaptive = ("AdaptiveSamplingMaskerConfig", ADAPTIVE)
    found, cell = imported(tmp_path, result(("PQCacheConfig", PQ), adaptive))
    assert cell.groups["builder"] == "vattention_pqcache"
    stage = attention_of(cell, ()).stack.stages[-1]
    assert (stage.base_rate_sampling, stage.epsilon, stage.max_density) == (0.05, 0.025, None)
    assert sum("offset" in one.field for one in found.lost) == 3
    _, other = imported(tmp_path, result(("OracleTopPMaskerConfig", {"top_p": 0.8}), adaptive, masker_name="x"))
    assert other.choices.builder == "compose_sink_local_oracle_top_p_adaptive_sampling"
    assert other.choices.objective == "default"
    assert attention_of(other, ()).stack.stages[2].top_p == 0.8


def test_dense_and_what_is_typed_over_a_file(tmp_path):
    dense = result(sparse_config=None, masker_classes=None, masker_name="dense", score=0.0, num_trials=0, task="mock/x")
    _, cell = imported(tmp_path, dense, "task=ruler/niah_single_1", "model=embedded", "objective=sparsity_5")
    assert (cell.choices.builder, cell.choices.task, cell.choices.model) == ("dense", "ruler/niah_single_1", "embedded")
    assert cell.choices.objective == "sparsity_5"


def test_hyperparams_that_contradict_the_stack_and_strangers_are_named(tmp_path):
    pig = ("MagicPigConfig", {**PIG[1], "bits": 3})
    hyperparams = {"magicpig_lsh_l": 64, "magicpig_lsh_k": 8, "magicpig_center": True, "magicpig_packing": "int64"}
    found, _ = imported(tmp_path, result(pig, hyperparams=hyperparams, extra=1))
    reasons = {one.field: one.reason for one in found.lost}
    assert reasons["hyperparams.magicpig_lsh_l"] == "the stack, which counts, says 32"
    assert {"hyperparams.magicpig_lsh_k", "hyperparams.magicpig_center"}.isdisjoint(reasons)
    assert reasons["sparse_config.masker_configs[2].params.bits"] == "magic_pig has no such field"
    assert reasons["extra"] == "not known"
    assert {one["field"] for one in read(found.path)["not_carried"]} == reasons.keys()


def quest(**params):
    return result(("QuestTopKMaskerConfig", {**QUEST[1], **params}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON file"),
        ("\x00\x01", "is no JSON file"),
        ("[" * 100_000, "is no JSON file"),
        ("[]", "must hold one object, the result of a search, not a list"),
        ("{}", "has no model; a result has model, task, masker_name, sparse_config"),
        (json.dumps(result(QUEST, score=float("nan"))), "NaN is no number"),
        (result(QUEST, model=3), "model=3: must be text"),
        (result(QUEST, model="${oc.env:HOME}"), "model=${oc.env:HOME}: must be org/name"),
        (result(QUEST, task="ruler32k/vtt"), "task=ruler32k/vtt: no such task here; did you mean ruler/vt?"),
        (result(QUEST, sparse_config={"type": "Other", "masker_configs": [1]}), "must be a ResearchAttentionConfig"),
        (result(QUEST, sparse_config={"type": "ResearchAttentionConfig"}), "with a list of masker_configs"),
        (result(("__import__", {})), "masker_configs[2].type=__import__: no such method; those known: adaptive_samp"),
        (result(QUEST, QUEST), "quest stands there twice"),
        (result(("QuestTopKMaskerConfig", [1])), "masker_configs[2].params=[1]: must be an object"),
        (quest(page_size="${oc.env:HOME}"), "params.page_size=${oc.env:HOME}: must be a number or a name"),
        (quest(page_size={"_target_": "os.system"}), "params.page_size={'_target_': 'os.system'}: must be a number"),
        (quest(page_size=0), "builder.stages.quest.page_size=0: must be at least 1 token"),
        (result(QUEST, score=5.0, num_trials=0), "score=5.0: is the mark of a search that measured nothing"),
        (result(QUEST, score=100.0), "score=100.0: is the mark of a search that measured nothing"),
        (
            result(("HashAttentionTopKMaskerConfig", {"heavy_size": 0.1, "hat_weight_file": "/x/w.pkl"})),
            "builder.stages.hash_attention.weights=None: must name a safetensors file",
        ),
        (result(PIG, QUEST), "magic_pig: must be last"),
    ],
)
def test_wrong_files_are_named(tmp_path, content, message):
    with pytest.raises(ConfigError) as caught:
        imported(tmp_path, content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "imported").exists()


def test_files_are_not_overwritten_and_code_is_not_named(tmp_path):
    imported(tmp_path, result(QUEST))
    with pytest.raises(ConfigError, match="exists; give another folder"):
        imported(tmp_path, result(QUEST))
    with pytest.raises(ConfigError, match=r"objective.function._target_=os.system: a best file must not name code"):
        imported(tmp_path, result(QUEST), "objective.function._target_=os.system")
    with pytest.raises(ConfigError, match="cannot be read"):
        import_file(str(tmp_path / "nowhere.json"), str(tmp_path))


def test_the_command_says_what_it_wrote_and_what_it_lost(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, result(QUEST))
    typed = ["model=embedded", "task=ruler/niah_single_1", "builder.stages.quest.page_size=8"]
    assert main([f"file={file}", *typed]) == 0
    told = capsys.readouterr().out
    assert "to validate it: python -m pipelines.validate configs=imported" in told
    assert "not carried: score=0.09 (of the predecessor's own objective" in told
    [best] = (tmp_path / "imported" / "optimal_configs").glob("*.json")
    assert best.name == "embedded_ruler_niah_single_1_quest_sparsity_10.json"
    assert "builder.stages.quest.page_size=8" in read(best)["stage_overrides"]
    assert main(["file=nowhere.json"]) == 1
    assert capsys.readouterr().err == "file=nowhere.json: cannot be read (No such file or directory)\n"
