"""CloudAugment: labels, boxes and normals stay true to their points whatever is done to them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.points.augment import CloudAugment
from perceive.points.files.collate import CloudBatch
from sensors.errors import SpecError, WiringError

SIZE, POINTS, BOXES = 4, 300, 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(kind: str = "points", seed: int = 0) -> tuple[Batch, CloudBatch]:
    """Points in and around boxes; the point's label is the box that it is in, its part is its row."""
    g = generator(seed)
    count = torch.randint(POINTS // 2, POINTS + 1, (SIZE,), generator=g)
    valid = torch.arange(POINTS) < count[:, None]
    # Boxes side by side, so that no point is in two of them.
    centre = torch.rand(SIZE, BOXES, 3, generator=g) + torch.arange(BOXES)[:, None] * torch.tensor([4.0, 0.0, 0.0])
    size = 0.4 + torch.rand(SIZE, BOXES, 3, generator=g)
    yaw = (torch.rand(SIZE, BOXES, generator=g) * 2 - 1) * math.pi
    velocity = torch.randn(SIZE, BOXES, 2, generator=g)
    velocity[0, 0] = math.nan
    boxes = torch.cat([centre, size, yaw[..., None], velocity], -1)
    box_valid = torch.arange(BOXES) < torch.tensor([3, 2, 3, 1])[:, None]
    boxes = torch.where(box_valid[..., None], boxes, 0.0)
    base = torch.rand(SIZE, POINTS, 3, generator=g) * torch.tensor([12.0, 3.0, 2.0]) - torch.tensor([1.0, 1.0, 0.5])
    inside = torch.randint(BOXES, (SIZE, POINTS), generator=g)
    local = (torch.rand(SIZE, POINTS, 3, generator=g) - 0.5) * 0.9
    own = boxes[torch.arange(SIZE)[:, None], inside]
    c, s = own[..., 6].cos(), own[..., 6].sin()
    at = local * own[..., 3:6]
    at = torch.stack([c * at[..., 0] - s * at[..., 1], s * at[..., 0] + c * at[..., 1], at[..., 2]], -1) + own[..., :3]
    base = torch.where(torch.rand(SIZE, POINTS, 1, generator=g) < 0.7, at, base)
    base = torch.where(valid[..., None], base, 0.0)
    normal = torch.nn.functional.normalize(torch.randn(SIZE, POINTS, 3, generator=g), dim=-1)
    row = torch.arange(POINTS).expand(SIZE, POINTS)
    data: dict[str, Tensor] = {"count": count[:, None, None]}
    if kind == "points":
        data["xyz_m"] = base[:, None].clone()
        data["rgb"] = torch.randint(0, 256, (SIZE, 1, POINTS, 3), generator=g, dtype=torch.uint8)
        data["rgb"] *= valid[:, None, :, None]
    else:
        turn = torch.linalg.qr(torch.randn(SIZE, 3, 3, generator=g))[0]
        turn = turn * torch.linalg.det(turn)[:, None, None]
        pose = torch.eye(4).repeat(SIZE, 1, 1)
        pose[:, :3, :3], pose[:, :3, 3] = turn, torch.randn(SIZE, 3, generator=g)
        own_m = (base - pose[:, None, :3, 3]) @ turn
        data["xyz_m"] = torch.where(valid[..., None], own_m, 0.0)[:, None]
        data["base_from_lidar"] = pose[:, None]
        data["intensity"] = (row / POINTS * valid)[:, None]
        data["offset_s"] = -(row / POINTS * valid)[:, None]
    target = CloudBatch(
        base, valid, torch.zeros(SIZE, POINTS, 0), None, torch.where(valid, row, -1), torch.where(valid, row, -1),
        torch.where(valid[..., None], normal, 0.0), torch.arange(SIZE), boxes, torch.zeros(SIZE, BOXES).long(),
        box_valid, torch.full((SIZE, BOXES), 7),
    )  # fmt: skip
    target = CloudBatch(**(vars(target) | {"semantic": torch.where(valid, holder(target), -1)}))
    stream = BatchStream(data, torch.zeros(SIZE, 1), torch.ones(SIZE, 1, dtype=torch.bool))
    return Batch({"cloud": stream}), target


def holder(target: CloudBatch, margin: float = 0.0) -> Tensor:
    """In which box each point is [B, P]; -1 = none. A box is larger by ``margin`` times its size on each side."""
    assert target.boxes is not None
    assert target.box_valid is not None
    away = target.xyz_m[:, :, None] - target.boxes[:, None, :, :3]
    c, s = target.boxes[:, None, :, 6].cos(), target.boxes[:, None, :, 6].sin()
    local = torch.stack([c * away[..., 0] + s * away[..., 1], c * away[..., 1] - s * away[..., 0], away[..., 2]], -1)
    half = target.boxes[:, None, :, 3:6] * (0.5 + margin)
    inside = (local.abs() <= half).all(-1) & target.box_valid[:, None]
    return torch.where(inside.any(-1), inside.int().argmax(-1), -1)


def placed(batch: Batch) -> Tensor:
    """The stream's points in the base frame [B, P, 3]; 0 beyond the count."""
    data = batch.stream("cloud").data
    xyz = data["xyz_m"][:, 0]
    if "base_from_lidar" in data:
        pose = data["base_from_lidar"][:, 0]
        torch.testing.assert_close(
            pose[:, :3, :3] @ pose[:, :3, :3].mT, torch.eye(3).expand(SIZE, 3, 3), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(torch.linalg.det(pose[:, :3, :3]), torch.ones(SIZE), atol=1e-5, rtol=0)
        xyz = xyz @ pose[:, :3, :3].mT + pose[:, None, :3, 3]
    return torch.where((torch.arange(xyz.shape[1]) < data["count"][:, 0])[..., None], xyz, 0.0)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one.nan_to_num(9e9), other.nan_to_num(9e9)) and one.dtype == other.dtype
    return one is None and other is None


def all_tensors(batch: Batch, target: CloudBatch) -> dict[str, Any]:
    return {**batch.stream("cloud").data, **{f"target/{name}": value for name, value in vars(target).items()}}


EVERYTHING: dict[str, Any] = {
    "yaw_rad": 3.14, "centre_m": None, "mirror": 0.5, "scale": (0.7, 1.4), "shift_m": (1.0, 2.0, 0.5),
    "colour_gain": 0.2, "colour_jitter": 3.0, "colour_dropout": 0.3, "point_dropout": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["points", "lidar"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), only=st.sampled_from([*EVERYTHING, None]))
def test_boxes_hold_the_points_that_they_held(kind: str, seed: int, only: str | None) -> None:
    batch, target = sample(kind, seed)
    chosen = {name: value for name, value in EVERYTHING.items() if only in (None, name) or name == "centre_m"}
    after, changed = CloudAugment(**chosen)(batch, target, generator(seed))
    assert changed.semantic is not None
    torch.testing.assert_close(placed(after), changed.xyz_m, atol=2e-5, rtol=1e-5)
    # Rounding may move a point across a face: what is well inside or outside must stay so.
    for margin in (-1e-4, 1e-4):
        now, before = holder(changed, margin), changed.semantic
        sure = (holder(changed, 1e-4) == holder(changed, -1e-4)) & changed.valid
        assert torch.equal(now[sure], before[sure])
        assert sure.sum() > 0.95 * changed.valid.sum()


def test_without_any_change_nothing_changes() -> None:
    for kind in ("points", "lidar"):
        batch, target = sample(kind)
        before = all_tensors(batch, target)
        after = all_tensors(*CloudAugment()(batch, target, generator()))
        for name, value in before.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                torch.testing.assert_close(after[name], value, atol=3e-5, rtol=1e-6, equal_nan=True)
            else:
                assert same(after[name], value), name


@pytest.mark.parametrize("kind", ["points", "lidar"])
def test_mirrored_twice_is_as_before(kind: str) -> None:
    batch, target = sample(kind)
    mirror = CloudAugment(mirror=1.0)
    once = mirror(batch, target, generator())
    before, middle, after = (all_tensors(*pair) for pair in ((batch, target), once, mirror(*once, generator(1))))
    for name in before:
        if before[name] is not None:
            exact = name != "target/xyz_m" or kind == "points"  # of a LiDAR it is calculated through its pose
            torch.testing.assert_close(after[name], before[name], atol=1e-6 if exact else 3e-5, rtol=0, equal_nan=True)
    assert torch.equal(once[1].xyz_m * torch.tensor([1.0, -1.0, 1.0]), target.xyz_m) or kind == "lidar"
    assert not torch.equal(middle["xyz_m"], before["xyz_m"])


def test_a_known_motion() -> None:
    """Mirror, quarter turn, double size about (1, 2, 0) by hand: (x, y) -> (1, 2) + 2 (y - 2, x - 1)."""
    batch, target = sample()
    augment = CloudAugment(mirror=1.0, centre_m=(1.0, 2.0, 0.0), scale=(2.0, 2.0), yaw_rad=math.pi / 2)
    # The turn is drawn; a seed that turns each sample otherwise is compared by its own angle.
    _, changed = augment(batch, target, generator())
    assert target.boxes is not None
    assert changed.boxes is not None
    assert target.normal is not None
    assert changed.normal is not None
    angle = (torch.rand(6, SIZE, generator=generator())[1] * 2 - 1) * math.pi / 2
    assert angle.unique().numel() == SIZE
    for row in range(SIZE):
        c, s = math.cos(angle[row]), math.sin(angle[row])
        linear = torch.tensor([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, 1.0]])
        centre, kept = torch.tensor([1.0, 2.0, 0.0]), target.valid[row]
        expected = centre + 2 * (target.xyz_m[row] - centre) @ linear.T
        torch.testing.assert_close(changed.xyz_m[row][kept], expected[kept], atol=2e-5, rtol=0)
        assert changed.xyz_m[row][~kept].abs().max() == 0
        torch.testing.assert_close(changed.normal[row][kept], (target.normal[row] @ linear.T)[kept], atol=1e-6, rtol=0)
        real = target.box_valid[row]  # type: ignore[index]  # there are boxes
        old, new = target.boxes[row][real], changed.boxes[row][real]
        torch.testing.assert_close(new[:, 3:6], 2 * old[:, 3:6])
        torch.testing.assert_close(new[:, 7:9], 2 * old[:, 7:9] @ linear[:2, :2].T, equal_nan=True)
        heading = torch.stack([old[:, 6].cos(), old[:, 6].sin()], -1) @ linear[:2, :2].T
        torch.testing.assert_close(torch.stack([new[:, 6].cos(), new[:, 6].sin()], -1), heading, atol=1e-5, rtol=0)
        assert new[:, 6].abs().max() <= math.pi + 1e-6
        assert changed.boxes[row][~real].abs().sum() == 0


def test_distances_from_a_lidar_stay() -> None:
    batch, target = sample("lidar")
    after, _ = CloudAugment(yaw_rad=3.0, mirror=0.5, shift_m=(1.0, 1.0, 1.0))(batch, target, generator())
    near, was = (each.stream("cloud").data["xyz_m"].norm(dim=-1) for each in (after, batch))
    torch.testing.assert_close(near, was)
    assert not torch.equal(after.stream("cloud").data["base_from_lidar"], batch.stream("cloud").data["base_from_lidar"])


@pytest.mark.parametrize("kind", ["points", "lidar"])
def test_points_that_are_left_keep_all_that_is_theirs(kind: str) -> None:
    batch, target = sample(kind)
    after, changed = CloudAugment(point_dropout=0.9)(batch, target, generator())
    assert changed.part is not None
    assert target.normal is not None
    assert changed.normal is not None
    old, new = batch.stream("cloud").data, after.stream("cloud").data
    count = new["count"][:, 0, 0]
    assert (count < old["count"][:, 0, 0]).all()
    assert (count >= 1).all()
    for row in range(SIZE):
        left, was = int(count[row]), changed.part[row]
        assert torch.equal(was[left:], torch.full((POINTS - left,), -1))
        assert (was[:left].diff() > 0).all()  # in their order
        kept = was[:left]
        assert torch.equal(changed.xyz_m[row, :left], target.xyz_m[row, kept]) or kind == "lidar"
        assert torch.equal(changed.normal[row, :left], target.normal[row, kept])
        for field in ("xyz_m", "rgb", "intensity", "offset_s"):
            if field in old:
                assert torch.equal(new[field][row, 0, :left], old[field][row, 0, kept]), field
                assert new[field][row, 0, left:].abs().sum() == 0
        assert torch.equal(changed.valid[row], torch.arange(POINTS) < left)
    # How much is left differs from cloud to cloud.
    assert count.unique().numel() > 1


def test_one_point_stays() -> None:
    batch, target = sample()
    data = {**batch.stream("cloud").data, "count": torch.tensor([1, 2, 0, 1])[:, None, None]}
    valid = torch.arange(POINTS) < data["count"][:, 0]
    target = CloudBatch(**(vars(target) | {"valid": valid}))
    stream = BatchStream(data, torch.zeros(SIZE, 1), torch.ones(SIZE, 1, dtype=torch.bool))
    for seed in range(20):
        after, changed = CloudAugment(point_dropout=0.99, centre_m=None)(
            Batch({"cloud": stream}), target, generator(seed)
        )
        count = after.stream("cloud").data["count"][:, 0, 0]
        assert count.tolist()[0] == 1
        assert count.tolist()[2:] == [0, 1]
        assert torch.equal(changed.valid.sum(1), count)
        assert changed.xyz_m.isfinite().all()


def test_colours() -> None:
    batch, target = sample()
    old = batch.stream("cloud").data["rgb"]
    there = target.valid[:, None, :, None].expand_as(old)

    def changed(**arguments: float) -> Tensor:
        out = CloudAugment(**arguments)(batch, target, generator())[0].stream("cloud").data["rgb"]  # type: ignore[arg-type]
        assert out.dtype == torch.uint8
        assert out[~there].sum() == 0
        return out

    assert changed(colour_dropout=1.0).sum() == 0
    gained = changed(colour_gain=0.3).float()
    middle = there & (old > 100) & (old < 180)
    for row in range(SIZE):
        for channel in range(3):
            ratio = (gained / old.float())[row, ..., channel][middle[row, ..., channel]]
            assert ratio.max() - ratio.min() < 0.011  # one gain each, rounded to whole counts
            assert 0.69 < ratio.mean() < 1.31
    noise = changed(colour_jitter=5.0).float()[middle] - old.float()[middle]
    assert abs(float(noise.mean())) < 1.0
    assert 4.0 < float(noise.std()) < 6.0


def test_noise_of_places_is_bounded() -> None:
    for kind in ("points", "lidar"):
        batch, target = sample(kind)
        after, changed = CloudAugment(jitter_m=0.01)(batch, target, generator())
        moved = (changed.xyz_m - target.xyz_m)[target.valid]
        assert 0.008 < float(moved.std()) < 0.012
        assert float(moved.norm(dim=-1).max()) < 0.03 * math.sqrt(3) + 1e-4
        torch.testing.assert_close(placed(after), changed.xyz_m, atol=2e-5, rtol=0)
        assert changed.xyz_m[~target.valid].abs().sum() == 0


def test_all_chance_is_the_generators() -> None:
    for kind in ("points", "lidar"):
        batch, target = sample(kind)
        keep = {name: None if value is None else value.clone() for name, value in all_tensors(batch, target).items()}
        augment = CloudAugment(**EVERYTHING, jitter_m=0.01)
        torch.manual_seed(1)
        first = all_tensors(*augment(batch, target, generator(5)))
        torch.manual_seed(2)
        again, other = (all_tensors(*augment(batch, target, generator(seed))) for seed in (5, 6))
        assert all(same(value, again[name]) for name, value in first.items())
        assert not same(first["xyz_m"], other["xyz_m"])
        assert all(same(value, keep[name]) for name, value in all_tensors(batch, target).items())  # left alone


def test_what_is_wrong_is_refused() -> None:
    batch, target = sample()
    wrong: list[dict[str, Any]] = [
        {"mirror": 1.5}, {"scale": (0.0, 1.0)}, {"scale": (1.2, 1.0)}, {"shift_m": (1.0,)}, {"point_dropout": 1.0},
        {"centre_m": (0.0, 0.0)}, {"jitter_m": -1.0}, {"yaw_rad": math.nan}, {"colour_gain": 2.0},
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(SpecError, match=next(iter(arguments))):
            CloudAugment(**arguments)
    with pytest.raises(WiringError, match="Did you mean 'cloud'"):
        CloudAugment(sensor="clouds")(batch, target, generator())
    twice = Batch({"cloud": batch.stream("cloud"), "other": batch.stream("cloud")})
    with pytest.raises(WiringError, match="Name one"):
        CloudAugment()(twice, target, generator())
    assert set(CloudAugment("other", mirror=1.0)(twice, target, generator())[0].streams) == {"cloud", "other"}
    fewer = CloudBatch(**(vars(target) | {"xyz_m": target.xyz_m[:, :5]}))
    with pytest.raises(SpecError, match=r"target \[4, 5, 3\]"):
        CloudAugment()(batch, fewer, generator())
