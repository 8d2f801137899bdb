"""The IMU against closed forms of motion, and on real physics; its errors have a file of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.build import build
from sensors.errors import SensorError, SpecError
from sensors.frames import ImuFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix, invert, pose
from sensors.imu import Imu
from sensors.rig import SensorRig
from tests.contracts import CONF, build_sensor, load_env, load_plain
from tests.fake_world import FakeWorld
from tests.sensors.imu_motion import MIDDLE, MOUNT, QUIET, G, gravity_in, imu, spin, started

# ------------------------------------------------------------------------------------------------------------ motion


@given(st.tuples(*[st.floats(-1.0, 1.0)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
@settings(max_examples=30)
def test_at_rest_it_reads_g_upwards(quaternion: tuple[float, ...]) -> None:
    sensor = started(imu(link="panda_hand", quaternion_xyzw=quaternion))
    for now_s in (0.0, 0.01, 0.5):
        frame = sensor.read(now_s)
        np.testing.assert_allclose(frame.base_from_imu[:3, :3] @ frame.accel_m_s2, [0, 0, G], atol=1e-12)
        np.testing.assert_array_equal(frame.gyro_rad_s, 0.0)


def test_its_pose_is_that_of_the_mount_on_the_link() -> None:
    world = FakeWorld(tool_m=(0.4, 0.1, 0.3))
    frame = started(imu(), world).read(0.0)
    expected = world.link_pose("tool") @ pose(MOUNT["position_m"], MOUNT["quaternion_xyzw"])
    np.testing.assert_allclose(frame.base_from_imu, expected)


@given(
    acceleration=st.tuples(*[st.floats(-30.0, 30.0)] * 3),
    velocity=st.tuples(*[st.floats(-3.0, 3.0)] * 3),
    rate_hz=st.floats(5.0, 1000.0),
)
@settings(max_examples=40)
def test_constant_acceleration_is_read_exactly(
    acceleration: tuple[float, ...], velocity: tuple[float, ...], rate_hz: float
) -> None:
    world, sensor = FakeWorld(), imu(rate_hz)
    started(sensor, world)
    start = world.base_from_tool.copy()
    for k in range(4):
        t = k / rate_hz
        world.base_from_tool[:3, 3] = start[:3, 3] + np.array(velocity) * t + np.array(acceleration) * t**2 / 2
        world.tool_m_s = np.array(velocity) + np.array(acceleration) * t
        frame = sensor.read(t)
        if k == 0:  # nothing is known of the change of velocity yet
            np.testing.assert_allclose(frame.accel_m_s2, gravity_in(frame.base_from_imu), atol=1e-12)
        else:
            expected = gravity_in(frame.base_from_imu) + frame.base_from_imu[:3, :3].T @ acceleration
            np.testing.assert_allclose(frame.accel_m_s2, expected, atol=1e-9)
        np.testing.assert_array_equal(frame.gyro_rad_s, 0.0)


def test_in_free_fall_it_reads_nothing() -> None:
    world = FakeWorld()
    sensor = started(imu(), world)
    for k in range(3):
        world.tool_m_s = np.array([0.0, 0.0, -G * k / 100])
        frame = sensor.read(k / 100)
    np.testing.assert_allclose(frame.accel_m_s2, 0.0, atol=1e-9)


@given(
    rate=st.tuples(*[st.floats(-4.0, 4.0)] * 3),
    arm=st.tuples(*[st.floats(-1.0, 1.0)] * 3),
    rate_hz=st.sampled_from([10.0, 120.0, 1000.0]),
)
@settings(max_examples=40)
def test_uniform_rotation_is_read_exactly(rate: tuple[float, ...], arm: tuple[float, ...], rate_hz: float) -> None:
    """Centripetal acceleration w x (w x r) of the IMU's own place, to rounding, however seldom it is read."""
    world, sensor = FakeWorld(), imu(rate_hz)
    spin(world, 0.0, np.array(rate), np.array(arm))
    started(sensor, world)
    for k in range(4):
        spin(world, k / rate_hz, np.array(rate), np.array(arm))
        frame = sensor.read(k / rate_hz)
        to_base = frame.base_from_imu[:3, :3]
        centripetal = np.cross(rate, np.cross(rate, frame.base_from_imu[:3, 3] - MIDDLE))
        np.testing.assert_allclose(to_base @ frame.accel_m_s2, centripetal + np.array([0, 0, G]), atol=1e-9)
        np.testing.assert_allclose(to_base @ frame.gyro_rad_s, rate, atol=1e-12)


def test_in_any_motion_it_lags_by_half_an_interval() -> None:
    """A swing: the error halves with the interval, and is mostly gone for the moment half an interval earlier."""

    def errors(rate_hz: float) -> tuple[float, ...]:
        world, sensor = FakeWorld(), imu(rate_hz)
        swing(world, 0.0)
        started(sensor, world)
        now, before = [], []
        for k in range(round(rate_hz)):
            t = k / rate_hz
            swing(world, t)
            frame = sensor.read(t)
            if k:
                now.append(frame.accel_m_s2 - felt(t))
                before.append(frame.accel_m_s2 - felt(t - 0.5 / rate_hz))
        return tuple(float(np.linalg.norm(part, axis=-1).max()) for part in (now, before))

    def swing(world: FakeWorld, t: float) -> None:
        world.base_from_tool = np.eye(4)
        world.base_from_tool[:3, 3] = [0.3 * np.sin(4 * t), 0.0, 0.0]
        world.tool_m_s = np.array([1.2 * np.cos(4 * t), 0.0, 0.0])

    def felt(t: float) -> FloatArray:
        to_imu = pose(quaternion_xyzw=MOUNT["quaternion_xyzw"])[:3, :3].T
        return np.asarray(to_imu @ np.array([-4.8 * np.sin(4 * t), 0.0, G]))

    coarse, coarse_before = errors(50.0)
    fine, _ = errors(100.0)
    assert coarse == pytest.approx(4.8 * 4 * 0.5 / 50, rel=0.1)  # half an interval times the greatest jerk
    assert fine == pytest.approx(coarse / 2, rel=0.1)
    assert coarse_before < coarse / 50


def test_every_episode_begins_without_a_past() -> None:
    world = FakeWorld()
    sensor = started(imu(), world)
    world.tool_m_s = np.array([1.0, 0.0, 0.0])
    sensor.read(0.0)
    world.tool_m_s = np.zeros(3)
    sensor.reset(np.random.default_rng(0))
    frame = sensor.read(0.01)
    np.testing.assert_allclose(frame.accel_m_s2, gravity_in(frame.base_from_imu), atol=1e-12)
    again = sensor.read(0.01)  # twice at one moment: no interval, so no change
    np.testing.assert_allclose(again.accel_m_s2, frame.accel_m_s2, atol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"link": ""},
        {"position_m": (0.0, 0.0)},
        {"quaternion_xyzw": (0.0, 0.0, 1.0)},
        {"accel_density_m_s2_rt_hz": -1.0},
        {"accel_walk_m_s3_rt_hz": -1.0},
        {"accel_bias_m_s2": float("inf")},
        {"accel_range_m_s2": 0.0},
        {"gyro_density_rad_s_rt_hz": -1.0},
        {"gyro_walk_rad_s2_rt_hz": -1.0},
        {"gyro_bias_rad_s": -1.0},
        {"gyro_range_rad_s": 0.0},
        {"misalignment_deg": -1.0},
        {"gravity_m_s2": -9.81},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        imu(**wrong)


def test_it_needs_a_world_and_a_start() -> None:
    with pytest.raises(SensorError, match=r"Imu\.open"):
        imu().open(None)
    sensor = imu()
    sensor.open(FakeWorld())
    with pytest.raises(SensorError, match=r"Imu\.read"):
        sensor.read(0.0)


def test_a_rig_shows_all_readings_of_a_control_period() -> None:
    sensor = build_sensor(CONF / "sensor" / "imu.yaml")
    rig = SensorRig({"imu": sensor})
    rig.open(FakeWorld())
    rig.reset(0.0, seed=0)
    for step in range(21):
        rig.tick(step / 240)
    stream = rig.observe(20 / 240).streams["imu"]
    assert stream.valid.all()
    np.testing.assert_allclose(stream.age_s, np.arange(9, -1, -1) / 120, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(stream.data["accel_m_s2"], axis=-1), G, atol=0.3)


# ----------------------------------------------------------------------------------------------------------- physics


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    made = build(load_env("lift", rig="state"))
    made.reset(seed=0)
    yield made
    made.close()


def _on_the_hand(env: Any, **changed: Any) -> Imu:
    env.reset(seed=0)
    sensor = build(load_plain(CONF / "sensor" / "imu.yaml") | QUIET | changed)
    assert isinstance(sensor, Imu)
    sensor.open(env.world)
    sensor.reset(np.random.default_rng(0))
    return sensor


def _drive(env: Any, speed_rad_s: float) -> None:
    """Turn the first joint, the arm's vertical axis, as fast as that; hold the others."""
    world = env.world
    target = world.joint_state().position_rad.tolist()
    target[0] = 2.0
    world.drive(target, [speed_rad_s] + [2.0] * 6, [300.0] * 7, 0.08, 20.0)


@pytest.mark.parametrize("link", ["panda_link4", "panda_hand", "tool", "panda_leftfinger"])
def test_the_velocity_of_a_link_is_the_change_of_its_pose(env: Any, link: str) -> None:
    env.reset(seed=0)
    world = env.world
    _drive(env, 1.0)
    world.step(60)
    start = world.link_pose(link)
    before = world.link_velocity(link)
    world.step(1)
    end, after = world.link_pose(link), world.link_velocity(link)
    moved = (end[:3, 3] - start[:3, 3]) * 240
    assert np.linalg.norm(moved) > 0.05
    # The simulator moves things by the velocity at the end of its step, to first order.
    np.testing.assert_allclose(moved, after[0], atol=0.02 * float(np.linalg.norm(moved)))
    turned = end[:3, :3] @ start[:3, :3].T
    vector = np.array([turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0], turned[1, 0] - turned[0, 1]]) / 2
    np.testing.assert_allclose(vector * 240, (before[1] + after[1]) / 2, atol=0.02)


def test_links_without_motion_and_without_name(env: Any) -> None:
    env.reset(seed=0)
    for part in env.world.link_velocity("panda_link0"):
        np.testing.assert_allclose(part, 0.0, atol=1e-9)
    with pytest.raises(SpecError, match="panda_hand"):
        env.world.link_velocity("panda_hnad")
    with pytest.raises(SpecError, match="panda_hand"):
        imu(link="panda_hnad").open(env.world)


def test_on_the_robot_at_rest_it_reads_g_upwards(env: Any) -> None:
    sensor = _on_the_hand(env)
    env.world.step(240)
    sensor.read(env.world.time_s)
    env.world.step(2)
    frame = sensor.read(env.world.time_s)
    np.testing.assert_allclose(frame.base_from_imu[:3, :3] @ frame.accel_m_s2, [0, 0, G], atol=0.05)
    np.testing.assert_allclose(frame.gyro_rad_s, 0.0, atol=0.005)
    assert frame.accel_m_s2[2] < -9.7  # the hand points down


def test_on_the_turning_robot_it_reads_the_centripetal_acceleration(env: Any) -> None:
    sensor = _on_the_hand(env)
    _drive(env, 1.0)
    env.world.step(120)
    frames: list[ImuFrame] = []
    for _ in range(60):
        env.world.step(2)
        frames.append(sensor.read(env.world.time_s))
    outwards, upwards, along, rates = [], [], [], []
    for frame in frames[1:]:
        radius = np.array([*frame.base_from_imu[:2, 3], 0.0])
        unit = radius / np.linalg.norm(radius)
        felt = frame.base_from_imu[:3, :3] @ frame.accel_m_s2
        rate = (frame.base_from_imu[:3, :3] @ frame.gyro_rad_s)[2]
        outwards.append(felt @ unit / (rate**2 * np.linalg.norm(radius)))
        upwards.append(felt[2])
        along.append(felt @ np.cross([0.0, 0.0, 1.0], unit))
        rates.append(rate)
    assert np.mean(rates) == pytest.approx(1.0, abs=0.02)
    assert np.mean(outwards) == pytest.approx(-1.0, abs=0.05)
    assert np.mean(upwards) == pytest.approx(G, abs=0.05)
    assert np.mean(along) == pytest.approx(0.0, abs=0.05)


def test_its_readings_add_up_to_the_motion(env: Any) -> None:
    """Dead reckoning over half a second of acceleration: from the first pose, by what was read alone."""
    sensor = _on_the_hand(env)
    world = env.world
    sensor.read(world.time_s)
    start = sensor.read(world.time_s).base_from_imu
    _drive(env, 1.0)
    turn, velocity, place = start[:3, :3].copy(), np.zeros(3), start[:3, 3].copy()
    step_s = 1 / 240
    for _ in range(120):
        world.step(1)
        frame = sensor.read(world.time_s)
        turn = turn @ axis_angle_to_matrix(frame.gyro_rad_s * step_s)
        velocity = velocity + (turn @ frame.accel_m_s2 - np.array([0.0, 0.0, G])) * step_s
        place = place + velocity * step_s
    end = frame.base_from_imu
    travelled = float(np.linalg.norm(end[:3, 3] - start[:3, 3]))
    assert travelled > 0.15
    np.testing.assert_allclose(place, end[:3, 3], atol=0.02 * travelled)
    np.testing.assert_allclose(
        (invert(end) @ np.vstack([np.c_[turn, place], [0, 0, 0, 1]]))[:3, :3], np.eye(3), atol=0.01
    )
