"""What a trial costs beyond its own work, and what a second worker brings: `python benchmarks/trial_overhead.py`.

A search of few and one of many trials are timed; their difference, less the seconds that the trials themselves took,
is what the further trials cost. One thread; a trial: one context of 1,024 tokens, teacher-forced.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from sleeping import Sleeping

import sahub

sahub.register_method(Sleeping)
FEW, MANY = 3, 13
COMMON = [
    "phases=[search]",
    "search.promote=0",
    "search.calibrate=0",
    "search.decide=0",
    "scheduler=none",
    "search.max_context_length=1024",
    "search.max_new_tokens=8",
    "search.batch=6",
    "sampler=random",
    "force=true",
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sleep", type=float, default=5.0, help="seconds that a sleeping trial takes")
    parser.add_argument("--requests", type=int, default=8, help="contexts of a real trial")
    options = parser.parse_args()
    print("work                 compute          per trial  its own  beyond it   ratio  load")  # noqa: T201
    seconds = {}
    for work, own in (
        (f"{options.requests} contexts", [f"search.max_requests={options.requests}"]),
        (
            f"sleeping {options.sleep:g} s",
            ["search.max_requests=1", f"++builder.stages.sleeping.seconds={options.sleep}"],
        ),
    ):
        for name, compute in {
            "inline": ["compute=inline"],
            "local, 1 worker": ["compute=local"],
            "local, 2 workers": ["compute=local", "compute.workers=2"],
        }.items():
            few, many = (search([*own, *compute, f"search.num_samples={number}"]) for number in (FEW, MANY))
            per_trial, itself = ((many[i] - few[i]) / (MANY - FEW) for i in (0, 1))
            seconds[work, name] = per_trial
            beyond = per_trial - itself / (2 if name.endswith("workers") else 1)
            print(  # noqa: T201
                f"{work:20} {name:16} {per_trial:7.3f} s  {itself:5.3f} s  {1000 * beyond:6.0f} ms  "
                f"{per_trial / itself:5.2f}  {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    for work in dict.fromkeys(work for work, _ in seconds):
        speed_up = seconds[work, "local, 1 worker"] / seconds[work, "local, 2 workers"]
        print(f"{work}: 2 workers are {speed_up:.2f} x as fast as 1")  # noqa: T201
    bar = seconds[work, "local, 1 worker"] / seconds[work, "local, 2 workers"] >= 1.7
    sys.exit(0 if bar else 1)


def search(overrides: list[str]) -> tuple[float, float]:
    """Seconds of a search, once everything is loaded and started, and the sum of its trials'."""
    with tempfile.TemporaryDirectory(prefix="sahub-overhead-") as folder:
        found = sahub.optimize(
            builder="streaming_llm", overrides=[*COMMON, f"cache_dir={folder}", *overrides], directory=Path(folder)
        )
        assert found.study is not None
        return found.study.seconds, sum(trial.seconds for trial in found.study.trials)


if __name__ == "__main__":
    main()
