"""Longest common subsequences of two sequences of words, by bit vectors: long texts cost no table of their squares.

Source   Hyyro 2004, "Bit-parallel LCS-length computation revisited"
"""

from collections import deque
from collections.abc import Iterator, Sequence

from sahub.errors import ScoreError

MAX_CELLS = 4_000_000_000  # bits of the vectors that are kept for walking back: half a GB


def lcs_length(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of a longest common subsequence."""
    [last] = deque(_rows(one, other), maxlen=1) or [(1 << len(other)) - 1]
    return len(other) - last.bit_count()


def lcs_pairs(one: Sequence[str], other: Sequence[str]) -> list[tuple[int, int]]:
    """Places (in one, in other) of one longest common subsequence, found from the end: on a tie the step is in `other`.

    rows[i] has bit j clear where LCS(one[: i + 1], other[: j + 1]) grows with other[j]. At a cell whose words differ
    that means the cell above is strictly larger than the one before, the only case to step up.

    Raises ScoreError for texts so long that the vectors would not fit into memory.
    """
    if len(one) * len(other) > MAX_CELLS:
        raise ScoreError(f"texts of {len(one)} and {len(other)} words: too long to compare, by their product")
    rows = list(_rows(one, other))
    i, j = len(one) - 1, len(other) - 1
    pairs = []
    while i >= 0 and j >= 0:
        if one[i] == other[j]:
            pairs.append((i, j))
            i, j = i - 1, j - 1
        elif rows[i] >> j & 1:
            j -= 1
        else:
            i -= 1
    return pairs


def _rows(one: Sequence[str], other: Sequence[str]) -> Iterator[int]:
    found: dict[str, list[int]] = {word: [] for word in one}
    for j, word in enumerate(other):
        if word in found:
            found[word].append(j)
    places = {word: _bits(js) for word, js in found.items()}
    row = full = (1 << len(other)) - 1
    for word in one:
        hits = row & places[word]
        row = ((row + hits) | (row - hits)) & full
        yield row


def _bits(places: Sequence[int]) -> int:
    """The number with these bits set, made in bytes: set one by one they would cost the square of its length."""
    marks = bytearray(places[-1] // 8 + 1 if places else 0)
    for place in places:
        marks[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(marks, "little")
