"""Depth noise against what its settings say: moments, fraying, independent causes; and in the camera."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kurtosis, norm

from sensors.camera import RgbdCamera
from sensors.depth_noise import SquareLawNoise, StereoDepthNoise, edge_pixels
from sensors.errors import SpecError
from sensors.geometry import FloatArray, look_at, matrix_to_quaternion
from sensors.timeline import Timing
from tests.contracts import CONF, build_sensor, load_plain
from tests.fake_world import FakeWorld
from tests.sensors.depth_scenes import FAR_M, NEAR_M, OFF, lens, measure, only, tilted, two_walls

# ------------------------------------------------------------------------------------------------------------- axial


@pytest.mark.parametrize("distance_m", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(("axial_m", "floor_m"), [(0.0025, 0.0), (0.001, 0.002), (0.0, 0.004)])
def test_axial_noise_has_the_stated_moments(distance_m: float, axial_m: float, floor_m: float) -> None:
    depth = np.full((200, 200), distance_m)
    error = measure(only(axial_m=axial_m, axial_floor_m=floor_m), depth) - depth
    sigma = floor_m + axial_m * distance_m**2
    assert error.std() == pytest.approx(sigma, rel=0.05)
    assert abs(error.mean()) < 4 * sigma / 200
    assert abs(kurtosis(error, axis=None)) < 0.1  # normal; 0.025 is its standard error
    assert abs(np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1]) < 0.02  # no two pixels together


def test_the_square_law_has_the_stated_moments() -> None:
    for distance_m in (0.3, 2.0):
        depth = np.full((200, 200), distance_m, np.float32)
        rng = np.random.default_rng(0)
        error = SquareLawNoise(0.003).apply(depth, lens((200, 200)), NEAR_M, FAR_M, rng) - depth
        assert error.std() == pytest.approx(0.003 * distance_m**2, rel=0.05)
    with pytest.raises(SpecError, match="sigma_m"):
        SquareLawNoise(-0.1)


# ----------------------------------------------------------------------------------------------------------- lateral


@pytest.mark.parametrize("sigma_px", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("turned", [False, True])
def test_lateral_noise_frays_an_edge_by_the_stated_pixels(sigma_px: float, turned: bool) -> None:
    rows, columns, edge = 4000, 31, 16
    depth = two_walls((rows, columns), edge)
    measured = measure(only(lateral_px=sigma_px), depth.T if turned else depth)
    measured = measured.T if turned else measured
    assert set(np.unique(measured.round(5))) == {1.0, 2.0}  # a pixel shows one wall or the other, never one in between
    share = (measured > 1.5).mean(0)  # of the far wall, in each column
    expected = norm.cdf((np.arange(columns) - (edge - 0.5)) / sigma_px)
    np.testing.assert_allclose(share, expected, atol=4.5 * 0.5 / np.sqrt(rows))
    # As the distribution of the edge's place: its deviation is sigma, and Sheppard's 1/12 for the width of the pixels.
    weight, place = np.diff(share), np.arange(columns - 1) + 0.5
    mean = (weight * place).sum()
    assert mean == pytest.approx(edge - 0.5, abs=0.1)
    spread_px = np.sqrt((weight * (place - mean) ** 2).sum() - 1 / 12)
    assert spread_px == pytest.approx(sigma_px, rel=0.05)


@pytest.mark.parametrize("tilt_deg", [0.0, 40.0, 75.0])
def test_lateral_noise_moves_points_within_their_plane(tilt_deg: float) -> None:
    """Inverse depth is linear on a plane, so moved by normal pixels it is off by a normal number times the slope."""
    depth, _ = tilted((120, 100), tilt_deg)
    inverse = 1 / depth
    slope = np.hypot(inverse[0, 1] - inverse[0, 0], inverse[1, 0] - inverse[0, 0])
    error = 1 / measure(only(lateral_px=0.4), depth) - inverse
    inner = error[3:-3, 3:-3]  # places beyond the rim are not looked up
    assert inner.std() == pytest.approx(0.4 * slope, rel=0.05, abs=1e-7)
    assert abs(inner.mean()) < 4 * (0.4 * slope + 1e-8) / 100


def test_lateral_noise_mixes_surface_and_nothing_only_near_their_border() -> None:
    measured = measure(only(lateral_px=0.5), two_walls((500, 20), 10, 1.0, 0.0))
    assert 0 < (measured[:, 9] == 0).mean() < 0.5
    assert 0 < (measured[:, 10] > 0).mean() < 0.5
    assert (measured[:, :6] == 1).all()
    assert (measured[:, 14:] == 0).all()


# -------------------------------------------------------------------------------------------------------- the whole


def scene() -> FloatArray:
    """A tilted floor, a wall in front of a part of it, a hole with nothing in it."""
    depth, _ = tilted((60, 80), 72.0, 90.0)
    depth[10:30, 20:50] = 0.6
    depth[40:45, 60:70] = 0.0
    return depth.astype(np.float32)


def test_all_off_is_the_depth_itself_in_memory_of_its_own() -> None:
    depth = scene()
    kept = depth.copy()
    measured = measure(OFF, depth)
    np.testing.assert_array_equal(measured, kept)
    assert measured.dtype == np.float32
    assert not np.shares_memory(measured, depth)
    assert not np.array_equal(measure(StereoDepthNoise(), depth), kept)
    np.testing.assert_array_equal(depth, kept)


CAUSES: dict[str, dict[str, float]] = {
    "axial": {"axial_m": 0.002},
    "lateral": {"lateral_px": 0.3},
    "edge": {"edge_dropout": 0.5},
    "grazing": {"grazing_from_deg": 60.0, "grazing_to_deg": 85.0},
    "random": {"dropout": 0.05},
}


@pytest.mark.parametrize("off", CAUSES)
def test_one_cause_switched_off_leaves_the_others_as_they_were(off: str) -> None:
    depth = scene()
    everything = only(**{key: value for part in CAUSES.values() for key, value in part.items()})
    without = only(**{key: value for name, part in CAUSES.items() if name != off for key, value in part.items()})
    full, rest = measure(everything, depth, seed=5), measure(without, depth, seed=5)
    assert not np.array_equal(full, rest)
    if off in ("edge", "grazing", "random"):
        there = full > 0
        np.testing.assert_array_equal(full[there], rest[there])  # values stay
        gained = (rest > 0) & ~there
        alone = measure(only(**CAUSES[off]), depth, seed=5) == 0
        assert gained.any()
        assert alone[gained].all()  # and just what this cause took comes back
    if off == "axial":
        np.testing.assert_array_equal(full == 0, rest == 0)
    if off == "lateral":
        np.testing.assert_array_equal((full == 0)[:8], (rest == 0)[:8])  # rows that no edge is near
        wall = np.s_[13:27, 23:47]  # the middle of a surface without slope: moved pixels show the same
        np.testing.assert_allclose(full[wall], rest[wall], rtol=1e-6)


def test_seeds_and_frames() -> None:
    noise, depth = StereoDepthNoise(), scene()
    np.testing.assert_array_equal(measure(noise, depth, seed=3), measure(noise, depth, seed=3))
    assert not np.array_equal(measure(noise, depth, seed=3), measure(noise, depth, seed=4))
    rng = np.random.default_rng(3)
    first, second = (noise.apply(depth, lens(depth.shape), NEAR_M, FAR_M, rng) for _ in range(2))
    assert not np.array_equal(first, second)


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    seed=st.integers(0, 1000),
    lateral_px=st.floats(0.0, 5.0),
    axial_m=st.floats(0.0, 1.0),
)
def test_any_picture_gives_a_legal_one(height: int, width: int, seed: int, lateral_px: float, axial_m: float) -> None:
    depth = np.random.default_rng(seed).choice([0.0, 0.011, 0.3, 1.0, 49.0], (height, width)).astype(np.float32)
    noise = StereoDepthNoise(axial_m=axial_m, lateral_px=lateral_px, edge_px=2, grazing_from_deg=0.0, min_range_m=0.0)
    measured = measure(noise, depth, seed)
    assert measured.shape == depth.shape
    assert measured.dtype == np.float32
    assert np.isfinite(measured).all()
    assert (measured >= 0).all()
    assert (measured <= FAR_M).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"axial_m": -0.1},
        {"axial_floor_m": float("nan")},
        {"lateral_px": -1.0},
        {"edge_dropout": 1.1},
        {"edge_px": 0},
        {"edge_step_m": 0.0},
        {"grazing_from_deg": -1.0},
        {"grazing_to_deg": 60.0},
        {"dropout": -0.1},
        {"min_range_m": -0.1},
        {"max_range_m": 0.1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        StereoDepthNoise(**wrong)


# ---------------------------------------------------------------------------------------------------- in the camera


def test_cameras_may_share_a_model() -> None:
    """Each has its own random numbers: what one sees does not depend on whether the other looked first."""
    eye, noise = (1.0, 0.2, 0.7), StereoDepthNoise()
    turn = matrix_to_quaternion(look_at(eye, (0.5, 0.0, 0.05))[:3, :3])
    cameras = [
        RgbdCamera(timing=Timing(rate_hz=12.0), position_m=eye, quaternion_xyzw=turn, depth_noise=noise)
        for _ in range(2)
    ]
    frames = []
    for camera in cameras:
        camera.open(FakeWorld())
        camera.reset(np.random.default_rng(8))
    for camera in cameras:
        frames.append([camera.read(0.0).depth_m, camera.read(1.0).depth_m])
    np.testing.assert_array_equal(frames[0], frames[1])
    assert not np.array_equal(*frames[0])


def test_the_stereo_camera_of_the_configs() -> None:
    """It sees the front camera's picture with holes: around the box, and nowhere else more than its dropout says."""
    path = CONF / "sensor" / "front_stereo.yaml"
    given_noise = load_plain(path)["depth_noise"]
    assert set(given_noise) - {"_target_"} == set(inspect.signature(StereoDepthNoise).parameters)
    plain = load_plain(CONF / "sensor" / "front_camera.yaml")
    assert {**load_plain(path), "depth_noise": 0} == {**plain, "depth_noise": 0}  # the same camera otherwise
    world = FakeWorld(box_middle_m=(0.5, 0.0, 0.1), box_size_m=(0.1, 0.1, 0.2))
    camera, still = build_sensor(path), RgbdCamera(**_arguments(plain | {"depth_noise": 0.0}))
    frames = []
    for sensor in (camera, still):
        sensor.open(world)
        sensor.reset(np.random.default_rng(0))
        frames.append(sensor.read(0.0).arrays())
    seen, true = frames[0]["depth_m"], frames[1]["depth_m"]
    np.testing.assert_array_equal(frames[0]["rgb"], frames[1]["rgb"])
    inverse = np.divide(1.0, true, out=np.zeros_like(true), where=true > 0)
    edge = edge_pixels(inverse, given_noise["edge_step_m"])
    assert 20 < edge.sum() < 400
    assert 0.3 < (seen[edge] == 0).mean() < 0.7
    calm = (true > 0) & ~edge
    assert (seen[calm] == 0).mean() < 0.02
    error = (seen - true)[calm & (seen > 0)]
    assert 0.5 < np.abs(error).mean() / (0.8 * 0.0025 * (true[calm] ** 2).mean()) < 2.0


def _arguments(config: dict[str, Any]) -> dict[str, Any]:
    timing = Timing(**{key: value for key, value in config["timing"].items() if key != "_target_"})
    return {key: value for key, value in config.items() if key != "_target_"} | {"timing": timing}
