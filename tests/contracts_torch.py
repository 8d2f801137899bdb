"""The torch side of :mod:`tests.contracts`: what every encoder, trunk and head keeps.

Kept apart so that the contracts of sensors and environments can be read without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perceive.batch import Batch, BatchStream
from perceive.encoders.base import Encoder
from perceive.heads.base import ActionChunk, Head, HeadContext
from perceive.heads.box_peaks import BoxGuess
from perceive.heads.classification import ClassGuess
from perceive.heads.object_coordinates import ObjectCoordinates
from perceive.heads.point_labels import PointLabels
from perceive.heads.pose_change import PoseChanges
from perceive.heads.query_coordinates import QueryCoordinates
from perceive.heads.value import Value, ValueTarget
from perceive.normalize import FieldStats
from perceive.points.files.collate import CloudBatch
from perceive.tokens import Tokens, join
from perceive.trunk import BaseTrunk, Trunk
from sensors.errors import PerceiveError
from tests.perceive.crop_streams import (
    CROPS,
    GROUPS,
    TOKENS,
    change_target,
    crop_streams,
    pose_target,
    query_target,
)
from tests.perceive.point_clouds import cloud_of, point_space
from tests.perceive.scene import SPEC, fake_target

CLOUD = {"cloud": point_space(40)}

# Targets by what a head answers; a head with an answer of its own brings its target to check_head.
TARGETS: Mapping[type, Callable[[np.random.Generator, int, Any], Any]] = {
    ActionChunk: lambda rng, size, answer: fake_target(rng, size, answer.values.shape[1]),
    Value: lambda rng, size, _: ValueTarget(
        torch.from_numpy(rng.normal(size=size)).float(), torch.ones(size, dtype=torch.bool)
    ),
    ClassGuess: lambda rng, size, answer: torch.from_numpy(rng.integers(0, answer.logits.shape[1], size)),
    PointLabels: lambda rng, size, answer: fake_clouds(
        semantic=torch.from_numpy(rng.integers(-1, answer.logits.shape[2], answer.valid.shape))
    ),
    BoxGuess: lambda rng, size, _: fake_boxes(rng, size),
    ObjectCoordinates: lambda _rng, size, _answer: pose_target(size),
    PoseChanges: lambda _rng, size, _answer: change_target(size),
    QueryCoordinates: lambda _rng, size, _answer: query_target(size),
}


# ----------------------------------------------------------------------------------------------------------- encoder


def check_encoder(encoder: Encoder, stream: BatchStream, other: BatchStream, stats: Mapping[str, FieldStats]) -> None:
    """What every encoder keeps. ``stream`` and ``other`` are two legal streams of its sensor, all frames valid.

    It makes as many tokens as it says; ages and validity are those of the frames; NaN in an absent frame changes
    nothing, to the bit, also in gradients; noise in a present one does; samples do not meet; every parameter that can
    learn gets a gradient; fitting keeps all finite.
    """
    encoder.fit(stats)
    encoder.eval()
    size, steps = stream.valid.shape
    tokens = encoder(stream)
    assert isinstance(tokens, Tokens)
    assert tokens.features.shape[:2] == (size, encoder.num_tokens), "num_tokens is not what comes"
    assert encoder.num_tokens % steps == 0, "instants differ in their number of tokens"
    each = encoder.num_tokens // steps
    assert torch.equal(tokens.age_s, stream.age_s.repeat_interleave(each, 1)), "ages are not those of the frames"
    if "text" in stream.data:  # a text ends before its last token
        assert tokens.valid.any(1).all()
    else:
        assert tokens.valid.all()
    assert torch.isfinite(tokens.features).all()
    assert torch.isfinite(tokens.position_m).all()

    assert not torch.equal(encoder(other).features, tokens.features), "what the sensor sees does not matter"

    gone = torch.zeros_like(stream.valid)
    gone[0] = True
    honest = replace(stream, valid=~gone)
    garbage = replace(honest, data={name: _with_garbage(value, gone) for name, value in stream.data.items()})
    answers, gradients = zip(*(_cleaned_and_gradients(encoder, one) for one in (honest, garbage)), strict=True)
    assert not answers[0].valid[0].any()
    assert torch.equal(answers[0].valid[1:], tokens.valid[1:])
    for name in ("features", "position_m", "placed", "age_s"):
        ours, theirs = getattr(answers[0], name), getattr(answers[1], name)
        assert torch.equal(ours, theirs), f"an absent frame changes {name}"
    for name, value in gradients[0].items():
        assert torch.isfinite(value).all(), f"gradient of {name} is not finite"
        assert torch.equal(value, gradients[1][name]), f"an absent frame changes the gradient of {name}"

    alone = BatchStream({n: v[1:2] for n, v in stream.data.items()}, stream.age_s[1:2], stream.valid[1:2])
    torch.testing.assert_close(encoder(alone).features, tokens.features[1:2], rtol=0, atol=1e-4)

    encoder.train()
    for one in (stream, _without_depth(stream)):  # so that what only serves unmeasured patches learns too
        (encoder(one).cleaned().features * torch.randn(encoder.num_tokens, 1)).square().sum().backward()
    _check_all_learn(encoder)
    encoder.zero_grad()


def _with_garbage(value: Tensor, which: Tensor) -> Tensor:
    garbage = torch.full_like(value, torch.nan) if value.is_floating_point() else 255 - value
    return torch.where(which.reshape(*which.shape, *[1] * (value.ndim - 2)), garbage, value)


def _without_depth(stream: BatchStream) -> BatchStream:
    blind = {name: torch.zeros_like(value) for name, value in stream.data.items() if name == "depth_m"}
    return replace(stream, data={**stream.data, **blind})


def _cleaned_and_gradients(encoder: Encoder, stream: BatchStream) -> tuple[Tokens, dict[str, Tensor]]:
    encoder.zero_grad()
    tokens = encoder(stream).cleaned()
    tokens.features.square().sum().backward()
    found = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    return tokens, found


def _check_all_learn(part: nn.Module, spared: tuple[str, ...] = ()) -> None:
    for name, parameter in part.named_parameters():
        if parameter.requires_grad and not name.endswith(spared or ("\0",)):
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert torch.isfinite(parameter.grad).all(), f"gradient of {name} is not finite"
            assert parameter.grad.abs().sum() > 0, f"{name} never learns"


# ------------------------------------------------------------------------------------------------------------- trunk


def fake_tokens(size: int, count: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tokens:
    """Tokens that are all there; the last one has no place."""
    draw = torch.Generator().manual_seed(seed)
    placed = torch.ones(size, count, dtype=torch.bool)
    placed[:, -1] = False
    return Tokens(
        torch.randn(size, count, width, generator=draw, dtype=dtype),
        torch.rand(size, count, 3, generator=draw, dtype=dtype),
        placed,
        torch.rand(size, count, generator=draw, dtype=dtype),
        torch.ones(size, count, dtype=torch.bool),
    )


def check_trunk(trunk: BaseTrunk, width: int, count: int) -> None:
    """What every trunk keeps, made for ``count`` tokens.

    One feature per token; absent tokens change nothing, whatever they hold; present ones do; nothing sees a readout of
    another group; with nothing there all stays finite; every parameter gets a gradient.
    """
    trunk = trunk.double().eval()
    tokens, origin = fake_tokens(2, count, width), torch.rand(2, 3, dtype=torch.float64)
    groups = [slice(count - 3, count - 1), slice(count - 1, count)]
    answer = trunk(tokens, origin, groups)
    assert answer.shape == tokens.features.shape

    noise = tokens.features.clone()
    noise[:, 1] = torch.randn(2, width, dtype=torch.float64)
    gone = tokens.valid.clone()
    gone[:, 1] = False
    ours = trunk(replace(tokens, valid=gone).cleaned(), origin, groups)
    theirs = trunk(replace(tokens, features=noise, valid=gone).cleaned(), origin, groups)
    assert torch.equal(ours, theirs), "an absent token's content matters"
    changed = trunk(replace(tokens, features=noise), origin, groups) - answer
    others = [index for index in range(count) if index != 1]
    assert (changed[:, others].abs().amax((0, 2)) > 1e-6).all(), "a present token does not matter to all others"
    assert (ours - answer)[:, others].abs().max() > 1e-6, "absence does not matter"

    loud = tokens.features.clone()
    loud[:, groups[0]] = torch.randn(2, 2, width, dtype=torch.float64)
    seen = trunk(replace(tokens, features=loud), origin, groups)
    unseeing = [*range(count - 3), count - 1]
    assert torch.equal(seen[:, unseeing], answer[:, unseeing]), "a readout is seen by others"

    nothing = replace(tokens, valid=torch.zeros_like(tokens.valid)).cleaned()
    assert torch.isfinite(trunk(nothing, origin, groups)).all()
    trunk.train()
    weight = torch.randn(count, width, dtype=torch.float64)
    (trunk(tokens, origin, groups) * weight).sum().backward()
    _check_all_learn(trunk)


def check_padding(trunk: Trunk, width: int, count: int) -> None:
    """Of a trunk that does not number its tokens: absent ones added behind leave the others as they were."""
    trunk = trunk.double().eval()
    tokens, origin = fake_tokens(2, count, width), torch.rand(2, 3, dtype=torch.float64)
    blank = fake_tokens(2, 4, width, seed=1)
    padding = replace(blank, valid=torch.zeros_like(blank.valid)).cleaned()
    padded = trunk(join({"here": tokens, "padding": padding}), origin)[:, :count]
    torch.testing.assert_close(padded, trunk(tokens, origin), rtol=0, atol=1e-12)


# -------------------------------------------------------------------------------------------------------------- head


def fake_context(head: Head, width: int, size: int = 3, tokens: int = TOKENS) -> HeadContext:
    draw = torch.Generator().manual_seed(0)
    here = replace(fake_tokens(size, tokens, width, dtype=torch.float32), groups=GROUPS)
    readouts = torch.randn(size, head.num_readouts, width, generator=draw)
    turn = torch.eye(3).expand(size, 3, 3)
    batch = Batch({"cloud": cloud_of(CLOUD["cloud"], size=size, count=30), **crop_streams(size)})
    return HeadContext(readouts, here, torch.rand(size, 3, generator=draw), turn, batch)


def fake_clouds(**fields_given: Tensor) -> CloudBatch:
    """Labelled clouds of which a head reads only these fields."""
    return CloudBatch(**{**dict.fromkeys(item.name for item in fields(CloudBatch)), **fields_given})


def fake_boxes(rng: np.random.Generator, size: int) -> CloudBatch:
    """Two boxes of different classes in each cloud, with points enough on both."""
    boxes = torch.from_numpy(rng.random((size, 2, 9))).float()
    boxes[..., 3:6] += 0.3
    label = torch.tensor([[0, 1]]).expand(size, 2)
    return fake_clouds(boxes=boxes, box_label=label, box_valid=label >= 0, box_points=torch.full_like(label, 50))


def check_head(head: Head, width: int, target: Any = None, steps: int = 150) -> None:
    """What every head keeps.

    Its answer is a frozen dataclass of finite tensors, the same for the same context and for a sample alone; its loss
    terms are finite scalars, also with no sensor there; every parameter gets a gradient; it learns one batch. A head
    without parameters may refuse to have a loss, by a typed error.
    """
    head.fit({})
    head.eval()
    context = fake_context(head, width)
    size = context.readouts.shape[0]
    answer = head(context)
    assert is_dataclass(answer)
    tensors = {f.name: getattr(answer, f.name) for f in fields(answer)}
    with pytest.raises(FrozenInstanceError):
        setattr(answer, next(iter(tensors)), None)
    again = head(context)
    alone = head(_sample(context, 1))
    for name, value in tensors.items():
        assert value.shape[0] == size
        assert torch.isfinite(value).all()
        assert torch.equal(value, getattr(again, name)), f"asked twice, another '{name}'"
        torch.testing.assert_close(getattr(alone, name), value[1:2], rtol=0, atol=1e-4)
    other = replace(context, readouts=context.readouts.flip(-1))
    assert any(not torch.equal(v, getattr(head(other), n)) for n, v in tensors.items()), "its readouts do not matter"

    if target is None and type(answer) in TARGETS:
        target = TARGETS[type(answer)](np.random.default_rng(0), size, answer)
    if not list(head.parameters()):
        with pytest.raises(PerceiveError):
            head.loss(context, target)
        return
    assert target is not None, f"no target known for a {type(answer).__name__}: pass one to check_head"
    blind = replace(context, tokens=replace(context.tokens, valid=torch.zeros_like(context.tokens.valid)).cleaned())
    for one in (context, blind):
        head.zero_grad()
        terms = head.loss(one, target)
        assert terms
        assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values()), terms
        total(terms).backward()
        assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
    head.zero_grad()
    torch.manual_seed(0)
    total(head.loss(context, target)).backward()
    # The bias of a softmax's keys moves all of its scores alike.
    _check_all_learn(head, spared=("key.bias",))
    _check_learns(head, context, target, steps)


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum that a model trains on: all terms but those that are only logged."""
    return torch.stack([value for name, value in terms.items() if not name.startswith("_")]).sum()


def _sample(context: HeadContext, index: int) -> HeadContext:
    one = slice(index, index + 1)
    names = ("features", "position_m", "placed", "age_s", "valid")
    tokens = Tokens(*(getattr(context.tokens, name)[one] for name in names), groups=context.tokens.groups)
    batch = Batch(
        {
            name: BatchStream({f: v[one] for f, v in stream.data.items()}, stream.age_s[one], stream.valid[one])
            for name, stream in context.batch.streams.items()
        }
    )
    return HeadContext(context.readouts[one], tokens, context.origin_m[one], context.origin_rotation[one], batch)


def _check_learns(head: Head, context: HeadContext, target: Any, steps: int) -> None:
    torch.manual_seed(0)
    head.train()
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    losses = []
    for _ in range(steps):
        loss = total(head.loss(context, target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    first, last = np.mean(losses[:5]), np.mean(losses[-10:])
    assert last < 0.35 * first, f"it does not learn one batch: {first:.3g} -> {last:.3g}"


def spec_if_taken(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``action_spec`` for a head that takes one."""
    offered = {"action_spec": SPEC, "sensor_spaces": CLOUD | CROPS}
    return {name: value for name, value in offered.items() if name in parameters}
