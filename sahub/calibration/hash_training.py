"""Hash weights for any model, learned from what it attends to in texts of its tasks."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
import yaml
from torch import Tensor

from sahub.calibration.hash_learning import Learned, Learning, Trace, learn
from sahub.config.choices import conf_dir, group_choices
from sahub.data.examples import TaskSpec
from sahub.data.loading import load_examples
from sahub.engine.call_stats import Inputs
from sahub.engine.model import Model
from sahub.engine.requests import prepare
from sahub.engine.routing import attached
from sahub.errors import ConfigError, DataError, did_you_mean
from sahub.index.hash_weights import HashFile, write
from sahub.models.rope import fixed_frequencies

Report = Callable[[int, Learned], None]


Text = tuple[list[int], int]  # token ids, and where the question begins


def task_named(name: str) -> TaskSpec:
    """A task of conf/task. Raises ConfigError for one that there is not."""
    known = group_choices("task", [conf_dir()])
    if name not in known:
        raise ConfigError(f"tasks={name}: no such task{did_you_mean(name, known)}")
    tree = yaml.safe_load((conf_dir() / "task" / f"{name}.yaml").read_text("utf-8"))
    return TaskSpec(**{field.name: tree[field.name] for field in fields(TaskSpec) if field.name in tree})


def texts_of(model: Model, tasks: Sequence[TaskSpec], *, texts: int, length: int, seed: int) -> list[Text]:
    """`texts` contexts of the searching part, the tasks in turn, each with its first question and answer.

    length  tokens of a text, at most; contexts of the validating part are never read
    """
    share = -(-texts // len(tasks))
    several = []
    for task in tasks:
        examples = load_examples(
            task,
            split="search",
            limit=share,
            length=length - model.overhead_tokens,
            count_tokens=model.count_tokens,
            seed=seed,
        )
        requests = prepare(model, examples, max_context_length=length, max_new_tokens=None, truncation="middle")
        found = []
        for request in requests:
            answer = model.encode(" " + ", ".join(request.example.questions[0].references))
            ids = [*request.context_ids, *request.question_ids[0], *answer]
            found.append((ids[:length], len(request.context_ids)))
        several.append(found)
    mixed = [found[i] for i in range(share) for found in several if i < len(found)][:texts]
    if len(mixed) < 2:
        raise DataError(f"texts={len(mixed)}: learning needs at least 2, one of them to measure recall")
    return mixed


@torch.inference_mode()
def traces_of(model: Model, texts: Sequence[Text], rows: int, seed: int) -> dict[int, list[Trace]]:
    """For each layer that can be sparse, a trace of each text: the rows of its question and answer, and `rows` before.

    Those before are drawn from its context.
    """
    layers: dict[int, list[Trace]] = {layer: [] for layer in model.geometry.layers}
    chance = torch.Generator().manual_seed(seed)
    for ids, start in texts:
        before = torch.randperm(start, generator=chance)[:rows].sort().values
        recorder = _Recorder(torch.cat([before, torch.arange(start, len(ids))]))
        with attached(model.hf, recorder), fixed_frequencies(model.hf, len(ids)):
            model.hf.base_model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
        for layer, trace in recorder.traces.items():
            layers[layer].append(trace)
    return layers


def train(
    model: Model,
    tasks: Sequence[TaskSpec],
    output: Path,
    settings: Learning,
    *,
    texts: int = 32,
    length: int = 1024,
    report: Report = lambda layer, learned: None,
) -> HashFile:
    """Learn the weights of every layer and write them; a quarter of the texts is for measuring recall alone.

    Memory: the keys of all texts in all layers, texts * length * layers * KV heads * head_dim numbers.
    """
    found = texts_of(model, tasks, texts=texts, length=length, seed=settings.seed)
    layers = traces_of(model, found, settings.rows, settings.seed)
    held_out = max(1, len(found) // 4)
    tensors: dict[str, Tensor] = {}
    for layer, traces in layers.items():
        learned = learn(traces[held_out:], traces[:held_out], settings, layer)
        for side, mlp in learned.mlps.items():
            for i, (weight, bias) in enumerate(mlp):
                tensors[f"layers.{layer}.{side}.{i}.weight"] = weight.half().contiguous()
                tensors[f"layers.{layer}.{side}.{i}.bias"] = bias.half()
        report(layer, learned)
    how = {name: value for name, value in asdict(settings).items() if name in ("heads", "top", "rows", "steps", "seed")}
    names = ", ".join(task.name for task in tasks)
    return write(output, tensors, settings.activation, model=model.name, tasks=names, texts=len(found), **how)


class _Recorder:
    """Keeps queries of some rows and all keys of every layer, on the CPU; attends densely meanwhile."""

    def __init__(self, places: Tensor) -> None:
        self.traces: dict[int, Trace] = {}
        self._places = places

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """Attention of one call of one layer."""
        at = self._places.to(call.query.device)
        queries, keys = call.query[0, :, at].cpu(), call.key[0].cpu().clone()
        self.traces[layer] = Trace(places=self._places, q=queries, k=keys)
        return call.dense()
