"""The PointNet and the denoiser: what must not matter, what must, and gradients as plain autograd gives them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from perceive.diffusion.denoiser import Denoiser, _Convolution
from perceive.diffusion.pointnet import PointNet
from sensors.errors import WiringError

NAN = float("nan")


def net(seed: int = 0) -> PointNet:
    torch.manual_seed(seed)
    return PointNet(6, 16, (16, 24, 32))


def sets(size: int = 3, count: int = 40) -> tuple[Tensor, Tensor]:
    """Sets of points; a third are not there, and hold NaN."""
    draw = torch.Generator().manual_seed(1)
    valid = torch.rand(size, count, generator=draw) > 0.3
    points = torch.randn(size, count, 6, generator=draw)
    return torch.where(valid[..., None], points, NAN), valid


def lacking(model: nn.Module) -> list[str]:
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]


def test_the_order_of_points_does_not_matter_and_their_places_do() -> None:
    model, (points, valid) = net(), sets()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    one = model(points, valid)
    torch.testing.assert_close(model(points[:, order], valid[:, order]), one, rtol=0, atol=1e-6)
    moved = points.clone()
    moved[:, :, 0] += 0.1
    assert (model(moved, valid) - one).abs().max() > 1e-3


def test_points_that_are_not_there_do_not_matter() -> None:
    model, (points, valid) = net(), sets()
    points = points + 2  # far from where a zero would lie
    one = model(points, valid)
    assert one.isfinite().all()
    other = torch.where(valid[..., None], points, torch.tensor([-3.0, 3.0, -3.0, 3.0, -3.0, 3.0]))
    torch.testing.assert_close(model(other, valid), one, rtol=0, atol=1e-6)
    for row in range(3):
        alone = points[row][valid[row]][None]
        everything = torch.ones(1, alone.shape[1], dtype=torch.bool)
        torch.testing.assert_close(model(alone, everything)[0], one[row], rtol=0, atol=1e-6)
    assert (model(other, torch.ones_like(valid)) - one).abs().max() > 1e-3


def test_a_set_without_points_is_a_learned_vector() -> None:
    model, (points, valid) = net(), sets()
    with torch.no_grad():
        model.nothing.normal_()
    valid[1], points[1] = False, NAN
    one = model(points, valid)
    assert torch.equal(one[1], model.nothing)
    assert not torch.equal(one[0], model.nothing)
    one.sum().backward()
    assert model.nothing.grad is not None
    assert torch.equal(model.nothing.grad, torch.ones(16))
    assert lacking(model) == []


def test_values_and_gradients_are_those_of_plain_autograd() -> None:
    model, (points, valid) = net().double(), sets(5, 30)
    points = points.double()
    wanted = torch.randn(5, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (model(points, valid) * wanted).sum().backward()
    mine = {name: parameter.grad for name, parameter in model.named_parameters() if name != "nothing"}
    model.zero_grad()
    features = model.each(torch.where(valid[..., None], points, 0.0))
    pooled = torch.where(valid[..., None], features, -torch.inf).amax(1)
    plain = model.leave(pooled)
    (plain * wanted).sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(model(points, valid), plain)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad)


def test_a_large_batch_is_the_same_as_its_parts() -> None:
    """More points than are run at once."""
    model = net()
    points = torch.randn(40, 300, 6, generator=torch.Generator().manual_seed(4))
    valid = torch.ones(40, 300, dtype=torch.bool)
    with torch.no_grad():
        whole = model(points, valid)
        parts = torch.cat([model(points[i : i + 1], valid[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)


def test_gradients_survive_mixed_precision() -> None:
    model, (points, valid) = net(), sets()
    with torch.autocast("cpu", torch.bfloat16):
        model(points, valid).square().sum().backward()
    assert lacking(model) == ["nothing"]


def denoiser(chunk: int = 8, **changes: int) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(5, chunk, 12, (16, 24, 32), **changes)


def asked(chunk: int = 8, size: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return (
        torch.randn(size, chunk, 5, generator=draw),
        torch.tensor([0, 50, 99])[:size],
        torch.randn(size, 12, generator=draw),
    )


@pytest.mark.parametrize("chunk", [4, 8, 16, 20])
def test_the_answer_has_the_shape_of_the_question(chunk: int) -> None:
    noised, step, told = asked(chunk)
    assert denoiser(chunk)(noised, step, told).shape == noised.shape


def test_each_sample_is_answered_for_itself_and_everything_it_is_told_counts() -> None:
    model, (noised, step, told) = denoiser(), asked()
    one = model(noised, step, told)
    for row in range(3):
        rows = slice(row, row + 1)
        torch.testing.assert_close(model(noised[rows], step[rows], told[rows])[0], one[row], rtol=0, atol=1e-5)
    for other in (
        model(noised, step + 1, told),
        model(noised, step, told + 0.1),
        model(noised + 0.1, step, told),
    ):
        assert ((other - one).abs().amax((1, 2)) > 1e-3).all()


def test_the_first_action_depends_on_the_last_noise() -> None:
    model, (noised, step, told) = denoiser(), asked()
    other = noised.clone()
    other[:, -1] += 1
    assert ((model(other, step, told) - model(noised, step, told))[:, 0].abs().amax(1) > 1e-5).all()


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1)])
def test_a_convolution_is_one(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    mine = _Convolution(6, 7, kernel, stride)
    features = torch.randn(2, 8, 6)
    weight = mine.weigh.weight.view(7, kernel, 6).transpose(1, 2)
    expected = conv1d(features.transpose(1, 2), weight, mine.weigh.bias, stride, kernel // 2).transpose(1, 2)
    torch.testing.assert_close(mine(features), expected)


def test_every_parameter_of_the_denoiser_gets_a_gradient() -> None:
    model = denoiser()
    model(*asked()).square().sum().backward()
    assert lacking(model) == []


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WiringError, match="multiple of 4"):
        denoiser(6)
    with pytest.raises(WiringError, match="odd"):
        denoiser(8, kernel=4)
    with pytest.raises(WiringError):
        PointNet(6, 16, ())
