"""Colours for slopes: lights in closed form, tables made from them, and shadows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sensors.errors import DataError, SpecError
from sensors.tactile import shapes
from sensors.tactile.gel import Gel
from sensors.tactile.presets import PRESETS, preset_light
from sensors.tactile.shadow import Shadow
from sensors.tactile.slopes import slopes
from sensors.tactile.smooth_light import Lamp, SmoothLight
from sensors.tactile.table import ColourTable, TableColour

DOUBLE = torch.float64
GEL = Gel(0.0144, 0.0192, 0.004, 24, 32)


def some_slopes(gel: Gel = GEL, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    shape = (2, gel.rows, gel.columns)
    return torch.randn(shape, dtype=dtype) * 0.4, torch.randn(shape, dtype=dtype) * 0.4


def one_lamp(azimuth: float, falloff: float = 0.0, corner: float = 0.0) -> SmoothLight:
    return SmoothLight(GEL, [Lamp(azimuth, math.radians(30.0), (100.0, 50.0, 0.0), falloff)], corner)


# -------------------------------------------------------------------------------------------------------------- lights


def test_lambert_on_a_tilted_face() -> None:
    """A face turned by t towards a lamp at elevation e is lit by sin(e + t)."""
    light = one_lamp(0.0)
    for tilt in (-0.4, -0.1, 0.0, 0.2, 0.6):
        # Towards +x: the face rises away from it, so that its normal leans over to it.
        along_x = torch.full((1, 24, 32), -math.tan(tilt), dtype=DOUBLE)
        change = light(along_x, torch.zeros_like(along_x))
        elevation = math.radians(30.0)
        expected = max(math.sin(elevation + tilt), 0.0) - math.sin(elevation)
        for channel, strength in enumerate((100.0, 50.0, 0.0)):
            torch.testing.assert_close(
                change[:, channel].detach(), torch.full_like(along_x, strength * expected), rtol=0, atol=1e-5
            )


def test_flat_is_exactly_nothing_whatever_the_lights() -> None:
    for name in PRESETS:
        change = preset_light(name, GEL)(torch.zeros(2, 24, 32), torch.zeros(2, 24, 32))
        assert not change.any()


def test_the_side_towards_a_lamp_is_brighter() -> None:
    ball = shapes.sphere(GEL, torch.tensor(0.004), 8e-4)
    for azimuth, brighter in ((0.0, (11, 18)), (math.pi, (11, 13)), (math.pi / 2, (14, 15)), (-math.pi / 2, (9, 15))):
        change = one_lamp(azimuth)(*slopes(ball, GEL))[0, 0]
        assert change[brighter] > 1.0
        darker = (23 - brighter[0], 31 - brighter[1])
        assert change[darker] < -1.0


def test_a_lamp_is_stronger_on_its_side() -> None:
    falling = one_lamp(0.0, falloff=30.0)
    along = torch.full((1, 24, 32), -0.1, dtype=DOUBLE)
    change = falling(along, torch.zeros_like(along))[0, 0]
    torch.testing.assert_close(change[0], change[23])
    x = GEL.centres(DOUBLE)[1][0]
    torch.testing.assert_close((change[0] / change[0].mean()), 1 + 30 * x, rtol=1e-5, atol=0)
    flat = falling.flat(10.0).detach()
    assert flat.shape == (3, 24, 32)
    torch.testing.assert_close(flat[2], torch.full((24, 32), 10.0))
    assert flat[0, 0, 31] > flat[0, 0, 0] > 10


def test_lights_have_gradients_in_slopes_and_in_their_own_numbers() -> None:
    light = preset_light("digit", Gel(0.02, 0.016, 0.003, 3, 4)).double()
    torch.manual_seed(1)
    along = tuple((0.3 * torch.randn(1, 3, 4, dtype=DOUBLE)).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: light(a, b), along)

    def with_azimuth(azimuth: Tensor) -> Tensor:
        return torch.func.functional_call(light, {"azimuth_rad": azimuth}, (along[0].detach(), along[1].detach()))

    assert torch.autograd.gradcheck(with_azimuth, (light.azimuth_rad.detach().clone().requires_grad_(),))


@pytest.mark.parametrize(
    "wrong",
    [{"azimuth_rad": math.nan}, {"elevation_rad": 0.0}, {"rgb": (1.0, math.inf, 0.0)}, {"falloff_per_m": -1.0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_lamps_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        Lamp(**({"azimuth_rad": 0.0, "elevation_rad": 0.5, "rgb": (1.0, 1.0, 1.0)} | wrong))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="lamps"):
        SmoothLight(GEL, [])


# -------------------------------------------------------------------------------------------------------------- tables


def known_table(rows: int = 24, columns: int = 32, bins: tuple[int, int] = (9, 13)) -> ColourTable:
    rng = np.random.default_rng(0)
    scale = [columns**-2.0, rows**-2.0, 1 / (rows * columns), 1 / columns, 1 / rows, 1.0]
    return ColourTable(rng.normal(size=(*bins, 3, 6)) * 20 * np.array(scale), rows, columns)


def by_hand(table: ColourTable, gx: float, gy: float, row: int, column: int) -> np.ndarray:
    """Table x polynomial of one pixel, as published."""
    M, D = table.coefficients.shape[:2]
    m = int(math.atan(math.hypot(gx, gy)) / (0.5 * math.pi / (M - 1)))
    d = int((math.atan2(gy, gx) + math.pi) / (2 * math.pi / (D - 1)))
    x, y = float(column), float(row)
    return np.asarray(table.coefficients[m, d] @ np.array([x * x, y * y, x * y, x, y, 1.0]))


@pytest.mark.parametrize("bins", [(9, 13), (125, 120)])  # read from the table, wherever it came from
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_bins_and_polynomials_are_those_of_the_table(bins: tuple[int, int], dtype: torch.dtype) -> None:
    table = known_table(bins=bins)
    along = some_slopes(dtype=dtype)
    colours = TableColour(table, GEL, "floor")(*along)
    rng = np.random.default_rng(1)
    for _ in range(50):
        b, row, column = int(rng.integers(2)), int(rng.integers(24)), int(rng.integers(32))
        gx, gy = (float(part[b, row, column]) for part in along)
        expected = by_hand(table, gx, gy, row, column)
        np.testing.assert_allclose(colours[b, :, row, column].numpy(), expected, atol=1e-3)


def test_another_resolution_takes_over_the_places() -> None:
    coarse, table = GEL.with_pixels(12, 16), known_table()
    along = torch.full((1, 24, 32), 0.2), torch.full((1, 24, 32), -0.1)
    full = TableColour(table, GEL, "floor")(*along)
    half = TableColour(table, coarse, "floor")(along[0][:, :12, :16], along[1][:, :12, :16])
    torch.testing.assert_close(half, full[..., ::2, ::2], rtol=1e-5, atol=1e-4)  # as published: the top left pixel
    middle = TableColour(table, coarse, "nearest")(along[0][:, :12, :16], along[1][:, :12, :16])
    means = torch.nn.functional.avg_pool2d(TableColour(table, GEL, "nearest")(*along), 2)
    torch.testing.assert_close(middle, means, rtol=0, atol=0.05)


@pytest.mark.parametrize(("lookup", "most"), [("floor", 4.0), ("nearest", 2.2), ("fine", 0.6), ("linear", 0.15)])
def test_a_table_made_from_lights_gives_their_colours(lookup: str, most: float) -> None:
    gel = Gel(0.0144, 0.0192, 0.004, 120, 160)
    light = preset_light("gelsight_mini", gel)
    along = slopes(shapes.sphere(gel, torch.tensor(0.004), 8e-4, 1e-3), gel)
    table = TableColour(ColourTable.from_light(light), gel, lookup)  # type: ignore[arg-type]
    wrong = (table(*along) - light(*along)).detach().abs()
    assert float(wrong.max()) < most
    assert float(light(*along).detach().abs().max()) > 20  # there is something to get wrong
    assert not table(torch.zeros(1, 120, 160), torch.zeros(1, 120, 160)).abs().gt(1e-6).any()


def test_the_way_between_bins_has_a_gradient_and_no_seam() -> None:
    gel = Gel(0.0144, 0.0192, 0.004, 3, 4)
    table = ColourTable.from_light(preset_light("digit", gel), bins=31)
    colour = TableColour(table, gel, "linear")
    torch.manual_seed(2)
    along = tuple((0.3 * torch.randn(1, 3, 4, dtype=DOUBLE)).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: colour(a, b), along)
    # From just above to just below the direction pi, and from flat to nearly flat.
    back = torch.full((1, 3, 4), -0.3, dtype=DOUBLE)
    tiny = torch.full_like(back, 1e-9)
    torch.testing.assert_close(colour(back, tiny), colour(back, -tiny), rtol=0, atol=1e-5)
    flat = torch.zeros(1, 3, 4, dtype=DOUBLE, requires_grad=True)
    torch.testing.assert_close(colour(tiny, tiny), colour(tiny * 0, tiny * 0), rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(colour(flat, tiny * 0).sum(), flat)
    assert bool(gradient.isfinite().all())


def test_tables_are_kept_and_foreign_ones_read(tmp_path: Path) -> None:
    table = known_table()
    table.save(tmp_path / "own.npz")
    again = ColourTable.load(tmp_path / "own.npz")
    np.testing.assert_array_equal(again.coefficients, table.coefficients)
    assert (again.rows, again.columns) == (24, 32)
    red, green, blue = np.moveaxis(table.coefficients, 2, 0)
    np.savez(tmp_path / "polycalib.npz", bins=9, grad_r=blue, grad_g=green, grad_b=red)  # exchanged, as published
    np.testing.assert_array_equal(ColourTable.load(tmp_path / "polycalib.npz", 24, 32).coefficients, table.coefficients)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no table")
    np.savez(tmp_path / "other.npz", grad_r=np.zeros((9, 9, 6)))
    np.savez(tmp_path / "shape.npz", coefficients=np.zeros((9, 9, 6)), size=np.array([4, 4]))
    for name in ("absent.npz", "text.npz", "other.npz", "shape.npz"):
        with pytest.raises(DataError, match=name):
            ColourTable.load(tmp_path / name)
    with pytest.raises(SpecError, match="finite"):
        ColourTable(np.full((3, 3, 3, 6), np.nan), 4, 4)
    with pytest.raises(SpecError, match="lookup"):
        TableColour(known_table(), GEL, "cubic")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- shadows


def test_a_wall_throws_a_shadow_of_its_height_over_the_tangent() -> None:
    gel = Gel(0.016, 0.016, 0.003, 160, 160)
    height, elevation = 1e-3, math.radians(30.0)
    face = torch.zeros(1, 160, 160, dtype=DOUBLE)
    face[:, :, 40:60] = height  # a bar across the picture
    dark = Shadow(gel, [Lamp(math.pi, elevation, (100.0, 0.0, 0.0))], strength=0.5, penumbra_m=1e-6)(face)
    row = dark[0, 0, 80]
    shaded = (row < -1e-9).nonzero().flatten()
    length_m = height / math.tan(elevation)
    assert int(shaded.min()) == 60  # behind it, seen from the lamp on the left
    assert len(shaded) * gel.pitch_m[1] == pytest.approx(length_m, abs=2 * gel.pitch_m[1])
    assert float(row.min()) == pytest.approx(-0.5 * 100 * math.sin(elevation))
    assert not dark[:, 1:].any()


@pytest.mark.parametrize("azimuth", [0.4, 2.0, -1.2])
def test_shadows_by_doubling_are_those_of_marching(azimuth: float) -> None:
    gel = Gel(0.016, 0.016, 0.002, 96, 96)
    face = shapes.punch(gel, torch.tensor(0.0012, dtype=DOUBLE), 8e-4)
    elevation = 0.5
    dark = Shadow(gel, [Lamp(azimuth, elevation, (1.0, 0.0, 0.0))], 1.0, 1e-7)(face)[0, 0] < 0
    pitch = gel.pitch_m[0]
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    marched = torch.zeros(96, 96, dtype=torch.bool)
    for step in range(1, 120):
        r = (rows + step * 0.5 * math.sin(azimuth)).round().long().clamp(0, 95)
        c = (columns + step * 0.5 * math.cos(azimuth)).round().long().clamp(0, 95)
        marched |= face[0][r, c] - step * 0.5 * pitch * math.tan(elevation) > face[0] + 1e-9
    assert int(marched.sum()) > 50
    assert float((dark != marched).sum()) < 0.25 * float(marched.sum())  # a pixel along the outline


def test_a_flat_gel_has_no_shadow_and_settings_are_checked() -> None:
    lamps = PRESETS["digit"].lamps
    assert not Shadow(GEL, lamps)(torch.zeros(2, 24, 32)).any()
    with pytest.raises(SpecError, match="strength"):
        Shadow(GEL, lamps, strength=0.0)
    with pytest.raises(SpecError, match="penumbra_m"):
        Shadow(GEL, lamps, penumbra_m=0.0)
