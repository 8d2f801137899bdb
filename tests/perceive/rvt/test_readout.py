import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from perceive.rvt.readout import gaussian_targets, heatmap_loss, peak, peak_of_logits
from perceive.rvt.renderer import render
from perceive.rvt.views import FACES, View, pixel_of, views_named
from perceive.rvt.voxel_search import highest_voxel, sweep
from sensors.errors import SpecError
from tests.perceive.rvt.reference import argmax_pixels, gaussian_logits

ALL = views_named(FACES)
THREE = views_named(("top", "front", "right"))
SETS = (
    THREE,
    ALL,
    views_named(("front", "right")),
    views_named(("top", "right")),
    views_named(("back", "left", "top")),
)
SEED = st.integers(0, 2**31 - 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centres(size: int) -> Tensor:
    """The centres [S^3, 3] of all voxels, x-major."""
    line = (torch.arange(size) + 0.5) * 2 / size - 1
    return torch.cartesian_prod(line, line, line)


def whole_cube(maps: Tensor, views: Sequence[View]) -> Tensor:
    """The score [B, S^3] of every voxel, by projecting all of them; what `peak` must not build."""
    size = maps.shape[-1]
    pixel = pixel_of(centres(size)[None], views, size)[0].floor().long()  # [V, S^3, 2]
    flat = pixel[..., 1] * size + pixel[..., 0]
    looked_up = torch.stack([maps[:, i].double().flatten(1)[:, flat[i]] for i in range(len(views))])
    return looked_up.mean(0)


def scores(kind: str, batch: int, views: int, size: int, generator: torch.Generator) -> Tensor:
    """Maps [B, V, S, S] of a kind. Those in whole numbers add up exactly, so ties stay ties."""
    shape = (batch, views, size, size)
    noise = torch.randn(shape, generator=generator)
    if kind == "flat":
        return torch.full(shape, 1 / size**2)
    if kind == "whole numbers":
        return torch.randint(0, 4, shape, generator=generator).float()
    if kind == "negative whole numbers":
        return torch.randint(-9, 0, shape, generator=generator).float()
    if kind == "multi-modal":
        modes = [gaussian_targets(uniform((batch, 3), -1, 1, generator), THREE, size, 1.5) for _ in range(4)]
        return sum(modes, torch.zeros(()))[:, torch.arange(views) % 3].contiguous()
    if kind == "views that disagree":
        each = [gaussian_targets(uniform((batch, 3), -1, 1, generator), THREE[:1], size, 4.0) for _ in range(views)]
        return torch.cat(each, 1)
    if kind == "stripes":  # every bound of the search is far off: what is high along z never meets
        stripes = (torch.arange(size)[:, None] % 2).float().expand(shape).clone()
        stripes[:, 1::2] = 1 - stripes[:, 1::2]
        return stripes
    weights = {"softmax of noise": noise, "softmax of strong noise": 8 * noise}
    if kind in weights:
        return weights[kind].flatten(2).softmax(2).view(shape)
    assert kind == "noise", kind
    return noise


KINDS = (
    "noise", "flat", "whole numbers", "negative whole numbers", "multi-modal", "views that disagree", "stripes",
    "softmax of noise", "softmax of strong noise",
)  # fmt: skip


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(low, high, generator=generator)


# ------------------------------------------------------------------------------------------------------------ search


@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_is_that_of_the_whole_cube(kind: str) -> None:
    for number, (views, size) in enumerate(itertools.product(SETS, (1, 2, 13, 24))):
        maps = scores(kind, 3, len(views), size, seeded(number))
        found, cube = peak(maps, views), whole_cube(maps, views)
        torch.testing.assert_close(found.score.double(), cube.amax(1), atol=1e-7, rtol=1e-7)
        at = (found.voxel * torch.tensor([size * size, size, 1])).sum(1)
        torch.testing.assert_close(cube.gather(1, at[:, None])[:, 0], cube.amax(1), atol=1e-7, rtol=1e-7)
        if kind in ("flat", "whole numbers", "negative whole numbers", "stripes"):
            assert at.equal(cube.argmax(1)), "among equals the lowest index"


@pytest.mark.parametrize("kind", KINDS)
def test_both_searches_agree_to_the_bit(kind: str) -> None:
    """The sweep is what GPUs run and what flat maps fall back on; sizes around the slabs of its working memory."""
    for size in (5, 40, 96):
        planes = scores(kind, 2, 3, size, seeded(size)).unbind(1)
        for ours, theirs in zip(highest_voxel(*planes), sweep(*planes), strict=True):
            assert ours.equal(theirs)


def test_ordinary_maps_are_not_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*planes: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("swept")

    monkeypatch.setattr("perceive.rvt.voxel_search.sweep", refuse)
    for kind in ("noise", "multi-modal", "softmax of noise", "softmax of strong noise"):
        peak(scores(kind, 2, 3, 112, seeded(0)), THREE)
    with pytest.raises(AssertionError, match="swept"):
        peak(scores("flat", 1, 3, 112, seeded(0)), THREE)


def test_a_shift_of_the_target_by_whole_voxels_shifts_the_answer() -> None:
    size, generator = 32, seeded(0)
    point = uniform((8, 3), -0.4, 0.4, generator)
    steps = torch.randint(-6, 7, (8, 3), generator=generator)
    still = peak(gaussian_targets(point, THREE, size), THREE)
    moved = peak(gaussian_targets(point + steps * 2 / size, THREE, size), THREE)
    assert (moved.voxel - still.voxel).equal(steps)
    torch.testing.assert_close(moved.point - still.point, steps * 2 / size, atol=1e-4, rtol=0)


@settings(max_examples=30)
@given(seed=SEED, views=st.sampled_from(SETS))
def test_the_voxel_of_a_gaussian_is_within_half_a_voxel(seed: int, views: tuple[View, ...]) -> None:
    size, point = 24, uniform((4, 3), -0.75, 0.75, seeded(seed))
    found = peak(gaussian_targets(point, views, size), views)
    assert ((found.voxel + 0.5 - (point + 1) * size / 2).abs() <= 0.5 + 1e-3).all()


def test_what_is_drawn_is_read_at_the_same_place() -> None:
    """A drawn pixel, read as a map, answers with the centre of the point's voxel: no half-pixel shift between them."""
    size, points = 20, uniform((6, 1, 3), -1, 1, seeded(0))
    drawn = render(points, torch.ones(6, 1, 1), torch.ones(6, 1, dtype=torch.bool), ALL, size, splat_px=0.0)
    found = peak(drawn.hit.float(), ALL)
    assert found.voxel.equal(((points[:, 0] + 1) * size / 2).floor().long())
    assert found.score.eq(1).all()
    torch.testing.assert_close(found.point, (found.voxel + 0.5) * 2 / size - 1)


# -------------------------------------------------------------------------------------------------------- refinement


def decoding_error_px(log_noise: float, sigma_px: float, seed: int) -> tuple[float, float]:
    """The mean error of the peak (in 3D) and of the 2D argmax of a view, in pixels, on softmaxed Gaussians."""
    size, generator = 48, seeded(seed)
    point = uniform((150, 3), -0.7, 0.7, generator)
    logits, at = gaussian_logits(point, THREE, size, log_noise, generator, sigma_px)
    ours = (peak_of_logits(logits, THREE).point - point).norm(dim=1) * size / 2
    return float(ours.mean()), float((argmax_pixels(logits) - at).norm(dim=2).mean())


def test_decoding_is_finer_than_a_pixel() -> None:
    clean, of_pixels = decoding_error_px(0.0, 1.5, 0)
    assert clean <= 0.05
    assert 0.3 < of_pixels < 0.45  # a point in its pixel: 0.383 on average


@pytest.mark.parametrize("sigma_px", [1.5, 3.0])
def test_noise_on_the_maps_is_averaged_out(sigma_px: float) -> None:
    """Also of blunt maps, whose highest voxel is pixels off: the window follows the mass."""
    ours, of_pixels = decoding_error_px(0.3, sigma_px, 1)
    assert of_pixels > 0.6
    assert ours <= 0.2 * of_pixels


def test_a_sharp_view_outweighs_a_blunt_one() -> None:
    size, point, elsewhere = 40, torch.tensor([[0.11, 0.2, -0.3]]), torch.tensor([[0.16, 0.2, -0.3]])
    maps = gaussian_targets(point, THREE, size, 1.5)
    maps[:, 2] = gaussian_targets(elsewhere, THREE[2:], size, 8.0)[:, 0]  # the right view sees x, a voxel off
    found = peak(maps, THREE).point[0, 0]
    assert abs(found - point[0, 0]) < 0.1 * (elsewhere - point)[0, 0]


@settings(max_examples=30)
@given(seed=SEED)
def test_scores_may_be_any_numbers(seed: int) -> None:
    """Adding a constant to each map changes nothing; on flat maps the answer is the centre of the first voxel."""
    maps = gaussian_targets(uniform((2, 3), -0.9, 0.9, seeded(seed)), THREE, 24)
    moved = peak(maps - torch.tensor([0.25, 3.0, 0.5])[:, None, None], THREE)
    torch.testing.assert_close(moved.point, peak(maps, THREE).point, atol=1e-4, rtol=0)
    torch.testing.assert_close(moved.score + 1.25, peak(maps, THREE).score, atol=1e-6, rtol=0)
    flat = peak(torch.full_like(maps, -7.0), THREE)
    assert flat.point.equal(torch.full((2, 3), 1 / 24 - 1))
    assert flat.score.eq(-7).all()


@settings(max_examples=30)
@given(seed=SEED)
def test_near_a_face_the_answer_stays_in_the_cube_and_close(seed: int) -> None:
    size, generator = 24, seeded(seed)
    point = uniform((4, 3), 0.9, 1.0, generator) * torch.randint(0, 2, (4, 3), generator=generator).mul(2).sub(1)
    found = peak(gaussian_targets(point, ALL, size), ALL).point
    assert (found.abs() <= 1).all()
    assert ((found - point).abs() * size / 2 <= 0.75).all()


def test_logits_are_softmaxed_per_view() -> None:
    logits = 3 * torch.randn(4, 3, 20, 20, generator=seeded(0))
    logits[:, 1] += 50.0  # no view may shout the others down
    logits[:, 2, :5] = -torch.inf
    ours = peak_of_logits(logits.bfloat16().requires_grad_(), THREE)
    theirs = peak(logits.bfloat16().float().flatten(2).softmax(2).view(logits.shape), THREE)
    assert ours.voxel.equal(theirs.voxel)
    assert ours.point.equal(theirs.point)
    assert not ours.point.requires_grad


def test_maps_that_cannot_be_read_are_refused() -> None:
    maps = torch.zeros(2, 3, 8, 8)
    for wrong in (maps[0], maps[:, :2], maps[..., :5]):
        with pytest.raises(SpecError, match="one map per view"):
            peak(wrong, THREE)
    for value in (math.nan, math.inf, -math.inf):
        spoilt = maps.clone()
        spoilt[1, 2, 3, 4] = value
        with pytest.raises(SpecError, match="finite"):
            peak(spoilt, THREE)
    with pytest.raises(SpecError, match="two different directions"):
        peak(maps[:, :2], views_named(("front", "back")))


# ----------------------------------------------------------------------------------------------------------- targets


@settings(max_examples=30)
@given(seed=SEED, sigma_px=st.sampled_from([0.05, 0.5, 1.5, 2.2]))
def test_targets_are_cut_gaussians_of_sum_one(seed: int, sigma_px: float) -> None:
    faces = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 0.33]])
    size, point = 20, torch.cat([uniform((3, 3), -1, 1, seeded(seed)), faces])
    targets = gaussian_targets(point, ALL, size, sigma_px)
    torch.testing.assert_close(targets.sum((2, 3)), torch.ones(5, 6))
    u, v = pixel_of(point[:, None].double(), ALL, size)[:, :, 0, :, None, None].unbind(2)
    line = torch.arange(size, dtype=torch.float64) + 0.5
    square = (line[:, None] - v) ** 2 + (line - u) ** 2
    last = size - 1  # which a point on the far face belongs to
    own = (line[:, None].floor() == v.floor().clamp(max=last)) & (line.floor() == u.floor().clamp(max=last))
    gaussian = torch.where((square <= (3 * sigma_px) ** 2) | own, -square / (2 * sigma_px**2), -torch.inf)
    torch.testing.assert_close(targets.double(), gaussian.flatten(2).softmax(2).view_as(square), atol=1e-5, rtol=0)


def test_the_middle_of_a_target_is_the_point() -> None:
    point = uniform((5, 3), -0.6, 0.6, seeded(0))
    targets, line = gaussian_targets(point, THREE, 40), torch.arange(40) + 0.5
    middle = torch.stack([(targets.sum(2) * line).sum(2), (targets.sum(3) * line).sum(2)], 2)
    torch.testing.assert_close(middle, pixel_of(point[:, None], THREE, 40)[:, :, 0], atol=0.05, rtol=0)


def test_the_loss_is_the_dense_cross_entropy_and_so_is_its_gradient() -> None:
    size, generator = 24, seeded(0)
    point = torch.cat([uniform((5, 3), -1, 1, generator), torch.ones(1, 3), -torch.ones(1, 3)])
    logits = (3 * torch.randn(7, 3, size, size, generator=generator)).requires_grad_()
    loss = heatmap_loss(logits, point, THREE, 1.5)
    targets = gaussian_targets(point, THREE, size, 1.5).flatten(2)
    dense = functional.cross_entropy(logits.flatten(2).flatten(0, 1), targets.flatten(0, 1))
    torch.testing.assert_close(loss, dense)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = (logits.flatten(2).softmax(2) - targets) / 21
    torch.testing.assert_close(gradient.flatten(2), expected, atol=1e-7, rtol=1e-5)


def test_equal_logits_lose_the_log_of_their_number() -> None:
    loss = heatmap_loss(torch.full((2, 3, 28, 28), 4.2), torch.zeros(2, 3), THREE)
    torch.testing.assert_close(loss, torch.tensor(2 * math.log(28)))
    right = gaussian_targets(torch.zeros(2, 3), THREE, 28).log().clamp(min=-60)
    assert heatmap_loss(right, torch.zeros(2, 3), THREE) < 0.6 * loss


def test_pixels_ruled_out_away_from_the_target_do_not_spoil_the_loss() -> None:
    point = torch.tensor([[0.1, -0.2, 0.95]])  # in two of the views the Gaussian is cut by the edge
    under = gaussian_targets(point, THREE, 16) > 0
    logits = torch.where(under, 0.0, -torch.inf).requires_grad_()
    loss = heatmap_loss(logits, point, THREE)
    torch.testing.assert_close(loss, under.sum((2, 3)).log().mean())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()


def test_targets_outside_the_cube_are_refused() -> None:
    gaussian_targets(torch.full((1, 3), 1.00001), THREE, 16)  # rounding
    for value in (1.01, -1.5, math.nan):
        point = torch.tensor([[0.0, value, 0.0]])
        with pytest.raises(SpecError, match="within"):
            gaussian_targets(point, THREE, 16)
        with pytest.raises(SpecError, match="within"):
            heatmap_loss(torch.zeros(1, 3, 16, 16), point, THREE)
    for sigma_px in (0.0, -1.0, math.nan):
        with pytest.raises(SpecError, match="sigma"):
            gaussian_targets(torch.zeros(1, 3), THREE, 16, sigma_px)
    with pytest.raises(SpecError, match="one map per view"):
        heatmap_loss(torch.zeros(1, 2, 16, 16), torch.zeros(1, 3), THREE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_the_gpu_reads_the_same_point(kind: str) -> None:
    maps = scores(kind, 3, 3, 64, seeded(0))
    here, there = peak(maps, THREE), peak(maps.cuda(), THREE)
    assert here.voxel.equal(there.voxel.cpu())
    assert here.score.equal(there.score.cpu())
    torch.testing.assert_close(here.point, there.point.cpu(), atol=1e-5, rtol=0)
