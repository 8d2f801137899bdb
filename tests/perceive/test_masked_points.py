"""Masked point modelling, and the encoder's groups that it reads; tokens without places."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from perceive.batch import Batch
from perceive.encoders.point_groups import PointGroupEncoder
from perceive.heads.classification import ClassHead
from perceive.model import PerceptionModel
from perceive.objectives.masked_points import MaskedPoints, chamfer
from perceive.trunk import Trunk
from sensors.errors import SpecError, WiringError
from sensors.geometry import axis_angle_to_matrix
from tests.perceive.point_clouds import (
    INF,
    NAN,
    WIDTH,
    both,
    changed,
    cloud_from,
    cloud_of,
    groups_of,
    lidar_space,
    pairs_of,
    point_space,
    voxels_of,
)


def trunk(**changes: Any) -> Trunk:
    return Trunk(WIDTH, 40, depth=1, heads=1, **changes)


def masked(space: spaces.Dict, ratio: float = 0.6, **changes: Any) -> MaskedPoints:
    torch.manual_seed(0)
    encoder = groups_of(space, **{"reach_m": 0.3, **changes})
    return MaskedPoints({"it": encoder}, trunk(), WIDTH, None, ratio, 1, 1)


def only(space: spaces.Dict, *points: tuple[float, ...]) -> Batch:
    return Batch({"it": cloud_from(space, torch.tensor(points).view(-1, 3))})


# -------------------------------------------------------------------------------------------------------------- chamfer


def test_chamfer_in_closed_form() -> None:
    guess = torch.tensor([[0.0, 0, 0], [3.0, 0, 0]])
    truth = torch.tensor([[1.0, 0, 0], [0.0, 2, 0], [9.0, 9, 9]])
    valid = torch.tensor([True, True, False])
    # From the guess: 1 and 4; from the truth: 1 and 4.
    assert chamfer(guess, truth, valid) == (1 + 4) / 2 + (1 + 4) / 2
    assert chamfer(truth[:2], truth, valid) == 0
    assert chamfer(guess, truth, torch.zeros(3, dtype=torch.bool)) == 0


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 9), st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_chamfer_is_what_all_pairs_say(seed: int, guesses: int, truths: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    guess, truth = scale * rng.normal(size=(2, guesses, 3)), scale * rng.normal(size=(2, truths, 3))
    valid = rng.random((2, truths)) < 0.7
    found = chamfer(torch.from_numpy(guess), torch.from_numpy(truth), torch.from_numpy(valid))
    for row in range(2):
        there = truth[row, valid[row]]
        apart = cdist(guess[row], there, "sqeuclidean")
        wanted = apart.min(1).mean() + apart.min(0).mean() if len(there) else 0.0
        assert math.isclose(float(found[row]), wanted, rel_tol=1e-9)


def test_chamfer_has_the_gradient_of_its_definition() -> None:
    draw = torch.Generator().manual_seed(0)
    guess = torch.randn(2, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    truth = torch.randn(3, 3, generator=draw, dtype=torch.float64)
    valid = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda value: chamfer(value, truth, valid), (guess,))


# ------------------------------------------------------------------------------------------------------ what is guessed


@both
@pytest.mark.parametrize("ratio", [0.25, 0.6])
def test_the_given_share_is_hidden_and_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, space: spaces.Dict, ratio: float
) -> None:
    part, stream = masked(space, ratio).eval(), cloud_of(space)
    draw = torch.Generator().manual_seed(1)
    guess, groups, hiding = part.restore(stream, "it", draw)
    assert hiding.hidden.sum(1).tolist() == [12 - round(12 * (1 - ratio))] * 2
    # What only hidden groups hold, features included, is nothing to the guess.
    encoder = part.encoders["it"]
    assert isinstance(encoder, PointGroupEncoder)
    told = torch.where(hiding.hidden[..., None, None], torch.randn_like(groups.told), groups.told)
    seen = encoder.embed(groups.take(hiding.index)).features
    spoilt = type(groups)(told, *(getattr(groups, name) for name in list(groups.__dataclass_fields__)[1:]))
    assert torch.equal(encoder.embed(spoilt.take(hiding.index)).features, seen)
    with torch.no_grad():
        monkeypatch.setattr(encoder, "groups", lambda _: spoilt)
        again, _, _ = part.restore(stream, "it", draw.manual_seed(1))
        assert torch.equal(guess, again), "what is hidden is seen"
        other = torch.where(hiding.hidden[..., None, None], groups.told, told.roll(1, 1))
        shown = type(groups)(other, *(getattr(groups, name) for name in list(groups.__dataclass_fields__)[1:]))
        monkeypatch.setattr(encoder, "groups", lambda _: shown)
        moved, _, _ = part.restore(stream, "it", draw.manual_seed(1))
    assert (moved - guess).abs().max() > 1e-4, "what is shown does not matter"


def test_the_loss_is_the_chamfer_distance_of_what_is_hidden_in_units_of_reach() -> None:
    space = point_space()
    part, stream = masked(space).double(), cloud_of(space)
    stream = changed(stream, xyz_m=stream.data["xyz_m"].double())
    draw = torch.Generator().manual_seed(1)
    terms = part(Batch({"it": stream}), draw)
    guess, groups, hiding = part.restore(stream, "it", draw.manual_seed(1))
    apart = [
        cdist(guess[at].detach().numpy() / 0.3, groups.relative_m[at].numpy() / 0.3, "sqeuclidean")
        for at in (tuple(each) for each in hiding.hidden.nonzero().tolist())
    ]
    assert terms["loss"].item() == pytest.approx(float(np.mean([a.min(0).mean() + a.min(1).mean() for a in apart])))
    centre = (groups.relative_m[hiding.hidden] / 0.3).square().sum(-1).mean()
    assert terms["_it/centre"].item() == pytest.approx(float(centre))


@both
def test_groups_are_what_the_tokens_are_made_of(space: spaces.Dict) -> None:
    encoder, stream = groups_of(space), cloud_of(space)
    assert isinstance(encoder, PointGroupEncoder)
    tokens, groups = encoder(stream), encoder.groups(stream)
    for name in ("features", "position_m", "placed", "age_s", "valid"):
        assert torch.equal(getattr(tokens, name), getattr(encoder.embed(groups), name)), name
    # Members lie where points were measured, in the base frame.
    at = groups.position_m[:, :, None] + groups.relative_m
    xyz = stream.data["xyz_m"][:, 0, :200]
    pose = stream.data.get("base_from_lidar")
    if pose is not None:
        xyz = xyz @ pose[:, 0, :3, :3].transpose(1, 2) + pose[:, 0, None, :3, 3]
    assert torch.cdist(at.flatten(1, 2), xyz).amin(-1).max() < 1e-3
    taken = groups.take(torch.tensor([[3, 0], [5, 11]]))
    for name in groups.__dataclass_fields__:
        assert torch.equal(getattr(taken, name)[1, 0], getattr(groups, name)[1, 5]), name


def test_bad_clouds_leave_finite_losses_and_gradients() -> None:
    space = point_space()
    stream = cloud_of(space, size=6)
    xyz, count = stream.data["xyz_m"].clone(), stream.data["count"].clone()
    count[0], count[1] = 0, 1
    xyz[2] = 0.25  # all equal
    xyz[3, :, ::2], xyz[3, :, 1::4] = NAN, INF
    count[4] = 5
    valid = stream.valid.clone()
    valid[5] = False
    part = masked(space)
    terms = part(Batch({"it": type(stream)({**stream.data, "xyz_m": xyz, "count": count}, stream.age_s, valid)}))
    terms["loss"].backward()
    _, groups, hiding = part.restore(changed(stream, xyz_m=xyz, count=count), "it")
    assert hiding.hidden.sum(1).tolist() == [0, 0, 7, 7, 3, 7]
    assert not (hiding.hidden & ~groups.valid).any()
    for name, parameter in part.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for points in ((), (0.1, 0.2, 0.3)):
        assert masked(space)(only(space, points))["loss"] == 0  # nothing is left to hide


def test_hidden_groups_are_guessed_from_the_others() -> None:
    """Lines of a random direction: any two groups tell what all others look like."""
    torch.manual_seed(0)
    space, rng = point_space(24), np.random.default_rng(0)
    encoder = PointGroupEncoder(space, 1, 32, 6, 6, 24, 16, 0.1, [])
    part = MaskedPoints({"it": encoder}, Trunk(32, 0, 1, 2), 32, None, 0.6, 1, 2)
    optimizer = torch.optim.Adam(part.parameters(), lr=6e-3)
    blank = cloud_of(space, size=16, count=24)

    def some() -> Batch:
        axis = np.eye(3)[rng.integers(3, size=16)]
        xyz = axis[:, None, None] * np.linspace(-0.5, 0.5, 24)[:, None]
        return Batch({"it": changed(blank, xyz_m=torch.from_numpy(xyz).float())})

    draw = torch.Generator().manual_seed(0)
    for _ in range(40):
        terms = part(some(), draw)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert terms["loss"] < 0.5 * terms["_it/centre"]


def test_pretraining_trains_the_model_that_it_was_given() -> None:
    torch.manual_seed(0)
    space = point_space()
    model = PerceptionModel({"it": groups_of(space)}, trunk(), {"class": ClassHead(WIDTH, ("a", "b"))}, WIDTH)
    part = MaskedPoints(
        dict(model.encoders.items()), model.trunk, WIDTH, dict(model.sensor_embedding.items()), 0.6, 1, 1
    )
    batch = Batch({"it": cloud_of(space)})
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
    part(batch)["loss"].backward()
    optimizer.step()
    same = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert same == {"readouts.class"} | {name for name in before if name.startswith("heads.")}


# ----------------------------------------------------------------------------------------------------- turns and places


def class_model(encoder: Any) -> PerceptionModel:
    torch.manual_seed(1)
    head = ClassHead(WIDTH, ("mug", "bowl", "box"))
    return PerceptionModel({"it": encoder}, trunk(), {"class": head}, WIDTH).double().eval()


def turned(seed: int, shift: bool = True) -> tuple[Batch, Batch]:
    stream, rng = cloud_of(point_space(), seed, size=4), np.random.default_rng(seed)
    xyz = stream.data["xyz_m"].double()
    turn = torch.from_numpy(axis_angle_to_matrix(rng.normal(0, 2, (4, 1, 3))))
    moved = xyz @ turn.transpose(-1, -2) + (torch.from_numpy(rng.normal(0, 1, (4, 1, 1, 3))) if shift else 0)
    return Batch({"it": changed(stream, xyz_m=xyz)}), Batch({"it": changed(stream, xyz_m=moved)})


def gap(model: PerceptionModel, batches: tuple[Batch, Batch]) -> float:
    with torch.no_grad():
        ours, theirs = (model(batch)["class"].logits for batch in batches)
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pairs_without_places_make_a_whole_model_blind_to_turns(seed: int) -> None:
    batches = turned(seed)
    assert gap(class_model(pairs_of(point_space(), placed=False)), batches) < 1e-9
    for sighted in (groups_of(point_space()), groups_of(point_space(), placed=False), pairs_of(point_space())):
        assert gap(class_model(sighted), batches) > 1e-3
    # Single precision too, as it is used.
    model = class_model(pairs_of(point_space(), placed=False)).float()
    single = [Batch({"it": changed(b.stream("it"), xyz_m=b.stream("it").data["xyz_m"].float())}) for b in batches]
    assert gap(model, (single[0], single[1])) < 1e-5


def test_tokens_without_places_say_nothing_of_where_they_are() -> None:
    space = lidar_space()
    with_places, without = groups_of(space), groups_of(space, placed=False)
    stream = cloud_of(space)
    ours, theirs = with_places(stream), without(stream)
    assert torch.equal(ours.features, theirs.features)
    assert torch.equal(ours.valid, theirs.valid)
    assert ours.placed.any()
    assert not theirs.placed.any()
    assert not theirs.position_m.any()


# ------------------------------------------------------------------------------------------------------ what is refused


def test_masked_modelling_that_makes_no_sense() -> None:
    space = point_space()
    for ratio in (0.0, 1.0, math.nan):
        with pytest.raises(SpecError, match="mask_ratio"):
            masked(space, ratio)
    for changes in ({"geometry": "pairs"}, {"placed": False}):
        with pytest.raises(WiringError, match="geometry"):
            masked(space, **changes)
    with pytest.raises(WiringError, match="PointGroupEncoder"):
        MaskedPoints({"it": voxels_of(space)}, trunk(), WIDTH)
    with pytest.raises(WiringError, match="index positions"):
        MaskedPoints({"it": groups_of(space)}, trunk(position="index"), WIDTH)
    with pytest.raises(WiringError, match="sensor_embedding"):
        MaskedPoints({"it": groups_of(space)}, trunk(), WIDTH, {"other": torch.nn.Parameter(torch.zeros(WIDTH))})
    with pytest.raises(WiringError, match="'clouds'"):
        masked(space)(Batch({"clouds": cloud_of(space)}))
    with pytest.raises(WiringError, match="none"):
        masked(space)(Batch({}))
    with pytest.raises(SpecError, match="two tokens"):
        masked(space, groups=1)(Batch({"it": cloud_of(space)}))
