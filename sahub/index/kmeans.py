"""k-means of the parts of keys, seeded and in bounded memory."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

_ELEMENTS = 4_000_000  # of the largest temporary: 16 MB in fp32
_MASK64 = (1 << 64) - 1


class Finite(NamedTuple):
    """Centroids fp32 [p, c, d], 0 where they are at inf, and their squared lengths [p, c], inf there: nobody's."""

    centroids: Tensor
    norms: Tensor

    @classmethod
    def of(cls, centroids: Tensor) -> Self:
        """Of centroids that may be at inf."""
        usable = centroids.isfinite().all(-1)
        finite = centroids.masked_fill(~usable[..., None], 0.0)
        return cls(finite, finite.square().sum(-1).masked_fill(~usable, float("inf")))


def kmeans(points: Tensor, num: int, rounds: int, seed: int) -> Tensor:
    """Centroids fp32 [p, num, d] of points fp32 [p, n, d], for each of p parts on its own.

    Lloyd's rounds from `num` different points, drawn by `seed` and n alone; a centroid without points stays where it
    is. With fewer points than centroids the rest is inf: nearer to nothing. No temporary has p * n * num elements.
    """
    parts, size, width = points.shape
    found = min(num, size)
    centroids = points.new_full((parts, num, width), float("inf"))
    if not found:
        return centroids
    generator = torch.Generator().manual_seed(seed)
    first = torch.randperm(size, generator=generator)[:found]
    centroids[:, :found] = points[:, first.to(points.device)]
    for _ in range(rounds):
        sums, counts = torch.zeros_like(centroids), points.new_zeros(parts, num)
        known = Finite.of(centroids)
        for chunk in _chunks(points, num):
            codes = nearest(chunk, known)
            sums.scatter_add_(1, codes[..., None].expand(-1, -1, width), chunk)
            counts.scatter_add_(1, codes, torch.ones_like(codes, dtype=counts.dtype))
        means = sums / counts.clamp(min=1)[..., None]
        moved = torch.where(counts[..., None] > 0, means, centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids


def nearest(points: Tensor, known: Finite) -> Tensor:
    """The nearest centroid of each point fp32 [p, n, d], of equally near ones the first: int64 [p, n].

    argmin |x - c|^2 = argmin |c|^2 - 2 x.c
    """
    chunks = _chunks(points, known.centroids.shape[1])
    found = (torch.baddbmm(known.norms[:, None], chunk, known.centroids.mT, alpha=-2) for chunk in chunks)
    codes = [distances.argmin(-1) for distances in found]
    return torch.cat(codes, dim=1) if codes else points.new_zeros(points.shape[0], 0, dtype=torch.int64)


def _chunks(points: Tensor, num: int) -> tuple[Tensor, ...]:
    return points.split(max(1, _ELEMENTS // (points.shape[0] * num)), dim=1) if points.shape[1] else ()


def seed_of(*parts: int) -> int:
    """One seed from several numbers."""
    mixed = 0
    for part in parts:
        mixed = ((mixed ^ (part & _MASK64)) * 0x9E3779B97F4A7C15 + 1) & _MASK64
        mixed ^= mixed >> 29
    return mixed >> 1
