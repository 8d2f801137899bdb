"""Features less what they have in common."""

from __future__ import annotations

import torch

from perceive.contrast import spread_out


def test_what_all_have_in_common_is_taken_off() -> None:
    values = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1)).double() + 30
    valid = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    found = spread_out(values, valid)
    for k, count in enumerate((7, 4)):
        torch.testing.assert_close(found[k, :count].mean(0), torch.zeros(5).double(), atol=1e-9, rtol=0)
        torch.testing.assert_close(found[k, :count].square().mean(0), torch.ones(5).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(spread_out(values + 4, valid)[1], found[1])
    alone = spread_out(values, valid & (torch.arange(7) == 0))
    assert float(alone[:, 0].abs().max()) == 0
    assert bool(spread_out(values, valid & False).isfinite().all())
