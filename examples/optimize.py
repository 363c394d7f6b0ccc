"""Per-task and global optimisation from Python, on the packaged model: `python examples/optimize.py`."""

import sahub

SMALL = [
    "compute=inline", "compute.threads=1", "search.num_samples=6", "search.batch=3", "search.promote=1",
    "search.calibrate=1", "search.max_requests=6", "search.decide=4", "search.max_context_length=512",
    "search.max_new_tokens=8", "validate.max_requests=12", "validate.max_context_length=512",
    "validate.max_new_tokens=8",
]  # fmt: skip

if __name__ == "__main__":
    for scope in ("task", "global"):
        found = sahub.optimize_matrix(
            models=["embedded"],
            tasks=["ruler/niah_single_2", "ruler/niah_multikey_2"],
            builders=["quest"],
            objectives=["sparsity_10"],
            overrides=[*SMALL, f"search.scope={scope}"],
            directory=f"demo/{scope}",
        )
        for result in found:
            best = result.study.best.overrides
            print(scope, result.cell.choices.task, f"{result.figures['sparse_score']['mean']:.2f}", *best)  # noqa: T201
