"""How well a step's seconds are predicted: `python benchmarks/cost_model.py model=embedded lengths=512,1024,2048`.

For each of `builders=` the default and each free field at its last value are measured at all lengths in rounds that
alternate, as for objective=latency; then each length is predicted from the others. A row per builder: stacks, the
median and the largest relative error, and the range of the steps in milliseconds; at the end the median of all.
"""

import sys
from statistics import median

from arguments import given

from sahub.config.cell import compose_cell
from sahub.models.reading import read_config
from sahub.models.supported import geometry
from sahub.search.step_costs import measured_steps, stacks_of
from sahub.timing.costs import Step, errors_of

BUILDERS = "quest,pqcache,double_sparsity,snapkv,streaming_llm,magic_pig"


def main(*arguments: str) -> None:
    """Print the table."""
    asked = given({"model": "embedded", "lengths": "512,1024,2048", "builders": BUILDERS}, arguments)
    lengths = [int(length) for length in asked["lengths"].split(",")]
    every: list[float] = []
    sys.stdout.write(f"{asked['model']}, {asked['lengths']} keys\n")
    sys.stdout.write(f"{'':18}{'stacks':>8}{'median error':>14}{'largest':>9}{'ms':>16}\n")
    for builder in asked["builders"].split(","):
        cell = compose_cell([f"model={asked['model']}", f"builder={builder}", "objective=latency"])
        stacks = stacks_of(cell, geometry(read_config(cell.settings.model.path, None, False)), lengths[-1])
        steps = [Step(**step) for step in measured_steps(cell, stacks, lengths)["sparse"]]
        errors, taken = errors_of(steps), [1e3 * step.seconds for step in steps]
        every += errors
        middle, worst, span = 100 * median(errors), 100 * max(errors), f"{min(taken):.1f} to {max(taken):.1f}"
        sys.stdout.write(f"{builder:18}{len(stacks):8}{middle:12.1f} %{worst:7.0f} %{span:>16}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{'all':26}{100 * median(every):12.1f} %\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
