"""Colours fitted to presses: every pixel counts, nothing is left empty, strangers are left out, files come back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sensors.errors import DataError, SpecError
from sensors.tactile import shapes
from sensors.tactile.calibration.bin_fit import fit_bins
from sensors.tactile.calibration.calibrate import Calibrated, calibrate_touch
from sensors.tactile.calibration.drawing import draw_calibration, draw_refit
from sensors.tactile.calibration.result import TouchCalibration
from sensors.tactile.calibration.samples import Samples, place_of
from sensors.tactile.calibration.session import Session, read_folder, write_folder
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.calibration.simulation import HiddenUnit, ball_places, balls, hidden_lamps, hidden_unit
from sensors.tactile.calibration.spline_fit import angles, fit_splines
from sensors.tactile.calibration.summary import refit_summary, touch_summary
from sensors.tactile.calibration.unit import refit
from sensors.tactile.gel import Gel
from sensors.tactile.presets import preset_optics
from sensors.tactile.table import ColourTable, TableColour

DIGIT = TouchSettings("digit", 96, 120, 0.003)
LAMPS = hidden_lamps(np.random.default_rng(5))


def session_of(unit: HiddenUnit, presses: int, seed: int = 1) -> Session:
    rng = np.random.default_rng(seed)
    background = np.mean(unit.film(torch.zeros(12, 120, 96), rng), axis=0).astype(np.float32)
    pictures = unit.film(balls(DIGIT, ball_places(DIGIT, presses, rng)), rng) if presses else []
    names = tuple(f"press_{number:04d}.png" for number in range(presses))
    return Session(background, tuple(pictures), names, noise=unit.noise)


def error_on_new_presses(unit: HiddenUnit, found: TouchCalibration) -> float:
    """Grey values, where the gel is touched."""
    overlap = balls(DIGIT, ball_places(DIGIT, 4, np.random.default_rng(99)))
    with torch.no_grad():
        off = found.optics(120, 96)(overlap) - unit.seen(overlap)
    return float(off.abs()[overlap > 0].mean())


@pytest.fixture(scope="module")
def unit() -> HiddenUnit:
    return hidden_unit(DIGIT, LAMPS)


@pytest.fixture(scope="module")
def session(unit: HiddenUnit) -> Session:
    return session_of(unit, 14)


@pytest.fixture(scope="module")
def found(session: Session) -> Calibrated:
    return calibrate_touch(session, DIGIT)


# ----------------------------------------------------------------------------------------------------------------- fit


def smooth_samples(rng: np.random.Generator, count: int) -> Samples:
    """Colours that are linear in the tilt, and for each tilt a polynomial of the place."""
    tilt = rng.uniform(-0.25, 0.25, (count, 2))
    size = np.hypot(tilt[:, 0], tilt[:, 1])[:, None]
    slope = tilt * np.tan(size) / np.maximum(size, 1e-9)
    place = rng.uniform(-1, 1, (count, 2))
    x, y = place.T
    change = np.stack(
        [
            100 * tilt[:, 0] * (1 + 0.2 * x + 0.15 * x * x - 0.1 * y * y),
            -80 * tilt[:, 1] * (1 + 0.1 * x * y),
            60 * (tilt[:, 0] + tilt[:, 1]),
        ],
        axis=1,
    )  # fmt: skip
    return Samples(slope, place, change)


def test_what_the_splines_can_say_they_learn_and_the_table_says_it_too() -> None:
    rng = np.random.default_rng(0)
    colours = fit_splines([smooth_samples(rng, 4000) for _ in range(2)], leave_out=False).colours
    new = smooth_samples(rng, 300)
    inside = np.hypot(*angles(new.slope).T) < 0.95 * colours.steepest_rad
    assert np.abs(colours.colours(new.slope, new.place) - new.change)[inside].mean() < 0.3
    assert np.abs(new.change).mean() > 6
    gel = Gel(0.02, 0.016, 0.003, 20, 16)
    look = TableColour(colours.table(20, 16), gel, "linear")
    slope = torch.tensor([[0.25, -0.1], [-0.15, 0.2], [0.0, 0.1]], dtype=torch.float64)
    for row, column in ((0, 0), (19, 15), (7, 3)):
        place = place_of(np.array([[column, row]], float), gel).repeat(3, axis=0)
        expected = colours.colours(slope.numpy(), place)
        for number in range(3):
            along = (slope[number, axis].expand(1, 20, 16) for axis in (0, 1))
            got = look(*along)[0, :, row, column].numpy()
            np.testing.assert_allclose(got, expected[number], atol=0.15)


def test_an_untouched_gel_stays_and_steep_slopes_stay_sane() -> None:
    samples = smooth_samples(np.random.default_rng(0), 3000)
    shifted = fit_splines([replace(samples, change=samples.change + 4.0)], leave_out=False).colours
    corners = np.array([[x, y] for x in (-0.9, 0.9) for y in (-0.9, 0.9)])
    assert np.abs(shifted.colours(np.zeros((4, 2)), corners)).max() < 1.0
    colours = fit_splines([samples], leave_out=False).colours
    table = colours.table(20, 16)
    assert not table.coefficients[0].any()
    look = TableColour(table, Gel(0.02, 0.016, 0.003, 20, 16), "linear")
    assert not look(torch.zeros(1, 20, 16), torch.zeros(1, 20, 16)).any()
    walls = look(torch.full((1, 20, 16), 30.0), torch.full((1, 20, 16), -50.0))
    assert float(walls.abs().max()) < 1.8 * 100 * 0.36  # the presses' steepest, and a few degrees more
    # They are steeper in the same direction.
    towards = np.array([[math.cos(0.3), math.sin(0.3)]])
    steep, steeper = (colours.colours(towards * math.tan(tilt), np.zeros((1, 2))) for tilt in (0.8, 1.4))
    np.testing.assert_allclose(steep, steeper, atol=0.5)
    assert steep[0, 0] / -steep[0, 1] == pytest.approx(100 / 80 / math.tan(0.3), rel=0.1)


def test_dust_counts_less() -> None:
    rng = np.random.default_rng(0)
    clean = smooth_samples(rng, 6000)
    dirty = replace(clean, change=clean.change + np.where(rng.random(6000) < 0.05, 80.0, 0.0)[:, None])
    new = smooth_samples(rng, 300)
    off = []
    for samples in (clean, dirty):
        colours = fit_splines([samples], leave_out=False).colours
        off.append(np.abs(colours.colours(new.slope, new.place) - new.change).mean())
    assert off[1] < off[0] + 0.8  # their mean is 4


def test_left_out_is_left_out() -> None:
    rng = np.random.default_rng(3)
    presses = [smooth_samples(rng, 1500) for _ in range(4)]
    presses[2] = replace(presses[2], change=presses[2].change + 6.0)
    fit = fit_splines(presses)
    by_hand = fit_splines(presses[:2] + presses[3:], leave_out=False).colours
    expected = np.abs(by_hand.colours(presses[2].slope, presses[2].place) - presses[2].change).mean()
    assert fit.left_out[2] == pytest.approx(expected, rel=0.05)
    within = np.abs(fit.colours.colours(presses[2].slope, presses[2].place) - presses[2].change).mean()
    assert expected > within + 0.5, "the press was in the fit that judged it"


def test_every_pixel_of_a_bin_counts() -> None:
    """NumPy's += with repeated indices would keep one of them."""
    slope = np.full((40, 2), [0.2, 0.1])
    place = np.random.default_rng(0).uniform(-1, 1, (40, 2))
    change = np.repeat(np.arange(40.0)[:, None], 3, axis=1)
    table = fit_bins([Samples(slope, place, change)], 20, 16)
    look = TableColour(table, Gel(0.02, 0.016, 0.003, 20, 16), "nearest")
    middle = look(torch.full((1, 20, 16), 0.2), torch.full((1, 20, 16), 0.1))[0, :, 10, 8]
    assert float(middle.mean()) == pytest.approx(19.5, abs=6)


def test_empty_bins_have_what_the_nearest_has_also_across_the_seam_of_directions() -> None:
    place, ones = np.zeros((30, 2)), np.ones((30, 3))
    before_pi = Samples(np.full((30, 2), [-0.2, 0.01]), place, 10 * ones)
    at_zero = Samples(np.full((30, 2), [0.2, 0.0]), place, 50 * ones)
    look = TableColour(fit_bins([before_pi, at_zero], 20, 16), Gel(0.02, 0.016, 0.003, 20, 16), "nearest")
    for (x, y), expected in (((-0.2, -0.05), 10.0), ((0.2, -0.05), 50.0), ((0.5, 0.05), 50.0)):
        got = look(torch.full((1, 20, 16), x), torch.full((1, 20, 16), y))[0, :, 10, 8]
        torch.testing.assert_close(got, torch.full((3,), expected), rtol=0.02, atol=0.1)


def test_too_few_pixels_are_refused() -> None:
    with pytest.raises(DataError, match="500 pixels"):
        fit_splines([smooth_samples(np.random.default_rng(0), 100)])


# ----------------------------------------------------------------------------------------------------------- calibrate


def test_a_hidden_fingertip_is_found(unit: HiddenUnit, found: Calibrated) -> None:
    assert len(found.used) == 14
    errors = [press.left_out for press in found.used]
    assert max(errors) < 5
    assert np.mean(errors) < 2.2  # of which noise of 1.5 is 1.2
    off = error_on_new_presses(unit, found.calibration)
    assert off < 1.5
    # A preset in its place is what it would be without calibration.
    stranger = preset_optics("digit", 120, 96, table="linear")
    assert isinstance(stranger.colour, TableColour)
    overlap = balls(DIGIT, ball_places(DIGIT, 4, np.random.default_rng(99)))
    with torch.no_grad():
        change = stranger(overlap) - stranger.background.permute(1, 2, 0)
        known = unit.seen(overlap) - unit.seen(overlap * 0)
    assert float((change - known).abs()[overlap > 0].mean()) > 5 * off


def test_splines_do_better_than_bins(unit: HiddenUnit, session: Session, found: Calibrated) -> None:
    from sensors.tactile.calibration.contact import Contact, find_contact
    from sensors.tactile.calibration.samples import press_samples

    samples = []
    for picture in session.presses:
        contact = find_contact(picture, session.background, DIGIT)
        assert isinstance(contact, Contact)
        samples.append(press_samples(picture, session.background, contact, DIGIT))
    bins = replace(found.calibration, table=fit_bins(samples, 120, 96))
    assert error_on_new_presses(unit, found.calibration) < 0.7 * error_on_new_presses(unit, bins)


def test_a_camera_that_is_not_linear_is_calibrated_too() -> None:
    """Nothing of how the pictures are rendered is known to the fit: gamma and vignette are none of its terms."""
    odd = hidden_unit(DIGIT, LAMPS, gamma=0.75, vignette=0.3)
    found = calibrate_touch(session_of(odd, 14), DIGIT)
    assert error_on_new_presses(odd, found.calibration) < 2.0


def test_strangers_are_named_and_left_out(unit: HiddenUnit, session: Session) -> None:
    rng = np.random.default_rng(4)
    other = shapes.sphere(DIGIT.gel, 0.0055, 6e-4, 1e-3, 2e-3)  # another ball
    nothing = torch.zeros_like(other)
    strangers = (*unit.film(torch.cat([other, nothing]), rng), np.zeros((120, 96, 3), np.uint8))
    mixed = replace(
        session, presses=(*session.presses[:9], *strangers), names=(*session.names[:9], "other", "nothing", "dark")
    )
    found = calibrate_touch(mixed, DIGIT)
    assert {press.name for press in found.presses if press.refusal} == {"other", "nothing", "dark"}
    assert found.refused == {"unlike the others": 1, "no contact": 1, "black": 1}
    said = touch_summary(found)
    assert "9 of 12 presses" in said
    assert "'other': unlike the others" in said
    assert "9 presses were used" in said
    picture = draw_calibration(found, mixed)
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 960
    with pytest.raises(DataError, match=r"3 of 5 \(1 no contact, 1 black"):
        calibrate_touch(replace(mixed, presses=mixed.presses[-5:], names=mixed.names[-5:]), DIGIT)


def test_dead_pixels_are_found(session: Session) -> None:
    background = session.background.copy()
    background[40, 50] = (255, 0, 255)
    presses = [picture.copy() for picture in session.presses]
    for picture in presses:
        picture[10:12, 10:12] = 90  # always the same
    bad = replace(session, background=background, presses=tuple(presses)).dead()
    assert set(zip(*np.nonzero(bad), strict=True)) == {(40, 50), (10, 10), (10, 11), (11, 10), (11, 11)}
    assert not session.dead().any()


# -------------------------------------------------------------------------------------------------------- another unit


def test_another_unit_by_its_untouched_gel(found: Calibrated) -> None:
    gain = (1.25, 0.8, 1.1)
    other = hidden_unit(DIGIT, LAMPS, gain=gain, tint=0.05)
    dark = replace(session_of(other, 0), stray=(50.0, 50.0, 50.0))
    known = replace(found.calibration, stray=(50.0, 50.0, 50.0))
    after = refit(known, dark)
    np.testing.assert_allclose(after.gain, gain, rtol=0.03)
    before = error_on_new_presses(other, found.calibration)
    only_background = error_on_new_presses(other, replace(found.calibration, background=dark.background))
    right = error_on_new_presses(other, after)
    assert before > 8
    assert right < 1.5
    assert right < 0.6 * only_background
    # Without a picture in the dark the gain is nearer to 1 than it is, but better than none.
    blind = refit(found.calibration, session_of(other, 0))
    assert right < error_on_new_presses(other, blind) < only_background
    assert refit(after, dark).gain == pytest.approx(after.gain)  # twice is once
    assert "1.2" in refit_summary(known, after)
    assert draw_refit(after, known).shape[1] == 640


def test_a_unit_that_cannot_be_is_refused(found: Calibrated, session: Session) -> None:
    for background, said in (
        (np.zeros((120, 96, 3), np.float32), "light in 0 %"),
        (np.full((120, 96, 3), 255, np.float32), "light in 0 %"),
        (np.full((100, 96, 3), 90, np.float32), r"\[100, 96, 3\]"),
        (session.background * np.float32(0.1), "times"),
    ):
        with pytest.raises(DataError, match=said):
            refit(found.calibration, replace(session, background=background))


# --------------------------------------------------------------------------------------------------------------- files


def test_a_calibration_is_one_file_that_optics_and_readers_load(found: Calibrated, tmp_path: Path) -> None:
    found.calibration.save(tmp_path / "one" / "touch.npz")
    again = TouchCalibration.load(tmp_path / "one" / "touch.npz")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["touch.json", "touch.npz"]
    np.testing.assert_array_equal(again.table.coefficients, found.calibration.table.coefficients)
    np.testing.assert_array_equal(again.background, found.calibration.background)
    assert (again.gel, again.gain, again.noise) == (found.calibration.gel, (1.0, 1.0, 1.0), found.calibration.noise)
    assert again.details == json.loads(json.dumps(dict(found.calibration.details)))
    assert json.loads((tmp_path / "one" / "touch.json").read_text())["model"] == "digit"
    table = ColourTable.load(tmp_path / "one" / "touch.npz")  # whatever takes a table takes it
    np.testing.assert_array_equal(table.coefficients, again.table.coefficients)
    overlap = balls(DIGIT, ball_places(DIGIT, 1, np.random.default_rng(0)))
    assert again.optics(120, 96).picture(overlap).equal(found.calibration.optics(120, 96).picture(overlap))
    small = again.optics(60, 48)
    assert small.picture(torch.zeros(1, 60, 48)).shape == (1, 60, 48, 3)
    assert again.reader().gel == again.gel


def test_what_is_no_calibration_is_refused(found: Calibrated, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="npz"):
        found.calibration.save(tmp_path / "touch.safetensors")
    (tmp_path / "text.npz").write_text("none")
    found.calibration.table.save(tmp_path / "table.npz")  # a table alone has no background
    for name in ("absent.npz", "text.npz", "table.npz"):
        with pytest.raises(DataError, match=name):
            TouchCalibration.load(tmp_path / name)
    with pytest.raises(SpecError, match="120 x 96"):
        replace(found.calibration, background=found.calibration.background[1:])


def test_a_folder_comes_back(session: Session, tmp_path: Path) -> None:
    dark = replace(session, stray=(9.0, 5.0, 7.0))
    write_folder(tmp_path / "f", dark)
    again = read_folder(tmp_path / "f", DIGIT)
    assert again.names == session.names
    assert again.stray == (9.0, 5.0, 7.0)
    assert np.abs(again.background - session.background).max() <= 0.5
    for one, other in zip(again.presses, session.presses, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.noise == pytest.approx(1.5 / math.sqrt(2), rel=0.2)  # the background's is that of twelve


def test_a_folder_that_is_not_complete_says_what_is_missing(session: Session, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Check the path"):
        read_folder(tmp_path / "absent", DIGIT)
    write_folder(tmp_path / "f", session)
    (tmp_path / "f" / "background.png").rename(tmp_path / "f" / "flat.png")
    with pytest.raises(DataError, match=r"background\.png"):
        read_folder(tmp_path / "f", DIGIT)
    (tmp_path / "f" / "flat.png").rename(tmp_path / "f" / "background.png")
    with pytest.raises(DataError, match=r"background\.png.*\[100, 80, 3\]"):
        read_folder(tmp_path / "f", replace(DIGIT, width=80, height=100))
    (tmp_path / "f" / "press_0003.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"press_0003\.png.*decoded"):
        read_folder(tmp_path / "f", DIGIT)
