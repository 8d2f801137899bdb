"""The whole way from height map to picture, and what is varied on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensors.errors import SpecError
from sensors.tactile import shapes
from sensors.tactile.gel import Gel
from sensors.tactile.optics import GelOptics
from sensors.tactile.presets import PRESETS, preset_background, preset_gel, preset_light, preset_optics
from sensors.tactile.shadow import Shadow
from sensors.tactile.table import Lookup
from sensors.tactile.vary import Ranges, draw

KINDS: list[tuple[str, Lookup | None, bool]] = [
    ("gelsight_mini", None, False), ("digit", None, True), ("digit", "linear", False), ("gelsight_mini", "fine", True),
]  # fmt: skip


def prints(gel: Gel) -> Tensor:
    """A ball, a turned block, a bar in the corner, nothing, and a tilted plane."""
    return torch.cat(
        [
            shapes.sphere(gel, 0.004, 8e-4, 1e-3),
            shapes.box(gel, 0.006, 0.003, 5e-4, 0.4),
            shapes.cylinder(gel, 0.002, 1e-3, 1.0, -6e-3),
            torch.zeros(1, gel.rows, gel.columns),
            shapes.plane(gel, 2e-4, 0.03, 0.05),
        ]
    )


@pytest.mark.parametrize(("name", "table", "shadow"), KINDS)
def test_nothing_touched_is_the_background_and_a_batch_is_its_pictures(
    name: str, table: Lookup | None, shadow: bool
) -> None:
    optics = preset_optics(name, 48, 64, table=table, shadow=shadow)
    maps = prints(optics.gel).repeat(14, 1, 1)  # more than are worked on at a time
    together = optics.picture(maps)
    assert together.dtype == torch.uint8
    assert together.shape == (70, 48, 64, 3)
    for index in (0, 1, 2, 3, 4, 44, 69):
        assert together[index].equal(optics.picture(maps[index : index + 1])[0])
    floats = optics(maps[:5]).detach()
    for index in range(5):
        assert floats[index].equal(optics(maps[index : index + 1]).detach()[0])
    assert floats[3].equal(optics.background.permute(1, 2, 0))
    assert together[3].equal(floats[3].round().clamp(0, 255).to(torch.uint8))
    assert together[:5].equal(floats.round().clamp(0, 255).to(torch.uint8))
    for index, change in ((0, 15), (1, 15), (2, 15), (4, 5)):
        assert int((together[index].int() - together[3].int()).abs().max()) > change


def test_the_background_is_that_of_a_real_picture() -> None:
    for name in PRESETS:
        background = preset_background(name, preset_gel(name, 24, 32))
        assert 40 < float(background.mean()) < 200
        assert background.min() > 0
        assert background.max() < 255


def test_a_shift_moves_the_picture() -> None:
    """Against an even background, with lights that do not fall off."""
    gel = Gel(0.016, 0.016, 0.003, 128, 128)
    light = preset_light("digit", gel)
    torch.nn.init.zeros_(light.falloff_per_m)
    optics = GelOptics(gel, light, torch.full((3, 128, 128), 100.0), None, Shadow(gel, PRESETS["digit"].lamps))
    pitch = gel.pitch_m[0]
    here, there = (optics.picture(shapes.sphere(gel, 0.003, 7e-4, x, y)) for x, y in ((0, 0), (16 * pitch, -8 * pitch)))
    change = (there[:, 24:88, 48:112].int() - here[:, 32:96, 32:96].int()).abs()
    assert int(change.max()) <= 1
    assert float((change > 0).float().mean()) < 0.01


def test_two_far_prints_are_the_sum_of_their_changes() -> None:
    gel = Gel(0.012, 0.04, 0.003, 48, 160)
    optics = GelOptics(gel, preset_light("digit", gel), torch.full((3, 48, 160), 100.0)).double()
    one, two = (
        shapes.sphere(gel, torch.tensor(0.003, dtype=torch.float64), d, x) for d, x in ((7e-4, -0.012), (3e-4, 0.012))
    )
    with torch.no_grad():
        together = optics(one + two) - 100
        torch.testing.assert_close(together, optics(one) + optics(two) - 200, rtol=0, atol=0.01)


@given(depths=st.tuples(st.floats(1e-4, 1.5e-3), st.floats(1e-4, 1.5e-3)), x=st.floats(-2e-3, 2e-3))
@settings(max_examples=10, deadline=None)
def test_a_deeper_ball_changes_more_of_the_picture(depths: tuple[float, float], x: float) -> None:
    optics = preset_optics("gelsight_mini", 60, 80)
    flat = optics.background.permute(1, 2, 0)
    areas = [
        int(((optics(shapes.sphere(optics.gel, 0.004, depth, x)).detach() - flat).abs().amax(3) > 3).sum())
        for depth in sorted(depths)
    ]
    assert areas[0] <= areas[1] + 2


def test_pictures_have_gradients() -> None:
    """Of a height map, away from the rim of firm contact, which is a choice."""
    gel = preset_gel("digit", 8, 8)
    optics = preset_optics("digit", 8, 8, table="linear").double()
    torch.manual_seed(0)
    overlap = (1e-4 + 1e-3 * torch.rand(1, 8, 8, dtype=torch.float64)).requires_grad_()
    assert gel == optics.gel
    assert torch.autograd.gradcheck(lambda m: 1e-3 * optics(m), (overlap,), eps=1e-9, atol=1e-3, rtol=1e-3)
    depth = torch.tensor([5e-4], requires_grad=True)
    lit = preset_optics("digit", 32, 32)
    lit(shapes.sphere(lit.gel, 0.004, depth)).square().mean().backward()
    assert depth.grad is not None
    assert float(depth.grad.abs()) > 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (torch.zeros(1, 16, 15), "batch of one"),
        (torch.zeros(16, 16), "batch of one"),
        (torch.zeros(1, 16, 16, dtype=torch.int32), "int32"),
        (torch.full((1, 16, 16), -1e-6), "clamp"),
        (torch.full((1, 16, 16), float("nan")), "NaN"),
        (torch.full((1, 16, 16), float("inf")), "finite"),
    ],
    ids=["size", "axes", "type", "negative", "nan", "inf"],
)
def test_bad_height_maps_are_refused(wrong: Tensor, named: str) -> None:
    optics = preset_optics("digit", 16, 16)
    for look in (optics, optics.picture):
        with pytest.raises(SpecError, match=named):
            look(wrong)
    assert optics.picture(torch.zeros(0, 16, 16)).shape == (0, 16, 16, 3)


def test_parts_that_do_not_fit_are_refused() -> None:
    gel, other = preset_gel("digit", 16, 16), preset_gel("digit", 16, 12)
    light = preset_light("digit", gel)
    for background in (None, torch.zeros(3, 12, 16), torch.full((3, 16, 16), float("nan"))):
        with pytest.raises(SpecError, match="background"):
            GelOptics(gel, light, background)
    with pytest.raises(SpecError, match="colour"):
        GelOptics(other, light, torch.zeros(3, 16, 12))
    with pytest.raises(SpecError, match="shadow"):
        GelOptics(gel, light, torch.zeros(3, 16, 16), None, Shadow(other, PRESETS["digit"].lamps))
    with pytest.raises(SpecError, match="gelsight_mini"):
        preset_gel("gelsight_min", 4, 4)
    with pytest.raises(SpecError, match="thickness_m"):
        Gel(0.01, 0.01, 0.0, 4, 4)


# ------------------------------------------------------------------------------------------------------------- varying


def test_no_ranges_vary_nothing() -> None:
    optics = preset_optics("gelsight_mini", 24, 32)
    maps = prints(optics.gel)
    nothing = draw(Ranges(0, 0, 0, 0, 0, 0), optics.gel, np.random.default_rng(0), 5)
    generator = torch.Generator().manual_seed(0)
    assert optics.picture(maps, nothing, generator).equal(optics.picture(maps))


@pytest.mark.parametrize("name", ["gain", "mix", "turn_rad", "tint", "stiffness", "noise"])
def test_each_range_varies_something_and_its_draws_differ(name: str) -> None:
    optics = preset_optics("gelsight_mini", 32, 40)
    ball = shapes.sphere(optics.gel, 0.004, 8e-4).repeat(6, 1, 1)
    only = Ranges(**({"gain": 0, "mix": 0, "turn_rad": 0, "tint": 0, "stiffness": 0, "noise": 0} | {name: 0.4}))
    only = Ranges(0, 0, 0, 0, 0, 8.0) if name == "noise" else only
    varied = draw(only, optics.gel, np.random.default_rng(0), 6)
    pictures = optics.picture(ball, varied, torch.Generator().manual_seed(0)).int()
    plain = optics.picture(ball).int()
    assert len({tuple(picture.flatten().tolist()) for picture in pictures}) >= 4
    assert 0.05 < float((pictures - plain).abs().float().mean()) < 20
    away = (pictures - plain)[:, :3, :3].abs()  # in a corner, where nothing touches
    assert bool(away.any()) == (name in ("tint", "noise"))


def test_draws_keep_their_ranges_and_follow_their_generator() -> None:
    ranges, gel = Ranges(0.2, 0.05, 0.3, 0.1, 0.25, 3.0), preset_gel("digit", 20, 24)
    one, same, other = (draw(ranges, gel, np.random.default_rng(seed), 200) for seed in (0, 0, 1))
    assert one.tint.equal(same.tint)
    assert not one.tint.equal(other.tint)
    own = torch.eye(3, dtype=torch.bool)
    assert 0.15 < float((one.colours[:, own] - 1).abs().max()) <= 0.2 + 1e-6
    assert 0.04 < float(one.colours[:, ~own].abs().max()) <= 0.05 + 1e-6
    assert 0.25 < float(one.turn_rad.abs().max()) <= 0.3
    assert 0.05 < float((one.tint - 1).abs().max()) <= 0.1 + 1e-6
    assert float(one.stiffness.min()) == pytest.approx(0.8)
    assert float(one.stiffness.max()) == pytest.approx(1.25)
    assert 2.5 < float(one.noise.max()) <= 3.0
    assert one[2:5].tint.equal(one.tint[2:5])


def test_turned_lights_turn_the_picture_and_noise_is_as_wide_as_said() -> None:
    gel = Gel(0.016, 0.016, 0.003, 64, 64)
    light = preset_light("digit", gel)
    torch.nn.init.zeros_(light.falloff_per_m)
    optics = GelOptics(gel, light, torch.full((3, 64, 64), 120.0))
    ball = shapes.sphere(gel, 0.004, 8e-4)
    varied = draw(Ranges(0, 0, 0, 0, 0, 0), gel, np.random.default_rng(0))
    varied.turn_rad[:] = torch.pi / 2  # from +x towards +y: clockwise as seen in the picture
    turned = optics(ball, varied).detach()
    torch.testing.assert_close(turned, optics(ball).detach().rot90(-1, (1, 2)), rtol=0, atol=0.01)
    varied.noise[:] = 3.0
    varied.turn_rad[:] = 0
    noisy = optics.picture(ball, varied, torch.Generator().manual_seed(0)).float()
    assert float((noisy - optics.picture(ball).float()).std()) == pytest.approx(3.0, rel=0.05)


def test_wrong_ranges_and_variations_are_named() -> None:
    for name in ("gain", "mix", "tint", "turn_rad", "stiffness", "noise"):
        with pytest.raises(SpecError, match=name):
            Ranges(**{name: -0.1})
    with pytest.raises(SpecError, match="gain"):
        Ranges(gain=0.6)
    optics = preset_optics("digit", 16, 16)
    varied = draw(Ranges(), optics.gel, np.random.default_rng(0), 2)
    with pytest.raises(SpecError, match="variation"):
        optics.picture(torch.zeros(3, 16, 16), varied)
