"""The verifier: the truth wins, and each kind of disagreement costs."""

from __future__ import annotations

import numpy as np
import pytest

from perceive.pose.raster import MeshRenderer
from perceive.pose.verify import Verifier
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray
from tests.perceive.pose.meshes import HEIGHT, WIDTH, K, mesh, near, some_pose

WHOLE = (0, 0, WIDTH, HEIGHT)
RENDERER = MeshRenderer(mesh("bracket"))
VERIFIER = Verifier(RENDERER)
POSE = some_pose(4, 0.4)
OBJECT = RENDERER.depth(POSE, K, WHOLE)[0]
MASK = OBJECT > 0
SCENE = np.where(MASK, OBJECT, np.float32(0.6))  # before a wall


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> FloatArray:
    out = POSE.copy()
    out[:3, 3] += (x, y, z)
    return out


@pytest.mark.parametrize("mask", [MASK, None])
def test_the_truth_has_all_points_and_wins(mask: np.ndarray | None) -> None:
    poses = np.concatenate([POSE[None], near(POSE, 20, 0.3, 0.01, 1).numpy()])
    scores = VERIFIER.score(SCENE, mask, poses, K)
    assert scores[0] == pytest.approx(1.0, abs=1e-4)
    assert scores[1:].max() < 0.9
    assert scores.min() >= 0
    alone = VERIFIER.score(SCENE, mask, POSE, K)
    assert alone.shape == (1,)


def test_a_finer_error_costs_less() -> None:
    poses = np.stack([moved(z=step) for step in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.02)])
    scores = VERIFIER.score(SCENE, MASK, poses, K)
    assert (np.diff(scores) < 0).all() or scores[-2] == scores[-1] == 0


@pytest.mark.parametrize("mask", [MASK, None])
def test_in_front_of_what_was_seen_is_worse_than_behind(mask: np.ndarray | None) -> None:
    """Half of the object's pixels show the wall: with the same number that agree, being seen through costs more."""
    half = MASK & (np.arange(WIDTH) < np.median(np.nonzero(MASK)[1]))
    through = np.where(half, np.float32(0.6), SCENE)
    hidden = np.where(half, np.float32(0.2), SCENE)
    visible = None if mask is None else MASK & ~half
    front = VERIFIER.score(through, visible, POSE, K)[0]
    behind = VERIFIER.score(hidden, visible, POSE, K)[0]
    assert front < behind
    if mask is not None:
        assert behind == pytest.approx(1.0, abs=1e-3)  # hidden by something: the mask knows


def test_a_part_of_the_mask_that_is_not_reached_costs() -> None:
    wider = MASK.copy()
    wider[:20] = True
    assert VERIFIER.score(SCENE, wider, POSE, K)[0] < 0.7


def test_out_of_view_has_no_points() -> None:
    assert VERIFIER.score(SCENE, MASK, np.stack([moved(z=-2), moved(x=3)]), K).tolist() == [0, 0]


def test_holes_in_the_depth_are_neutral() -> None:
    holes = SCENE.copy()
    holes[np.random.default_rng(0).random(holes.shape) < 0.3] = 0
    holes[::7] = np.nan
    scores = VERIFIER.score(holes, MASK, np.stack([POSE, moved(x=0.01)]), K)
    assert scores[0] > 0.99
    assert scores[1] < 0.8


def test_without_depth_the_outlines_overlap() -> None:
    aside = moved(x=0.02)
    other = RENDERER.depth(aside, K, WHOLE)[0] > 0
    found = VERIFIER.score(np.zeros_like(SCENE), MASK, np.stack([POSE, aside]), K)
    assert found[0] == pytest.approx(1.0, abs=1e-6)
    assert found[1] == pytest.approx((MASK & other).sum() / (MASK | other).sum(), abs=0.03)


def test_a_coarser_grid_sees_the_same() -> None:
    poses = near(POSE, 10, 0.2, 0.01, 3).numpy()
    fine, coarse = (Verifier(RENDERER, pixels=n).score(SCENE, MASK, poses, K) for n in (100000, 400))
    np.testing.assert_allclose(coarse, fine, atol=0.12)
    assert coarse.argmax() == fine.argmax()
    assert Verifier(RENDERER, pixels=400).score(SCENE, MASK, POSE, K)[0] == pytest.approx(1, abs=1e-3)


def test_bad_input() -> None:
    with pytest.raises(DataError, match="mask"):
        VERIFIER.score(np.zeros_like(SCENE), None, POSE, K)
    with pytest.raises(DataError, match="mask"):
        VERIFIER.score(SCENE, np.zeros_like(MASK), POSE, K)
    with pytest.raises(DataError, match="mask"):
        VERIFIER.score(SCENE, MASK[1:], POSE, K)
    with pytest.raises(SpecError, match="3 x 3"):
        VERIFIER.score(SCENE, MASK, POSE, np.eye(3))
    with pytest.raises(DataError, match="finite"):
        VERIFIER.score(SCENE, MASK, POSE * np.nan, K)
    with pytest.raises(SpecError, match="tolerance"):
        Verifier(RENDERER, 0.0)
