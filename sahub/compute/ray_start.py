"""Ray, started once for a run: quiet, reachable from this machine only, in a folder of its own, gone when the run ends.

Nothing here imports Ray before it is told how to behave: it reads its variables when it is imported.
"""

import _thread
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from sahub.compute.devices import check_gpus, number_of_workers
from sahub.compute.signals import Stopped, asked_to_stop, deaf
from sahub.config.settings import Compute
from sahub.errors import RunError

log = logging.getLogger(__name__)

QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` it would pack the working directory
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # it would be 15, although workers do the work
    "RAY_prestart_worker_first_driver": "0",  # a process per CPU that nobody would use
    "TOKENIZERS_PARALLELISM": "false",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would turn Ctrl-C into an early, silent end of the search
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}
MARK = "SAHUB_RAY_FOLDER"  # in the environment of every process of Ray's that we started
LONGEST_FOLDER = 20  # Ray's sockets lie below it, and their paths have at most 103 characters
AGAIN = "run the same command again: what was finished is kept"


@contextlib.contextmanager
def started(compute: Compute) -> Iterator[None]:
    """Ray, started, or joined where a cluster has an address or this process runs it. Raises RunError where it dies."""
    check_gpus(compute)
    _prepare(compute)
    import ray  # not before it was told how to behave

    logging.getLogger("ray").setLevel(logging.ERROR)  # which importing it sets; it warns of a small /dev/shm
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as undo:
        # Logical resources: workers are what we start, so Ray never makes one wait for another.
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        if compute.name == "cluster":
            options["address"] = compute.address
        else:
            options |= {
                "address": "local",  # whatever RAY_ADDRESS says
                "num_cpus": 2 * number_of_workers(compute) + 2,
                "num_gpus": len(compute.gpu_ids) if compute.name == "gpu" else 0,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": undo.enter_context(_folder()),
            }
            undo.enter_context(_variable(MARK, options["_temp_dir"]))
        if compute.name == "gpu":
            undo.enter_context(_variable("CUDA_VISIBLE_DEVICES", _visible(compute.gpu_ids)))
        undo.callback(_stop)
        _init(compute, options)
        undo.enter_context(_watched())
        yield


def _prepare(compute: Compute) -> None:
    """What Ray is told before it is imported. A cluster of ours has a token that nobody else knows, in no file."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if compute.name != "cluster" and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex + uuid4().hex}


def _stop() -> None:
    """End Ray and all that it started."""
    import ray  # not before it was told how to behave

    with deaf():  # a second Ctrl-C would leave what the first one was about to end
        ray.shutdown()
        if mark := os.environ.get(MARK):
            _end_marked(mark)


def _end_marked(mark: str) -> None:
    """End every process that carries a mark: some outlive Ray by a minute, those whose parent was killed for ever."""
    ours = [process for process in psutil.process_iter() if process.pid != os.getpid() and _is_marked(process, mark)]
    _, alive = psutil.wait_procs(ours, timeout=3)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _is_marked(process: Any, mark: str) -> bool:
    with contextlib.suppress(psutil.Error):  # agents write their title over their environment, but log to the folder
        open_files = process.open_files() if process.name().startswith("ray::") else []
        return process.environ().get(MARK) == mark or any(one.path.startswith(mark + os.sep) for one in open_files)
    return False


def _init(compute: Compute, options: dict[str, Any]) -> None:
    import ray  # not before it was told how to behave

    if compute.name == "cluster":
        _check_reachable(compute.address)
    ray._private.worker.print_to_stdstream = _note  # it would tell the person about each worker that died
    ours = signal.getsignal(signal.SIGTERM)
    for attempt in (1, 2):  # its own limit of 30 s is too short for a busy machine
        try:
            ray.init(**options)
            break
        except SystemExit:  # what Ray's own handler makes of a signal
            raise Stopped(signal.SIGTERM) from None
        except Exception as error:
            ray.shutdown()
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
            if attempt == 2:
                where = f"join the cluster at {compute.address}" if compute.name == "cluster" else "start"
                raise RunError(
                    f"compute={compute.name}: Ray could not {where} ({type(error).__name__}: {first[:200]}); "
                    "compute=inline works without it"
                ) from error
            log.warning("Ray did not start (%s); trying once more", type(error).__name__)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ours)  # Ray has put its own in the place


def _note(data: dict[str, Any], **how: Any) -> None:
    """What Ray has to say, to the log of the run."""
    for line in data["lines"]:
        log.info("Ray (%s): %s", data["pid"], line)


def _check_reachable(address: str) -> None:
    """Raise RunError where nothing listens at `host:port`: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise RunError(
            f"compute=cluster: Ray could not join the cluster at {address} ({error.strerror or error}); start it, or "
            "set compute.address; compute=inline works without it"
        ) from error


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A temporary folder for Ray's sockets and logs; what killed runs left behind is removed."""
    base = Path(tempfile.gettempdir())
    base = base if len(str(base)) <= LONGEST_FOLDER else Path("/tmp")
    for old in base.glob("sahub-ray-*-*"):
        if not _alive(old.name.split("-")[2]):
            _end_marked(str(old))
            shutil.rmtree(old, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"sahub-ray-{os.getpid()}-", dir=base)
    try:
        yield folder
    finally:
        with deaf():
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _visible(gpu_ids: tuple[int, ...]) -> str:
    """These GPUs, of those that this process may see: the ones that Ray gives to workers."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = before.split(",") if before else None
    return ",".join(seen[number] if seen else str(number) for number in gpu_ids)


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, as long as this lasts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Raises RunError soon after a process of Ray itself has died: calls would wait for it for minutes, or for ever."""
    import ray  # not before it was told how to behave

    node = ray._private.worker._global_node
    found = getattr(node, "all_processes", {})
    processes = [(name, one.process) for name in ("gcs_server", "raylet") for one in found.get(name, [])]
    if not processes or threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    died: list[str] = []

    def watch() -> None:
        while not over.wait(0.5):
            died.extend(name for name, process in processes if process.poll() is not None)
            if died:
                _thread.interrupt_main(signal.SIGUSR2)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    before = signal.signal(signal.SIGUSR2, signal.default_int_handler)  # runs in the background ignore SIGINT
    watcher.start()
    try:
        yield
    except KeyboardInterrupt:
        if died and not asked_to_stop():  # a signal to the whole group ends Ray as well
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            raise RunError(f"Ray died ({died[0]}); {AGAIN}") from None
        raise
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR2, before)
