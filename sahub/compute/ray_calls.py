"""How calls of workers end; a Tune trial is such a call, in a process that must not import what only models need."""

from collections.abc import Mapping
from typing import Any

import ray

from sahub.errors import RunError, SahubError

GRACE_S = 60.0  # beyond a unit's own limit, before its worker counts as hung
NO_ANSWER = "timeout: its worker did not answer"
LIVES = 2  # how often a unit may lose its worker before it counts as what kills them


def trial(config: Mapping[str, Any]) -> None:
    """What Tune runs, in a process of its own: it only waits for a long-lived worker, which has the model."""
    try:
        worker = ray.get_actor(config["worker"], namespace=config["namespace"])
        ref = worker.trial.remote(config["batch"], config["unit"], config["seconds_left"])
        told = ray.get(ref, timeout=config["limit_s"])
    except ray.exceptions.GetTimeoutError:
        told = {"lost": NO_ANSWER}
    except ray.exceptions.RayTaskError as error:
        told = {"failed": str(cause_of(error))}
    except (ray.exceptions.RayError, ValueError) as error:  # ValueError: no worker of that name any more
        told = {"lost": death(error)}
    from ray import tune  # seconds, and only the process of a trial has paid them

    tune.report(told)


def cause_of(error: "ray.exceptions.RayTaskError") -> Exception:
    """What was raised inside a worker, without Ray's traceback around it."""
    cause = error.cause
    if isinstance(cause, SahubError):
        return type(cause)(str(cause))
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return RunError(f"a worker failed: {type(cause).__name__}: {lines[0] if lines else 'no message'}")


def death(error: BaseException) -> str:
    """Why a worker is gone, as far as Ray knows; always the same words for the same cause."""
    if "running low on memory" in str(error) or isinstance(error, ray.exceptions.OutOfMemoryError):
        return "its machine was running out of memory"
    return "its process died: killed, or out of memory"
