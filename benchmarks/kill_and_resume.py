"""Kill a run at random moments, run the same command again, compare: `python benchmarks/kill_and_resume.py`.

A matrix of four cells is run once undisturbed. Then, from an empty cache each time, it is run again and again, and in
every run Ray itself, the driver or a worker, in turn, is killed (SIGKILL) at a random moment, until a run comes to its
end; that is repeated until as many kills were done as asked for. The files at the end must be those of the undisturbed
run, times aside, and what was begun more than once must be at most one context with one stack per kill and worker.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from processes import belonging_to
from timeless import timeless

ROOT = Path(__file__).parents[1]
MATRIX = [
    "task=ruler/niah_single_1,ruler/niah_multikey_2",
    "builder=streaming_llm,quest",
    "search.num_samples=8",
    "search.batch=4",
    "search.promote=1",
    "search.calibrate=1",
    "search.max_requests=4",
    "search.decide=2",
    "search.max_context_length=768",
    "search.max_new_tokens=8",
    "validate.max_requests=6",
    "validate.max_context_length=768",
    "validate.max_new_tokens=8",
]
# Put in front of every Python process of a run: each context that is begun with a stack leaves a line.
COUNTING = """
import importlib.abc, importlib.machinery, os, sys

class Counting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "sahub.engine.evaluate":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            answer = module._answer_all
            def counted(*arguments, **named):
                with open(os.environ["BEGUN"], "a") as file:
                    file.write("x")
                return answer(*arguments, **named)
            module._answer_all = counted
        spec.loader.exec_module = exec_module
        return spec

if "BEGUN" in os.environ:
    sys.meta_path.insert(0, Counting())
"""


@dataclass
class Campaign:
    """A folder with a cache of its own, in which the same command is run until it comes to its end."""

    folder: Path
    compute: list[str]
    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0

    def start(self) -> subprocess.Popen:
        """The command, running."""
        self.runs += 1
        site, out = self.folder / "site", self.folder / f"run{self.runs}"
        site.mkdir(parents=True, exist_ok=True)
        out.mkdir()
        (site / "sitecustomize.py").write_text(COUNTING, encoding="utf-8")
        env = {
            **os.environ,
            "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
            "BEGUN": str(self.folder / "begun"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "pipelines.search", "-m", *MATRIX, *self.compute, f"results_dir={out}"]
        with (out / "said").open("w") as said:
            return subprocess.Popen(
                command, cwd=out, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )

    def begun(self) -> int:
        """Contexts that were begun with a stack."""
        file = self.folder / "begun"
        return file.stat().st_size if file.is_file() else 0

    def kill(self, running: subprocess.Popen, kind: str) -> bool:
        """Kill one process of a kind; False where there is none at the moment."""
        names = {"driver": "pipelines.search", "worker": "ray::_Actor", "Ray": "raylet/raylet"}
        belonging = belonging_to(self.folder)
        found = [pid for pid, command in belonging.items() if names[kind] in command]
        found = [running.pid] if kind == "driver" else found
        if running.poll() is not None or not found:
            return False
        os.kill(found[0], signal.SIGKILL)
        self.kills[kind] += 1
        return True

    def settle(self, running: subprocess.Popen, seconds: float = 120.0) -> int:
        """Wait for the end of a run and of all that it started; its exit status."""
        status = running.wait(timeout=seconds)
        end = time.monotonic() + 120  # some of Ray's processes take a minute to notice that the driver was killed
        while belonging_to(self.folder):
            assert time.monotonic() < end, f"still there: {belonging_to(self.folder)}"
            time.sleep(0.2)
        return status

    def files(self) -> dict[str, str]:
        """The files of the last run."""
        [found] = (self.folder / f"run{self.runs}" / "multirun").iterdir()
        return timeless(found)


def main() -> None:
    """Print a line per campaign and the bars; exit status 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--inline", action="store_true", help="without Ray: only the driver can be killed")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    compute = ["compute=inline"] if options.inline else ["compute=local", f"compute.workers={options.workers}"]
    workers = 1 if options.inline else options.workers
    kinds = cycle(["driver"] if options.inline else ["Ray", "driver", "worker"])
    with tempfile.TemporaryDirectory(prefix="sahub-kills-") as folder:
        calm = Campaign(Path(folder) / "calm", compute)
        begin = time.monotonic()
        status = calm.settle(calm.start(), 600)
        lasts = time.monotonic() - begin
        assert status == 0, (calm.folder / "run1" / "said").read_text()
        expected, needed = calm.files(), calm.begun()
        print(f"undisturbed: {needed} contexts x stacks, {len(expected)} files, {lasts:.0f} s")  # noqa: T201
        print("campaign  runs  killed driver/worker/Ray  begun  again  allowed  same files")  # noqa: T201
        kills, good, number = 0, True, 0
        while kills < options.kills:
            number += 1
            one = Campaign(Path(folder) / f"campaign{number}", compute)
            _until_done(one, rng, kinds, lasts, options.kills - kills)
            again, allowed = one.begun() - needed, workers * sum(one.kills.values())
            same = one.files() == expected
            kills += sum(one.kills.values())
            good = good and same and again <= allowed
            counts = "/".join(str(one.kills[kind]) for kind in ("driver", "worker", "Ray"))
            print(  # noqa: T201
                f"{number:8d}  {one.runs:4d}  {counts:>25}  {one.begun():5d}  {again:5d}  {allowed:7d}  {same}",
                flush=True,
            )
            shutil.rmtree(one.folder)
    print(f"{kills} kills: {'all as it should be' if good else 'NOT as it should be'}")  # noqa: T201
    sys.exit(0 if good else 1)


def _until_done(one: Campaign, rng: random.Random, kinds: Iterator[str], lasts: float, most: int) -> None:
    """Run until a run comes to its end; in every run something is killed at a random moment of its work."""
    while True:
        before, running = one.begun(), one.start()
        if sum(one.kills.values()) < most:
            kind, moment = next(kinds), rng.uniform(0.0, 0.6 * lasts)
            while one.begun() == before and running.poll() is None:  # it works: starting takes time
                time.sleep(0.05)
            end = time.monotonic() + moment * rng.random()
            while time.monotonic() < end and running.poll() is None:
                time.sleep(0.02)
            one.kill(running, kind)
        status = one.settle(running, 900)
        if status == 0:
            return
        assert one.runs < 60, (one.folder / f"run{one.runs}" / "said").read_text()


if __name__ == "__main__":
    main()
