"""Kill a run at random moments, run the same command again, compare: `python benchmarks/kill_and_resume.py`.

    unshare -m python benchmarks/kill_and_resume.py --inline 102 --local 30 --disk

A matrix of four cells is run once undisturbed. Then, from an empty cache each time, it is run again and again, and in
every run the driver, with `--local` also a worker or Ray itself, in turn, is killed (SIGKILL) at a random moment; with
`--disk` (root's, in a mount namespace of its own) the disk fills up in turn too, for as long as some contexts take.
That goes on until a run comes to its end, and is repeated until as much was disturbed as asked for. The files at the
end must be those of the undisturbed run, times aside, and what was begun more than once must be at most one context
with one stack for each worker that a kill hit, and what was begun while nothing could be kept.
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
    "search.num_samples=4",
    "search.batch=4",
    "search.promote=1",
    "search.calibrate=1",
    "search.max_requests=3",
    "search.decide=2",
    "search.max_context_length=512",
    "search.max_new_tokens=8",
    "validate.max_requests=4",
    "validate.max_context_length=512",
    "validate.max_new_tokens=8",
]
KINDS = {"inline": ["driver"] * 4, "local": ["Ray", "driver", "worker"]}  # in turn
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
    workers: int  # of Ray's; 0: without Ray
    disk: bool = False  # of its own, and small
    done: Counter[str] = field(default_factory=Counter)  # how often what was done to it
    runs: int = 0
    unkept: int = 0  # contexts that were begun while the disk was full

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.beside = self.folder.with_name(f"{self.folder.name}-beside")  # on a disk that does not fill up
        self.beside.mkdir()
        (self.beside / "sitecustomize.py").write_text(COUNTING, encoding="utf-8")
        if self.disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", self.folder], check=True)

    def start(self) -> subprocess.Popen:
        """The command, running."""
        self.runs += 1
        out = self.folder / f"run{self.runs}"
        out.mkdir()
        env = {
            **os.environ,
            "PYTHONPATH": f"{self.beside}{os.pathsep}{ROOT}",
            "BEGUN": str(self.beside / "begun"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        compute = ["compute=local", f"compute.workers={self.workers}"] if self.workers else ["compute=inline"]
        command = [sys.executable, "-m", "pipelines.search", "-m", *MATRIX, *compute, f"results_dir={out}"]
        with self.said().open("w") as said:
            return subprocess.Popen(
                command, cwd=out, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )

    def said(self) -> Path:
        """What the last run said."""
        return self.beside / f"said{self.runs}"

    def begun(self) -> int:
        """Contexts that were begun with a stack."""
        file = self.beside / "begun"
        return file.stat().st_size if file.is_file() else 0

    def disturb(self, running: subprocess.Popen, kind: str, contexts: int) -> None:
        """Kill one process of a kind, if there is one at the moment; or fill the disk for so many contexts."""
        names = {"driver": "pipelines.search", "worker": "ray::_Actor", "Ray": "raylet/raylet"}
        if running.poll() is not None:
            return
        if kind == "disk":
            self._fill(running, contexts)
        elif kind == "driver":
            running.kill()
        else:
            found = [pid for pid, command in belonging_to(self.folder).items() if names[kind] in command]
            if not found:
                return
            os.kill(found[0], signal.SIGKILL)
        self.done[kind] += 1

    def _fill(self, running: subprocess.Popen, contexts: int) -> None:
        before, ballast = self.begun(), self.folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
        while self.begun() < before + contexts and running.poll() is None:
            time.sleep(0.02)
        self.unkept += self.begun() - before
        ballast.unlink()

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

    def allowed(self) -> int:
        """How many contexts may have been begun again: what a worker was at, and what could not be kept."""
        hit = self.done["worker"] + max(1, self.workers) * (self.done.total() - self.done["worker"])
        return hit + self.unkept

    def remove(self) -> None:
        """All of it."""
        if self.disk:
            subprocess.run(["umount", self.folder], check=True)
        shutil.rmtree(self.folder)
        shutil.rmtree(self.beside)


def main() -> None:
    """Print a line per campaign and the bars; exit status 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inline", type=int, default=30, help="so often something is done to runs without Ray")
    parser.add_argument("--local", type=int, default=0, help="and so often to runs with Ray")
    parser.add_argument("--disk", action="store_true", help="the disk fills up too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rng, begin = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sahub-kills-", ignore_cleanup_errors=True) as folder:
        calm = Campaign(Path(folder) / "calm", 0)
        assert calm.settle(calm.start(), 600) == 0, calm.said().read_text()
        print(f"undisturbed: {calm.begun()} contexts x stacks, {len(calm.files())} files")  # noqa: T201
        print("campaign  runs  driver/worker/Ray/disk  again  allowed  same files  seconds")  # noqa: T201
        done, good = Counter[str](), True
        for name, wanted, workers in (("inline", options.inline, 0), ("local", options.local, options.workers)):
            kinds = cycle([*KINDS[name], *(["disk"] if options.disk else [])])
            end = done.total() + wanted
            while done.total() < end:
                one = Campaign(Path(folder) / f"{name}{done.total()}", workers, options.disk)
                good = _campaign(one, calm, rng, kinds, end - done.total()) and good
                done += one.done
    result = "all as it should be" if good else "NOT as it should be"
    kills = done.total() - done["disk"]
    print(f"{kills} kills, {done['disk']} full disks, {time.monotonic() - begin:.0f} s: {result}")  # noqa: T201
    sys.exit(0 if good else 1)


def _campaign(one: Campaign, calm: Campaign, rng: random.Random, kinds: Iterator[str], most: int) -> bool:
    """Run until a run comes to its end, something being done to each; whether all is as it should be at the end."""
    begin = time.monotonic()
    while True:
        running = one.start()
        if one.done.total() < most:
            _wait(one, running, rng, calm.begun())
            one.disturb(running, next(kinds), rng.randint(1, 20))
        if one.settle(running, 900) == 0:
            break
        assert one.runs < 60, one.said().read_text()
    again, allowed, same = one.begun() - calm.begun(), one.allowed(), one.files() == calm.files()
    counts = "/".join(str(one.done[kind]) for kind in ("driver", "worker", "Ray", "disk"))
    print(  # noqa: T201
        f"{one.folder.name:>8}  {one.runs:4d}  {counts:>22}  {again:5d}  {allowed:7d}  {same!s:>10}"
        f"  {time.monotonic() - begin:7.0f}",
        flush=True,
    )
    one.remove()
    return same and again <= allowed


def _wait(one: Campaign, running: subprocess.Popen, rng: random.Random, needed: int) -> None:
    """Until a random moment of a run: mostly of its work, sometimes before."""
    until = one.begun() + rng.randint(0, needed // 8)
    while one.begun() < until and running.poll() is None:
        time.sleep(0.02)
    end = time.monotonic() + rng.uniform(0.0, 0.5)
    while time.monotonic() < end and running.poll() is None:
        time.sleep(0.02)


if __name__ == "__main__":
    main()
