"""One small validation on machines as people have them: each environment is made, tried, and told in a line.

    python benchmarks/machines.py [names=HOME unset,umask 077,...]

Exit status 1 where a run ends otherwise than it must: with its result, or with a message of ours in a few lines.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RUN = [
    "builder=dense", "validate.max_requests=1", "validate.max_context_length=256", "validate.max_new_tokens=4",
    "task=ruler/niah_single_1",
]  # fmt: skip
NOTEBOOK = """
import asyncio, sys
from sahub.cli.main import run
async def cell():
    return run("validate", sys.argv[1:])
sys.exit(asyncio.run(cell()))
"""
CLOCK = """
import sys, time
real, begin = time.time, time.time()
time.time = lambda: real() - (3600 if real() - begin > 3 else 0)
from sahub.cli.main import run
sys.exit(run("validate", sys.argv[1:]))
"""
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_NODELIST": "n[1-4]",
    "SLURM_LOCALID": "0",
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """An environment: variables (None: unset), a folder, what is run before, more arguments, and how it must end."""

    variables: dict[str, str | None] = field(default_factory=dict)
    folder: str = "work"
    shell: str = ""
    arguments: tuple[str, ...] = ("compute=inline",)
    code: str = ""
    stop_after: float | None = None  # seconds until SIGTERM
    status: int = 0
    needs: str = "sh"  # the program that makes it


def early(delay: float) -> Machine:
    """SIGTERM, so many seconds after the start."""
    return Machine(arguments=("compute=local",), stop_after=delay, status=143)


def mounted(size: str, folder: str, **more: Any) -> Machine:
    """With a disk of that size at a folder, which nobody else sees (for root alone)."""
    mount = f"mkdir -p {folder} && mount -t tmpfs -o size={size} none {folder}"
    return Machine(shell=f'exec unshare -m sh -c \'{mount} && exec "$@"\' sh "$@";', **more)


def slow(milliseconds: int, names: str) -> Machine:
    """With a disk that takes so long for each of these system calls (needs strace)."""
    calls = f"-e trace={names} -e inject={names}:delay_enter={1000 * milliseconds}"
    return Machine(shell=f'exec strace -f -qq --seccomp-bpf -o /dev/null {calls} "$@";', needs="strace")


CONDA = {"CONDA_PREFIX": "{folder}", "CONDA_DEFAULT_ENV": "mine", "CONDA_SHLVL": "1", "PYTHONNOUSERSITE": "1"}
UV = {"UV_RUN_RECURSION_DEPTH": "1", "UV": "/usr/bin/uv"}
MACHINES = {
    "plain": Machine(),
    "HOME unset": Machine(variables={"HOME": None, "XDG_CACHE_HOME": None}),
    "a home that cannot be written": Machine(variables={"HOME": "/proc", "XDG_CACHE_HOME": None}),
    "umask 077": Machine(shell="umask 077; "),
    "128 open files": Machine(shell="ulimit -n 128; "),
    "a folder with spaces and signs": Machine(folder="my data (1) = é #2 'x' $HOME"),
    "a folder of 200 letters": Machine(folder="x" * 200),
    "SLURM's variables": Machine(variables=SLURM, arguments=("compute=local",)),
    "RAY_ADDRESS of nobody": Machine(variables={"RAY_ADDRESS": "10.0.0.1:6379"}, arguments=("compute=local",)),
    "a long TMPDIR": Machine(variables={"TMPDIR": "{folder}/" + "t" * 90}, arguments=("compute=local",)),
    "under uv run": Machine(variables=UV, arguments=("compute=local",)),
    "uv run itself": Machine(
        shell=f'exec uv run --no-project --offline --python {sys.executable} -- "$@";',
        arguments=("compute=local",),
        needs="uv",
    ),
    "conda's variables": Machine(variables=CONDA, arguments=("compute=local",)),
    "64 MB of /dev/shm": mounted("64m", "/dev/shm", arguments=("compute=local", "compute.workers=2")),
    "a disk that is full": mounted("64k", "results", arguments=("compute=inline", "results_dir=results"), status=1),
    "a cache that is full": mounted("64k", "cache", arguments=("compute=inline", "cache_dir=cache")),
    "a disk that takes 50 ms to write": slow(50, "write,fsync,fdatasync,rename,mkdir,unlink,ftruncate"),
    "a disk that takes 5 ms to open a file": slow(5, "openat"),
    "a clock that jumps back an hour": Machine(code=CLOCK),
    "two runs at once on one cache": Machine(shell='"$@" & "$@" || exit 1; wait $! || exit 1; exit 0;'),
    "the C locale, no terminal": Machine(variables={"LC_ALL": "C", "TERM": "dumb", "PYTHONUTF8": "0", "COLUMNS": None}),
    "a notebook: an event loop runs": Machine(code=NOTEBOOK),
    "results in what is no folder": Machine(arguments=("compute=inline", "results_dir=/dev/full/x"), status=1),
    "a proxy of nobody": Machine(variables={"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}),
    **{f"SIGTERM after {delay} s with Ray": early(delay) for delay in (4, 8, 12)},
}


def main(arguments: list[str]) -> int:
    """Try the machines; the exit status."""
    given = dict(item.partition("=")[::2] for item in arguments)
    names = given["names"].split(",") if "names" in given else list(MACHINES)
    wrong = 0
    for name in names:
        begin = time.monotonic()
        if shutil.which(MACHINES[name].needs) is None:
            sys.stdout.write(f"not tried | {name} | needs {MACHINES[name].needs}\n")
            continue
        status, said, is_done = tried(MACHINES[name])
        lines = said.strip().splitlines()
        is_late = is_done and MACHINES[name].stop_after is not None
        if is_late:
            lines = ["the run was over: its result is printed"]  # Python ends, and a signal ends it as anywhere
        good = (is_late or status == MACHINES[name].status) and "Traceback" not in said and len(lines) <= 8
        wrong += not good
        seconds, last = time.monotonic() - begin, lines[-1][:160] if lines else ""
        sys.stdout.write(f"{'right' if good else 'WRONG'} | {name} | {status} | {seconds:.0f} s | {last}\n")
        sys.stdout.flush()
    return 1 if wrong else 0


def tried(machine: Machine) -> tuple[int, str, bool]:
    """Exit status and standard error of a run on a machine, and whether it has printed where its files are."""
    root = Path(tempfile.mkdtemp(prefix="sahub-machine-"))
    folder = root / machine.folder
    folder.mkdir()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(root / "cache")}
    for name, value in machine.variables.items():
        env.pop(name, None)
        if value is not None:
            env[name] = value.format(folder=folder)
            if name == "TMPDIR":
                Path(env[name]).mkdir()
    command = [sys.executable, *(["-c", machine.code] if machine.code else ["-m", "pipelines.validate"])]
    line = [*command, *RUN, *machine.arguments]
    if machine.shell:
        line = ["/bin/sh", "-c", f'{machine.shell} exec "$@"', "sh", *line]
    printed = root / "printed"
    with printed.open("w", encoding="utf-8") as out, subprocess.Popen(
        line, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True,
    ) as running:  # fmt: skip
        if machine.stop_after is not None:
            time.sleep(machine.stop_after)
            running.send_signal(signal.SIGTERM)
        try:
            said = running.communicate(timeout=280)[1]
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            said = f"{running.communicate()[1]}\nhangs"
    is_done = "\nfiles: " in printed.read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(root, ignore_errors=True)
    return running.returncode, said, is_done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
