"""The head for 3D boxes: its targets, its suppression, and what it keeps of places, batch mates and odd scenes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from perceive.heads.base import HeadContext
from perceive.heads.box_peaks import BoxGuess, decode, encode, pick, swapped
from perceive.heads.box_targets import BoxTruth, assign, read_truth
from perceive.heads.boxes import BoxHead
from perceive.points.files.collate import CloudBatch
from perceive.tokens import Tokens
from sensors.errors import SpecError, WiringError
from tests.contracts_torch import check_head, fake_context, total

WIDTH = 32
CLASSES = ["table", "chair", "bin"]


def make_head(**changes: object) -> BoxHead:
    torch.manual_seed(0)
    return BoxHead(WIDTH, CLASSES, **{"frontless": ["table"], "hidden": 32, "most": 8, "candidates": 64, **changes})  # type: ignore[arg-type]  # of many types


def scene_boxes(draw: torch.Generator, size: int, count: int) -> Tensor:
    """Boxes [B, K, 9] on a line, 5 m apart, so that none overlap; all of them turned somehow."""
    boxes = torch.zeros(size, count, 9)
    boxes[..., 0] = torch.arange(count) * 5.0 - 2.0
    boxes[..., 1:3] = torch.randn(size, count, 2, generator=draw)
    boxes[..., 3:6] = 0.3 + torch.rand(size, count, 3, generator=draw)
    boxes[..., 6] = (torch.rand(size, count, generator=draw) * 2 - 1) * math.pi
    boxes[..., 7:9] = torch.randn(size, count, 2, generator=draw)
    return boxes


def target_of(boxes: Tensor, label: Tensor, valid: Tensor | None = None, points: Tensor | None = None) -> CloudBatch:
    size = len(boxes)
    nothing = torch.zeros(size, 1, 3)
    there = torch.ones_like(label, dtype=torch.bool) if valid is None else valid
    measured = torch.full_like(label, 50) if points is None else points
    no_point = torch.zeros(size, 1, dtype=torch.bool)
    return CloudBatch(nothing, no_point, nothing[..., :0], None, None, None, None, None, boxes, label, there, measured)


def tokens_in(boxes: Tensor, each: int, draw: torch.Generator, width: int = WIDTH) -> Tokens:
    """``each`` tokens [B, K * each] inside of every box, and as many 30 m away."""
    size, count = boxes.shape[:2]
    inside = (torch.rand(size, count, each, 3, generator=draw) - 0.5) * 0.9 * boxes[:, :, None, 3:6]
    cos, sin = boxes[..., 6].cos()[..., None], boxes[..., 6].sin()[..., None]
    x, y = inside[..., 0], inside[..., 1]
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y, inside[..., 2]], -1) + boxes[:, :, None, :3]
    place = torch.cat([turned.flatten(1, 2), torch.rand(size, count * each, 3, generator=draw) + 30.0], 1)
    lead = place.shape[:2]
    there = torch.ones(lead, dtype=torch.bool)
    return Tokens(torch.randn(*lead, width, generator=draw), place, there, torch.zeros(lead), there)


def truth_of(boxes: Tensor, label: Tensor, scored: Tensor | None = None) -> BoxTruth:
    there = torch.ones_like(label, dtype=torch.bool)
    return BoxTruth(boxes, label, there, there if scored is None else scored)


def context_of(head: BoxHead, tokens: Tokens) -> HeadContext:
    size = len(tokens.valid)
    context = fake_context(head, tokens.features.shape[-1], size)
    return replace(context, tokens=tokens)


def same_box(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one[..., :6], other[..., :6], rtol=0, atol=1e-4)
    torch.testing.assert_close(one[..., 6].cos(), other[..., 6].cos(), rtol=0, atol=1e-4)
    torch.testing.assert_close(one[..., 6].sin(), other[..., 6].sin(), rtol=0, atol=1e-4)
    torch.testing.assert_close(one[..., 7:], other[..., 7:], rtol=0, atol=1e-4)


# -- codes ----------------------------------------------------------------------------------------------------------


def test_a_box_comes_back_from_its_code_whichever_way_it_looks() -> None:
    draw = torch.Generator().manual_seed(0)
    boxes = scene_boxes(draw, 50, 4)
    boxes[:8, 0, 6] = torch.tensor([0.0, math.pi / 2, -math.pi / 2, math.pi, -math.pi, 1e-4, 3.0, -3.0])
    place = boxes[..., :3] + torch.randn(50, 4, 3, generator=draw).clamp(-1.9, 1.9)
    code = encode(boxes, place)
    same_box(decode(code, place, 2.0), boxes)
    assert (decode(code, place, 2.0)[..., 6].abs() <= math.pi + 1e-6).all()
    # By its other side: a quarter turn, edges swapped; twice is half a turn.
    other = decode(swapped(code), place, 2.0)
    wanted = boxes.clone()
    wanted[..., 3:5] = boxes[..., [4, 3]]
    wanted[..., 6] += math.pi / 2
    same_box(other, wanted)
    half = boxes.clone()
    half[..., 6] += math.pi
    same_box(decode(swapped(swapped(code)), place, 2.0), half)
    # Out of reach: what is asked for is held back.
    assert ((decode(code, place, 0.1)[..., :3] - place).abs() <= 0.1 + 1e-6).all()


# -- targets --------------------------------------------------------------------------------------------------------


def test_the_nearest_token_of_each_box_is_hottest_and_only_tokens_inside_are_warm() -> None:
    draw = torch.Generator().manual_seed(1)
    boxes, label = scene_boxes(draw, 3, 4), torch.tensor([[0, 1, 2, 0]]).expand(3, 4)
    tokens = tokens_in(boxes, 6, draw)
    wanted = assign(tokens.position_m, tokens.valid, truth_of(boxes, label), 3, 0.05, 0.5)
    assert wanted.found == 12
    assert not wanted.ignored.any()
    for scene in range(3):
        for box in range(4):
            own = slice(6 * box, 6 * box + 6)
            square = (tokens.position_m[scene, own] - boxes[scene, box, :3]).square().sum(-1)
            sigma = 0.5 * boxes[scene, box, 3:6].norm() / 2
            heat = (-(square - square.min()) / (2 * sigma**2)).exp()
            torch.testing.assert_close(wanted.heat[scene, own, label[scene, box]], heat, rtol=1e-3, atol=1e-4)
            assert (wanted.heat[scene, own] == 1).sum() == 1
            assert wanted.heat[scene, own, label[scene, box]][square.argmin()] == 1
            assert (wanted.owner[scene, own] == box).all()
            torch.testing.assert_close(wanted.weight[scene, own], heat / heat.sum(), rtol=1e-3, atol=1e-4)
    assert (wanted.heat[:, 24:] == 0).all()
    assert (wanted.weight[:, 24:] == 0).all()
    assert ((wanted.heat > 0).sum(-1) <= 1).all()


def test_a_box_without_a_token_inside_takes_the_nearest_if_it_is_near() -> None:
    boxes = torch.tensor([[[0.0, 0, 0, 1, 1, 1, 0, 0, 0]]])
    places = torch.tensor([[[0.7, 0.0, 0.0], [0.75, 0.0, 0.0], [5.0, 0.0, 0.0]]])
    usable = torch.ones(1, 3, dtype=torch.bool)
    near = assign(places, usable, truth_of(boxes, torch.tensor([[1]])), 3, 0.1, 0.5)
    assert near.heat[0].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert near.weight[0].tolist() == [1, 0, 0]
    far = assign(places, torch.tensor([[False, False, True]]), truth_of(boxes, torch.tensor([[1]])), 3, 0.1, 0.5)
    assert not far.heat.any()
    assert not far.weight.any()


def test_boxes_that_need_not_be_found_are_neither_something_nor_nothing() -> None:
    draw = torch.Generator().manual_seed(2)
    boxes, label = scene_boxes(draw, 1, 4), torch.tensor([[0, 1, -1, 2]])
    points = torch.tensor([[5, 4, 50, -1]])
    truth = read_truth(target_of(boxes, label, points=points), 1, 3, 5)
    assert truth.scored.tolist() == [[True, False, False, True]]
    tokens = tokens_in(boxes, 5, draw)
    wanted = assign(tokens.position_m, tokens.valid, truth, 3, 0.05, 0.5)
    assert wanted.ignored[0].tolist() == [False] * 5 + [True] * 10 + [False] * 25
    assert (wanted.heat[0, 5:15] == 0).all()
    assert wanted.found == 2

    head = make_head(least_points=5)
    target = target_of(boxes, label, points=points)
    loud = torch.where(wanted.ignored[..., None], torch.randn(tokens.features.shape), tokens.features)
    ours = head.loss(context_of(head, tokens), target)
    theirs = head.loss(context_of(head, replace(tokens, features=loud)), target)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), f"an ignored token changes {name}"
    judged = head.loss(context_of(head, replace(tokens, features=loud)), target_of(boxes, torch.tensor([[0, 1, 1, 2]])))
    assert judged["heat"] > ours["heat"]


# -- suppression ----------------------------------------------------------------------------------------------------


def picked(score: Tensor, boxes: Tensor, place: Tensor, **changes: object) -> BoxGuess:
    settings = {
        "most": 4, "candidates": 32, "least_score": 0.1, "apart": 0.8, "reach_m": 3.0,
        "frontless": torch.tensor([True, False, False]), "merge": False,
    }  # fmt: skip
    return pick(score, encode(boxes, place), place, **{**settings, **changes})  # type: ignore[arg-type]  # of many types


def test_codes_of_the_truth_come_out_as_the_truth() -> None:
    """Each token says what it should: every box comes out once, whether or not votes are averaged."""
    draw = torch.Generator().manual_seed(3)
    boxes, label = scene_boxes(draw, 2, 3), torch.tensor([[0, 1, 2], [2, 2, 1]])
    tokens = tokens_in(boxes, 6, draw)
    wanted = assign(tokens.position_m, tokens.valid, truth_of(boxes, label), 3, 0.05, 0.5)
    own = boxes.gather(1, wanted.owner[..., None].expand(-1, -1, 9))
    for merge in (False, True):
        guess = picked(wanted.heat, own, tokens.position_m, merge=merge)
        assert guess.valid.tolist() == [[True] * 3 + [False]] * 2
        for scene in range(2):
            order = guess.boxes[scene, :3, 0].argsort()
            same_box(guess.boxes[scene, order], boxes[scene])
            assert torch.equal(guess.label[scene, order], label[scene])
        assert (guess.score[:, :3] == 1).all()
        assert (guess.boxes[:, 3] == 0).all()
        assert (guess.label[:, 3] == -1).all()


def votes(x: list[float], **changes: object) -> BoxGuess:
    """Boxes of 1 x 1 m at these x, of falling score from 0.9 on in steps of 0.1, of class 1."""
    boxes = torch.zeros(1, len(x), 9)
    boxes[0, :, 0] = torch.tensor(x)
    boxes[..., 3:6] = 1.0
    score = torch.zeros(1, len(x), 3)
    score[0, :, 1] = 0.9 - 0.1 * torch.arange(len(x))
    return picked(score, boxes, boxes[..., :3], **changes)


def test_suppression_keeps_the_best_and_what_only_a_suppressed_one_was_near_to() -> None:
    limit = 0.8 / math.sqrt(math.pi)  # the radius of a circle of 1 square metre, times apart
    chain = votes([0.0, 0.9 * limit, 1.8 * limit, 2.7 * limit])
    assert chain.score[0].tolist() == pytest.approx([0.9, 0.7, 0, 0])
    assert votes([0.0, 1.1 * limit]).valid.sum() == 2
    assert votes([0.0, 0.1, 0.2, 5.0], most=1).score.tolist() == [[pytest.approx(0.9)]]
    assert votes([0.0, 3.0, 6.0, 9.0, 12.0], most=3).score[0].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert votes([0.0, 5.0], least_score=0.85).valid.sum() == 1
    assert votes([0.0, 5.0, 10.0], candidates=2).valid.sum() == 2
    assert votes([0.0, 0.0], apart=0.0).valid.sum() == 2
    merged = votes([0.0, 0.3, 5.0], merge=True)
    assert merged.boxes[0, 0, 0].item() == pytest.approx(0.3 * 0.8 / 1.7)
    assert merged.boxes[0, 1, 0].item() == pytest.approx(5.0)
    assert merged.score[0].tolist() == pytest.approx([0.9, 0.7, 0, 0])


def test_suppression_equals_going_through_the_votes_one_by_one() -> None:
    draw = torch.Generator().manual_seed(4)
    boxes = torch.zeros(5, 40, 9)
    boxes[..., :2] = torch.rand(5, 40, 2, generator=draw) * 4 - 2
    boxes[..., 3:6] = 0.3 + torch.rand(5, 40, 3, generator=draw)
    score = torch.rand(5, 40, 3, generator=draw).round(decimals=1)  # with equal ones
    guess = picked(score, boxes, torch.zeros(5, 40, 3), most=120, candidates=120, apart=1.0)
    for scene in range(5):
        kept: list[tuple[int, int]] = []
        flat = score[scene].flatten()
        for index in sorted(range(120), key=lambda k: (-flat[k].item(), k)):
            token, label = divmod(index, 3)
            if flat[index] < 0.1:
                continue
            radius = [(boxes[scene, t, 3] * boxes[scene, t, 4] / math.pi).sqrt() for t, _ in (*kept, (token, label))]
            away = [(boxes[scene, t, :2] - boxes[scene, token, :2]).norm() for t, _ in kept]
            near = [d < (r + radius[-1]) / 2 for d, r in zip(away, radius, strict=False)]
            if not any(n and other == label for n, (_, other) in zip(near, kept, strict=True)):
                kept.append((token, label))
        count = int(guess.valid[scene].sum())
        assert count == len(kept)
        assert guess.label[scene, :count].tolist() == [label for _, label in kept]
        torch.testing.assert_close(guess.boxes[scene, :count, :2], boxes[scene, [t for t, _ in kept], :2])


def test_votes_that_call_a_box_by_its_other_side_are_averaged_as_the_same_box() -> None:
    boxes = torch.zeros(1, 2, 9)
    boxes[0, 0, 3:7] = torch.tensor([2.0, 1.0, 1.0, 0.3])
    boxes[0, 1, 3:7] = torch.tensor([1.0, 2.0, 1.0, 0.3 + math.pi / 2])
    score = torch.zeros(1, 2, 3)
    score[0, :, 0] = torch.tensor([0.9, 0.8])
    same = picked(score, boxes, torch.zeros(1, 2, 3), merge=True)
    same_box(same.boxes[0, 0], boxes[0, 0])
    with_front = picked(score.roll(1, -1), boxes, torch.zeros(1, 2, 3), merge=True)
    assert with_front.boxes[0, 0, 3] < 1.6


# -- the head -------------------------------------------------------------------------------------------------------


def contract_target(size: int = 3) -> CloudBatch:
    draw = torch.Generator().manual_seed(5)
    boxes = torch.rand(size, 2, 9, generator=draw)
    boxes[..., 3:6] += 0.3
    return target_of(boxes, torch.tensor([[0, 1]]).expand(size, 2))


@pytest.mark.parametrize("merge", [False, True])
def test_it_keeps_the_contract_of_heads(merge: bool) -> None:
    check_head(make_head(merge=merge, least_score=0.0), WIDTH, contract_target())


def test_boxes_move_with_their_tokens_and_batch_mates_do_not_matter() -> None:
    draw = torch.Generator().manual_seed(6)
    head = make_head(least_score=0.0).double().eval()
    tokens = tokens_in(scene_boxes(draw, 3, 4), 6, draw)
    tokens = replace(tokens, features=tokens.features.double(), position_m=tokens.position_m.double())
    context = context_of(head, tokens)
    context = replace(context, readouts=context.readouts.double())
    guess = head(context)
    assert guess.valid.any(1).all()
    shift = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64)
    moved = head(replace(context, tokens=replace(tokens, position_m=tokens.position_m + shift)))
    wanted = torch.where(guess.valid[..., None], guess.boxes[..., :3] + shift, 0.0)
    torch.testing.assert_close(moved.boxes[..., :3], wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(moved.boxes[..., 3:], guess.boxes[..., 3:], rtol=0, atol=1e-9)
    assert torch.equal(moved.label, guess.label)
    for scene in range(3):
        one = slice(scene, scene + 1)
        parts = [getattr(tokens, name)[one] for name in ("features", "position_m", "placed", "age_s", "valid")]
        alone = head(replace(context, readouts=context.readouts[one], tokens=Tokens(*parts)))
        torch.testing.assert_close(alone.boxes, guess.boxes[one], rtol=0, atol=1e-9)
        assert torch.equal(alone.label, guess.label[one])


def test_tokens_that_are_absent_or_without_a_place_do_not_vote() -> None:
    draw = torch.Generator().manual_seed(7)
    head = make_head(least_score=0.0).eval()
    tokens = tokens_in(scene_boxes(draw, 2, 2), 4, draw)
    gone = torch.zeros_like(tokens.valid)
    gone[:, ::2] = True
    for changed in (
        replace(tokens, valid=~gone, features=torch.where(gone[..., None], torch.nan, tokens.features)),
        replace(tokens, placed=~gone),
    ):
        few = head(context_of(head, changed))
        kept = replace(
            tokens,
            **{name: getattr(tokens, name)[:, 1::2] for name in ("features", "position_m", "placed", "age_s", "valid")},
        )
        wanted = head(context_of(head, kept))
        torch.testing.assert_close(few.boxes, wanted.boxes, rtol=0, atol=1e-5)
        assert torch.equal(few.label, wanted.label)


def test_scenes_without_tokens_or_boxes() -> None:
    head = make_head(least_score=0.0)
    draw = torch.Generator().manual_seed(8)
    boxes = scene_boxes(draw, 2, 2)
    tokens = tokens_in(boxes, 4, draw)
    dark = replace(tokens, valid=torch.zeros_like(tokens.valid)).cleaned()
    none = Tokens(*(getattr(tokens, n)[:, :0] for n in ("features", "position_m", "placed", "age_s", "valid")))
    empty = target_of(boxes[:, :0], torch.zeros(2, 0, dtype=torch.int64))
    label = torch.tensor([[0, 1], [1, 2]])
    full, padded = target_of(boxes, label), target_of(torch.full_like(boxes, torch.nan), label, torch.zeros(2, 2) > 0)
    for scene in (tokens, dark, none):
        guess = head(context_of(head, scene))
        assert guess.boxes.shape == (2, 8, 9)
        assert guess.boxes.isfinite().all()
        if scene is not tokens:
            assert not guess.valid.any()
        for target in (full, empty, padded):
            head.zero_grad()
            terms = head.loss(context_of(head, scene), target)
            assert all(value.isfinite() for value in terms.values())
            total(terms).backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
    ours, theirs = (head.loss(context_of(head, tokens), target) for target in (empty, padded))
    assert torch.equal(ours["heat"], theirs["heat"])
    assert theirs["box"] == 0


def test_a_velocity_that_is_not_known_is_not_learned() -> None:
    draw = torch.Generator().manual_seed(9)
    head = make_head(velocity_weight=1.0)
    boxes, label = scene_boxes(draw, 1, 2), torch.tensor([[0, 1]])
    tokens = tokens_in(boxes, 4, draw)
    unknown, other = boxes.clone(), boxes.clone()
    unknown[..., 7:] = torch.nan
    other[..., 7:] += 5.0
    known = head.loss(context_of(head, tokens), target_of(boxes, label))["box"]
    assert head.loss(context_of(head, tokens), target_of(other, label))["box"] != known
    terms = head.loss(context_of(head, tokens), target_of(unknown, label))
    total(terms).backward()
    assert terms["box"] < known
    last = head.box[-1]
    assert isinstance(last, torch.nn.Linear)
    assert last.weight.grad is not None
    assert (last.weight.grad[10:] == 0).all()
    assert last.weight.grad[:10].abs().sum(1).min() > 0


def test_the_other_side_is_as_good_only_where_there_is_no_front() -> None:
    draw = torch.Generator().manual_seed(10)
    head = make_head()
    boxes = scene_boxes(draw, 1, 2)
    tokens = tokens_in(boxes, 4, draw)
    other = boxes.clone()
    other[..., 3:5] = boxes[..., [4, 3]]
    other[..., 6] += math.pi / 2
    for label, same in ((0, True), (1, False)):
        both = [
            head.loss(context_of(head, tokens), target_of(each, torch.full((1, 2), label)))["box"].item()
            for each in (boxes, other)
        ]
        assert (both[0] == pytest.approx(both[1], rel=1e-4)) is same


def test_it_learns_two_small_scenes() -> None:
    """From features that are noise, boxes of three classes come out where they are, and none beside them."""
    draw = torch.Generator().manual_seed(11)
    head = make_head()
    boxes, label = scene_boxes(draw, 2, 3), torch.tensor([[0, 1, 2], [2, 1, 1]])
    tokens, target = tokens_in(boxes, 5, draw), target_of(boxes, label)
    context = context_of(head, tokens)
    optimizer = torch.optim.Adam(head.parameters(), lr=4e-3)
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / 300)
        loss = total(head.loss(context, target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    guess = head(context)
    for scene in range(2):
        sure = guess.score[scene] > 0.3
        assert sure.sum() == 3
        order = guess.boxes[scene][sure][:, 0].argsort()
        found = guess.boxes[scene][sure][order]
        assert torch.equal(guess.label[scene][sure][order], label[scene])
        assert (found[:, :3] - boxes[scene, :, :3]).norm(dim=-1).max() < 0.1
        turn = found[:, 6] - boxes[scene, :, 6]
        # The front of a table is not learned, only its axis; of the others both are.
        assert (torch.where(label[scene] == 0, (2 * turn).cos().abs(), turn.cos()) > 0.97).all()


def test_bad_settings_and_targets_are_refused_by_name() -> None:
    for changes, word in (
        ({"frontless": ["sofa"]}, "frontless"),
        ({"most": 0}, "most"),
        ({"candidates": 3}, "candidates"),
        ({"reach_m": 0.0}, "reach_m"),
        ({"spread": math.nan}, "spread"),
        ({"margin_m": -1.0}, "margin_m"),
        ({"least_score": 1.0}, "least_score"),
        ({"hidden": 0}, "hidden"),
    ):
        with pytest.raises(WiringError, match=word):
            make_head(**changes)
    for names in ([], ["a", "a"]):
        with pytest.raises(WiringError, match="classes"):
            BoxHead(WIDTH, names)
    head = make_head()
    good = contract_target()
    assert good.boxes is not None
    for bad, word in (
        (replace(good, boxes=None), "boxes"),
        (replace(good, box_points=None), "boxes"),
        (contract_target(2), "boxes"),
        (replace(good, boxes=good.boxes[..., :7]), "boxes"),
        (replace(good, box_label=torch.full((3, 2), 3)), "box_label"),
    ):
        with pytest.raises(SpecError, match=word):
            head.loss(fake_context(head, WIDTH), bad)
