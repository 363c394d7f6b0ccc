"""The page that a row's own key lies in: while it was open, its bounds were others than those that are kept of it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sahub.attention.products import Exact


@dataclass(frozen=True, kw_only=True)
class OwnPages:
    """Each row's own page, [b, h, q, 1]: its number, its bound at that row, and whether it was open then."""

    unit: Tensor
    value: Tensor
    is_open: Tensor

    def put(self, logits: Tensor) -> Tensor:
        """Write the bounds of open pages into logits [b, h, q, p]."""
        return logits.scatter_(-1, self.unit, torch.where(self.is_open, self.value, logits.gather(-1, self.unit)))

    def settling(self, exact: Exact, closed: int, num_pages: int) -> Exact:
        """What settles the bounds of all pages, of which the first `closed` are closed."""

        def at(row: Tensor, unit: Tensor) -> Tensor:
            own = (self.unit.flatten()[row] == unit) & self.is_open.flatten()[row]
            return torch.where(own, self.value.flatten()[row], exact.at(row, unit.clamp(max=closed - 1)))

        def every() -> Tensor:
            return self.put(torch.nn.functional.pad(exact.every(), (0, num_pages - closed)))

        return replace(exact, at=at, every=every)


def running_max(pages: Tensor) -> Tensor:
    """The largest of each page [b, g, t, page_size, d] so far: a third of what torch's own takes, which finds where."""
    reach, found = 1, pages.clone()
    while reach < pages.shape[3]:
        found[:, :, :, reach:] = torch.maximum(found[:, :, :, reach:], found[:, :, :, :-reach])
        reach *= 2
    return found
