"""Touch on real physics: what fingers feel of a weight that they hold, of slip, and of shapes, against closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.experts.base import down
from envs.robots.panda import Panda
from envs.world import PyBulletWorld
from perceive.build import build
from sensors.action import ActionMode
from sensors.errors import SpecError
from sensors.frames import ForceFieldFrame
from sensors.geometry import FloatArray, matrix_to_rotation_6d, pose
from sensors.pad import PadGrid
from sensors.tactile.field_sensor import ForceFieldTouch
from tests.contracts import CONF, load_plain

G_M_S2, RED = 9.81, (1.0, 0.0, 0.0, 1.0)
LEFT, RIGHT = "panda_leftfinger", "panda_rightfinger"
PAD_FRICTION = 1.5  # of the Panda's fingers


@dataclass(frozen=True, eq=False)
class Grip:
    """A Panda that holds a body in the air, at rest."""

    world: PyBulletWorld
    body: int
    mass_kg: float

    def feel(self, **changes: Any) -> list[ForceFieldTouch]:
        """Force fields on the left and on the right finger, without noise."""
        sensors = []
        for side in ("left", "right"):
            sensor = build(load_plain(CONF / "sensor" / f"force_field_{side}.yaml") | {"noise_N": 0.0} | changes)
            assert isinstance(sensor, ForceFieldTouch)
            sensor.open(self.world)
            sensor.reset(np.random.default_rng(0))
            sensors.append(sensor)
        return sensors


def _hold(kind: str, mass_kg: float, friction: float = 1.0, shift_m: float = 0.0, lift: bool = True) -> Iterator[Grip]:
    world, robot = PyBulletWorld(), Panda()
    robot.attach(world)
    world.add_box((0.5, 0.5, 0.02), (0.5, 0.0, -0.02), mass_kg=0.0, rgba=RED)
    place, how = (0.5 + shift_m, 0.0, 0.02), {"mass_kg": mass_kg, "rgba": RED, "friction": friction}
    if kind == "box":
        body = world.add_box((0.02, 0.02, 0.02), place, **how)  # type: ignore[arg-type]
    else:
        body = world.add_cylinder(0.02, 0.04, place, **how)  # type: ignore[arg-type]
    start = np.eye(4)
    start[:3, :3], start[:3, 3] = down(0.0), (0.5, 0.0, 0.02)
    robot.reset(start)
    spec = robot.action_spec(ActionMode.EE_POSE, 1 / 12)
    for height_m in [0.02] * 6 + ([0.1] * 16 if lift else []):
        robot.command(np.array([0.5, 0.0, height_m, *matrix_to_rotation_6d(down(0.0)), -1.0], np.float32), spec)
        world.step(20)
    assert world.body_position(body)[2] > (0.09 if lift else 0.019)
    yield Grip(world, body, mass_kg)
    world.close()


@pytest.fixture(scope="module")
def box() -> Iterator[Grip]:
    yield from _hold("box", 0.5)


@pytest.fixture(
    scope="module", params=[("box", 0.05), ("box", 0.2), ("box", 0.5), ("box", 1.0), ("cylinder", 0.5)], ids=str
)
def held(request: pytest.FixtureRequest) -> Iterator[Grip]:
    yield from _hold(*request.param)


def _sum(frame: ForceFieldFrame) -> FloatArray:
    """Force [3] on the finger in the base frame."""
    total: FloatArray = frame.base_from_pad[:3, :3] @ frame.force_N.sum((0, 1), dtype=float)
    return total


def _twist(frame: ForceFieldFrame) -> float:
    """Torque on the finger about the pad's +z through its middle."""
    rows, columns, _ = frame.force_N.shape
    height_m, width_m = frame.size_m.tolist()
    grid = PadGrid((0, 0, 0), (0, 0, 0, 1), rows, columns, height_m, width_m, 0.003)
    x, y = np.moveaxis(grid.places_m, -1, 0)
    return float((x * frame.force_N[..., 1] - y * frame.force_N[..., 0]).sum())


# -------------------------------------------------------------------------------------------------- a weight at rest


def test_each_finger_feels_half_of_the_weight(held: Grip) -> None:
    """At rest, and still after a while. (Shear by velocity would read 0; the engine gives one finger nearly all.)"""
    for sensor in held.feel():
        first = _sum(sensor.read(0.0))
        assert first[2] == pytest.approx(-held.mass_kg * G_M_S2 / 2, rel=0.03)
        assert abs(first[0]) < 0.02 * held.mass_kg * G_M_S2 + 0.01
        np.testing.assert_allclose(_sum(sensor.read(1.0)), first, atol=1e-6)


def test_fields_add_up_to_the_engines_forces(held: Grip) -> None:
    left, right = (_sum(sensor.read(0.0)) for sensor in held.feel())
    contacts = held.world.touching(LEFT, 0.004)[0]
    np.testing.assert_allclose(left + right, contacts.force_N.sum(axis=0), atol=0.02 * held.mass_kg * G_M_S2)
    assert (left + right)[2] == pytest.approx(-held.mass_kg * G_M_S2, rel=0.02)
    normal = np.einsum("ni,ni->n", contacts.force_N, contacts.normals)[contacts.links == 0].sum()
    assert -left[1] == pytest.approx(normal, rel=1e-3)
    assert -left[1] == pytest.approx(20.0, rel=0.01)  # what the gripper's motors press with


def test_a_weight_held_beside_its_middle_twists_the_pads() -> None:
    for grip in _hold("box", 0.3, shift_m=0.004):
        frames = [sensor.read(0.0) for sensor in grip.feel()]
        offset_m = grip.world.body_position(grip.body)[0] - frames[0].base_from_pad[0, 3]
        assert abs(offset_m) > 0.002
        # About the base's y; the pads look at each other along it.
        about_y = sum(_twist(frame) * frame.base_from_pad[1, 2] for frame in frames)
        assert about_y == pytest.approx(offset_m * grip.mass_kg * G_M_S2, rel=0.1)


# ---------------------------------------------------------------------------------------------------------------- slip


@pytest.mark.parametrize("friction", [0.2, 0.4])
def test_slip_starts_at_coulombs_limit(friction: float) -> None:
    """The grip is loosened by 1 % at a time until the cylinder slides out of the hand."""
    for grip in _hold("cylinder", 0.5, friction=friction):
        world, sensors = grip.world, grip.feel()
        mu = PAD_FRICTION * friction
        limit = grip.mass_kg * G_M_S2 / 2 / mu  # each finger's force that just holds it
        assert world.touching(LEFT, 0.004)[0].friction == pytest.approx(mu)
        joints = world.joint_state().position_rad.tolist()
        used = []
        for share in np.arange(1.15, 0.85, -0.01):
            before = world.body_position(grip.body)[2]
            world.drive(joints, [2.0] * 7, [87.0] * 7, 0.0, float(share * limit))
            world.step(20)
            if before - world.body_position(grip.body)[2] > 2e-4:
                break
            fields = [sensor.read(0.0).force_N for sensor in sensors]
            used.append(float(np.mean([
                np.linalg.norm(field[..., :2], axis=-1).sum() / (mu * -field[..., 2].sum()) for field in fields
            ])))  # fmt: skip
        assert share == pytest.approx(1.0, abs=0.03)
        assert used[-1] == pytest.approx(1.0, abs=0.05)  # the last field before it slid: friction is used up
        assert used[0] == pytest.approx(1 / 1.15, abs=0.03)
        assert all(later >= earlier - 0.01 for earlier, later in itertools.pairwise(used))


# -------------------------------------------------------------------------------------------------- the gel's own load


def test_a_gel_is_sheared_by_the_way_of_what_stands_in_it() -> None:
    """The pads stand 1 mm from a box, so the engine has no contact: springs alone, and springs that hold."""
    for grip in _hold("box", 0.5, lift=False):
        world = grip.world
        joints = world.joint_state().position_rad
        world.place_joints(joints, 0.042)
        world.drive(joints.tolist(), [2.0] * 7, [87.0] * 7, 0.042, 20.0)
        world.step(2)
        assert not grip.feel()[0].read(0.0).force_N.any()
        stands = world.body_pose(grip.body)
        middle, yaw_rad = stands[:3, 3], math.atan2(stands[1, 0], stands[0, 0])
        world.move_body(grip.body, middle, yaw_rad)  # upright to the last micrometre
        (sensor, other), area_m2 = grip.feel(load="gel", friction=5.0, max_N=50.0), 0.016**2
        still = sensor.read(0.0)
        both = still.force_N[..., 2].sum() + other.read(0.0).force_N[..., 2].sum()
        assert both == pytest.approx(-2 * 6e7 * 0.002 * area_m2, rel=0.02)
        assert np.abs(still.force_N[..., :2]).max() == 0
        way = np.array([2e-4, 0.0, -1e-4])
        world.move_body(grip.body, middle + way, yaw_rad)
        pulled = _sum(sensor.read(0.1))
        np.testing.assert_allclose(pulled[[0, 2]], 2e7 * area_m2 * way[[0, 2]], rtol=0.02)
        np.testing.assert_allclose(_sum(sensor.read(0.2)), pulled, atol=1e-6)


# ------------------------------------------------------------------------------------------------- what the world says


def test_what_touches_a_link(box: Grip) -> None:
    world = box.world
    (found,) = world.touching(LEFT, 0.004)
    (other,) = world.touching(RIGHT, 0.004)
    assert found.body == other.body == box.body
    assert found.friction == pytest.approx(PAD_FRICTION)
    np.testing.assert_allclose(found.base_from_body, world.body_pose(box.body), atol=1e-9)
    # Both list the same contacts, each with its own in front of the mind.
    np.testing.assert_array_equal(found.points_m, other.points_m)
    np.testing.assert_array_equal(found.links == 0, other.links != 0)
    assert 2 <= (found.links == 0).sum() < len(found.links)
    np.testing.assert_allclose(np.abs(found.points_m[:, 1]), 0.02, atol=1e-3)
    np.testing.assert_allclose(np.sign(found.normals[:, 1]), np.where(found.links == 0, -1.0, 1.0))
    assert world.touching("panda_link3", 0.004) == []
    with pytest.raises(SpecError, match="Did you mean 'panda_leftfinger'"):
        world.touching("panda_leftfingr", 0.004)


def test_a_sensor_on_an_unknown_link_says_so(box: Grip) -> None:
    sensor = box.feel(link="panda_leftfingr")[0]
    with pytest.raises(SpecError, match="panda_leftfinger"):
        sensor.read(0.0)


def test_rays_may_be_cast_at_some_bodies_only() -> None:
    world = PyBulletWorld()
    near = world.add_box((0.1, 0.1, 0.1), (1.0, 0.0, 0.0), mass_kg=0.0, rgba=RED)
    far = world.add_box((0.1, 0.1, 0.1), (2.0, 0.0, 0.0), mass_kg=0.0, rgba=RED)
    start, end = np.zeros((1, 3)), np.array([[5.0, 0.0, 0.0]])
    for bodies, distance in ((None, 0.9), ([near, far], 0.9), ([far], 1.9), ([], math.inf)):
        assert world.ray_cast(start, end, bodies=bodies)[0] == pytest.approx(distance)
    world.close()


def test_two_bodies_on_one_pad_are_sheared_each_by_its_own_way() -> None:
    """One box beside the other in front of the left pad; only one of them moves."""
    world, robot = PyBulletWorld(), Panda()
    robot.attach(world)
    start = np.eye(4)
    start[:3, :3], start[:3, 3] = down(0.0), (0.5, 0.0, 0.2)
    robot.reset(start)
    grip = Grip(world, -1, 0.0)
    sensor = grip.feel(load="gel", friction=50.0, max_N=50.0)[0]
    pad = sensor.read(0.0).base_from_pad
    boxes = []
    for side in (-1.0, 1.0):  # their faces stand 1 mm deep in the gel
        middle = pad[:3, 3] + 0.0105 * side * pad[:3, 0] + 0.012 * pad[:3, 2]
        boxes.append(world.add_box((0.01, 0.01, 0.02), middle, mass_kg=0.0, rgba=RED, friction=1.0))
    sensor.read(0.0)
    world.move_body(boxes[1], world.body_position(boxes[1]) + 1e-4 * pad[:3, 0])
    field = sensor.read(0.1).force_N
    piece = 2e7 * 0.016**2 / 500 * 1e-4
    assert (field[:, [0, -1], 2] < 0).all()
    np.testing.assert_allclose(field[:, :12, 0], 0.0, atol=1e-9)
    np.testing.assert_allclose(field[:, 14:, 0], piece, rtol=1e-3)
    world.close()


# -------------------------------------------------------------------------------------------------------------- shapes


def _ball_file(folder: Path, radius_m: float) -> Path:
    path = folder / "ball.urdf"
    shape = f'<geometry><sphere radius="{radius_m}"/></geometry>'
    inertial = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
    path.write_text(f'<robot name="ball"><link name="ball"><collision>{shape}</collision>{inertial}</link></robot>')
    return path


@pytest.mark.parametrize("pixels", [64, 128, 320])
def test_heights_are_those_of_the_shapes(pixels: int, tmp_path: Path) -> None:
    """A ball, a lying cylinder and a box that stand 0.8 mm deep in the gel, to two micrometres; really to rounding."""
    size, gel_m, depth_m, radius_m = 0.016, 0.003, 0.0008, 0.004
    grid = PadGrid((0, 0, 0), (0, 0, 0, 1), pixels, pixels, size, size, gel_m)
    middles = ((np.arange(pixels) + 0.5) / pixels - 0.5) * size
    x, y = np.meshgrid(middles, middles)
    world = PyBulletWorld()
    above = gel_m - depth_m  # where their lowest points are, over the hard pad
    world.add_articulated(_ball_file(tmp_path, radius_m), (0.0, 0.0, above + radius_m))
    pad = pose((0.0, 0.0, 0.0))
    got = np.clip(grid.reach_m(world, pad), 0.0, gel_m)
    exact = np.clip(depth_m - radius_m + np.sqrt(np.maximum(radius_m**2 - x**2 - y**2, 0.0)), 0.0, gel_m)
    assert np.abs(got - exact).mean() < 2e-6
    assert np.abs(got - exact).max() < 1e-8
    # A cylinder stands upright in the world, so the pad is turned to look at its side: the pad's y along its axis.
    cylinder = world.add_cylinder(radius_m, 0.1, (1.0, 0.0, 0.0), mass_kg=0.0, rgba=RED)
    pad = pose((1.0, -(above + radius_m), 0.0), (math.sin(-math.pi / 4), 0.0, 0.0, math.cos(-math.pi / 4)))
    got = np.clip(grid.reach_m(world, pad, [cylinder]), 0.0, gel_m)
    exact = np.clip(depth_m - radius_m + np.sqrt(np.maximum(radius_m**2 - x**2, 0.0)), 0.0, gel_m)
    assert np.abs(got - exact).max() < 1e-8
    box = world.add_box((0.003, 0.005, 0.01), (2.0, 0.0, above + 0.01), mass_kg=0.0, rgba=RED)
    got = np.clip(grid.reach_m(world, pose((2.0, 0.0, 0.0)), [box]), 0.0, gel_m)
    np.testing.assert_allclose(got, np.where((np.abs(x) < 0.003) & (np.abs(y) < 0.005), depth_m, 0.0), atol=1e-8)
    world.close()
