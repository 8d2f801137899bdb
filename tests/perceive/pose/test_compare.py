"""Changes of pose in closed form, and the crops of hypotheses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.geometry import axis_angle_to_matrix, camera_rays
from perceive.pose.compare import DIAMETER_M, change_between, changed, drawing, pairs_of, view_of
from perceive.pose.raster import MeshRenderer
from sensors.errors import SpecError
from sensors.geometry import project, transform_points
from tests.policies.poses.made import CAMERA_PX, MadeSource, two_models

SIZE = 64


def poses(seed: int, count: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Poses in front of a camera, middles, and intrinsics, in double precision."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=draw, dtype=torch.float64)

    out = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    out[:, :3, :3] = axis_angle_to_matrix(normal(3))
    out[:, :3, 3] = 0.1 * normal(3) + torch.tensor([0.0, 0.0, 1.5], dtype=torch.float64)
    camera = torch.tensor([300.0, 310.0, 31.5, 30.0], dtype=torch.float64) + 5 * normal(4)
    return out, 0.05 * normal(3), camera


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_true_change_recovers_the_true_pose(seed: int) -> None:
    start, middle, camera = poses(seed)
    end, third = poses(seed + 1)[0], poses(seed + 2)[0]
    first = change_between(start, end, middle, camera, SIZE)
    torch.testing.assert_close(changed(start, first, middle, camera, SIZE), end, rtol=0, atol=1e-9)
    single = changed(
        start.float(), change_between(start.float(), end.float(), middle.float(), camera.float(), SIZE),
        middle.float(), camera.float(), SIZE,
    )  # fmt: skip
    torch.testing.assert_close(single, end.float(), rtol=0, atol=2e-6)
    # Changes compose, and what undoes them does.
    second = change_between(end, third, middle, camera, SIZE)
    both, direct = first.then(second), change_between(start, third, middle, camera, SIZE)
    for name in ("turn", "shift", "depth"):
        torch.testing.assert_close(getattr(both, name), getattr(direct, name), rtol=0, atol=1e-9)
    torch.testing.assert_close(changed(end, first.inverse(), middle, camera, SIZE), start, rtol=0, atol=1e-9)


def test_each_number_does_one_thing() -> None:
    start, middle, camera = poses(3)
    end = start.clone()
    centre = (start[:, :3, :3] @ middle[..., None])[..., 0] + start[:, :3, 3]
    end[:, :3, 3] += centre  # twice as far along the ray: the same place in the picture
    change = change_between(start, end, middle, camera, SIZE)
    torch.testing.assert_close(change.depth, torch.full((8,), np.log(2.0), dtype=torch.float64))
    assert change.shift.abs().max() < 1e-9
    assert (change.turn - torch.eye(3)).abs().max() < 1e-9
    moved = start.clone()
    moved[:, 0, 3] += 0.03
    change = change_between(start, moved, middle, camera, SIZE)
    before, after = (
        project(c.numpy(), camera[0].numpy())[0][:, 0] for c in (centre, centre + torch.tensor([0.03, 0, 0]))
    )
    assert float(change.shift[0, 0]) * SIZE == pytest.approx(after[0] - before[0])
    assert change.depth.abs().max() < 1e-9
    # A turn about the middle leaves it where it is.
    turn = change_between(start, start, middle, camera, SIZE)
    quarter = axis_angle_to_matrix(torch.tensor([[0.0, 0.0, np.pi / 2]], dtype=torch.float64)).expand(8, 3, 3)
    turned = changed(start, type(turn)(quarter, turn.shift, turn.depth), middle, camera, SIZE)
    torch.testing.assert_close((turned[:, :3, :3] @ middle[..., None])[..., 0] + turned[:, :3, 3], centre)
    assert (turned[:, :3, :3] - start[:, :3, :3]).abs().max() > 0.1


def test_at_the_true_pose_the_drawing_is_what_is_seen() -> None:
    model = two_models()[0]
    source = MadeSource([model], 1)
    frame, truth = source.frame(source.views[0]), source.truth(source.views[0])[0].camera_from_object
    renderer = MeshRenderer(model, threads=1)
    wrong = truth.copy()
    wrong[0, 3] += 0.02
    views = [view_of(pose, model, CAMERA_PX, SIZE, 1.4) for pose in (truth, wrong)]
    assert all(view is not None for view in views)
    pairs = pairs_of(frame, renderer, [truth, wrong], [view for view in views if view is not None])
    batch = pairs.batch("seen", "drawn")
    seen, drawn = (batch.stream(name).data for name in ("seen", "drawn"))
    off = []
    for k in range(2):
        there = drawn["depth_m"][k, 0] > 0
        off.append((seen["depth_m"][k, 0] - drawn["depth_m"][k, 0])[there].abs().mean() / DIAMETER_M)
    assert off[0] < 0.03
    assert off[1] > 4 * off[0]
    # The middle of the hypothesis is the origin of the crop's frame, and every object is as large.
    stream = drawn["depth_m"][:, 0]
    rays = camera_rays(drawn["intrinsics_px"][:, 0], SIZE, SIZE)
    points = rays * stream.flatten(1)[..., None] + drawn["base_from_camera"][:, :, :3, 3]
    for k in range(2):
        shown = points[k][stream[k].flatten() > 0]
        assert shown.norm(dim=-1).max() < 0.55 * DIAMETER_M
        assert (shown.amax(0) - shown.amin(0)).max() > 0.5 * DIAMETER_M
    rgb, depth = drawing(renderer, truth, CAMERA_PX, SIZE)
    assert (rgb[depth == 0] == 0).all()


def test_refusals() -> None:
    start, middle, camera = poses(0)
    with pytest.raises(SpecError, match="3 x 3"):
        change_between(start, start, middle, torch.eye(3).repeat(8, 1, 1), SIZE)
    with pytest.raises(SpecError, match="PoseChange"):
        changed(start[:4], change_between(start, start, middle, camera, SIZE), middle, camera, SIZE)
    model = two_models()[0]
    behind, lost = np.eye(4), np.full((4, 4), np.nan)
    behind[2, 3] = -0.5
    assert view_of(behind, model, CAMERA_PX, SIZE, 1.4) is None
    assert view_of(lost, model, CAMERA_PX, SIZE, 1.4) is None
    ahead = np.eye(4)
    ahead[:3, 3] = (0.1, -0.05, 0.7)
    view = view_of(ahead, model, CAMERA_PX, SIZE, 1.4)
    assert view is not None
    middle_m = transform_points(ahead, ((model.low_m + model.high_m) / 2)[None])[0]
    assert view.crop_from_camera @ middle_m == pytest.approx((0, 0, view.distance_m))
