"""The trunk: what attention may depend on, and who may see whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.tokens import Tokens, join
from perceive.trunk import MetricPosition, Trunk, attend, attention_rule, rotate
from sensors.errors import SpecError, WiringError

WIDTH, COUNT = 64, 9


def make(position: str = "metric", **changes: float) -> Trunk:
    torch.manual_seed(0)
    trunk = Trunk(WIDTH, COUNT, depth=2, heads=2, position=position, **changes).double()
    return trunk.eval()


def tokens(seed: int = 1) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    placed = torch.ones(2, COUNT, dtype=torch.bool)
    placed[:, 3] = False
    return Tokens(
        torch.randn(2, COUNT, WIDTH, generator=draw, dtype=torch.float64),
        torch.rand(2, COUNT, 3, generator=draw, dtype=torch.float64),
        placed,
        torch.rand(2, COUNT, generator=draw, dtype=torch.float64),
        torch.ones(2, COUNT, dtype=torch.bool),
    )


ORIGIN = torch.tensor([[0.3, 0.1, 0.4], [0.6, -0.2, 0.3]], dtype=torch.float64)


def test_translating_tokens_and_origin_changes_nothing() -> None:
    trunk, given_tokens = make(), tokens()
    move = torch.tensor([3.0, -7.0, 11.0], dtype=torch.float64)
    here = trunk(given_tokens, ORIGIN)
    there = trunk(replace(given_tokens, position_m=given_tokens.position_m + move), ORIGIN + move)
    torch.testing.assert_close(there, here, rtol=0, atol=1e-12)


@pytest.mark.parametrize("what", ["position_m", "origin", "age_s"])
def test_moving_only_one_of_them_matters(what: str) -> None:
    trunk, given_tokens = make(), tokens()
    here = trunk(given_tokens, ORIGIN)
    shift = 0.1 * torch.rand(1, COUNT, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    if what == "origin":
        there = trunk(given_tokens, ORIGIN + 0.1)
    elif what == "age_s":
        there = trunk(replace(given_tokens, age_s=given_tokens.age_s + shift[..., 0]), ORIGIN)
    else:
        there = trunk(replace(given_tokens, position_m=given_tokens.position_m + shift), ORIGIN)
    assert (there - here).abs().max() > 1e-3


@given(shift=st.tuples(*[st.floats(-2, 2)] * 4))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_rotary_scores_depend_on_differences_only(shift: tuple[float, ...]) -> None:
    situate = MetricPosition(WIDTH, 32, 0.05, 2.0, 2.0).double()
    draw = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 32, generator=draw, dtype=torch.float64)
    place = torch.randn(1, 2, 4, generator=draw, dtype=torch.float64)
    there = torch.ones(1, 2, dtype=torch.bool)

    def score(spot: Tensor) -> Tensor:
        _, turn = situate(spot[..., :3], spot[..., 3], there)
        return (rotate(query, turn[:, 0]) * rotate(key, turn[:, 1])).sum()

    moved = place + torch.tensor(shift, dtype=torch.float64)
    torch.testing.assert_close(score(moved), score(place), rtol=0, atol=1e-9)
    one_moved = place + torch.tensor([[[0.1, 0.2, -0.1, 0.1]], [[0.0] * 4]], dtype=torch.float64).transpose(0, 1)
    assert (score(one_moved) - score(place)).abs() > 1e-4


def test_rotation_keeps_lengths_and_turns_neighbouring_channels() -> None:
    value = torch.randn(5, 8, dtype=torch.float64)
    angle = torch.rand(5, 4, dtype=torch.float64) * 6
    turned = rotate(value, torch.polar(torch.ones_like(angle), angle))
    for pair in range(4):
        x, y = value[:, 2 * pair], value[:, 2 * pair + 1]
        cosine, sine = angle[:, pair].cos(), angle[:, pair].sin()
        torch.testing.assert_close(turned[:, 2 * pair], x * cosine - y * sine)
        torch.testing.assert_close(turned[:, 2 * pair + 1], x * sine + y * cosine)


def test_every_axis_and_age_turn_channels() -> None:
    table = MetricPosition(WIDTH, 32, 0.05, 2.0, 2.0).rotary
    assert table.shape == (16, 4)
    assert (table > 0).sum(0).tolist() == [4, 4, 4, 2]  # pairs per x, y, z and age; the two left over see no place
    assert ((table > 0).sum(1) <= 1).all()


def test_attention_rule_exactly() -> None:
    # Tokens 0 1 2 of sensors (1 is absent), readouts 3 4 of one head and 5 of another.
    valid = torch.tensor([[True, False, True, True, True, True]])
    rule = attention_rule(valid, [slice(3, 5), slice(5, 6)])
    expected = [
        [1, 0, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],  # an absent token sees itself too, so that no row is empty
        [1, 0, 1, 0, 0, 0],
        [1, 0, 1, 1, 1, 0],
        [1, 0, 1, 1, 1, 0],
        [1, 0, 1, 0, 0, 1],
    ]
    assert torch.equal(rule[0], torch.tensor(expected, dtype=torch.bool))


@pytest.mark.parametrize("tensor", ["out", "query", "key", "value"])
def test_half_precision_attention_is_attention(tensor: str) -> None:
    """On CPUs it is written out, for speed; the fused kernel in full precision is the reference, gradients included."""
    draw = torch.Generator().manual_seed(0)
    parts = torch.randn(3, 2, 4, COUNT, 32, generator=draw).bfloat16()
    valid = torch.rand(2, COUNT, generator=draw) > 0.4
    allowed = attention_rule(valid, [slice(7, 9)])[:, None]
    pull = torch.randn(2, 4, COUNT, 32, generator=draw)
    found = {}
    for kind in (torch.bfloat16, torch.float32, torch.float64):
        query, key, value = parts.to(kind).clone().requires_grad_().unbind(0)
        for part in (query, key, value):
            part.retain_grad()
        out = attend(query, key, value, allowed)
        (out * pull).sum().backward()
        found[kind] = {"out": out.detach(), "query": query.grad, "key": key.grad, "value": value.grad}
        assert out.dtype == kind
    exact = found[torch.float64][tensor]
    assert exact is not None
    error = {kind: (got[tensor].double() - exact).norm() / exact.norm() for kind, got in found.items()}
    assert error[torch.float32] < 1e-5
    assert error[torch.bfloat16] < 0.02


def test_readouts_are_not_seen() -> None:
    trunk, given_tokens = make(), tokens()
    groups = [slice(6, 8), slice(8, 9)]
    before = trunk(given_tokens, ORIGIN, groups)
    noise = given_tokens.features.clone()
    noise[:, 6:8] = torch.randn(2, 2, WIDTH, dtype=torch.float64)
    after = trunk(replace(given_tokens, features=noise), ORIGIN, groups)
    assert torch.equal(after[:, :6], before[:, :6])
    assert torch.equal(after[:, 8:], before[:, 8:])
    assert (after[:, 6:8] - before[:, 6:8]).abs().max() > 1e-2
    open_floor = trunk(replace(given_tokens, features=noise), ORIGIN)  # control: without groups they are seen
    assert (open_floor[:, :6] - trunk(given_tokens, ORIGIN)[:, :6]).abs().max() > 1e-4


@pytest.mark.parametrize("position", ["metric", "index"])
def test_content_of_absent_tokens_is_never_used(position: str) -> None:
    trunk, given_tokens = make(position), tokens()
    valid = given_tokens.valid.clone()
    valid[:, 4] = False
    garbage = given_tokens.features.clone()
    garbage[:, 4] = float("nan")
    spoiled = replace(given_tokens, features=garbage, valid=valid).cleaned()
    honest = replace(given_tokens, valid=valid).cleaned()
    assert torch.equal(trunk(spoiled, ORIGIN), trunk(honest, ORIGIN))
    noise = given_tokens.features.clone()
    noise[:, 4] = torch.randn(2, WIDTH, dtype=torch.float64)
    seen = trunk(replace(given_tokens, features=noise), ORIGIN) - trunk(given_tokens, ORIGIN)
    assert seen[:, :4].abs().max() > 1e-3


def test_nothing_there_stays_finite() -> None:
    absent = replace(tokens(), valid=torch.zeros(2, COUNT, dtype=torch.bool)).cleaned()
    trunk = make()
    out = trunk(absent, ORIGIN)
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in trunk.parameters() if p.grad is not None)


def test_padding_with_absent_tokens_changes_nothing() -> None:
    trunk, given_tokens = make(), tokens()
    blank = replace(tokens(5), valid=torch.zeros(2, COUNT, dtype=torch.bool)).cleaned()
    padded = trunk(join({"here": given_tokens, "padding": blank}), ORIGIN)[:, :COUNT]
    torch.testing.assert_close(padded, trunk(given_tokens, ORIGIN), rtol=0, atol=1e-12)


def test_index_positions_ignore_places() -> None:
    trunk, given_tokens = make("index"), tokens()
    elsewhere = replace(given_tokens, position_m=given_tokens.position_m + 1, age_s=given_tokens.age_s + 1)
    assert torch.equal(trunk(given_tokens, ORIGIN), trunk(elsewhere, ORIGIN + 3))
    swapped = replace(given_tokens, features=given_tokens.features.flip(1))
    assert (trunk(swapped, ORIGIN).flip(1) - trunk(given_tokens, ORIGIN)).abs().max() > 1e-3


def test_metric_positions_ignore_the_order() -> None:
    trunk, given_tokens = make(), tokens()
    order = torch.tensor([4, 2, 8, 0, 1, 7, 3, 6, 5])
    mixed = Tokens(
        *(getattr(given_tokens, n)[:, order] for n in ("features", "position_m", "placed", "age_s", "valid"))
    )
    torch.testing.assert_close(trunk(mixed, ORIGIN), trunk(given_tokens, ORIGIN)[:, order], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Trunk(64, 4, position="absolute"),
        lambda: Trunk(63, 4, heads=4),
        lambda: Trunk(32, 4, heads=4),
    ],
)
def test_impossible_settings_are_wiring_errors(build: Callable[[], Trunk]) -> None:
    with pytest.raises(WiringError):
        build()


def test_tokens_refuse_wrong_shapes_and_dtypes() -> None:
    good = tokens()
    with pytest.raises(SpecError, match="position_m"):
        replace(good, position_m=good.position_m[:, :-1])
    with pytest.raises(SpecError, match="bool"):
        replace(good, valid=good.valid.float())


def test_joined_tokens_keep_their_groups() -> None:
    first, second = tokens(1), tokens(2)
    whole = join({"a": first, "b": second})
    assert whole.groups == {"a": slice(0, COUNT), "b": slice(COUNT, 2 * COUNT)}
    assert torch.equal(whole.features[:, whole.groups["b"]], second.features)
