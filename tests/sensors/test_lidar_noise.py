"""The simulated LiDAR's noise, cause by cause, and its distortion by motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sensors.frames import LidarFrame
from sensors.geometry import (
    FloatArray,
    axis_angle_to_matrix,
    interpolate_pose,
    pose,
    transform_points,
)
from sensors.lidar_pattern import ScanPattern, SolidStatePattern, SpinningPattern, vlp_16
from tests.fake_world import FakeWorld
from tests.sensors.quiet_lidar import TOOL, Recording, in_base, opened, points_of

# --------------------------------------------------------------------------------------------------------------- noise


def _straight_down(count: int) -> ScanPattern:
    """Rings that all look along -z of a LiDAR standing upright: every range is its height."""
    return SpinningPattern([-90.0], count, 12.0)


@pytest.mark.parametrize(("height_m", "fixed_m", "per_m"), [(1.0, 0.02, 0.0), (2.0, 0.01, 0.005), (8.0, 0.0, 0.01)])
def test_range_noise_has_its_moments(height_m: float, fixed_m: float, per_m: float) -> None:
    world = FakeWorld(box_middle_m=(9.0, 9.0, -9.0))
    lidar = opened(
        world, _straight_down(20_000), position_m=(0.0, 0.0, height_m), range_noise_m=fixed_m, range_noise_per_m=per_m
    )
    error = np.linalg.norm(points_of(lidar.read(0.0)), axis=1) - height_m
    sigma = fixed_m + per_m * height_m
    assert len(error) == 20_000
    assert error.std() == pytest.approx(sigma, rel=0.05)
    assert abs(error.mean()) < 4 * sigma / np.sqrt(20_000)
    assert (np.abs(error) < 2 * sigma).mean() == pytest.approx(0.9545, abs=0.01)


def test_noisy_ranges_stay_within_the_limits() -> None:
    lidar = opened(FakeWorld(), _straight_down(2000), range_noise_m=0.2, min_m=0.9, max_m=1.1)
    range_m = np.linalg.norm(points_of(lidar.read(0.0)), axis=1)
    assert len(range_m) == 2000
    assert (range_m.min(), range_m.max()) == (pytest.approx(0.9), pytest.approx(1.1))


def test_angular_noise_turns_the_beam_and_not_the_point() -> None:
    world = Recording(box_middle_m=(9.0, 9.0, -9.0))
    pattern, sigma = vlp_16(600, 12.0), 0.003
    lidar = opened(world, pattern, angle_noise_rad=sigma)
    frame = lidar.read(0.0)
    nominal = pattern.sweep(0.0).directions
    side = np.cross((0.0, 0.0, 1.0), nominal)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    for across in (side, np.cross(nominal, side)):
        angle = np.einsum("ni,ni->n", world.towards, across)
        assert angle.std() == pytest.approx(sigma, rel=0.05)
        assert abs(angle.mean()) < 4 * sigma / np.sqrt(len(angle))
    np.testing.assert_allclose(np.einsum("ni,ni->n", world.towards, nominal), 1.0, atol=2e-4)
    points = points_of(frame)
    along = points / np.linalg.norm(points, axis=1, keepdims=True)
    hit = world.towards[:, 2] < -1.0 / 30.0
    np.testing.assert_allclose(along, nominal[hit], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), -1.0 / world.towards[hit, 2], rtol=1e-5)


@pytest.mark.parametrize("ray_dropout", [0.05, 0.5])
def test_rays_drop_out_as_often_as_told(ray_dropout: float) -> None:
    frame = opened(FakeWorld(), _straight_down(20_000), ray_dropout=ray_dropout).read(0.0)
    lost = 1 - int(frame.count[0]) / 20_000
    assert lost == pytest.approx(ray_dropout, abs=4 * np.sqrt(ray_dropout * (1 - ray_dropout) / 20_000))
    assert opened(FakeWorld(), ray_dropout=1.0).read(0.0).count == 0


def test_intensity_is_lamberts_with_noise() -> None:
    frame = opened(FakeWorld(), _straight_down(20_000), reflectivity=0.4, intensity_noise=0.05).read(0.0)
    assert frame.intensity.mean() == pytest.approx(0.4, abs=0.002)
    assert frame.intensity.std() == pytest.approx(0.05, rel=0.05)
    loud = opened(FakeWorld(), _straight_down(2000), intensity_noise=2.0).read(0.0)
    assert (loud.intensity.min(), loud.intensity.max()) == (0.0, 1.0)


NOISE = {"range_noise_m": 0.02, "angle_noise_rad": 0.002, "ray_dropout": 0.2, "intensity_noise": 0.1}


def _frames(seed: int, **changes: Any) -> list[LidarFrame]:
    lidar = opened(FakeWorld(), _straight_down(500), seed, **(NOISE | changes))
    return [lidar.read(k / 12.0) for k in range(2)]


def test_the_seed_decides_the_noise() -> None:
    first, again, other = _frames(3), _frames(3), _frames(4)
    for one, same, different in zip(first, again, other, strict=True):
        for name, value in one.arrays().items():
            np.testing.assert_array_equal(value, same.arrays()[name])
        assert (one.xyz_m != different.xyz_m).any()
        assert (one.offset_s != different.offset_s).any()
    assert (first[0].offset_s != first[1].offset_s).any()  # two frames lose different rays


@pytest.mark.parametrize("off", NOISE)
def test_switching_one_cause_off_leaves_the_others_as_they_were(off: str) -> None:
    with_it, without = _frames(3), _frames(3, **{off: 0.0})
    for one, other in zip(with_it, without, strict=True):
        if off != "ray_dropout":
            np.testing.assert_array_equal(one.offset_s, other.offset_s)
        if off not in ("ray_dropout", "intensity_noise", "angle_noise_rad"):
            np.testing.assert_array_equal(one.intensity, other.intensity)
        if off not in ("ray_dropout", "range_noise_m"):
            range_m, other_m = (np.linalg.norm(frame.xyz_m, axis=1) for frame in (one, other))
            np.testing.assert_allclose(range_m, other_m, atol=1e-4 if off == "angle_noise_rad" else 0)
        changed = [name for name, value in one.arrays().items() if (value != other.arrays()[name]).any()]
        assert changed  # the one that was switched off did something


def test_a_rosette_starts_anywhere_and_by_the_seed() -> None:
    directions = []
    for seed in (0, 0, 1):
        world = Recording()
        opened(world, SolidStatePattern(60.0, 100, 0.08), seed).read(0.0)
        directions.append(world.towards)
    np.testing.assert_array_equal(directions[0], directions[1])
    assert np.abs(directions[0] - directions[2]).max() > 0.1


# -------------------------------------------------------------------------------------------------------------- motion


def _tool_at(when_s: float) -> FloatArray:
    """A tool that flies in a curve and turns, looking down roughly."""
    out = pose((0.3 + 2.0 * when_s, 0.5 * np.sin(9 * when_s), 1.0 + when_s), (1.0, 0.0, 0.0, 0.0))
    out[:3, :3] = out[:3, :3] @ axis_angle_to_matrix(np.array([0.5, -1.0, 3.0]) * when_s)
    return out


def _flown(moments: Sequence[float], **changes: Any) -> tuple[LidarFrame, FakeWorld]:
    """The frame of the last of several reads of a LiDAR on a flying tool whose +x looks along the tool's +z."""
    world = FakeWorld(box_middle_m=(9.0, 9.0, -9.0))
    settings: dict[str, Any] = {"link": TOOL, "position_m": (0.0, 0.1, 0.0), "quaternion_xyzw": (0.0, -1.0, 0.0, 1.0)}
    lidar = opened(world, SolidStatePattern(40.0, 2000, 0.08), **(settings | changes))
    for now_s in moments:
        world.base_from_tool = _tool_at(now_s)
        frame = lidar.read(now_s)
    return frame, world


def _straightened(frame: LidarFrame, moments: Sequence[float]) -> FloatArray:
    """Every seventh point [n, 3] in the base frame, placed by the pose at its own time."""
    link_from_lidar = pose((0.0, 0.1, 0.0), (0.0, -1.0, 0.0, 1.0))
    poses, out = [_tool_at(when_s) @ link_from_lidar for when_s in moments], []
    for point, offset_s in zip(points_of(frame)[::7], frame.offset_s[: int(frame.count[0]) : 7], strict=True):
        when_s = frame.stamp_s + float(offset_s)
        later = next(k for k in range(1, len(moments)) if moments[k] >= when_s or k == len(moments) - 1)
        share = max((when_s - moments[later - 1]) / (moments[later] - moments[later - 1]), 0.0)
        out.append(transform_points(interpolate_pose(poses[later - 1], poses[later], share), point[None])[0])
    return np.array(out)


@pytest.mark.parametrize(
    "moments",
    [(0.0, 1 / 12), (0.0, 1 / 12, 2 / 12, 3 / 12), (0.0, 0.03, 0.05, 0.1, 0.11, 0.15)],
    ids=["2", "4", "dense"],
)
def test_a_sweep_in_motion_straightens_by_the_times_of_its_points(moments: Sequence[float]) -> None:
    """All points lie on the table once each is placed by the pose of its own time, and not before."""
    frame, _ = _flown(moments)
    assert frame.count == 2000
    np.testing.assert_allclose(_straightened(frame, moments)[:, 2], 0.0, atol=1e-5)
    assert np.abs(in_base(frame)[:, 2]).max() > 0.02
    np.testing.assert_allclose(frame.base_from_lidar[:3, 3], _tool_at(moments[-1])[:3, :] @ (0.0, 0.1, 0.0, 1.0))


def test_without_distortion_all_rays_start_where_the_sensor_is_now() -> None:
    frame, _ = _flown((0.0, 1 / 12), motion_distortion=False)
    np.testing.assert_allclose(in_base(frame)[:, 2], 0.0, atol=1e-5)


def test_the_first_sweep_of_an_episode_is_taken_at_rest() -> None:
    frame, world = _flown((0.3,))
    np.testing.assert_allclose(in_base(frame)[:, 2], 0.0, atol=1e-5)
    lidar = opened(world, link=TOOL)
    lidar.read(0.0)
    world.base_from_tool = _tool_at(0.2)
    lidar.reset(np.random.default_rng(0))  # the next episode begins elsewhere
    np.testing.assert_allclose(in_base(lidar.read(1 / 12))[:, 2], 0.0, atol=1e-5)


def test_reading_again_at_the_same_moment_counts_the_later_pose() -> None:
    frames = []
    for poses in ((0.05,), (0.05, 0.05), (0.08, 0.05)):
        world = FakeWorld()
        lidar = opened(world, SolidStatePattern(40.0, 200, 0.08), link=TOOL)
        world.base_from_tool = _tool_at(0.0)
        lidar.read(0.0)
        for when_s in poses:
            world.base_from_tool = _tool_at(when_s)
            frame = lidar.read(0.05)
        frames.append(frame)
    for again in frames[1:]:
        np.testing.assert_array_equal(frames[0].xyz_m, again.xyz_m)


def test_poses_of_the_past_are_forgotten() -> None:
    world = FakeWorld()
    lidar = opened(world, SolidStatePattern(40.0, 10, 0.08), link=TOOL)
    for number in range(30):
        lidar.read(number / 12)
    assert len(lidar._poses) == 2  # the sweep's beginning and its end lie between the last two
