"""The PointNet classifier: what must not matter, what must, its size as published, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceive.points.pointnet import PointNetClassifier
from sensors.errors import SpecError, WiringError

NAN = float("nan")
both = pytest.mark.parametrize("transform", [False, True], ids=["plain", "T-nets"])


def net(transform: bool = False, inputs: int = 5) -> PointNetClassifier:
    """Small, with statistics and T-nets that are not at their start."""
    torch.manual_seed(0)
    model = PointNetClassifier(4, inputs, ((8, 8), (8, 16, 32)), (16, 8), dropout=0.0, transform=transform)
    draw = torch.Generator().manual_seed(1)
    for _ in range(60):  # until the statistics are those of the inputs
        model(torch.randn(6, 20, inputs, generator=draw) + 0.3)
    with torch.no_grad():
        for part in (model.turn_points, model.turn_features):
            if part is not None:
                part.matrix.weight.normal_(0, 0.1)
    return model.eval()


def clouds(size: int = 3, count: int = 40) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    valid = torch.rand(size, count, generator=draw) > 0.3
    return torch.where(valid[..., None], torch.randn(size, count, 5, generator=draw), NAN), valid


@both
def test_the_order_of_points_does_not_matter_and_their_places_do(transform: bool) -> None:
    model, (points, valid) = net(transform), clouds()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    one = model(points, valid)
    torch.testing.assert_close(model(points[:, order], valid[:, order]), one, rtol=1e-4, atol=1e-4)
    assert (model(points + 0.3, valid) - one).abs().max() > 1e-2


@both
def test_points_that_are_not_there_and_batch_mates_do_not_matter(transform: bool) -> None:
    model, (points, valid) = net(transform), clouds()
    one = model(points, valid)
    torch.testing.assert_close(model(points), one, rtol=0, atol=0)  # NaN is seen to be no measurement
    torch.testing.assert_close(model(torch.where(valid[..., None], points, 5.0), valid), one, rtol=0, atol=1e-6)
    for row in range(3):
        torch.testing.assert_close(model(points[row][valid[row]][None])[0], one[row], rtol=0, atol=1e-4)
    assert (model(torch.where(valid[..., None], points, 5.0)) - one).abs().max() > 1e-2


@both
def test_in_training_too_statistics_are_those_of_the_points_there_are(transform: bool) -> None:
    points, valid = clouds()
    padded = torch.cat([points, torch.full((3, 9, 5), NAN)], 1)
    one, other = net(transform).train(), net(transform).train()
    logits = other(padded, torch.cat([valid, torch.zeros(3, 9, dtype=torch.bool)], 1))
    torch.testing.assert_close(one(points, valid), logits, rtol=0, atol=1e-5)
    for (name, ours), theirs in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6, msg=name)


def test_a_cloud_without_points_is_as_one_that_excites_nothing() -> None:
    model, (points, valid) = net(), clouds()
    valid[1] = False
    logits = model(points, valid)
    torch.testing.assert_close(logits[1], model.head(torch.zeros(1, 32))[0])
    assert logits.isfinite().all()


def test_t_nets_begin_as_the_identity_and_are_kept_near_a_rotation() -> None:
    torch.manual_seed(0)
    plain = PointNetClassifier(4, 5, ((8, 8), (8, 16, 32)), (16, 8), transform=False).eval()
    turning = PointNetClassifier(4, 5, ((8, 8), (8, 16, 32)), (16, 8), transform=True).eval()
    turning.load_state_dict(plain.state_dict(), strict=False)
    points, valid = clouds()
    torch.testing.assert_close(turning(points, valid), plain(points, valid), rtol=0, atol=1e-5)
    label = torch.tensor([0, 1, -1])
    torch.testing.assert_close(turning.loss(points, label, valid), plain.loss(points, label, valid))
    assert turning.turn_features is not None
    with torch.no_grad():
        turning.turn_features.matrix.bias[0] = 1.0  # the matrix is diag(2, 1, ..., 1): its gap is (1 - 4)^2
    gap = turning.loss(points, label, valid, weight=1.0) - turning.loss(points, label, valid, weight=0.0)
    torch.testing.assert_close(gap, torch.tensor(9.0))


def test_labels_that_are_not_known_do_not_count() -> None:
    model, (points, valid) = net(), clouds()
    known = model.loss(points[:2], torch.tensor([1, 2]), valid[:2])
    torch.testing.assert_close(model.loss(points, torch.tensor([1, 2, -1]), valid), known)
    assert model.loss(points, torch.tensor([-1, -1, -1]), valid) == 0


def test_it_has_the_size_of_the_paper() -> None:
    """0.8 M parameters without T-nets and 3.5 M with them (table 6 of the paper, at 40 classes)."""
    sizes = [sum(p.numel() for p in PointNetClassifier(40, transform=each).parameters()) for each in (False, True)]
    assert sizes[0] == pytest.approx(0.8e6, rel=0.03)
    assert sizes[1] == pytest.approx(3.5e6, rel=0.03)


@both
def test_every_parameter_learns(transform: bool) -> None:
    """Balls and flat discs are told apart after a few steps."""
    torch.manual_seed(0)
    model = PointNetClassifier(2, 3, ((8, 8), (8, 16, 32)), (16, 8), dropout=0.0, transform=transform)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    draw = torch.Generator().manual_seed(0)

    def some() -> tuple[Tensor, Tensor]:
        label = torch.randint(2, (16,), generator=draw)
        points = torch.randn(16, 32, 3, generator=draw)
        points[..., 2] *= (1 - label)[:, None] * 0.7
        return points, label

    for step in range(40):
        loss = model.loss(*some())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        if step == 1:
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.any(), name
        optimizer.step()
    points, label = some()
    assert (model.eval()(points).argmax(-1) == label).float().mean() == 1


def test_what_makes_no_sense_is_refused() -> None:
    model, (points, valid) = net(), clouds()
    with pytest.raises(SpecError, match="two clouds"):
        net().train()(points[:1], valid[:1])
    with pytest.raises(SpecError, match="valid and finite"):
        model(points, torch.zeros_like(valid))
    for wrong in (points[..., :4], points[0]):
        with pytest.raises(SpecError, match="points"):
            model(wrong)
    with pytest.raises(SpecError, match="valid"):
        model(points, valid[:, :3])
    for arguments in ({"classes": 0}, {"inputs": 2}, {"hidden": ()}, {"layers": ((), (4,))}, {"dropout": 1.0}):
        with pytest.raises(WiringError, match="PointNetClassifier"):
            PointNetClassifier(**{"classes": 3, **arguments})  # type: ignore[arg-type]
