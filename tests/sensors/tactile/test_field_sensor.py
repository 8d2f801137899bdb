"""ForceFieldTouch against closed forms: what it reads of a box between two fingers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceive.build import build
from sensors.base import Touching
from sensors.errors import SensorError, SpecError
from sensors.frames import ForceFieldFrame
from sensors.geometry import FloatArray
from sensors.tactile.field_sensor import ForceFieldTouch
from tests.contracts import CONF, check_sensor, config_files, load_plain
from tests.sensors.tactile.grip_world import LEFT, Contact, GripWorld

GEL_M, AREA_M2 = 0.003, 0.016 * 0.016
NORMAL_N_M3, SHEAR_N_M3 = 6e7, 2e7
MINE = [path for path in config_files("sensor") if path.stem.startswith(("force_field", "taxels", "beads"))]


def _finger(side: str = "left", **changes: Any) -> ForceFieldTouch:
    sensor = build(load_plain(CONF / "sensor" / f"force_field_{side}.yaml") | {"noise_N": 0.0} | changes)
    assert isinstance(sensor, ForceFieldTouch)
    return sensor


def _opened(world: GripWorld, side: str = "left", **changes: Any) -> ForceFieldTouch:
    sensor = _finger(side, **changes)
    sensor.open(world)
    sensor.reset(np.random.default_rng(0))
    return sensor


def _sum(frame: ForceFieldFrame) -> FloatArray:
    """Force [3] on the finger in the base frame."""
    total: FloatArray = frame.base_from_pad[:3, :3] @ frame.force_N.sum((0, 1), dtype=float)
    return total


@pytest.mark.parametrize("path", MINE, ids=lambda path: path.stem)
def test_contract_in_a_grip(path: Path) -> None:
    """The contract once more with contacts, which the plain fake world does not have."""
    world = GripWorld()
    world.pinch(10.0, (0.0, 0.0, -1.0), (0.0, 0.0, -1.0))
    assert len(MINE) == 6
    check_sensor(build(load_plain(path)), world)


# ------------------------------------------------------------------------------------------------ the engine's load


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_field_adds_up_to_the_contact_forces(side: str) -> None:
    world = GripWorld()
    world.pinch(10.0, (0.5, 0.0, -2.0), (0.5, 0.0, -2.0))
    frame = _opened(world, side).read(0.0)
    away = -1.0 if side == "left" else 1.0  # the gripper points down, so the left finger is at the base's -y
    np.testing.assert_allclose(_sum(frame), (0.5, away * 10.0, -2.0), rtol=1e-5, atol=1e-6)
    assert frame.force_N[..., 2].max() < 0  # it presses everywhere
    np.testing.assert_allclose(frame.force_N[..., 2], -10.0 / 500, rtol=1e-5)  # a flat side presses evenly
    np.testing.assert_allclose(frame.force_N.sum((0, 1))[1], 2.0, rtol=1e-5)  # y of the picture is down


def test_two_fingers_share_what_rigid_contacts_put_on_one() -> None:
    """4 N of weight on the left finger alone, and an inner force sideways, in equilibrium: soft pads would do neither.

    Uneven pressure at the left finger holds the box upright: 12 N more below, and 9 N more on one side.
    """
    world = GripWorld()
    world.pinch(24.0, (1.5, 0.0, -4.0), (-1.5, 0.0, 0.0))
    for k, contact in enumerate(world.contacts[:4]):
        x, _, z = contact.point_m
        more = np.sign(z - 0.03) * 3.0 - np.sign(x - 0.5) * 2.25
        world.contacts[k] = Contact(LEFT, contact.point_m, np.add(contact.force_N, (0.0, more, 0.0)).tolist())
    whole = np.array([contact.force_N for contact in world.contacts])
    arms = np.array([contact.point_m for contact in world.contacts]) - (0.5, 0.0, 0.03)
    np.testing.assert_allclose(np.cross(arms, whole).sum(0), 0.0, atol=1e-9)
    assert whole[:4, 1].max() < 0
    for side in ("left", "right"):
        shear = _sum(_opened(world, side).read(0.0))[[0, 2]]
        np.testing.assert_allclose(shear, (0.0, -2.0), atol=1e-4)


def test_one_finger_alone_carries_its_contacts() -> None:
    world = GripWorld()
    world.pinch(10.0, (1.5, 0.0, -4.0), (0.0, 0.0, 0.0))
    world.contacts = [contact for contact in world.contacts if contact.link == LEFT]
    np.testing.assert_allclose(_sum(_opened(world).read(0.0)), (1.5, -10.0, -4.0), rtol=1e-5)


@pytest.mark.parametrize(("normal", "felt"), [((0.6, -0.8, 0.0), True), ((1.0, 0.0, 0.0), False)])
def test_contacts_at_the_side_of_a_finger_do_not_press_its_pad(normal: tuple[float, float, float], felt: bool) -> None:
    class Slanted(GripWorld):
        def touching(self, link: str, margin_m: float) -> list[Touching]:
            (found,) = super().touching(link, margin_m)
            return [dataclasses.replace(found, normals=np.array([normal]))]

    world = Slanted()
    world.contacts = [Contact(LEFT, (0.5, -0.03, 0.03), (0.0, -3.0, 0.0))]
    np.testing.assert_allclose(_sum(_opened(world).read(0.0)), (0.0, -3.0 if felt else 0.0, 0.0), atol=1e-6)


def test_what_only_stands_in_the_gel_is_left_to_the_other_kind_of_load() -> None:
    world = GripWorld()
    assert not _opened(world).read(0.0).force_N.any()
    assert _opened(world, load="gel").read(0.0).force_N.any()


def test_shear_is_held_while_the_load_is_held() -> None:
    world = GripWorld()
    world.pinch(10.0, (0.0, 0.0, -2.0), (0.0, 0.0, -2.0))
    sensor = _opened(world)
    first = sensor.read(0.0).force_N
    for k in range(5):
        np.testing.assert_allclose(sensor.read(k / 12).force_N, first, atol=1e-7)


def test_friction_limits_the_shear() -> None:
    """The world's coefficient, or the gel's own."""
    world = GripWorld(friction=0.1)
    world.pinch(10.0, (0.0, 0.0, -4.0), (0.0, 0.0, -4.0))
    assert _sum(_opened(world).read(0.0))[2] == pytest.approx(-1.0, rel=2e-3)
    assert _sum(_opened(world, friction=0.25).read(0.0))[2] == pytest.approx(-2.5, rel=2e-3)
    assert _sum(_opened(world, friction=0.5).read(0.0))[2] == pytest.approx(-4.0, rel=1e-4)
    assert _sum(_opened(world, friction=0.0).read(0.0))[2] == pytest.approx(0.0, abs=1e-6)


# --------------------------------------------------------------------------------------------------- the gel's load


@pytest.mark.parametrize("gap_m", [0.0, 0.001, 0.0029])
def test_the_gel_presses_by_its_stiffness(gap_m: float) -> None:
    frame = _opened(GripWorld(gap_m), load="gel", max_N=50.0).read(0.0)
    exact = NORMAL_N_M3 * (GEL_M - gap_m) * AREA_M2
    np.testing.assert_allclose(_sum(frame), (0.0, -exact, 0.0), rtol=1e-3, atol=1e-4)


def test_the_gel_is_dragged_along_and_holds() -> None:
    world = GripWorld(friction=10.0)
    sensor = _opened(world, load="gel")
    sensor.read(0.0)
    stiff = SHEAR_N_M3 * AREA_M2
    world.move_box(x_m=1e-4, z_m=-2e-4)
    for k in range(1, 6):  # at rest after the first: a law of velocity would read nothing
        np.testing.assert_allclose(_sum(sensor.read(k / 12))[[0, 2]], (1e-4 * stiff, -2e-4 * stiff), rtol=1e-4)
    world.move_box(x_m=-1e-4)
    np.testing.assert_allclose(_sum(sensor.read(0.5))[[0, 2]], (0.0, -2e-4 * stiff), rtol=1e-4, atol=1e-6)


def test_the_hand_may_move_instead_of_the_box() -> None:
    world = GripWorld(friction=10.0)
    sensor = _opened(world, load="gel")
    sensor.read(0.0)
    moved = world.base_from_tool.copy()
    moved[0, 3] -= 1e-4
    world.base_from_tool = moved
    assert _sum(sensor.read(0.1))[0] == pytest.approx(1e-4 * SHEAR_N_M3 * AREA_M2, rel=1e-4)


def test_both_moving_together_is_no_shear() -> None:
    world = GripWorld()
    sensor = _opened(world, load="gel")
    sensor.read(0.0)
    world.move_box(x_m=0.1, z_m=0.2)
    moved = world.base_from_tool.copy()
    moved[:3, 3] += (0.1, 0.0, 0.2)
    world.base_from_tool = moved
    assert np.abs(_sum(sensor.read(0.1))[[0, 2]]).max() < 1e-5


def test_the_gel_slips_at_coulombs_limit() -> None:
    world = GripWorld(friction=0.3)
    sensor = _opened(world, load="gel")
    pressed = -_sum(sensor.read(0.0))[1]
    world.move_box(x_m=0.004)
    assert _sum(sensor.read(0.1))[0] == pytest.approx(0.3 * pressed, rel=1e-4)


def test_reset_and_letting_go_forget() -> None:
    world = GripWorld(friction=10.0)
    sensor = _opened(world, load="gel")
    sensor.read(0.0)
    world.move_box(x_m=1e-4)
    assert abs(_sum(sensor.read(0.1))[0]) > 0.1
    world.gripper_m += 0.02
    assert not sensor.read(0.2).force_N.any()
    world.gripper_m -= 0.02
    assert abs(_sum(sensor.read(0.3))[0]) < 1e-6
    world.move_box(x_m=1e-4)
    assert abs(_sum(sensor.read(0.4))[0]) > 0.1
    sensor.reset(np.random.default_rng(0))
    assert abs(_sum(sensor.read(0.5))[0]) < 1e-6


# --------------------------------------------------------------------------------------------------------- the rest


def test_noise_stays_where_something_presses() -> None:
    world = GripWorld()
    world.pinch(10.0, (0.0, 0.0, -2.0), (0.0, 0.0, -2.0))
    world.move_box(x_m=0.03)  # only a part of the pad is covered
    clean, noisy = _opened(world).read(0.0).force_N, _opened(world, noise_N=0.003).read(0.0).force_N
    pressed = clean[..., 2] != 0
    assert 0 < pressed.sum() < pressed.size
    assert not noisy[~pressed].any()
    assert (noisy - clean)[pressed].std() == pytest.approx(0.003, rel=0.1)


def test_pieces_saturate() -> None:
    world = GripWorld()
    world.pinch(100.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    sensor = _opened(world, max_N=0.1)
    np.testing.assert_allclose(sensor.read(0.0).force_N[..., 2], -0.1)
    assert sensor.space["force_N"].contains(sensor.read(0.0).force_N)


@pytest.mark.parametrize(
    "wrong",
    [
        {"link": ""}, {"load": "wish"}, {"stiffness_N_m3": -1.0}, {"shear_stiffness_N_m3": 0.0}, {"friction": -0.1},
        {"friction": float("nan")}, {"max_N": 0.0}, {"noise_N": -1.0}, {"gel_m": float("nan")}, {"rows": 0},
        {"position_m": (0.0,)},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        _finger(**wrong)


def test_a_world_that_has_lost_its_numbers_is_refused() -> None:
    world = GripWorld()
    world.pinch(float("nan"), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    with pytest.raises(SpecError, match="NaN"):
        _opened(world).read(0.0)
    with pytest.raises(SensorError):
        _finger().read(0.0)
