"""The bed of springs against closed forms: totals of simple shapes, and a given load."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.errors import SpecError
from sensors.tactile import shapes
from sensors.tactile.gel import Gel
from sensors.tactile.penalty import layer_stiffness, winkler_pressure, winkler_under_load

GEL = Gel(height_m=0.012, width_m=0.016, thickness_m=0.003, rows=192, columns=256)
POINT_M2 = GEL.pitch_m[0] * GEL.pitch_m[1]
STIFF = 6e7
RADIUS_M, DEPTH_M = 0.004, 0.0008
DEEP = torch.tensor([DEPTH_M], dtype=torch.float64)


def _force(overlap: torch.Tensor) -> float:
    return float(winkler_pressure(overlap, STIFF).sum() * POINT_M2)


def test_a_ball_presses_by_the_volume_that_stands_in_the_gel() -> None:
    exact = STIFF * math.pi * DEPTH_M**2 * (3 * RADIUS_M - DEPTH_M) / 3
    assert _force(shapes.sphere(GEL, RADIUS_M, DEEP)) == pytest.approx(exact, rel=2e-4)


def test_a_ball_presses_four_times_as_hard_twice_as_deep() -> None:
    """Unlike an elastic body, where it is 2.8 times."""
    shallow, deep = _force(shapes.sphere(GEL, 0.02, DEEP / 8)), _force(shapes.sphere(GEL, 0.02, DEEP / 4))
    assert math.log2(deep / shallow) == pytest.approx(2.0, abs=0.01)


def test_a_flat_punch_presses_by_its_area() -> None:
    exact = STIFF * math.pi * 0.003**2 * DEPTH_M
    assert _force(shapes.punch(GEL, 0.003, DEEP)) == pytest.approx(exact, rel=2e-3)


def test_a_cylinder_presses_by_its_circular_segment() -> None:
    half = math.acos(1 - DEPTH_M / RADIUS_M)
    segment = RADIUS_M**2 * (half - math.sin(2 * half) / 2)
    assert _force(shapes.cylinder(GEL, RADIUS_M, DEEP)) == pytest.approx(STIFF * GEL.width_m * segment, rel=5e-4)


@pytest.mark.parametrize(("rows", "columns"), [(20, 25), (48, 64)])
def test_grids_agree_on_the_force(rows: int, columns: int) -> None:
    gel = GEL.with_pixels(rows, columns)
    coarse = winkler_pressure(shapes.sphere(gel, RADIUS_M, DEEP), STIFF).sum() * gel.pitch_m[0] * gel.pitch_m[1]
    assert float(coarse) == pytest.approx(_force(shapes.sphere(GEL, RADIUS_M, DEEP)), rel=0.01)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.0, 1e3), st.integers(0, 2**31))
def test_a_given_load_is_carried_by_the_shape_moved_in_or_out(load_N: float, seed: int) -> None:  # noqa: N803
    """Whatever the overlap is: the springs carry the load, and one shift of the shape explains all pressures."""
    generator = torch.Generator().manual_seed(seed)
    overlap = (torch.rand(3, 6, 5, dtype=torch.float64, generator=generator) - 0.3).clamp(min=0) * 1e-3
    loads = torch.tensor([load_N, 0.3 * load_N, 0.0], dtype=torch.float64)
    pressure = winkler_under_load(overlap, STIFF, 1e-6, loads)
    torch.testing.assert_close(pressure.sum((1, 2)) * 1e-6, loads, rtol=1e-9, atol=1e-12)
    assert not pressure[overlap == 0].any()
    for over, press in zip(overlap, pressure, strict=True):
        if not press.any():
            continue
        shift = (press / STIFF - over)[press > 0]
        assert float(shift.max() - shift.min()) < 1e-9
        unpressed = over[(press == 0) & (over > 0)]
        assert not len(unpressed) or float(unpressed.max() + shift[0]) <= 1e-9


def test_a_ball_under_its_own_load_is_where_it_was() -> None:
    overlap = shapes.sphere(GEL, RADIUS_M, DEEP)
    own = winkler_pressure(overlap, STIFF)
    again = winkler_under_load(overlap, STIFF, POINT_M2, own.sum((1, 2)) * POINT_M2)
    torch.testing.assert_close(again, own, rtol=1e-6, atol=1.0)
    half = winkler_under_load(overlap, STIFF, POINT_M2, own.sum((1, 2)) * POINT_M2 / 2)
    assert int((half > 0).sum()) < int((own > 0).sum())  # less load, a smaller patch


def test_nothing_in_the_gel_carries_nothing() -> None:
    assert not winkler_under_load(torch.zeros(2, 3, 3), STIFF, 1e-6, torch.tensor([0.0, 5.0])).any()


def test_a_batch_is_as_many_single_ones() -> None:
    depths = torch.tensor([0.0002, 0.0008, 0.0], dtype=torch.float64)
    overlap, loads = shapes.sphere(GEL, RADIUS_M, depths), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    whole = winkler_under_load(overlap, STIFF, POINT_M2, loads)
    for k in range(3):
        assert torch.equal(whole[k : k + 1], winkler_under_load(overlap[k : k + 1], STIFF, POINT_M2, loads[k : k + 1]))


def test_a_thin_layer_is_as_stiff_as_its_material_says() -> None:
    stiffness = layer_stiffness(modulus_Pa=2e5, poisson=0.3, thickness_m=0.002)
    assert stiffness.normal_N_m3 == pytest.approx(2e5 * 0.7 / (1.3 * 0.4) / 0.002)
    assert stiffness.shear_N_m3 == pytest.approx(2e5 / 2.6 / 0.002)
    with pytest.raises(SpecError, match="poisson"):
        layer_stiffness(2e5, 0.5, 0.002)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1e-6])
def test_bad_overlaps_are_refused(wrong: float) -> None:
    overlap = torch.zeros(1, 3, 3)
    overlap[0, 1, 1] = wrong
    with pytest.raises(SpecError, match="overlap_m"):
        winkler_pressure(overlap, STIFF)
    with pytest.raises(SpecError, match="overlap_m"):
        winkler_under_load(overlap, STIFF, 1e-6, torch.ones(1))


def test_bad_numbers_are_refused() -> None:
    flat = torch.zeros(1, 3, 3)
    with pytest.raises(SpecError, match="stiffness_N_m3"):
        winkler_pressure(flat, -1.0)
    with pytest.raises(SpecError, match="stiffness_N_m3"):
        winkler_under_load(flat, 0.0, 1e-6, torch.ones(1))
    with pytest.raises(SpecError, match="load_N"):
        winkler_under_load(flat, STIFF, 1e-6, torch.tensor([-1.0]))
    with pytest.raises(SpecError, match="dimensions"):
        winkler_pressure(flat[0], STIFF)
