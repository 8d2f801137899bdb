"""The whole model: absence, independence of heads, gradients, parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.batch import Batch, BatchStream
from perceive.heads.base import Head
from perceive.heads.pointing import PointingHead
from perceive.heads.regression import RegressionHead
from perceive.model import PerceptionModel
from perceive.normalize import FieldStats
from perceive.trunk import Trunk
from tests.perceive.scene import (
    ONE_INSTANT,
    SPACES,
    SPEC,
    FreeTokens,
    changed,
    fake_batch,
    fake_stats,
    fake_target,
    free_stream,
    model,
)

TWO = dict.fromkeys(SPACES, 2)


def spoiled(stream: BatchStream, which: torch.Tensor) -> BatchStream:
    """The stream with NaN (and noise for integers) in the frames ``which`` [B, T], ``valid`` as it is."""
    data = {}
    for name, value in stream.data.items():
        garbage = torch.full_like(value, torch.nan) if value.is_floating_point() else torch.randint_like(value, 0, 255)
        data[name] = torch.where(which.reshape(*which.shape, *[1] * (value.ndim - 2)), garbage, value)
    return replace(stream, data=data)


@pytest.mark.parametrize("sensor", SPACES)
@pytest.mark.parametrize("history", [ONE_INSTANT, TWO], ids=["T=1", "T=2"])
def test_what_an_absent_frame_holds_changes_nothing(sensor: str, history: Mapping[str, int]) -> None:
    rng = np.random.default_rng(0)
    net, batch, target = model(history=history), fake_batch(rng, 4, history=history), fake_target(rng)
    stream = batch.stream(sensor)
    gone = torch.zeros_like(stream.valid)
    gone[0], gone[1, -1] = True, True
    honest = changed(batch, sensor, replace(stream, valid=~gone))
    garbage = changed(batch, sensor, replace(spoiled(stream, gone), valid=~gone))
    assert torch.equal(net(garbage)["action"].values, net(honest)["action"].values)
    gradients = []
    for one in (honest, garbage):
        net.zero_grad()
        net.loss(one, {"action": target})["loss"].backward()
        gradients.append({n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None})
    for name, value in gradients[0].items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, gradients[1][name]), name


@pytest.mark.parametrize("sensor", SPACES)
def test_what_a_present_frame_holds_matters(sensor: str) -> None:
    net, batch = model().eval(), fake_batch(np.random.default_rng(0))
    other = changed(batch, sensor, fake_batch(np.random.default_rng(1)).stream(sensor))
    assert (net(other)["action"].values - net(batch)["action"].values).abs().max() > 1e-4
    absent = changed(batch, sensor, replace(batch.stream(sensor), valid=torch.zeros(4, 1, dtype=torch.bool)))
    assert (net(absent)["action"].values - net(batch)["action"].values).abs().max() > 1e-4


def test_age_matters() -> None:
    net, batch = model().eval(), fake_batch(np.random.default_rng(0))
    stream = batch.stream("front")
    older = changed(batch, "front", replace(stream, age_s=stream.age_s + 0.4))
    assert (net(older)["action"].values - net(batch)["action"].values).abs().max() > 1e-5


def test_with_everything_absent_all_stays_finite() -> None:
    rng = np.random.default_rng(0)
    net, batch = model(), fake_batch(rng)
    everything = {n: replace(s, valid=torch.zeros_like(s.valid)) for n, s in batch.streams.items()}
    blind = Batch({n: spoiled(s, torch.ones_like(s.valid)) for n, s in everything.items()})
    assert torch.isfinite(net(blind)["action"].values).all()
    terms = net.loss(blind, {"action": fake_target(rng)})
    assert all(torch.isfinite(value).all() for value in terms.values())
    terms["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_every_parameter_learns() -> None:
    rng = np.random.default_rng(0)
    net, batch = model(), fake_batch(rng)
    batch.stream("front").data["depth_m"][0] = 0.0  # so that some patches need their ray
    batch.stream("wrist").data["depth_m"][0] = 0.0
    net.loss(batch, {"action": fake_target(rng)})["loss"].backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A score's bias moves all scores of a softmax alike, and the heads point with values, not with ages.
    assert set(silent) <= {"heads.action.key.bias"}, silent


def free_model(heads: Mapping[str, Head], weights: PerceptionModel | None = None) -> PerceptionModel:
    torch.manual_seed(0)
    width, space = 32, spaces.Dict({})
    count = 5 + 6 + sum(head.num_readouts for head in heads.values())
    encoders = {"a": FreeTokens(space, 5, width), "b": FreeTokens(space, 6, width)}
    net = PerceptionModel(encoders, Trunk(width, count, depth=2, heads=2), heads, width).double().eval()
    if weights is not None:
        net.load_state_dict(weights.state_dict(), strict=False)
    return net


def free_batch() -> Batch:
    rng = np.random.default_rng(0)
    return Batch({"a": free_stream(rng, 3, 5, 32), "b": free_stream(rng, 3, 6, 32)})


def test_adding_a_head_leaves_the_others_answer_unchanged() -> None:
    torch.manual_seed(1)
    alone = free_model({"action": PointingHead(32, SPEC, 4)})
    both = free_model({"extra": RegressionHead(32, SPEC, 3), "action": PointingHead(32, SPEC, 4)}, alone)
    batch = free_batch()
    answer = both(batch)["action"].values
    # More keys, all masked, sum in another order: equal up to rounding, which is not there with as many keys.
    torch.testing.assert_close(answer, alone(batch)["action"].values, rtol=0, atol=1e-13)
    with torch.no_grad():
        both.readouts["extra"].copy_(torch.randn_like(both.readouts["extra"]))
    assert torch.equal(both(batch)["action"].values, answer)
    with torch.no_grad():
        both.readouts["action"].add_(torch.randn_like(both.readouts["action"]))
    assert (both(batch)["action"].values - answer).abs().max() > 1e-3


def test_the_scene_may_stand_anywhere() -> None:
    """Tokens and origin translated together: the same answer, translated."""
    net = free_model({"action": PointingHead(32, SPEC, 4)})
    batch, move = free_batch(), torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    moved = Batch(
        {
            name: replace(s, data={**s.data, "position_m": s.data["position_m"] + move})
            for name, s in batch.streams.items()
        }
    )
    with torch.no_grad():
        here = net.contexts(batch)["action"]
        tokens = net.encode(moved)
        shifted = replace(
            here, tokens=replace(here.tokens, position_m=tokens.position_m), origin_m=here.origin_m + move
        )
        answers = [net.heads["action"](context).values for context in (here, shifted)]
    torch.testing.assert_close(answers[1][..., :3], answers[0][..., :3] + move, rtol=0, atol=1e-12)


def test_tokens_are_as_many_as_said_and_grouped_by_sensor() -> None:
    net = model(history=TWO)
    tokens = net.encode(fake_batch(np.random.default_rng(0), history=TWO))
    counts = {name: group.stop - group.start for name, group in tokens.groups.items()}
    assert counts == {name: net.encoders[name].num_tokens for name in SPACES}
    assert counts == {"front": 8, "wrist": 8, "joints": 2, "wrench": 2, "touch": 8}
    assert tuple(counts) == net.sensor_names


def test_the_origin_is_the_newest_tool_that_was_seen() -> None:
    net, batch = model(history=TWO), fake_batch(np.random.default_rng(0), history=TWO)
    net.fit(fake_stats() | {"joints/base_from_tool": FieldStats(*[np.full((4, 4), 0.25)] * 4)})
    stream = batch.stream("joints")
    valid = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    origin = net.contexts(changed(batch, "joints", replace(stream, valid=valid)))["action"].origin_m
    tool = stream.data["base_from_tool"][..., :3, 3]
    expected = torch.stack([tool[0, 1], tool[1, 0], tool[2, 1], torch.full((3,), 0.25)])
    assert torch.equal(origin, expected)


def test_samples_of_a_batch_do_not_meet() -> None:
    net, batch = model().eval(), fake_batch(np.random.default_rng(0))
    alone = Batch(
        {
            name: BatchStream({f: v[2:3] for f, v in s.data.items()}, s.age_s[2:3], s.valid[2:3])
            for name, s in batch.streams.items()
        }
    )
    torch.testing.assert_close(net(alone)["action"].values, net(batch)["action"].values[2:3], rtol=0, atol=1e-5)


def test_parameter_groups_hold_every_parameter_once() -> None:
    net = model()
    frozen = next(net.encoders["wrench"].parameters())
    frozen.requires_grad_(False)
    groups = net.parameter_groups(0.1)
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in net.parameters() if p is not frozen}
    decayed, plain = ({id(p) for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    for name, parameter in net.named_parameters():
        if parameter is not frozen:
            spared = name.endswith("bias") or "norm" in name or name.startswith(("readouts", "sensor_embedding"))
            assert (id(parameter) in plain) is spared, name
            assert (id(parameter) in decayed) is not spared, name


def test_the_loss_is_the_sum_of_its_terms() -> None:
    rng = np.random.default_rng(0)
    terms = model().loss(fake_batch(rng), {"action": fake_target(rng)})
    summed = sum(value for key, value in terms.items() if "/" in key and "/_" not in key)
    torch.testing.assert_close(terms["loss"], summed)
    assert any("/_" in key for key in terms)  # logged, and not summed


def test_half_precision_keeps_metres_whole() -> None:
    net, batch = model().eval(), fake_batch(np.random.default_rng(0))
    with torch.no_grad():
        exact = net.contexts(batch)["action"]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = net.contexts(batch)["action"]
            answer = net(batch)["action"].values
    assert torch.equal(rounded.tokens.position_m, exact.tokens.position_m)
    assert torch.equal(rounded.origin_m, exact.origin_m)
    assert answer.dtype == torch.float32
    assert (answer - net(batch)["action"].values)[..., :3].abs().max() < 0.01


@pytest.mark.parametrize("head", ["pointing.PointingHead", "regression.RegressionHead", "flow.FlowMatchingHead"])
def test_nothing_is_made_on_another_device(head: str) -> None:
    """The meta device refuses to meet the CPU, as a GPU does, and needs no GPU."""
    rng = np.random.default_rng(0)
    net = model(head=f"perceive.heads.{head}").to("meta")
    batch, target = fake_batch(rng).to("meta"), fake_target(rng).to("meta")
    assert net(batch)["action"].values.device.type == "meta"
    net.loss(batch, {"action": target})["loss"].backward()
    with pytest.raises(RuntimeError, match="meta"):
        net(fake_batch(rng))


def test_fitting_reaches_every_normaliser() -> None:
    net = model()
    net.fit(fake_stats())
    for name in ("joints", "wrench"):
        for part in net.encoders[name].normalizers.values():
            assert (part.scale == 0.5).all()
