"""The fused cloud: where its points lie by closed forms, what thinning keeps, and what becomes of cameras that fail."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.build import build, resolve
from perceive.cli.compose import compose_config
from sensors.base import Sensor, World
from sensors.camera import RgbCamera, RgbdCamera
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.faults import Disconnect, Miscalibrate
from sensors.faulty import Faulty, When
from sensors.frames import PointFrame, RgbdFrame
from sensors.fused_cloud import FusedCloud
from sensors.geometry import invert, look_at, matrix_to_quaternion, pose, transform_points
from sensors.recording.replay import stepped_rig
from sensors.recording.writer import Recorder
from sensors.rig import SensorRig
from sensors.timeline import Timing
from tests.contracts import CONF, load_plain
from tests.fake_world import BOX_RGB, TABLE_RGB, FakeWorld
from tests.sensors.recorded_frames import EXACT

LOW_M, HIGH_M = (0.2, -0.4, -0.02), (0.8, 0.4, 0.5)
HZ = 12.0
Shoot = Callable[[float], "RgbdFrame | None"]


def timing(**settings: Any) -> Timing:
    return Timing(**{"rate_hz": HZ, **settings})


def camera(eye_m: Sequence[float], **settings: Any) -> RgbdCamera:
    """A camera without noise that looks at the box."""
    base_from_camera = look_at(eye_m, (0.5, 0.0, 0.03))
    given: dict[str, Any] = {
        "timing": timing(), "width": 40, "height": 30, "fov_y_deg": 40.0, "position_m": tuple(eye_m),
        "quaternion_xyzw": tuple(matrix_to_quaternion(base_from_camera[:3, :3])),
        "colour_noise": 0.0, "colour_gain": 0.0, "depth_noise": 0.0,
    }  # fmt: skip
    return RgbdCamera(**(given | settings))


def cloud_of(cameras: dict[str, Sensor], **settings: Any) -> FusedCloud:
    given: dict[str, Any] = {"points": 4000, "edge_m": 0.01, "low_m": LOW_M, "high_m": HIGH_M, "timing": timing()}
    return FusedCloud(cameras=cameras, **(given | settings))


def two(**settings: Any) -> dict[str, Sensor]:
    return {"left": camera((0.5, 0.6, 0.6), **settings), "front": camera((1.1, -0.1, 0.7), **settings)}


def opened(cloud: FusedCloud, world: World | None = None, seed: int = 0) -> FusedCloud:
    cloud.open(world or FakeWorld())
    cloud.reset(np.random.default_rng(seed))
    return cloud


def frame_of(cloud: FusedCloud, now_s: float = 0.0) -> PointFrame:
    frame = cloud.read(now_s)
    assert frame is not None
    return frame


def points_of(frame: PointFrame) -> np.ndarray:
    """[N, 6]: place and colour of what is there; the rest is zeros."""
    count = int(frame.count[0])
    rows = np.concatenate([frame.xyz_m, frame.rgb], 1)
    assert not rows[count:].any()
    return rows[:count]


class Given(Sensor):
    """A camera of W x 1 pixels that shows what a test says; ``live`` or not."""

    def __init__(self, shoot: Shoot, width: int = 8, **settings: Any) -> None:
        self._shoot, self._timing, self._width, self._read_s = shoot, timing(**settings), width, -1.0

    @property
    def space(self) -> spaces.Dict:
        shapes = {"rgb": (1, self._width, 3), "depth_m": (1, self._width)}
        shapes |= {"intrinsics_px": (4,), "base_from_camera": (4, 4)}
        kinds = {name: np.uint8 if name == "rgb" else np.float32 for name in shapes}
        return spaces.Dict({name: spaces.Box(0, 9, shape, kinds[name]) for name, shape in shapes.items()})

    @property
    def timing(self) -> Timing:
        return self._timing

    def open(self, world: World | None) -> None: ...

    def reset(self, rng: np.random.Generator) -> None: ...

    def read(self, now_s: float) -> RgbdFrame | None:
        if self._timing.live and now_s == self._read_s:
            return None
        self._read_s = now_s
        return self._shoot(now_s)

    def close(self) -> None: ...


def shot(depth_m: Sequence[float], stamp_s: float = 0.0, base_from_camera: Any = None, red: int = 0) -> RgbdFrame:
    """A row of pixels 1 cm apart at a depth of 1 m, seen along z from (0.4, 0, 0)."""
    row = np.asarray(depth_m, np.float32)[None]
    rgb = np.zeros((1, row.shape[1], 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = red, np.arange(row.shape[1])
    at = pose((0.4, 0.0, 0.0)) if base_from_camera is None else base_from_camera
    intrinsics = np.array([100.0, 100.0, 0.0, 0.0])
    return RgbdFrame(stamp_s=stamp_s, rgb=rgb, depth_m=row, intrinsics_px=intrinsics, base_from_camera=at)


# ------------------------------------------------------------------------------------------------------- where it is


def off_surfaces_m(world: FakeWorld, xyz_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far points are from the table and from the box's surface, metres [N] each."""
    local = np.abs(transform_points(invert(world.base_from_box), xyz_m)) - world.box_size_m / 2
    outside = np.linalg.norm(np.maximum(local, 0), axis=1)
    return np.abs(xyz_m[:, 2]), np.where(outside > 0, outside, np.abs(local.max(1)))


@pytest.mark.parametrize("shift", [{}, {"mount_shift_m": 0.1, "mount_shift_deg": 8.0}], ids=["fixed", "moved"])
def test_points_lie_on_what_the_cameras_see(shift: dict[str, float]) -> None:
    """With cubes so small that each holds one point; and a camera that was moved knows it."""
    world = FakeWorld(box_quaternion_xyzw=(0.0, 0.0, 0.3, 0.954))
    rows = points_of(frame_of(opened(cloud_of(two(**shift), edge_m=0.0001), world)))
    table, box = off_surfaces_m(world, rows[:, :3])
    assert np.minimum(table, box).max() < 1e-6
    on_box, on_table = (box < 1e-6) & (table > 1e-3), (table < 1e-6) & (box > 1e-3)
    assert min(on_box.sum(), on_table.sum()) > 15
    assert (rows[on_box, 3:] == BOX_RGB).all()
    assert (rows[on_table, 3:] == TABLE_RGB).all()
    assert ((rows[:, :3] >= np.array(LOW_M, np.float32)) & (rows[:, :3] < np.array(HIGH_M, np.float32))).all()


def test_a_camera_that_does_not_know_that_it_was_moved_puts_points_elsewhere() -> None:
    wrong = Miscalibrate(shift_m=0.03, turn_deg=0.0)
    cameras: dict[str, Sensor] = {"left": Faulty(two()["left"], [wrong])}
    world = FakeWorld()
    rows = points_of(frame_of(opened(cloud_of(cameras, edge_m=0.0001), world)))
    assert np.minimum(*off_surfaces_m(world, rows[:, :3])).max() > 0.005


# ----------------------------------------------------------------------------------------------------------- thinning


def by_hand(frames: Sequence[RgbdFrame], edge_m: float) -> dict[tuple[int, ...], np.ndarray]:
    """Cube -> mean of place and colour of its points, pixel by pixel."""
    cubes: dict[tuple[int, ...], list[np.ndarray]] = defaultdict(list)
    for frame in frames:
        fx, fy, cx, cy = frame.intrinsics_px
        for (v, u), depth in np.ndenumerate(frame.depth_m):
            if not (np.isfinite(depth) and depth > 0):
                continue
            local = np.array([(u - cx) / fx * depth, (v - cy) / fy * depth, depth, 1.0])
            xyz = (frame.base_from_camera @ local)[:3]
            if (xyz >= LOW_M).all() and (xyz < HIGH_M).all():
                cell = np.floor((np.float32(xyz) - np.array(LOW_M)) / edge_m).astype(int)
                cubes[tuple(cell.tolist())].append(np.concatenate([np.float32(xyz), frame.rgb[v, u]]))
    return {cell: np.mean(rows, 0) for cell, rows in cubes.items()}


def random_shot(seed: int) -> RgbdFrame:
    """A picture of anything: some of it not measured, some outside, from anywhere; sometimes a plane."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.0, 0.8, 24) if seed % 5 else np.full(24, 0.4)
    depth[rng.random(24) < 0.2] = rng.choice([0.0, np.nan, np.inf, -1.0, 1e30])
    frame = shot(
        depth.tolist(), base_from_camera=pose(rng.uniform((0.3, -0.2, 0), (0.7, 0.2, 0.3)), rng.normal(size=4))
    )
    return RgbdFrame(**{**vars(frame), "rgb": rng.integers(0, 256, frame.rgb.shape, np.uint8)})


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), edge_m=st.sampled_from([0.003, 0.02, 0.1, 2.0]))
def test_each_cube_gives_the_mean_of_its_points_in_any_order_of_the_cameras(seed: int, edge_m: float) -> None:
    frames = [random_shot(3 * seed + k) for k in range(3)]

    def read(order: Sequence[int]) -> np.ndarray:
        cameras: dict[str, Sensor] = {f"c{k}": Given(lambda _, k=k: frames[k], width=24) for k in order}  # type: ignore[misc]
        return points_of(frame_of(opened(cloud_of(cameras, edge_m=edge_m))))

    rows, expected = read([0, 1, 2]), by_hand(frames, edge_m)
    np.testing.assert_array_equal(rows, read([2, 0, 1]))
    assert len(rows) == len(expected)
    if len(rows):
        cells = [tuple(c) for c in np.floor((rows[:, :3] - np.array(LOW_M)) / edge_m + 1e-6).astype(int).tolist()]
        by_place = np.array(sorted(expected.values(), key=lambda row: tuple(row)))
        ours = np.array(sorted(rows, key=lambda row: tuple(row)))
        np.testing.assert_allclose(ours[:, :3], by_place[:, :3], atol=1e-6)
        assert np.abs(ours[:, 3:] - by_place[:, 3:]).max() <= 0.5 + 1e-9
        assert len(cells) == len(rows)


def test_of_more_cubes_than_points_those_are_kept_that_lie_evenly() -> None:
    whole = points_of(frame_of(opened(cloud_of(two(), edge_m=0.004))))
    few = frame_of(opened(cloud_of(two(), edge_m=0.004, points=100)))
    assert few.xyz_m.shape == (100, 3)
    rows = points_of(few)
    assert len(rows) == 100 < len(whole) // 5
    index = [int(np.flatnonzero((whole == row).all(1)).item()) for row in rows]  # in the same order, each there once
    steps = np.diff(index)
    assert steps.min() >= len(whole) // 100
    assert steps.max() <= len(whole) // 100 + 1
    # Even along the curve is even in space: nothing that was seen is far from what was kept.
    gaps_m = np.linalg.norm(whole[:, None, :3] - rows[None, :, :3], axis=2).min(1)
    assert gaps_m.max() < 0.12


def test_the_order_is_that_of_a_curve_so_that_neighbours_stay_neighbours() -> None:
    rows = points_of(frame_of(opened(cloud_of(two()))))
    along = np.linalg.norm(np.diff(rows[:, :3], axis=0), axis=1)
    mixed = np.linalg.norm(np.diff(np.random.default_rng(0).permutation(rows[:, :3]), axis=0), axis=1)
    assert along.mean() < mixed.mean() / 8


def test_nothing_in_the_box_is_an_empty_cloud_and_not_an_error() -> None:
    frame = frame_of(opened(cloud_of(two(), low_m=(0.2, -0.4, 0.3))))
    assert frame.count.tolist() == [0]
    assert not points_of(frame).size


def test_what_was_not_measured_is_left_out_and_the_rest_is_not() -> None:
    for bad in (0.0, -0.2, np.nan, np.inf, -np.inf):
        cameras: dict[str, Sensor] = {"a": Given(lambda _, bad=bad: shot([0.4, bad, 0.4, 0.4, bad, 0.4, 0.4, 9.0]))}  # type: ignore[misc]
        cloud = opened(cloud_of(cameras, edge_m=0.001))
        assert sorted(points_of(frame_of(cloud))[:, 4].tolist()) == [0, 2, 3, 5, 6]  # green is the pixel's number
        assert cloud.counts == {"a": {"dropped": 0, "corrupt": 0}}


# ------------------------------------------------------------------------------------------- cameras that fail or wait


def test_one_camera_away_is_left_out_and_all_away_is_a_lost_cloud() -> None:
    def away(start_s: float, stop_s: float) -> Disconnect:
        return Disconnect(when=When(start_s=start_s, stop_s=stop_s))

    good = two()
    cameras: dict[str, Sensor] = {
        "left": Faulty(good["left"], [away(0.9 / HZ, 3.9 / HZ)]),
        "front": Faulty(good["front"], [away(1.9 / HZ, 2.9 / HZ)]),
    }
    cloud, rig = cloud_of(cameras), SensorRig({"cloud": cloud_of(cameras)})
    opened(cloud)
    both = points_of(frame_of(cloud, 0.0))
    alone = points_of(frame_of(cloud, 1 / HZ))
    expected = points_of(frame_of(opened(cloud_of({"front": good["front"]}))))
    np.testing.assert_array_equal(alone, expected)
    assert len(both) > len(alone) > 100
    with pytest.raises(SensorLost, match=r"left.*front"):
        cloud.read(2 / HZ)
    np.testing.assert_array_equal(points_of(frame_of(cloud, 3 / HZ)), expected)
    np.testing.assert_array_equal(points_of(frame_of(cloud, 4 / HZ)), both)
    assert {name: count["dropped"] for name, count in cloud.counts.items()} == {"left": 3, "front": 1}
    cloud.close()

    rig.open(FakeWorld())
    rig.reset(0.0, 0)
    seen = []
    for step in range(5):
        rig.tick(step / HZ)
        seen.append(bool(rig.observe(step / HZ).streams["cloud"].valid[-1]))
    assert seen == [True, True, False, True, True]


def test_a_camera_whose_pose_is_not_finite_is_left_out_and_counted() -> None:
    nowhere = pose((np.nan, 0.0, 0.0))
    cameras: dict[str, Sensor] = {
        "a": Given(lambda now_s: shot([0.4] * 8, now_s, nowhere, red=1)),
        "b": Given(lambda now_s: shot([0.3] * 8, now_s, red=2)),
    }
    cloud = opened(cloud_of(cameras))
    assert set(points_of(frame_of(cloud))[:, 3].tolist()) == {2}
    assert cloud.counts["a"]["corrupt"] == 1


def test_the_stamp_is_that_of_the_oldest_part() -> None:
    late = camera((0.5, 0.6, 0.6), timing=timing(delay_s=0.1))
    cloud = opened(cloud_of({"late": late, "front": two()["front"]}))
    assert frame_of(cloud, 5.0).stamp_s == 5.0  # of the other one alone
    assert frame_of(cloud, 5.0 + 1 / HZ).stamp_s == 5.0 + 1 / HZ
    stamp_s = frame_of(cloud, 5.0 + 2 / HZ).stamp_s
    assert stamp_s == pytest.approx(5.0, abs=1e-6)


def test_without_a_new_frame_there_is_no_cloud() -> None:
    slow: dict[str, Sensor] = {"a": Given(lambda now_s: shot([0.4] * 8, now_s), rate_hz=HZ / 2)}
    cloud = opened(cloud_of(slow))
    stamps_s = [None if (frame := cloud.read(step / HZ)) is None else frame.stamp_s for step in range(4)]
    assert stamps_s == [0.0, None, pytest.approx(2 / HZ), None]


def test_live_cameras_make_one_cloud_of_the_newest_frames() -> None:
    said: dict[str, list[RgbdFrame]] = {"a": [], "b": []}
    cameras: dict[str, Sensor] = {
        name: _Queue(lambda _, name=name: said[name].pop(0) if said[name] else None, live=True)  # type: ignore[misc]
        for name in said
    }
    cloud = opened(cloud_of(cameras, timing=timing(live=True)))
    assert cloud.read(10.0) is None  # nothing came yet, which is no fault
    said["a"] += [shot([0.4] * 8, 10.01, red=1), shot([0.4] * 8, 10.02, red=2)]
    said["b"] += [shot([0.3] * 8, 10.015, red=3)]
    frame = frame_of(cloud, 10.03)
    assert set(points_of(frame)[:, 3].tolist()) == {2, 3}
    assert frame.stamp_s == pytest.approx(10.015, abs=1e-6)
    assert cloud.read(10.03) is None
    said["b"] += [shot([0.3] * 8, 10.04, red=4)]
    frame = frame_of(cloud, 10.05)
    assert set(points_of(frame)[:, 3].tolist()) == {2, 4}
    assert frame.stamp_s == pytest.approx(10.02, abs=1e-6)
    said["b"] += [shot([0.3] * 8, 11.04, red=5)]
    assert set(points_of(frame_of(cloud, 11.05))[:, 3].tolist()) == {5}  # the other one is silent for over a second
    with pytest.raises(SensorLost):
        cloud.read(13.0)


class _Queue(Given):
    """As Given, with as many frames at a moment as there are."""

    def read(self, now_s: float) -> RgbdFrame | None:
        return self._shoot(now_s)


def test_an_episode_has_its_own_noise_whatever_other_cameras_there_are() -> None:
    noisy = two(depth_noise=0.005, mount_shift_m=0.02)

    def read(cameras: dict[str, Sensor], seed: int) -> np.ndarray:
        return points_of(frame_of(opened(cloud_of(cameras, edge_m=0.0001, points=3000), seed=seed)))

    both, again, other = read(noisy, 1), read(noisy, 1), read(noisy, 2)
    np.testing.assert_array_equal(both, again)
    assert both.shape != other.shape or not np.array_equal(both, other)
    alone = {tuple(row) for row in read({"front": noisy["front"]}, 1)}
    assert len(alone & {tuple(row) for row in both}) > 0.9 * len(alone)


# ------------------------------------------------------------------------------------------------- settings and files


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cameras": {}}, "at least one camera"),
        ({"points": 0}, "points"),
        ({"edge_m": 0.0}, "edge_m"),
        ({"edge_m": float("nan")}, "edge_m"),
        ({"edge_m": 1e-5}, "16384 cubes"),
        ({"low_m": (0.8, -0.4, 0.0)}, "low_m"),
        ({"low_m": (0.2, 0.0)}, "low_m"),
        ({"high_m": (0.8, float("inf"), 0.5)}, "high_m"),
        ({"timing": timing(live=True)}, "live"),
        ({"cameras": {"a/b": two()["front"]}}, "without '/'"),
        ({"cameras": {"a": RgbCamera(timing=timing())}}, "depth_m"),
        ({"cameras": {"a": camera((1.1, 0, 0.7), width=2000, height=1100)}}, "2 million"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        cloud_of(**({"cameras": two()} | settings))


def test_read_too_early_or_too_late_says_so() -> None:
    cloud = cloud_of(two())
    with pytest.raises(SensorError, match="open"):
        cloud.read(0.0)
    cloud.open(FakeWorld())
    with pytest.raises(SensorError, match="reset"):
        cloud.read(0.0)
    cloud.reset(np.random.default_rng(0))
    assert cloud.read(0.0) is not None
    cloud.close()
    with pytest.raises(SensorError):
        cloud.read(0.1)


def test_its_config_has_the_two_cameras_of_the_lift_rig_and_says_all() -> None:
    cameras = load_plain(CONF / "sensor" / "fused_cloud.yaml")["cameras"]
    for name, config in cameras.items():
        assert config == load_plain(CONF / "sensor" / f"{name}_camera.yaml")
        known = set(inspect.signature(resolve(config["_target_"])).parameters)
        assert set(config) - {"_target_"} == known
    assert list(cameras) == ["front", "wrist"]


def test_a_camera_within_can_be_moved_by_a_word() -> None:
    words = ["env=lift", "rig=lift_cloud", "rig.sensors.cloud.cameras.front.mount_shift_m=0.1"]
    config = compose_config("collect", words)["env"]["rig"]["sensors"]["cloud"]
    assert config["cameras"]["front"]["mount_shift_m"] == 0.1
    still = load_plain(CONF / "sensor" / "fused_cloud.yaml")
    box = {"low_m": list(LOW_M), "edge_m": 0.002}  # with the table: the box alone may leave the picture

    def read(plan: dict[str, Any]) -> np.ndarray:
        return points_of(frame_of(opened(build(plan | box))))

    assert not np.array_equal(read(config), read(still))


def test_a_recording_shows_again_what_was_shown(tmp_path: Path) -> None:
    world, shown = FakeWorld(), []
    with Recorder(tmp_path / "a.mcap", coding=EXACT, rig_now_s=lambda: 0.0) as recorder:
        rig = SensorRig(recorder.tap({"cloud": cloud_of(two(depth_noise=0.002))}))
        rig.open(world)
        rig.reset(0.0, 7)
        for step in range(5):
            world.now_s = step / HZ
            world.base_from_box[0, 3] = 0.5 + 0.01 * step
            rig.tick(world.now_s)
            shown.append(rig.observe(world.now_s).to_dict())
        rig.close()
    again = stepped_rig(tmp_path / "a.mcap")
    again.open(None)
    again.reset(0.0, 0)
    for step, expected in enumerate(shown):
        again.tick(step / HZ)
        for key, value in again.observe(step / HZ).to_dict().items():
            np.testing.assert_array_equal(value, expected[key], err_msg=key)
    again.close()
