"""Pixels that a stereo camera cannot measure: which ones, and how often, against what the settings say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.depth_noise import edge_pixels
from sensors.geometry import FloatArray, intrinsics_from_fov
from tests.sensors.depth_scenes import FAR_M, NEAR_M, lens, measure, only, tilted, two_walls

# ------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("edge_px", [1, 2, 4])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_near_an_edge_are_lost_at_the_stated_rate(edge_px: int, turned: bool) -> None:
    depth = two_walls((2000, 24), 12)
    lost = measure(only(edge_dropout=0.3, edge_px=edge_px), depth.T if turned else depth) == 0
    lost = lost.T if turned else lost
    near = np.zeros(24, bool)
    near[12 - edge_px : 12 + edge_px] = True
    assert not lost[:, ~near].any()
    np.testing.assert_allclose(lost[:, near].mean(0), 0.3, atol=4.5 * np.sqrt(0.3 * 0.7 / 2000))


def test_edges_are_steps_and_nothing_else() -> None:
    step_m = 0.02

    def edges(depth: FloatArray, step_m: float = step_m) -> FloatArray:
        inverse = np.divide(1.0, depth, out=np.zeros(np.shape(depth)), where=np.asarray(depth) > 0)
        return edge_pixels(inverse.astype(np.float32), step_m)

    for tilt_deg in (0.0, 45.0, 80.0):
        assert not edges(tilted((60, 60), tilt_deg)[0]).any(), tilt_deg
    steep, _ = tilted((60, 60), 80.0)
    assert np.abs(np.diff(steep)).max() > step_m  # so the height of a change alone would not do
    ridge = np.minimum(tilted((60, 60), 60.0, 0.0)[0], tilted((60, 60), 60.0, 180.0)[0])
    assert not edges(ridge).any()
    assert not edges(two_walls((30, 30), 15, 1.0, 1.019)).any()
    for far_m in (1.021, 1.5, 0.0):  # the last is nothing at all behind it
        found = edges(two_walls((30, 30), 15, 1.0, far_m))
        np.testing.assert_array_equal(found, np.broadcast_to(np.isin(np.arange(30), (14, 15)), (30, 30)))
    for near_m, far_m in ((1.0, 1.5), (1.5, 1.0), (2.0, 4.0)):  # metres, however far away
        walls, step = two_walls((3, 30), 15, near_m, far_m), abs(far_m - near_m)
        assert not edges(walls, 1.01 * step).any()
        assert edges(walls, 0.99 * step).any()
    for column in (1, 2, 28, 29):  # at the picture's rim
        np.testing.assert_array_equal(edges(two_walls((3, 30), column))[0].nonzero()[0], [column - 1, column])
    pole = np.full((5, 30), 2.0)
    pole[:, 20] = 1.0
    np.testing.assert_array_equal(edges(pole)[0].nonzero()[0], [19, 20, 21])


# ----------------------------------------------------------------------------------------------------------- grazing


def test_grazing_rays_are_lost_at_the_stated_rate() -> None:
    """Planes in steps of 5 degrees, seen over a field of some 10 degrees: pixels are sorted by their exact angle."""
    noise = only(grazing_from_deg=50.0, grazing_to_deg=80.0)
    angles, losses = [], []
    for number, tilt_deg in enumerate(np.arange(0.0, 81.0, 5.0)):
        for azimuth_deg in (0.0, 70.0, 200.0):
            depth, angle = tilted((60, 60), float(tilt_deg), azimuth_deg)
            angles.append(angle.ravel())
            losses.append((measure(noise, depth, seed=1000 * number + int(azimuth_deg)) == 0).ravel())
    angle, lost = np.concatenate(angles), np.concatenate(losses)
    clear = np.abs(angle - 50) > 0.2  # rounding of single precision
    assert not lost[clear & (angle < 50)].any()
    assert lost[clear & (angle > 80.2)].all()
    rates = []
    for low in range(50, 80, 3):
        here = (angle >= low) & (angle < low + 3)
        assert here.sum() > 2000
        expected = ((angle[here] - 50) / 30).mean()
        rates.append(lost[here].mean())
        assert rates[-1] == pytest.approx(expected, abs=4.5 * 0.5 / np.sqrt(here.sum()))
    assert (np.diff(rates) > 0).all()


@given(
    tilt_deg=st.floats(0.0, 78.0),
    azimuth_deg=st.floats(0.0, 360.0),
    limit_deg=st.floats(0.0, 85.0),
)
def test_the_angle_is_that_of_the_plane(tilt_deg: float, azimuth_deg: float, limit_deg: float) -> None:
    """With one angle for both limits, what is lost is what lies beyond it."""
    depth, angle = tilted((24, 32), tilt_deg, azimuth_deg)
    lost = measure(only(grazing_from_deg=limit_deg, grazing_to_deg=limit_deg), depth) == 0
    # Near 0 the cosine hardly changes with the angle, so rounding moves the angle more there.
    clear = np.abs(angle - limit_deg) > (3.0 if limit_deg < 5 else 0.5)
    np.testing.assert_array_equal(lost[clear], (angle > limit_deg)[clear])


def test_a_wall_seen_beside_an_edge_keeps_its_own_angle() -> None:
    depth = two_walls((20, 20), 10)
    assert (measure(only(grazing_from_deg=30.0, grazing_to_deg=30.0), depth) > 0).all()


# -------------------------------------------------------------------------------------------------- range and random


def test_range_limits() -> None:
    depth = np.broadcast_to(np.linspace(0.05, 6.0, 120), (4, 120)).astype(np.float32)
    limited = measure(only(min_range_m=0.5, max_range_m=4.0), depth)
    np.testing.assert_array_equal(limited, np.where((depth >= 0.5) & (depth <= 4.0), depth, 0))
    by_camera = only(max_range_m=10.0).apply(depth, lens(depth.shape), NEAR_M, 3.0, np.random.default_rng(0))
    np.testing.assert_array_equal(by_camera, np.where(depth <= 3.0, depth, 0))
    noisy = measure(only(axial_floor_m=0.3, min_range_m=0.5, max_range_m=4.0), depth)
    assert noisy[noisy > 0].min() >= np.float32(0.5)
    assert noisy.max() <= 4.0
    assert 0 < (noisy[:, depth[0] < 0.5] > 0).mean() < 0.5  # the device judges by what it measures


def test_what_is_not_there_is_not_measured() -> None:
    measured = measure(only(axial_floor_m=0.1, axial_m=0.1), two_walls((50, 20), 10, 1.0, 0.0))
    assert not measured[:, 10:].any()
    assert measured[:, :10].all()


def test_random_losses_come_at_the_stated_rate() -> None:
    lost = measure(only(dropout=0.05), np.ones((200, 200))) == 0
    assert lost.mean() == pytest.approx(0.05, abs=4.5 * np.sqrt(0.05 * 0.95 / 40000))
    assert lost.any(0).all()
    assert lost.any(1).all()


def test_intrinsics_of_any_lens_are_understood() -> None:
    """The same plane through two lenses that see the same field loses the same share of its pixels."""
    shares = []
    for size in (40, 160):
        shape, field_deg = (size, size), 30.0
        intrinsics = intrinsics_from_fov(size, size, field_deg)
        u = np.mgrid[0:size, 0:size][1]
        depth = 1.0 / (1.0 + 1.5 * (u - intrinsics[2]) / intrinsics[0]).astype(np.float32)  # tilted by 56 degrees
        noise = only(grazing_from_deg=40.0, grazing_to_deg=70.0)
        measured = noise.apply(depth, intrinsics, NEAR_M, FAR_M, np.random.default_rng(0))
        assert measured.shape == shape
        shares.append((measured == 0).mean())
    assert shares[0] == pytest.approx(shares[1], abs=0.05)
    assert 0.3 < shares[1] < 0.7
