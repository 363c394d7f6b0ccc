"""What people and strangers put in, at random: every case ends with the right value, or a message of ours.

    python benchmarks/fuzz.py [cases=10000] [seed=0] [seconds=SECONDS] [families=rows,...]

Families: overrides, files, rows, scores, caches; `seconds` is the longest that each may take.
Prints cases, seconds and findings of each, a finding as it comes: an exception that is not ours, a message of more
than eight lines, or a number that another, slow way to it does not give. Exit status 1 where there is any.
"""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from fuzz_families import FAMILIES  # noqa: E402 (the tests' strategies are no package)

from sahub.config.explain import COMPLAINTS, said  # noqa: E402
from sahub.errors import SahubError  # noqa: E402

MOST_LINES = 8
CHUNK = 250  # cases that are drawn together


def main(arguments: list[str]) -> int:
    """Run the families; the exit status."""
    given_ = dict(item.partition("=")[::2] for item in arguments)
    names = given_.get("families", ",".join(FAMILIES)).split(",")
    cases, start, total = int(given_.get("cases", 10_000)), int(given_.get("seed", 0)), 0
    limit = float(given_.get("seconds", "inf"))
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="sahub-fuzz-")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    found: dict[str, str] = {}
    share = sum(FAMILIES[name].share for name in names)
    for name in names:
        before, begin, done = len(found), time.monotonic(), 0
        wanted = round(cases * FAMILIES[name].share / share)
        while done < wanted and time.monotonic() - begin < limit:
            done += run(name, min(CHUNK, wanted - done), start + done, found)
        total += done
        seconds = time.monotonic() - begin
        sys.stdout.write(f"{name}: {done} cases, {seconds:.0f} s, {len(found) - before} findings\n")
        sys.stdout.flush()
    sys.stdout.write(f"{total} cases, {len(found)} findings\n")
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    return 1 if found else 0


def run(name: str, cases: int, start: int, found: dict[str, str]) -> int:
    """So many cases of a family; how many were run. What is found is told by its place in the code, once."""
    family, done = FAMILIES[name], 0
    folder = Path(tempfile.mkdtemp(prefix="sahub-fuzz-"))

    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @seed(start)
    @given(family.inputs)
    def one(case: object) -> None:
        nonlocal done
        done += 1
        problem = trouble(lambda: family.check(case, folder))
        if problem and (where := f"{name}: {problem[0]}") not in found:
            found[where] = f"  {problem[1]}\n  input: {case!r}"[:1500]
            sys.stdout.write(f"\n{where}\n{found[where]}\n")
            sys.stdout.flush()

    with contextlib.chdir(folder):
        one()
    shutil.rmtree(folder, ignore_errors=True)
    return done


def trouble(work: Callable[[], None]) -> tuple[str, str] | None:
    """What is wrong with how a case ended, as (where, what)."""
    try:
        work()
    except (SahubError, *COMPLAINTS) as error:
        lines = said(error).splitlines()
        return (
            None if 0 < len(lines) <= MOST_LINES else (f"{type(error).__name__}: {len(lines)} lines", str(error)[:500])
        )
    except AssertionError as error:
        return f"wrong: {str(error).partition(chr(10))[0][:80]}", str(error)[:800]
    except Exception as error:  # noqa: BLE001 (which is what is looked for)
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/sahub/" in frame.filename]
        frame = ours[-1] if ours else traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.name}", str(error)[:300]
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
