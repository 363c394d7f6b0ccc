"""Learning the functions of HashAttention: signatures that agree where a query's true dot product is large."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sahub.attention.budgets import is_count, is_number
from sahub.errors import ConfigError
from sahub.index.hash_weights import SIDES, Mlp
from sahub.methods.hash_attention import ACTIVATIONS, outputs

HEADS = ("kv", "query")


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What is learned and how. Raises ConfigError for values that cannot be.

    heads          kv: one function for the query heads that share a KV head; query: one each, as published
    top            keys of a row that count as its best
    rows           rows of a text that a step looks at
    """

    bits: int = 32
    mlp_layers: int = 3
    hidden_size: int = 128
    activation: str = "silu"
    heads: str = "kv"
    top: int = 32
    rows: int = 64
    steps: int = 400  # of each layer
    learning_rate: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("bits", "mlp_layers", "hidden_size", "top", "rows", "steps"):
            if not is_count(getattr(self, name)) or getattr(self, name) < (name != "steps"):
                raise ConfigError(f"{name}={getattr(self, name)}: must be a whole number, at least 1 (steps: 0)")
        if not is_number(self.learning_rate) or self.learning_rate <= 0:
            raise ConfigError(f"learning_rate={self.learning_rate}: must be above 0")
        for name, known in (("heads", HEADS), ("activation", tuple(ACTIVATIONS))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)}: must be one of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Queries and keys of one layer in one text, after the rotary embedding.

    places  int64 [n]: the rows that were kept, by position
    q       [h, n, d], their queries;  k [g, k, d], all keys
    """

    places: Tensor
    q: Tensor
    k: Tensor


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Functions of one layer, and the share of a row's best keys that as many best signatures find, before and after.

    Both recalls are of texts that nothing was learned from.
    """

    mlps: dict[str, Mlp]
    untrained: float
    recall: float


def learn(traces: Sequence[Trace], unseen: Sequence[Trace], settings: Learning, layer: int) -> Learned:
    """Functions of one layer, from its traces: the same ones for the same seed, on one thread.

    Loss: a key is, or is not, among the `top` with the largest q.k of the keys up to the row's own. Binary
    cross-entropy of a * <signature(q), signature(k)> + b, with a and b learned per function, both classes weighing the
    same; gradients pass the sign as if it were tanh (Desai et al. 2024, arXiv:2412.14468, sec. 4: the task; the paper
    weighs classes by constants of its own).
    """
    chance = torch.Generator().manual_seed(settings.seed * 1_000_003 + layer)
    scales = {
        "query": torch.cat([trace.q.float().square().mean((1, 2)) for trace in traces]).mean().sqrt(),
        "key": torch.cat([trace.k.float().square().mean((1, 2)) for trace in traces]).mean().sqrt(),
    }
    first = traces[0]
    num = first.k.shape[0] if settings.heads == "kv" else first.q.shape[0]
    mlps = {side: _start(num, first.q.shape[2], settings, chance) for side in SIDES}
    untrained = recall(unseen, _folded(mlps, scales), settings)
    slope = torch.full((num, 1, 1), 4.0 * settings.bits**-0.5).log().requires_grad_()
    offset = torch.zeros(num, 1, 1, requires_grad=True)
    leaves = [*itertools.chain.from_iterable(itertools.chain(*mlps.values())), slope, offset]
    optimizer = torch.optim.Adam(leaves, lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, max(1, settings.steps + 1))
    with torch.enable_grad():
        for _ in range(settings.steps):
            trace = traces[int(torch.randint(len(traces), (1,), generator=chance))]
            rows = torch.randperm(len(trace.places), generator=chance)[: settings.rows]
            scores = _scores(trace, rows, mlps, scales, settings.activation)
            each = slope.exp().repeat_interleave(scores.shape[0] // num, dim=0) * scores
            loss = _loss(each + offset.repeat_interleave(scores.shape[0] // num, dim=0), *_best(trace, rows, settings))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    done = _folded(mlps, scales)
    return Learned(mlps=done, untrained=untrained, recall=recall(unseen, done, settings))


@torch.no_grad()
def recall(traces: Sequence[Trace], mlps: dict[str, Mlp], settings: Learning) -> float:
    """Share of the `top` best keys of each row that are among the `top` best signatures, ties to the recent; a mean."""
    found, whole = 0.0, 0
    for trace in traces:
        rows = torch.arange(len(trace.places))
        best, seen = _best(trace, rows, settings)
        unscaled = {side: torch.tensor(1.0) for side in SIDES}
        scores = _scores(trace, rows, mlps, unscaled, settings.activation)
        recent = torch.arange(scores.shape[-1]) / scores.shape[-1]
        scores = (scores + recent).masked_fill(~seen, float("-inf"))
        picked = torch.zeros_like(best).scatter_(-1, scores.topk(min(settings.top, scores.shape[-1])).indices, True)
        found += float((picked & best).sum())
        whole += int(best.sum())
    return found / whole


def _start(num: int, width: int, settings: Learning, chance: torch.Generator) -> Mlp:
    """First weights for inputs of size 1."""
    widths = [width, *[settings.hidden_size] * (settings.mlp_layers - 1), settings.bits]
    layers = []
    for into, out in itertools.pairwise(widths):
        weight = torch.randn(num, into, out, generator=chance) * (2 / into) ** 0.5
        layers.append((weight.requires_grad_(), torch.zeros(num, out, requires_grad=True)))
    return tuple(layers)


def _folded(mlps: dict[str, Mlp], scales: dict[str, Tensor]) -> dict[str, Mlp]:
    """The same functions, of inputs as they are."""
    return {
        side: tuple(
            ((weight / scales[side] if i == 0 else weight).detach().clone(), bias.detach().clone())
            for i, (weight, bias) in enumerate(mlp)
        )
        for side, mlp in mlps.items()
    }


def _scores(trace: Trace, rows: Tensor, mlps: dict[str, Mlp], scales: dict[str, Tensor], activation: str) -> Tensor:
    """Products of signatures [h, n, k]; their gradients are those of tanh."""
    heads, groups = trace.q.shape[0], trace.k.shape[0]
    num = mlps["key"][0][0].shape[0]
    query = [tuple(one.repeat_interleave(heads // num, dim=0) for one in layer) for layer in mlps["query"]]
    keys = trace.k.float().repeat_interleave(num // groups, dim=0) / scales["key"]
    of_keys = _signs(outputs(keys, mlps["key"], activation)).repeat_interleave(heads // num, dim=0)
    return _signs(outputs(trace.q[:, rows].float() / scales["query"], query, activation)) @ of_keys.mT


def _signs(x: Tensor) -> Tensor:
    soft = torch.tanh(x)
    return soft + (torch.where(x >= 0, 1.0, -1.0) - soft).detach()


def _best(trace: Trace, rows: Tensor, settings: Learning) -> tuple[Tensor, Tensor]:
    """Which keys are among the best of each row, and which it sees: bool [h, n, k]."""
    group = trace.q.shape[0] // trace.k.shape[0]
    logits = trace.q[:, rows].float() @ trace.k.float().repeat_interleave(group, dim=0).mT
    seen = (torch.arange(logits.shape[-1]) <= trace.places[rows, None]).expand_as(logits)
    best = logits.masked_fill(~seen, float("-inf")).topk(min(settings.top, logits.shape[-1])).indices
    return torch.zeros_like(seen).scatter(-1, best, True) & seen, seen


def _loss(logits: Tensor, best: Tensor, seen: Tensor) -> Tensor:
    """Cross-entropy, the mean over the best keys plus the mean over the others."""
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, best.float(), reduction="none")
    rest = seen & ~best
    return each[best].mean() + (each[rest].mean() if bool(rest.any()) else 0.0)
