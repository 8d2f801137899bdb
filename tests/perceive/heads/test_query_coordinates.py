"""The encoder of references and the head that reads coordinates off them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from perceive.batch import Batch, BatchStream
from perceive.encoders.reference_views import ReferenceViewEncoder
from perceive.heads.query_coordinates import QueryCoordinateHead
from perceive.heads.query_target import QueryTarget
from perceive.model import PerceptionModel
from policies.poses.few_shot_dataset import FewShotDataset
from sensors.errors import SpecError, WiringError
from tests.contracts_torch import check_encoder
from tests.perceive.scene import fake_batch
from tests.policies.poses.few_shot import dataset, plan


@pytest.fixture(scope="module")
def data() -> FewShotDataset:
    return dataset(draws=2)


@pytest.fixture(scope="module")
def model(data: FewShotDataset) -> PerceptionModel:
    torch.manual_seed(0)
    return PerceptionModel.from_config(plan(), data.sensor_spaces, data.history).eval()


@pytest.fixture(scope="module")
def episode(data: FewShotDataset) -> tuple[Batch, QueryTarget]:
    return data.batch(np.arange(12))


def told(batch: Batch, **changes: Any) -> Batch:
    return Batch({**batch.streams, "references": replace(batch.stream("references"), **changes)})


def test_the_encoder_keeps_the_contract(data: FewShotDataset) -> None:
    torch.manual_seed(0)
    space = data.sensor_spaces["references"]
    encoder = ReferenceViewEncoder(space, 2, 32, patch_px=8, cell_px=4)
    first, other = (fake_batch(np.random.default_rng(k), 3, {"it": space}, {"it": 2}).stream("it") for k in (0, 1))
    check_encoder(encoder, first, other, {})


def test_tokens_lie_where_the_object_was_measured(data: FewShotDataset) -> None:
    """Closed form: a flat wall, one metre before a camera that is turned upside down and shifted."""
    encoder = ReferenceViewEncoder(data.sensor_spaces["references"], 1, 32, patch_px=8, cell_px=4)
    pose = torch.diag(torch.tensor([1.0, -1, -1, 1]))
    pose[:3, 3] = torch.tensor([0.5, 0, 1.0])
    fields = {
        "rgb": torch.zeros(1, 1, 32, 32, 3, dtype=torch.uint8), "depth_m": torch.ones(1, 1, 32, 32),
        "intrinsics_px": torch.tensor([32.0, 32, 15.5, 15.5])[None, None], "base_from_camera": pose[None, None],
    }  # fmt: skip
    tokens = encoder(BatchStream(fields, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)))
    middle = (torch.arange(4) * 8 + 3.5 - 15.5) / 32
    torch.testing.assert_close(tokens.position_m[0, :4, 0], 0.5 + middle)
    torch.testing.assert_close(tokens.position_m[0, [0, 4, 8, 12], 1], -middle)
    torch.testing.assert_close(tokens.position_m[0, :16, 2], torch.zeros(16))
    assert tokens.placed[0, :16].all()
    assert not tokens.placed[0, 16]  # the latent of all of them
    fields["depth_m"][..., :8, :] = 0.0
    assert encoder(BatchStream(fields, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))).valid.sum() == 12 + 1


def test_references_are_a_set(model: PerceptionModel, episode: tuple[Batch, QueryTarget]) -> None:
    """Neither their order nor what stands in those that are not there matters; each that is there does."""
    batch, _ = episode
    stream = batch.stream("references")
    said = model(batch)["coordinates"].coordinates_m
    order = torch.tensor([2, 0, 3, 1])
    mixed = told(batch, data={n: v[:, order] for n, v in stream.data.items()}, valid=stream.valid[:, order])
    torch.testing.assert_close(model(mixed)["coordinates"].coordinates_m, said, rtol=0, atol=1e-5)
    gone = ~stream.valid
    noise = {}
    for name, value in stream.data.items():
        rubbish = torch.full_like(value, torch.nan) if value.is_floating_point() else 255 - value
        noise[name] = torch.where(gone.view(*gone.shape, *[1] * (value.ndim - 2)), rubbish, value)
    assert torch.equal(model(told(batch, data=noise))["coordinates"].coordinates_m, said)
    many = (stream.valid.sum(1) > 1).nonzero()[0]
    fewer = stream.valid.clone()
    fewer[many, 0] = False
    assert not torch.allclose(model(told(batch, valid=fewer))["coordinates"].coordinates_m[many], said[many], atol=1e-5)
    nothing = model(told(batch, valid=torch.zeros_like(stream.valid)))["coordinates"]
    assert torch.isfinite(nothing.coordinates_m).all()


def test_the_loss_is_that_of_the_nearest_of_what_looks_alike(
    model: PerceptionModel, episode: tuple[Batch, QueryTarget]
) -> None:
    batch, target = episode
    with torch.no_grad():
        said = model(batch)["coordinates"]
        plain = model.loss(batch, {"coordinates": target})
    off = (said.coordinates_m - target.coordinates_m).norm(dim=-1)
    without = replace(target, symmetries=torch.eye(4).expand(len(off), 1, 4, 4))
    with torch.no_grad():
        single = model.loss(batch, {"coordinates": without})
    each = [off[k][m].mean() for k, m in enumerate(target.mask)]
    torch.testing.assert_close(single["coordinates/_off"], torch.stack(each).mean() / 0.1)
    assert plain["coordinates/_off"] < single["coordinates/_off"]
    # Truth that is moved by a symmetry of its object costs the same.
    moved = target.symmetries[:, 3]
    point = target.coordinates_m.flatten(1, 2) @ moved[:, :3, :3].mT + moved[:, None, :3, 3]
    point = torch.where(target.mask[..., None], point.view_as(target.coordinates_m), 0.0)
    alike = replace(target, coordinates_m=point)
    with torch.no_grad():
        same = model.loss(batch, {"coordinates": alike})
    assert abs(float(same["coordinates/_off"] / plain["coordinates/_off"]) - 1) < 0.02


def test_pointing_is_by_what_differs_and_by_what_is_near(
    model: PerceptionModel, episode: tuple[Batch, QueryTarget]
) -> None:
    """What all tokens of the references have in common tells none of them apart; where they lie does."""
    head = model.heads["coordinates"]
    assert isinstance(head, QueryCoordinateHead)
    with torch.no_grad():
        context = model.contexts(episode[0])["coordinates"]
        group = context.tokens.groups["references"]
        plain = head._read(context)[1]

        def pointing(**changes: torch.Tensor) -> torch.Tensor:
            return head._read(replace(context, tokens=replace(context.tokens, **changes)))[1]

        features = context.tokens.features.clone()
        features[:, group] += 50 * torch.randn(features.shape[-1], generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(pointing(features=features), plain, rtol=0, atol=2e-2)
        alone = context.tokens.features.clone()
        alone[:, group.start] += 50 * torch.randn(alone.shape[-1], generator=torch.Generator().manual_seed(0))
        assert (pointing(features=alone) - plain).abs().max() > 0.5  # positive control
        # Of references that look alike the nearest is pointed at most.
        same = context.tokens.features.clone()
        same[:, group] = 1.0
        own = context.tokens.groups["crop"]
        far = torch.cdist(context.tokens.position_m[:, own], context.tokens.position_m[:, group])
        known = context.tokens.valid[:, group] & context.tokens.placed[:, group]
        nearest = far.masked_fill(~known[:, None], torch.inf).argmin(-1)
        within = far.gather(-1, nearest[..., None])[..., 0] < 2 * head.radius_m  # beyond, all are alike
        asked = context.tokens.placed[:, own] & within
        assert asked.sum() > 50
        assert torch.equal(pointing(features=same).argmax(-1)[asked], nearest[asked])


def test_it_learns_one_batch_and_every_parameter_with_it(data: FewShotDataset) -> None:
    torch.manual_seed(0)
    part = PerceptionModel.from_config(plan(), data.sensor_spaces, data.history)
    batch, target = data.batch(np.arange(8))
    optimizer = torch.optim.Adam(part.parameters(), lr=3e-3)
    off = []
    for step in range(70):
        terms = part.loss(batch, {"coordinates": target})
        optimizer.zero_grad()
        terms["loss"].backward()
        if not step:
            silent = [n for n, p in part.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
            assert not [name for name in silent if "ray" not in name]  # every patch of these crops has depth
        optimizer.step()
        off.append(float(terms["coordinates/_off"]))
    assert off[-1] < 0.4 * off[0]


def test_refusals(data: FewShotDataset, model: PerceptionModel, episode: tuple[Batch, QueryTarget]) -> None:
    spaces = data.sensor_spaces
    for wrong in ({"crop": "crops"}, {"references": "no"}, {"patch_px": 6}, {"radius_m": 0.0}, {"match_weight": -1.0}):
        with pytest.raises(WiringError):
            QueryCoordinateHead(16, spaces, **wrong)
    with pytest.raises(WiringError):
        ReferenceViewEncoder(spaces["references"], 1, 16, object_m=0.0)
    batch, target = episode
    with pytest.raises(SpecError, match="maps"):
        model.loss(batch, {"coordinates": replace(target, mask=target.mask[:, ::2, ::2])})
