from __future__ import annotations

import colorsys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perceive.build import build
from perceive.language.colours import ColourNames
from perceive.recolour import hue_of
from sensors.errors import SpecError
from sensors.instruction import to_bytes

HUES = {"red": 0.0, "yellow": 0.15, "green": 0.36, "blue": 0.61}


def said(*texts: str) -> Tensor:
    return torch.stack([torch.from_numpy(to_bytes(text, 64)) for text in texts])


def shown(*colours: str | tuple[float, float, float]) -> Tensor:
    rows = [colorsys.hsv_to_rgb(HUES[c], 0.9, 0.8) if isinstance(c, str) else c for c in colours]
    return torch.tensor(rows, dtype=torch.float32)[None]


def test_each_slot_scores_the_colour_that_is_named_there() -> None:
    names = ColourNames(HUES, slots=3)
    score = names(shown("red", "green", "blue", "yellow"), said("press the blue button, then the Red button"))
    assert score.shape == (1, 4, 3)
    torch.testing.assert_close(score[0, :, 2], torch.zeros(4))  # no third colour is named
    assert score[0, :, 0].argmax() == 2
    assert score[0, :, 1].argmax() == 0
    strong = score[0] > 0.5
    assert strong.sum() == 2, "only what is meant scores"


def test_a_word_is_a_whole_word_and_every_text_has_its_own_colours() -> None:
    names = ColourNames(HUES)
    score = names(shown("red").expand(3, -1, -1), said("a redder, bored block", "", "the red one"))
    assert score[:2].abs().sum() == 0
    assert score[2, 0, 0] > 0.9


@pytest.mark.parametrize("grey", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (0.03, 0.0, 0.0)])
def test_grey_and_dark_are_no_colour(grey: tuple[float, float, float]) -> None:
    assert ColourNames(HUES)(shown(grey), said("red green blue")).max() < 0.1


def test_a_shade_of_red_beyond_zero_is_red() -> None:
    rosy, orange = colorsys.hsv_to_rgb(0.98, 0.9, 0.9), colorsys.hsv_to_rgb(0.02, 0.9, 0.9)
    score = ColourNames(HUES)(shown(rosy, orange), said("red"))[0, :, 0]
    assert score.min() > 0.85
    torch.testing.assert_close(score[0], score[1], atol=1e-5, rtol=0)


@given(st.floats(0, 0.999), st.floats(0.05, 1), st.floats(0.05, 1))
def test_hues_are_those_of_the_textbook(hue: float, saturation: float, value: float) -> None:
    rgb = torch.tensor(colorsys.hsv_to_rgb(hue, saturation, value), dtype=torch.float64)
    found, brightest, chroma = hue_of(rgb)
    assert abs((float(found) - hue + 0.5) % 1 - 0.5) < 1e-6
    assert float(brightest) == pytest.approx(value)
    assert float(chroma) == pytest.approx(value * saturation)


def test_more_colours_than_slots_are_left_out() -> None:
    assert ColourNames(HUES, slots=1).named(said("red on blue")).tolist() == [[0.0]]


def test_it_is_built_from_plain_data() -> None:
    names = build({"_target_": "perceive.language.colours.ColourNames", "hues": HUES, "slots": 2, "spread": 0.1})
    assert isinstance(names, ColourNames)
    assert names(shown("red"), said("red"))[0, 0].tolist() == pytest.approx([0.99, 0.0], abs=0.02)


@pytest.mark.parametrize(
    ("hues", "slots", "spread"), [({}, 3, 0.05), ({"red": 1.0}, 3, 0.05), (HUES, 0, 0.05), (HUES, 1, 0.0)]
)
def test_what_cannot_be_is_refused(hues: dict[str, float], slots: int, spread: float) -> None:
    with pytest.raises(SpecError, match="ColourNames"):
        ColourNames(hues, slots, spread)


def test_pictures_that_are_not_flat_are_refused() -> None:
    with pytest.raises(SpecError, match="Flatten"):
        ColourNames(HUES)(torch.zeros(1, 4, 4, 3), said("red"))
