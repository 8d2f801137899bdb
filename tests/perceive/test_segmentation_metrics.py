"""Confusion matrices and what follows from them: closed forms, and a slow reference that counts point by point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from perceive.metrics import segmentation
from perceive.metrics.segmentation import Segmentation, confusion
from sensors.errors import SpecError


def test_a_case_by_hand() -> None:
    truth = [0, 0, 0, 1, 1, 2, -1]
    guess = [0, 0, 1, 1, 2, 2, 0]
    counts = confusion(guess, truth, 4)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    result = Segmentation(counts)
    assert result.points == 6
    np.testing.assert_allclose(result.iou, [2 / 3, 1 / 3, 1 / 2, math.nan])
    np.testing.assert_allclose(result.recall, [2 / 3, 1 / 2, 1, math.nan])
    np.testing.assert_allclose(result.precision, [1, 1 / 2, 1 / 2, math.nan])
    assert result.mean_iou == pytest.approx(1 / 2)
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.mean_accuracy == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


def test_a_class_that_is_only_guessed_has_iou_0_and_one_that_is_nowhere_has_none() -> None:
    result = Segmentation(confusion([1, 0], [0, 0], 3))
    np.testing.assert_array_equal(result.iou, [0.5, 0.0, math.nan])
    np.testing.assert_array_equal(result.recall, [0.5, math.nan, math.nan])
    assert (result.mean_iou, result.mean_accuracy) == (0.25, 0.5)


def test_all_right_is_1_and_nothing_at_all_is_nan() -> None:
    right = Segmentation(confusion([[0, 1], [2, 2]], [[0, 1], [2, 2]], 3))
    assert (right.mean_iou, right.accuracy, right.mean_accuracy) == (1.0, 1.0, 1.0)
    for empty in (confusion([], [], 3), confusion([7, -4], [-1, -1], 3)):  # guesses where nothing is known: not read
        result = Segmentation(empty)
        assert result.points == 0
        assert np.isnan([result.mean_iou, result.accuracy, result.mean_accuracy]).all()


def slowly(guess: Any, truth: Any, classes: int, ignore: int) -> dict[str, Any]:
    """Each class by sets of points, without a matrix."""
    known = [i for i, t in enumerate(truth) if t != ignore]
    iou, recall = [], []
    for label in range(classes):
        mine, his = {i for i in known if guess[i] == label}, {i for i in known if truth[i] == label}
        iou.append(len(mine & his) / len(mine | his) if mine | his else math.nan)
        recall.append(len(mine & his) / len(his) if his else math.nan)
    there, found = ([value for value in values if not math.isnan(value)] for values in (iou, recall))
    return {
        "iou": iou,
        "mean_iou": sum(there) / len(there) if there else math.nan,
        "mean_accuracy": sum(found) / len(found) if found else math.nan,
        "accuracy": sum(guess[i] == truth[i] for i in known) / len(known) if known else math.nan,
    }


@given(st.data(), st.integers(1, 5), st.integers(0, 40), st.sampled_from([-1, 255, 0]))
def test_as_counted_point_by_point(data: st.DataObject, classes: int, points: int, ignore: int) -> None:
    known = st.integers(0, classes - 1)
    truth = data.draw(arrays.arrays(np.int64, points, elements=st.one_of(known, st.just(ignore))))
    guess = data.draw(arrays.arrays(np.uint8, points, elements=known))
    result = Segmentation(confusion(guess, truth, classes, ignore))
    for name, wanted in slowly(guess.tolist(), truth.tolist(), classes, ignore).items():
        np.testing.assert_allclose(getattr(result, name), wanted, err_msg=name)


@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_parts_of_a_set_add_up_in_any_cut(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    guess, truth = rng.integers(0, 4, 30), rng.integers(-1, 4, 30)
    whole = confusion(guess, truth, 4)
    parts = [confusion(guess[:cut], truth[:cut], 4), confusion(guess[cut:], truth[cut:], 4)]
    np.testing.assert_array_equal(parts[0] + parts[1], whole)
    np.testing.assert_array_equal(Segmentation.of(parts).confusion, whole)


def test_large_clouds_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    guess, truth = rng.integers(0, 5, (7, 11)), rng.integers(-1, 5, (7, 11))
    whole = confusion(guess, truth, 5)
    monkeypatch.setattr(segmentation, "_ROWS", 10)
    np.testing.assert_array_equal(confusion(guess, truth, 5), whole)
    assert whole.sum() == (truth >= 0).sum()


@pytest.mark.parametrize(
    ("guess", "truth", "classes", "message"),
    [
        ([0, 1], [0], 2, "one shape"),
        ([0.0], [0], 2, "whole numbers"),
        ([0], [0.0], 2, "whole numbers"),
        ([2], [0], 2, "confusion.pred"),
        ([-1], [0], 2, "confusion.pred"),
        ([0], [2], 2, "confusion.truth"),
        ([0], [-2], 2, "confusion.truth"),
        ([0], [0], 0, "classes"),
    ],
)
def test_what_is_no_label_is_refused(guess: list[float], truth: list[float], classes: int, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        confusion(guess, truth, classes)


def test_what_is_no_confusion_matrix_is_refused() -> None:
    for wrong in (
        np.zeros((2, 3), int),
        np.zeros(4, int),
        np.full((2, 2), 0.5),
        -np.eye(2, dtype=int),
        np.zeros((0, 0), int),
    ):
        with pytest.raises(SpecError, match="counts"):
            Segmentation(wrong)
    for wrongs in ([], [np.zeros((2, 2), int), np.zeros((3, 3), int)]):
        with pytest.raises(SpecError, match="one S"):
            Segmentation.of(wrongs)
