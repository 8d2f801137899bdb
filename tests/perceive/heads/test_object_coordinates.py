"""The head of object coordinates: its losses in closed form, what it refuses, and the contract of heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.batch import Batch, BatchStream
from perceive.heads.base import HeadContext
from perceive.heads.object_coordinates import ObjectCoordinateHead
from perceive.heads.object_coordinates_loss import nearest_truth, point_matching, region_of
from perceive.heads.object_coordinates_target import PoseTarget
from perceive.tokens import Tokens
from sensors.errors import SpecError, WiringError
from sensors.geometry import axis_angle_to_matrix
from sensors.spec import box

WIDTH, SIZE, SIDE, OBJECTS = 16, 16, 2, 3


def room() -> dict[str, spaces.Dict]:
    crop = {
        "rgb": box(0, 255, (SIZE, SIZE, 3), np.uint8),
        "depth_m": box(0, 10, (SIZE, SIZE)),
        "intrinsics_px": box(-1e4, 1e4, (4,)),
        "base_from_camera": box(-10, 10, (4, 4)),
    }
    return {"crop": spaces.Dict(crop), "object": spaces.Dict({"which": box(0, 1, (OBJECTS,))})}


def head(**changes: Any) -> ObjectCoordinateHead:
    torch.manual_seed(0)
    return ObjectCoordinateHead(WIDTH, room(), channels=8, told=4, regions=4, **changes)


def context(size: int = 3, valid: bool = True) -> HeadContext:
    draw = torch.Generator().manual_seed(0)
    pose = torch.eye(4).repeat(size, 1, 1, 1)
    pose[..., 2, 3] = -0.5
    data = {
        "rgb": torch.randint(0, 255, (size, 1, SIZE, SIZE, 3), generator=draw, dtype=torch.uint8),
        "depth_m": 0.45 + 0.1 * torch.rand(size, 1, SIZE, SIZE, generator=draw),
        "intrinsics_px": torch.tensor([40.0, 40.0, 7.5, 7.5]).repeat(size, 1, 1),
        "base_from_camera": pose,
    }
    data["depth_m"][:, :, :4] = 0.0
    age, there = torch.zeros(size, 1), torch.full((size, 1), valid)
    which = torch.eye(OBJECTS)[torch.arange(size) % OBJECTS][:, None]
    batch = Batch({"crop": BatchStream(data, age, there), "object": BatchStream({"which": which}, age, there)})
    count = SIDE**2 + 1
    tokens = Tokens(
        torch.randn(size, count, WIDTH, generator=draw),
        torch.zeros(size, count, 3),
        torch.zeros(size, count, dtype=torch.bool),
        torch.zeros(size, count),
        torch.ones(size, count, dtype=torch.bool),
        {"crop": slice(0, SIDE**2), "object": slice(SIDE**2, count)},
    )
    turn = torch.eye(3).expand(size, 3, 3)
    return HeadContext(torch.randn(size, 1, WIDTH, generator=draw), tokens, torch.zeros(size, 3), turn, batch)


def target(size: int = 3) -> PoseTarget:
    draw = torch.Generator().manual_seed(1)
    mask = torch.zeros(size, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 2:7] = True
    place = torch.where(mask[..., None], 0.05 * (2 * torch.rand(size, 8, 8, 3, generator=draw) - 1), 0.0)
    pose = torch.eye(4).repeat(size, 1, 1)
    pose[:, :3, :3] = torch.from_numpy(axis_angle_to_matrix([0.3, -0.2, 0.5])).float()
    pose[:, 0, 3] = 0.02
    same = torch.eye(4).repeat(OBJECTS, 2, 1, 1)
    same[1, 1] = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    return PoseTarget(
        torch.arange(size) % OBJECTS, torch.ones(size, dtype=torch.bool), mask, place, pose,
        torch.full((OBJECTS,), -1), same,
    )  # fmt: skip


def test_it_is_finite_and_each_sample_is_alone() -> None:
    part, asked = head().eval(), context()
    both = part(asked)
    for name in ("mask_logits", "coordinates_m", "spread_m", "regions", "points_m", "frame_from_object", "present"):
        assert torch.isfinite(getattr(both, name)).all()
    assert both.mask_logits.shape == (3, 8, 8)
    assert both.coordinates_m.shape == both.points_m.shape == (3, 8, 8, 3)
    assert not both.measured[:, :2].any()
    assert both.measured[:, 2:].all()
    turn = both.frame_from_object[:, :3, :3]
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand(3, 3, 3), rtol=0, atol=1e-5)
    # A readout, a token and a colour each matter.
    tokens = replace(asked.tokens, features=asked.tokens.features.flip(-1))
    stream = asked.batch.stream("crop")
    other = replace(stream, data={**stream.data, "rgb": 255 - stream.data["rgb"]})
    for changed in (
        replace(asked, readouts=asked.readouts.flip(-1)),
        replace(asked, tokens=tokens),
        replace(asked, batch=Batch({**asked.batch.streams, "crop": other})),
    ):
        assert not torch.allclose(part(changed).coordinates_m, both.coordinates_m, atol=1e-5)


def test_measured_points_are_those_of_the_crop() -> None:
    """Closed form: the mean of four pixels' points in the crop's frame."""
    asked = context(1)
    stream = asked.batch.stream("crop")
    flat = replace(stream, data={**stream.data, "depth_m": torch.full((1, 1, SIZE, SIZE), 0.48)})
    said = head()(replace(asked, batch=Batch({**asked.batch.streams, "crop": flat})))
    u = (torch.arange(8) * 2 + 0.5 - 7.5) / 40 * 0.48
    half = 0.05 * 3**0.5
    bound = 3 * half - 1e-6
    assert float(u.abs().max()) < bound  # nothing is clipped here
    torch.testing.assert_close(said.points_m[0, 3, :, 0], u, rtol=0, atol=1e-6)
    torch.testing.assert_close(said.points_m[0, :, 5, 1], u, rtol=0, atol=1e-6)
    torch.testing.assert_close(said.points_m[..., 2], torch.full((1, 8, 8), -0.02), rtol=0, atol=1e-6)


def test_absent_frames_and_garbage_do_no_harm() -> None:
    part, gone = head(), context(valid=False)
    stream = gone.batch.stream("crop")
    noise = {name: torch.full_like(v, torch.nan) if v.is_floating_point() else v + 7 for name, v in stream.data.items()}
    rubbish = replace(gone, batch=Batch({**gone.batch.streams, "crop": replace(stream, data=noise)}))
    torch.testing.assert_close(part(rubbish).coordinates_m, part(gone).coordinates_m, rtol=0, atol=0)
    sum(v for k, v in part.loss(rubbish, target()).items() if not k.startswith("_")).backward()  # type: ignore[union-attr]
    assert all(torch.isfinite(p.grad).all() for p in part.parameters() if p.grad is not None)


def test_it_learns_one_batch_and_every_parameter_with_it() -> None:
    part, asked, wanted = head(), context(), target()
    optimizer = torch.optim.Adam(part.parameters(), lr=5e-3)
    losses, off = [], []
    for step in range(150):
        terms = part.loss(asked, wanted)
        loss = torch.stack([value for name, value in terms.items() if not name.startswith("_")]).sum()
        optimizer.zero_grad()
        loss.backward()
        if not step:
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
        optimizer.step()
        losses.append(loss.item())
        off.append(float(terms["_off_mm"]))
    assert losses[-1] < 0.35 * losses[0]
    assert off[-1] < 0.35 * off[0]


def test_the_nearest_truth_is_one_that_looks_alike() -> None:
    draw = torch.Generator().manual_seed(2)
    truth, mask = torch.rand(2, 12, 12, 3, generator=draw), torch.rand(2, 12, 12, generator=draw) < 0.7
    turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    turn[0, 3] = 0.3
    alike = torch.stack([torch.eye(4), turn]).expand(2, 2, 4, 4)
    guess = truth.clone()
    guess[1] = truth[1] @ turn[:3, :3].mT + turn[:3, 3]
    found = nearest_truth(guess + 0.01, truth, mask, alike)
    torch.testing.assert_close(found, torch.where(mask[..., None], guess, 0.0))
    alone = nearest_truth(guess, truth, mask, torch.eye(4).expand(2, 1, 4, 4))  # positive control
    torch.testing.assert_close(alone, torch.where(mask[..., None], truth, 0.0))
    assert (found - alone)[1].abs().max() > 0.1


def test_point_matching_is_zero_at_every_truth_and_a_length_elsewhere() -> None:
    turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    alike = torch.stack([torch.eye(4), turn])[None]
    truth = target(1).frame_from_object
    points = torch.rand(1, 6, 3, generator=torch.Generator().manual_seed(3))
    assert point_matching(truth @ turn, truth, points, alike).item() == pytest.approx(0, abs=1e-6)
    assert point_matching(truth @ turn, truth, points, alike[:, :1]).item() > 0.1
    moved = truth.clone()
    moved[:, :3, 3] += torch.tensor([0.01, -0.02, 0.0])
    assert point_matching(moved, truth, points, alike[:, :1]).item() == pytest.approx(0.03, rel=1e-4)


def test_regions_are_the_nearest_centres() -> None:
    centres = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 2, 0]]])
    points = torch.tensor([[[0.4, 0, 0], [0.6, 0, 0], [0.2, 1.5, 0]]])
    assert region_of(points, centres).tolist() == [[0, 1, 2]]


def test_an_absent_object_has_no_mask_and_no_pose() -> None:
    part, asked, wanted = head(), context(), target()
    gone = replace(wanted, present=torch.zeros(3, dtype=torch.bool))
    terms = {name: value.detach() for name, value in part.loss(asked, gone).items()}
    assert float(terms["pose"]) == float(terms["coordinates"]) == 0.0
    assert float(terms["mask"]) > 0
    assert float(part.loss(asked, wanted)["pose"].detach()) > 0


def test_refusals() -> None:
    with pytest.raises(WiringError, match="corp"):
        head(crop="corp")
    with pytest.raises(WiringError, match="patch_px"):
        head(patch_px=6)
    with pytest.raises(WiringError, match="64 regions"):
        ObjectCoordinateHead(WIDTH, room(), regions=65)
    part, asked, wanted = head(), context(), target()
    with pytest.raises(SpecError, match="maps"):
        part.loss(asked, replace(wanted, mask=wanted.mask[:, :4]))
    part.numbers.copy_(torch.tensor([4, 5, 6]))
    with pytest.raises(SpecError, match="objects"):
        part.loss(asked, replace(wanted, numbers=torch.tensor([4, 6, 5])))
    with pytest.raises(WiringError, match="tokens of 'crop'"):
        part(replace(asked, tokens=replace(asked.tokens, groups={"crop": slice(0, 2)})))
