"""Ray over several machines and GPUs, as far as one machine without a GPU can stand for them."""

import json
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import TINY, environment, one, python, read, sahub, start, wait_for
from processes import belonging_to

# Two nodes with a GPU each that only Ray believes in; they end with standard input.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=2, num_gpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def two_nodes(folder: Path):
    """The address of a cluster, as long as this lasts."""
    calm = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_prestart_worker_first_driver": "0", "RAY_worker_niceness": "0"}
    env = environment(**calm, NODES=str(folder))
    line = [sys.executable, "-c", CLUSTER]
    with (folder / "nodes").open("w") as said, subprocess.Popen(
        line, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
    ) as running:  # fmt: skip
        assert running.stdout is not None
        address = running.stdout.readline().strip()
        assert address, (folder / "nodes").read_text()
        yield address
        running.communicate(timeout=60)


def parents(folder: Path) -> Counter[int]:
    """The nodes' processes, by the number of sahub's workers that each has."""
    found: Counter[int] = Counter()
    for pid, command in belonging_to(folder).items():
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended just now
            continue
        if command.startswith("ray::_Actor"):
            found[parent] += 1
    return found


@pytest.mark.slow
def test_two_nodes_run_the_debug_matrix(tmp_path):
    with two_nodes(tmp_path) as address:
        where = ["compute=cluster", f"compute.address={address}"]
        done = sahub("search", "builder=quest", *where, "compute.workers=3", *TINY, cwd=tmp_path)
        assert done.stderr == "failed: compute.workers=3: needs 3 GPUs; the cluster has 2\n"
        spread: set[tuple[int, ...]] = set()

        def is_over() -> bool:
            spread.add(tuple(sorted(parents(tmp_path).values())))
            return run.poll() is not None

        with start("search", "+experiment=debug", *where, *TINY, f"results_dir={tmp_path}/run", cwd=tmp_path) as run:
            assert wait_for(is_over, 600)
            assert run.returncode == 0, run.communicate()
        assert (1, 1) in spread  # a worker on each node, never both on one
        assert not spread - {(), (1,), (1, 1)}
        assert not parents(tmp_path)
    summary = read(one(tmp_path / "run", "benchmark_summary.json"))
    assert len(summary["cells"]) == 6
    assert all(cell["ok"] and cell["validation"]["n"] == 4 for cell in summary["cells"])
    assert summary["work"]["embedded"]["loads"] == 2


# The workers of GPUs 1 and 3 of a machine of which torch is told that it has four: which GPU is whose?
GPUS = """
import json, os, sys, torch
from pathlib import Path
torch.cuda.device_count = lambda: 4
from sahub.config.cell import compose_cell
from sahub.compute.ray_start import started
cell = compose_cell(["compute=gpu", "compute.gpu_ids=[1,3]", "compute.actors_per_gpu=2", "model.device=cpu"])
with started(cell.settings.compute):
    from sahub.compute.ray_workers import RayWorkers, ray
    with RayWorkers(cell, Path("results")) as workers:
        seen = lambda actor: os.environ["CUDA_VISIBLE_DEVICES"]
        found = [ray.get(slot.handle.__ray_call__.remote(seen)) for slot in workers.slots]
        print(json.dumps([found, ray.available_resources().get("GPU", 0), workers.counters.loads]))
print(os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


@pytest.mark.slow
def test_workers_share_the_gpus_that_are_named(tmp_path):
    done = python("-c", GPUS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told, after = done.stdout.splitlines()
    visible, left, loads = json.loads(told)
    assert sorted(visible) == ["1", "1", "3", "3"]
    assert (left, loads) == (0, 4)
    assert after == "None"
