"""Heaps cut into patches, and the patches put together for one object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from perceive.pose.proposals import propose, standing
from perceive.pose.proposals_object import Palette, ScenePatches, object_proposals
from perceive.pose.proposals_segments import chroma, segments
from perceive.pose.raster import MeshRenderer
from sensors.errors import SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray
from tests.perceive.pose.templates.scene import SIZE, drill, objects, painted_box, wedge
from tests.perceive.pose.test_proposals import table_scene

HEAP = [(1, -0.065, 0.0), (4, 0.07, 0.0), (5, 0.0, 0.05)]  # the box, the drill and the wedge, each against the next


def owners(models: list[ObjectModel], poses: list[FloatArray], frame: RgbdFrame) -> NDArray[np.int64]:
    """Which object each pixel shows, -1 = none."""
    nearest, owner = np.full(SIZE, np.inf), np.full(SIZE, -1)
    for index, (model, pose) in enumerate(zip(models, poses, strict=True)):
        drawn = MeshRenderer(model, 1).depth(pose, frame.intrinsics_px, (0, 0, SIZE[1], SIZE[0]))[0]
        here = (drawn > 0) & (drawn < nearest)
        nearest, owner = np.where(here, drawn, nearest), np.where(here, index, owner)
    return owner


def overlap(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    return float((one & two).sum() / max((one | two).sum(), 1))


def silhouette_m2(model: ObjectModel) -> float:
    a, b, c = (model.vertices_m[model.faces[:, k]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 8


def test_touching_things_are_one_cluster_but_patches_of_their_own() -> None:
    frame, poses = table_scene(HEAP)
    owner = owners([objects()[which] for which, _, _ in HEAP], poses, frame)
    assert max(overlap(one, owner >= 0) for one in propose(frame)) > 0.8  # all three as one
    stands = standing(frame)
    assert overlap(stands, owner >= 0) > 0.9
    found = segments(frame.rgb, frame.depth_m, stands, frame.intrinsics_px)
    assert 5 <= found.count <= 40
    assert ((found.label >= 0) <= stands).all()
    pure = sum(int(np.bincount(owner[found.label == k] + 1).max()) for k in range(found.count))
    assert pure / (found.label >= 0).sum() > 0.93
    assert (found.touching[:, 0] < found.touching[:, 1]).all()
    assert (found.border >= 1).all()


def test_each_object_of_a_heap_has_a_proposal_of_its_own() -> None:
    frame, poses = table_scene(HEAP)
    models = [objects()[which] for which, _, _ in HEAP]
    owner = owners(models, poses, frame)
    found = segments(frame.rgb, frame.depth_m, standing(frame), frame.intrinsics_px)
    scene = ScenePatches(frame.rgb, frame.depth_m, found, frame.intrinsics_px)
    for index, model in enumerate(models):
        some = object_proposals(scene, Palette(model), model.diameter_m, silhouette_m2(model))
        assert 1 <= len(some) <= 12
        assert [one.score for one in some] == sorted((one.score for one in some), reverse=True)
        assert max(overlap(one.mask, owner == index) for one in some[:4]) > 0.6


def test_no_proposal_is_longer_than_the_object() -> None:
    frame, _ = table_scene(HEAP)
    found = segments(frame.rgb, frame.depth_m, standing(frame), frame.intrinsics_px)
    scene = ScenePatches(frame.rgb, frame.depth_m, found, frame.intrinsics_px)
    for diameter in (0.05, 0.1, 0.15):
        for one in object_proposals(scene, Palette(drill()), diameter, 0.01):
            row, column = np.nonzero(one.mask & (frame.depth_m > 0))
            z = frame.depth_m[row, column]
            assert np.ptp((column - 319.5) / 520.0 * z) < 1.3 * diameter
            assert one.mask.sum() >= 80


def test_colours_are_told_apart_in_any_light() -> None:
    palette = Palette(wedge())  # one colour
    own = np.array([60, 150, 140], np.float64)
    for gain in (0.6, 1.0, 1.5):
        assert palette.likeness((own * gain).astype(np.uint8)) > 0.8
    assert palette.likeness(np.array([200, 40, 40], np.uint8)) < 0.05
    grey = chroma(np.array([[90, 90, 90], [200, 200, 200]], np.uint8))
    assert np.abs(grey).max() < 1e-6


def test_an_empty_table_and_impossible_numbers() -> None:
    frame, _ = table_scene([])
    nothing = np.zeros(SIZE, np.bool_)
    found = segments(frame.rgb, frame.depth_m, nothing, frame.intrinsics_px)
    assert found.count == 0
    scene = ScenePatches(frame.rgb, frame.depth_m, found, frame.intrinsics_px)
    assert object_proposals(scene, Palette(painted_box()), 0.15, 0.01) == []
    with pytest.raises(SpecError, match="steps above 0"):
        segments(frame.rgb, frame.depth_m, nothing, frame.intrinsics_px, colour_step=0)
    with pytest.raises(SpecError, match="above 0"):
        standing(frame, distance_m=0)
    with pytest.raises(SpecError, match="depth 0"):
        standing(replace(frame, depth_m=np.zeros_like(frame.depth_m)))
