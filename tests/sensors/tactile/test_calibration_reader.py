"""Depth read back from pictures: closed forms, balls and other shapes, dead pixels; and presses taken one by one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import GelImageFrame
from sensors.live import Captured, Device
from sensors.spec import box
from sensors.tactile import shapes
from sensors.tactile.calibration.capture import capture_presses, device_pictures, film
from sensors.tactile.calibration.contact import Contact, Rgb, find_contact
from sensors.tactile.calibration.fill import fill
from sensors.tactile.calibration.inverse import Regressor, TableSearch
from sensors.tactile.calibration.reader import GelReader, Reading, Way
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.calibration.simulation import balls, hidden_lamps, hidden_unit
from sensors.tactile.gel import Gel
from sensors.tactile.slopes import normals, slopes
from sensors.tactile.table import ColourTable, TableColour
from tests.sensors.films import write_film

DIGIT = TouchSettings("digit", 96, 120, 0.003)
GEL = DIGIT.gel
UNIT = hidden_unit(DIGIT, hidden_lamps(np.random.default_rng(5)))
TABLE = ColourTable.from_light(UNIT.optics.colour, rows=120, columns=96)  # type: ignore[arg-type]
FLAT = UNIT.seen(torch.zeros(1, 120, 96))[0].numpy()
THINGS = {
    "ball": shapes.sphere(GEL, 0.003, 7e-4, 1e-3, -2e-3),
    "cylinder": shapes.cylinder(GEL, 0.003, 5e-4, 0.5),
    "punch": shapes.punch(GEL, 0.0025, 3e-4),
}


def read(overlap_m: Tensor, way: Way = "search", **given: Any) -> Reading:
    reader = GelReader(TABLE, FLAT, GEL, UNIT.noise, way=way, **given)
    return reader.read(np.stack(UNIT.film(overlap_m, np.random.default_rng(0))))


def share_off(reading: Reading, overlap_m: Tensor) -> float:
    """Root mean square of the error of the depth, as a share of the depth."""
    face = UNIT.face_m(overlap_m)
    return float((reading.depth_m - face).square().mean().sqrt() / face.max())


# --------------------------------------------------------------------------------------------------------------- slopes


def test_colours_without_noise_give_their_slopes_exactly() -> None:
    """Also the polynomials of the place: the same slope has another colour everywhere."""
    torch.manual_seed(0)
    tilt, direction = torch.rand(1, 120, 96) * math.radians(35), torch.rand(1, 120, 96) * 2 * math.pi
    along_x, along_y = tilt.tan() * direction.cos(), tilt.tan() * direction.sin()
    change = TableColour(TABLE, GEL, "linear")(along_x, along_y)
    found = TableSearch(TABLE, GEL, 0.3)(change)
    off = torch.hypot(found[:, 0] - along_x, found[:, 1] - along_y)
    assert float(off.flatten().quantile(0.99)) < 0.005
    assert float((off > 0.1).float().mean()) < 0.001  # at a place where lights cancel, another slope may look the same
    assert not TableSearch(TABLE, GEL, 1.5)(torch.zeros(1, 3, 120, 96)).abs().gt(1e-3).any()


def test_a_regressor_comes_near_and_is_the_lesser_way() -> None:
    along_x, along_y = slopes(UNIT.face_m(THINGS["ball"]), GEL)
    change = TableColour(TABLE, GEL, "linear")(along_x, along_y)
    off = [
        float(torch.hypot(found[:, 0] - along_x, found[:, 1] - along_y).mean())
        for found in (TableSearch(TABLE, GEL, 1.0)(change), Regressor(TABLE, GEL, 1.0)(change))
    ]
    assert off[0] < 0.5 * off[1]
    assert off[1] < 0.02


# ---------------------------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize(("way", "most"), [("search", 0.02), ("regressor", 0.08)])
@pytest.mark.parametrize("name", THINGS)
def test_depth_and_normals_come_back(name: str, way: Way, most: float) -> None:
    overlap = THINGS[name]
    found = read(overlap, way)
    assert share_off(found, overlap) < most
    known = normals(*slopes(UNIT.face_m(overlap), GEL))
    off_deg = torch.rad2deg((known * found.normals).sum(dim=1).clamp(-1, 1).acos())
    assert float(off_deg[overlap > 0].mean()) < 2.5
    assert float(found.depth_m[0, :4].median().abs()) < 1.2 * most * float(found.depth_m.max())
    assert found.good.all()


def test_another_place_needs_the_place() -> None:
    """With the colours of the middle everywhere the depth is wrong: the lights fall off."""
    overlap = shapes.sphere(GEL, 0.003, 7e-4, 5e-3, 6e-3)
    evenly = TABLE.coefficients.copy()
    middle = np.array([48.0**2, 60.0**2, 48 * 60, 48.0, 60.0, 1.0])
    evenly[..., 5] = evenly @ middle
    evenly[..., :5] = 0
    plain = GelReader(ColourTable(evenly, 120, 96), FLAT, GEL, UNIT.noise)
    there = plain.read(np.stack(UNIT.film(overlap, np.random.default_rng(0))))
    assert share_off(read(overlap), overlap) < 0.5 * share_off(there, overlap)


def test_dead_pixels_are_masked_and_filled() -> None:
    overlap = THINGS["ball"]
    pictures = np.stack(UNIT.film(overlap, np.random.default_rng(0)))
    dead = np.zeros((120, 96), bool)
    dead[46:50, 50:56] = True
    pictures[:, dead] = (255, 0, 30)
    blind = GelReader(TABLE, FLAT, GEL, UNIT.noise)
    aware = GelReader(TABLE, FLAT, GEL, UNIT.noise, dead)
    found = aware.read(pictures)
    assert torch.equal(found.good[0], torch.tensor(~dead))
    assert share_off(found, overlap) < 0.02
    assert share_off(blind.read(pictures), overlap) > 2 * share_off(found, overlap)
    # What is clipped in every colour needs no mask.
    pictures[:, dead] = 0
    assert torch.equal(blind.read(pictures).good[0], torch.tensor(~dead))


def test_a_hole_in_a_slope_is_filled_with_the_slope() -> None:
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(30.0), indexing="ij")
    ramp = (0.01 * x - 0.02 * y)[None, None]
    good = torch.ones(1, 24, 30, dtype=torch.bool)
    good[:, 10:14, 12:17] = False
    good[:, 3, 3] = False
    broken = torch.where(good[:, None], ramp, torch.full_like(ramp, math.nan))
    filled = fill(broken, good)
    assert float((filled - ramp).abs().max()) < 0.01
    assert fill(ramp, torch.ones_like(good)) is ramp
    assert torch.isfinite(fill(broken, torch.zeros_like(good))).all()  # nothing to go by: flat


def test_wrong_pictures_and_settings_are_refused() -> None:
    reader = GelReader(TABLE, FLAT, GEL)
    for wrong in (np.zeros((96, 120, 3), np.uint8), np.zeros((120, 96, 3), float)):
        with pytest.raises(SpecError, match=r"120, 96, 3"):
            reader.read(wrong)
    with pytest.raises(SpecError, match="background"):
        GelReader(TABLE, FLAT[1:], GEL)
    with pytest.raises(SpecError, match="way"):
        GelReader(TABLE, FLAT, GEL, way="guess")  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------------- capture

PLACES = [(-4e-3, -5e-3), (4e-3, -5e-3), (0.0, 0.0), (-4e-3, 5e-3), (4e-3, 5e-3), (0.0, 6e-3), (-3e-3, 0.0)]


def shown() -> dict[str, list[Rgb]]:
    """Pictures of the untouched gel, and two of a ball at rest at each place."""
    rng = np.random.default_rng(0)
    x, y = torch.tensor(PLACES).T
    overlap = balls(DIGIT, (torch.full((len(PLACES),), 8e-4), x, y))
    return {
        "flat": UNIT.film(torch.zeros(14, 120, 96), rng),
        "first": UNIT.film(overlap, rng),
        "second": UNIT.film(overlap, rng),
    }


SHOWN = shown()


def script(*, presses: int = len(PLACES)) -> list[Rgb | None]:
    out: list[Rgb | None] = [None, *SHOWN["flat"][:12]]
    for number in range(presses):
        out += [SHOWN["first"][number], SHOWN["second"][number], SHOWN["second"][number], None, SHOWN["flat"][12]]
    return out


def test_presses_are_taken_at_rest_and_where_none_was() -> None:
    moving: list[Rgb | None] = [SHOWN["first"][2], SHOWN["first"][3], SHOWN["first"][4]]
    pictures = [*script(presses=3), *moving, *script(presses=3)[13:], *script()[13 + 3 * 5 :]]
    said: list[str] = []
    session = capture_presses(iter(pictures), DIGIT, 7, report=said.append)
    assert session.names == tuple(f"press_{number:04d}.png" for number in range(7))
    for press, (x, y) in zip(session.presses, PLACES, strict=True):
        found = find_contact(press, session.background, DIGIT)
        assert isinstance(found, Contact)
        np.testing.assert_allclose([found.circle.x_m, found.circle.y_m], [x, y], atol=5e-5)
    np.testing.assert_allclose(session.background, np.mean(SHOWN["flat"][:12], axis=0), atol=1e-4)
    assert session.noise == pytest.approx(1.5, rel=0.15)
    assert said[0].startswith("touch nothing")
    assert said[1].startswith("press the ball, 7 times")
    assert [line.split(":")[0] for line in said[2:]] == [f"press {number} of 7" for number in range(1, 8)]


def test_a_film_that_ends_early_will_do_or_says_what_is_missing() -> None:
    said: list[str] = []
    session = capture_presses(iter(script()), DIGIT, 20, report=said.append)
    assert len(session.presses) == 7
    assert said[-1] == "the pictures ended after 7 presses"
    black: list[Rgb | None] = [np.zeros((120, 96, 3), np.uint8)]
    with pytest.raises(
        SensorError, match=r"3 when the pictures ended \(1 pictures where one was before, 1 pictures black"
    ):
        capture_presses(iter([*script(presses=3), SHOWN["first"][0], SHOWN["second"][0], *black]), DIGIT, 20)
    with pytest.raises(SensorError, match="12 pictures of the untouched gel; got 4"):
        capture_presses(iter(SHOWN["flat"][:4]), DIGIT, 20)


def test_a_gel_that_is_touched_at_first_is_refused_and_waiting_ends() -> None:
    held = [*SHOWN["flat"][:5], np.roll(SHOWN["first"][2], 40, axis=0) // 2]
    with pytest.raises(SensorError, match="one that changed"):
        capture_presses(iter(held), DIGIT, 5)

    def endless() -> Iterator[Rgb | None]:
        yield from SHOWN["flat"][:12]
        while True:
            time.sleep(0.01)
            yield None

    with pytest.raises(SensorError, match=r"0 when no new press within 0\.2 s"):
        capture_presses(endless(), DIGIT, 5, timeout_s=0.2)
    assert len(capture_presses(endless(), DIGIT, 0, timeout_s=5.0).presses) == 0  # the background only


@final
class ScriptedGel(Device):
    """Shows a script and is unplugged then."""

    def __init__(self, pictures: list[Rgb | None]) -> None:
        self._pictures = pictures
        self.is_open = False

    @property
    def space(self) -> spaces.Dict:
        return spaces.Dict({"rgb": box(0, 255, (120, 96, 3), np.uint8)})

    @property
    def counts(self) -> dict[str, int]:
        return {}

    def open(self) -> None:
        self.is_open = True

    def wait(self, timeout_s: float) -> Captured | None:
        if not self._pictures:
            raise SensorLost("gel", "a picture", "none", "Plug it in.")
        rgb = self._pictures.pop(0)
        if rgb is None:
            return None
        frame = GelImageFrame(stamp_s=0.0, rgb=rgb, base_from_pad=np.eye(4), size_m=np.array([0.02, 0.016]))
        return Captured(frame, 0.0, device_clock=False)

    def close(self) -> None:
        self.is_open = False


def test_a_device_is_opened_and_closed_again() -> None:
    device = ScriptedGel(script())
    session = capture_presses(device_pictures(device), DIGIT, 20)
    assert len(session.presses) == 7
    assert not device.is_open
    device = ScriptedGel(script())
    source = device_pictures(device)
    capture_presses(source, DIGIT, 6)
    source.close()
    assert not device.is_open


def test_a_film_of_the_bare_camera_is_turned_and_scaled_as_the_device_does(tmp_path: Path) -> None:
    """A DIGIT lies on its side: its sensor sees 320 x 240."""

    def bare(picture: Rgb) -> Rgb:
        large = np.asarray(np.rot90(picture, -1))
        return np.ascontiguousarray(large.repeat(2, axis=0).repeat(2, axis=1)[:192, :240])

    own = TouchSettings("digit", 96, 120, 0.003)
    padded = [np.ascontiguousarray(bare(picture)) for picture in script() if picture is not None]
    scaled = [np.asarray(np.pad(each, ((0, 48), (0, 80), (0, 0)), mode="edge")) for each in padded]
    assert scaled[0].shape == (240, 320, 3)
    write_film(tmp_path / "film.mkv", scaled)
    device = film(tmp_path / "film.mkv", own)
    pictures = list(device_pictures(device))
    assert len([picture for picture in pictures if picture is not None]) == len(scaled)
    first = next(picture for picture in pictures if picture is not None)
    assert first.shape == (120, 96, 3)
    with pytest.raises(SensorError, match="cannot be opened"):
        film(tmp_path / "absent.mkv", own)


def test_the_gel_of_the_settings_is_that_of_the_model() -> None:
    assert Gel(0.020, 0.016, 0.003, 120, 96) == GEL
    assert TouchSettings("digit", 96, 120, 0.003, (0.01, 0.02), 0.002).gel == Gel(0.01, 0.02, 0.002, 120, 96)
