"""Objects of the scenes: closed, as large as stated, and symmetric exactly as they say, colours included."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from envs.pose_scenes.library import HELD_OUT, KNOWN, NUMBERS, objects
from envs.pose_scenes.shape import ObjectShape, Solid
from envs.pose_scenes.shapes_data import read_obj
from envs.pose_scenes.solids import box, hollow, lathe, prism, superquadric, triangulate, tube
from envs.pose_scenes.turns import about, cyclic, dihedral, octahedral, turn
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix

NAMES = [*KNOWN, *HELD_OUT]
FORMULAS = [name for name in NAMES if name not in ("duck", "bunny", "teddy")]
RED, BLUE = (200, 0, 0), (0, 0, 200)
SIDE = 72
CAMERA = np.array([150.0, 150.0, (SIDE - 1) / 2, (SIDE - 1) / 2])
CLOSE = 0.985  # of the pixels; rims differ, and polygons stand for circles


@pytest.fixture(scope="module")
def shapes() -> dict[str, ObjectShape]:
    return {shape.name: shape for shape in objects(NAMES)}


def volume(solid: Solid) -> float:
    a, b, c = (solid.vertices_m[solid.faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6.0)


def views(shape: ObjectShape) -> list[FloatArray]:
    out = []
    for rotation in ((0.7, -1.1, 0.4), (2.4, 0.3, -0.9), (-0.5, 0.6, 1.9)):
        pose = np.eye(4)
        pose[:3, :3] = axis_angle_to_matrix(rotation)
        pose[:3, 3] = np.array([0.0, 0.0, 0.4]) - pose[:3, :3] @ shape.middle_m
        out.append(pose)
    return out


def agreement(renderer: MeshRenderer, shape: ObjectShape, turned: FloatArray) -> float:
    """Least share over three views of the object's pixels that look alike, in depth to 0.15 mm and in colour."""
    poses = views(shape)
    both = renderer.render(np.stack([*poses, *(pose @ turned for pose in poses)]), CAMERA, (0, 0, SIDE, SIDE))
    depth, rgb = both.depth_m.reshape(2, 3, -1), both.rgb.reshape(2, 3, -1, 3)
    alike = (np.abs(depth[0] - depth[1]) < 1.5e-4) & (rgb[0] == rgb[1]).all(-1)
    there = (depth > 0).any(0)
    assert (there.sum(-1) > 200).all()
    return float(((alike & there).sum(-1) / there.sum(-1)).min())


def renderer_of(shape: ObjectShape) -> MeshRenderer:
    return MeshRenderer(ObjectModel.make(1, shape.name, shape.vertices_m, shape.faces, shape.rgb), threads=1)


def test_there_are_enough_and_numbers_never_meet() -> None:
    assert len(KNOWN) >= 8
    assert len(HELD_OUT) >= 6
    assert len(set(NUMBERS.values())) == len(NUMBERS) == len(NAMES)
    assert (NUMBERS["brick"], NUMBERS["duck"], NUMBERS["cone"]) == (1, 11, 101)  # stand in folders on disk


@pytest.mark.parametrize("name", NAMES)
def test_an_object_is_closed_of_a_size_for_hands_and_painted_by_faces(
    name: str, shapes: dict[str, ObjectShape]
) -> None:
    shape = shapes[name]
    model = ObjectModel.make(1, name, shape.vertices_m, shape.faces, shape.rgb)
    assert model.watertight
    assert 0.05 <= model.diameter_m <= 0.15
    assert 2e-5 < shape.volume_m3 < 6e-4
    assert (shape.middle_m > model.low_m).all()
    assert (shape.middle_m < model.high_m).all()
    assert (shape.rgb[shape.faces] == shape.rgb[shape.faces[:, :1]]).all()


@pytest.mark.parametrize("name", NAMES)
def test_stated_symmetries_cannot_be_seen(name: str, shapes: dict[str, ObjectShape]) -> None:
    shape, renderer = shapes[name], renderer_of(shapes[name])
    turns = list(shape.discrete)
    for axis, offset in zip(shape.axes, shape.offsets_m, strict=True):
        for angle in (0.4, 1.9, math.pi):
            turns += about(offset, turn(tuple(axis), angle)[None]).tolist()
    for each in turns:
        assert agreement(renderer, shape, np.asarray(each)) > CLOSE
    small = turn((0.3, 0.5, 0.8), 0.2)  # a motion that is none
    assert agreement(renderer, shape, about(shape.middle_m, small[None])[0]) < 0.9


@pytest.mark.parametrize("name", NAMES)
def test_no_other_turn_is_a_symmetry(name: str, shapes: dict[str, ObjectShape]) -> None:
    shape, renderer = shapes[name], renderer_of(shapes[name])
    every = np.concatenate([octahedral(), dihedral(5), dihedral(6)])
    if len(shape.axes):  # about its own axis all are; what remains is to turn the axis round
        across = np.cross(shape.axes[0], (0.3, 0.5, 0.8))
        every = np.stack([turn(tuple(across), angle) for angle in (math.pi, math.pi / 2, math.pi / 3)])
    for each in about(shape.middle_m, every):
        known = any(np.allclose(each, one, atol=1e-6) for one in shape.discrete)
        upside_down = bool(len(shape.axes) and len(shape.discrete)) and np.isclose(np.trace(each[:3, :3]), -1.0)
        if not known and not upside_down:
            assert agreement(renderer, shape, each) < 0.95


@pytest.mark.parametrize("name", NAMES)
def test_discrete_symmetries_are_a_group(name: str, shapes: dict[str, ObjectShape]) -> None:
    shape = shapes[name]
    group = np.concatenate([np.eye(4)[None], shape.discrete])
    for first in group:
        for second in group:
            assert np.abs(first @ second - group).max((1, 2)).min() < 1e-9
    assert len({tuple(np.round(one, 6).ravel() + 0.0) for one in group}) == len(group)


@pytest.mark.parametrize("name", FORMULAS)
def test_convex_parts_fill_the_mesh_and_no_more(name: str, shapes: dict[str, ObjectShape]) -> None:
    import open3d

    shape = shapes[name]
    outside = np.full(len(shape.vertices_m), np.inf)
    corners = []
    for hull in shape.hulls:
        found = ConvexHull(hull)
        outside = np.minimum(outside, (shape.vertices_m @ found.equations[:, :3].T + found.equations[:, 3]).max(1))
        corners.append(hull[found.vertices])
    assert outside.max() < 2e-3  # metres that a vertex stands out
    scene = open3d.t.geometry.RaycastingScene(1)
    tensor = open3d.core.Tensor
    scene.add_triangles(tensor(shape.vertices_m.astype(np.float32)), tensor(shape.faces.astype(np.uint32)))
    away = scene.compute_distance(tensor(np.concatenate(corners).astype(np.float32)))
    inside = scene.compute_occupancy(tensor(np.concatenate(corners).astype(np.float32)))
    assert (away.numpy() * (1 - inside.numpy())).max() < 1e-3


# ------------------------------------------------------------------------------------------------------------ formulas


def test_volumes_are_those_of_the_formulas() -> None:
    round_share = math.sin(2 * math.pi / 96) / (2 * math.pi / 96)  # of a circle's area that its polygon has
    cone = lathe([(0.0, 0.0), (0.05, 0.0), (0.0, 0.1)], [RED, BLUE])
    assert volume(cone) == pytest.approx(math.pi * 0.05**2 * 0.1 / 3 * round_share)
    angle = 2 * math.pi * np.arange(200) / 200
    torus = lathe(np.stack([0.04 + 0.01 * np.cos(angle), 0.01 * np.sin(angle)], -1), [RED] * 200, closed=True)
    assert volume(torus) == pytest.approx(2 * math.pi**2 * 0.04 * 0.01**2 * round_share, rel=1e-3)
    cup = hollow([(0, 0), (0.04, 0), (0.04, 0.1), (0.03, 0.1), (0.03, 0.01), (0, 0.01)], [RED] * 5, 0.01)
    assert volume(cup) == pytest.approx(math.pi * (0.04**2 * 0.1 - 0.03**2 * 0.09) * round_share)
    assert volume(box((0.1, 0.2, 0.3), (RED, RED, BLUE), 0.2, BLUE)) == pytest.approx(0.006)
    bar = tube([(0, 0, 0), (0, 0, 0.1), (0, 0, 0.3)], 0.01, RED, sides=200)
    assert volume(bar) == pytest.approx(math.pi * 0.01**2 * 0.3, rel=1e-3)
    ball = superquadric((0.03, 0.04, 0.05), 1.0, 1.0, [RED] * 8)
    assert volume(ball) == pytest.approx(4 / 3 * math.pi * 0.03 * 0.04 * 0.05, rel=5e-3)


def test_a_polygon_with_bays_is_filled_once() -> None:
    outline = np.array([(0, 0), (4, 0), (4, 1), (1, 1), (1, 2), (3, 2), (3, 3), (0, 3)], float)
    triangles = triangulate(outline)
    a, b, c = (outline[triangles[:, k]] for k in range(3))
    areas = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(8.0)
    assert len(triangles) == 6
    assert volume(prism(outline, 0.5, RED, (RED, BLUE))) == pytest.approx(4.0)
    with pytest.raises(AssertionError):
        triangulate(outline[::-1])


def test_groups_of_turns_have_their_orders() -> None:
    assert (len(cyclic(6)), len(dihedral(2)), len(dihedral(5)), len(octahedral())) == (5, 3, 9, 23)
    centre = np.array([0.1, -0.2, 0.3])
    moved = about(centre, octahedral())
    assert np.allclose(moved[:, :3, :3] @ centre + moved[:, :3, 3], centre)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("names", [[], ["mug", "mug"], ["mugg"]])
def test_wrong_names_are_refused(names: list[str]) -> None:
    with pytest.raises(SpecError, match=r"each once|Did you mean 'mug'"):
        objects(names)


def test_damaged_mesh_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    with pytest.raises(DataError, match="OBJ file"):
        read_obj(path)
    for text in ("v 0 0 zero\n", "v 0 0 0\nf 1 2 3\n", "v 0 0 0\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=str(path)):
            read_obj(path)
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\no a\nf 1 2 3\no b\nf 1/1 2/2 3/3 4/4\n")
    vertices, faces, parts = read_obj(path)
    assert (vertices.shape, faces.tolist()) == ((4, 3), [[0, 1, 2], [0, 1, 2], [0, 2, 3]])
    assert [len(part) for part in parts] == [3, 4]
