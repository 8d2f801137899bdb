"""Each step of preprocessing against its definition, and the trace that it leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceive.points.preprocess.cloud import PointCloud, from_lidar, from_points
from perceive.points.preprocess.cluster import Clusters
from perceive.points.preprocess.crop import Crop
from perceive.points.preprocess.finite import Finite
from perceive.points.preprocess.normals import Normals
from perceive.points.preprocess.outliers import RadiusOutliers, StatisticalOutliers
from perceive.points.preprocess.plane import PlaneRemoval
from perceive.points.preprocess.step import Step, Trace
from perceive.points.preprocess.voxel import VoxelFilter
from sensors.errors import SpecError
from sensors.frames import LidarFrame, PointFrame
from sensors.geometry import axis_angle_to_matrix, invert, pose, transform_points

NAN, INF = float("nan"), float("inf")
SEEDS = st.integers(0, 2**31 - 1)
STEPS: tuple[Step, ...] = (
    Finite(),
    Crop((-0.3, -0.3, -0.3), (0.3, 0.3, 0.3)),
    VoxelFilter(0.1),
    Normals(0.3, 10),
    PlaneRemoval(0.05),
    StatisticalOutliers(6, 1.5),
    RadiusOutliers(0.15, 3),
    Clusters(0.15, 4),
    Clusters(0.15, 4, remove_rest=True),
)
NAMES = [f"{type(step).__name__}{number}" for number, step in enumerate(STEPS)]


def cloud_of(xyz: NDArray[Any], seed: int = 0) -> PointCloud:
    """A cloud of which everything is known."""
    rng, count = np.random.default_rng(seed), len(xyz)
    normal = rng.standard_normal((count, 3))
    return PointCloud(
        xyz_m=xyz,
        rgb=rng.random((count, 3)).astype(np.float32),
        normal=normal / np.linalg.norm(normal, axis=1, keepdims=True),
        intensity=rng.random(count).astype(np.float32),
        offset_s=rng.random(count),
        cluster=rng.integers(-1, 5, count),
    )


def scene(seed: int, count: int = 200) -> NDArray[Any]:
    """Half of the points on a plane, the others in two balls and anywhere."""
    rng = np.random.default_rng(seed)
    flat = rng.uniform(-0.5, 0.5, (count // 2, 3)) * (1, 1, 0)
    balls = 0.08 * rng.standard_normal((count // 2, 3)) + np.where(rng.random((count // 2, 1)) < 0.5, 0.3, -0.3)
    balls[::10] = rng.uniform(-1, 1, balls[::10].shape)
    return np.asarray(rng.permutation(np.concatenate([flat, balls])))


def check_trace(cloud: PointCloud, result: PointCloud, trace: Trace) -> None:
    """What every trace keeps."""
    assert (trace.given, trace.left) == (len(cloud), len(result))
    assert trace.inverse.dtype == trace.index.dtype == np.int64
    assert trace.inverse.min(initial=0) >= -1
    assert trace.inverse.max(initial=-1) < trace.left
    np.testing.assert_array_equal(trace.inverse[trace.index], np.arange(trace.left))
    assert trace.given == trace.removed + trace.merged + trace.left
    assert set(cloud.arrays()) <= set(result.arrays())


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 200])
def test_every_step_leaves_a_trace(step: Step, count: int) -> None:
    cloud = cloud_of(scene(0)[:count])
    result, trace = step(cloud)
    check_trace(cloud, result, trace)
    again, same = step(cloud)
    for name, value in result.arrays().items():
        np.testing.assert_array_equal(value, again.arrays()[name])
    np.testing.assert_array_equal(trace.inverse, same.inverse)
    for name, value in trace.found.items():
        np.testing.assert_array_equal(value, same.found[name])


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_equal_points_and_bad_ones(step: Step) -> None:
    cloud = cloud_of(np.full((30, 3), 0.1))
    check_trace(cloud, *step(cloud))
    bad = cloud_of(scene(0))
    bad.xyz_m[3, 1], bad.xyz_m[5, 2] = NAN, -INF
    if isinstance(step, Finite):
        result, trace = step(bad)
        assert np.flatnonzero(trace.inverse < 0).tolist() == [3, 5]
        assert result.finite().all()
    else:
        with pytest.raises(SpecError, match="2 of 200 points without"):
            step(bad)


@pytest.mark.parametrize("step", [step for step in STEPS if not isinstance(step, Clusters | PlaneRemoval)])
def test_the_order_of_the_points_does_not_matter(step: Step) -> None:
    cloud, order = cloud_of(scene(1)), np.random.default_rng(0).permutation(200)
    result, trace = step(cloud)
    shuffled, other = step(cloud.take(order))
    if isinstance(step, VoxelFilter):
        np.testing.assert_array_equal(other.inverse, trace.inverse[order])
        np.testing.assert_allclose(shuffled.xyz_m, result.xyz_m, atol=1e-14)
    else:
        np.testing.assert_array_equal(other.inverse < 0, trace.inverse[order] < 0)


# -------------------------------------------------------------------------------------------------------------- cloud


def test_a_cloud_checks_its_arrays() -> None:
    xyz = np.zeros((4, 3))
    for bad in (
        {"xyz_m": np.zeros((4, 2))},
        {"xyz_m": np.zeros(3)},
        {"xyz_m": np.zeros((4, 3), int)},
        {"xyz_m": xyz, "rgb": np.zeros((5, 3))},
        {"xyz_m": xyz, "rgb": np.zeros((4, 3), np.uint8)},
        {"xyz_m": xyz, "intensity": np.zeros((4, 1))},
        {"xyz_m": xyz, "cluster": np.zeros(4)},
    ):
        with pytest.raises(SpecError, match=r"PointCloud\."):
            PointCloud(**bad)


def test_clouds_of_frames() -> None:
    rng = np.random.default_rng(0)
    count = np.array([3])
    frame = PointFrame(
        stamp_s=0.0, xyz_m=rng.random((5, 3), np.float32), rgb=np.full((5, 3), 255, np.uint8), count=count
    )
    cloud = from_points(frame)
    np.testing.assert_array_equal(cloud.xyz_m, frame.xyz_m[:3])
    assert cloud.rgb is not None
    assert (cloud.rgb == 1.0).all()
    base_from_lidar = pose((1.0, 2.0, 3.0), (0.0, 0.0, 1.0, 0.0))  # a half turn about z
    sweep = LidarFrame(
        stamp_s=0.0,
        xyz_m=rng.random((5, 3), np.float32),
        intensity=np.ones(5, np.float32),
        offset_s=np.arange(5, dtype=np.float32),
        count=count,
        base_from_lidar=base_from_lidar,
    )
    turned = from_lidar(sweep)
    np.testing.assert_allclose(turned.xyz_m, sweep.xyz_m[:3] * (-1, -1, 1) + (1, 2, 3), atol=1e-12)
    assert turned.origin_m is not None
    np.testing.assert_allclose(turned.origin_m, np.tile((1, 2, 3), (3, 1)))
    assert turned.offset_s is not None
    assert turned.offset_s.tolist() == [0, 1, 2]


def test_a_moved_cloud_takes_its_normals_along() -> None:
    cloud = cloud_of(scene(0))
    there = np.eye(4)
    there[:3, :3], there[:3, 3] = axis_angle_to_matrix((0.3, -0.2, 1.0)), (1, 2, 3)
    moved = cloud.moved(there)
    np.testing.assert_allclose(moved.moved(invert(there)).xyz_m, cloud.xyz_m, atol=1e-12)
    assert moved.normal is not None
    assert cloud.normal is not None
    before, after = (cloud.normal * cloud.xyz_m).sum(1), (moved.normal * moved.xyz_m).sum(1)
    np.testing.assert_allclose(after - moved.normal @ (1, 2, 3), before, atol=1e-12)


# ------------------------------------------------------------------------------------------------ finite, crop, voxel


def test_a_coordinate_beyond_any_sensor_is_not_finite() -> None:
    xyz = np.array([[0.0, 0, 0], [2e5, 0, 0], [0, -1e300, 0], [0, 0, 9e4]])
    assert Finite()(PointCloud(xyz_m=xyz))[1].index.tolist() == [0, 3]
    assert Finite(1e3)(PointCloud(xyz_m=xyz))[1].index.tolist() == [0]


@settings(max_examples=30)
@given(seed=SEEDS)
def test_a_crop_in_any_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    quaternion = rng.standard_normal(4)
    position, low = rng.uniform(-0.3, 0.3, 3), rng.uniform(-0.5, 0.0, 3)
    high = low + rng.uniform(0.1, 0.8, 3)
    xyz = rng.uniform(-1, 1, (300, 3))
    local = transform_points(invert(pose(position, quaternion)), xyz)
    expected = np.all((local >= low) & (local <= high), axis=1)
    cloud = PointCloud(xyz_m=xyz)
    inside, trace = Crop(low.tolist(), high.tolist(), position.tolist(), quaternion.tolist())(cloud)
    outside, _ = Crop(low.tolist(), high.tolist(), position.tolist(), quaternion.tolist(), "outside")(cloud)
    np.testing.assert_array_equal(trace.inverse >= 0, expected)
    np.testing.assert_array_equal(inside.xyz_m, xyz[expected])
    np.testing.assert_array_equal(outside.xyz_m, xyz[~expected])


def test_the_faces_of_a_crop_belong_to_it() -> None:
    xyz = np.array([[0.0, 0, 0], [1, 1, 1], [1.0000001, 1, 1]])
    assert Crop((0, 0, 0), (1, 1, 1))(PointCloud(xyz_m=xyz))[1].index.tolist() == [0, 1]


@settings(max_examples=40)
@given(seed=SEEDS, count=st.integers(0, 60), edge_m=st.floats(0.05, 2.0), far=st.sampled_from([0.0, 1e4, 1e13]))
def test_voxels_are_those_of_the_definition(seed: int, count: int, edge_m: float, far: float) -> None:
    """``far``: with a second group that far away the cubes cannot be numbered in 64 bits."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-1, 1, (count, 3)) + np.where(rng.random((count, 1)) < 0.5, far, 0.0)
    cloud = cloud_of(xyz, seed)
    result, trace = VoxelFilter(edge_m)(cloud)
    check_trace(cloud, result, trace)
    cells: dict[tuple[float, ...], list[int]] = {}
    for number, point in enumerate(xyz):
        cells.setdefault(tuple(np.floor(point / edge_m)), []).append(number)
    assert len(result) == len(cells)
    assert trace.removed == 0
    assert result.rgb is not None and result.normal is not None and result.cluster is not None  # noqa: PT018
    for row, cell in enumerate(sorted(cells)):
        members = cells[cell]
        assert set(np.flatnonzero(trace.inverse == row)) == set(members)
        middle = xyz[members].mean(axis=0)
        np.testing.assert_allclose(result.xyz_m[row], middle, rtol=1e-14, atol=1e-12)
        np.testing.assert_allclose(result.rgb[row], cloud.rgb[members].mean(axis=0), atol=1e-6)  # type: ignore[index]
        gaps = np.linalg.norm(xyz[members] - middle, axis=1)
        assert np.linalg.norm(xyz[trace.index[row]] - middle) <= gaps.min() + 1e-9 + 1e-15 * far
        assert np.linalg.norm(result.normal[row]) == pytest.approx(1.0)
        assert result.cluster[row] == cloud.cluster[trace.index[row]]  # type: ignore[index]
    for name, value in result.arrays().items():
        assert value.dtype == cloud.arrays()[name].dtype


def test_normals_that_cancel_are_not_merged_into_nothing() -> None:
    cloud = PointCloud(xyz_m=np.array([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1]]), normal=np.array([[1.0, 0, 0], [-1.0, 0, 0]]))
    result, _ = VoxelFilter(1.0)(cloud)
    assert result.normal is not None
    assert np.abs(result.normal[0]).tolist() == [1.0, 0.0, 0.0]


def test_two_million_points() -> None:
    rng = np.random.default_rng(0)
    cloud = PointCloud(xyz_m=rng.random((2_000_000, 3), np.float32))
    result, trace = VoxelFilter(0.1)(cloud)
    check_trace(cloud, result, trace)
    assert len(result) == 1000
    assert trace.merged == 1_999_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: Finite(0.0),
        lambda: Crop((0, 0, 0), (1, -1, 1)),
        lambda: Crop((0, 0), (1, 1)),
        lambda: Crop((0, 0, NAN), (1, 1, 1)),
        lambda: Crop((0, 0, 0), (1, 1, 1), side="above"),  # type: ignore[arg-type]
        lambda: Crop((0, 0, 0), (1, 1, 1), quaternion_xyzw=(0, 0, 0, 0)),
        lambda: VoxelFilter(0.0),
        lambda: VoxelFilter(NAN),
        lambda: Normals(0.1, 2),
        lambda: Normals(-0.1),
        lambda: PlaneRemoval(0.0),
        lambda: PlaneRemoval(0.1, least_share=0.0),
        lambda: PlaneRemoval(0.1, up=(0, 0, 0)),
        lambda: StatisticalOutliers(1),
        lambda: RadiusOutliers(0.1, 0),
        lambda: Clusters(INF),
    ],
)
def test_wrong_numbers_are_refused(make: Any) -> None:
    with pytest.raises(SpecError, match="expected"):
        make()
