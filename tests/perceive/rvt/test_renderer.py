import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.rvt.renderer import Rendered, channels, render
from perceive.rvt.views import FACES, SignedAxis, View, pixel_of, views_named
from sensors.errors import SpecError
from tests.perceive.rvt.reference import AXES, brute_force, numpy_renderer, render_face

ALL = views_named(FACES)
THREE = views_named(("top", "front", "right"))
NAN = float("nan")


def cloud(*points: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """One sample; the feature of a point is its index + 1."""
    places = torch.tensor([points])
    count = len(points)
    return places, torch.arange(1.0, count + 1).view(1, count, 1), torch.ones(1, count, dtype=torch.bool)


def random_cloud(
    generator: torch.Generator, batch: int, count: int, features: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    """Points in and out of the cube, many on a coarse grid (ties, faces, corners), some invalid, some NaN."""
    points = torch.rand(batch, count, 3, generator=generator) * 2.6 - 1.3
    grid = torch.randint(-4, 5, points.shape, generator=generator) / 4
    points = torch.where(torch.rand(batch, count, 1, generator=generator) < 0.5, grid, points)
    spoilt = torch.rand(batch, count, 1, generator=generator) < 0.1
    points[..., 1:2] = torch.where(spoilt, NAN, points[..., 1:2])
    valid = torch.rand(batch, count, generator=generator) < 0.8
    return points, torch.randn(batch, count, features, generator=generator), valid


def fields(rendered: Rendered) -> tuple[Tensor, ...]:
    return rendered.features, rendered.xyz, rendered.depth, rendered.hit


# ------------------------------------------------------------------------------------------------------------- views


def test_the_faces_look_where_they_say() -> None:
    """A camera sits at +1 along `towards`, and the world is upright (or +x is up) in its picture."""
    cameras = {"top": (2, 1), "bottom": (2, -1), "front": (0, 1), "back": (0, -1), "left": (1, 1), "right": (1, -1)}
    assert {name: (view.towards.index, view.towards.sign) for name, view in FACES.items()} == cameras
    for name, view in FACES.items():
        ours = tuple((axis.index, axis.sign) for axis in (view.right, view.down, view.towards))
        assert ours == AXES[name]
        up = (0, -1) if name in ("top", "bottom") else (2, -1)
        assert (view.down.index, view.down.sign) == up


@pytest.mark.parametrize(("one", "other"), [("top", "bottom"), ("front", "back"), ("left", "right")])
def test_opposite_faces_are_mirror_images(one: str, other: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 300, 3, generator=generator) * 2 - 1
    pixels = pixel_of(points, views_named((one, other)), 32)
    torch.testing.assert_close(pixels[:, 0, :, 0], 32 - pixels[:, 1, :, 0])
    torch.testing.assert_close(pixels[:, 0, :, 1], pixels[:, 1, :, 1])
    hit = render(points, points, torch.ones(2, 300, dtype=torch.bool), views_named((one, other)), 32).hit
    assert hit[:, 0].equal(hit[:, 1].flip(-1))
    assert not hit[:, 0].equal(hit[:, 1])


def test_pixels_by_hand() -> None:
    u_v = pixel_of(torch.tensor([[[0.5, -0.25, 1.0], [-1.0, -1.0, -1.0]]]), THREE, 8)
    #          top: u = (1 - y) 4, v = (1 - x) 4;  front: u = (1 + y) 4, v = (1 - z) 4;  right: u = (1 + x) 4
    expected = [[[5, 2], [8, 8]], [[3, 0], [0, 8]], [[6, 0], [0, 8]]]
    torch.testing.assert_close(u_v, torch.tensor([expected], dtype=torch.float32))


def test_views_that_cannot_be_are_refused() -> None:
    x, y, z = (SignedAxis(i, 1) for i in range(3))
    with pytest.raises(SpecError, match="mirror images"):
        View("mirrored", x, y, z)
    with pytest.raises(SpecError, match="three axes"):
        View("flat", x, x, SignedAxis(2, -1))
    with pytest.raises(SpecError, match="three axes"):
        View("scaled", x, y, SignedAxis(2, -2))
    View("upside down", x, y, SignedAxis(2, -1))
    with pytest.raises(SpecError, match="Did you mean 'front'"):
        views_named(("top", "fornt"))
    for names in ((), ("top", "top")):
        with pytest.raises(SpecError, match="different faces"):
            views_named(names)


# ---------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("view", ALL, ids=lambda view: view.name)
def test_one_point_lights_its_pixel_and_four_neighbours(view: View) -> None:
    size, point = 16, [0.30, -0.55, 0.07]
    rendered = render(*cloud(point), (view,), size)
    along = [point[axis.index] * axis.sign for axis in (view.right, view.down)]
    column, row = (int(np.floor(value * size / 2 + size / 2)) for value in along)
    expected = torch.zeros(size, size, dtype=torch.bool)
    for i, j in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
        expected[row + i, column + j] = True
    assert rendered.hit[0, 0].equal(expected)
    assert rendered.features[0, 0, 0].equal(expected.float())
    for axis in range(3):
        assert rendered.xyz[0, 0, axis].equal(expected * torch.tensor(point[axis]))
    away = torch.tensor(1.0) - torch.tensor(point[view.towards.index]) * view.towards.sign
    assert rendered.depth[0, 0].equal(torch.where(expected, away, -1.0))


def test_a_splat_is_cut_at_the_edge_and_never_enters_the_next_picture() -> None:
    corners = [list(corner) for corner in itertools.product((-1.0, 1.0), repeat=3)]
    for radius_px in (0.0, 1.344, 2.0, 3.7):
        rendered = render(*cloud(*corners), ALL, 16, radius_px)
        reach = range(int(radius_px) + 1)
        quarter = sum(i * i + j * j <= radius_px**2 for i in reach for j in reach)
        assert rendered.hit.sum((2, 3)).tolist() == [[4 * quarter] * 6]


def test_the_nearer_point_wins_in_either_order() -> None:
    near, far = [0.2, 0.1, 0.5], [0.2, 0.1, 0.4999999]
    for points in ((near, far), (far, near)):
        rendered = render(*cloud(*points), views_named(("top", "bottom")), 8, 0.0)
        top, bottom = rendered.depth[0, rendered.hit[0]]
        assert top == torch.tensor(1.0) - torch.tensor(near[2])
        assert bottom == torch.tensor(1.0) + torch.tensor(far[2])


def test_equally_near_points_give_way_to_the_lowest_index() -> None:
    tied = [[0.2, 0.1, 0.5], [0.21, 0.11, 0.5], [0.19, 0.12, 0.5]]
    for order in itertools.permutations(tied):
        rendered = render(*cloud([0.2, 0.1, -0.5], *order), views_named(("top",)), 8)
        assert rendered.features[rendered.features > 0].unique().tolist() == [2.0]


def test_a_neighbours_splat_covers_what_is_farther_and_not_what_is_nearer() -> None:
    one_px = 2 / 16
    step, middle = [0.0, -one_px, 0.0], [0.03, 0.03, 0.0]
    for height, seen in ((0.5, 2.0), (-0.5, 1.0)):
        beside = [a + b for a, b in zip(middle, step, strict=True)]
        beside[2] = height
        rendered = render(*cloud(middle, beside), views_named(("top",)), 16)
        column, row = pixel_of(torch.tensor([[middle]]), views_named(("top",)), 16)[0, 0, 0].int().tolist()
        assert rendered.features[0, 0, 0, row, column] == seen


@pytest.mark.parametrize("view", ALL, ids=lambda view: view.name)
def test_nothing_outside_the_cube_is_drawn_not_even_in_front_of_it(view: View) -> None:
    points = torch.zeros(4, 3)
    for i, axis in enumerate((view.towards, view.right, view.down)):
        points[i, axis.index] = 1.001 * axis.sign
    points[3, view.towards.index] = -1.001 * view.towards.sign
    assert not render(*cloud(*points.tolist()), (view,), 8).hit.any()
    inside = render(*cloud(*(points / 1.001).clamp(-1, 1).tolist()), (view,), 8)
    assert inside.hit.any()
    assert inside.depth[inside.hit].min() == 0.0


def test_a_plane_is_one_colour_and_has_no_relative_depth() -> None:
    line = torch.linspace(-0.99, 0.99, 60)
    x, y = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x, y, torch.full_like(x, 0.3)], -1).view(1, -1, 3)
    colour = torch.tensor([0.2, 0.5, 0.9])
    rendered = render(points, colour.expand(1, 3600, 3), torch.ones(1, 3600, dtype=torch.bool), THREE, 24)
    assert rendered.hit[0, 0].all()
    assert not rendered.hit[0, 1].all()
    image = channels(rendered, THREE)
    assert image[0, 0, 3:6].equal(colour[:, None, None].expand(3, 24, 24))
    torch.testing.assert_close(rendered.depth[0, 0], torch.full((24, 24), 0.7))
    torch.testing.assert_close(image[0, 0, 6], torch.zeros(24, 24), atol=1e-6, rtol=0)
    assert image[0, 1, 6][~rendered.hit[0, 1]].eq(-1).all()


@pytest.mark.parametrize("count", [0, 5])
def test_an_empty_cloud_gives_background(count: int) -> None:
    points, features = torch.full((2, count, 3), NAN), torch.full((2, count, 4), NAN)
    rendered = render(points, features, torch.ones(2, count, dtype=torch.bool), THREE, 8)
    assert rendered.features.shape == (2, 3, 4, 8, 8)
    assert not rendered.hit.any()
    assert rendered.features.eq(0).all()
    assert rendered.xyz.eq(0).all()
    assert rendered.depth.eq(-1).all()
    image = channels(rendered, THREE)
    assert image.shape == (2, 3, 11, 8, 8)
    assert image[:, :, :7].eq(0).all()
    assert image[:, :, 7].eq(-1).all()
    assert image.isfinite().all()


def test_the_ten_channels() -> None:
    generator = torch.Generator().manual_seed(3)
    points, colours, valid = random_cloud(generator, 2, 60)
    rendered = render(points, colours, valid, THREE, 12)
    image = channels(rendered, THREE)
    assert image.shape == (2, 3, 10, 12, 12)
    assert image[:, :, :3].equal(rendered.xyz)
    assert image[:, :, 3:6].equal(rendered.features)
    for sample, view in itertools.product(range(2), range(3)):
        depth, hit = rendered.depth[sample, view].double(), rendered.hit[sample, view]
        expected = torch.where(hit, depth - depth[hit].mean(), -1.0).float()
        torch.testing.assert_close(image[sample, view, 6], expected, atol=1e-6, rtol=0)
        assert image[sample, view, 7].eq(view - 1).all()
    middles = (torch.arange(12) + 0.5) / 6 - 1
    assert torch.allclose(image[:, :, 8], middles[:, None])
    assert torch.allclose(image[:, :, 9], middles)
    assert channels(render(points, colours, valid, THREE[:1], 12), THREE[:1])[:, :, 7].eq(0).all()
    with pytest.raises(SpecError, match="3 views"):
        channels(rendered, ALL)


# ------------------------------------------------------------------------------------------------- against reference


@pytest.mark.parametrize("part", range(4))
def test_bit_for_bit_the_slow_reference(part: int) -> None:
    """100 clouds: batches, all faces, splats, ties, faces of the cube, points outside, invalid and NaN."""
    generator = torch.Generator().manual_seed(part)
    compared = 0
    for round_number in range(5):
        size = (9, 12, 7, 16, 8)[round_number]
        splat_px = (1.344, 0.0, 2.3, 1.344, 1.5)[round_number]
        points, features, valid = random_cloud(generator, 5, (40, 90, 1, 200, 25)[round_number])
        names = list(AXES)[part:] + list(AXES)[:part]
        views = views_named(names[:3])
        rendered = render(points, features, valid, views, size, splat_px)
        for sample in range(5):
            for number, name in enumerate(names[:3]):
                expected = render_face(
                    points[sample].numpy(), features[sample].numpy(), valid[sample].numpy(), name, size, splat_px
                )
                got = (tensor[sample, number].numpy() for tensor in fields(rendered))
                wanted = (expected.features, expected.xyz, expected.depth, expected.hit)
                for ours, theirs in zip(got, wanted, strict=True):
                    np.testing.assert_array_equal(ours, theirs)
            compared += 1
    assert compared == 25


def test_the_renderers_that_benchmarks_compare_with_draw_the_same() -> None:
    one = random_cloud(torch.Generator().manual_seed(7), 1, 300)
    ours = render(*one, THREE, 16)
    for slow, fast in zip(fields(brute_force(one, THREE, 16, 1.344, rows=16)), fields(ours), strict=True):
        assert slow.equal(fast)
    np.testing.assert_allclose(numpy_renderer(one, THREE, 16), channels(ours, THREE)[0].numpy(), atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- symmetry


@settings(max_examples=50)
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(1, 40))
def test_the_order_of_the_points_does_not_matter(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points, features, valid = random_cloud(generator, 1, count)
    order = torch.randperm(count, generator=generator)
    one = render(points, features, valid, THREE, 8)
    other = render(points[:, order], features[:, order], valid[:, order], THREE, 8)
    assert one.hit.equal(other.hit)
    assert one.depth.equal(other.depth)
    # Among equally near points the index decides, so only pictures without such points are the same throughout.
    free = torch.rand(1, count, 3, generator=generator) * 2 - 1
    if all(free[0, :, axis].unique().numel() == count for axis in range(3)):
        one = render(free, features, valid, THREE, 8)
        other = render(free[:, order], features[:, order], valid[:, order], THREE, 8)
        for ours, theirs in zip(fields(one), fields(other), strict=True):
            assert ours.equal(theirs)


def test_a_batch_is_its_samples() -> None:
    points, features, valid = random_cloud(torch.Generator().manual_seed(1), 4, 70)
    whole = fields(render(points, features, valid, ALL, 10))
    for i in range(4):
        alone = render(points[i : i + 1], features[i : i + 1], valid[i : i + 1], ALL, 10)
        for of_batch, of_sample in zip(whole, fields(alone), strict=True):
            assert of_batch[i : i + 1].equal(of_sample)


def test_invalid_points_are_as_if_they_were_not_there() -> None:
    points, features, valid = random_cloud(torch.Generator().manual_seed(2), 1, 80)
    without = render(points[valid][None], features[valid][None], valid[valid][None], THREE, 12)
    for ours, theirs in zip(fields(render(points, features, valid, THREE, 12)), fields(without), strict=True):
        assert ours.equal(theirs)
    assert not render(points, features, torch.ones_like(valid), THREE, 12).hit.equal(without.hit)


def test_no_gradient_is_kept_and_half_precision_points_are_taken() -> None:
    points, features, valid = random_cloud(torch.Generator().manual_seed(4), 1, 30)
    rendered = render(points.requires_grad_(), features.bfloat16(), valid, THREE, 8)
    assert not any(tensor.requires_grad for tensor in fields(rendered))
    assert rendered.features.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_draws_the_same_pictures() -> None:
    points, features, valid = random_cloud(torch.Generator().manual_seed(5), 3, 5000)
    here = render(points, features, valid, ALL, 64)
    there = render(points.cuda(), features.cuda(), valid.cuda(), ALL, 64)
    for ours, theirs in zip(fields(here), fields(there), strict=True):
        assert ours.equal(theirs.cpu())
    torch.testing.assert_close(channels(here, ALL), channels(there, ALL).cpu(), atol=1e-6, rtol=0)


def test_what_cannot_be_rendered_is_refused() -> None:
    points, features, valid = cloud([0.0, 0.0, 0.0])
    for wrong in ((points[0], features, valid), (points, features[:, :0], valid), (points, features, valid.float())):
        with pytest.raises(SpecError, match="points"):
            render(*wrong, THREE, 8)
    for size, splat_px in ((0, 1.0), (8, -1.0), (8, NAN)):
        with pytest.raises(SpecError, match="radius"):
            render(points, features, valid, THREE, size, splat_px)
    with pytest.raises(SpecError, match="views"):
        render(points, features, valid, (), 8)
