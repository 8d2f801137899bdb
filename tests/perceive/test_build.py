"""build: parts that are made later, with what is not known yet."""

from __future__ import annotations

from functools import partial

import pytest

from perceive.build import build
from perceive.rvt.tint import Tint
from sensors.errors import WiringError

TINT = {"_target_": "perceive.rvt.tint.Tint", "proprio": 4, "language_width": 6}


def test_a_partial_target_takes_the_rest_later() -> None:
    later = build({**TINT, "_partial_": True})
    assert isinstance(later, partial)
    made = later(width=8)
    assert isinstance(made, Tint)
    assert made.state.in_features == 4
    assert made.state.out_features == 8


def test_a_partial_target_still_knows_its_arguments() -> None:
    with pytest.raises(WiringError, match="'language_width'"):
        build({**TINT, "_partial_": True, "language_with": 3})


def test_what_is_missing_is_named_unless_it_is_partial() -> None:
    with pytest.raises(WiringError, match="a value for 'width'"):
        build({**TINT, "_partial_": False})
