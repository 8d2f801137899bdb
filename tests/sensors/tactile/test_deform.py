"""The gel around a contact: what it keeps, how far it reaches, and that resolutions agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sensors.errors import SpecError
from sensors.tactile import shapes
from sensors.tactile.blur import Blur, Border, blur_matrix, enlarging_matrix, weights
from sensors.tactile.deform import GelDeform, Softness
from sensors.tactile.gel import Gel

DOUBLE = torch.float64
MINI = Gel(0.0144, 0.0192, 0.004, 120, 160)
DEPTH_M = 8e-4


def ball(gel: Gel, x_m: float = 0.0, y_m: float = 0.0, depth_m: float = DEPTH_M) -> Tensor:
    return shapes.sphere(gel, torch.tensor(0.004, dtype=DOUBLE), depth_m, x_m, y_m)


# --------------------------------------------------------------------------------------------------------------- blurs


@pytest.mark.parametrize("sigma_px", [0.05, 0.3, 0.7, 1.5, 4.0, 15.0])
def test_kernels_have_the_width_that_is_asked_for(sigma_px: float) -> None:
    half = weights(sigma_px)
    assert half[0] + 2 * half[1:].sum() == pytest.approx(1.0)
    variance = 2 * (half * np.arange(len(half)) ** 2).sum()
    assert variance == pytest.approx(sigma_px**2, rel=0.02)  # a little is cut off


@pytest.mark.parametrize("border", ["replicate", "reflect"])
@pytest.mark.parametrize("size", [(9, 31), (140, 150)], ids=str)  # short pictures by matrices, long ones by shifts
def test_both_ways_of_blurring_are_the_padded_convolution(size: tuple[int, int], border: Border) -> None:
    torch.manual_seed(0)
    picture = torch.randn(2, *size, dtype=DOUBLE)
    blur = Blur(*size, (1.2, 0.8), border=border)
    for axis, sigma in ((1, 1.2), (2, 0.8)):
        half = weights(sigma)
        kernel = torch.tensor(np.concatenate([half[:0:-1], half]))
        reach = len(half) - 1
        edges = (0, 0, reach, reach) if axis == 1 else (reach, reach, 0, 0)
        wide = torch.nn.functional.pad(picture[:, None], edges, mode=border)
        shape = (1, 1, -1, 1) if axis == 1 else (1, 1, 1, -1)
        picture = torch.nn.functional.conv2d(wide, kernel.view(shape))[:, 0]
    torch.manual_seed(0)
    torch.testing.assert_close(blur(torch.randn(2, *size, dtype=DOUBLE)), picture)
    assert blur._shifted == (size == (140, 150))


def test_a_constant_stays_and_enlarging_keeps_a_ramp() -> None:
    for border in ("replicate", "reflect"):
        np.testing.assert_allclose(blur_matrix(12, weights(4.0), border).sum(axis=1), 1.0)
    ramp = enlarging_matrix(8, 4) @ np.arange(8.0)
    np.testing.assert_allclose(ramp[2:-2], (np.arange(32) + 0.5)[2:-2] / 4 - 0.5)


# ----------------------------------------------------------------------------------------------------------------- gel


def test_no_contact_leaves_the_gel_exactly_flat() -> None:
    assert not GelDeform(MINI)(torch.zeros(2, 120, 160)).any()


def test_firm_contact_keeps_its_shape_and_ends_where_hertz_says() -> None:
    deform = GelDeform(MINI.with_pixels(240, 320))
    overlap = ball(deform.gel)
    face, firm = deform(overlap), deform.contact(overlap).bool()
    pixel_m2 = math.prod(deform.gel.pitch_m)
    radius_m = math.sqrt(float(firm.sum()) * pixel_m2 / math.pi)
    # Half the depth: r^2 / (2 R) = d / 2 for a shallow ball. (Its exact height differs by d / (4 R).)
    assert radius_m == pytest.approx(math.sqrt(0.004 * DEPTH_M), rel=0.03)
    core = deform.contact(overlap.clamp(max=1) * (overlap > 0.6 * DEPTH_M)).bool()
    assert float((face - overlap)[core].abs().max()) < 0.01 * DEPTH_M
    assert float(face.max()) == pytest.approx(DEPTH_M, rel=0.005)


def test_the_gel_follows_beyond_the_rim_and_falls_off_with_distance() -> None:
    face = GelDeform(MINI)(ball(MINI))[0]
    overlap = ball(MINI)[0]
    row = face[60, 80:]
    rim = int((overlap[60, 80:] > 0).sum())
    assert float(row[rim + 2]) > 0.01 * DEPTH_M
    assert bool((row.diff()[:-1] <= 1e-12).all())
    assert float(row[-1]) < 0.01 * DEPTH_M
    assert float(face.min()) >= 0


@pytest.mark.parametrize("size", [(60, 80), (240, 320), (64, 64), (75, 101)], ids=str)
def test_resolutions_agree(size: tuple[int, int]) -> None:
    fine = MINI.with_pixels(480, 640)
    truth = GelDeform(fine)(ball(fine, 1e-3, -5e-4))
    coarse = GelDeform(fine.with_pixels(*size))(ball(fine.with_pixels(*size), 1e-3, -5e-4))
    shrunk = torch.nn.functional.interpolate(truth[:, None], size=size, mode="bilinear", antialias=True)[:, 0]
    wrong = (coarse - shrunk).abs() / DEPTH_M
    assert float(wrong.mean()) < 0.001
    assert float(wrong.max()) < 0.05


def test_kernels_in_pixels_would_not_agree() -> None:
    """The control: the same test with widths that follow the pixel."""
    fine = MINI.with_pixels(240, 320)
    truth = GelDeform(fine)(ball(fine))
    wider = GelDeform(MINI, Softness().scaled(2.0))(ball(MINI))
    shrunk = torch.nn.functional.interpolate(truth[:, None], size=(120, 160), mode="bilinear", antialias=True)[:, 0]
    assert float((wider - shrunk).abs().mean()) > 0.01 * DEPTH_M


@pytest.mark.parametrize("size", [(64, 64), (120, 160), (240, 320)], ids=str)
def test_halved_pictures_do_as_well_as_whole_ones(size: tuple[int, int]) -> None:
    gel = MINI.with_pixels(*size)
    overlap = ball(gel, 1e-3, -5e-4)
    halved, whole = (GelDeform(gel, Softness(pyramid=pyramid))(overlap) for pyramid in (True, False))
    assert float((halved - whole).abs().max()) < 0.0025 * DEPTH_M
    assert not halved.equal(whole)


def test_borders_are_open_not_pressed_down() -> None:
    """An even press stays even up to the border, where a border of zeros would round it off."""
    even = torch.full((1, 120, 160), 5e-4, dtype=DOUBLE)
    for overlap in (even, even * torch.linspace(0.2, 0.9, 160, dtype=DOUBLE)):  # in part not firm
        face = GelDeform(MINI)(overlap)
        torch.testing.assert_close(face[:, 0], face[:, 60], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(GelDeform(MINI)(even), even)


def test_far_contacts_add_and_do_not_disturb_each_other() -> None:
    gel = Gel(0.016, 0.04, 0.004, 64, 160)
    deep, shallow = ball(gel, -0.012), ball(gel, 0.012, depth_m=2e-4)
    deform = GelDeform(gel)
    together = deform(deep + shallow)
    torch.testing.assert_close(together, deform(deep) + deform(shallow), rtol=0, atol=1e-7)
    # As in Taxim the deep contact lifts the gel off the shallow one.
    global_depth = GelDeform(gel, Softness(reach_m=None))
    assert float((global_depth(deep + shallow) - together)[..., 100:].abs().max()) > 0.2 * 2e-4


def test_a_shift_moves_and_a_quarter_turn_turns_the_face() -> None:
    gel = Gel(0.016, 0.016, 0.003, 128, 128)
    deform, pitch = GelDeform(gel), gel.pitch_m[0]
    face = deform(ball(gel))
    moved = deform(ball(gel, 16 * pitch, -8 * pitch))
    torch.testing.assert_close(moved[:, 24:96, 40:112], face[:, 32:104, 24:96], rtol=0, atol=1e-7)
    overlap = shapes.box(gel, torch.tensor(0.006, dtype=DOUBLE), 0.003, 5e-4, 0.3, 1e-3)
    torch.testing.assert_close(deform(overlap.rot90(1, (1, 2))), deform(overlap).rot90(1, (1, 2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pyramid", [True, False])
def test_the_face_has_a_gradient(pyramid: bool) -> None:
    gel = Gel(0.004, 0.005, 0.003, 8, 12)
    deform = GelDeform(gel, Softness(pyramid=pyramid))
    overlap = (1e-3 * torch.rand(1, 8, 12, dtype=DOUBLE)).requires_grad_()
    assert torch.autograd.gradcheck(deform, (overlap,), eps=1e-9, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"sigmas_m": (1e-3, -1e-3)}, {"final_sigma_m": math.nan}, {"contact_share": 1.0}, {"reach_m": 0.0}],
    ids=str,
)
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        Softness(**wrong)  # type: ignore[arg-type]
