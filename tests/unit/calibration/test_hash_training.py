"""Hash weights learned from a model: better than chance on texts nothing was learned from, and the same every time."""

import commands
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sahub.builders.build import build_stack, select
from sahub.calibration.hash_learning import Learning, Trace, learn
from sahub.calibration.hash_training import task_named, texts_of, traces_of, train
from sahub.engine.model import wrap_model
from sahub.engine.routing import attached
from sahub.errors import ConfigError
from sahub.index.hash_weights import write

SMALL = Learning(bits=12, mlp_layers=2, hidden_size=16, top=8, rows=24, steps=40, learning_rate=0.02)
TASKS = [task_named("ruler/niah_multikey_2"), task_named("ruler/vt")]


@pytest.fixture(scope="module")
def model(make_model, tokenizer):
    return wrap_model(make_model(max_position_embeddings=768), tokenizer, name="tiny")


def test_texts_are_of_the_searching_part_and_end_with_the_answer(model):
    texts = texts_of(model, TASKS, texts=3, length=700, seed=0)
    assert len(texts) == 3
    for ids, start in texts:
        assert 100 < start < len(ids) <= 700
    [(ids, start)] = texts[:1]
    asked = model.decode(ids[start:])
    assert "secret number" in asked
    assert asked[-7:].isdigit()
    assert asked[-7:] in model.decode(ids[:start])
    again = texts_of(model, TASKS, texts=3, length=700, seed=0)
    assert again == texts
    assert texts_of(model, TASKS, texts=3, length=700, seed=1) != texts


def test_traces_are_the_queries_and_keys_that_attention_gets(model):
    seen = {}

    class Spy:
        def attend(self, layer, call):
            seen[layer] = call
            return call.dense()

    ids = list(range(3, 80))
    layers = traces_of(model, [(ids, 60)], 5, 0)
    with attached(model.hf, Spy()), torch.inference_mode():
        model.hf.base_model(input_ids=torch.tensor([ids]), use_cache=False)
    for layer, [trace] in layers.items():
        assert trace.places.tolist()[5:] == list(range(60, 77))
        assert all(0 <= at < 60 for at in trace.places.tolist()[:5])
        assert torch.equal(trace.q, seen[layer].query[0, :, trace.places])
        assert torch.equal(trace.k, seen[layer].key[0])


@pytest.mark.parametrize("heads", ["kv", "query"])
def test_learning_finds_more_of_the_best_keys_than_first_weights_do(heads, model, tmp_path):
    settings = Learning(**{**vars(SMALL), "heads": heads})
    told = {}
    out = tmp_path / "sub" / "hashes.safetensors"
    found = train(model, TASKS, out, settings, texts=6, length=640, report=told.__setitem__)
    assert sorted(told) == [0, 1]
    for learned in told.values():
        assert learned.recall > 2 * learned.untrained
    assert (len(found.layers), found.num_heads, found.bits) == (2, 2 if heads == "kv" else 4, 12)
    fields = {"weights": str(out), "hat_bits": 12, "hat_mlp_layers": 2, "hat_mlp_hidden_size": 16}
    stack = build_stack([{"name": "hash_attention", "density": 0.1, **fields}])
    stack.check(model.geometry)
    with safe_open(out, framework="pt") as file:
        said = file.metadata()
    assert (said["model"], said["tasks"], said["activation"]) == ("tiny", "ruler/niah_multikey_2, ruler/vt", "silu")
    assert not list(out.parent.glob("*.part"))
    if heads == "query":
        return
    first = load_file(out)
    train(model, TASKS, out, settings, texts=6, length=640)
    assert all(torch.equal(tensor, first[name]) for name, tensor in load_file(out).items())


def test_what_recall_measures_is_what_the_method_keeps(tmp_path):
    noise = torch.Generator().manual_seed(0)
    shapes = {"q": (4, 20, 8), "k": (2, 60, 8)}
    traces = [
        Trace(
            places=torch.arange(40, 60), **{name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
        )
        for _ in range(3)
    ]
    learned = learn(traces[1:], traces[:1], SMALL, layer=0)
    tensors = {
        f"layers.0.{side}.{i}.{part}": tensor
        for side, mlp in learned.mlps.items()
        for i, layer in enumerate(mlp)
        for part, tensor in zip(("weight", "bias"), layer, strict=True)
    }
    file = tmp_path / "hashes.safetensors"
    write(file, tensors, "silu")
    fields = {"weights": str(file), "hat_bits": 12, "hat_mlp_layers": 2, "hat_mlp_hidden_size": 16}
    q, k = traces[0].q[None], traces[0].k[None]
    kept = select(build_stack([{"name": "hash_attention", "heavy_size": 8, **fields}]), q, k, k).probabilities()[0] > 0
    best = select(build_stack([{"name": "oracle_top_k", "heavy_size": 8}]), q, k, k).probabilities()[0] > 0
    assert learned.recall == pytest.approx(float((kept & best).sum() / best.sum()))
    assert learned.recall > learned.untrained


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bits", 0, "bits=0: must be a whole number, at least 1"),
        ("steps", -1, "steps=-1: must be a whole number"),
        ("learning_rate", 0, "learning_rate=0: must be above 0"),
        ("heads", "all", "heads=all: must be one of kv, query"),
        ("activation", "sine", "activation=sine: must be one of silu"),
    ],
)
def test_what_cannot_be_learned_fails_by_name(field, value, message):
    with pytest.raises(ConfigError, match=message):
        Learning(**{field: value})


def test_the_command_writes_weights_that_the_builder_reads(tmp_path):
    out = tmp_path / "hashes.safetensors"
    settings = [f"output={out}", "texts=2", "length=400", "learning.steps=2", "tasks=[ruler/niah_multikey_2]"]
    done = commands.sahub("train_hash", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "layer 0: recall 0." in done.stdout
    assert "hat_bits=32 hat_mlp_layers=3 hat_mlp_hidden_size=128" in done.stdout
    build_stack([{"name": "hash_attention", "density": 0.1, "weights": str(out)}])


def test_a_wrong_command_fails_in_a_line_before_weights_are_loaded(tmp_path):
    done = commands.sahub("train_hash", "model=llama", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "output=null: must name a file for any model" in done.stderr
    with pytest.raises(ConfigError, match="tasks=ruler/niah_multikey: no such task; did you mean"):
        task_named("ruler/niah_multikey")
