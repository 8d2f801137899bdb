"""Moving and drawing the dots on a gel: symmetries, closed forms and resolution."""

from __future__ import annotations

import math

import pytest
import torch

from sensors.errors import SpecError
from sensors.tactile import shapes
from sensors.tactile.gel import Gel
from sensors.tactile.markers import MarkerField, draw_markers, rigid_motion

GEL = Gel(height_m=0.016, width_m=0.020, thickness_m=0.003, rows=96, columns=120)
DOTS = MarkerField(rows=9, columns=7)
STILL, STRAIGHT = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)


def _ball(gel: Gel = GEL, depth_m: float = 5e-4, x_m: float = 0.0, y_m: float = 0.0) -> torch.Tensor:
    return shapes.sphere(gel, 0.004, torch.tensor([depth_m], dtype=torch.float64), x_m, y_m)


def _motion(overlap: torch.Tensor, shear: torch.Tensor = STILL, twist: torch.Tensor = STRAIGHT) -> torch.Tensor:
    return DOTS.motion(GEL, overlap, shear, twist)[0].view(9, 7, 2)


def test_dots_stand_on_a_grid_row_by_row() -> None:
    rest = DOTS.at_rest(torch.float64).view(9, 7, 2)
    torch.testing.assert_close(rest[4, 3], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(rest[0, 0], torch.tensor([-0.0045, -0.006], dtype=torch.float64))
    torch.testing.assert_close(rest[8, 6], torch.tensor([0.0045, 0.006], dtype=torch.float64))


def test_a_press_spreads_the_dots_away_from_its_middle() -> None:
    motion, rest = _motion(_ball()), DOTS.at_rest(torch.float64).view(9, 7, 2)
    assert float(motion[4, 3].norm()) < 1e-12
    outwards = (motion * rest).sum(-1) / rest.norm(dim=-1).clamp(min=1e-12)
    turning = (rest[..., 0] * motion[..., 1] - rest[..., 1] * motion[..., 0]).abs()
    away = rest.norm(dim=-1) > 0
    assert float(outwards[away].min()) > 0
    assert float(turning.max()) < 1e-9
    torch.testing.assert_close(motion.flip(1)[..., 1], motion[..., 1])  # mirrored
    assert outwards[4, 4] > 10 * outwards[0, 0]


def test_a_press_spreads_by_the_slope_of_its_blur() -> None:
    """A tiny press is a point of some volume: the motion is the slope of a bell, by its closed form."""
    tiny = torch.zeros(1, 97, 121, dtype=torch.float64)
    tiny[0, 48, 60] = 1e-3
    gel = GEL.with_pixels(97, 121)
    motion = DOTS.motion(gel, tiny, STILL, STRAIGHT)[0]
    rest, wide = DOTS.at_rest(torch.float64), DOTS.dilate_m
    volume = 1e-3 * gel.pitch_m[0] * gel.pitch_m[1]
    bell = volume / (2 * math.pi * wide**2) * torch.exp(-rest.square().sum(-1, keepdim=True) / (2 * wide**2))
    torch.testing.assert_close(motion, DOTS.dilate * bell * rest / wide, rtol=1e-9, atol=1e-15)


def test_a_drag_takes_the_middle_all_the_way_and_the_rest_by_its_distance() -> None:
    shear = torch.tensor([[3e-4, -1e-4]], dtype=torch.float64)
    overlap = _ball(x_m=0.003, y_m=-0.0015)  # on a dot
    drag = _motion(overlap, shear) - _motion(overlap)
    rest = DOTS.at_rest(torch.float64).view(9, 7, 2)
    square = (rest - torch.tensor([0.003, -0.0015])).square().sum(-1, keepdim=True)
    torch.testing.assert_close(drag, shear * torch.exp(-square / (2 * DOTS.shear_m**2)), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(drag[3, 5], shear[0], rtol=1e-4, atol=1e-9)


def test_a_turn_moves_dots_on_circles() -> None:
    twist = torch.tensor([0.2], dtype=torch.float64)
    turn, rest = _motion(_ball(), STILL, twist) - _motion(_ball()), DOTS.at_rest(torch.float64).view(9, 7, 2)
    near = rest[4, 4]
    moved, faded = near + turn[4, 4], math.exp(-float(near.square().sum()) / (2 * DOTS.twist_m**2))
    expected = near * (1 - faded) + faded * torch.stack([near[0] * math.cos(0.2), near[0] * math.sin(0.2)])
    torch.testing.assert_close(moved, expected)
    assert turn[4, 4, 1] > 0  # from x towards y, as a picture with y down shows clockwise
    assert float(turn[4, 3].norm()) < 1e-12


def test_resolutions_agree() -> None:
    coarse = GEL.with_pixels(32, 40)
    there = DOTS.motion(coarse, _ball(coarse, x_m=0.001), STILL, STRAIGHT)
    here = DOTS.motion(GEL, _ball(x_m=0.001), STILL, STRAIGHT)
    assert float((there - here).abs().max()) < 0.01 * float(here.abs().max())


def test_an_untouched_gel_does_not_move() -> None:
    shear, twist = torch.tensor([[3e-4, 0.0]], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    assert not _motion(torch.zeros(1, 96, 120, dtype=torch.float64), shear, twist).any()
    both = torch.cat([torch.zeros(1, 96, 120, dtype=torch.float64), _ball()])
    motion = DOTS.motion(GEL, both, shear.expand(2, 2), twist.expand(2))
    assert not motion[0].any()
    assert torch.equal(motion[1:], DOTS.motion(GEL, _ball(), shear, twist))


def test_the_rigid_part_of_a_stretch_is_found() -> None:
    y, x = GEL.centres(torch.float64)
    places = torch.stack([x.expand(96, -1), y.expand(-1, 120)], -1)
    normal = _ball(x_m=0.004, y_m=0.002)
    middle = torch.tensor([0.004, 0.002], dtype=torch.float64)
    arm = places - middle
    stretch = torch.tensor([2e-4, -1e-4]) + 0.03 * torch.stack([-arm[..., 1], arm[..., 0]], -1)
    shift, turn = rigid_motion(stretch[None], normal, GEL)
    torch.testing.assert_close(shift[0], torch.tensor([2e-4, -1e-4], dtype=torch.float64), rtol=1e-3, atol=1e-7)
    assert float(turn[0]) == pytest.approx(0.03, rel=1e-6)
    shift, turn = rigid_motion(stretch[None], torch.zeros_like(normal), GEL)
    assert not shift.any()
    assert not turn.any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_dots_are_drawn_where_they_are(dtype: torch.dtype) -> None:
    """Centre of mass and area of each dot's ink, to a fraction of a pixel."""
    picture = torch.full((2, 96, 120, 3), 200, dtype=dtype)
    places = torch.tensor([[[0.0012, -0.0031]], [[-0.0044, 0.0050]]], dtype=torch.float64)
    before = picture.clone()
    drawn = draw_markers(picture, places, GEL, radius_m=0.0006)
    assert torch.equal(picture, before)
    assert drawn.dtype == dtype
    y, x = GEL.centres(torch.float64)
    for k in range(2):
        ink = (200 - drawn[k, ..., 0].double()) / 200
        assert float(ink.sum() * GEL.pitch_m[0] * GEL.pitch_m[1]) == pytest.approx(math.pi * 0.0006**2, rel=0.03)
        assert float((ink * x).sum() / ink.sum()) == pytest.approx(float(places[k, 0, 0]), abs=1.5e-5)
        assert float((ink * y).sum() / ink.sum()) == pytest.approx(float(places[k, 0, 1]), abs=1.5e-5)


def test_dots_may_overlap_leave_the_picture_and_have_a_colour() -> None:
    picture = torch.full((1, 96, 120, 3), 100, dtype=torch.uint8)
    places = torch.tensor([[[0.0, 0.0], [1e-4, 0.0], [0.0101, 0.0], [5.0, -3.0]]])
    drawn = draw_markers(picture, places, GEL, radius_m=0.0005, colour=(250.0, 0.0, 10.0))
    assert drawn[0, 48, 60].tolist() == [250, 0, 10]
    assert drawn[0, 48, 119].tolist() != [100, 100, 100]  # half of a dot, cut by the edge
    assert drawn[0, 0, 0].tolist() == [100, 100, 100]
    assert drawn[0, 48, 0].tolist() == [100, 100, 100]  # and not on the other side


def test_bad_input_is_named() -> None:
    with pytest.raises(SpecError, match="dilate_m"):
        MarkerField(dilate_m=-1.0)
    with pytest.raises(SpecError, match="rows"):
        MarkerField(rows=0)
    with pytest.raises(SpecError, match="overlap_m"):
        DOTS.motion(GEL, _ball() * math.nan, STILL, STRAIGHT)
    with pytest.raises(SpecError, match="shear_m"):
        DOTS.motion(GEL, _ball(), STILL * math.nan, STRAIGHT)
    with pytest.raises(SpecError, match="radius_m"):
        draw_markers(torch.zeros(1, 96, 120, 3), torch.zeros(1, 1, 2), GEL, radius_m=0.0)
    with pytest.raises(SpecError, match="places_m"):
        draw_markers(torch.zeros(1, 96, 120, 3), torch.full((1, 1, 2), math.nan), GEL)
    with pytest.raises(SpecError, match="picture"):
        draw_markers(torch.zeros(1, 3, 96, 120), torch.zeros(1, 1, 2), GEL)
