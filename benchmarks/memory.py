"""What a run was predicted to hold in memory, and what it held: `python benchmarks/memory.py models=embedded`.

Contexts of `tokens=4096`, inline on one thread (with two, what a pass leaves is at times 150 MiB more), each case in a
process of its own: the most that it held, less what it held once the model was loaded, beside what `dry_run` says of
contexts and work. `models=embedded,smollm2 builders=quest,pqcache,snapkv contexts=1,4`; `phases=validate` validates the
builder's default, `phases=search,validate` searches before, 8 trials on as many contexts, and half as many that decide.
Further arguments with a dot are overrides.
"""

import gc
import subprocess
import sys
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from arguments import given

import sahub
from sahub.config.cell import compose_cell
from sahub.engine.session import Session
from sahub.run.memory import memory_of
from sahub.timing.clock import Peak, peak

TASK = "ruler/niah_single_1"


def limits(tokens: str, contexts: str, phases: str, *rest: str) -> list[str]:
    """Overrides of one case."""
    sizes = {"max_context_length": tokens, "max_requests": contexts, "max_new_tokens": "16"}
    each = [f"{phase}.{name}={size}" for phase in ("search", "validate") for name, size in sizes.items()]
    trials = ["search.num_samples=8", f"search.decide={int(contexts) // 2}"]
    how = ["compute=inline", "compute.threads=1", "force=true"]
    return [f"task.length={tokens}", *each, *trials, f"phases=[{phases}]", *how, *rest]


def child(*case: str) -> None:
    """Run the case, and print the most bytes that were held since the model was loaded, less those held then."""
    found: list[Peak] = []
    begin, rest = Session.__init__, ExitStack()

    def noted(session: Session, *arguments: Any, **named: Any) -> None:
        begin(session, *arguments, **named)
        gc.collect()
        found.append(rest.enter_context(peak(torch.device("cpu"))))

    with rest, patch.object(Session, "__init__", noted):
        folder = rest.enter_context(TemporaryDirectory())
        [result] = sahub.optimize_matrix(
            models=[case[0]], tasks=[TASK], builders=[case[1]], objectives=["sparsity_10"],
            overrides=limits(*case[2:]), directory=folder,
        )  # fmt: skip
        assert (result.study if case[4] == "search" else result.validation) is not None, result.message
    [since] = found
    sys.stdout.write(f"{since.added}\n")


def measured(*case: str) -> int:
    """Bytes of a process of its own."""
    done = subprocess.run([sys.executable, __file__, "case", *case], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def main(*arguments: str) -> None:
    """Print a line for every case."""
    usual = {"models": "embedded", "builders": "quest,pqcache,snapkv", "tokens": "4096", "contexts": "1,4"}
    usual["phases"] = "validate"
    rest = [argument for argument in arguments if "." in argument.partition("=")[0]]
    asked = given(usual, [argument for argument in arguments if argument not in rest])
    for model in asked["models"].split(","):
        for builder in asked["builders"].split(","):
            for contexts in asked["contexts"].split(","):
                case = model, builder, asked["tokens"], contexts, asked["phases"], *rest
                names = [f"model={model}", f"task={TASK}", f"builder={builder}", "objective=sparsity_10"]
                known = memory_of(compose_cell([*names, *limits(*case[2:])]))
                took, said = measured(*case), known.contexts + known.work
                sys.stdout.write(
                    f"{model}, {builder}, {contexts} contexts of {asked['tokens']} tokens: {took / 2**20:.0f} MiB, "
                    f"predicted {said / 2**20:.0f} ({said / took - 1:+.0%})\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        child(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
