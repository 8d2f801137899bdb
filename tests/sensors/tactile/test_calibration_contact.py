"""The circle of a ball's contact: closed forms, rendered presses, and every picture that is of no use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray
from sensors.tactile import shapes
from sensors.tactile.calibration.circle import algebraic_circle, fit_circle
from sensors.tactile.calibration.contact import Contact, Reason, Refusal, Rgb, find_contact, noise_of
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.calibration.simulation import ball_places, balls, hidden_lamps, hidden_unit

DIGIT = TouchSettings("digit", 96, 120, 0.003)
UNIT = hidden_unit(DIGIT, hidden_lamps(np.random.default_rng(5)))
FLAT = np.mean(UNIT.film(torch.zeros(8, 120, 96), np.random.default_rng(6)), axis=0)


def on_circle(x: float, y: float, radius: float, angles: FloatArray) -> FloatArray:
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def seen(overlap_m: Tensor) -> Contact | Refusal:
    return find_contact(UNIT.film(overlap_m, np.random.default_rng(0))[0], FLAT, DIGIT)


# -------------------------------------------------------------------------------------------------------------- circle


@given(
    x=st.floats(-0.01, 0.01), y=st.floats(-0.01, 0.01), radius=st.floats(1e-4, 0.01), start=st.floats(0, 6),
    span=st.floats(1.0, 6.0), count=st.integers(3, 40),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_an_arc_gives_its_circle(x: float, y: float, radius: float, start: float, span: float, count: int) -> None:
    circle = algebraic_circle(on_circle(x, y, radius, start + np.linspace(0, span, count)))
    assert circle is not None
    np.testing.assert_allclose([circle.x_m, circle.y_m, circle.radius_m], [x, y, radius], atol=1e-5 * radius + 1e-12)


def test_half_of_the_points_may_be_elsewhere() -> None:
    rng = np.random.default_rng(0)
    good = on_circle(0.002, -0.001, 0.0015, rng.uniform(0, 2 * np.pi, 60)) + rng.normal(0, 2e-5, (60, 2))
    points = np.concatenate([good, rng.uniform(-0.005, 0.005, (60, 2))])
    found = fit_circle(points, 8e-5, rng)
    assert found is not None
    circle, on = found
    np.testing.assert_allclose([circle.x_m, circle.y_m, circle.radius_m], [0.002, -0.001, 0.0015], atol=1.5e-5)
    assert on[:60].mean() > 0.95
    assert on[60:].mean() < 0.2
    astray = algebraic_circle(points)
    assert astray is None or abs(astray.radius_m - 0.0015) > 1e-4, "the outliers do no harm: nothing was tested"


def test_a_line_and_few_points_are_no_circle() -> None:
    line = np.linspace(0, 1e-3, 20)[:, None] * [1.0, 2.0]
    assert algebraic_circle(line) is None
    assert algebraic_circle(np.zeros((5, 2))) is None
    assert fit_circle(line, 1e-5, np.random.default_rng(0)) is None
    assert fit_circle(line[:3], 1e-5, np.random.default_rng(0)) is None


# ------------------------------------------------------------------------------------------------------------- contact


@pytest.mark.parametrize(("model", "size"), [("digit", (96, 120)), ("gelsight_mini", (160, 120))])
def test_the_middle_is_found_to_a_tenth_of_a_pixel(model: str, size: tuple[int, int]) -> None:
    own = TouchSettings(model, *size, 0.003)
    rng = np.random.default_rng(1)
    unit = hidden_unit(own, hidden_lamps(rng), noise=2.0)
    background = np.mean(unit.film(torch.zeros(8, own.height, own.width), rng), axis=0)
    places = ball_places(own, 8, rng)
    off_px, ratios, rms_px = [], [], []
    for picture, depth, x, y in zip(unit.film(balls(own, places), rng), *places, strict=True):
        found = find_contact(picture, background, own)
        assert isinstance(found, Contact), found
        dy, dx = own.gel.pitch_m
        off_px.append([(found.circle.x_m - float(x)) / dx, (found.circle.y_m - float(y)) / dy])
        ratios.append(found.circle.radius_m / np.sqrt(0.003 * float(depth)))
        assert found.noise == pytest.approx(2.0, rel=0.3)
        rms_px.append(found.rms_m / dx)
    assert np.abs(off_px).max() < 0.2
    assert np.abs(off_px).mean() < 0.08
    assert np.mean(rms_px) < 0.16  # a crest is found between the samples
    # The gel leaves the ball at Hertz's radius, a little inside of which it is steepest after the last smoothing.
    assert 0.85 < np.mean(ratios) < 1.02
    assert np.std(ratios) < 0.02


def test_the_same_picture_gives_the_same_circle() -> None:
    ball = shapes.sphere(DIGIT.gel, 0.003, 8e-4, 1e-3)
    one, two = seen(ball), seen(ball)
    assert isinstance(one, Contact)
    assert isinstance(two, Contact)
    assert one.circle == two.circle


def test_every_picture_of_no_use_says_why() -> None:
    gel, radius = DIGIT.gel, DIGIT.ball_radius_m
    ball = shapes.sphere(gel, radius, 8e-4)
    beside = (-4e-3, 6e-3)
    cases = [
        (Reason.NO_CONTACT, torch.zeros_like(ball)),
        (Reason.CUT, shapes.sphere(gel, radius, 8e-4, gel.width_m / 2 - 5e-4)),
        (Reason.CUT, shapes.sphere(gel, radius, 8e-4, 0.0, gel.height_m / 2 - 1.3e-3)),  # by a little
        (Reason.SEVERAL, ball + shapes.sphere(gel, radius, 7e-4, *beside)),
        (Reason.SEVERAL, ball + shapes.sphere(gel, 0.006, 4.5e-4, *beside)),  # less steep
        (Reason.NOT_ROUND, shapes.box(gel, 0.009, 0.002, 5e-4, 0.6)),
        (Reason.TOO_SMALL, shapes.sphere(gel, 3e-4, 2e-4)),
        (Reason.TOO_DEEP, shapes.sphere(gel, 0.008, 1.5e-3)),
    ]
    for reason, overlap in cases:
        found = seen(overlap)
        assert isinstance(found, Refusal), reason
        assert found.reason is reason, found
        assert found.said
    assert isinstance(seen(ball), Contact)
    assert isinstance(seen(ball + shapes.sphere(gel, 4e-4, 3e-4, *beside)), Contact)  # a grain far away does no harm


def bright(picture: Rgb) -> Rgb:
    return np.clip(picture.astype(int) * 3, 0, 255).astype(np.uint8)


def test_pictures_without_light_or_with_too_much() -> None:
    picture = UNIT.film(shapes.sphere(DIGIT.gel, 0.003, 8e-4), np.random.default_rng(0))[0]
    for wrong, reason in (
        (np.full_like(picture, 255), Reason.SATURATED),
        (bright(picture), Reason.SATURATED),
        (np.where(picture > np.median(picture), picture, 0).astype(np.uint8), Reason.SATURATED),
        (np.zeros_like(picture), Reason.BLACK),
    ):
        found = find_contact(wrong, FLAT, DIGIT)
        assert isinstance(found, Refusal)
        assert found.reason is reason
    # A corner that is white when nothing touches it does not count.
    glare = FLAT.copy()
    glare[:30, :30] = 255
    shown = picture.copy()
    shown[:30, :30] = 255
    assert isinstance(find_contact(shown, glare, DIGIT), Contact)


def test_another_size_is_an_error() -> None:
    picture = UNIT.film(torch.zeros(1, 120, 96), np.random.default_rng(0))[0]
    with pytest.raises(DataError, match=r"\[120, 96, 3\]"):
        find_contact(picture[:100], FLAT, DIGIT)
    with pytest.raises(DataError, match="background"):
        find_contact(picture, FLAT[:100], DIGIT)
    with pytest.raises(DataError, match="float64"):
        find_contact(picture.astype(float), FLAT, DIGIT)


def test_noise_is_that_of_the_pixels_not_of_the_contact() -> None:
    rng = np.random.default_rng(2)
    smooth = 40 * np.sin(np.arange(96) / 9)[None, :, None] * np.cos(np.arange(120) / 11)[:, None, None]
    for std in (1.0, 4.0):
        assert noise_of(smooth + rng.normal(0, std, (120, 96, 3))) == pytest.approx(std, rel=0.06)
    assert noise_of(smooth) == pytest.approx(12**-0.5, rel=0.3)


@pytest.mark.parametrize(
    "wrong", [{"width": 3}, {"ball_radius_m": 3.0}, {"ball_radius_m": 0.0}, {"inner": 1.5}, {"size_m": (0.0, 1.0)}],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        TouchSettings(**({"model": "digit", "width": 96, "height": 120, "ball_radius_m": 0.003} | wrong))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="digit"):
        TouchSettings("digt", 96, 120, 0.003)
