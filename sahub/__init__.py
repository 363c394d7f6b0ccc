"""sahub: which sparse-attention method, with which hyperparameters, loses least on a model, a task and a budget.

Axis letters: b batch, h query heads, g KV heads, q query rows, k keys, d head dim, l layers, p pages, s selected slots.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sahub.api import load_model, optimize, optimize_matrix, replay, sparse
    from sahub.attention.attend import attend
    from sahub.attention.stage import Stage
    from sahub.builders.build import build_stack, register_method, select
    from sahub.report.report import write_report
    from sahub.results.lookup import best_config
    from sahub.scores import aggregate, score
    from sahub.stats.verdict import verdict

# Names are imported when they are used: `import sahub` alone loads neither torch nor transformers.
_HOMES = {
    "Stage": "sahub.attention.stage",
    "aggregate": "sahub.scores",
    "attend": "sahub.attention.attend",
    "best_config": "sahub.results.lookup",
    "build_stack": "sahub.builders.build",
    "load_model": "sahub.api",
    "optimize": "sahub.api",
    "optimize_matrix": "sahub.api",
    "replay": "sahub.api",
    "register_method": "sahub.builders.build",
    "score": "sahub.scores",
    "select": "sahub.builders.build",
    "sparse": "sahub.api",
    "verdict": "sahub.stats.verdict",
    "write_report": "sahub.report.report",
}
__all__ = [
    "Stage",
    "aggregate",
    "attend",
    "best_config",
    "build_stack",
    "load_model",
    "optimize",
    "optimize_matrix",
    "register_method",
    "replay",
    "score",
    "select",
    "sparse",
    "verdict",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sahub' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(import_module(_HOMES[name]), name)
