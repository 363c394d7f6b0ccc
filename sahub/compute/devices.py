"""What a configuration asks for: how many processes, and whether the GPUs that it names are here."""

from sahub.config.settings import Compute
from sahub.errors import ConfigError


def check_gpus(compute: Compute) -> None:
    """Raise ConfigError where `compute=gpu` names GPUs that torch does not find on this machine."""
    if compute.name != "gpu":
        return
    import torch  # torch is not needed to plan for CPUs

    ids, count = list(compute.gpu_ids), torch.cuda.device_count()
    if not ids or len(set(ids)) < len(ids):
        raise ConfigError(f"compute.gpu_ids={ids}: must name at least one GPU, none of them twice")
    if max(ids) >= count:
        has = f"has GPUs 0..{count - 1}" if count else "has no GPU that torch finds"
        raise ConfigError(f"compute.gpu_ids={ids}: this machine {has}; compute=local works without")


def number_of_workers(compute: Compute) -> int:
    """Processes that a configuration asks for."""
    if compute.name == "gpu":
        return len(compute.gpu_ids) * compute.actors_per_gpu
    return 1 if compute.name == "inline" else compute.workers
