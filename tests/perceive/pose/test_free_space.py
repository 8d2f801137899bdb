"""The judge that needs no mesh: the truth wins, what nobody saw is no fault, and what was seen through is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from perceive.pose.free_space import FreeSpaceJudge, sight_of
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.references import Reference, fuse
from perceive.pose.templates.judging import Judge
from sensors.errors import DataError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray
from tests.perceive.pose.meshes import HEIGHT, WIDTH, K, about, near, some_pose
from tests.policies.poses.made import boxes_model, two_models

ELL = two_models()[0]
WALL_M = 0.9
FRONT = some_pose(4, 0.4)


def picture(model: ObjectModel, pose: FloatArray, grey: bool = False) -> Reference:
    """An object before a wall, with its colours and its truth."""
    drawn = MeshRenderer(model, threads=1).render(pose, K, (0, 0, WIDTH, HEIGHT))
    mask = drawn.depth_m[0] > 0
    depth = np.where(mask, drawn.depth_m[0], np.float32(WALL_M))
    rgb = np.where(mask[..., None], drawn.rgb[0], np.uint8(90))
    rgb = np.full_like(rgb, 128) if grey else rgb
    frame = RgbdFrame(stamp_s=0.0, rgb=rgb, depth_m=depth, intrinsics_px=K.copy(), base_from_camera=np.eye(4))
    return Reference.make(frame, mask, pose)


def turned(pose: FloatArray, *turn: float) -> FloatArray:
    """The object turned about its own middle."""
    return np.asarray(pose @ about((ELL.low_m + ELL.high_m) / 2, turn))


def scores(
    judge: FreeSpaceJudge, query: Reference, poses: FloatArray, mask: NDArray[np.bool_] | None = None
) -> FloatArray:
    frame = query.frame
    return judge.score(frame.rgb, frame.depth_m, query.mask if mask is None else mask, poses, K)


def test_the_truth_wins_and_a_finer_error_costs_less() -> None:
    judge = FreeSpaceJudge([picture(ELL, turned(FRONT, 0.2, 0.1, 0)), picture(ELL, turned(FRONT, -0.2, 0, 0.3))], 0.12)
    query = picture(ELL, FRONT)
    found = scores(judge, query, np.concatenate([FRONT[None], near(FRONT, 30, 0.4, 0.01, 1).numpy()]))
    assert found.shape == (31,)
    assert 0.8 < found[0] <= 1.0
    assert found.min() >= 0
    assert found[1:].max() < found[0] - 0.1
    back = [FRONT.copy() for _ in range(4)]
    for pose, off in zip(back, (0.0, 0.003, 0.006, 0.02), strict=True):
        pose[2, 3] += off
    assert (np.diff(scores(judge, query, np.stack(back))) < 0).all()


def test_what_no_reference_saw_is_no_fault() -> None:
    """A reference of the other side says little, but enough; a rendering of what it shows prefers another pose."""
    middle = (ELL.low_m + ELL.high_m) / 2
    shown = picture(ELL, FRONT @ about(middle, FRONT[:3, :3].T @ (0.0, np.pi, 0.0)))
    query = picture(ELL, FRONT)
    turns = Rotation.create_group("I").as_rotvec()
    turns = turns[np.linalg.norm(turns, axis=1).argsort()]  # the first is none
    poses = np.stack([FRONT @ about(middle, turn) for turn in turns])
    free = scores(FreeSpaceJudge([shown], 0.12), query, poses)
    assert free.argmax() == 0
    assert free[0] > 0.5
    drawn = Judge(MeshRenderer(fuse([shown], 1)), 0.02, 0.002, 40)
    assert drawn.score(query.frame.rgb, query.frame.depth_m, query.mask, poses, K).argmax() != 0


def test_beside_the_mask_nothing_is_left() -> None:
    judge = FreeSpaceJudge([picture(ELL, FRONT)], 0.12)
    query = picture(ELL, FRONT)
    aside = FRONT.copy()
    aside[0, 3] += 0.1
    out = FRONT.copy()
    out[2, 3] = -0.4  # behind the camera: nobody sees through it, and nothing agrees
    found = scores(judge, query, np.stack([FRONT, aside, out]))
    assert found[0] > 0.9
    assert found[1] < 0.05
    assert found[2] < found[0]


def test_what_hides_a_part_is_no_fault() -> None:
    query = picture(ELL, FRONT)
    half = query.mask & (np.arange(WIDTH) < np.median(np.nonzero(query.mask)[1]))
    judge = FreeSpaceJudge([picture(ELL, FRONT)], 0.12)

    def seen(depth_there: float) -> float:
        depth = np.where(half, np.float32(depth_there), query.frame.depth_m)
        return float(judge.score(query.frame.rgb, depth, query.mask & ~half, FRONT, K)[0])

    assert seen(0.2) > 0.9
    assert seen(WALL_M) < 0.65  # positive control: the wall was seen where half of the object should be


def test_a_point_before_what_a_reference_saw_is_denied() -> None:
    query = picture(ELL, FRONT)
    half = query.mask & (np.arange(WIDTH) < np.median(np.nonzero(query.mask)[1]))
    depth = np.where(half, query.frame.depth_m - np.float32(0.03), query.frame.depth_m)
    found = FreeSpaceJudge([picture(ELL, FRONT)], 0.12).score(query.frame.rgb, depth, query.mask, FRONT, K)
    assert 0.4 < found[0] < 0.6  # the other half agrees


def test_closed_form_of_one_sight() -> None:
    """A square half a metre away, before a wall, and a strip with no depth."""
    depth = np.full((60, 80), 0.9, np.float32)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    depth[mask], depth[50:] = 0.5, 0.0
    camera = np.array([100.0, 100.0, 40.0, 30.0])
    sight = sight_of(np.full((60, 80, 3), 128, np.uint8), depth, mask, camera)
    places = {
        "on it": (40, 30, 0.5, 1.0, 0.0), "before it": (40, 30, 0.45, 1 / 26, 1 - 1 / 26),
        "a little before it": (40, 30, 0.49, 0.5, 0.5), "a little behind it": (40, 30, 0.51, 0.5, 0.0),
        "hidden by it": (40, 30, 0.55, 0.0, 0.0), "beside it": (60, 30, 0.5, 0.0, 1.0),
        "behind the wall": (60, 30, 1.0, 0.0, 0.0), "at its outline": (30, 30, 0.45, 1 / 26, 0.0),
        "where nothing was measured": (40, 55, 0.5, 0.0, 0.0), "out of the picture": (100, 30, 0.5, 0.0, 0.0),
        "behind the camera": (40, 30, -0.5, 0.0, 0.0),
    }  # fmt: skip
    given = np.array(list(places.values()))
    points = np.stack([(given[:, 0] - 40) / 100 * given[:, 2], (given[:, 1] - 30) / 100 * given[:, 2], given[:, 2]], -1)
    agree, denied = sight.look(points[None], np.tile(sight.colour[30, 40], (len(points), 1)), 0.01)
    np.testing.assert_allclose(agree[0], given[:, 3], atol=1e-5)
    np.testing.assert_allclose(denied[0], given[:, 4], atol=1e-5)


def test_colours_tell_shapes_apart_that_are_alike() -> None:
    box = boxes_model(1, ((-0.05, -0.03, -0.02), (0.05, 0.03, 0.02)))
    alike = FRONT @ about((0.0, 0.0, 0.0), (0.0, 0.0, np.pi))

    def lead(grey: bool) -> float:
        both = [picture(box, pose, grey) for pose in (FRONT, alike)]  # all sides but one
        found = scores(FreeSpaceJudge(both, 0.12), both[0], np.stack([FRONT, alike]))
        return float(found[0] - found[1])

    assert lead(grey=False) > 0.03
    assert abs(lead(grey=True)) < 0.01


def test_refusals_and_missing_depth() -> None:
    with pytest.raises(DataError, match="reference"):
        FreeSpaceJudge([], 0.1)
    query = picture(ELL, FRONT)
    judge = FreeSpaceJudge([query], 0.12)
    with pytest.raises(DataError, match="depth"):
        judge.score(query.frame.rgb, np.zeros_like(query.frame.depth_m), query.mask, FRONT, K)
    holes = query.frame.depth_m.copy()
    holes[::3] = np.nan
    assert judge.score(query.frame.rgb, holes, query.mask, FRONT, K)[0] > 0.9
