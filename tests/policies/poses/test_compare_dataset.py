"""Pairs of seen and drawn pictures: the change that they are labelled with is the one that makes them alike."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from perceive.batch import Batch
from perceive.geometry import camera_rays
from perceive.heads.pose_change_target import ChangeTarget
from perceive.pose.compare import DIAMETER_M
from perceive.pose.compare_augment import PoseCompareAugment
from perceive.pose.symmetry import symmetry_nearest
from policies.poses.compare_dataset import PoseCompareDataset
from sensors.errors import DataError, SpecError
from tests.policies.poses.made import MadeSource, two_models
from tests.policies.poses.small_compare import SIZE, dataset

_ALL = "blind background occluder dyed brightness colour_gain gamma colour_noise depth_noise holes"
QUIET: dict[str, Any] = dict.fromkeys(_ALL.split(), 0.0)


@pytest.fixture(scope="module")
def data() -> PoseCompareDataset:
    return dataset(6)


def gap(batch: Batch, target: ChangeTarget, *, undo: bool = False) -> torch.Tensor:
    """Distance in depth of what is seen from where the change puts the drawn surface, [B], in diameters.

    The median over those pixels of the drawing that come to lie on the object's mask.
    """
    drawn, stream = batch.stream("drawn").data["depth_m"][:, 0], batch.stream("seen").data
    depth, camera, pose = (stream[name][:, 0] for name in ("depth_m", "intrinsics_px", "base_from_camera"))
    away = -pose[:, 2, 3]
    far = away if undo else away * target.depth.exp()
    turn = torch.eye(3).expand_as(target.turn) if undo else target.turn
    shift = torch.zeros_like(target.shift) if undo else target.shift
    middle = torch.cat([SIZE * shift / camera[:, :2] * far[:, None], far[:, None]], 1)
    points = camera_rays(camera, SIZE, SIZE) * drawn.flatten(1)[..., None]
    points = torch.cat([points[..., :2], points[..., 2:] - away[:, None, None]], -1) @ turn.mT + middle[:, None]
    pixel = (points[..., :2] / points[..., 2:] * camera[:, None, :2] + camera[:, None, 2:]).round().long()
    inside = ((pixel >= 0) & (pixel < SIZE)).all(-1) & (drawn.flatten(1) > 0)
    index = (pixel[..., 1] * SIZE + pixel[..., 0]).clamp(0, SIZE**2 - 1)
    seen = depth.flatten(1).gather(1, index)
    mask = target.mask.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    shown = inside & mask.gather(1, index) & (seen > 0)
    off = torch.where(shown, (points[..., 2] - seen).abs() / DIAMETER_M, torch.nan)
    return off.nanmedian(1).values


def test_the_true_change_puts_the_surface_where_it_is_seen(data: PoseCompareDataset) -> None:
    batch, target = data.batch(np.arange(len(data)))
    true, before = gap(batch, target), gap(batch, target, undo=True)
    assert true.nanmedian() < 0.03
    assert before.nanmedian() > 3 * true.nanmedian()
    for key in ("seen", "drawn"):
        stream = batch.stream(key).data
        assert stream["rgb"].shape == (len(data), 1, SIZE, SIZE, 3)
        assert stream["rgb"].dtype == torch.uint8
    assert target.right.any()
    assert not target.right.all()
    assert target.near.float().mean() > 0.7
    assert not target.near.all()
    # Small changes are right, large ones are not.
    span = (target.points - target.points @ target.turn.mT).norm(dim=-1).amax(-1)
    assert (span[target.right] < 0.12).all()
    again = pickle.loads(pickle.dumps(data)).batch([5, 7])  # noqa: S301  (our own)
    torch.testing.assert_close(again[1].turn, target.turn[[5, 7]])
    assert torch.equal(again[0].stream("drawn").data["depth_m"], batch.stream("drawn").data["depth_m"][[5, 7]])


def test_of_a_symmetric_object_the_nearest_truth_counts() -> None:
    only = dataset(6, objects=[7], gross=0.0)
    _, target = only.batch(np.arange(len(only)))
    angle = torch.acos(((target.turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))
    # The axis may be turned by two deviations; turns about it, and half turns across, are invisible.
    assert angle.max() < 0.9
    transforms = two_models()[1].symmetries.transforms(0.1)
    for turn in target.turn[:4].double().numpy():
        pose = np.eye(4)
        pose[:3, :3] = turn
        centred = transforms.copy()
        centred[:, :3, 3] = 0
        nearest = symmetry_nearest(pose, np.eye(4), centred)
        assert np.trace(nearest[:3, :3]) <= np.trace(turn) + 0.05


def test_mirrors_and_quarter_turns_keep_truth_true(data: PoseCompareDataset) -> None:
    batch, target = data.batch(np.arange(len(data)))
    new, changed = PoseCompareAugment(**QUIET)(batch, target, torch.Generator().manual_seed(0))
    assert not torch.allclose(changed.turn, target.turn, atol=1e-2)
    torch.testing.assert_close(torch.linalg.det(changed.turn), torch.ones(len(data)))
    plain, turned = gap(batch, target), gap(new, changed)
    assert turned.nanmedian() < 1.5 * plain.nanmedian()
    # Positive control: the pictures were turned, the truth was not.
    assert gap(new, target).nanmedian() > 1.5 * plain.nanmedian()
    drawn = [one.stream("drawn").data["depth_m"] for one in (batch, new)]
    torch.testing.assert_close(drawn[0].flatten(1).sort()[0], drawn[1].flatten(1).sort()[0])
    assert not torch.equal(*drawn)
    same = PoseCompareAugment(**QUIET)(batch, target, torch.Generator().manual_seed(0))[0]
    assert torch.equal(same.stream("seen").data["rgb"], new.stream("seen").data["rgb"])


def test_what_is_seen_changes_and_what_is_drawn_does_not(data: PoseCompareDataset) -> None:
    batch, target = data.batch(np.arange(len(data)))
    loud = PoseCompareAugment(plain=0.0, blind=1.0, occluder=1.0, background=1.0, dyed=0.0, whole=False)
    new, changed = loud(batch, target, torch.Generator().manual_seed(1))
    assert not new.stream("seen").data["depth_m"].any()
    assert torch.equal(new.stream("drawn").data["rgb"], batch.stream("drawn").data["rgb"])
    assert changed.mask.sum() < target.mask.sum()
    assert torch.equal(changed.turn, target.turn)
    half = PoseCompareAugment(whole=False)(batch, target, torch.Generator().manual_seed(2))[0]
    blind = ~half.stream("seen").data["depth_m"].flatten(1).any(1)
    assert blind.any() and not blind.all()  # noqa: PT018  (one thing)


def test_plain_samples_are_seen_as_they_are(data: PoseCompareDataset) -> None:
    batch, target = data.batch(np.arange(len(data)))
    loud = {"blind": 0.0, "occluder": 1.0, "background": 1.0, "dyed": 0.0, "whole": False}
    for plain in (1.0, 0.5):
        new, changed = PoseCompareAugment(plain=plain, **loud)(batch, target, torch.Generator().manual_seed(1))
        same = torch.ones(len(data), dtype=torch.bool)
        for field in ("rgb", "depth_m"):
            before, after = (one.stream("seen").data[field].flatten(1) for one in (batch, new))
            same &= (before == after).all(1)
        assert same.float().mean() == pytest.approx(plain, abs=0.2)
        assert torch.equal(changed.mask[same], target.mask[same])


def test_whole_pictures_are_held_back(data: PoseCompareDataset) -> None:
    mine, back = data.split(0.3, 0)
    assert len(mine) + len(back) == len(data)
    assert not set(mine // 4) & set(back // 4)
    assert len(back) >= 8


def test_refusals() -> None:
    source = MadeSource(two_models(), 1)
    with pytest.raises(SpecError, match="size_px"):
        PoseCompareDataset("memory", source=source, size_px=60)
    with pytest.raises(SpecError, match="objects"):
        PoseCompareDataset("memory", source=source, objects=[4])
    with pytest.raises(SpecError, match="variants"):
        PoseCompareDataset("memory", source=source, variants=0)
    with pytest.raises(DataError, match="visible instances"):
        PoseCompareDataset("memory", source=source, wide_px=8, wide_extent=100.0)
    with pytest.raises(SpecError, match="indices"):
        dataset(1).batch([8])
    with pytest.raises(SpecError, match="blind"):
        PoseCompareAugment(blind=1.5)
