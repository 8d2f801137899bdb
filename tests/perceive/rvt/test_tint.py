"""Tint: a scale and a shift of channels, from proprioception and from words in their places."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perceive.rvt.tint import LOOK_UPS, Tint

B, L, E, P, D = 2, 5, 6, 4, 8


def made() -> tuple[Tint, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    valid = torch.ones(B, L, dtype=torch.bool)
    valid[1, 3:] = False
    return Tint(P, E, D), torch.randn(B, 3, 7, D), torch.randn(B, P), torch.randn(B, L, E), valid


def test_it_is_the_scale_and_shift_of_its_layers() -> None:
    tint, patches, proprio, language, valid = made()
    with torch.no_grad():
        got = tint(patches, proprio, language, valid)
        for b in range(B):
            words = language[b, valid[b]]
            share = tint.look_up(words).softmax(0)
            heard = torch.cat([(share[:, k, None] * tint.word(words)).sum(0) for k in range(LOOK_UPS)])
            both = tint.mix(tint.state(proprio[b]) + tint.phrase(heard))
            torch.testing.assert_close(got[b], patches[b] * (1 + both[:D]) + both[D:])


def test_layers_of_zeros_change_nothing() -> None:
    tint, patches, proprio, language, valid = made()
    last = tint.mix[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    assert torch.equal(tint(patches, proprio, language, valid), patches)


def test_what_is_not_valid_is_never_read_and_silence_is_allowed() -> None:
    tint, patches, proprio, language, valid = made()
    expected = tint(patches, proprio, language, valid)
    language[1, 3:] = math.nan
    assert torch.equal(tint(patches, proprio, language, valid), expected)
    silent = tint(patches, proprio, language, torch.zeros_like(valid))
    assert bool(silent.isfinite().all())
    assert bool(tint(patches, proprio, language[:, :0], valid[:, :0]).isfinite().all())
    assert not torch.allclose(silent, expected)


def test_samples_do_not_meet() -> None:
    tint, patches, proprio, language, valid = made()
    both = tint(patches, proprio, language, valid)
    alone = tint(patches[:1], proprio[:1], language[:1], valid[:1])
    torch.testing.assert_close(both[:1], alone)
