"""Steps that look at surfaces and neighbours: normals, planes, outliers and clusters against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.cluster import Clusters
from perceive.points.preprocess.normals import Normals
from perceive.points.preprocess.outliers import RadiusOutliers, StatisticalOutliers
from perceive.points.preprocess.plane import PlaneRemoval
from sensors.geometry import axis_angle_to_matrix
from tests.perceive.points.test_preprocess_steps import SEEDS, scene

# -------------------------------------------------------------------------------------------------- normals and planes


def ball(seed: int, count: int, radius_m: float = 0.2) -> NDArray[Any]:
    direction = np.random.default_rng(seed).standard_normal((count, 3))
    return np.asarray(radius_m * direction / np.linalg.norm(direction, axis=1, keepdims=True))


@pytest.mark.parametrize("offset_m", [0.0, 1e6])
def test_normals_of_a_ball(offset_m: float) -> None:
    xyz = ball(0, 3000)
    middle = np.full(3, offset_m)
    seen = PointCloud(xyz_m=xyz + middle, origin_m=np.tile(middle, (3000, 1)))
    result, trace = Normals(0.05, 20)(seen)
    assert result.normal is not None
    cosine = (result.normal * xyz).sum(1) / 0.2
    assert cosine.max() < -0.97, "towards the sensor in the middle"
    np.testing.assert_allclose(np.linalg.norm(result.normal, axis=1), 1.0)
    assert trace.found["variation"].max() < 0.05
    outwards, _ = Normals(0.05, 20, (offset_m, offset_m, offset_m + 50.0))(PointCloud(xyz_m=xyz + middle))
    assert outwards.normal is not None
    up = outwards.normal[xyz[:, 2] > 0.05]
    assert (up[:, 2] > 0).all()
    either, _ = Normals(0.05, 20)(PointCloud(xyz_m=xyz + middle))
    assert either.normal is not None
    assert (np.take_along_axis(either.normal, np.abs(either.normal).argmax(1)[:, None], 1) > 0).all()


def test_normals_of_a_plane_are_exact_and_lonely_points_have_none() -> None:
    flat = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * (1, 1, 0)
    line = np.linspace(0, 0.5, 20)[:, None] * (0.0, 0.0, 1.0) + (0, 0, 5.0)
    alone = np.array([[9.0, 9, 9], [9.0, 9, 9.01]])
    cloud = PointCloud(xyz_m=np.concatenate([flat, line, alone]))
    result, trace = Normals(0.3, 30)(cloud)
    assert result.normal is not None
    np.testing.assert_allclose(result.normal[:500], np.tile((0.0, 0, 1), (500, 1)), atol=1e-6)
    assert (result.normal[500:] == 0).all()
    assert np.isnan(trace.found["variation"][500:]).all()
    assert trace.found["variation"][:500].max() < 1e-10
    corner = np.random.default_rng(1).uniform(-1, 1, (400, 3))
    assert Normals(3.0, 400)(PointCloud(xyz_m=corner))[1].found["variation"].min() > 0.25


def tilted(seed: int, count: int, noise_m: float) -> tuple[NDArray[Any], NDArray[Any], float]:
    """A noisy plane with things above it; its normal and offset."""
    rng = np.random.default_rng(seed)
    turn = axis_angle_to_matrix(rng.uniform(-0.1, 0.1, 3))
    table = rng.uniform(-0.5, 0.5, (count, 3)) * (1, 1, 0) + noise_m * rng.standard_normal((count, 3)) * (0, 0, 1)
    things = rng.uniform((-0.4, -0.4, 0.05), (0.4, 0.4, 0.4), (count // 2, 3))
    middle = rng.uniform(-1, 1, 3)
    normal = turn[:, 2]
    return np.concatenate([table, things]) @ turn.T + middle, normal, float(-normal @ middle)


@settings(max_examples=15)
@given(seed=SEEDS)
def test_the_table_is_found_and_removed(seed: int) -> None:
    xyz, normal, offset = tilted(seed, 600, 0.002)
    result, trace = PlaneRemoval(0.01, up=(0, 0, 1))(PointCloud(xyz_m=xyz))
    (plane,) = trace.found["plane"]
    assert np.arccos(min(1.0, plane[:3] @ normal)) < np.deg2rad(0.3)
    assert abs(plane[3] - offset) < 0.002
    assert np.linalg.norm(plane[:3]) == pytest.approx(1.0)
    on = np.abs(xyz @ plane[:3] + plane[3]) <= 0.01
    np.testing.assert_array_equal(trace.inverse < 0, on)
    np.testing.assert_array_equal(trace.found["plane_of"], np.where(on, 0, -1))
    assert on[:600].mean() > 0.99
    assert len(result) == int((~on).sum())


def test_planes_one_after_another_and_none_where_none_is() -> None:
    rng = np.random.default_rng(0)
    floor = rng.uniform(-1, 1, (600, 3)) * (1, 1, 0)
    wall = rng.uniform(-1, 1, (400, 3)) * (0, 1, 1) + (1.0, 0, 1.0)
    cloud = PointCloud(xyz_m=np.concatenate([floor, wall, rng.uniform(-1, 1, (100, 3))]))
    _, trace = PlaneRemoval(0.01, planes=5, least_share=0.2)(cloud)
    np.testing.assert_allclose(np.abs(trace.found["plane"]), [[0, 0, 1, 0], [1, 0, 0, 1]], atol=0.01)
    assert (trace.found["plane_of"][:600] == 0).mean() > 0.99
    assert (trace.found["plane_of"][600:1000] == 1).mean() > 0.95
    _, upright = PlaneRemoval(0.01, planes=5, least_share=0.2, up=(0, 0, 2))(cloud)
    assert len(upright.found["plane"]) == 1
    _, sideways = PlaneRemoval(0.01, up=(1, 0, 0))(cloud)
    np.testing.assert_allclose(sideways.found["plane"], [[1, 0, 0, -1]], atol=0.01)
    everywhere = PointCloud(xyz_m=rng.uniform(-1, 1, (500, 3)))
    result, none = PlaneRemoval(0.01, least_share=0.2)(everywhere)
    assert len(result) == 500
    assert none.found["plane"].shape == (0, 4)


def test_the_seed_of_the_planes() -> None:
    cloud = PointCloud(xyz_m=np.random.default_rng(0).uniform(-1, 1, (300, 3)))
    np.random.seed(1)  # noqa: NPY002  (must not matter)
    one = PlaneRemoval(0.1, seed=1)(cloud)[1].found["plane"]
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(one, PlaneRemoval(0.1, seed=1)(cloud)[1].found["plane"])
    assert np.abs(one - PlaneRemoval(0.1, seed=2)(cloud)[1].found["plane"]).max() > 1e-3


def test_a_line_is_no_plane() -> None:
    line = np.linspace(0, 1, 50)[:, None] * np.array([1.0, 2.0, 3.0])
    assert len(PlaneRemoval(0.1)(PointCloud(xyz_m=line))[0]) == 50


# ---------------------------------------------------------------------------------------------- outliers and clusters


@settings(max_examples=15)
@given(seed=SEEDS)
def test_outliers_are_those_of_the_definition(seed: int) -> None:
    xyz = scene(seed, 120)
    gaps = np.sort(cdist(xyz, xyz), axis=1)
    _, trace = RadiusOutliers(0.15, 4)(PointCloud(xyz_m=xyz))
    np.testing.assert_array_equal(trace.inverse >= 0, (gaps[:, 1:] < 0.15).sum(axis=1) >= 4)
    mean = gaps[:, :6].mean(axis=1)
    _, trace = StatisticalOutliers(6, 1.5)(PointCloud(xyz_m=xyz))
    np.testing.assert_array_equal(trace.inverse >= 0, mean < mean.mean() + 1.5 * mean.std(ddof=1))


def test_far_points_are_outliers_and_equal_distances_are_not() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    cloud = PointCloud(xyz_m=np.concatenate([grid, [[40.0, 0, 0]]]))
    for step in (StatisticalOutliers(5, 3.0), RadiusOutliers(1.5, 3)):
        assert step(cloud)[1].index.tolist() == list(range(64))
    ring = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4), np.zeros(8)], -1)
    assert len(StatisticalOutliers(3, 2.0)(PointCloud(xyz_m=ring))[0]) == 8


def dbscan(xyz: NDArray[Any], radius_m: float, neighbours: int) -> tuple[NDArray[Any], list[set[int]]]:
    """Which points are cores, and the sets of cores that hang together."""
    near = cKDTree(xyz).query_ball_point(xyz, radius_m)
    core = np.array([len(others) >= neighbours for others in near])
    groups, seen = [], set()
    for first in np.flatnonzero(core):
        if first in seen:
            continue
        group, todo = set(), [int(first)]
        while todo:
            one = todo.pop()
            if one not in group:
                group.add(one)
                todo += [other for other in near[one] if core[other]]
        seen |= group
        groups.append(group)
    return core, groups


@settings(max_examples=15)
@given(seed=SEEDS)
def test_clusters_are_those_of_the_definition(seed: int) -> None:
    xyz = scene(seed, 160)
    result, trace = Clusters(0.12, 5)(PointCloud(xyz_m=xyz))
    label = result.cluster
    assert label is not None
    core, groups = dbscan(xyz, 0.12, 5)
    found = {frozenset(np.flatnonzero((label == k) & core)) for k in range(label.max(initial=-1) + 1)}
    assert found == {frozenset(group) for group in groups}
    for lonely in np.flatnonzero(label < 0):
        assert not (core & (np.linalg.norm(xyz - xyz[lonely], axis=1) < 0.12)).any()
    size = trace.found["size"]
    assert size.tolist() == [int((label == k).sum()) for k in range(len(groups))]
    assert (np.diff(size) <= 0).all(), "the largest first"
    for k in range(len(groups)):
        np.testing.assert_allclose(trace.found["middle_m"][k], xyz[label == k].mean(axis=0), atol=1e-12)


def test_clusters_keep_their_numbers_when_points_are_shuffled() -> None:
    rng = np.random.default_rng(0)
    blobs = [0.01 * rng.standard_normal((40, 3)) + middle for middle in ((0, 0, 1.0), (-1.0, 0.5, 0.5), (1.0, -0.5, 0))]
    xyz = np.concatenate([*blobs, [[5.0, 5, 5]]])
    order = rng.permutation(121)
    one = Clusters(0.1, 5)(PointCloud(xyz_m=xyz))[0].cluster
    other = Clusters(0.1, 5)(PointCloud(xyz_m=xyz[order]))[0].cluster
    assert one is not None
    np.testing.assert_array_equal(other, one[order])
    assert [one[0], one[40], one[80], one[120]] == [1, 0, 2, -1], "by x"
    kept, trace = Clusters(0.1, 5, remove_rest=True)(PointCloud(xyz_m=xyz))
    assert len(kept) == 120
    assert trace.inverse[120] == -1
