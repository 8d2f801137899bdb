"""Boxes: exact overlaps, and average precision and errors on cases that can be done by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceive.metrics.boxes import (
    GuessedBoxes,
    TrueBoxes,
    average_precision,
    iou_3d,
    iou_bev,
    true_positive_errors,
)
from perceive.metrics.polygons import overlap_m2
from sensors.errors import SpecError

FloatArray = NDArray[np.float64]


def rect(x: float = 0.0, y: float = 0.0, long: float = 1.0, wide: float = 1.0, yaw: float = 0.0) -> FloatArray:
    return np.array([[x, y, 0.0, long, wide, 1.0, yaw]])


def area(one: FloatArray, other: FloatArray) -> float:
    return float(overlap_m2(one, other)[0])


@pytest.mark.parametrize("turn", [0.0, 0.3, math.pi / 2, 2.5, -math.pi])
@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (rect(), rect(), 1.0),  # the same
        (rect(), rect(0.5, 0.25), 0.375),
        (rect(), rect(yaw=math.pi / 4), 2 * (math.sqrt(2) - 1)),  # a regular octagon
        (rect(), rect(yaw=math.pi / 2), 1.0),
        (rect(long=3.0, wide=0.5), rect(long=3.0, wide=0.5, yaw=math.pi / 2), 0.25),  # a cross
        (rect(long=4.0, wide=4.0), rect(0.5, 0.5, 1.0, 0.5, 0.7), 0.5),  # one inside of the other
        (rect(), rect(1.0, 0.0), 0.0),  # they touch along a side
        (rect(), rect(1.0, 1.0), 0.0),  # at a corner
        (rect(), rect(0.5 + math.sqrt(0.5), 0.0, yaw=math.pi / 4), 0.0),  # a corner touches a side
        (rect(wide=2.0), rect(0.5, 0.0, yaw=math.pi / 4), 0.5),  # half a square: its middle lies on the side
        (rect(), rect(0.9, 0.0, 0.0, 1.0), 0.0),  # no area
        (rect(long=0.0, wide=0.0), rect(long=0.0, wide=0.0), 0.0),
        (rect(), rect(50.0, 0.0), 0.0),
    ],
)
def test_shared_areas_are_those_of_plane_geometry(
    one: FloatArray, other: FloatArray, shared: float, turn: float
) -> None:
    """Whichever comes first, and however both are turned and moved together."""
    for first, second in ((one, other), (other, one)):
        assert area(first, second) == pytest.approx(shared, abs=1e-12)
        moved = [_moved(box, turn, (1000.0, -3000.0)) for box in (first, second)]
        assert area(*moved) == pytest.approx(shared, abs=1e-9)


def _moved(boxes: FloatArray, turn: float, shift: tuple[float, float]) -> FloatArray:
    out = boxes.copy()
    cos, sin = math.cos(turn), math.sin(turn)
    out[:, 0] = cos * boxes[:, 0] - sin * boxes[:, 1] + shift[0]
    out[:, 1] = sin * boxes[:, 0] + cos * boxes[:, 1] + shift[1]
    out[:, 6] += turn
    return out


boxes_drawn = st.builds(
    rect,
    st.floats(-1.5, 1.5),
    st.floats(-1.5, 1.5),
    st.floats(0.01, 3.0),
    st.floats(0.01, 3.0),
    st.floats(-7.0, 7.0),
)


@settings(max_examples=100, deadline=None)
@given(boxes_drawn, boxes_drawn)
def test_areas_are_those_of_a_slow_count_of_cells(one: FloatArray, other: FloatArray) -> None:
    """An independent reference: along 800 lines across both, the length that lies in both."""
    found = area(one, other)
    assert found == pytest.approx(area(other, one), abs=1e-12)
    assert -1e-12 <= found <= min(np.prod(one[0, 3:5]), np.prod(other[0, 3:5])) + 1e-12
    assert found == pytest.approx(_by_lines(one[0], other[0]), abs=0.01)


def _by_lines(one: FloatArray, other: FloatArray) -> float:
    reach = float(np.hypot(one[3], one[4])) / 2
    lines, step = np.linspace(one[1] - reach, one[1] + reach, 801, retstep=True)
    middle = lines[:-1] + step / 2
    (low, high), (other_low, other_high) = _chords(one, middle), _chords(other, middle)
    length = np.minimum(high, other_high) - np.maximum(low, other_low)
    return float(np.maximum(np.nan_to_num(length, nan=0.0, posinf=0.0, neginf=0.0), 0.0).sum() * step)


def _chords(box: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """From which to which x lines of these y lie in a rectangle."""
    low, high = np.full(len(y), -np.inf), np.full(len(y), np.inf)
    for angle, half in ((box[6], box[3] / 2), (box[6] + math.pi / 2, box[4] / 2)):
        # |cos (x - bx) + sin (y - by)| <= half
        cos, off = math.cos(angle), math.sin(angle) * (y - box[1])
        if abs(cos) < 1e-9:
            high = np.where(np.abs(off) <= half, high, -np.inf)
            continue
        ends = np.sort(np.stack([(-half - off) / cos, (half - off) / cos]), axis=0) + box[0]
        low, high = np.maximum(low, ends[0]), np.minimum(high, ends[1])
    return low, high


def test_overlaps_are_shares_of_the_union() -> None:
    one = np.array([[0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    other = np.array(
        [
            [1.0, 0.0, 0.0, 2.0, 2.0, 2.0, math.pi / 2],
            [0.0, 0.0, 1.0, 2.0, 2.0, 2.0, math.pi],
            [0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 0.0],  # on top of the first
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    np.testing.assert_allclose(iou_bev(one, other), [[1 / 3, 1.0, 1.0, 0.0], [0.0] * 4], atol=1e-12)
    np.testing.assert_allclose(iou_3d(one, other), [[1 / 3, 1 / 3, 0.0, 0.0], [0.0] * 4], atol=1e-12)
    np.testing.assert_allclose(np.diag(iou_3d(other[:3], other[:3])), 1.0, atol=1e-12)
    assert iou_3d(one[:0], other).shape == (0, 4)
    assert iou_bev(one, other[:0]).shape == (2, 0)
    with_velocity = np.concatenate([other, np.full((4, 2), np.nan)], axis=1)
    np.testing.assert_array_equal(iou_3d(one, with_velocity), iou_3d(one, other))


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 6)), np.zeros(7), np.full((1, 7), np.nan), np.array([[0, 0, 0, -1.0, 1, 1, 0]])]
)
def test_what_is_no_box_is_refused(bad: FloatArray) -> None:
    for measure in (iou_bev, iou_3d):
        with pytest.raises(SpecError):
            measure(bad, rect())
        with pytest.raises(SpecError):
            measure(rect(), bad)
    with pytest.raises(SpecError):
        GuessedBoxes(bad, np.zeros(len(bad)), np.zeros(len(bad), int))


# -- average precision ----------------------------------------------------------------------------------------------


def places(*x: float) -> FloatArray:
    return np.concatenate([rect(each) for each in x]) if x else np.zeros((0, 7))


def guessed(x: Sequence[float], score: Sequence[float], label: Sequence[int] | None = None) -> GuessedBoxes:
    return GuessedBoxes(places(*x), np.array(score, float), np.array(label or [0] * len(x), int))


def true(x: Sequence[float], ignored: Sequence[int] = (), label: Sequence[int] | None = None) -> TrueBoxes:
    return TrueBoxes(places(*x), np.array(label or [0] * len(x), int), np.isin(np.arange(len(x)), ignored))


def test_perfect_guesses_are_1_by_every_measure() -> None:
    rng = np.random.default_rng(0)
    guesses, truths = [], []
    for count in (4, 0, 7):
        boxes = np.concatenate([rng.uniform(-20, 20, (count, 3)), rng.uniform(0.2, 3, (count, 3))], axis=1)
        boxes = np.concatenate([boxes, rng.uniform(-3, 3, (count, 1)), rng.normal(size=(count, 2))], axis=1)
        label = rng.integers(0, 2, count)
        order = rng.permutation(count)
        guesses.append(GuessedBoxes(boxes[order], rng.uniform(size=count), label[order]))
        truths.append(TrueBoxes(boxes, label, np.zeros(count, bool)))
    for by, limits in (("distance", (0.5, 1.0, 2.0, 4.0)), ("iou_3d", (0.5, 1.0)), ("iou_bev", (0.7, 1.0))):
        score = average_precision(guesses, truths, 3, by, limits)
        np.testing.assert_allclose(score.average[:2], 1.0, rtol=1e-12)
        assert np.isnan(score.average[2]).all()
        assert score.mean == pytest.approx(1.0)
        assert score.truths.tolist() == [*np.bincount(np.concatenate([t.label for t in truths])), 0]
    errors = true_positive_errors(guesses, truths, 3)
    for value in (errors.translation_m, errors.scale, errors.orientation_rad, errors.velocity_m_s):
        np.testing.assert_allclose(value[:2], 0.0, atol=1e-12)
        assert np.isnan(value[2])


def test_curves_done_by_hand() -> None:
    """Right, wrong, right of three: recall 1/3, 1/3, 2/3; precision 1, 1/2, 2/3."""
    guess, truth = guessed([0.0, 50.0, 10.0], [0.9, 0.8, 0.7]), true([0.0, 10.0, 20.0])
    score = average_precision([guess], [truth], 1, "iou_3d", [0.5])
    assert score.average[0, 0] == pytest.approx(1 / 3 * 1.0 + 1 / 3 * 2 / 3)
    assert score.recall[0, 0] == pytest.approx(2 / 3)

    # Wrong, right, right of two: what comes later and is better raises what is before it, 1/2 to 2/3.
    later = average_precision([guessed([50.0, 0.0, 10.0], [0.9, 0.8, 0.7])], [true([0.0, 10.0])], 1, "iou_3d", [0.5])
    assert later.average[0, 0] == pytest.approx(2 / 3)

    # nuScenes: precision between guesses is read linearly; the first one's also before it; nothing after the last.
    def read(recall: float) -> float:
        if recall <= 1 / 3:
            return 1.0
        return 0.5 + (recall - 1 / 3) / (1 / 3) * (2 / 3 - 0.5) if recall <= 2 / 3 else 0.0

    wanted = np.mean([max(read(k / 100) - 0.1, 0.0) for k in range(11, 101)]) / 0.9
    assert average_precision([guess], [truth], 1, thresholds=[1.0]).average[0, 0] == pytest.approx(wanted)


def test_nothing_guessed_is_0_and_nothing_there_is_no_number() -> None:
    none = average_precision([guessed([], [])], [true([0.0])], 1)
    assert none.average.tolist() == [[0.0] * 4]
    assert none.recall.tolist() == [[0.0] * 4]
    assert true_positive_errors([guessed([], [])], [true([0.0])], 1).translation_m.tolist() == [1.0]
    empty = average_precision([guessed([0.0], [0.5])], [true([])], 1)
    assert np.isnan(empty.average).all()
    assert math.isnan(empty.mean)


def test_a_second_guess_at_a_box_is_wrong() -> None:
    truth = [true([0.0, 10.0])]
    twice = average_precision([guessed([0.0, 0.1, 10.0], [0.9, 0.8, 0.7])], truth, 1, "iou_3d", [0.5])
    assert twice.average[0, 0] == pytest.approx(0.5 + 0.5 * 2 / 3)
    once = average_precision([guessed([0.0, 10.0], [0.9, 0.7])], truth, 1, "iou_3d", [0.5])
    assert once.average[0, 0] == pytest.approx(1.0)


def test_the_higher_score_takes_the_better_box_first() -> None:
    """The first guess fits both boxes and takes the nearer one, so that the second has none left."""
    truth = [true([0.0, 1.0])]
    one = average_precision([guessed([0.45, 0.0], [0.9, 0.8])], truth, 1, thresholds=[0.5])
    assert one.recall[0, 0] == 0.5
    other = average_precision([guessed([0.55, 0.0], [0.9, 0.8])], truth, 1, thresholds=[0.5])
    assert other.recall[0, 0] == 1.0


def test_of_equal_scores_the_first_comes_first() -> None:
    truth = [true([0.0]), true([5.0])]
    good, bad = guessed([0.0], [0.5]), guessed([9.0], [0.5])
    wrong_first = average_precision([bad, guessed([5.0], [0.5])], truth, 1, "iou_3d", [0.5])
    right_first = average_precision([good, bad], truth, 1, "iou_3d", [0.5])
    assert right_first.average[0, 0] == pytest.approx(0.5)
    assert wrong_first.average[0, 0] == pytest.approx(0.25)


def test_a_distance_must_be_below_its_threshold_and_an_overlap_at_least_its_own() -> None:
    half = [guessed([0.5], [1.0])], [true([0.0])]
    assert average_precision(*half, 1, thresholds=[0.5]).recall[0, 0] == 0.0
    assert average_precision(*half, 1, thresholds=[0.5 + 1e-9]).recall[0, 0] == 1.0
    assert average_precision(*half, 1, "iou_3d", [1 / 3]).recall[0, 0] == 1.0
    assert average_precision(*half, 1, "iou_3d", [1 / 3 + 1e-6]).recall[0, 0] == 0.0


def test_ignored_boxes_neither_count_nor_punish() -> None:
    plain = average_precision([guessed([0.0, 10.0], [0.5, 0.4])], [true([0.0, 10.0])], 1, "iou_3d", [0.5])
    truth = [true([0.0, 10.0, 20.0, 30.0], ignored=(2, 3))]
    guess = [guessed([20.0, 20.1, 0.0, 10.0], [0.9, 0.8, 0.5, 0.4])]  # two at one of them, none at the other
    score = average_precision(guess, truth, 1, "iou_3d", [0.5])
    assert score.truths[0] == 2
    np.testing.assert_array_equal(score.average, plain.average)
    counted = average_precision(guess, [true([0.0, 10.0, 20.0, 30.0])], 1, "iou_3d", [0.5])
    assert counted.average[0, 0] < 1.0
    # A box that counts is taken before one that does not, also if that one fits better.
    both = average_precision([guessed([0.1], [0.9])], [true([0.0, 0.1], ignored=(1,))], 1, "iou_3d", [0.5])
    assert both.average[0, 0] == 1.0


def test_classes_and_scenes_do_not_mix() -> None:
    truth = [true([0.0, 10.0], label=[0, 1]), true([20.0], label=[1])]
    guess = [guessed([0.0, 10.0, 20.0], [0.9, 0.8, 0.7], [1, 0, 1]), guessed([0.0], [0.6], [1])]
    assert average_precision(guess, truth, 2).recall.tolist() == [[0.0] * 4, [0.0] * 4]
    unknown = average_precision(guess, [true([0.0, 10.0, 20.0], label=[-1, -1, -1]), true([0.0], label=[1])], 2)
    assert unknown.truths.tolist() == [0, 1]
    assert unknown.average[1].tolist() == pytest.approx([1.0] * 4)  # guesses at boxes of no known class are let be


def test_errors_are_those_of_the_boxes_that_were_found() -> None:
    base = np.array([[0.0, 0.0, 0.0, 2.0, 1.0, 1.0, 0.1, 1.0, 0.0]])
    guess = np.array([[0.3, 0.4, 9.0, 1.0, 1.0, 1.0, 0.1 + 1.5 * math.pi, 1.0, 2.0]])
    one = [GuessedBoxes(guess, np.ones(1), np.zeros(1, int))], [TrueBoxes(base, np.zeros(1, int), np.zeros(1, bool))]
    errors = true_positive_errors(*one, 1)
    assert errors.translation_m[0] == pytest.approx(0.5)  # as seen from above
    assert errors.scale[0] == pytest.approx(0.5)
    assert errors.orientation_rad[0] == pytest.approx(math.pi / 2)
    assert errors.velocity_m_s[0] == pytest.approx(2.0)
    assert true_positive_errors(*one, 1, period_rad=[math.pi / 2]).orientation_rad[0] == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(true_positive_errors(*one, 1, period_rad=[0.0]).orientation_rad[0])
    assert true_positive_errors(*one, 1, within_m=0.4).scale[0] == 1.0
    still = TrueBoxes(base[:, :7], np.zeros(1, int), np.zeros(1, bool))
    assert np.isnan(true_positive_errors(one[0], [still], 1).velocity_m_s[0])


def test_errors_are_means_over_recall() -> None:
    """Errors 0.2 and 0.6 of two boxes of two: a mean of 0.2 up to recall 1/2, then it rises to 0.4 at recall 1."""
    errors = true_positive_errors([guessed([0.2, 10.6], [0.9, 0.8])], [true([0.0, 10.0])], 1)
    wanted = np.mean([np.interp(k / 100, [0.5, 1.0], [0.2, 0.4]) for k in range(11, 101)])
    assert errors.translation_m[0] == pytest.approx(wanted)


def test_bad_input_is_refused_by_name() -> None:
    guess, truth = [guessed([0.0], [1.0])], [true([0.0])]
    for case in (
        lambda: average_precision(guess, truth * 2, 1),
        lambda: average_precision([], [], 1),
        lambda: average_precision(guess, truth, 0),
        lambda: average_precision(guess, truth, 1, "iou"),
        lambda: average_precision(guess, truth, 1, "iou_3d", [1.5]),
        lambda: average_precision(guess, truth, 1, thresholds=[]),
        lambda: average_precision(guess, truth, 1, thresholds=[0.0]),
        lambda: average_precision([guessed([0.0], [1.0], [1])], truth, 1),
        lambda: average_precision([guessed([0.0], [1.0], [-1])], truth, 1),
        lambda: true_positive_errors(guess, truth, 1, period_rad=[1.0, 2.0]),
        lambda: true_positive_errors(guess, truth, 1, within_m=0.0),
        lambda: guessed([0.0], [math.nan]),
        lambda: guessed([0.0], [1.0, 2.0]),
        lambda: TrueBoxes(places(0.0), np.zeros(2, int), np.zeros(1, bool)),
    ):
        with pytest.raises(SpecError):
            case()
