"""Keys that share a prefix are read as if each sequence had all of its own."""

import pytest
import torch

from sahub.attention.attend import attend
from sahub.attention.gather import Table
from sahub.attention.rows import rows_of
from sahub.attention.selection import Selection
from sahub.attention.shared import SharedPrefix, whole

BATCH, HEADS, LENGTH, USED, ROOM, DIM = 3, 2, 9, 4, 6, 5


def made(dtype: torch.dtype = torch.float32) -> tuple[SharedPrefix, torch.Tensor]:
    """Shared, and the same as one tensor, put together by hand."""
    memory = torch.randn(1, HEADS, LENGTH + BATCH * ROOM + 2, DIM).to(dtype)
    starts = [LENGTH + ROOM * one for one in range(BATCH)]
    each = [torch.cat([memory[:, :, :LENGTH], memory[:, :, at : at + USED]], dim=2) for at in starts]
    return SharedPrefix(memory, LENGTH, batch=BATCH, room=ROOM, used=USED), torch.cat(each)


@pytest.mark.parametrize("begin", range(0, LENGTH + USED, 3))
def test_slices_are_those_of_the_whole(begin: int) -> None:
    shared, each = made()
    assert shared.shape == each.shape
    for end in range(begin + 1, LENGTH + USED + 1):
        assert torch.equal(whole(shared[:, :, begin:end]), each[:, :, begin:end])
    assert torch.equal(whole(shared.float()), each)
    assert torch.equal(torch.cat([shared.alone(at) for at in range(BATCH)]), each)


def test_products_and_sums_are_those_of_the_whole() -> None:
    shared, each = made()
    queries, shares = torch.randn(BATCH, HEADS, 2, 3, DIM), torch.rand(BATCH, HEADS, 2, 3, LENGTH + USED)
    torch.testing.assert_close(shared.dots(queries), queries @ each[:, :, None].mT)
    torch.testing.assert_close(shared.sums(shares), shares @ each[:, :, None])


@pytest.mark.parametrize("units", [HEADS, 2 * HEADS])
def test_chosen_keys_are_read_where_they_are(units: int) -> None:
    shared, each = made()
    slots = torch.randint(0, LENGTH + USED, (BATCH, units, 2, 7))
    for one, other in ((Table(shared), Table(each)),):
        assert torch.equal(one.at(one.places(slots)), other.at(other.places(slots)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, USED])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_attention_is_that_to_the_whole(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, rows: int, plain: bool, share: float
) -> None:
    monkeypatch.setattr("sahub.attention.attend._MANY_ROWS", 4)  # from which a mask is used
    torch.manual_seed(0)
    (k, keys), (v, values) = made(dtype), made(dtype)
    q = torch.randn(BATCH, 2 * HEADS, rows, DIM).to(dtype)
    layer = {} if plain else {"softcap": 2.0, "sinks": torch.randn(2 * HEADS)}
    bare = Selection.none(rows_of(q, keys, None), 2 * HEADS, HEADS)
    noise = torch.rand(BATCH, 2 * HEADS, rows, LENGTH + USED)
    noise = noise.masked_fill(~bare.rows.admits(torch.arange(LENGTH + USED).expand_as(noise)), 0.0)
    chosen = noise.topk(int(share * LENGTH), dim=-1)
    some = bare.of(chosen.indices, torch.where(chosen.values > 0, 0.0, float("-inf")))
    selection = bare.all() if share == 1 else some
    expected = attend(q, keys, values, selection, backend="reference", **layer)
    for backend in ("gather", "reference"):
        torch.testing.assert_close(attend(q, k, v, selection, backend=backend, **layer), expected)
