"""Height maps of simple bodies against their closed forms, and of the same bodies given by signed distances."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensors.errors import SpecError
from sensors.tactile import shapes
from sensors.tactile.gel import Gel

RADIUS_M, DEPTH_M = 0.004, 0.0008
DOUBLE = torch.float64


def square(pixels: int) -> Gel:
    return Gel(0.016, 0.016, 0.003, pixels, pixels)


def number(value: float) -> Tensor:
    return torch.tensor([value], dtype=DOUBLE)


@pytest.mark.parametrize(("pixels", "volume_error"), [(64, 1.2e-3), (160, 1e-4), (320, 1e-4)])
def test_a_ball_has_its_rim_and_volume(pixels: int, volume_error: float) -> None:
    gel = square(pixels)
    ball = shapes.sphere(gel, number(RADIUS_M), DEPTH_M)
    pixel_m2 = math.prod(gel.pitch_m)
    rim_m = math.sqrt(float((ball > 0).sum()) * pixel_m2 / math.pi)
    expected_m = math.sqrt(2 * RADIUS_M * DEPTH_M - DEPTH_M**2)
    assert abs(rim_m - expected_m) < 0.10 * gel.pitch_m[0]
    volume = math.pi * DEPTH_M**2 * (3 * RADIUS_M - DEPTH_M) / 3
    assert float(ball.sum()) * pixel_m2 == pytest.approx(volume, rel=volume_error)


@given(depth=st.floats(1e-4, 2e-3), yaw=st.floats(-3.0, 3.0), x=st.floats(-2e-3, 2e-3))
@settings(max_examples=15, deadline=None)
def test_a_bar_is_wide_by_its_chord_and_the_same_along_its_axis(depth: float, yaw: float, x: float) -> None:
    gel = Gel(0.016, 0.016, 0.003, 81, 81)
    bar = shapes.cylinder(gel, number(0.003), depth, yaw, x)
    half_m = math.sqrt(2 * 0.003 * depth - depth**2)
    y, x_m = gel.centres(DOUBLE)
    across = (y * math.cos(yaw) - (x_m - x) * math.sin(yaw)).abs()
    assert bool(((bar[0] > 0) == (across < half_m))[(across - half_m).abs() > 1e-9].all())
    expected = (9e-6 - across**2).clamp(min=0).sqrt() - 0.003 + depth
    torch.testing.assert_close(bar[0], expected.clamp(min=0), rtol=0, atol=1e-12)


def test_a_cone_has_one_slope() -> None:
    gel = square(160)
    tip = shapes.cone(gel, number(0.5), 1e-3)[0]
    y, x = gel.centres(DOUBLE)
    distance = (x**2 + y**2).sqrt()
    torch.testing.assert_close(tip, (1e-3 - 0.5 * distance).clamp(min=0))
    volume = math.pi * (1e-3 / 0.5) ** 2 * 1e-3 / 3
    assert float(tip.sum()) * math.prod(gel.pitch_m) == pytest.approx(volume, rel=2e-3)


def test_flat_ends_are_flat_and_planes_tilt() -> None:
    gel = square(200)
    rod = shapes.punch(gel, number(0.002), DEPTH_M)
    assert rod.unique().tolist() == pytest.approx([0.0, DEPTH_M])
    assert float((rod > 0).sum()) * math.prod(gel.pitch_m) == pytest.approx(math.pi * 4e-6, rel=0.01)
    block = shapes.box(gel, number(0.004), 0.0019, DEPTH_M, math.pi / 2)
    assert float((block > 0).sum()) * math.prod(gel.pitch_m) == pytest.approx(7.6e-6, rel=0.03)
    rows, columns = (block[0] > 0).nonzero().T
    assert int(rows.max() - rows.min()) > 1.8 * int(columns.max() - columns.min())  # turned: it stands upright
    slope = shapes.plane(gel, number(1e-3), 0.05, -0.02)[0]
    y, x = gel.centres(DOUBLE)
    torch.testing.assert_close(slope, 1e-3 + 0.05 * x - 0.02 * y)


def test_what_hovers_leaves_no_print_and_more_depth_is_more_area() -> None:
    gel = square(64)
    for body in (shapes.sphere, shapes.cylinder):
        assert not body(gel, number(RADIUS_M), -1e-5).any()
        areas = (body(gel, number(RADIUS_M), torch.linspace(0, 2e-3, 20, dtype=DOUBLE)) > 0).sum(dim=(1, 2))
        assert bool((areas.diff() >= 0).all())
        assert areas[-1] > areas[1] > 0


def test_a_batch_is_its_members() -> None:
    gel = square(32)
    depth, x = torch.tensor([1e-4, 5e-4, 9e-4]), torch.tensor([-1e-3, 0.0, 1e-3])
    together = shapes.sphere(gel, RADIUS_M, depth, x)
    for index in range(3):
        assert together[index].equal(shapes.sphere(gel, RADIUS_M, depth[index], x[index])[0])


@pytest.mark.parametrize(
    "body",
    [
        lambda gel, p: shapes.sphere(gel, p[:1] * 4e-3, p[1:2] * 8e-4, p[2:] * 1e-3),
        lambda gel, p: shapes.cylinder(gel, p[:1] * 4e-3, p[1:2] * 8e-4, p[2:]),
        lambda gel, p: shapes.cone(gel, p[:1] * 0.3, p[1:2] * 8e-4, p[2:] * 1e-3),
        lambda gel, p: shapes.plane(gel, p[:1] * 1e-3, p[1:2] * 0.05, p[2:] * 0.05),
    ],
    ids=["sphere", "cylinder", "cone", "plane"],
)
def test_height_maps_have_gradients(body: Callable[[Gel, Tensor], Tensor]) -> None:
    gel = Gel(0.016, 0.016, 0.003, 8, 9)
    parameters = torch.tensor([1.0, 1.1, 0.37], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: 1e3 * body(gel, p), (parameters,))


def test_a_signed_distance_gives_the_same_ball_and_its_gradient() -> None:
    gel = Gel(0.012, 0.016, 0.003, 48, 64)
    depth = torch.tensor([2e-4, DEPTH_M], dtype=DOUBLE, requires_grad=True)

    def ball(places: Tensor) -> Tensor:
        centre_z = gel.thickness_m - depth + RADIUS_M
        from_axis = places[..., :2].square().sum(-1)
        return (from_axis + (places[..., 2] - centre_z[:, None]) ** 2).sqrt() - RADIUS_M

    traced = shapes.from_sdf(gel, ball, batch=2, dtype=DOUBLE)
    known = shapes.sphere(gel, RADIUS_M, depth)
    torch.testing.assert_close(traced, known, rtol=0, atol=2e-7)
    inner = known > 2e-5  # at the rim itself rays graze
    weights = torch.linspace(0.5, 1.5, known.numel(), dtype=DOUBLE).view_as(known) * inner
    ours, expected = (torch.autograd.grad((weights * one).sum(), depth)[0] for one in (traced, known))
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=0)


def test_a_body_through_the_pad_is_cut_off_and_a_wrong_distance_is_refused() -> None:
    gel = square(16)
    assert bool((shapes.from_sdf(gel, lambda places: places[..., 2] - 1.0) == gel.thickness_m).all())
    assert not shapes.from_sdf(gel, lambda places: 1.0 - places[..., 2]).any()
    with pytest.raises(SpecError, match="sdf"):
        shapes.from_sdf(gel, lambda places: places)
