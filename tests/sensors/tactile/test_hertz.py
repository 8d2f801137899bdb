"""Hertz's closed forms, and the elastic gel that has to find them by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sensors.errors import SpecError
from sensors.tactile import shapes
from sensors.tactile.elastic import ElasticGel
from sensors.tactile.gel import Gel
from sensors.tactile.hertz import hertz_ball, hertz_pressure, layer_factor, plane_modulus
from sensors.tactile.penalty import layer_stiffness

MODULUS_PA, POISSON = 2e5, 0.48
RADIUS_M, DEPTH_M = 0.004, 0.0008
GEL = Gel(height_m=0.004, width_m=0.0044, thickness_m=0.003, rows=50, columns=44)  # pixels that are not square


def _places(gel: Gel) -> torch.Tensor:
    y, x = gel.centres(torch.float64)
    return torch.stack([x.expand(gel.rows, -1), y.expand(-1, gel.columns)], -1)


def _point_m2(gel: Gel) -> float:
    return gel.pitch_m[0] * gel.pitch_m[1]


def test_the_pressure_adds_up_to_the_force() -> None:
    gel = Gel(0.008, 0.008, 0.003, 320, 320)
    contact = hertz_ball(RADIUS_M, DEPTH_M, plane_modulus(MODULUS_PA, POISSON))
    pressure = hertz_pressure(contact, _places(gel), (0.0005, -0.0003))
    assert float(pressure.sum()) * _point_m2(gel) == pytest.approx(contact.force_N, rel=1e-3)
    assert contact.radius_m == pytest.approx(math.sqrt(RADIUS_M * DEPTH_M))
    assert float(pressure.max()) == pytest.approx(contact.peak_Pa, rel=1e-3)
    area_m2 = float((pressure > 0).sum()) * _point_m2(gel)
    assert math.sqrt(area_m2 / math.pi) == pytest.approx(contact.radius_m, rel=5e-3)
    # The undeformed shapes overlap in a circle that is 1.34 times as wide.
    overlap = shapes.sphere(gel, RADIUS_M, torch.tensor([DEPTH_M], dtype=torch.float64))
    wide_m = math.sqrt(float((overlap > 0).sum()) * _point_m2(gel) / math.pi)
    assert wide_m / contact.radius_m == pytest.approx(1.342, abs=0.005)


def _ball_forces(elastic: ElasticGel, radius_m: float, depths: torch.Tensor) -> torch.Tensor:
    return elastic.pressure(shapes.sphere(elastic.gel, radius_m, depths)).sum((1, 2)) * _point_m2(elastic.gel)


def test_the_half_space_finds_hertz() -> None:
    """Force, radius, peak and the exponent 3/2, from nothing but the response to a pressed rectangle."""
    depths = torch.tensor([4e-5, 8e-5, 1.6e-4], dtype=torch.float64)
    elastic = ElasticGel.half_space(GEL, MODULUS_PA, POISSON)
    pressure = elastic.pressure(shapes.sphere(GEL, RADIUS_M, depths))
    forces = pressure.sum((1, 2)) * _point_m2(GEL)
    for press, force, depth in zip(pressure, forces, depths, strict=True):
        contact = hertz_ball(RADIUS_M, float(depth), plane_modulus(MODULUS_PA, POISSON))
        assert float(force) == pytest.approx(contact.force_N, rel=0.015)
        assert float(press.max()) == pytest.approx(contact.peak_Pa, rel=0.02)
        radius_m = math.sqrt(float((press > 0).sum()) * _point_m2(GEL) / math.pi)
        assert radius_m == pytest.approx(contact.radius_m, rel=0.05)  # of pixels
    exponent = np.polyfit(depths.log().numpy(), forces.log().numpy(), 1)[0]
    assert exponent == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5])
def test_a_layer_is_stiffer_by_the_published_factor(ratio: float) -> None:
    """Against a series for a bonded layer that keeps its volume, which was derived in another way."""
    radius_m, thickness_m = 0.02, 0.002
    wide_m = ratio * thickness_m
    gel = Gel(3 * wide_m, 3 * wide_m, thickness_m, 50, 50)
    depth_m = wide_m**2 / radius_m
    elastic = ElasticGel.layer(gel, MODULUS_PA, 0.5)
    force = float(_ball_forces(elastic, radius_m, torch.tensor([depth_m], dtype=torch.float64))[0])
    hertz = hertz_ball(radius_m, depth_m, plane_modulus(MODULUS_PA, 0.5)).force_N
    factor = layer_factor(radius_m, depth_m, thickness_m)
    assert factor > 1 + ratio
    assert force / hertz == pytest.approx(factor, rel=0.012)


def test_a_thick_layer_is_a_half_space() -> None:
    gel = Gel(0.002, 0.002, 0.2, 40, 40)
    depth = torch.tensor([5e-5], dtype=torch.float64)
    layer = _ball_forces(ElasticGel.layer(gel, MODULUS_PA, POISSON), RADIUS_M, depth)
    half_space = _ball_forces(ElasticGel.half_space(gel, MODULUS_PA, POISSON), RADIUS_M, depth)
    assert float(layer) == pytest.approx(float(half_space), rel=0.005)
    assert float(layer) > float(half_space)


def test_a_thin_layer_is_a_bed_of_springs() -> None:
    """A wide flat press on a compressible layer: the pressure of the oedometric modulus in the middle."""
    gel = Gel(0.02, 0.02, 0.001, 50, 50)
    overlap = torch.full((1, 50, 50), 1e-5, dtype=torch.float64)
    pressure = ElasticGel.layer(gel, MODULUS_PA, 0.3).pressure(overlap)
    assert float(pressure[0, 25, 25]) == pytest.approx(
        layer_stiffness(MODULUS_PA, 0.3, 0.001).normal_N_m3 * 1e-5, rel=1e-2
    )


def test_the_surface_follows_the_shape_and_nothing_pulls() -> None:
    generator = torch.Generator().manual_seed(0)
    gel = Gel(0.006, 0.008, 0.002, 24, 32)
    places = torch.rand(2, 3, generator=generator, dtype=torch.float64) * 0.004 - 0.002
    overlap = torch.stack([shapes.sphere(gel, 0.003, torch.tensor([3e-4], dtype=torch.float64), x, y)[0]
                           for x, y in zip(*places, strict=True)]).amax(0, keepdim=True)  # fmt: skip
    elastic = ElasticGel.layer(gel, MODULUS_PA, POISSON)
    pressure = elastic.pressure(overlap)
    assert float(pressure.min()) >= 0
    gap = elastic.sink(pressure) - overlap
    pressed = pressure > 0
    assert 20 < int(pressed.sum()) < int((overlap > 0).sum())
    assert float(gap[pressed].abs().max()) < 1e-6 * 3e-4 * 1.01
    # Elsewhere the gel has sunk below the shape.
    assert float(gap[(overlap > 0) & ~pressed].min()) > -1e-6 * 3e-4 * 1.01


def test_no_overlap_no_pressure() -> None:
    elastic = ElasticGel.layer(GEL, MODULUS_PA, POISSON)
    both = torch.stack([torch.zeros(50, 44, dtype=torch.float64), shapes.sphere(
        GEL, RADIUS_M, torch.tensor([1e-4], dtype=torch.float64))[0]])  # fmt: skip
    pressure = elastic.pressure(both)
    assert not pressure[0].any()
    assert pressure[1].any()


def test_wrong_numbers_are_named() -> None:
    with pytest.raises(SpecError, match="poisson"):
        plane_modulus(MODULUS_PA, 0.6)
    with pytest.raises(SpecError, match="modulus_Pa"):
        ElasticGel.layer(GEL, -1.0, POISSON)
    with pytest.raises(SpecError, match="depth_m"):
        hertz_ball(RADIUS_M, -1e-4, 2e5)
    with pytest.raises(SpecError, match="sqrt"):
        layer_factor(RADIUS_M, 0.004, 0.001)
    with pytest.raises(SpecError, match="pixels"):
        ElasticGel.layer(Gel(0.02, 0.02, 0.001, 30, 30), MODULUS_PA, POISSON)
    with pytest.raises(SpecError, match="NaN"):
        ElasticGel.half_space(GEL, MODULUS_PA, POISSON).pressure(torch.full((1, 50, 44), float("nan")))
    with pytest.raises(SpecError, match="50, 44"):
        ElasticGel.half_space(GEL, MODULUS_PA, POISSON).pressure(torch.zeros(1, 5, 5))
