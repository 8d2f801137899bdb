"""The head that names the whole of what is sensed."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from perceive.batch import Batch
from perceive.heads.base import HeadContext
from perceive.heads.classification import ClassHead
from perceive.points.files.collate import CloudBatch
from perceive.tokens import Tokens
from sensors.errors import SpecError, WiringError
from tests.contracts_torch import check_head

WIDTH = 16
NAMES = ["box", "can", "ball"]


def context(readouts: Tensor) -> HeadContext:
    size = len(readouts)
    none = torch.zeros(size, 0, dtype=torch.bool)
    tokens = Tokens(torch.zeros(size, 0, WIDTH), torch.zeros(size, 0, 3), none, torch.zeros(size, 0), none, {})
    return HeadContext(readouts, tokens, torch.zeros(size, 3), torch.eye(3).expand(size, 3, 3), Batch({}))


def clouds(label: Tensor | None) -> CloudBatch:
    size = 1 if label is None else len(label)
    none: dict[str, Any] = dict.fromkeys(field.name for field in fields(CloudBatch))
    there = {"xyz_m": torch.zeros(size, 1, 3), "valid": torch.zeros(size, 1) > 0, "features": torch.zeros(size, 1, 0)}
    return CloudBatch(**{**none, **there, "label": label})


def constant(logits: list[float]) -> ClassHead:
    """A head that says this whatever it reads."""
    head = ClassHead(WIDTH, NAMES, 8)
    last = head.out[-1]
    with torch.no_grad():
        last.weight.zero_()  # type: ignore[operator]
        last.bias.copy_(torch.tensor(logits))  # type: ignore[operator]
    return head


def test_it_keeps_the_contract_of_heads() -> None:
    torch.manual_seed(0)
    check_head(ClassHead(32, NAMES), 32, torch.tensor([0, -1, 2]))


def test_pooled_it_keeps_the_contract_too() -> None:
    torch.manual_seed(0)
    check_head(ClassHead(32, NAMES, pooled=True), 32, torch.tensor([0, -1, 2]))


def test_pooled_it_sees_the_greatest_values_of_the_tokens_that_are_there() -> None:
    head = ClassHead(WIDTH, NAMES, 8, pooled=True)
    readouts, places = torch.randn(2, 1, WIDTH), torch.zeros(2, 3, 3)
    features = torch.randn(2, 3, WIDTH)
    valid = torch.tensor([[True, True, False], [False, False, False]])
    here = context(readouts)

    def said(values: Tensor, shown: Tensor) -> Tensor:
        tokens = Tokens(values, places, shown, torch.zeros(2, 3), shown, {})
        return head(replace(here, tokens=tokens)).logits

    expected = torch.cat([readouts[:, 0], torch.stack([features[0, :2].amax(0), torch.zeros(WIDTH)])], 1)
    torch.testing.assert_close(said(features, valid), head.out(expected))
    torch.testing.assert_close(head(here).logits[1], said(features, valid)[1])  # no token at all
    hidden = torch.where(valid[..., None], features, 100.0)
    assert torch.equal(said(hidden, valid), said(features, valid))
    order = torch.tensor([1, 0, 2])
    assert torch.equal(said(features[:, order], valid), said(features, valid))
    assert not torch.equal(said(features, torch.ones_like(valid)), said(features, valid))


def test_loss_and_accuracy_by_hand() -> None:
    head = constant([0.0, math.log(2.0), 0.0])  # shares 1/4, 1/2, 1/4
    terms = head.loss(context(torch.randn(4, 1, WIDTH)), torch.tensor([1, 0, -1, 1]))
    assert set(terms) == {"class", "_accuracy"}
    assert float(terms["class"].detach()) == pytest.approx((2 * math.log(2) + math.log(4)) / 3, rel=1e-5)
    assert float(terms["_accuracy"]) == pytest.approx(2 / 3)


def test_labels_of_clouds_teach_as_a_tensor_of_them() -> None:
    torch.manual_seed(0)
    head, label = ClassHead(WIDTH, NAMES), torch.tensor([2, -1, 0])
    seen = context(torch.randn(3, 1, WIDTH))
    ours, theirs = head.loss(seen, clouds(label)), head.loss(seen, label)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_what_is_not_known_teaches_nothing() -> None:
    head = ClassHead(WIDTH, NAMES)
    terms = head.loss(context(torch.randn(2, 1, WIDTH)), torch.tensor([-1, -1]))
    assert (float(terms["class"].detach()), float(terms["_accuracy"])) == (0.0, 0.0)
    terms["class"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 3]), "from 0 to 3"),
        (torch.tensor([0, -2]), "from -2 to 0"),
        (torch.tensor([0.0, 1.0]), "float32"),
        (torch.tensor([0, 1, 2]), r"\[3\]"),
        (clouds(None), "without"),
    ],
)
def test_what_is_no_label_is_refused(target: Tensor | CloudBatch, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ClassHead(WIDTH, NAMES).loss(context(torch.randn(2, 1, WIDTH)), target)


@pytest.mark.parametrize(
    "changes", [{"classes": ["box"]}, {"classes": ["box", "box"]}, {"classes": "box"}, {"hidden": 0}]
)
def test_a_head_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WiringError):
        ClassHead(**{"width": WIDTH, "classes": NAMES, **changes})
