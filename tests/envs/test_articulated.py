"""Bodies with joints of their own: what drives their joints, against closed forms, and that they are remembered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from envs.world import PyBulletWorld
from sensors.errors import SpecError

G = 9.81
HZ = 240.0
# A housing of 20 cm whose centre of mass is off its frame, and a slider of 0.5 kg that moves along z 30 cm above it.
SLIDER = """<robot name="slider">
  <link name="housing">
    <inertial><origin xyz="0.02 0 0.1"/><mass value="2"/>INERTIA</inertial>
    <visual><origin xyz="0 0 0.1"/><geometry><box size="0.2 0.2 0.2"/></geometry></visual>
    <collision><origin xyz="0 0 0.1"/><geometry><box size="0.2 0.2 0.2"/></geometry></collision>
  </link>
  <link name="slider">
    <inertial><origin xyz="0.3 0 0.01"/><mass value="0.5"/>INERTIA</inertial>
    <visual><origin xyz="0.3 0 0"/><geometry><box size="0.1 0.1 0.04"/></geometry></visual>
    <collision><origin xyz="0.3 0 0"/><geometry><box size="0.1 0.1 0.04"/></geometry></collision>
  </link>
  <joint name="slide" type="prismatic">
    <parent link="housing"/><child link="slider"/><origin xyz="0 0 0.3"/><axis xyz="0 0 1"/>
    <limit lower="-0.25" upper="0.2" effort="100" velocity="10"/>
  </joint>
</robot>""".replace("INERTIA", '<inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/>')
# A lever of 0.4 kg and 0.3 m, its mass in its middle, that turns about y; at 0 it points along x.
LEVER = """<robot name="lever">
  <link name="post"><inertial><mass value="1"/>INERTIA</inertial></link>
  <link name="lever">
    <inertial><origin xyz="0.15 0 0"/><mass value="0.4"/>INERTIA</inertial>
    <collision><origin xyz="0.15 0 0"/><geometry><box size="0.3 0.02 0.02"/></geometry></collision>
  </link>
  <joint name="hinge" type="revolute">
    <parent link="post"/><child link="lever"/><origin xyz="0 0 1"/><axis xyz="0 1 0"/>
    <limit lower="-1.5" upper="1.5" effort="100" velocity="10"/>
  </joint>
</robot>""".replace("INERTIA", '<inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/>')


@pytest.fixture
def world() -> Iterator[PyBulletWorld]:
    built = PyBulletWorld()
    yield built
    built.close()


@pytest.fixture
def slider(tmp_path: Path) -> Path:
    path = tmp_path / "slider.urdf"
    path.write_text(SLIDER)
    return path


def test_a_free_joint_falls_and_dry_friction_and_a_weak_motor_hold_it_back(world: PyBulletWorld, slider: Path) -> None:
    """Fallen after n steps of semi-implicit Euler: a n (n + 1) / (2 hz^2)."""
    held_back = {"free": {}, "friction": {"friction_N": 3.0}, "motor": {"force_N": 3.0, "position_gain": 0.0}}
    bodies = {name: world.add_articulated(slider, (k, 0.0, 0.0)) for k, name in enumerate(held_back)}
    for name, settings in held_back.items():
        world.drive_body_joint(bodies[name], "slide", **settings)
    steps = 30
    world.step(steps)
    for name, body in bodies.items():
        acceleration = G - (0.0 if name == "free" else 3.0 / 0.5)
        fallen = acceleration * steps * (steps + 1) / (2 * HZ**2)
        assert world.body_joint(body, "slide") == pytest.approx(-fallen, rel=1e-4), name


def test_a_motor_and_friction_hold_against_less_than_their_force(world: PyBulletWorld, slider: Path) -> None:
    motor, friction = (world.add_articulated(slider, (x, 0.0, 0.0)) for x in (0.0, 1.0))
    world.drive_body_joint(motor, "slide", target=0.1, force_N=8.0)
    world.drive_body_joint(friction, "slide", friction_N=8.0)
    world.step(240)
    assert world.body_joint(motor, "slide") == pytest.approx(0.1, abs=2e-3)
    assert world.body_joint(friction, "slide") == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("stiffness", [100.0, 400.0])
def test_a_spring_rests_where_it_carries_the_weight(world: PyBulletWorld, slider: Path, stiffness: float) -> None:
    body = world.add_articulated(slider, (0.4, 0.0, 0.0), yaw_rad=0.5)
    world.drive_body_joint(body, "slide", target=0.05, stiffness=stiffness, damping=8.0)
    world.step(600)
    assert world.body_joint(body, "slide") == pytest.approx(0.05 - 0.5 * G / stiffness, abs=1e-5)


def test_an_undamped_spring_swings_with_its_period(world: PyBulletWorld, slider: Path) -> None:
    body = world.add_articulated(slider, (0.0, 0.0, 0.0))
    world.drive_body_joint(body, "slide", stiffness=50.0)
    rest = -0.5 * G / 50.0
    positions = []
    for _ in range(480):
        world.step()
        positions.append(world.body_joint(body, "slide") - rest)
    crossings = np.flatnonzero(np.diff(np.sign(positions)))
    assert np.diff(crossings).mean() / HZ == pytest.approx(math.pi * math.sqrt(0.5 / 50.0), rel=0.01)


def test_a_damper_lets_it_sink_at_its_final_speed(world: PyBulletWorld, slider: Path) -> None:
    body = world.add_articulated(slider, (0.0, 0.0, 0.0))
    world.set_body_joint(body, "slide", 0.2)
    world.drive_body_joint(body, "slide", damping=20.0)
    world.step(120)
    before = world.body_joint(body, "slide")
    world.step(120)
    assert before - world.body_joint(body, "slide") == pytest.approx(0.5 * 0.5 * G / 20.0, rel=1e-4)


def test_a_hinge_spring_carries_a_lever(world: PyBulletWorld, tmp_path: Path) -> None:
    path = tmp_path / "lever.urdf"
    path.write_text(LEVER)
    body = world.add_articulated(path, (0.0, 0.0, 0.0))
    world.drive_body_joint(body, "hinge", stiffness=2.0, damping=0.1)
    world.step(1200)
    angle = world.body_joint(body, "hinge")  # about +y, so that the lever sinks at positive angles
    assert 2.0 * angle == pytest.approx(0.4 * G * 0.15 * math.cos(angle), rel=1e-3)
    assert angle > 0.2


def test_joints_stop_at_their_limits(world: PyBulletWorld, slider: Path) -> None:
    body = world.add_articulated(slider, (0.0, 0.0, 0.0))
    world.step(240)
    assert world.body_joint(body, "slide") == pytest.approx(-0.25, abs=2e-3)


def test_links_are_where_the_joint_and_the_body_put_them(world: PyBulletWorld, slider: Path) -> None:
    body = world.add_articulated(slider, (1.0, 2.0, 0.1), yaw_rad=math.pi / 2)
    turned = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for value in (0.0, 0.15):
        world.set_body_joint(body, "slide", value)
        housing, moved = world.body_link_pose(body, "housing"), world.body_link_pose(body, "slider")
        np.testing.assert_allclose(housing[:3, 3], (1.0, 2.0, 0.1), atol=1e-6)
        np.testing.assert_allclose(moved[:3, 3], (1.0, 2.0, 0.1 + 0.3 + value), atol=1e-6)
        for found in (housing, moved):
            np.testing.assert_allclose(found[:3, :3], turned, atol=1e-6)
    world.move_body(body, (0.0, -1.0, 0.0), 0.0)
    np.testing.assert_allclose(world.body_link_pose(body, "housing")[:3, 3], (0.0, -1.0, 0.0), atol=1e-6)
    np.testing.assert_allclose(world.body_link_pose(body, "slider")[:3, 3], (0.0, -1.0, 0.45), atol=1e-6)


def test_setting_a_joint_stops_it(world: PyBulletWorld, slider: Path) -> None:
    body = world.add_articulated(slider, (0.0, 0.0, 0.0))
    world.step(30)
    world.set_body_joint(body, "slide", 0.1)
    world.step(1)
    assert world.body_joint(body, "slide") == pytest.approx(0.1 - G / HZ**2, abs=1e-6)


def test_rays_meet_its_links_where_they_are(world: PyBulletWorld, slider: Path) -> None:
    body = world.add_articulated(slider, (1.0, 0.0, 0.0), yaw_rad=math.pi / 2)
    # The slider's box stands 0.3 m beside the frame, after the turn along y; its top is 2 cm above its frame.
    down = np.array([[1.0, 0.3, 2.0], [1.0, 0.0, 2.0], [1.0, 0.36, 2.0]])
    for value in (0.0, 0.2):
        world.set_body_joint(body, "slide", value)
        found = world.ray_cast(down, down - (0.0, 0.0, 3.0))
        np.testing.assert_allclose(found, (2.0 - 0.32 - value, 1.8, np.inf), atol=1e-6)
    world.move_body(body, (1.0, 0.5, 0.0), math.pi / 2)
    beside = down + np.array([0.0, 0.5, 0.0])
    np.testing.assert_allclose(world.ray_cast(beside, beside - (0.0, 0.0, 3.0))[1], 1.8, atol=1e-6)


def test_restore_brings_joints_and_their_drives_back(world: PyBulletWorld, slider: Path) -> None:
    stays = world.add_articulated(slider, (0.0, 0.0, 0.0))
    world.drive_body_joint(stays, "slide", stiffness=200.0, damping=8.0)
    world.set_body_joint(stays, "slide", 0.1)
    world.remember()

    def episode() -> list[float]:
        seen = []
        comes = world.add_articulated(slider, (1.0, 0.0, 0.0))
        world.drive_body_joint(comes, "slide", stiffness=80.0, damping=2.0)
        for _ in range(40):
            world.step(3)
            seen += [world.body_joint(stays, "slide"), world.body_joint(comes, "slide")]
        world.drive_body_joint(stays, "slide", friction_N=100.0)
        world.set_body_joint(stays, "slide", -0.2)
        world.remove(comes)
        world.restore()
        return seen

    first = episode()
    assert world.body_joint(stays, "slide") == pytest.approx(0.1)
    assert episode() == first
    assert min(first) < 0.0
    assert max(first) > 0.05


def test_a_removed_body_leaves_nothing_behind_for_the_next_one(world: PyBulletWorld, slider: Path) -> None:
    body = world.add_articulated(slider, (0.0, 0.0, 0.0))
    world.drive_body_joint(body, "slide", stiffness=300.0)
    start = np.array([[0.0, 0.0, 2.0]])
    assert world.ray_cast(start, -start) == pytest.approx(1.8)
    world.remove(body)
    assert np.isinf(world.ray_cast(start, -start)).all()
    again = world.add_box((0.05, 0.05, 0.05), (0.0, 0.0, 1.0), mass_kg=1.0, rgba=(1, 1, 1, 1))
    assert again == body, "the server gives numbers anew; without that this test shows nothing"
    assert world.ray_cast(start, -start) == pytest.approx(0.95)
    world.step(10)
    world.move_body(again, (0.0, 0.0, 1.5))
    assert world.body_position(again)[2] == pytest.approx(1.5)
    with pytest.raises(SpecError, match="articulated"):
        world.body_joint(again, "slide")


def test_one_link_or_all_take_another_colour(world: PyBulletWorld, slider: Path) -> None:
    from sensors.geometry import intrinsics_from_fov, look_at

    body = world.add_articulated(slider, (0.0, 0.0, 0.0))
    camera, intrinsics = look_at((1.5, -1.0, 0.7), (0.1, 0.0, 0.2)), intrinsics_from_fov(96, 96, 45.0)

    def red() -> str:
        """How much of the body is red."""
        picture = world.render(camera, intrinsics, 96, 96, 0.05, 5.0)
        colours = picture.rgb[picture.body == body].astype(int)
        share = (colours[:, 0] > colours[:, 1] + 60).mean()
        return {0.0: "nothing", 1.0: "all"}.get(float(share), "some")

    world.recolour(body, (1.0, 1.0, 1.0, 1.0))
    assert red() == "nothing"
    world.recolour(body, (1.0, 0.0, 0.0, 1.0), "slider")
    assert red() == "some"
    world.recolour(body, (1.0, 0.0, 0.0, 1.0))
    assert red() == "all"
    world.recolour(body, (1.0, 1.0, 1.0, 1.0))
    assert red() == "nothing"


def test_mistakes_are_named(world: PyBulletWorld, slider: Path, tmp_path: Path) -> None:
    body = world.add_articulated(slider, (0.0, 0.0, 0.0))
    with pytest.raises(SpecError, match="Did you mean 'slide'"):
        world.set_body_joint(body, "slid", 0.0)
    with pytest.raises(SpecError, match="Did you mean 'housing'"):
        world.body_link_pose(body, "housin")
    with pytest.raises(SpecError, match="Did you mean 'slider'"):
        world.recolour(body, (1, 1, 1, 1), "slidr")
    with pytest.raises(SpecError, match="stiffness"):
        world.drive_body_joint(body, "slide", stiffness=-1.0)
    with pytest.raises(SpecError, match="motor or dry friction"):
        world.drive_body_joint(body, "slide", force_N=1.0, friction_N=1.0)
    with pytest.raises(SpecError, match=r"nothing\.urdf"):
        world.add_articulated(tmp_path / "nothing.urdf", (0.0, 0.0, 0.0))
