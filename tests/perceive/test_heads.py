"""Heads: what pointing means in numbers, and that each head can learn one batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perceive.batch import ActionTarget
from perceive.heads.base import Head, HeadContext
from perceive.heads.flow import FlowMatchingHead
from perceive.heads.pointing import PointingHead
from perceive.heads.regression import RegressionHead
from perceive.heads.value import ValueHead, ValueTarget
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.action import ActionMode, ActionSpec
from sensors.errors import WiringError
from tests.perceive.scene import SPEC, fake_target

WIDTH, COUNT, CHUNK = 32, 7, 4


def context(readouts: int = CHUNK, size: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> HeadContext:
    draw = torch.Generator().manual_seed(seed)
    placed = torch.ones(size, COUNT, dtype=torch.bool)
    placed[:, 2] = False
    valid = torch.ones(size, COUNT, dtype=torch.bool)
    valid[:, 5] = False
    tokens = Tokens(
        torch.randn(size, COUNT, WIDTH, generator=draw, dtype=dtype),
        torch.rand(size, COUNT, 3, generator=draw, dtype=dtype),
        placed,
        torch.zeros(size, COUNT, dtype=dtype),
        valid,
    )
    origin = torch.rand(size, 3, generator=draw, dtype=dtype)
    turn = torch.eye(3, dtype=dtype).expand(size, 3, 3)
    return HeadContext(torch.randn(size, readouts, WIDTH, generator=draw, dtype=dtype), tokens, origin, turn)


def pointing(**changes: float) -> PointingHead:
    torch.manual_seed(0)
    return PointingHead(WIDTH, SPEC, CHUNK, **changes)  # type: ignore[arg-type]


def silence(part: nn.Module) -> None:
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.zero_()


def test_pointing_weights_are_a_distribution_over_usable_tokens() -> None:
    here = context()
    weights = pointing().weights(here)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, CHUNK))
    assert (weights[..., [2, 5]] == 0).all()
    assert (weights[..., [0, 1, 3, 4, 6]] > 0).all()


def test_pointing_reads_the_weighted_mean_of_places() -> None:
    """Equal scores, no offsets: the mean place. One loud token: its place."""
    head, here = pointing(), context()
    for part in (head.propose, head.out, head.query):
        silence(part)
    usable = [0, 1, 3, 4, 6]
    position = head(here).values[..., :3]
    mean = here.tokens.position_m[:, usable].mean(1, keepdim=True).expand(-1, CHUNK, -1)
    torch.testing.assert_close(position, mean, rtol=0, atol=1e-6)

    with torch.no_grad():
        head.query.bias[0] = 1.0
        head.key.weight.zero_()
        head.key.weight[0, 0] = 1.0
    features = here.tokens.features.clone()
    features[..., 0] = 0.0
    features[:, 3, 0] = 1e3
    loud = replace(here, tokens=replace(here.tokens, features=features))
    pointed = here.tokens.position_m[:, [3]].expand(-1, CHUNK, -1)
    torch.testing.assert_close(head(loud).values[..., :3], pointed, rtol=0, atol=1e-6)


def test_pointing_adds_the_tokens_bounded_offset_and_the_readouts_own() -> None:
    head, here = pointing(offset_m=0.06), context()
    for part in (head.propose, head.out, head.query):
        silence(part)
    with torch.no_grad():
        head.propose[2].bias.copy_(torch.tensor([100.0, -100.0, 0.0]))
        head.out[2].bias[:3] = torch.tensor([0.0, 0.0, 2.0])  # in units of reach_m = 0.05 m
    position = head(here).values[..., :3]
    mean = here.tokens.position_m[:, [0, 1, 3, 4, 6]].mean(1, keepdim=True)
    expected = (mean + torch.tensor([0.06, -0.06, 0.1])).expand(-1, CHUNK, -1)
    torch.testing.assert_close(position, expected, rtol=0, atol=1e-6)


def test_pointing_moves_with_the_scene() -> None:
    head, here = pointing().double(), context(dtype=torch.float64)
    move = torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64)
    tokens = replace(here.tokens, position_m=here.tokens.position_m + move)
    moved = replace(here, tokens=tokens, origin_m=here.origin_m + move)
    before, after = head(here).values, head(moved).values
    torch.testing.assert_close(after[..., :3], before[..., :3] + move, rtol=0, atol=1e-12)
    torch.testing.assert_close(after[..., 3:], before[..., 3:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cause", ["invalid", "unplaced"])
def test_pointing_without_places_stays_near_the_origin(cause: str) -> None:
    head, here = pointing(), context()
    none = torch.zeros_like(here.tokens.valid)
    tokens = replace(here.tokens, valid=none) if cause == "invalid" else replace(here.tokens, placed=none)
    blind = replace(here, tokens=tokens)
    assert (head.weights(blind) == 0).all()
    silence(head.out)
    torch.testing.assert_close(head(blind).values[..., :3], here.origin_m[:, None].expand(-1, CHUNK, -1))


@pytest.mark.parametrize("spoiled", ["features", "position_m"])
def test_unusable_tokens_cannot_spoil_pointing(spoiled: str) -> None:
    head, here = pointing(), context()
    value = getattr(here.tokens, spoiled).clone()
    value[:, 5] = 1e6  # invalid; cleaned tokens hold zeros there, and no finite content may matter
    if spoiled == "position_m":
        value[:, 2] = 1e6  # without a place
    other = replace(here, tokens=replace(here.tokens, **{spoiled: value}))
    assert torch.equal(head(other).values, head(here).values)
    seen = getattr(here.tokens, spoiled).clone()
    seen[:, 3] = torch.randn_like(seen[:, 3])
    control = replace(here, tokens=replace(here.tokens, **{spoiled: seen}))
    assert (head(control).values - head(here).values).abs().max() > 1e-3


def test_pointing_needs_a_position() -> None:
    spec = ActionSpec(
        ActionMode.EE_DELTA, SPEC.space, {"position": (0, 3), "rotation": (3, 9), "gripper": (9, 10)}, 0.1
    )
    with pytest.raises(WiringError, match="ee_delta"):
        PointingHead(WIDTH, spec)


def make(kind: str) -> Head:
    torch.manual_seed(0)
    kinds = {"pointing": PointingHead, "regression": RegressionHead, "flow": FlowMatchingHead}
    return kinds[kind](WIDTH, SPEC, CHUNK)


def train(head: Head, here: HeadContext, target: ActionTarget | ValueTarget, steps: int) -> tuple[float, float]:
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        terms = head.loss(here, target)
        loss = torch.stack([v for k, v in terms.items() if not k.startswith("_")]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses[:5])), float(np.mean(losses[-5:]))


@pytest.mark.parametrize("kind", ["pointing", "regression", "flow"])
def test_every_action_head_learns_one_batch(kind: str) -> None:
    head, here = make(kind), context()
    target = fake_target(np.random.default_rng(0), 3, CHUNK)
    values = target.values.clone()
    values[:, :, :3] = here.origin_m[:, None] + 0.1 * torch.randn(3, CHUNK, 3)
    values[~target.valid] = torch.nan  # what lies beyond an episode's end is not even looked at
    first, last = train(head, here, ActionTarget(values, target.valid), 300)
    assert last < 0.2 * first
    error = (head(here).values - values)[target.valid].abs()
    assert error[:, :3].max() < 0.06  # metres; tens of centimetres before
    assert error[:, 9].max() < 0.4  # the right side of a gripper command of -1 or 1


def test_a_flow_answers_the_same_alone_and_in_a_batch() -> None:
    head, here = make("flow"), context()
    first = head(here).values
    assert torch.equal(head(here).values, first)
    tokens = Tokens(*(getattr(here.tokens, n)[1:2] for n in ("features", "position_m", "placed", "age_s", "valid")))
    alone = HeadContext(here.readouts[1:2], tokens, here.origin_m[1:2], here.origin_rotation[1:2])
    torch.testing.assert_close(head(alone).values, first[1:2])
    torch.manual_seed(0)
    other = FlowMatchingHead(WIDTH, SPEC, CHUNK, seed=1)
    other.load_state_dict(head.state_dict())
    assert (other(here).values - first).abs().max() > 1e-3
    fresh = FlowMatchingHead(WIDTH, SPEC, CHUNK, seed=None)
    assert (fresh(here).values - fresh(here).values).abs().max() > 1e-3


def test_a_flow_keeps_both_ways_where_a_mean_would_fall_between() -> None:
    """Half of the demonstrations close the gripper, half open it, from the same observation."""
    torch.manual_seed(0)
    here = context(readouts=1, size=1)
    here = HeadContext(
        here.readouts.expand(64, -1, -1),
        Tokens(*(getattr(here.tokens, n).expand(64, *[-1] * (getattr(here.tokens, n).ndim - 1))
                 for n in ("features", "position_m", "placed", "age_s", "valid"))),
        here.origin_m.expand(64, -1),
        here.origin_rotation.expand(64, -1, -1),
    )  # fmt: skip
    values = torch.zeros(64, 1, 10)
    values[..., :3] = here.origin_m[:, None]
    values[..., 3:9] = torch.tensor([1.0, 0, 0, 0, 1, 0])
    values[:32, :, 9], values[32:, :, 9] = -1.0, 1.0
    head = FlowMatchingHead(WIDTH, SPEC, 1, depth=1, seed=None)
    train(head, here, ActionTarget(values, torch.ones(64, 1, dtype=torch.bool)), 250)
    gripper = head(here).values[..., 9].flatten()
    assert (gripper.abs() > 0.5).float().mean() > 0.85
    assert 0.15 < (gripper > 0).float().mean() < 0.85


@pytest.mark.parametrize("steps", [1, 5])
def test_a_flow_with_a_known_end_arrives(steps: int) -> None:
    head = FlowMatchingHead(WIDTH, SPEC, CHUNK, steps=steps, reach_m=1.0)
    silence(head)
    with torch.no_grad():
        head.leave[1].bias[:] = 2.0
    here = context()
    expected = (here.origin_m[:, None] + 2.0).expand(-1, CHUNK, -1)
    torch.testing.assert_close(head(here).values[..., :3], expected)


def test_a_flow_takes_straight_equal_steps() -> None:
    """A network that answers with its input: x goes to x + (f(x) - x) / (1 - t) dt at t = 0, then arrives at f."""
    head = FlowMatchingHead(WIDTH, SPEC, CHUNK, steps=2, reach_m=1.0)
    calls: list[tuple[Tensor, Tensor]] = []

    def end(latent: Tensor, time: Tensor, *_: object) -> Tensor:
        calls.append((latent, time))
        return 3 * latent

    head._end = end  # type: ignore[method-assign]
    here = context()
    position = head(here).values[..., :3] - here.origin_m[:, None]
    noise = head.noise.expand(3, -1, -1)
    assert [time[0].item() for _, time in calls] == [0.0, 0.5]
    torch.testing.assert_close(calls[1][0], 2 * noise)  # half of the way from x to 3 x
    torch.testing.assert_close(position, 6 * noise[..., :3])


def test_a_flow_refuses_impossible_settings() -> None:
    with pytest.raises(WiringError, match="steps"):
        FlowMatchingHead(WIDTH, SPEC, steps=0)
    with pytest.raises(WiringError, match="width 32"):
        FlowMatchingHead(WIDTH, SPEC, attention_heads=5)


def test_a_value_learns_and_ignores_what_has_no_target() -> None:
    torch.manual_seed(0)
    head, here = ValueHead(WIDTH), context(readouts=1)
    head.fit({"value": FieldStats(*(np.array([x]) for x in (100.0, 20.0, 60.0, 140.0)))})
    assert (head(here).values - 100).abs().max() < 20  # untrained: within a deviation of the mean
    target = ValueTarget(torch.tensor([80.0, 130.0, torch.nan]), torch.tensor([True, True, False]))
    first, last = train(head, here, target, 200)
    assert last < 0.05 * first
    torch.testing.assert_close(head(here).values[:2], target.values[:2], rtol=0, atol=2.0)
    assert head.loss(here, target)["_value_error"] < 2.0


def gradient_of(head: Head, here: HeadContext, target: ActionTarget) -> list[Tensor]:
    head.zero_grad()
    torch.manual_seed(0)
    terms = head.loss(here, target)
    torch.stack([v for k, v in terms.items() if not k.startswith("_")]).sum().backward()
    return [p.grad for p in head.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", ["pointing", "regression", "flow"])
def test_gradients_stay_finite_without_any_sensor_or_target(kind: str) -> None:
    head, here = make(kind), context()
    blind = replace(here, tokens=replace(here.tokens, valid=torch.zeros_like(here.tokens.valid)).cleaned())
    target = fake_target(np.random.default_rng(0), 3, CHUNK)
    nothing = ActionTarget(torch.full_like(target.values, torch.nan), torch.zeros_like(target.valid))
    for wanted in (target, nothing):
        gradients = gradient_of(head, blind, wanted)
        assert gradients
        assert all(torch.isfinite(g).all() for g in gradients)
