"""Pictures of meshes against closed forms: planes and balls, near and far, in part and beyond the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from sensors.errors import SpecError
from sensors.geometry import project, transform_points, unproject
from tests.perceive.pose.meshes import HEIGHT, WIDTH, K, mesh, some_pose

WHOLE = (0, 0, WIDTH, HEIGHT)
RENDERERS: dict[str, MeshRenderer] = {}


def renderer(name: str) -> MeshRenderer:
    if name not in RENDERERS:
        RENDERERS[name] = MeshRenderer(mesh(name))
    return RENDERERS[name]


def test_a_triangle_pixel_by_pixel() -> None:
    """z = 2 over the whole picture but for one edge, whose pixels are counted by hand."""
    corner = [[-10, -10, 2], [0.005, -10, 2], [0.005, 30, 2]]
    flat = ObjectModel.make(1, "t", np.array(corner), np.array([[0, 1, 2]]), rgb=(10, 20, 30))
    drawn = MeshRenderer(flat).render(np.eye(4), (100.0, 100.0, 2.0, 1.0), (0, 0, 5, 3))
    # x = (u - 2) / 100 * 2: column 2 is at 0 and column 3 at 0.02.
    expected = np.zeros((3, 5))
    expected[:, :3] = 2.0
    np.testing.assert_allclose(drawn.depth_m[0], expected, atol=1e-6)
    np.testing.assert_allclose(drawn.coordinates_m[0, 1, 1], (-0.02, 0, 2), atol=1e-5)
    np.testing.assert_allclose(drawn.normal[0, 1, 1], (0, 0, -1), atol=1e-6)
    assert drawn.rgb[0, 1, 1].tolist() == [10, 20, 30]
    assert drawn.rgb[0, 1, 4].tolist() == [0, 0, 0]
    assert not drawn.normal[0, 1, 4].any()


def test_a_ball_is_where_the_formula_says() -> None:
    pose = some_pose(2, 0.4)
    depth = renderer("ball").depth(pose, K, WHOLE)[0]
    ray = unproject(np.ones((HEIGHT, WIDTH)), K)
    middle = pose[:3, 3]
    b, a = ray @ middle, (ray**2).sum(-1)
    root = b**2 - a * (middle @ middle - 0.05**2)
    expected = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
    both = (depth > 0) & (expected > 0)
    assert ((depth > 0) != (expected > 0)).sum() < 0.05 * both.sum()  # at the rim, where triangles cut corners
    inner = both & (np.abs(root) > 4e-4)
    assert np.abs(depth - expected)[inner].max() < 4e-4
    assert inner.sum() > 1000


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=15)
def test_everything_that_is_drawn_agrees(seed: int) -> None:
    """Coordinates moved by the pose are the unprojected depth; normals face the camera; depth alone is the same."""
    model, pose = mesh("blob"), some_pose(seed, 0.4)
    drawn = renderer("blob").render(pose, K, WHOLE)
    there = drawn.depth_m[0] > 0
    placed = transform_points(pose, drawn.coordinates_m[0][there])
    np.testing.assert_allclose(placed, unproject(drawn.depth_m[0], K)[there], atol=1e-5)
    normal = drawn.normal[0][there]
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
    assert ((normal * placed).sum(1) <= 1e-6).all()
    assert np.array_equal(drawn.depth_m, renderer("blob").depth(pose, K, WHOLE))
    box = renderer("blob").box(pose, K, HEIGHT, WIDTH)
    assert box is not None
    part = renderer("blob").render(pose, K, box)
    left, top, right, bottom = box
    np.testing.assert_allclose(part.depth_m[0], drawn.depth_m[0, top:bottom, left:right], atol=1e-6)
    assert there.sum() == (part.depth_m > 0).sum()  # nothing of it is beyond the box
    pixels, z = project(transform_points(pose, model.vertices_m), K)
    assert z.min() - 1e-6 <= drawn.depth_m[0][there].min()
    assert drawn.depth_m[0][there].max() <= z.max() + 1e-6
    assert max(pixels[:, 0].min(), 0) >= left - 1e-9
    assert min(pixels[:, 1].max(), HEIGHT) <= bottom


def test_several_poses_are_each_as_alone() -> None:
    poses = np.stack([some_pose(k, 0.5) for k in range(3)])
    together = renderer("box").render(poses, K, WHOLE)
    for k in range(3):
        alone = renderer("box").render(poses[k], K, WHOLE)
        assert np.array_equal(together.depth_m[k], alone.depth_m[0])
        assert np.array_equal(together.rgb[k], alone.rgb[0])
        np.testing.assert_allclose(together.normal[k], alone.normal[0], atol=1e-6)


def test_out_of_view_and_partly_so() -> None:
    pose = np.eye(4)
    pose[:3, 3] = (0, 0, -1)
    assert renderer("box").box(pose, K, HEIGHT, WIDTH) is None
    pose[:3, 3] = (5, 0, 1)
    assert renderer("box").box(pose, K, HEIGHT, WIDTH) is None
    pose[:3, 3] = (0, 0, -0.02)  # around the camera
    assert renderer("box").box(pose, K, HEIGHT, WIDTH) == WHOLE
    pose[:3, 3] = (-0.15, 0, 0.5)
    box = renderer("box").box(pose, K, HEIGHT, WIDTH)
    assert box is not None
    assert box[0] == 0
    with pytest.raises(SpecError, match="box"):
        renderer("box").depth(pose, K, (5, 5, 5, 9))


def test_inside_of_a_mesh_its_walls_are_seen() -> None:
    pose = np.eye(4)
    pose[:3, 3] = (-0.05, -0.035, -0.02)  # the camera is in the middle of the box
    drawn = renderer("box").render(pose, K, WHOLE)
    assert drawn.depth_m[0, 60, 80] == pytest.approx(0.02, abs=1e-6)
    assert (drawn.depth_m > 0).all()
    assert drawn.normal[0, 60, 80, 2] == pytest.approx(-1)
