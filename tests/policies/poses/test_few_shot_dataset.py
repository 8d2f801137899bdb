"""Episodes of few-shot pose: truth in the references' frame, the choice of references, random solids."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from perceive.batch import Batch
from perceive.geometry import camera_rays
from perceive.heads.query_target import QueryTarget
from perceive.pose.episode import RADIUS_M
from perceive.pose.symmetry import Symmetries
from policies.poses.few_shot_dataset import FewShotDataset
from policies.poses.made_shapes import made_shape
from sensors.errors import DataError, SpecError, WiringError
from tests.policies.poses.few_shot import REFERENCE, SIZE, dataset, learned, quiet, source
from tests.policies.poses.made import MadeSource, two_models


@pytest.fixture(scope="module")
def data() -> FewShotDataset:
    return dataset()


def measured(batch: Batch, name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points [B, T, S, S, 3] of a stream in its base frame, and which of them are there."""
    stream = batch.stream(name)
    depth, pose = stream.data["depth_m"], stream.data["base_from_camera"]
    ray = camera_rays(stream.data["intrinsics_px"].flatten(0, 1), size, size).view(*depth.shape, 3)
    point = torch.einsum("btij,bthwj->bthwi", pose[..., :3, :3], ray * depth[..., None])
    return point + pose[:, :, None, None, :3, 3], (depth > 0) & stream.valid[..., None, None]


def gaps_m(batch: Batch, target: QueryTarget) -> torch.Tensor:
    """How far measured points of mask pixels are from where pose and coordinates put them."""
    point, there = measured(batch, "crop", SIZE)
    pose = target.frame_from_object
    placed = torch.einsum("bij,bhwj->bhwi", pose[:, :3, :3], target.coordinates_m) + pose[:, None, None, :3, 3]
    return (point[:, 0, ::2, ::2] - placed).norm(dim=-1)[target.mask & there[:, 0, ::2, ::2]]


def from_references_m(batch: Batch, target: QueryTarget) -> torch.Tensor:
    """How far the coordinates of each query are from the nearest point of all its references, median [B]."""
    point, there = measured(batch, "references", REFERENCE)
    out = []
    for k in range(len(target.mask)):
        near = torch.cdist(target.coordinates_m[k][target.mask[k]], point[k][there[k]]).amin(1)
        out.append(near.quantile(0.25))
    return torch.stack(out)


@pytest.mark.parametrize("augmented", [False, True])
def test_an_episode_is_stated_in_the_frame_of_its_references(data: FewShotDataset, augmented: bool) -> None:
    batch, target = data.batch(np.arange(0, 80, 2))
    if augmented:
        batch, target = quiet()(batch, target, torch.Generator().manual_seed(0))
        assert target.episode is None
    # A pixel of the scaled object is 3 mm wide.
    assert gaps_m(batch, target).median() < 3e-3
    assert from_references_m(batch, target).median() < 2.5e-3
    wrong = QueryTarget(target.mask, target.coordinates_m.roll(1, -1), target.symmetries, target.frame_from_object)
    assert gaps_m(batch, wrong).median() > 8e-3  # positive control
    assert from_references_m(batch, wrong).median() > 4e-3
    point, there = measured(batch, "references", REFERENCE)
    length = point.norm(dim=-1)[there]
    assert length.quantile(0.9) < RADIUS_M < 1.5 * length.quantile(0.97)
    turn = target.frame_from_object[:, :3, :3]
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand_as(turn), rtol=0, atol=1e-5)


def test_objects_are_told_in_frames_near_the_querys_but_for_a_share(data: FewShotDataset) -> None:
    batch, target = data.batch(np.arange(0, 160))

    def off(made: QueryTarget) -> torch.Tensor:
        trace = made.frame_from_object[:, :3, :3].diagonal(dim1=1, dim2=2).sum(-1)
        return ((trace - 1) / 2).clamp(-1, 1).acos()

    def angles(**changes: float) -> torch.Tensor:
        return off(quiet(turn_rad=0.0, **changes)(batch, target, torch.Generator().manual_seed(1))[1])

    plain = off(target)  # as the dataset states them, which is what validation sees
    assert 0.7 < plain.max() < 0.95
    assert abs(plain.median() - 0.45) < 0.1
    assert off(dataset(frame_rad=0.0).batch(np.arange(20))[1]).max() < 0.05
    near = angles(frame_rad=0.5, far=0.0)
    assert 0.4 < near.max() < 0.52  # the crop's camera is turned a little to where the crop's middle moved
    assert abs(near.median() - 0.25) < 0.06
    some = angles(frame_rad=0.5, far=0.5)
    assert abs((some > 0.52).float().mean() - 0.5 * (1 - 0.5 / torch.pi)) < 0.12
    assert some.max() > 2.5


def test_symmetries_move_with_the_frame(data: FewShotDataset) -> None:
    """A symmetry of the cylinder takes what its references show onto its surface again."""
    batch, target = quiet()(*data.batch(np.arange(len(data))[-60:]), torch.Generator().manual_seed(1))
    episode = data.batch(np.arange(len(data))[-60:])[1].episode
    assert episode is not None
    round_ones = (episode.symmetries[:, 1] - torch.eye(4)).abs().amax((1, 2)) > 1e-3
    assert round_ones.any()
    assert not round_ones.all()
    k = int(round_ones.nonzero()[0])
    point, there = measured(batch, "references", REFERENCE)
    cloud = point[k][there[k]].double()
    # The axis is the same for all turns about it: points of it stay. Distances from it do, for all points.
    turns = target.symmetries[k, 1:12].double()
    moved = cloud @ turns[:, :3, :3].mT + turns[:, None, :3, 3]
    axis = torch.linalg.svd(turns[3, :3, :3] - torch.eye(3))[2][-1]
    foot = torch.linalg.pinv(torch.eye(3) - turns[3, :3, :3], rtol=1e-4) @ turns[3, :3, 3]

    def away(points: torch.Tensor) -> torch.Tensor:
        return torch.linalg.cross(points - foot, axis.expand_as(points)).norm(dim=-1)

    torch.testing.assert_close(away(moved), away(cloud).expand(len(turns), -1), rtol=0, atol=1e-4)
    # No point of it is farther from its axis than its radius, wherever the axis has come to lie.
    near_axis = []
    for row in round_ones.nonzero()[:12, 0].tolist():
        motion = target.symmetries[row, 4].double()
        axis = torch.linalg.svd(motion[:3, :3] - torch.eye(3))[2][-1]
        foot = torch.linalg.pinv(torch.eye(3) - motion[:3, :3], rtol=1e-4) @ motion[:3, 3]
        near_axis.append(float(away(point[row][there[row]].double()).quantile(0.97)))
        # A cylinder of 30 mm radius and 90 mm length, of which at least a cap or a side is shown.
        assert 0.02 < near_axis[-1] < 0.06
    assert np.std(near_axis) > 1e-4


def test_references_are_of_other_scenes_and_as_many_as_drawn(data: FewShotDataset) -> None:
    some = np.arange(0, len(data), 8)
    count = data.batch(some)[0].stream("references").valid.sum(1)
    assert set(count.tolist()) == {1, 2, 3, 4}
    assert (count.bincount(minlength=5)[1:] > 0.12 * len(some)).all()
    for index in range(0, len(data), 7):
        row = int(data._rows[index % len(data._rows)])
        taken, known = data._context(index, row)
        assert (data._which[taken] == data._which[row]).all()
        assert (data._scene[taken] != data._scene[row]).all()
        assert len(set(taken[known].tolist())) == known.sum()
    train, back = data.split(0.5, 0)
    which = data._which[data._rows[np.arange(len(data)) % len(data._rows)]]
    assert len(np.intersect1d(which[train], which[back])) == 0
    assert len(train) + len(back) == len(data)


def test_the_same_episode_again(data: FewShotDataset) -> None:
    first, again = data.batch([5, 9])[0], pickle.loads(pickle.dumps(data)).batch([9, 5])[0]  # noqa: S301  (our own)
    for name in ("crop", "references"):
        for field, value in first.stream(name).data.items():
            torch.testing.assert_close(value, again.stream(name).data[field].flip(0), rtol=0, atol=1e-6)
    one = quiet()(*data.batch([5, 9]), torch.Generator().manual_seed(3))[0]
    same = quiet()(*data.batch([5, 9]), torch.Generator().manual_seed(3))[0]
    assert torch.equal(one.stream("references").data["depth_m"], same.stream("references").data["depth_m"])


def test_random_solids_are_kept_and_have_the_symmetries_they_say(tmp_path: Path) -> None:
    small = {"shapes": 6, "views": 2, "size_px": SIZE, "reference_px": REFERENCE, "wide_px": 72, "draws": 2}
    first = FewShotDataset(tmp_path, **small)  # type: ignore[arg-type]
    files = sorted(tmp_path.rglob("*.npy"))
    stamps = [path.stat().st_mtime_ns for path in files]
    again = FewShotDataset(tmp_path, **small)  # type: ignore[arg-type]
    assert stamps == [path.stat().st_mtime_ns for path in files]
    assert torch.equal(first.batch([3])[1].coordinates_m, again.batch([3])[1].coordinates_m)
    kinds = set()
    for number in range(1, 25):
        model = made_shape(number, 0)
        assert np.array_equal(model.vertices_m, made_shape(number, 0).vertices_m)
        assert 0.03 < model.diameter_m < 0.25
        kinds.add((bool(model.symmetries.continuous), bool(len(model.symmetries.discrete))))
        for motion in model.symmetries.transforms(np.pi / 32)[1:4]:  # the steps of its own segments
            moved = model.vertices_m @ motion[:3, :3].T + motion[:3, 3]
            near = np.linalg.norm(moved[::7, None] - model.vertices_m[None], axis=-1)
            assert near.min(1).max() < 1e-3 * model.diameter_m
    assert kinds == {(True, False), (False, True), (False, False)}
    assert not bool(Symmetries.none())


def test_refusals(data: FewShotDataset) -> None:
    for wrong in (
        {"views": 0}, {"size_px": 33}, {"extent": 3.0}, {"least_shown": 1.5}, {"limit": 0}, {"objects": [9]},
        {"on_bad": "maybe"}, {"shapes": -1},
    ):  # fmt: skip
        with pytest.raises(SpecError):
            dataset(**wrong)
    with pytest.raises(SpecError, match="indices"):
        data.batch([len(data)])
    with pytest.raises(DataError, match="two scenes"):
        dataset(source=MadeSource(two_models(), 4))  # all pictures are of one scene
    batch, target = quiet()(*data.batch([0]), torch.Generator())
    with pytest.raises(WiringError, match="episode"):
        quiet()(batch, target, torch.Generator())


def test_a_small_model_learns_from_references() -> None:
    model, losses = learned()
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])
    data = dataset()
    data.check_classes(model, ["coordinates"])
    batch, target = data.batch(np.arange(0, 60))
    said = model.loss(batch, {"coordinates": target})
    # Told of nothing, it does not know where on the object it looks: the references are what it answers from.
    stream = batch.stream("references")
    flipped = {**stream.data, "base_from_camera": stream.data["base_from_camera"].roll(1, 0)}
    other = Batch({**batch.streams, "references": type(stream)(flipped, stream.age_s, stream.valid)})
    wrong = model.loss(other, {"coordinates": target})
    assert said["coordinates/_off"] < wrong["coordinates/_off"]
    assert len(source().views) == 40
