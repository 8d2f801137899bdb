"""Shear with memory against closed forms: Coulomb springs dragged by a motion, and under a given load."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.errors import SpecError
from sensors.tactile.gel import Gel
from sensors.tactile.series import carry
from sensors.tactile.shear import ShearState, drag

GEL = Gel(height_m=0.016, width_m=0.016, thickness_m=0.003, rows=20, columns=25)
POINT_M2 = GEL.pitch_m[0] * GEL.pitch_m[1]
SPRING_N_M = 2e7 * POINT_M2
MU = torch.tensor([0.6], dtype=torch.float64)
ROWS, COLUMNS = GEL.rows, GEL.columns


def _places() -> torch.Tensor:
    y, x = GEL.centres(torch.float64)
    return torch.stack([x.expand(ROWS, -1), y.expand(-1, COLUMNS)], -1)


def _even(force_N: float) -> torch.Tensor:  # noqa: N803  (units keep their own capital letter)
    return torch.full((1, ROWS, COLUMNS), force_N / (ROWS * COLUMNS), dtype=torch.float64)


def _disc(force_N: float, radius_m: float) -> torch.Tensor:  # noqa: N803
    inside = (_places().square().sum(-1) < radius_m**2).double()[None]
    return inside * force_N / inside.sum()


def _rest(normal: torch.Tensor) -> ShearState:
    """Touched, but not dragged yet."""
    zero = torch.zeros(*normal.shape, 2, dtype=torch.float64)
    state = ShearState.at_rest((len(normal), ROWS, COLUMNS), torch.float64)
    return drag(state, normal, zero, SPRING_N_M, MU)[1]


def _slide(x_m: float, y_m: float = 0.0) -> torch.Tensor:
    return torch.tensor([x_m, y_m], dtype=torch.float64).expand(1, ROWS, COLUMNS, 2)


def _total(force: torch.Tensor) -> list[float]:
    return force.sum((0, 1, 2)).tolist()


def test_it_pulls_by_its_stretch_until_friction_gives_way() -> None:
    normal = _even(10.0)
    state, way_m, stiff = _rest(normal), 0.0, 2e7 * GEL.height_m * GEL.width_m
    for _ in range(30):
        force, state = drag(state, normal, _slide(6e-5, 8e-5), SPRING_N_M, MU)
        way_m += 1e-4
        pull = min(stiff * way_m, 0.6 * 10.0)
        assert _total(force) == pytest.approx([0.6 * pull, 0.8 * pull], rel=1e-9)
    assert stiff * way_m > 2 * 6.0  # well into slipping


def test_it_holds_while_nothing_moves() -> None:
    """The velocity law of the published penalty field reads 0 here."""
    normal = _even(10.0)
    force, state = drag(_rest(normal), normal, _slide(5e-4), SPRING_N_M, MU)
    for _ in range(12):
        again, state = drag(state, normal, _slide(0.0), SPRING_N_M, MU)
        torch.testing.assert_close(again, force)
    assert _total(force)[0] > 2.0


def test_the_way_back_is_another_than_the_way_there() -> None:
    """After slipping, the pull is gone after mu N / k backwards, and is full the other way after twice that."""
    normal = _even(10.0)
    slip_m = 0.6 * 10.0 / (2e7 * GEL.height_m * GEL.width_m)
    _, state = drag(_rest(normal), normal, _slide(5 * slip_m), SPRING_N_M, MU)
    force, state = drag(state, normal, _slide(-slip_m), SPRING_N_M, MU)
    assert _total(force) == pytest.approx([0.0, 0.0], abs=1e-9)
    force, state = drag(state, normal, _slide(-slip_m), SPRING_N_M, MU)
    assert _total(force) == pytest.approx([-6.0, 0.0], abs=1e-9)
    force, _ = drag(state, normal, _slide(-slip_m), SPRING_N_M, MU)
    assert _total(force) == pytest.approx([-6.0, 0.0], abs=1e-9)


def test_less_pressure_lets_it_slip() -> None:
    normal = _even(10.0)
    _, state = drag(_rest(normal), normal, _slide(1.0), SPRING_N_M, MU)
    force, state = drag(state, normal / 2, _slide(0.0), SPRING_N_M, MU)
    assert _total(force)[0] == pytest.approx(3.0)
    force, _ = drag(state, normal, _slide(0.0), SPRING_N_M, MU)
    assert _total(force)[0] == pytest.approx(3.0)  # what has slipped does not come back


def test_what_comes_into_touch_starts_at_rest_and_what_leaves_is_forgotten() -> None:
    normal = _even(10.0)
    normal[:, :, 12:] = 0.0
    force, state = drag(ShearState.at_rest((1, ROWS, COLUMNS), torch.float64), normal, _slide(1e-4), SPRING_N_M, MU)
    assert not force.any()  # nobody knows for how much of that way it was touched
    force, state = drag(state, normal, _slide(1e-4), SPRING_N_M, MU)
    assert force[:, :, :12, 0].min() > 0
    assert not force[:, :, 12:].any()
    _, state = drag(state, torch.zeros_like(normal), _slide(0.0), SPRING_N_M, MU)
    force, _ = drag(state, normal, _slide(0.0), SPRING_N_M, MU)
    assert not force.any()


def _turned(force: torch.Tensor) -> float:
    places = _places()
    return float((places[..., 0] * force[..., 1] - places[..., 1] * force[..., 0]).sum())


@pytest.mark.parametrize("law", ["motion", "load"])
def test_a_pure_turn_pulls_nowhere_and_is_held_by_two_thirds_mu_f_a(law: str) -> None:
    normal, radius_m = _disc(10.0, 0.0075), 0.0075
    most = 2 / 3 * 0.6 * 10.0 * radius_m
    places, torques = _places(), []
    state = _rest(normal)
    for step in range(1, 13):
        if law == "motion":
            slide = 0.08 * torch.stack([-places[..., 1], places[..., 0]], -1)[None]
            force, state = drag(state, normal, slide, SPRING_N_M, MU)
        else:
            nothing, twist = (
                torch.zeros(1, 2, dtype=torch.float64),
                torch.tensor([step * most / 9], dtype=torch.float64),
            )
            force, state = carry(state, normal, nothing, twist, places, SPRING_N_M, MU)
        assert _total(force) == pytest.approx([0.0, 0.0], abs=1e-7)
        torques.append(_turned(force))
        assert torques[-1] <= 1.01 * most  # the disc is made of squares
    assert all(later > earlier - 1e-9 for earlier, later in itertools.pairwise(torques))
    assert torques[-1] == pytest.approx(most, rel=0.02)
    assert torques[0] < 0.5 * most


@settings(max_examples=12, deadline=None)
@given(st.floats(0.0, 0.9), st.floats(0.0, 2 * math.pi), st.floats(-0.3, 0.3), st.integers(0, 2**31))
def test_it_carries_any_load_that_friction_can_hold(share: float, angle: float, turn: float, seed: int) -> None:
    """Over any pressure and after any history: force and torque are met, and no piece pulls harder than it may."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.rand(2, ROWS, COLUMNS, dtype=torch.float64, generator=generator)
    normal[normal < 0.3] = 0.0
    normal *= torch.tensor([10.0, 3.0])[:, None, None] / normal.sum((1, 2), keepdim=True)
    friction, places = torch.tensor([0.6, 1.5], dtype=torch.float64), _places()
    most = friction * normal.sum((1, 2))
    past = torch.randn(2, ROWS, COLUMNS, 2, dtype=torch.float64, generator=generator) * 1e-4
    _, state = drag(ShearState(torch.zeros_like(past), normal > 0), normal, past, SPRING_N_M, friction)
    load = share * most[:, None] * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    middle = torch.einsum("bhw,hwi->bi", normal, places) / normal.sum((1, 2))[:, None]
    twist = turn * (1 - share**2) ** 0.5 * most * 0.006
    twist = twist + middle[:, 0] * load[:, 1] - middle[:, 1] * load[:, 0]
    force, after = carry(state, normal, load, twist, places, SPRING_N_M, friction)
    torch.testing.assert_close(force.sum((1, 2)), load, rtol=1e-6, atol=1e-9)
    torque = (places[..., 0] * force[..., 1] - places[..., 1] * force[..., 0]).sum((1, 2))
    torch.testing.assert_close(torque, twist, rtol=1e-6, atol=1e-10)
    assert bool((force.norm(dim=-1) <= friction[:, None, None] * normal * (1 + 1e-9)).all())
    again, _ = carry(after, normal, load, twist, places, SPRING_N_M, friction)
    torch.testing.assert_close(again, force, rtol=1e-6, atol=1e-9)  # what is held stays as it is


def test_more_than_friction_can_hold_slips() -> None:
    normal, load = _even(10.0), torch.tensor([[0.0, 50.0]], dtype=torch.float64)
    force, _ = carry(_rest(normal), normal, load, torch.zeros(1, dtype=torch.float64), _places(), SPRING_N_M, MU)
    assert _total(force) == pytest.approx([0.0, 6.0], rel=2e-3)


def test_history_shows_in_the_field_and_not_in_the_sum() -> None:
    """A disc twisted into slip and back to no torque keeps a ring of shear: memory that no present load explains."""
    normal, places = _disc(10.0, 0.0075), _places()
    nothing = torch.zeros(1, 2, dtype=torch.float64)
    twist = torch.tensor([0.9 * 2 / 3 * 0.6 * 10.0 * 0.0075], dtype=torch.float64)
    _, state = carry(_rest(normal), normal, nothing, twist, places, SPRING_N_M, MU)
    after, _ = carry(state, normal, nothing, 0 * twist, places, SPRING_N_M, MU)
    fresh, _ = carry(_rest(normal), normal, nothing, 0 * twist, places, SPRING_N_M, MU)
    assert _turned(after) == pytest.approx(0.0, abs=1e-9)
    assert float(fresh.norm(dim=-1).max()) == pytest.approx(0.0, abs=1e-12)
    assert float(after.norm(dim=-1).max()) > 0.1 * 0.6 * float(normal.max())


def test_batches_states_and_resets() -> None:
    normal = torch.cat([_even(10.0), _disc(5.0, 0.006)])
    slide = torch.cat([_slide(1e-4), _slide(0.0, -3e-4)])
    friction = torch.tensor([0.6, 0.9], dtype=torch.float64)
    state = ShearState(torch.zeros(2, ROWS, COLUMNS, 2, dtype=torch.float64), normal > 0)
    before = state.stretch_m.clone()
    force, after = drag(state, normal, slide, SPRING_N_M, friction)
    assert torch.equal(state.stretch_m, before)  # a state is a value
    for k in range(2):
        single = ShearState(state.stretch_m[k : k + 1], state.touched[k : k + 1])
        one, _ = drag(single, normal[k : k + 1], slide[k : k + 1], SPRING_N_M, friction[k : k + 1])
        assert torch.equal(one, force[k : k + 1])
    cleared = after.reset(torch.tensor([True, False]))
    assert not cleared.stretch_m[0].any()
    assert not cleared.touched[0].any()
    assert torch.equal(cleared.stretch_m[1], after.stretch_m[1])
    assert after.stretch_m[0].any()


def test_untouched_and_frictionless_gels_feel_no_shear() -> None:
    normal, zero = _even(10.0), torch.zeros(1, dtype=torch.float64)
    load = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    slippery, _ = carry(_rest(normal), normal, load, zero, _places(), SPRING_N_M, zero)
    untouched, _ = carry(_rest(0 * normal), 0 * normal, load, zero, _places(), SPRING_N_M, MU)
    for force in (slippery, untouched):
        assert torch.isfinite(force).all()
        assert float(force.abs().max()) < 1e-12


def test_bad_input_is_named() -> None:
    normal, state, none = _even(1.0), _rest(_even(1.0)), torch.zeros(1, dtype=torch.float64)
    load = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(SpecError, match="friction"):
        drag(state, normal, _slide(0.0), SPRING_N_M, -MU)
    with pytest.raises(SpecError, match="stiffness_N_m"):
        drag(state, normal, _slide(0.0), -1.0, MU)
    with pytest.raises(SpecError, match="slide_m"):
        drag(state, normal, _slide(math.nan), SPRING_N_M, MU)
    with pytest.raises(SpecError, match="normal_N"):
        drag(state, -normal, _slide(0.0), SPRING_N_M, MU)
    with pytest.raises(SpecError, match="friction"):
        carry(state, normal, load, none, _places(), SPRING_N_M, -MU)
    with pytest.raises(SpecError, match="load_N"):
        carry(state, normal, load + math.nan, none, _places(), SPRING_N_M, MU)
    with pytest.raises(SpecError, match="stiffness_N_m"):
        carry(state, normal, load, none, _places(), 0.0, MU)
