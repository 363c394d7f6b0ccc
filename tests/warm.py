"""Commands without their seconds of imports: a process that has imported everything once, and forks for each command.

A forked command has its own directory, environment, output, exit handlers and process group, as one that was started
has; what differs is only where its modules come from. Those that start Ray are started (see `commands.sahub`).
"""

import atexit
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

SERVER = """
import json, os, sys
import datasets, hydra, optuna, torch, transformers
import sahub.bench.run, sahub.cli.main, sahub.doctor.checks.model, sahub.doctor.checks.task, sahub.run.matrix
from transformers.models.llama import modeling_llama

torch.set_num_threads(1)
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["-c", *asked["arguments"]]
        sys.path[0] = asked["cwd"]
        sys.path[1:1] = [path for path in asked["env"]["PYTHONPATH"].split(os.pathsep) if path not in sys.path]
        exec(asked["code"], {"__name__": "__main__"})
        break
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@cache
def _server(root: str, *environment: tuple[str, str]) -> subprocess.Popen:
    running = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=root, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(_end, running)
    return running


def _end(running: subprocess.Popen) -> None:
    running.kill()
    running.communicate()


def python(
    code: str, arguments: list[str], *, cwd: Path, env: dict[str, str], root: Path
) -> subprocess.CompletedProcess:
    """`python -c <code> ...`, once it ended; `root` is the checkout."""
    fixed = {key: env[key] for key in ("PATH", "HOME", "OMP_NUM_THREADS", "HF_HUB_OFFLINE") if key in env}
    server = _server(str(root), *sorted(fixed.items()), ("PYTHONPATH", str(root)))
    assert server.stdin is not None
    assert server.stdout is not None
    with TemporaryDirectory() as folder:
        files = {stream: Path(folder) / stream for stream in ("out", "err")}
        asked = {"code": code, "arguments": arguments, "cwd": str(cwd), "env": env}
        server.stdin.write(json.dumps(asked | {key: str(file) for key, file in files.items()}) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        out, err = (file.read_text(encoding="utf-8") for file in files.values())
    return subprocess.CompletedProcess(["-c", code, *arguments], status, out, err)
