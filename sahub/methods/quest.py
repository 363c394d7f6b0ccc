"""Quest: keep the pages of keys that could hold the largest dot product."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from sahub.buffers import Growing
from sahub.choosing import Scores, Selector, choose
from sahub.errors import ConfigError
from sahub.protocols import Call, Geometry, Index, Stage
from sahub.selection import Selection
from sahub.sizes import Density, Size

_OUT = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Quest(Stage):
    """Attend to the pages of consecutive keys with the highest upper bound on q.k.

    bound(q, page) = sum_d max(q_d * low_d, q_d * high_d)

    Source   Tang et al. 2024, arXiv:2406.10774, sec. 3
    Differs  sink and window are stages of their own, and pages that they keep whole cost no budget; a closed page's
             bounds may be stored in label_bits, rounded outwards, so that they stay bounds; pages start at the first
             valid key; one page is enough where the budget holds less (min_pages=3 is the authors' script)
    Memory   (2 * d * label_bits + [label_bits < 16] * 2 * 2 * 16) / page_size bits per key and KV head
    """

    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})
    heavy_size: Size | None = field(
        default=None, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.2, "log": True}}
    )
    select: Mapping[str, Any] | None = field(default=None, metadata={"unit": "{top_p: share} | {threshold: logit}"})
    page_size: int = field(default=16, metadata={"unit": "tokens", "search": {"choices": [8, 16, 32, 64]}})
    label_bits: int = field(default=16, metadata={"unit": "bits a channel", "search": {"choices": [2, 4, 8, 16]}})
    min_pages: int = field(default=1, metadata={"unit": "pages"})

    def __post_init__(self) -> None:
        for name, low, unit in (("page_size", 1, "token"), ("min_pages", 1, "page"), ("label_bits", 1, "bit")):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ConfigError(f"{name}={value}: must be at least {low} {unit}")
        if self.label_bits > 16:
            raise ConfigError(f"label_bits={self.label_bits}: must be 1 to 16 bits a channel, 16 = not quantised")
        self.selector  # noqa: B018  (checks the budget fields)

    @property
    def selector(self) -> Selector:
        """What `density`, `heavy_size` or `select` asks for."""
        ways = {"density": self.density, "heavy_size": self.heavy_size, "min_units": self.min_pages}
        return Selector.of(self.select, **ways)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The pages of the highest bounds."""
        assert isinstance(index, PageBounds)
        return choose(call, taken, index.scores(call), self.selector)

    def index_key(self) -> Hashable:
        """The bounds depend on the page and the label alone."""
        return "quest", self.page_size, self.label_bits

    def new_index(self, *, layer: int, seed: int, example: int) -> "PageBounds":
        """No pages yet."""
        del layer, seed, example
        return PageBounds(self.page_size, self.label_bits)

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """Two vectors a page, each with a 16-bit scale and offset when it is quantised."""
        del num_keys
        side = 2 * 2 * 16 if self.label_bits < 16 else 0
        return (2 * geometry.head_dim * self.label_bits + side) / self.page_size

    @property
    def granule(self) -> int:
        """One page."""
        return self.page_size

    @property
    def keeps_all(self) -> bool:
        """Only at density 1."""
        return self.selector.keeps_all


class PageBounds:
    """Largest key and largest negated key of each page, per channel: bound = relu(q).high + relu(-q).(-low).

    Slots [b, g, p, 2 * d] fp32; the last one of a sequence is its open page, updated by each key and not quantised.
    Appending a key costs O(d). Pages are counted from each sequence's first valid key; a page's bounds are over its
    valid keys, whatever a call's mask forbids.
    """

    def __init__(self, page_size: int, label_bits: int) -> None:
        self.length = 0
        self._page_size = page_size
        self._label_bits = label_bits
        self._first: Tensor | None = None  # int64 [b]: first valid key (length where there is none yet); None = 0
        self._pages = Growing(axis=2, fill=_OUT)

    def append(self, k_new: Tensor, v_new: Tensor, valid_new: Tensor | None) -> None:
        """Update the open page, close the pages that are full."""
        del v_new
        start, num = self.length, k_new.shape[2]
        self._note_first(k_new, valid_new)
        page = self._page_at(start)
        block = self._windows(k_new, valid_new, start, page, self._touched(start, num)).amax(dim=3)
        self.length += num
        self._put(page, block)

    def freeze(self) -> None:
        """Nothing is learned from a prefix."""

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None) -> None:
        """Drop the pages after `length` and reopen the one that was open."""
        del v
        if length >= self.length:
            return
        self.length = length
        if length == 0:
            self._first, self._pages = None, Growing(axis=2, fill=_OUT)
            return
        if self._first is not None:
            self._first = self._first.clamp(max=length)
        page = self._page_at(length)
        if isinstance(page, int):
            self._pages.truncate(page)
        else:
            slots = self._pages.grow(self._pages.length, k)
            slots.masked_fill_((torch.arange(slots.shape[2], device=k.device) >= page[:, None])[:, None, :, None], _OUT)
        valid = None if valid is None else valid[:, :length]
        self._put(page, self._windows(k[:, :, :length], valid, 0, page, 1).amax(dim=3))

    def fork(self) -> Self:
        """The same pages; whoever writes first copies."""
        twin = type(self)(self._page_size, self._label_bits)
        twin.length, twin._first, twin._pages = self.length, self._first, self._pages.fork()
        return twin

    def scores(self, call: Call) -> Scores:
        """Bounds of all pages for every row, each page as it was when the row's own key was the last."""
        group = call.num_heads // call.num_kv_heads
        q = call.q.float() * call.scale
        signed = torch.cat([q.relu(), (-q).relu()], dim=-1).unflatten(1, (call.num_kv_heads, group))  # [b, g, r, q, 2d]
        pages = self._pages.data[:, :, : (call.rows.num_keys - 1) // self._page_size + 1]
        logits = (signed.flatten(2, 3) @ pages.transpose(-1, -2)).unflatten(2, (group, -1))
        if call.rows.num_rows > 1:
            self._reopen(call, signed, logits)
        return Scores(logits=logits.flatten(1, 2), page_size=self._page_size, first=self._first)

    def _reopen(self, call: Call, signed: Tensor, logits: Tensor) -> None:
        """Put each row's bound of the page that was open at that row into `logits` [b, g, r, q, p]."""
        start, num = call.rows.num_keys - call.rows.num_rows, call.rows.num_rows
        page = self._page_at(start)
        running = (
            self._windows(call.k, call.valid, 0, page, self._touched(start, num)).cummax(dim=3).values.flatten(2, 3)
        )
        first = 0 if self._first is None else self._first[:, None]
        offset = (call.rows.last - first).view(-1, num)  # [b or 1, q], from the first valid key
        begin = page * self._page_size if isinstance(page, int) else page[:, None] * self._page_size
        at = (offset - begin).clamp(min=0).expand(running.shape[0], -1)[:, None, :, None]
        bounds = running.gather(2, at.expand(-1, running.shape[1], -1, running.shape[3]))  # [b, g, q, 2d]
        value = (signed * bounds[:, :, None]).sum(-1, keepdim=True)
        unit = offset.div(self._page_size, rounding_mode="floor").clamp(min=0)[:, None, None, :, None]
        unit = unit.expand(*logits.shape[:4], 1)
        is_open = ((offset + 1) % self._page_size != 0)[:, None, None, :, None]
        logits.scatter_(-1, unit, torch.where(is_open, value, logits.gather(-1, unit)))

    def _note_first(self, k_new: Tensor, valid_new: Tensor | None) -> None:
        """Find each sequence's first valid key in a chunk."""
        if valid_new is None:
            if self._first is not None:
                self._first = self._first.clamp(max=self.length)
            return
        if self._first is None:
            if self.length:
                return
            self._first = torch.zeros(k_new.shape[0], dtype=torch.int64, device=k_new.device)
        found = torch.where(valid_new.any(-1), valid_new.int().argmax(-1), valid_new.shape[1])
        self._first = torch.where(self._first == self.length, self.length + found, self._first)

    def _page_at(self, position: int) -> int | Tensor:
        """The page that holds a position, counted from the first valid key: int, or int64 [b]."""
        if self._first is None:
            return position // self._page_size
        return (position - self._first).clamp(min=0) // self._page_size

    def _touched(self, start: int, num: int) -> int:
        """How many pages `num` keys from `start` on can lie in."""
        inside = start % self._page_size if self._first is None else self._page_size - 1
        return (inside + num - 1) // self._page_size + 1

    def _windows(self, k: Tensor, valid: Tensor | None, start: int, page: int | Tensor, num_pages: int) -> Tensor:
        """(key, -key) of `num_pages` pages from `page` on: fp32 [b, g, pages, page_size, 2 * d].

        k [b, g, n, d] and valid [b, n] lie at the positions from `start` on; -inf where there is no valid key.
        """
        size = num_pages * self._page_size
        if isinstance(page, int) and valid is None:
            skip = page * self._page_size - start  # < 0: the window begins before the chunk
            part = k[:, :, max(skip, 0) : max(skip + size, 0)].float()
            before = min(max(-skip, 0), size)
            both = torch.nn.functional.pad(
                torch.cat([part, -part], dim=-1), (0, 0, before, size - before - part.shape[2]), value=_OUT
            )
        else:
            first = 0 if self._first is None else self._first
            begin = torch.as_tensor(page, device=k.device) * self._page_size + first - start
            at = begin.view(-1, 1) + torch.arange(size, device=k.device)
            inside = (at >= 0) & (at < k.shape[2])
            at = at.clamp(0, max(k.shape[2] - 1, 0)).expand(k.shape[0], -1)
            if valid is not None:
                inside = inside & valid.gather(1, at)
            part = k.gather(2, at[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])).float()
            both = torch.cat([part, -part], dim=-1).masked_fill(~inside[:, None, :, None], _OUT)
        pages: Tensor = both.unflatten(2, (num_pages, self._page_size))
        return pages

    def _put(self, page: int | Tensor, block: Tensor) -> None:
        """Join [b, g, t, 2 * d] with the slots from `page` on, and label the pages that are closed now."""
        num = block.shape[2]
        slots = self._pages.grow(max(self._pages.length, self.length // self._page_size + num), block)
        closed = self._page_at(self.length)
        if isinstance(page, int):
            old = slots[:, :, page : page + num]
            torch.maximum(old, block, out=old)
            done = old[:, :, : max(0, closed - page)]
            done.copy_(self._label(done))
            return
        at = page[:, None] + torch.arange(num, device=block.device)  # [b, t]
        done = (at < torch.as_tensor(closed)[:, None])[:, None, :, None]
        at = at[:, None, :, None].expand_as(block)
        block = torch.maximum(block, slots.gather(2, at))
        slots.scatter_(2, at, torch.where(done, self._label(block), block))

    def _label(self, bounds: Tensor) -> Tensor:
        """The bounds in label_bits: per vector over d, a grid from its least to its largest value, rounded up."""
        if self._label_bits == 16:
            return bounds
        levels = 2**self._label_bits - 1
        both = bounds.unflatten(-1, (2, -1))
        low, high = both.amin(dim=-1, keepdim=True), both.amax(dim=-1, keepdim=True)
        step = ((high - low) / levels).masked_fill(high == low, 1.0)
        grid = ((both - low) / step).ceil().clamp(max=levels) * step + low
        return torch.maximum(grid, both).flatten(-2)
