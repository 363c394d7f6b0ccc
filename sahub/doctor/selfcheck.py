"""Whether the sparse path runs and is honest, on one short prompt: it equals dense where it keeps all, and counts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sahub.attention.call import Call
from sahub.attention.selection import Selection
from sahub.attention.stack import Stack
from sahub.attention.stage import Index, Stage
from sahub.builders.build import build_stack
from sahub.doctor.report import Rows
from sahub.engine.forward import Run
from sahub.engine.model import Model
from sahub.engine.session import Attention, Session
from sahub.timing.filled import prompt


@dataclass(frozen=True, kw_only=True)
class Listed(Stage):
    """Every key, named one by one: what sparse stages do, without leaving any out."""

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """All valid keys of each row as a list of positions."""
        del index
        counts = call.rows.counts[..., None]
        ranks = torch.arange(call.rows.num_keys, device=counts.device).expand(*counts.shape[:2], -1)
        weights = torch.where(ranks < counts, 0.0, float("-inf"))
        return taken.of(call.rows.positions(ranks)[:, None], weights[:, None])


PROMPT_TOKENS, ANSWER_TOKENS = 384, 8
# Everything kept, on both roads through the attention.
EVERYTHING = {"block": build_stack([{"name": "dense"}]), "list": Stack((Listed(),))}
# Largest difference of logits to the model's own, as a share of its largest logit: rounding adds up over the layers.
ALLOWED = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def endless(model: Model) -> Session:
    """A session on the same weights whose answers stop at no token."""
    return Session(replace(model, stop_ids=frozenset()))


def sparse_path(model: Model, attention: Attention) -> dict[str, Any]:
    """Run the checks; `attention` is the stack to count receipts of. Raises SparseNeverRan."""
    session = endless(model)
    tokens = max(1, min(PROMPT_TOKENS, model.max_context_length - 64))
    ids = prompt(model, tokens)
    question = model.question_ids("Which box stands beside box 5?", "")[:48] or [ids[-1]]
    prefix = session.prefix(ids, len(question) + ANSWER_TOKENS, asked=len(question))

    def answer(how: Attention) -> tuple[Run, Tensor]:
        """Answers token by token, and the logits of the dense answer in one chunk."""
        run = session.generate(prefix, question, how, max_new_tokens=ANSWER_TOKENS)
        return run, session.force(prefix, question, dense.ids, how).logits

    dense = session.generate(prefix, question, Attention(), max_new_tokens=ANSWER_TOKENS)
    forced = session.force(prefix, question, dense.ids, Attention()).logits
    kept = {name: answer(Attention(stack=stack, measure=0)) for name, stack in EVERYTHING.items()}
    sparse, sparse_forced = answer(attention)
    again = session.generate(prefix, question, Attention(), max_new_tokens=ANSWER_TOKENS)
    scale = float(forced.abs().max())
    return {
        "prompt_tokens": len(ids),
        "answer_tokens": len(dense.ids),
        "largest_logit": _finite(scale),
        "allowed_difference": _finite(ALLOWED.get(model.hf.dtype, ALLOWED[torch.float32]) * scale),
        "everything_kept_difference": {
            name: _largest([_apart(dense, run), (chunk - forced).abs().max()]) for name, (run, chunk) in kept.items()
        },
        "rewound_difference": _largest([_apart(dense, again)]),
        "sparse_difference": _largest([(sparse_forced - forced).abs().max()]),
        **_receipts(sparse, attention, len(model.geometry.layers)),
    }


def _apart(one: Run, other: Run) -> Tensor:
    """The largest difference of logits, up to the first token in which the answers differ."""
    same = next((i for i, pair in enumerate(zip(one.ids, other.ids, strict=True)) if pair[0] != pair[1]), len(one.ids))
    return (one.logits[: same + 1] - other.logits[: same + 1]).abs().max()


def _largest(differences: Sequence[Tensor]) -> float | None:
    return _finite(max(float(one) for one in differences))


def _finite(number: float) -> float | None:
    """None for what JSON cannot hold."""
    return number if number - number == 0 else None


def _receipts(run: Run, attention: Attention, full_layers: int) -> dict[str, Any]:
    """Sparse calls counted and expected in an answer, and the share of keys that they read."""
    assert run.hook is not None
    tallies = list(run.hook.tallies.values())
    forwards = len(run.ids) - attention.dense_question
    layers = full_layers - len(set(attention.dense_layers))
    rows = sum(tally.rows for tally in tallies)
    return {
        "sparse_calls": sum(tally.calls for tally in tallies),
        "expected_calls": forwards * layers,
        "sparse_layers": layers,
        "density": float(sum(tally.density for tally in tallies)) / rows,
        "asked_density": attention.stack.density if attention.stack else None,
    }


def problems(facts: dict[str, Any]) -> list[str]:
    """Why the sparse path cannot be trusted; nothing where it can."""
    allowed, found = facts["allowed_difference"], []
    if allowed is None:
        return ["its own logits are not finite numbers; try model.dtype=float32 or bfloat16"]
    for road, difference in facts["everything_kept_difference"].items():
        if difference is None or difference > allowed:
            found.append(
                f"with every key kept (as a {road}) its logits differ from those of its own attention by "
                f"{_number(difference)}, by rounding at most {allowed:.2g}: its attention is not plain softmax(q.k) v"
            )
    if facts["rewound_difference"] is None or facts["rewound_difference"] > allowed:
        found.append(f"its answers differ by {_number(facts['rewound_difference'])} after sparse runs")
    if facts["sparse_calls"] != facts["expected_calls"]:
        found.append(f"{facts['sparse_calls']} sparse calls where {facts['expected_calls']} were expected")
    if facts["density"] < 1 - 1e-9 and facts["sparse_difference"] == 0:
        found.append("leaving keys out changes nothing: its output does not come from the hook")
    return found


def rows(facts: dict[str, Any], builder: str) -> Rows:
    """The checks for people."""
    kept = ", ".join(f"{_number(one)} as a {road}" for road, one in facts["everything_kept_difference"].items())
    asked = "" if facts["asked_density"] is None else f", asked {facts['asked_density']}"
    return [
        ("everything kept", f"logits differ from dense by {kept} (allowed {_number(facts['allowed_difference'])})"),
        ("receipts", f"{facts['sparse_calls']} of {facts['expected_calls']} calls in {facts['sparse_layers']} layers"),
        (
            builder,
            f"read {facts['density']:.3f} of the keys{asked}; moves logits by {_number(facts['sparse_difference'])}",
        ),
        ("prompt", f"{facts['prompt_tokens']} tokens, {facts['answer_tokens']} answered"),
    ]


def _number(value: float | None) -> str:
    return "no finite number" if value is None else f"{value:.2g}"
