"""What stands in the columns of the table of a run, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from sahub.config.choices import CELL_GROUPS
from sahub.search.trial import STATES

COLUMNS = (
    "task", "tokens", "builder", "run", "objective", "sparse in", "n", "dense", "sparse", "difference", "verdict",
    "default", "winner", "KL", "KL default", "e", "asked", "density", "KV density", "bits asked", "bits", "bytes",
    "ms", "trials", "s",
)  # fmt: skip
LEFT = {"task", "builder", "run", "objective"}
ONLY_IN_HTML = {"KL default", "KV density", "bytes"}
MEANINGS = {  # of the columns that need one
    "tokens": "mean context",
    "dense, sparse, default": (
        "accuracy in %, 95 % interval, on n questions no search has seen; sparse: the winner, default: the builder's "
        "values before the search"
    ),
    "winner": (
        "the best trial (tuned), or the default, where that one was worse on search contexts that no trial had seen"
    ),
    "difference": "sparse minus dense in points, paired by context",
    "verdict": (
        "lossless, where the difference is surely above minus validate.margin, worse, where it is surely below, else "
        "undecided and how many more contexts would tell; all verdicts of a table hold together"
    ),
    "KL": "of the answers' tokens to dense",
    "e": "attention error",
    "asked, density": "share of keys",
    "sparse in": (
        "the layers that densities, bits and bytes are over, where others hold windows or states or stay dense"
    ),
    "bits asked, bits": "of an index, read per key and KV head",
    "KV density": "share of keys that a KV head reads",
    "bytes": "read by a decode step per layer and KV head, index included",
    "ms": "of a decoding step of the winner on this machine, as predicted, with the median error at lengths not seen, "
    "and (of dense attention)",
    "trials": "complete/pruned/rejected/failed",
    "s": "seconds",
}
NOTE = " ".join(f"{names}: {meaning}." for names, meaning in MEANINGS.items())
COMPARED = " minus NAME: sparse minus the sparse of that builder, paired by context."


def note(rows: Sequence[Mapping[str, Any]]) -> str:
    """What stands in the columns."""
    return NOTE + (COMPARED if any(one["compared"] for one in rows) else "")


def texts_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows of the table as text, by column; the differences to other builders behind that to dense."""
    others = dict.fromkeys(name for one in rows for name in one["compared"])
    texts = []
    for one in rows:
        named = dict(zip(COLUMNS, _cells(one), strict=True))
        minus = {f"minus {name}": percent(one["compared"].get(name), sign=True) for name in others}
        behind = COLUMNS.index("difference") + 1
        items = list(named.items())
        texts.append(dict([*items[:behind], *minus.items(), *items[behind:]]))
    return texts


def _cells(row: Mapping[str, Any]) -> list[str]:
    found, trials, best = row["validation"] or {}, row["trials"], row["best"] or {}
    measures, default = found.get("measures") or best, found.get("default_measures") or {}
    return [
        row["task"],
        _short(found.get("tokens"), "{:.0f}"),
        row["builder"] + _told_apart(row),
        row.get("run") or "-",
        row["objective"],
        _layers(found.get("layers")),
        _short(found.get("n"), "{}"),
        percent(found.get("dense_score")),
        percent(found.get("sparse_score")),
        percent(found.get("difference"), sign=True),
        verdict_text(row["verdict"]),
        percent(found.get("default_score")),
        _winner(row.get("decision")),
        _short(measures.get("answer_kl")),
        _short(default.get("answer_kl")),
        _short(measures.get("attention_error")),
        _short(row["target_density"]),
        _short(measures.get("density"), "{:.3f}"),
        _short(measures.get("kv_density"), "{:.3f}"),
        _short(row["target_aux_bits"]),
        _short(measures.get("aux_bits")),
        _short(measures.get("bytes_per_step"), "{:.0f}"),
        _milliseconds(best, row.get("step_costs")),
        "/".join(str(trials[state]) for state in STATES) if trials else "-",
        _short(row["seconds"], "{:.0f}"),
    ]


def _told_apart(row: Mapping[str, Any]) -> str:
    """What a sweep over something else than these added to the name of the cell's directory."""
    named = "_".join(row[name] for name in CELL_GROUPS).replace("/", "_")
    return " " + row["directory"].removeprefix(named).strip("_") if row["directory"].startswith(f"{named}_") else ""


def verdict_text(found: Mapping[str, Any] | None) -> str:
    """A word, and how many more contexts would tell."""
    if not found:
        return "-"
    more = found["more_contexts"]
    return f"{found['word']} (+{more})" if more else str(found["word"])


def _winner(found: Mapping[str, Any] | None) -> str:
    """Who came out of the last decision."""
    return "-" if not found else "default" if found["stays"] else "tuned"


def _milliseconds(best: Mapping[str, float], costs: Mapping[str, Any] | None) -> str:
    """What was predicted, how far off predictions were, and what dense attention takes."""
    if "step_seconds" not in best:
        return "-"
    error, dense = costs["sparse"]["error"] if costs else None, best.get("dense_step_seconds")
    off = "" if error is None else f" ±{100 * error:.0f} %"
    return _short(1e3 * best["step_seconds"]) + off + ("" if dense is None else f" ({_short(1e3 * dense)})")


def _layers(found: Mapping[str, int] | None) -> str:
    """How many layers are sparse, where not all of them are."""
    return "-" if not found or found["sparse"] == found["all"] else f"{found['sparse']} of {found['all']} layers"


def percent(interval: Mapping[str, float] | None, sign: bool = False) -> str:
    """A mean in percent with its interval."""
    if not interval:
        return "-"
    plus = "+" if sign else ""
    mean = f"{100 * interval['mean']:{plus}.1f}"
    return f"{mean} [{100 * interval['low']:{plus}.0f},{100 * interval['high']:{plus}.0f}]"


def _short(value: float | None, form: str = "{:.3g}") -> str:
    return "-" if value is None else form.format(value)
