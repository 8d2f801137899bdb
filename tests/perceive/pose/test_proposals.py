"""What stands on a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perceive.pose.model import ObjectModel
from perceive.pose.proposals import propose
from sensors.errors import DataError, SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix
from tests.perceive.pose.templates.scene import box, objects, shot


def table_scene(places: list[tuple[int, float, float]]) -> tuple[RgbdFrame, list[FloatArray]]:
    """Things at (which, x, y) of a table seen from above at a slant."""
    tilt = np.eye(4)
    tilt[:3, :3] = axis_angle_to_matrix([-2.3, 0, 0])  # the table's up, z, looks towards the camera
    tilt[2, 3] = 0.8
    table = ObjectModel.make(9, "table", *box((2.0, 1.0, 0.02), (0, 0, -0.01), [(140, 110, 80)] * 6))
    models: list[ObjectModel] = []
    poses: list[FloatArray] = []
    for which, x, y in places:
        model = objects()[which]
        at = np.eye(4)
        at[:3, 3] = (x, y, -model.low_m[2])
        models.append(model)
        poses.append(tilt @ at)
    rng = np.random.default_rng(3)
    return shot(rng, [*models, table], [*poses, tilt], behind_m=2.5)[0], poses


def test_each_thing_is_proposed_once_and_the_table_is_not() -> None:
    places = [(1, -0.2, 0.0), (3, 0.0, 0.05), (4, 0.22, -0.02)]
    frame, poses = table_scene(places)
    masks = propose(frame)
    assert len(masks) == 3
    assert sorted(-int(m.sum()) for m in masks) == [-int(m.sum()) for m in masks]
    for (which, _, _), pose in zip(places, poses, strict=True):
        model = objects()[which]
        top = pose @ np.array([*(model.low_m + model.high_m) / 2, 1.0])
        u, v = (frame.intrinsics_px[:2] * top[:2] / top[2] + frame.intrinsics_px[2:]).round().astype(int)
        # The middle of a drill is not in the drill: the box around the mask is asked.
        held = [bool(m[:, :u].any() and m[:, u:].any() and m[:v].any() and m[v:].any()) for m in masks]
        assert sum(held) == 1
    assert not np.logical_and.reduce([masks[0], masks[1]]).any()


def test_what_is_too_long_or_too_small_is_left_out() -> None:
    frame, _ = table_scene([(1, -0.2, 0.0), (4, 0.2, 0.0)])
    assert len(propose(frame)) == 2
    assert len(propose(frame, largest_m=0.15)) == 1
    assert propose(frame, least_pixels=10**6) == []
    assert len(propose(frame, most=1)) == 1


def test_an_empty_table_has_nothing_on_it() -> None:
    assert propose(table_scene([])[0]) == []


def test_no_depth_and_impossible_numbers_are_refused() -> None:
    frame, _ = table_scene([(1, 0.0, 0.0)])
    with pytest.raises(SpecError, match="depth 0 everywhere"):
        propose(replace(frame, depth_m=np.zeros_like(frame.depth_m)))
    with pytest.raises(SpecError, match="edge_m"):
        propose(frame, edge_m=0.02, gap_m=0.01)
    with pytest.raises(DataError, match="intrinsics"):
        propose(replace(frame, intrinsics_px=np.eye(3)))
    broken = frame.depth_m.copy()
    broken[::7] = np.nan
    assert len(propose(replace(frame, depth_m=broken))) == 1
