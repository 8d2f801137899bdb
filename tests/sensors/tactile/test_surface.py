"""Slopes, normals and the way back to heights, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.errors import SpecError
from sensors.tactile import shapes
from sensors.tactile.deform import GelDeform
from sensors.tactile.gel import Gel
from sensors.tactile.integrate import integrate
from sensors.tactile.slopes import normals, slopes

DOUBLE = torch.float64


@given(
    tilt_x=st.floats(-0.04, 0.04), tilt_y=st.floats(-0.04, 0.04), rows=st.integers(3, 20), columns=st.integers(3, 20)
)
@settings(max_examples=25, deadline=None)
def test_a_tilted_plane_is_exact_up_to_the_border(tilt_x: float, tilt_y: float, rows: int, columns: int) -> None:
    gel = Gel(0.012, 0.016, 0.003, rows, columns)
    along_x, along_y = slopes(shapes.plane(gel, torch.tensor(2e-3, dtype=DOUBLE), tilt_x, tilt_y), gel)
    torch.testing.assert_close(along_x, torch.full_like(along_x, tilt_x), rtol=0, atol=1e-12)
    torch.testing.assert_close(along_y, torch.full_like(along_y, tilt_y), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("pixels", "mean_deg", "most_deg"), [(64, 0.05, 0.09), (256, 0.004, 0.008)])
def test_normals_of_a_ball(pixels: int, mean_deg: float, most_deg: float) -> None:
    radius, depth = 0.004, 0.0008
    gel = Gel(0.016, 0.016, 0.003, pixels, pixels)
    height = shapes.sphere(gel, torch.tensor(radius, dtype=DOUBLE), depth)
    found = normals(*slopes(height, gel))[0]
    y, x = (part.expand(pixels, pixels) for part in gel.centres(DOUBLE))
    inside = (x**2 + y**2).sqrt() < math.sqrt(2 * radius * depth - depth**2) - 2 * gel.pitch_m[0]
    # The ball stands towards the camera: its normals point away from its top.
    known = torch.stack([x, y, (radius**2 - x**2 - y**2).clamp(min=0).sqrt()]) / radius
    off_deg = torch.rad2deg(torch.linalg.cross(found, known, dim=0).norm(dim=0).asin())[inside]
    assert float(off_deg.mean()) < mean_deg
    assert float(off_deg.max()) < most_deg
    torch.testing.assert_close(found.norm(dim=0), torch.ones(pixels, pixels, dtype=DOUBLE))


def test_a_bar_has_no_slope_along_its_axis_and_a_cone_one_everywhere() -> None:
    gel = Gel(0.016, 0.012, 0.003, 80, 60)
    along_x, along_y = slopes(shapes.cylinder(gel, torch.tensor(0.004, dtype=DOUBLE), 8e-4), gel)
    assert not along_x.any()
    assert along_y.abs().max() > 0.3
    along_x, along_y = slopes(shapes.cone(gel, torch.tensor(0.4, dtype=DOUBLE), 1.2e-3), gel)
    y, x = (part.expand(80, 60) for part in gel.centres(DOUBLE))
    distance = (x**2 + y**2).sqrt()
    inside = (distance > 1e-3) & (distance < 1.2e-3 / 0.4 - 4e-4)
    angle = torch.hypot(along_x, along_y)[0][inside].atan()
    torch.testing.assert_close(angle, torch.full_like(angle, math.atan(0.4)), rtol=0.01, atol=0)


@pytest.mark.parametrize("size", [(64, 64), (120, 160), (77, 53)], ids=str)
def test_what_the_camera_sees_integrates_to_the_face_of_the_gel(size: tuple[int, int]) -> None:
    gel = Gel(0.0143, 0.0186, 0.004, *size)
    face = GelDeform(gel)(shapes.sphere(gel, torch.tensor(0.004, dtype=DOUBLE), 8e-4))
    wrong = (integrate(*slopes(face, gel), gel) - (face - face.amin())).abs() / 8e-4
    assert float(wrong.max()) < 0.01
    assert float(wrong.mean()) < 0.001


def test_a_print_that_reaches_over_the_border_comes_back() -> None:
    """The slope at the border itself is that of its neighbour: that is what remains."""
    gel = Gel(0.0143, 0.0186, 0.004, 120, 160)
    face = GelDeform(gel)(shapes.sphere(gel, torch.tensor(0.004, dtype=DOUBLE), 8e-4, 0.0075))
    wrong = (integrate(*slopes(face, gel), gel) - (face - face.amin())).abs() / 8e-4
    assert float(wrong.mean()) < 0.001
    assert float(wrong.max()) < 0.04


def test_a_ball_and_a_plane_come_back_from_their_slopes() -> None:
    gel = Gel(0.0143, 0.0186, 0.004, 120, 160)
    ball = shapes.sphere(gel, torch.tensor(0.004, dtype=DOUBLE), 8e-4)
    wrong = (integrate(*slopes(ball, gel), gel) - ball).abs()
    assert float(wrong.max()) < 0.01 * 8e-4
    plane = shapes.plane(gel, torch.tensor(1e-3, dtype=DOUBLE), 0.02, -0.03)
    found = integrate(*slopes(plane, gel), gel)
    # A border of 0 would bend it down by its whole height; at the borders it still bends a little.
    assert float((found - (plane - plane.amin())).abs().max()) < 0.02 * float(plane.amax() - plane.amin())


def test_integration_has_a_gradient_and_refuses_other_sizes() -> None:
    gel = Gel(0.01, 0.01, 0.003, 5, 6)
    torch.manual_seed(0)
    inputs = tuple(torch.randn(2, 5, 6, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: 1e3 * integrate(a, b, gel), inputs)
    with pytest.raises(SpecError, match="along_y"):
        integrate(torch.zeros(1, 5, 6), torch.zeros(1, 6, 5), gel)
