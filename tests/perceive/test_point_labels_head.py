"""Labels for every point: what moves them and what must not, the loss in closed form, bad input, and that it learns."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from perceive.batch import Batch, BatchStream
from perceive.heads.base import HeadContext
from perceive.heads.point_labels import PointLabelHead, PointLabels, lovasz_softmax
from perceive.metrics.segmentation import Segmentation, confusion
from perceive.model import PerceptionModel
from perceive.points.files.collate import CloudBatch
from perceive.tokens import Tokens
from sensors.errors import SpecError, WiringError
from sensors.geometry import axis_angle_to_matrix
from sensors.spec import box
from tests.perceive.point_clouds import INF, NAN, changed, cloud_of, lidar_space, point_space, rows

WIDTH, ROOM, COUNT = 16, 300, 200
NAMES = ["table", "box", "can"]
SMALL: dict[str, Any] = {"edge_m": 0.05, "channels": [8, 12], "blocks": [1, 1], "near_tokens": 3, "heads": 2}


def head_of(space: spaces.Dict | None = None, **changes: Any) -> PointLabelHead:
    torch.manual_seed(0)
    given = {"width": WIDTH, "sensor": "cloud", "classes": NAMES, "sensor_spaces": {"cloud": space or point_space()}}
    return PointLabelHead(**{**given, **SMALL, **changes}).eval()


def tokens_of(size: int, seed: int = 0, count: int = 40) -> Tokens:
    """Tokens all over the cloud; every fifth is not valid, every seventh without a place."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.arange(count).expand(size, -1)
    features = torch.randn(size, count, WIDTH, generator=generator)
    place = torch.rand(size, count, 3, generator=generator) - 0.5
    return Tokens(
        features, place, number % 7 != 0, torch.zeros(size, count), number % 5 != 0, {"cloud": slice(0, count)}
    )


def context_of(stream: BatchStream, tokens: Tokens | None = None, seed: int = 0) -> HeadContext:
    size = len(stream.valid)
    readouts = torch.randn(size, 1, WIDTH, generator=torch.Generator().manual_seed(seed))
    upright = torch.eye(3).expand(size, 3, 3)
    tokens = tokens_of(size) if tokens is None else tokens
    return HeadContext(readouts, tokens, torch.zeros(size, 3), upright, Batch({"cloud": stream}))


def target_of(semantic: Tensor | None) -> CloudBatch:
    size, points = (1, 1) if semantic is None else semantic.shape
    none: dict[str, Any] = dict.fromkeys(field.name for field in fields(CloudBatch))
    valid = torch.ones(size, points, dtype=torch.bool)
    there = {"xyz_m": torch.zeros(size, points, 3), "valid": valid, "features": torch.zeros(size, points, 0)}
    return CloudBatch(**{**none, **there, "semantic": semantic})


def random_truth(size: int = 2) -> Tensor:
    return torch.randint(-1, len(NAMES), (size, ROOM), generator=torch.Generator().manual_seed(3))


def labelled(head: PointLabelHead, context: HeadContext) -> PointLabels:
    out: PointLabels = head(context)
    return out


# --------------------------------------------------------------------------------------------- what does (not) matter


def test_points_that_are_there_get_logits_and_no_others() -> None:
    stream = cloud_of(point_space())
    out = labelled(head_of(), context_of(stream))
    assert out.logits.shape == (2, ROOM, len(NAMES))
    assert out.valid.equal((torch.arange(ROOM) < COUNT).expand(2, -1))
    assert out.logits.isfinite().all()
    assert not out.logits[~out.valid].any()
    assert (out.logits[out.valid].std(0) > 1e-3).all(), "all points are told the same"


def test_the_order_of_the_points_does_not_matter() -> None:
    stream, head = cloud_of(point_space()), head_of()
    order = torch.cat([torch.randperm(COUNT, generator=torch.Generator().manual_seed(1)), torch.arange(COUNT, ROOM)])
    ours, theirs = labelled(head, context_of(stream)), labelled(head, context_of(rows(stream, order)))
    torch.testing.assert_close(theirs.logits, ours.logits[:, order], rtol=0, atol=1e-5)


def test_neither_do_batch_mates() -> None:
    one, other = cloud_of(point_space(), seed=1, size=1), cloud_of(point_space(), seed=2, size=1, count=150)
    head, tokens = head_of().train(), tokens_of(2)
    both = BatchStream(
        {name: torch.cat([value, other.data[name]]) for name, value in one.data.items()},
        torch.cat([one.age_s, other.age_s]),
        torch.cat([one.valid, other.valid]),
    )
    together = context_of(both, tokens)
    first = replace(
        tokens, **{f: getattr(tokens, f)[:1] for f in ("features", "position_m", "placed", "age_s", "valid")}
    )
    alone = replace(context_of(one, first), readouts=together.readouts[:1])
    torch.testing.assert_close(labelled(head, alone).logits, labelled(head, together).logits[:1], rtol=0, atol=1e-5)


def test_a_scene_that_moves_with_its_tokens_by_whole_coarse_cells_is_labelled_alike() -> None:
    stream, tokens, head = cloud_of(point_space()), tokens_of(2), head_of()
    shift = torch.tensor([4 * 0.1, -7 * 0.1, 0.0])
    moved = changed(stream, xyz_m=stream.data["xyz_m"] + shift)
    with_it = replace(tokens, position_m=tokens.position_m + shift)
    ours = labelled(head, context_of(stream, tokens)).logits
    torch.testing.assert_close(labelled(head, context_of(moved, with_it)).logits, ours, rtol=0, atol=1e-4)
    assert (labelled(head, context_of(moved, tokens)).logits - ours).abs().max() > 1e-2, "where tokens are is ignored"


def test_heights_are_told_unless_they_are_not() -> None:
    stream, tokens = cloud_of(point_space()), tokens_of(2)
    up = torch.tensor([0.0, 0.0, 0.2])
    moved = changed(stream, xyz_m=stream.data["xyz_m"] + up)
    raised = replace(tokens, position_m=tokens.position_m + up)
    apart = {}
    for height in (None, 0.1):
        head = head_of(height_m=height)
        before, after = labelled(head, context_of(stream, tokens)), labelled(head, context_of(moved, raised))
        apart[height] = float((before.logits - after.logits).abs().max().detach())
    assert apart[None] < 1e-4
    assert apart[0.1] > 1e-2


def test_where_the_lidar_stood_does_not_matter_but_its_pose_does() -> None:
    space = lidar_space()
    stream, head = cloud_of(space, size=1), head_of(space, features=["intensity"])
    xyz, pose = stream.data["xyz_m"], stream.data["base_from_lidar"]
    turn = torch.eye(4)
    turn[:3, :3] = torch.from_numpy(axis_angle_to_matrix(np.array([0.3, -0.2, 0.9]))).float()
    turn[:3, 3] = torch.tensor([0.5, -0.2, 0.1])
    back = turn.inverse()
    carried = xyz @ back[:3, :3].T + back[:3, 3]
    ours = labelled(head, context_of(stream)).logits
    elsewhere = changed(stream, xyz_m=carried, base_from_lidar=pose @ turn)
    # Points on the border of a cell may fall into the next by rounding.
    off = (labelled(head, context_of(elsewhere)).logits - ours).abs().amax(-1) > 1e-3
    assert off.float().mean() < 0.02
    off = (labelled(head, context_of(changed(stream, xyz_m=carried))).logits - ours).abs().amax(-1) > 1e-3
    assert off.float().mean() > 0.3


def test_only_the_newest_frame_is_labelled() -> None:
    old, new = (cloud_of(point_space(), seed=seed) for seed in (1, 2))
    both = BatchStream(
        {name: torch.cat([value, new.data[name]], 1) for name, value in old.data.items()},
        torch.cat([old.age_s + 1, new.age_s], 1),
        torch.cat([old.valid, new.valid], 1),
    )
    head = head_of()
    assert labelled(head, context_of(both)).logits.equal(labelled(head, context_of(new)).logits)


def test_with_all_else_off_points_are_labelled_by_the_nearest_token() -> None:
    """One level, one token, its features handed on: an exact case of the whole path from a token to a point."""
    head = head_of(channels=[3], blocks=[1], near_tokens=1, heads=1, width=3, edge_m=0.001)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.net.norm.weight.fill_(1.0)
        for layer in (head.net.near.value, head.net.near.out, head.of_cell, head.out):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(torch.eye(3))
    stream = cloud_of(point_space(), count=ROOM)
    tokens = tokens_of(2)
    kind = torch.stack([torch.arange(40), torch.arange(40) + 1]) % 3  # those of one sample are not those of the other
    tokens = replace(tokens, features=nn.functional.one_hot(kind, 3).float())
    out = labelled(head, replace(context_of(stream, tokens), readouts=torch.randn(2, 1, 3)))
    usable = tokens.valid & tokens.placed
    for sample in range(2):
        place, of = tokens.position_m[sample][usable[sample]], kind[sample][usable[sample]]
        near = torch.cdist(stream.data["xyz_m"][sample, 0], place).argmin(1)
        assert out.logits[sample].argmax(-1).equal(of[near])


# ------------------------------------------------------------------------------------------------------------ the loss


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 5))
def test_of_certain_guesses_lovasz_is_one_minus_iou(seed: int, points: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    guess, truth = rng.integers(0, classes, points), rng.integers(0, classes, points)
    share = nn.functional.one_hot(torch.from_numpy(guess), classes).float()
    result = Segmentation(confusion(guess, truth, classes))
    wanted = np.mean([1 - result.iou[label] for label in np.unique(truth)])
    assert float(lovasz_softmax(share, torch.from_numpy(truth))) == pytest.approx(wanted, abs=1e-5)


def test_lovasz_between_certain_guesses_is_by_hand_and_its_slope_true() -> None:
    # Errors 0.6, 0.3 (of the class), 0.2 (not): their Jaccard losses are 1/2, 1, 1, so growths 1/2, 1/2, 0.
    share = torch.tensor([[0.4, 0.6], [0.7, 0.3], [0.2, 0.8]], dtype=torch.float64, requires_grad=True)
    truth = torch.tensor([0, 0, 1])
    first = 0.6 / 2 + 0.3 / 2
    second = 0.6 * 1 / 2 + 0.3 * (2 / 3 - 1 / 2) + 0.2 * (1 - 2 / 3)  # errors 0.6, 0.3 (not), 0.2 (of the class)
    assert float(lovasz_softmax(share, truth).detach()) == pytest.approx((first + second) / 2)
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x, truth), share)


def test_cross_entropy_accuracy_and_weights_by_hand() -> None:
    context, truth = context_of(cloud_of(point_space())), random_truth()
    weights = [0.5, 2.0, 0.0]
    head = head_of(lovasz=0.0, class_weights=weights)
    out = labelled(head, context)
    known = (truth >= 0) & out.valid
    share = out.logits[known].log_softmax(-1)
    own = truth[known]
    each = torch.tensor(weights)[own]
    wanted = -(each * share[torch.arange(len(own)), own]).sum() / each.sum()
    terms = head.loss(context, target_of(truth))
    assert set(terms) == {"labels", "_accuracy"}
    torch.testing.assert_close(terms["labels"], wanted)
    torch.testing.assert_close(terms["_accuracy"], (out.logits[known].argmax(-1) == own).float().mean())
    beside = head_of(lovasz=2.0, class_weights=weights).loss(context, target_of(truth))["labels"] - wanted
    torch.testing.assert_close(beside, 2 * lovasz_softmax(out.logits[known].softmax(-1), own), rtol=1e-4, atol=1e-5)


def test_labels_that_are_not_known_and_points_that_are_not_there_teach_nothing() -> None:
    head, context, truth = head_of(), context_of(cloud_of(point_space())), random_truth()
    garbage = truth.clone()
    garbage[:, COUNT:] = 1 - garbage[:, COUNT:].clamp(0, 1)
    ours, theirs = (head.loss(context, target_of(one))["labels"] for one in (truth, garbage))
    assert ours.equal(theirs)
    nothing = head.loss(context, target_of(torch.full_like(truth, -1)))
    assert (float(nothing["labels"].detach()), float(nothing["_accuracy"])) == (0.0, 0.0)
    nothing["labels"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())


def test_every_parameter_learns() -> None:
    head = head_of().train()
    head.loss(context_of(cloud_of(point_space())), target_of(random_truth()))["labels"].backward()  # type: ignore[no-untyped-call]
    for name, parameter in head.named_parameters():
        spared = name == "net.near.key.bias"  # of a softmax's keys moves all of its scores alike
        assert spared or (parameter.grad is not None and parameter.grad.abs().sum() > 0), name


# ----------------------------------------------------------------------------------------------------------- bad input


def test_without_points_or_tokens_all_stays_finite() -> None:
    stream = cloud_of(point_space())
    tokens = tokens_of(2)
    blind = replace(tokens, valid=torch.zeros_like(tokens.valid), features=torch.full_like(tokens.features, NAN))
    bare = Tokens(
        torch.zeros(2, 0, WIDTH),
        torch.zeros(2, 0, 3),
        torch.zeros(2, 0) > 0,
        torch.zeros(2, 0),
        torch.zeros(2, 0) > 0,
        {},
    )
    gone = replace(stream, valid=torch.zeros_like(stream.valid))
    cases = [
        (context_of(stream, blind), True),
        (context_of(stream, bare), True),
        (context_of(changed(stream, count=torch.zeros(2, 1, 1, dtype=torch.int64))), False),
        (context_of(gone), False),
        (context_of(gone, blind), False),
    ]
    for context, there in cases:
        head = head_of().train()
        out = labelled(head, context)
        assert bool(out.valid.any()) is there
        assert out.logits.isfinite().all()
        loss = head.loss(context, target_of(random_truth()))["labels"]
        assert loss.isfinite()
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
    ours, theirs = (labelled(head_of(), context).logits for context in (cases[0][0], cases[1][0]))
    torch.testing.assert_close(ours, theirs)


def test_points_that_are_no_measurement_are_not_valid_and_change_no_other() -> None:
    stream, head = cloud_of(point_space(), size=1), head_of()
    bad = stream.data["xyz_m"].clone()
    for row, value in enumerate((NAN, INF, -INF, 1e30, 0.05 * 2**16)):
        bad[0, 0, row, row % 3] = value
    out = labelled(head, context_of(changed(stream, xyz_m=bad)))
    assert out.valid[0].equal((torch.arange(ROOM) >= 5) & (torch.arange(ROOM) < COUNT))
    fewer = rows(stream, torch.cat([torch.arange(5, ROOM), torch.arange(5)]))
    fewer = changed(fewer, count=torch.full((1, 1, 1), COUNT - 5))
    without = labelled(head, context_of(fewer)).logits[:, : COUNT - 5]
    torch.testing.assert_close(out.logits[:, 5:COUNT], without, rtol=0, atol=1e-5)


def test_one_point_many_equal_ones_and_ones_at_all_ends_of_the_grid() -> None:
    stream = cloud_of(point_space(), size=1)
    one = labelled(head_of(), context_of(changed(stream, count=torch.ones(1, 1, 1, dtype=torch.int64))))
    assert one.valid.sum() == 1
    same = {name: stream.data[name][:, :, :1].expand_as(stream.data[name]) for name in ("xyz_m", "rgb")}
    many = labelled(head_of(), context_of(changed(stream, **same)))
    # Up to rounding: how a row of a matrix product is summed hangs on its place, on some processors.
    torch.testing.assert_close(many.logits[0, :COUNT], many.logits[0, :1].expand(COUNT, -1), rtol=0, atol=3e-7)
    assert many.logits[0, :COUNT].argmax(-1).unique().numel() == 1
    far = stream.data["xyz_m"].clone()
    end = 0.05 * 2**16 - 1
    far[0, 0, :2] = torch.tensor([[end, end, end], [-end, -end, -end]])
    out = labelled(head_of(), context_of(changed(stream, xyz_m=far)))
    assert out.valid[0, :COUNT].all()
    assert out.logits.isfinite().all()


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (None, "semantic"),
        (torch.zeros(2, ROOM - 1, dtype=torch.int64), r"\[2, 299\]"),
        (torch.zeros(2, ROOM), "float32"),
        (torch.full((2, ROOM), 3), "from 3 to 3"),
        (torch.full((2, ROOM), -2), "from -2 to -2"),
    ],
)
def test_targets_that_do_not_fit_are_refused(truth: Tensor | None, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        head_of().loss(context_of(cloud_of(point_space())), target_of(truth))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sensor": "clouds"}, "'cloud'"),
        ({"sensor_spaces": {"cloud": spaces.Dict({"rgb": box(0, 255, (4, 4, 3), np.uint8)})}}, "xyz_m"),
        ({"features": ["intensity"]}, "intensity"),
        ({"classes": ["box"]}, "two names"),
        ({"classes": ["box", "box", "can"]}, "two names"),
        ({"edge_m": 0.0}, "edge_m"),
        ({"edge_m": NAN}, "edge_m"),
        ({"height_m": -1.0}, "height_m"),
        ({"lovasz": -1.0}, "lovasz"),
        ({"class_weights": [1.0, 1.0]}, "class_weights"),
        ({"class_weights": [1.0, 1.0, -1.0]}, "class_weights"),
        ({"channels": [8]}, "blocks"),
        ({"channels": [], "blocks": []}, "blocks"),
        ({"near_tokens": 0}, "near_tokens"),
        ({"heads": 5}, "divisor"),
        ({"reach_m": 0.0}, "reach_m"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WiringError, match=message):
        head_of(**changes)


# -------------------------------------------------------------------------------------------------------------- learns


def small_scene(seed: int) -> tuple[Tensor, Tensor]:
    """A table of 200 points, on it an upright cylinder and a box of 50 each, 6 to 8 cm wide; colours say nothing."""
    rng = np.random.default_rng(seed)
    table = np.c_[rng.uniform(-0.2, 0.2, (200, 2)), np.zeros(200)]
    angle = rng.uniform(0, 2 * np.pi, 50)
    can = np.c_[0.035 * np.cos(angle), 0.035 * np.sin(angle), rng.uniform(0.01, 0.12, 50)] + np.array([0.1, 0.05, 0.0])
    cube = rng.uniform(-0.04, 0.04, (50, 3))
    side = rng.integers(0, 3, 50)
    cube[np.arange(50), side] = 0.04 * rng.choice([-1, 1], 50)
    points = np.concatenate([table, cube + np.array([-0.1, -0.05, 0.05]), can])
    turn = axis_angle_to_matrix(np.array([0.0, 0.0, rng.uniform(0, 6)]))
    order = rng.permutation(ROOM)
    truth = np.repeat([0, 1, 2], [200, 50, 50])
    return torch.from_numpy((points @ turn.T)[order]).float(), torch.from_numpy(truth[order])


def test_a_small_model_learns_two_clouds_by_heart() -> None:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "width": 32,
        "origin": None,
        "ignored_sensors": [],
        "encoders": {
            "cloud": {
                "_target_": "perceive.encoders.point_voxels.PointVoxelEncoder",
                "tokens": 32, "low_m": [-0.5] * 3, "high_m": [0.5] * 3, "edge_m": 0.1,
            }
        },
        "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 1, "heads": 2},
        "heads": {
            "labels": {
                "_target_": "perceive.heads.point_labels.PointLabelHead",
                "sensor": "cloud", "classes": NAMES, **SMALL, "edge_m": 0.02, "channels": [16, 32],
            }
        },
    }  # fmt: skip
    model = PerceptionModel.from_config(config, {"cloud": point_space()}, {"cloud": 1})
    scenes = [small_scene(seed) for seed in (0, 1)]
    stream = cloud_of(point_space(), count=ROOM)
    stream = changed(stream, xyz_m=torch.stack([points for points, _ in scenes])[:, None])
    batch, target = Batch({"cloud": stream}), target_of(torch.stack([truth for _, truth in scenes]))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    before = time.process_time()
    losses = []
    for _ in range(60):
        terms = model.loss(batch, {"labels": target})
        optimizer.zero_grad()
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(terms["loss"].detach()))
    assert losses[-1] < losses[0] / 4, time.process_time() - before
    result = model.eval()(batch)["labels"]
    assert target.semantic is not None
    score = Segmentation(confusion(result.logits.argmax(-1).numpy(), target.semantic.numpy(), len(NAMES)))
    assert score.accuracy > 0.95
    assert score.mean_iou > 0.9
