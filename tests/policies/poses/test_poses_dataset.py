"""Crops of posed objects as training data: truth, augmentation, and a small training to the end."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from perceive.heads.object_coordinates_target import PoseTarget
from perceive.pose.augment import PoseCropAugment
from policies.poses.dataset import PoseCropDataset
from sensors.errors import DataError, SpecError, WiringError
from tests.policies.poses.made import MadeSource, two_models
from tests.policies.poses.small import SIZE, dataset, learned

_ALL = "blind absent background occluder brightness colour_gain hue_rad gamma colour_noise depth_noise holes"
QUIET = dict.fromkeys(_ALL.split(), 0.0)


@pytest.fixture(scope="module")
def data() -> PoseCropDataset:
    return dataset(8)


def gaps_m(batch: object, target: PoseTarget) -> torch.Tensor:
    """How far measured points of mask pixels are from where pose and coordinates put them."""
    stream = batch.stream("crop")  # type: ignore[attr-defined]
    depth, camera, pose = (stream.data[name][:, 0] for name in ("depth_m", "intrinsics_px", "base_from_camera"))
    step = (torch.arange(SIZE) - camera[:, 2:3]) / camera[:, :1]
    across = torch.broadcast_tensors(step[:, None, :], step[:, :, None])
    ray = torch.stack([*across, torch.ones_like(depth)], -1)
    points = (ray * depth[..., None])[:, ::2, ::2] + pose[:, None, None, :3, 3]
    turn, shift = target.frame_from_object[:, :3, :3], target.frame_from_object[:, :3, 3]
    placed = torch.einsum("bij,bhwj->bhwi", turn, target.coordinates_m) + shift[:, None, None]
    there = target.mask & (depth[:, ::2, ::2] > 0)
    return (points - placed).norm(dim=-1)[there]


def test_a_sample_is_a_crop_with_its_truth(data: PoseCropDataset) -> None:
    batch, target = data.batch(np.arange(len(data)))
    assert len(data) == 16
    assert data.numbers == (3, 7)
    assert batch.stream("object").data["which"].argmax(-1)[:, 0].tolist() == target.which.tolist()
    assert (target.mask.sum((1, 2)) > 50).all()
    # A pixel of the small wide crops is 4 mm wide.
    assert gaps_m(batch, target).median() < 4e-3
    # The frame's origin is on the object's surface: truth is a diameter away at most.
    assert (target.frame_from_object[:, :3, 3].norm(dim=-1) < 0.1).all()
    again = pickle.loads(pickle.dumps(data)).batch([3])  # noqa: S301  (our own)
    torch.testing.assert_close(again[1].coordinates_m, target.coordinates_m[3:4])


def test_other_cuts_keep_truth_true(data: PoseCropDataset) -> None:
    batch, target = data.batch(np.arange(len(data)))
    cut_anew = PoseCropAugment(**{**QUIET, "turn_rad": 2.0})
    new, changed = cut_anew(batch, target, torch.Generator().manual_seed(0))
    assert gaps_m(new, changed).median() < 4e-3
    assert not torch.allclose(changed.frame_from_object, target.frame_from_object, atol=1e-2)
    assert changed.source is None
    wrong = replace(changed, frame_from_object=target.frame_from_object)  # positive control
    assert gaps_m(new, wrong).median() > 8e-3
    same = cut_anew(batch, target, torch.Generator().manual_seed(0))[0]
    assert torch.equal(same.stream("crop").data["rgb"], new.stream("crop").data["rgb"])
    with pytest.raises(WiringError, match="source"):
        cut_anew(new, changed, torch.Generator())


def test_what_is_put_in_front_leaves_the_mask(data: PoseCropDataset) -> None:
    batch, target = data.batch(np.arange(len(data)))
    generator = torch.Generator().manual_seed(1)
    new, changed = PoseCropAugment(**{**QUIET, "occluder": 1.0})(batch, target, generator)
    plain = PoseCropAugment(**QUIET)(batch, target, torch.Generator().manual_seed(1))[1]
    assert changed.mask.sum() < 0.97 * plain.mask.sum()
    assert (changed.mask.sum((1, 2)) >= 0.25 * plain.mask.sum((1, 2))).all()
    assert (changed.coordinates_m[~changed.mask] == 0).all()
    assert gaps_m(new, changed).median() < 4e-3


def test_blind_and_absent_samples(data: PoseCropDataset) -> None:
    batch, target = data.batch(np.arange(len(data)))
    new, changed = PoseCropAugment(**{**QUIET, "blind": 1.0})(batch, target, torch.Generator().manual_seed(2))
    assert not new.stream("crop").data["depth_m"].any()
    assert changed.mask.any((1, 2)).all()
    # Both objects are in every picture, so nothing can be asked for in vain ...
    absent = PoseCropAugment(**{**QUIET, "absent": 1.0})
    assert absent(batch, target, torch.Generator().manual_seed(3))[1].present.all()
    # ... unless one of them were not.
    assert target.source is not None
    nowhere = torch.zeros(len(data), 2, dtype=torch.bool)
    nowhere[torch.arange(len(data)), 1 - target.which] = True
    lonely = replace(target, source=replace(target.source, nowhere=nowhere))
    new, changed = absent(batch, lonely, torch.Generator().manual_seed(3))
    assert changed.which.tolist() == (1 - target.which).tolist()
    assert not changed.present.any()
    assert not changed.mask.any()
    assert new.stream("object").data["which"].argmax(-1)[:, 0].tolist() == changed.which.tolist()


def test_whole_pictures_are_held_back(data: PoseCropDataset) -> None:
    mine, back = data.split(0.3, 0)
    assert len(mine) + len(back) == len(data)
    views = data._crops.fields["view"]
    assert not {tuple(v) for v in views[mine]} & {tuple(v) for v in views[back]}
    assert len(back) >= 2


def test_a_short_training_beats_a_constant_guess() -> None:
    model, losses = learned()
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    held = dataset(6, seed=5)
    batch, target = held.batch(np.arange(len(held)))
    with torch.no_grad():
        said = model(batch)["coordinates"]
        terms = model.loss(batch, {"coordinates": target})
    constant = []
    for which in range(2):
        seen = target.coordinates_m[target.which == which][target.mask[target.which == which]]
        constant.append((seen - seen.mean(0)).norm(dim=-1).mean())
    assert 1e-3 * terms["coordinates/_off_mm"] < 0.8 * torch.stack(constant).mean()
    assert terms["coordinates/_iou"] > 0.5
    blank = model(dataset(6, seed=5).batch(np.arange(len(held)))[0])["coordinates"].coordinates_m
    torch.testing.assert_close(blank, said.coordinates_m)


def test_refusals() -> None:
    source = MadeSource(two_models(), 1)
    with pytest.raises(SpecError, match="size_px"):
        PoseCropDataset("memory", source=source, size_px=95)
    with pytest.raises(SpecError, match="wide_extent"):
        PoseCropDataset("memory", source=source, wide_extent=1.0)
    with pytest.raises(SpecError, match="objects"):
        PoseCropDataset("memory", source=source, objects=[3, 4])
    with pytest.raises(DataError, match="visible instances"):
        PoseCropDataset("memory", source=source, wide_px=8, size_px=8, wide_extent=100.0)
    with pytest.raises(SpecError, match="indices"):
        dataset(1).batch([9])
    with pytest.raises(SpecError, match="blind"):
        PoseCropAugment(blind=1.5)
