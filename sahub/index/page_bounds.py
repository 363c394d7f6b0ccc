"""Bounds on the keys of pages, for methods that choose pages of consecutive keys."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from sahub.attention.buffers import Growing
from sahub.attention.call import Call, Scores
from sahub.attention.products import in_pairs, of_single_rows, scored
from sahub.attention.rows import free_to_read
from sahub.attention.shared import Keys, whole
from sahub.compiled.present import at_hand
from sahub.index.coarse import Coarse
from sahub.index.own_pages import OwnPages, running_max
from sahub.index.page_labels import decoded, label

_OUT = float("-inf")
_LARGE = 1 << 23  # multiplications from which a first look at less costs less than to look once
_HEADS = 8  # that share a KV head, at most: by them it is told whether such a look will come


class PageBounds:
    """Largest key and largest negated key of each page, per channel: bound = relu(q).high + relu(-q).(-low).

    Closed pages are kept in label_bits, packed, or in the keys' dtype at 16 bits; beside them, as a step reads them, in
    fp32, where all sequences close their pages together. The open page of a sequence is kept
    apart, in the keys' dtype; each key updates it. Appending a key costs O(d). Pages are counted from each sequence's
    first valid key; a page's bounds are over its valid keys, whatever a call's mask forbids.
    """

    def __init__(self, page_size: int, label_bits: int) -> None:
        self.length = 0
        self._page_size = page_size
        self._label_bits = label_bits
        self._first: Tensor | None = None  # int64 [b]: first valid key (length where there is none yet); None = 0
        self._closed = [Growing(axis=2)] if label_bits == 16 else [Growing(axis=2), Growing(axis=2)]  # see page_labels
        self._read = Growing(axis=2)  # fp32 [b, g, p, 2 * d]: closed pages as a step reads them
        self._coarse = Coarse()  # the same for a first look
        self._longest: Tensor | None = None  # fp32 [b, g]: a bound of the lengths of these
        self._open: Tensor | None = None  # [b, g, 2 * d]: bounds so far, -inf without a key; None = no key

    def append(self, k_new: Tensor, v_new: Tensor, valid_new: Tensor | None) -> None:
        """Update the open page, close the pages that are full."""
        del v_new
        start, num = self.length, k_new.shape[2]
        self._note_first(k_new, valid_new)
        page = self._page_at(start)
        if num == 1 and isinstance(page, int) and valid_new is None:
            one = whole(k_new)
            block = torch.cat([one, -one], dim=-1)
        else:
            block = self._block(k_new, valid_new, start, page)
        if self._open is not None:
            block[:, :, 0] = torch.maximum(block[:, :, 0], self._open)
        self.length += num
        closed = self._page_at(self.length)
        if isinstance(page, int) and isinstance(closed, int):
            self._close(page, closed, block)
        else:
            self._close_some(torch.as_tensor(page), torch.as_tensor(closed), block, start // self._page_size)

    def freeze(self) -> None:
        """Nothing is learned from a prefix."""

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None) -> None:
        """Drop the pages after `length` and reopen the one that was open."""
        del v
        if length >= self.length:
            return
        self.length = length
        if self._first is not None:
            self._first = self._first.clamp(max=length) if length else None
        for part in [*self._closed, self._read]:
            part.truncate(length // self._page_size)
        self._coarse.truncate(length // self._page_size)
        page = self._page_at(length)
        self._open = None
        if length and not (isinstance(page, int) and length % self._page_size == 0):
            valid = None if valid is None else valid[:, :length]
            self._open = self._windows(k[:, :, :length], valid, 0, page, 1).amax(dim=3)[:, :, 0]

    def fork(self) -> Self:
        """The same pages; whoever writes first copies."""
        twin = type(self)(self._page_size, self._label_bits)
        twin.length, twin._first, twin._open = self.length, self._first, self._open
        twin._closed = [part.fork() for part in self._closed]
        twin._read, twin._coarse, twin._longest = self._read.fork(), self._coarse.fork(), self._longest
        return twin

    def take(self, rows: Tensor) -> Self:
        """See Index."""
        twin = self.fork()
        twin._closed, twin._read = [part.take(rows) for part in self._closed], self._read.take(rows)
        twin._coarse = self._coarse.take(rows)
        some = [None if one is None else one[rows] for one in (self._first, self._longest, self._open)]
        twin._first, twin._longest, twin._open = some
        return twin

    @property
    def code_bytes(self) -> int:
        """Bytes of the bounds."""
        closed = sum(part.data.nbytes for part in self._closed if part.length)
        return closed + (0 if self._open is None else self._open.nbytes)

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self.code_bytes + self._coarse.nbytes + (self._read.data.nbytes if self._read.length else 0)

    def scores(self, call: Call) -> Scores:
        """Bounds of all pages for every row, each page as it was when the row's own key was the last."""
        q = (call.q.float() * call.scale).unflatten(1, (call.num_kv_heads, -1))
        signed = torch.cat([q, -q], dim=-1).relu_()  # [b, g, r, q, 2d]
        if call.rows.single and self._first is None and self._closed[0].length:
            closed = self._bounds(self._closed[0].length, signed.shape[-1])
            last = None if self._open is None else self._open.float()[:, :, None]
            if self._coarse.length == closed.shape[2] and signed.numel() * closed.shape[2] >= _LARGE:
                found = self._coarse.products(signed, closed, last)
                if found is not None:
                    return Scores(logits=found[0], page_size=self._page_size, exact=found[1])
            plain = of_single_rows(signed, closed, last)
            if plain is not None:
                return Scores(logits=plain, page_size=self._page_size)
        num_pages = (call.rows.num_keys - 1) // self._page_size + 1
        own = self._own(call, signed)
        if not self._closed[0].length:
            logits = own.put(signed.new_zeros(*own.unit.shape[:3], num_pages))
            return Scores(logits=logits, page_size=self._page_size, first=self._first)
        logits, exact = scored(signed, self._bounds(num_pages, signed.shape[-1]), longest=self._longest)
        exact = None if exact is None else own.settling(exact, logits.shape[-1], num_pages)
        logits = own.put(torch.nn.functional.pad(logits, (0, num_pages - logits.shape[-1])))
        return Scores(logits=logits, page_size=self._page_size, first=self._first, exact=exact)

    def _own(self, call: Call, signed: Tensor) -> OwnPages:
        """Each row's bound of the page that was open at that row."""
        start, num = call.rows.num_keys - call.rows.num_rows, call.rows.num_rows
        page = self._page_at(start)
        touched = self._windows(call.k, call.valid, 0, page, self._touched(start, num))
        running = running_max(touched.float()).flatten(2, 3)
        first = 0 if self._first is None else self._first[:, None]
        offset = (call.rows.last - first).view(-1, num)  # [b or 1, q], from the first valid key
        begin = page * self._page_size if isinstance(page, int) else page[:, None] * self._page_size
        at = (offset - begin).clamp(min=0).expand(running.shape[0], -1)[:, None, :, None]
        bounds = running.gather(2, at.expand(-1, running.shape[1], -1, running.shape[3]))  # [b, g, q, 2d]
        value = in_pairs(signed, bounds[:, :, None]).flatten(1, 2)[..., None]
        unit = offset.div(self._page_size, rounding_mode="floor").clamp(min=0)[:, None, :, None].expand_as(value)
        is_open = ((offset + 1) % self._page_size != 0)[:, None, :, None].expand_as(value)
        return OwnPages(unit=unit, value=value, is_open=is_open)

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

    def _block(self, k: Tensor, valid: Tensor | None, start: int, page: int | Tensor) -> Tensor:
        """Bounds of the new keys of each page that they lie in: [b, g, pages, 2 * d]."""
        num_pages, full = self._touched(start, k.shape[2]), k.shape[2] // self._page_size
        if not isinstance(page, int) or valid is not None or start % self._page_size or not full:
            return self._windows(k, valid, start, page, num_pages).amax(dim=3)
        pages = whole(k[:, :, : full * self._page_size]).unflatten(2, (full, -1))  # a context is not copied
        rest = self._windows(k, None, start, page + full, num_pages - full).amax(dim=3)
        return torch.cat([torch.cat([pages.amax(dim=3), -pages.amin(dim=3)], dim=-1), rest], dim=2)

    def _windows(self, k: Keys, valid: Tensor | None, start: int, page: int | Tensor, num_pages: int) -> Tensor:
        """(key, -key) of `num_pages` pages from `page` on: [b, g, pages, page_size, 2 * d], the keys' dtype.

        k [b, g, n, d] and valid [b, n] lie at the positions from `start` on; -inf where there is no valid key.
        """
        size = num_pages * self._page_size
        if isinstance(page, int) and valid is None:
            skip = page * self._page_size - start  # < 0: the window begins before the chunk
            part = whole(k[:, :, max(skip, 0) : max(skip + size, 0)])
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
            part = whole(k).gather(2, at[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3]))
            both = torch.cat([part, -part], dim=-1).masked_fill(~inside[:, None, :, None], _OUT)
        pages: Tensor = both.unflatten(2, (num_pages, self._page_size))
        return pages

    def _close(self, page: int, closed: int, block: Tensor) -> None:
        """Label the pages [b, g, t, 2 * d] from `page` on that are closed now, and keep the next one open."""
        num = closed - page
        if num:
            labels = label(block[:, :, :num], self._label_bits)
            for part, kept in zip(self._closed, labels, strict=True):
                part.grow(closed, kept)[:, :, page:] = kept
            self._note_read(labels, block.shape[-1])
        self._open = block[:, :, num] if num < block.shape[2] else None

    def _close_some(self, page: Tensor, closed: Tensor, block: Tensor, most: int) -> None:
        """The same for sequences that are at different pages [b], the largest of them `most`."""
        num = block.shape[2]
        at = (page[:, None] if page.dim() else page) + torch.arange(num, device=block.device)
        done = (at < closed[:, None])[:, None, :, None]
        for part, kept in zip(self._closed, label(block, self._label_bits), strict=True):
            slots = part.grow(max(part.length, most + num), kept)
            to = at[:, None, :, None].expand_as(kept)
            slots.scatter_(2, to, torch.where(done, kept, slots.gather(2, to)))
        place = (closed - page)[:, None, None, None].expand(-1, block.shape[1], 1, block.shape[3])
        found = block.gather(2, place.clamp(max=num - 1))
        self._open = found.masked_fill(place >= num, _OUT)[:, :, 0]

    def _bounds(self, num_pages: int, width: int) -> Tensor:
        """The labels of at most `num_pages` pages as bounds, fp32 [b, g, p, width]."""
        if self._read.length:
            return self._read.data[:, :, :num_pages]
        return decoded([part.data[:, :, :num_pages] for part in self._closed], self._label_bits, width)

    def _note_read(self, labels: Sequence[Tensor], width: int) -> None:
        """Keep pages that are closed now as a step reads them."""
        bounds = decoded(labels, self._label_bits, width)
        if bounds is not labels[0]:
            self._read.append(bounds)
        if free_to_read(bounds) and at_hand():
            closed = self._bounds(self._closed[0].length, width)
            if closed.numel() * _HEADS >= _LARGE:
                self._coarse.append(closed[:, :, self._coarse.length :])
        longest = torch.linalg.vector_norm(bounds, dim=-1).amax(-1)
        self._longest = longest if self._longest is None else torch.maximum(self._longest, longest)
