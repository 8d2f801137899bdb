"""The planner: straight where it may, around what is in the way, and honest where there is no way.

Ways are judged in the simulation itself, by a path of code that the planner does not use.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.experts.base import down
from envs.planner import BLOCKED, REACHED, UNREACHABLE, Plan
from envs.rrt import connect, shortened
from sensors.geometry import FloatArray, rotation_angle_rad
from tests.envs.planner_site import GOAL, TIP_M, Half, Site, at, shelf, wall
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


@pytest.mark.parametrize("avoid", [True, False])
def test_a_free_way_is_straight(site: Callable[..., Site], avoid: bool) -> None:
    here = site()
    goal = at(0.6, 0.1, 0.25, down(0.9))
    plan = here.plan(goal, avoid)
    assert plan.reason == REACHED
    tools = here.tools(plan)
    way = tools[-1, :3, 3] - tools[0, :3, 3]
    along = (tools[:, :3, 3] - tools[0, :3, 3]) @ way / (way @ way)
    np.testing.assert_allclose(tools[:, :3, 3], tools[0, :3, 3] + along[:, None] * way, atol=5e-5)
    assert (np.diff(along) > 0).all()
    steps = np.linalg.norm(np.diff(tools[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.0101
    turns = rotation_angle_rad(tools[:-1, :3, :3], tools[1:, :3, :3])
    assert np.degrees(turns.max()) < 3.1
    assert turns.sum() == pytest.approx(0.9, abs=1e-3)  # the shortest turn, and no other on the way
    np.testing.assert_allclose(tools[-1], goal, atol=2e-4)
    assert plan.joints_rad is not None
    np.testing.assert_array_equal(plan.joints_rad[0], here.start_rad)


@pytest.mark.parametrize("height_m", [0.12, 0.2, 0.3])
def test_a_wall_is_passed_over_and_would_be_hit_otherwise(site: Callable[..., Site], height_m: float) -> None:
    here = site()
    here.box(*wall(height_m))
    straight, around = here.plan(GOAL, avoid=False), here.plan(GOAL)
    assert straight.reason == around.reason == REACHED
    np.testing.assert_allclose(here.tools(around)[-1], GOAL, atol=2e-4)
    assert not here.clear(straight, 0.0)
    assert here.clear(around, 0.006)


def test_a_wall_to_the_ceiling_is_passed_before_it(site: Callable[..., Site]) -> None:
    here = site()
    here.box((0.08, 0.01, 0.5), (0.55, 0.0, 0.5))
    plan = here.plan(GOAL)
    assert plan.reason == REACHED
    np.testing.assert_allclose(here.tools(plan)[-1], GOAL, atol=2e-4)
    assert here.clear(plan, 0.006)


def test_a_shelf_is_entered_by_random_search(site: Callable[..., Site]) -> None:
    here = site(0.45, -0.2, 0.3)
    goal = shelf(here.box)
    plan = here.plan(goal, seed=3)
    assert plan.reason == REACHED
    tools = here.tools(plan)
    np.testing.assert_allclose(tools[-1], goal, atol=2e-4)
    assert here.clear(plan, 0.006)
    low, high = (np.array(corner) for corner in ((0.25, -0.35, 0.005), (0.75, 0.35, 0.5)))
    assert (tools[:, :3, 3] >= low - 0.02).all()
    assert (tools[:, :3, 3] <= high + 0.02).all()
    here.world.place_joints(here.start_rad, 0.08)
    again, other = here.plan(goal, seed=3), here.plan(goal, seed=4)
    np.testing.assert_array_equal(plan.joints_rad, again.joints_rad)
    assert other.reason == REACHED
    assert not np.array_equal(plan.joints_rad, other.joints_rad)


def test_what_cannot_be_is_said(site: Callable[..., Site]) -> None:
    here = site()
    far = at(1.2, 0.0, 0.1)
    assert here.plan(far).reason == here.plan(far, avoid=False).reason == UNREACHABLE
    inside = here.box((0.1, 0.1, 0.1), (0.5, 0.2, 0.1))
    assert here.plan(GOAL).reason == BLOCKED
    assert here.plan(GOAL, avoid=False).reason == REACHED
    assert here.plan(GOAL).joints_rad is None
    here.world.remove(inside)
    assert here.plan(GOAL).reason == REACHED
    for half, middle in (((0.3, 0.01, 0.6), (0.5, 0.02, 0.6)), ((0.01, 0.3, 0.6), (0.25, 0.3, 0.6))):
        here.box(half, middle)  # a cell around the goal, taller than the arm reaches
    assert here.plan(GOAL).reason == BLOCKED


def test_a_goal_may_be_a_little_inside_of_something(site: Callable[..., Site]) -> None:
    here = site()
    here.box((0.1, 0.1, 0.03), (0.5, 0.2, 0.03))
    for deep_m, reason in ((0.008, REACHED), (0.03, BLOCKED)):
        assert here.plan(at(0.5, 0.2, 0.06 + TIP_M - deep_m)).reason == reason


@pytest.mark.parametrize(("y", "half_m"), [(0.1, 0.0395), (0.12, 0.012)])
def test_contact_is_allowed_at_the_goal_but_not_on_the_way(site: Callable[..., Site], y: float, half_m: float) -> None:
    """Fingers around a low block: 0.5 mm beside it, or with one finger near it. They come down to it."""
    here = site(0.5, -0.15, 0.03)
    here.box((0.02, half_m, 0.02), (0.5, y, 0.02), mass_kg=0.1)
    goal = at(0.5, 0.1, 0.025)
    straight, around = here.plan(goal, avoid=False), here.plan(goal)
    assert around.reason == REACHED
    tools = here.tools(around)
    np.testing.assert_allclose(tools[-1], goal, atol=2e-4)
    assert tools[:, 2, 3].max() > 0.04 + TIP_M
    assert not here.clear(straight, 0.0)
    assert here.clear(around, 0.0)
    assert around.joints_rad is not None
    apart_m = np.minimum(*(np.linalg.norm(tools[:, :3, 3] - end[:3, 3], axis=1) for end in (tools[0], goal)))
    assert here.clear(Plan(around.joints_rad[apart_m > 0.07], ""), 0.006)


def grasped(here: Site, half_m: Half) -> int:
    """A box between the closed fingers, its middle at the tool point."""
    tool = here.robot.tool_pose()
    body = here.box(half_m, tool[:3, 3], mass_kg=0.05)
    here.world.place_joints(here.start_rad, 2 * half_m[1])
    return body


def test_what_is_held_is_carried_over_a_wall(site: Callable[..., Site]) -> None:
    height_m, long_m = 0.15, 0.09
    lowest = []
    for holds in (True, False):
        here = site(0.5, -0.2, 0.12)
        here.box(*wall(height_m))
        if holds:
            body = grasped(here, (0.02, 0.02, long_m))
            assert here.world.collision_scene().held == {body}
        tools = here.tools(here.plan(at(0.5, 0.2, 0.12)))
        over = np.abs(tools[:, 1, 3]) < 0.03  # the wall's and the box's half thickness
        assert over.any()
        lowest.append(float(tools[over, 2, 3].min()))
    assert lowest[0] - long_m > height_m + 0.005  # the lower end of the box
    assert height_m + TIP_M + 0.005 < lowest[1] < height_m + long_m  # an empty hand passes lower


def test_only_free_bodies_between_both_fingers_are_held(site: Callable[..., Site]) -> None:
    here = site()
    tool_m = here.robot.tool_pose()[:3, 3]
    beside = here.box((0.01, 0.01, 0.01), tool_m + np.array([0.0, 0.029, 0.0]), mass_kg=0.1)  # at one finger
    assert here.world.collision_scene().held == frozenset()
    here.world.remove(beside)
    here.box((0.01, 0.0395, 0.01), tool_m, mass_kg=0.0)  # fixed
    assert here.world.collision_scene().held == frozenset()


def test_a_gripped_handle_may_be_pulled_all_the_way(site: Callable[..., Site], tmp_path: Path) -> None:
    """The copy of a drawer stays where it is while the hand pulls, so that the hand comes out of its handle."""
    here = site()
    urdf = tmp_path / "slider.urdf"
    urdf.write_text(SLIDER.replace("0.1 0.1 0.04", "0.4 0.0795 0.1"))
    tool_m = here.robot.tool_pose()[:3, 3]
    goal = at(tool_m[0], tool_m[1], tool_m[2])
    goal[0, 3] -= 0.12
    drawer = here.world.add_articulated(urdf, tool_m - (0.3, 0.0, 0.3))  # a long handle along the way between fingers
    scene = here.world.collision_scene()
    assert scene.handles == {drawer}
    assert scene.held == frozenset()
    heights_m = [here.tools(here.plan(goal))[:, 2, 3]]
    here.world.remove(drawer)
    here.box((0.2, 0.0397, 0.05), tool_m)  # the same, fixed: out of it first
    heights_m.append(here.tools(here.plan(goal))[:, 2, 3])
    assert np.ptp(heights_m[0]) < 1e-3
    assert np.ptp(heights_m[1]) > 0.03


# ------------------------------------------------------------------------------------------------------- random search


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.3, 0.9))
def test_random_search_goes_around_a_disc(seed: int, radius: float) -> None:
    def free(a: FloatArray, b: FloatArray) -> bool:
        return all(float(np.linalg.norm(a + s * (b - a))) > radius for s in np.linspace(0.0, 1.0, 20))

    starts = np.array([[-1.5, 0.0], [-1.5, 1.0]])
    goals = np.array([[1.5, 0.1]])
    low, high = np.full(2, -2.0), np.full(2, 2.0)
    rng = np.random.default_rng(seed)
    met = connect(starts, goals, free, low, high, rng, 2000)
    assert met is not None
    chain, first, last = met
    np.testing.assert_array_equal(chain[0], starts[first])
    np.testing.assert_array_equal(chain[-1], goals[last])
    short = shortened(chain, free, rng)
    for points in (chain, short):
        assert all(free(a, b) for a, b in itertools.pairwise(points))
        assert all((low <= p).all() and (p <= high).all() for p in points)

    def length(points: Sequence[FloatArray]) -> float:
        return float(sum(np.linalg.norm(b - a) for a, b in itertools.pairwise(points)))

    assert length(short) <= length(chain) + 1e-9
    assert length(short) >= float(np.linalg.norm(goals[0] - starts[first])) - 1e-9


def test_random_search_gives_up() -> None:
    met = connect(
        np.zeros((1, 2)), np.ones((1, 2)), lambda a, b: False, np.full(2, -2.0), np.full(2, 2.0),
        np.random.default_rng(0), 50,
    )  # fmt: skip
    assert met is None
