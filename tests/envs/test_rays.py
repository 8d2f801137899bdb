"""Rays against solids: points chosen on a surface are met where they are, on real and on made-up scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pybullet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.rays import Ball, Box, Cylinder, Placed, Polyhedron, Solid, cast
from envs.robots.panda import Panda
from envs.world import PyBulletWorld
from sensors.errors import SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix, pose
from tests.benchmarks import bench_lidar

WHITE = (1.0, 1.0, 1.0, 1.0)
Surface = tuple[Solid, FloatArray, FloatArray]  # a solid, points [N, 3] on its surface, outward unit normals [N, 3]


def _box(rng: np.random.Generator, count: int) -> Surface:
    half = rng.uniform(0.01, 0.5, 3)
    axis, side = rng.integers(0, 3, count), rng.choice([-1.0, 1.0], count)
    normals = np.zeros((count, 3))
    normals[np.arange(count), axis] = side
    points = rng.uniform(-half, half, (count, 3))
    return Box(half.tolist()), np.where(normals != 0, normals * half, points), normals


def _cylinder(rng: np.random.Generator, count: int) -> Surface:
    radius, height = rng.uniform(0.01, 0.5, 2)
    angle, cap = rng.uniform(0, 2 * np.pi, count), rng.random(count) < 0.5
    out = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=-1)
    side = radius * out + rng.uniform(-height / 2, height / 2, count)[:, None] * (0, 0, 1)
    up = rng.choice([-1.0, 1.0], count)[:, None] * np.array([0.0, 0.0, 1.0])
    top = radius * np.sqrt(rng.random(count))[:, None] * out + height / 2 * up
    return Cylinder(radius, height), np.where(cap[:, None], top, side), np.where(cap[:, None], up, out)


def _ball(rng: np.random.Generator, count: int) -> Surface:
    radius, normals = float(rng.uniform(0.01, 0.5)), _directions(rng, count)
    return Ball(radius), radius * normals, normals


def _polyhedron(rng: np.random.Generator, count: int) -> Surface:
    from scipy.spatial import ConvexHull

    points = rng.uniform(-0.2, 0.2, (20, 3)) + rng.uniform(-0.3, 0.3, 3)
    hull = ConvexHull(points)
    face = rng.integers(0, len(hull.simplices), count)
    share = rng.dirichlet((1.0, 1.0, 1.0), count)
    return Polyhedron(points), np.einsum("nk,nki->ni", share, points[hull.simplices[face]]), hull.equations[face, :3]


SURFACES: dict[str, Callable[[np.random.Generator, int], Surface]] = {
    "box": _box,
    "cylinder": _cylinder,
    "ball": _ball,
    "polyhedron": _polyhedron,
}


def _directions(rng: np.random.Generator, count: int) -> FloatArray:
    vector = rng.standard_normal((count, 3))
    return vector / np.linalg.norm(vector, axis=1, keepdims=True)


def _placed(solid: Solid, rng: np.random.Generator) -> Placed:
    base_from_solid = pose(rng.uniform(-2, 2, 3))
    base_from_solid[:3, :3] = axis_angle_to_matrix(rng.uniform(-3, 3, 3))
    return Placed(solid, base_from_solid)


def _to_base(placed: Placed, points: FloatArray, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    turn = placed.base_from_solid[:3, :3]
    return points @ turn.T + placed.base_from_solid[:3, 3], vectors @ turn.T


@pytest.mark.parametrize("kind", SURFACES)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_point_on_the_surface_is_met_where_it_is(kind: str, seed: int) -> None:
    """A ray that comes to a point of a convex body from outside has met nothing of it before."""
    rng = np.random.default_rng(seed)
    solid, points, normals = SURFACES[kind](rng, 200)
    placed = _placed(solid, rng)
    points, normals = _to_base(placed, points, normals)
    towards = _directions(rng, 200)
    slope = np.einsum("ni,ni->n", towards, normals)
    towards, slope = np.where(slope[:, None] > 0, -towards, towards), -np.abs(slope)
    range_m, beyond_m = rng.uniform(0.01, 20, 200), rng.uniform(0.001, 50, 200)
    starts = points - range_m[:, None] * towards
    clear = slope < -1e-3
    found, cosine = cast([placed], starts, points + beyond_m[:, None] * towards)
    np.testing.assert_allclose(found[clear], range_m[clear], atol=1e-7)
    np.testing.assert_allclose(cosine[clear], -slope[clear], atol=1e-6)

    short, dark = cast([placed], starts, points - 1e-5 / np.abs(slope[:, None]) * towards)
    assert np.isinf(short[clear & (range_m > 0.02)]).all()
    assert not dark[np.isinf(short)].any()
    # Past the body: along the plane that touches it there.
    aside = np.cross(normals, towards)
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    over = points + 1e-6 * normals
    assert np.isinf(cast([placed], over - 3.0 * aside, over + 3.0 * aside)[0][clear]).all()
    # Away from it, and from inside of it.
    assert np.isinf(cast([placed], starts, starts - 9.0 * towards)[0]).all()
    inside = points - 1e-6 * normals
    middle = _to_base(placed, solid.middle_m[None], np.zeros((1, 3)))[0]
    assert np.isinf(cast([placed], np.broadcast_to(middle, inside.shape), inside)[0]).all()


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(
    "solid", [Box((0.1, 0.1, 0.1)), Cylinder(0.1, 0.2), Ball(0.1)], ids=["box", "cylinder", "ball"]
)
def test_rays_along_the_axes(solid: Solid, axis: int) -> None:
    """Components that are exactly zero, of either sign, divide nothing by zero."""
    along = np.zeros((4, 3))
    along[:, axis] = (1.0, 1.0, -1.0, -1.0)
    along[[1, 3]] -= 0.0 * along[[1, 3]]
    starts, beside = -0.5 * along, np.roll([0.11, 0.0, 0.0], axis + 1)
    for zero in (0.0, -0.0):
        rays = np.where(along == 0, zero, along)
        np.testing.assert_allclose(cast([Placed(solid, np.eye(4))], starts, starts + rays)[0], 0.4, atol=1e-12)
        assert np.isinf(cast([Placed(solid, np.eye(4))], starts + beside, starts + beside + rays)[0]).all()


def test_the_nearest_of_many_is_met() -> None:
    """One call over all solids is the least of the calls over each, whatever lies in whose bounding sphere."""
    rng = np.random.default_rng(0)
    solids = [_placed(SURFACES[kind](rng, 1)[0], rng) for kind in SURFACES for _ in range(8)]
    starts, ends = rng.uniform(-3, 3, (3000, 3)), rng.uniform(-3, 3, (3000, 3))
    each = np.array([cast([placed], starts, ends) for placed in solids])
    first = each[:, 0].argmin(axis=0)
    found, cosine = cast(solids, starts, ends)
    np.testing.assert_array_equal(found, each[first, 0, np.arange(3000)])
    np.testing.assert_array_equal(cosine, each[first, 1, np.arange(3000)])
    assert 0.2 < np.isfinite(found).mean() < 0.9
    assert len(np.unique(first[np.isfinite(found)])) > 20


def test_nothing_there_no_ray_and_no_length() -> None:
    ray = np.array([[0.0, 0.0, 1.0]])
    assert np.isinf(cast([], ray, -ray)[0]).all()
    placed = Placed(Box((0.1, 0.1, 0.1)), np.eye(4))
    assert cast([placed], np.zeros((0, 3)), np.zeros((0, 3)))[0].shape == (0,)
    assert np.isinf(cast([placed], ray, ray)[0]).all()
    assert cast([placed], ray, -ray)[0] == pytest.approx(0.9)


# ------------------------------------------------------------------------------------------------------ on the physics


@pytest.fixture
def standing() -> Iterator[PyBulletWorld]:
    world = PyBulletWorld()
    Panda().attach(world)
    world.place_joints([0.0, 0.3, 0.0, -2.0, 0.0, 2.3, 0.8], 0.08)
    yield world
    world.close()


def test_ranges_in_random_scenes_are_those_of_sphere_tracing() -> None:
    errors_mm = np.concatenate([bench_lidar.scene_errors_mm(seed, 400) for seed in range(3)])
    assert errors_mm.max() < 1.0
    assert np.quantile(errors_mm, 0.99) < 1e-3


def test_ranges_to_the_robot_are_those_of_its_triangles() -> None:
    errors_mm = np.concatenate([bench_lidar.robot_errors_mm(seed, 300) for seed in range(2)])
    assert errors_mm.max() < 1e-3


def test_the_physics_engine_meets_the_same_robot(standing: PyBulletWorld) -> None:
    """Its own rays meet the arm 1 mm earlier, its collision margin, but not the foot, which cannot collide."""
    rng = np.random.default_rng(0)
    starts = np.array([0.2, 0.0, 0.6]) + 1.2 * _directions(rng, 4000)
    ends = 2 * rng.uniform((-0.1, -0.1, 0.4), (0.6, 0.1, 0.7), (4000, 3)) - starts
    cosines = np.zeros(4000)
    found = standing.ray_cast(starts, ends, robot=True, cosines=cosines)
    hits = pybullet.rayTestBatch(starts.tolist(), ends.tolist(), physicsClientId=standing._id)
    theirs = np.array([hit[2] if hit[0] >= 0 else np.inf for hit in hits]) * np.linalg.norm(ends - starts, axis=1)
    both = np.isfinite(found) & np.isfinite(theirs) & (cosines > 0.5)
    assert both.sum() > 1000
    early_mm = ((found[both] - theirs[both]) * cosines[both]) * 1e3
    assert np.quantile(early_mm, 0.1) > 0.9
    assert np.median(early_mm) == pytest.approx(1.0, abs=0.1)
    assert np.quantile(early_mm, 0.9) < 2.0  # more than the margin only where edges are rounded
    foot_from = np.array([[1.0, 0.0, 0.05]])
    assert np.isfinite(standing.ray_cast(foot_from, -foot_from + (0, 0, 0.1), robot=True)).all()
    assert np.isinf(standing.ray_cast(foot_from, -foot_from + (0, 0, 0.1))).all()  # rays pass through it when not asked


def test_rays_follow_what_moves_without_a_physics_step(standing: PyBulletWorld) -> None:
    start, end = np.array([[0.0, 0.0, 2.0]]), np.array([[0.0, 0.0, 1.2]])
    body = standing.add_box((0.1, 0.1, 0.1), (0.0, 0.0, 1.5), 0.3, mass_kg=0.0, rgba=WHITE)
    assert standing.ray_cast(start, end) == pytest.approx(0.4)
    standing.move_body(body, (0.0, 0.0, 1.3))
    assert standing.ray_cast(start, end) == pytest.approx(0.6)
    standing.remove(body)
    assert np.isinf(standing.ray_cast(start, end)).all()
    standing.add_cylinder(0.1, 0.2, (0.0, 0.0, 1.4), mass_kg=0.0, rgba=WHITE)
    assert standing.ray_cast(start, end) == pytest.approx(0.5)

    tool = standing.link_pose("tool")[:3, 3]
    beside, beyond = (tool + np.array([[0.0, side, 0.02]]) for side in (1.0, -1.0))
    before = standing.ray_cast(beside, beyond, robot=True)
    standing.place_joints([0.2, 0.3, 0.0, -2.0, 0.0, 2.3, 0.8], 0.08)
    after = standing.ray_cast(beside, beyond, robot=True)
    assert np.isfinite(before).all()
    assert abs(float(before[0]) - float(after[0])) > 0.01


def test_a_shape_without_a_closed_form_is_named(standing: PyBulletWorld) -> None:
    client = standing._id
    shape = pybullet.createCollisionShape(pybullet.GEOM_CAPSULE, radius=0.1, height=0.2, physicsClientId=client)
    standing._others.append(pybullet.createMultiBody(0, shape, physicsClientId=client))
    with pytest.raises(SpecError, match=f"collision geometry {pybullet.GEOM_CAPSULE}"):
        standing.ray_cast(np.zeros((1, 3)), np.ones((1, 3)))


def test_a_solid_mesh_is_met_as_its_hull(standing: PyBulletWorld) -> None:
    client = standing._id
    corners = [(x, y, z) for x in (-0.1, 0.1) for y in (-0.1, 0.1) for z in (-0.1, 0.1)]
    shape = pybullet.createCollisionShape(pybullet.GEOM_MESH, vertices=corners, physicsClientId=client)
    body = pybullet.createMultiBody(0, shape, -1, [0.0, 0.0, 1.5], [0, 0, 0.2, 1], physicsClientId=client)
    standing._others.append(body)
    found = standing.ray_cast(np.array([[0.05, 0.02, 2.0]]), np.array([[0.05, 0.02, 1.0]]))
    assert found == pytest.approx(0.4, abs=1e-6)
