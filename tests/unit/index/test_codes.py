"""What tables say that codes are worth."""

import pytest
import torch

from sahub.index import codes as codes_module
from sahub.index.codes import Codes


@pytest.mark.parametrize("rows", [1, 3, 4, 11])
@pytest.mark.parametrize("tables", [1, 5, 6])
@pytest.mark.parametrize("halves", [True, False])
def test_a_key_is_worth_what_its_codes_say_added_up_in_order(rows, tables, halves, monkeypatch):
    noise = torch.Generator().manual_seed(0)
    kept, bits, keys = Codes(5), 5, 8192 + 3
    chosen = torch.randint(1 << bits, (2, 3, tables, keys), generator=noise)
    kept.append(chosen[..., :100])
    kept.append(chosen[..., 100:])
    high = torch.randn(2, 3, tables, 8 if halves else 32, rows, generator=noise)
    low = torch.randn(2, 3, tables, 4, rows, generator=noise) if halves else None
    expected = torch.zeros(2, 3, rows, keys)
    for t in range(tables):
        each = torch.arange(1 << bits)
        table = high[:, :, t] if low is None else high[:, :, t, each // 4] * low[:, :, t, each % 4]
        for b in range(2):
            for g in range(3):
                expected[b, g] += table[b, g, chosen[b, g, t]].T
    assert torch.equal(kept.worth(high, low), expected)
    monkeypatch.setattr(codes_module, "at_hand", lambda: False)
    assert torch.equal(kept.worth(high, low), expected)
