"""The copy of a scene in which the robot is tried elsewhere: its distances, and that it leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from envs.collision import CollisionScene, Nearness, Part
from envs.planner import REACHED
from sensors.geometry import FloatArray
from tests.envs.planner_site import GOAL, TIP_M, Site, at, wall
from tests.envs.test_articulated import SLIDER


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(x: float = 0.5, y: float = -0.2, z: float = 0.1) -> Site:
        made.append(Site(at(x, y, z)))
        return made[-1]

    yield make
    for one in made:
        one.world.close()


def nearest(found: Iterator[Nearness], part: Part, body: int) -> float:
    return min((n.distance_m for n in found if n.part is part and n.body == body), default=math.inf)


def test_distances_are_those_of_the_shapes(site: Callable[..., Site], tmp_path: Path) -> None:
    here = site(0.5, 0.0, 0.2)
    world = here.world
    box = here.box((0.1, 0.1, 0.02), (0.5, 0.0, 0.13))  # its top at 0.15
    urdf = tmp_path / "slider.urdf"
    urdf.write_text(SLIDER)
    tip = 0.2 - TIP_M

    def near(within_m: float = 0.3) -> Iterator[Nearness]:
        return world.collision_scene().near(here.start_rad, within_m)

    assert nearest(near(), Part.HAND, box) == pytest.approx(tip - 0.15, abs=2e-4)
    assert nearest(near(0.03), Part.HAND, box) == math.inf
    world.move_body(box, (0.5, 0.0, 0.12))
    assert nearest(near(), Part.HAND, box) == pytest.approx(tip - 0.14, abs=2e-4)
    slider = world.add_articulated(urdf, (0.5 - 0.3, 0.0, -0.3))  # the box that it moves is under the fingers
    for value in (0.02, 0.1):
        world.set_body_joint(slider, "slide", value)
        assert nearest(near(), Part.HAND, slider) == pytest.approx(tip - value - 0.02, abs=2e-4)
    world.remove(slider)
    world.remove(box)
    assert nearest(near(), Part.HAND, box) == math.inf
    again = here.box((0.1, 0.1, 0.02), (0.5, 0.0, 0.15))
    assert again == box, "the server gives numbers anew; without that this test shows nothing"
    assert nearest(near(), Part.HAND, again) == pytest.approx(tip - 0.17, abs=2e-4)


def test_the_arm_can_hit_itself() -> None:
    here = Site(at(0.5, 0.0, 0.3))
    scene = here.world.collision_scene()
    folded = np.array([0.0, 1.2, 0.0, -3.0, 0.0, 3.0, 0.78])
    assert any(near.body == -1 and near.distance_m < 0 for near in scene.near(folded, 0.0))
    assert not any(near.body == -1 for near in scene.near(here.start_rad, 0.01))
    here.world.close()


def test_planning_leaves_no_trace_in_the_simulation() -> None:
    def run(plans: bool) -> list[FloatArray]:
        here = Site(at(0.5, -0.2, 0.02))
        here.box(*wall(0.2))
        body = here.box((0.02, 0.02, 0.02), (0.5, -0.2, 0.02), mass_kg=0.05)
        seen = []
        for step in range(8):
            here.robot.follow(here.start_rad, -1.0, 1 / 12)
            here.world.step(20)
            if plans and step >= 5:
                assert here.plan(GOAL).reason == REACHED
                assert here.world.collision_scene().held == {body}
            state = here.world.joint_state()
            seen += [state.position_rad, state.velocity_rad_s, here.world.body_pose(body), here.world.wrench()[0]]
        here.world.close()
        return seen

    for ours, theirs in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_copy_goes_with_its_world() -> None:
    import pybullet

    here = Site(at(0.5, 0.0, 0.3))
    scene = here.world.collision_scene()
    assert isinstance(scene, CollisionScene)
    own = scene._own
    assert pybullet.isConnected(own)
    here.world.close()
    assert not pybullet.isConnected(own)
