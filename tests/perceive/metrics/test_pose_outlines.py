"""Rays are left out only where they would hit nothing: pictures are the same to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from perceive.metrics.pose_fast import hull_corners
from perceive.metrics.pose_outlines import outlines
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer

LENS, SIZE = np.array([120.0, 118.0, 40.3, 29.6]), (60, 80)
WHOLE = (0, 0, SIZE[1], SIZE[0])


def ball(squeezed: tuple[float, float, float]) -> ObjectModel:
    """A ball of triangles, squeezed and off its origin."""
    tilt, turn = np.linspace(0.05, np.pi - 0.05, 12)[:, None], 2 * np.pi * np.arange(16) / 16
    points = np.stack(np.broadcast_arrays(np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)), -1)
    i, j = (x.ravel() for x in np.meshgrid(np.arange(16), np.arange(11)))
    a, b = 16 * j + i, 16 * j + (i + 1) % 16
    faces = np.concatenate([np.stack([a, b, a + 16], 1), np.stack([b, b + 16, a + 16], 1)])
    return ObjectModel.make(1, "ball", points.reshape(-1, 3) * squeezed + (0.01, -0.02, 0.03), faces)


RENDERERS = [MeshRenderer(ball(size), threads=1) for size in ((0.05, 0.05, 0.05), (0.08, 0.01, 0.03))]


def pose(turn: tuple[float, float, float], at: tuple[float, float, float]) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), at
    return out


coordinate = st.floats(-1.0, 1.0)
triple = st.tuples(coordinate, coordinate, coordinate)


@given(st.lists(st.tuples(triple, triple), min_size=1, max_size=4), st.sampled_from([0, 1]), st.floats(0.05, 2.0))
@example([((0, 0, 0), (0, 0, 0))], 0, 0.05)  # around the camera
@example([((0, 0, 0), (0, 0, -1))], 1, 1.0)  # behind it
@example([((1, 0, 0), (-0.5, 0, 0.08)), ((0, 0, 0), (0, 0, 0.9))], 1, 0.1)  # beside it, and in full view
@settings(max_examples=120, deadline=None)
def test_nothing_is_lost(turns_and_places, which, reach_m):
    """Anywhere about the camera, within a reach from touching it to far away; several poses in one call."""
    renderer = RENDERERS[which]
    poses = np.stack([pose(np.pi * np.array(turn), reach_m * np.array(at)) for turn, at in turns_and_places])
    lens, sizes = np.tile(LENS, (len(poses), 1)), [SIZE] * len(poses)
    full = renderer.depths(poses, lens, [WHOLE] * len(poses))
    for corners in (hull_corners(renderer.model.vertices_m), None):
        found = outlines(renderer, corners, poses, lens, sizes)
        seen = [k for k, one in enumerate(found) if one is not None]
        boxes, runs = [found[k].box for k in seen], [found[k].runs for k in seen]
        parts = renderer.depths(poses[seen], lens[seen], boxes, runs) if seen else []
        drawn = np.zeros((len(poses), *SIZE), np.float32)
        for k, (left, top, right, bottom), part in zip(seen, boxes, parts, strict=True):
            drawn[k, top:bottom, left:right] = part
        np.testing.assert_array_equal(drawn, np.stack(full))


def test_few_rays_miss():
    """A ring of 16 corners fills 0.765 of its box; 16 half-planes and a pixel leave little of the rest."""
    lens, size = np.array([1180.0, 1180.0, 200.0, 200.0]), (400, 400)
    renderer = RENDERERS[0]
    middle = pose((0, 0, 0), (-0.01, 0.02, 0.47))
    (found,) = outlines(renderer, hull_corners(renderer.model.vertices_m), middle[None], lens[None], [size])
    assert found is not None
    (depth,) = renderer.depths(middle[None], lens[None], [found.box], [found.runs])
    hits, area = np.count_nonzero(depth), depth.size
    assert hits / area == pytest.approx(2 * np.sin(np.pi / 8), abs=0.02)
    assert hits <= found.count <= 1.08 * hits


def test_rays_are_cast_only_in_the_runs():
    renderer, middle = RENDERERS[0], pose((0, 0, 0), (0, 0, 0.3))
    (full,) = renderer.depths(middle[None], LENS[None], [WHOLE])
    runs = np.tile([0, 80], (60, 1))
    runs[30], runs[31] = (38, 43), (7, 7)
    (part,) = renderer.depths(middle[None], LENS[None], [WHOLE], [runs])
    assert full[30:32].astype(bool).sum(1).min() > 20
    assert part[30].nonzero()[0].tolist() == [38, 39, 40, 41, 42]
    assert not part[31].any()
    full[30, :38] = full[30, 43:] = full[31] = 0
    np.testing.assert_array_equal(part, full)


def test_out_of_view_is_none():
    corners = hull_corners(RENDERERS[0].model.vertices_m)
    poses = np.stack([pose((0, 0, 0), at) for at in ((0, 0, -0.5), (3, 0, 1), (0, -3, 1), (1e6, 0, 0.1), (0, 0, 0.5))])
    found = outlines(RENDERERS[0], corners, poses, np.tile(LENS, (5, 1)), [SIZE] * 5)
    assert [one is None for one in found] == [True, True, True, True, False]
