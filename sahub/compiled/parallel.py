"""A loop over units on as many threads as torch may use."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch

_WORTH = 1 << 20  # numbers that a thread goes through, below which it takes longer to wake than to do without


def over_units(loop: Callable[..., Any], num: int, work: int, *arguments: Any) -> dict[int, Any]:
    """What loop(first, end, *arguments) gives for units 0 .. num - 1, in parts that run at the same time, by `first`.

    work  how many numbers all units go through
    """
    threads = min(torch.get_num_threads(), num, 1 + work // _WORTH)
    if threads < 2:
        return {0: loop(0, num, *arguments)}
    ends = [num * part // threads for part in range(threads + 1)]
    others = {part[0]: _pool().submit(loop, *part, *arguments) for part in pairwise(ends[1:])}
    return {0: loop(0, ends[1], *arguments), **{first: other.result() for first, other in others.items()}}


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="sahub-loop")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads
