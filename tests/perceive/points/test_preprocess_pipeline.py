"""Pipelines: what each step did, the way back to every point and every pixel, and meshes out of depth."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceive.build import build
from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.crop import Crop
from perceive.points.preprocess.finite import Finite
from perceive.points.preprocess.fusion import fuse_frames
from perceive.points.preprocess.outliers import RadiusOutliers
from perceive.points.preprocess.pipeline import Pipeline
from perceive.points.preprocess.presets import lidar, tabletop
from perceive.points.preprocess.step import Trace
from perceive.points.preprocess.tsdf import Mesh, Tsdf
from perceive.points.preprocess.voxel import VoxelFilter
from sensors.errors import SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import look_at, transform_points, unproject

NAN, INF = float("nan"), float("inf")
SEEDS = st.integers(0, 2**31 - 1)
BALLS = np.array([[0.35, -0.15, 0.05], [0.5, 0.1, 0.06], [0.3, 0.12, 0.04]])
RADII = BALLS[:, 2]
COLOURS = np.array([[90, 90, 90], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)  # table, balls
EYES = ((0.4, -0.55, 0.5), (0.4, 0.6, 0.45), (-0.1, 0.0, 0.5))


def picture(eye: Any, height: int = 90, width: int = 120, up: Any = (0, 0, 1)) -> tuple[RgbdFrame, NDArray[np.int64]]:
    """Balls on a table by ray tracing, and what each pixel shows: 0 the table, 1 to 3 a ball, -1 nothing."""
    intrinsics = np.array([110.0, 112.0, width / 2 - 3.0, height / 2 + 2.0])
    camera = look_at(eye, (0.4, 0.0, 0.03), up)
    rays = (unproject(np.ones((height, width)), intrinsics)) @ camera[:3, :3].T
    origin = camera[:3, 3]
    with np.errstate(divide="ignore"):
        depth = np.where(rays[..., 2] < 0, -origin[2] / rays[..., 2], INF)
    at = origin + np.where(np.isfinite(depth), depth, 0.0)[..., None] * rays
    shown = np.where(np.isfinite(depth) & (np.abs(at - (0.4, 0, 0)) < (0.4, 0.4, 1)).all(-1), 0, -1)
    depth = np.where(shown == 0, depth, INF)
    for number, (middle, radius) in enumerate(zip(BALLS, RADII, strict=True), 1):
        a, b = (rays**2).sum(-1), rays @ (origin - middle)
        root = b**2 - a * (((origin - middle) ** 2).sum() - radius**2)
        hit = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, INF)
        shown = np.where(hit < depth, number, shown)
        depth = np.minimum(depth, hit)
    frame = RgbdFrame(
        stamp_s=0.0,
        rgb=COLOURS[shown],
        depth_m=np.where(shown >= 0, depth, 0.0).astype(np.float32),
        intrinsics_px=intrinsics,
        base_from_camera=camera,
    )
    return frame, shown


PICTURES = {f"camera{number}": picture(eye) for number, eye in enumerate(EYES)}
FRAMES = {name: frame for name, (frame, _) in PICTURES.items()}


def outside_m(points: NDArray[Any]) -> NDArray[Any]:
    """Signed distance from the scene."""
    balls = np.linalg.norm(points[:, None] - BALLS, axis=-1) - RADII
    return np.asarray(np.minimum(balls.min(axis=1), points[:, 2]))


# ----------------------------------------------------------------------------------------------------------- pipeline


@settings(max_examples=30)
@given(seed=SEEDS, count=st.integers(0, 80))
def test_the_way_back_is_the_way_there(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-1, 1, (count, 3))
    xyz[rng.random(count) < 0.1] = NAN
    pipeline = Pipeline([VoxelFilter(0.3), Crop((-0.8, -0.8, -0.8), (0.8, 0.8, 0.8)), VoxelFilter(0.7)])
    done = pipeline(PointCloud(xyz_m=xyz))
    # By hand, one point after another.
    gone: list[int] = []
    for start in range(count):
        place = start
        for number, trace in enumerate(done.traces):
            place = int(trace.inverse[place])
            if place < 0:
                gone.append(number)
                break
        else:
            gone.append(-1)
        assert done.whole.inverse[start] == place
    assert done.removed_by.tolist() == gone
    assert done.whole.inverse[done.whole.index].tolist() == list(range(len(done.cloud)))
    back = done.back(done.cloud.xyz_m)
    assert np.isnan(back[done.removed_by >= 0]).all()
    kept = done.removed_by < 0
    assert np.abs(back[kept] - xyz[kept]).max(initial=0) < 1.0
    np.testing.assert_array_equal(done.back(np.arange(len(done.cloud))), done.whole.inverse)
    for row, trace in zip(done.report(), done.traces, strict=True):
        assert row.given == row.removed + row.merged + row.left
        assert row.removed == int((trace.inverse < 0).sum())
    assert done.report()[0].step == "finite"
    assert done.report()[0].removed == int(np.isnan(xyz[:, 0]).sum())


def test_what_back_fills_in() -> None:
    trace = Trace("step", np.array([1, -1, 0, 1]), np.array([2, 0]))
    assert trace.back(np.array([5, 6])).tolist() == [6, -1, 5, 6]
    assert trace.back(np.array([True, False])).tolist() == [False, False, True, False]
    assert trace.back(np.array([5, 6], np.uint8), 255).tolist() == [6, 255, 5, 6]
    np.testing.assert_array_equal(trace.back(np.array([[1.0, 2], [3, 4]])), [[3, 4], [NAN, NAN], [1, 2], [3, 4]])
    assert trace.back(np.array([5.0, 6.0]), 0.0).tolist() == [6, 0, 5, 6]
    bad: list[tuple[Any, Any]] = [
        (np.array([5, 6], np.uint8), None),
        (np.array([5, 6], np.uint8), 256),
        (np.array([5, 6]), NAN),
        (np.array([5, 6]), 0.5),
        (np.array([5, 6, 7]), None),
        (np.array(5), None),
        (np.array(["a", "b"]), None),
    ]
    for values, fill in bad:
        with pytest.raises(SpecError, match="back through 'step'"):
            trace.back(values, fill)
    with pytest.raises(SpecError, match="'step' after 'step'"):
        trace.then(trace)


def test_a_pipeline_of_nothing_and_of_its_own_finite() -> None:
    cloud = PointCloud(xyz_m=np.array([[0.0, 0, 0], [NAN, 0, 0], [20.0, 0, 0]]))
    assert Pipeline([])(cloud).removed_by.tolist() == [-1, 0, -1]
    own = Pipeline([Finite(10.0)])
    assert len(own.steps) == 1
    assert own(cloud).removed_by.tolist() == [-1, 0, 0]
    done = Pipeline([RadiusOutliers(0.1)])(cloud)
    assert done.removed_by.tolist() == [1, 0, 1]
    assert len(done.cloud) == 0
    assert np.isnan(done.back(np.zeros((0, 2)))).all()
    table = done.table().splitlines()
    assert [line.split()[-4:] for line in table[1:]] == [["3", "1", "0", "2"], ["2", "2", "0", "0"]]
    with pytest.raises(SpecError, match="Did you mean 'finite'"):
        done.found("finit")


def test_a_pipeline_out_of_a_config() -> None:
    package = "perceive.points.preprocess"
    config = {
        "_target_": f"{package}.pipeline.Pipeline",
        "steps": [
            {"_target_": f"{package}.crop.Crop", "low_m": [0, 0, 0], "high_m": [1, 1, 1]},
            {"_target_": f"{package}.voxel.VoxelFilter", "edge_m": 0.5},
        ],
    }
    done = build(config)(PointCloud(xyz_m=np.array([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1], [2.0, 0, 0]])))
    assert done.whole.inverse.tolist() == [0, 0, -1]


# ------------------------------------------------------------------------------------------------------------- fusion


def test_fused_pictures_lie_on_the_scene_and_lead_back() -> None:
    fused = fuse_frames(FRAMES)
    shown = np.concatenate([truth.reshape(-1) for _, truth in PICTURES.values()])
    assert len(fused.cloud) == int((shown >= 0).sum())
    assert np.abs(outside_m(fused.cloud.xyz_m)).max() < 1e-5
    np.testing.assert_array_equal(shown[fused.trace.index] >= 0, True)
    assert fused.cloud.rgb is not None
    np.testing.assert_allclose(fused.cloud.rgb * 255, COLOURS[shown[fused.trace.index]], atol=1e-3)
    assert fused.cloud.origin_m is not None
    np.testing.assert_allclose(fused.cloud.origin_m, np.array(EYES)[fused.camera], atol=1e-6)
    numbers = fused.pictures(shown[fused.trace.index])
    for name, (frame, truth) in PICTURES.items():
        np.testing.assert_array_equal(numbers[name], truth)
        # The place of a pixel, by the other way to compute it.
        places = fused.pictures(fused.cloud.xyz_m, 0.0)[name]
        expected = transform_points(frame.base_from_camera, unproject(frame.depth_m, frame.intrinsics_px))
        np.testing.assert_allclose(places[truth >= 0], expected[truth >= 0], atol=1e-5)
    near = fuse_frames(FRAMES, max_depth_m=0.6)
    assert 0 < len(near.cloud) < len(fused.cloud)


def changed(frame: RgbdFrame, **arrays: Any) -> RgbdFrame:
    return RgbdFrame(**{"stamp_s": 0.0, **frame.arrays(), **arrays})


def test_pictures_of_several_sizes_and_without_depth() -> None:
    small, truth = picture(EYES[0], 30, 40)
    blind = changed(small, depth_m=np.full((30, 40), NAN, np.float32))
    fused = fuse_frames({"a": FRAMES["camera1"], "b": small, "c": blind})
    parts = fused.pictures(fused.camera)
    assert [part.shape for part in parts.values()] == [(90, 120), (30, 40), (30, 40)]
    np.testing.assert_array_equal(parts["b"], np.where(truth >= 0, 1, -1))
    assert (parts["c"] == -1).all()
    assert len(fuse_frames({"c": blind}).cloud) == 0
    with pytest.raises(SpecError, match="a depth for each pixel"):
        fuse_frames({"a": changed(small, depth_m=np.zeros((30, 41), np.float32))})
    with pytest.raises(SpecError, match="at least one camera"):
        fuse_frames({})


def test_things_on_a_table_are_found_in_the_pictures() -> None:
    """From pixels to clusters and back: the masks of the balls, against the ray tracer's own."""
    fused = fuse_frames(FRAMES)
    done = tabletop((0.0, -0.4, -0.05), (0.8, 0.4, 0.3), edge_m=0.006)(fused.cloud)
    assert len(done.found("clusters")["size"]) == 3
    assert done.cloud.cluster is not None
    middles = done.found("clusters")["middle_m"]
    ball = np.linalg.norm(middles[:, None] - BALLS, axis=-1).argmin(axis=1) + 1
    assert sorted(ball.tolist()) == [1, 2, 3]
    named = np.append(ball, 0)[done.cloud.cluster]
    masks = fused.pictures(done.back(named, 0), 0)
    for name, (_, truth) in PICTURES.items():
        for number in (1, 2, 3):
            mask, right = masks[name] == number, truth == number
            assert (mask & right).sum() / (mask | right).sum() > 0.8
    (plane,) = done.found("planes")["plane"]
    np.testing.assert_allclose(plane, (0, 0, 1, 0), atol=2e-3)
    # Points on the table went with the plane, and normals look to the cameras.
    by_plane = [trace.step for trace in done.traces].index("planes")
    shown = np.concatenate([truth.reshape(-1) for _, truth in PICTURES.values()])[fused.trace.index]
    assert (done.removed_by[shown == 0] == by_plane).mean() > 0.9
    assert done.cloud.normal is not None
    facing = done.cloud.normal * (done.cloud.xyz_m - BALLS[named - 1])
    assert (facing[named > 0].sum(axis=1) > 0).mean() > 0.98


def test_things_around_a_lidar() -> None:
    rng = np.random.default_rng(0)
    ground = rng.uniform(-20, 20, (20_000, 3)) * (1, 1, 0.001) - (0, 0, 1.7)
    things = [
        rng.uniform(-0.5, 0.5, (300, 3)) * size + (*middle, -1.0) for size, middle in ((1.2, (5, 5)), (0.8, (-7, 2)))
    ]
    far = np.array([[200.0, 0, 0], [NAN, 0, 0], [30.0, 30.0, 4.0]])
    done = lidar(edge_m=0.15)(PointCloud(xyz_m=np.concatenate([ground, *things, far])))
    assert len(done.found("clusters")["size"]) == 2
    assert done.removed_by[-3:].tolist() == [1, 0, 4]
    assert done.cloud.cluster is not None
    label = done.back(done.cloud.cluster)
    # A thing's lowest points go with the ground.
    for first, number in ((20_000, 0), (20_300, 1)):
        part = label[first : first + 300]
        assert set(part.tolist()) <= {-1, number}
        assert (part == number).mean() > 0.8
    assert (label[:20_000] == -1).mean() > 0.99


# --------------------------------------------------------------------------------------------------------------- tsdf


def meshed(frames: Any, voxel_m: float = 0.006) -> Mesh:
    volume = Tsdf(voxel_m)
    for frame in frames:
        volume.integrate(frame)
    return volume.mesh()


def test_a_mesh_lies_on_the_scene() -> None:
    mesh = meshed(FRAMES.values())
    assert len(mesh.faces) > 5000
    gap = np.abs(outside_m(mesh.vertices_m))
    assert np.median(gap) < 0.0005
    assert np.percentile(gap, 95) < 0.003
    corners = mesh.vertices_m[mesh.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # On the upper halves of the balls, away from their neighbours, faces look out of the surface.
    middle = corners.mean(axis=1)
    for ball, radius, colour in zip(BALLS, RADII, COLOURS[1:], strict=True):
        on = (np.linalg.norm(middle - ball, axis=1) < 1.1 * radius) & (middle[:, 2] > radius)
        assert on.sum() > 50
        assert ((across[on] * (middle[on] - ball)).sum(axis=1) > 0).mean() > 0.99
        painted = mesh.rgb[mesh.faces[on, 0]]
        assert (np.abs(painted * 255 - colour).max(axis=1) < 40).mean() > 0.8
        out = mesh.vertices_m - ball
        near = (np.linalg.norm(out, axis=1) < 1.1 * radius) & (mesh.vertices_m[:, 2] > radius)
        assert ((mesh.normal[near] * out[near]).sum(axis=1) > 0).mean() > 0.99
    length = np.linalg.norm(mesh.normal, axis=1)
    np.testing.assert_allclose(length[length > 0], 1.0, atol=1e-6)
    assert (length > 0).mean() > 0.99
    volume = Tsdf(0.006, least_views=2)
    for frame in FRAMES.values():
        volume.integrate(frame)
    assert 0 < len(volume.mesh().faces) < len(mesh.faces)


@pytest.mark.parametrize("up", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0)])
def test_a_slope_is_meshed_to_neither_side(up: Any) -> None:
    """Half a pixel would lift or sink the table by 2.6 mm, whichever way the camera is held."""
    mesh = meshed([picture(EYES[0], up=up)[0]])
    apart = np.linalg.norm(mesh.vertices_m[:, None, :2] - BALLS[:, :2], axis=-1).min(axis=1)
    table = mesh.vertices_m[(apart > 0.1) & (np.abs(mesh.vertices_m[:, 2]) < 0.02)]
    assert len(table) > 1000
    assert abs(table[:, 2].mean()) < 0.0003


def test_what_is_known_of_vertices_comes_back_to_the_points() -> None:
    mesh = meshed(FRAMES.values())
    fused = fuse_frames(FRAMES)
    vertex = mesh.vertex_of(fused.cloud.xyz_m, within_m=0.012)
    assert (vertex >= 0).mean() > 0.98
    seen = vertex >= 0
    assert np.linalg.norm(mesh.vertices_m[vertex[seen]] - fused.cloud.xyz_m[seen], axis=1).max() <= 0.012
    red = mesh.rgb[vertex[seen], 0] > mesh.rgb[vertex[seen], 1:].max(axis=1) + 0.3
    assert fused.cloud.rgb is not None
    assert (red == (fused.cloud.rgb[seen, 0] > 0.9)).mean() > 0.97
    assert mesh.vertex_of(np.array([[9.0, 9, 9], [NAN, 0, 0]]), 0.1).tolist() == [-1, -1]


def test_a_mesh_is_the_same_again_and_in_a_fixed_order() -> None:
    one, other = (meshed(list(FRAMES.values())[:1], 0.01) for _ in range(2))
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, vars(other)[name])
    assert np.lexsort(one.vertices_m.T[::-1]).tolist() == list(range(len(one.vertices_m)))
    assert one.faces.min() == 0
    assert one.faces.max() == len(one.vertices_m) - 1


def test_pictures_without_depth_add_nothing() -> None:
    frame = FRAMES["camera0"]
    empty = meshed([])
    assert (empty.vertices_m.shape, empty.faces.shape, empty.rgb.shape) == ((0, 3), (0, 3), (0, 3))
    assert empty.vertex_of(np.zeros((2, 3))).tolist() == [-1, -1]
    for depth in (NAN, INF, 0.0, -1.0, 50.0):
        assert not len(meshed([changed(frame, depth_m=np.full((90, 120), depth, np.float32))], 0.02).faces)
    holes = changed(frame, depth_m=np.where(frame.depth_m > 0.7, np.float32(NAN), frame.depth_m))
    assert 0 < len(meshed([holes], 0.02).faces) < len(meshed([frame], 0.02).faces)
    volume = Tsdf(0.01)
    with pytest.raises(SpecError, match="rgb"):
        volume.integrate(changed(frame, depth_m=np.zeros((90, 121), np.float32)))
    with pytest.raises(SpecError, match="finite pose"):
        volume.integrate(changed(frame, base_from_camera=np.full((4, 4), NAN)))
    assert volume.frames == 0
    for arguments in ((0.0,), (0.01, 0.5), (0.01, 4.0, -1.0), (0.01, 4.0, 3.0, 0)):
        with pytest.raises(SpecError, match="Tsdf"):
            Tsdf(*arguments)


def test_importing_it_all_loads_no_open3d() -> None:
    code = (
        "import pkgutil, importlib, json, sys\n"
        "for package in ('preprocess', 'registration'):\n"
        "    package = importlib.import_module('perceive.points.' + package)\n"
        "    for found in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "names = ('open3d', 'perceive.points.registration.pair')\n"
        "print(json.dumps([name in sys.modules for name in names]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, True]
