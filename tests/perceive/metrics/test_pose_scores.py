import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.metrics.pose_matching import area_under_recall, average_precision, by_score, match
from perceive.metrics.pose_scores import score_bop19, score_bop24
from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import Symmetries
from sensors.errors import DataError, SpecError
from tests.perceive.metrics import pose_reference as ref
from tests.perceive.metrics.pose_case_files import Instance, Memory, Row, Target

LENS = np.array([60.0, 60.0, 15.5, 11.5])
FACES = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]


def at(x, y=0.0, z=0.4):
    out = np.eye(4)
    out[:3, 3] = x, y, z
    return out


def dataset(*places, share=1.0, count=None):
    points = np.array([[0, 0, 0], [0.05, 0, 0], [0, 0.06, 0], [0.01, 0.01, 0.07]])
    half = np.diag([-1.0, -1.0, 1.0, 1.0])
    models = {
        1: ObjectModel.make(1, "wedge", points, FACES),
        2: ObjectModel.make(2, "other", points, FACES, symmetries=Symmetries.make([half])),
    }
    truths = [[Instance(1, at(x), share) for x in places]]
    targets = [Target(0, 1, len(places) if count is None else count)]
    return Memory(models, truths, [np.zeros((24, 32))], targets, LENS)


def test_the_truth_scores_one():
    data = dataset(-0.06, 0.06)
    rows = [Row(0, 1, 0.5, at(x), 0.25) for x in (0.06, -0.06)]
    recall, precision = score_bop19(data, rows, threads=1), score_bop24(data, rows)
    assert (recall.ar, recall.ar_vsd, recall.ar_mssd, recall.ar_mspd) == (1, 1, 1, 1)
    assert (recall.add_recall, recall.add_auc, recall.targets, recall.unused) == (1, 1, 2, 0)
    assert (precision.ap, precision.ap_mssd_mm, precision.targets, recall.time_s) == (1, 1, 2, 0.25)


def test_no_estimates_score_zero():
    data = dataset(0.0)
    recall, precision = score_bop19(data, [], threads=1), score_bop24(data, [])
    assert (recall.ar, recall.add_recall, recall.add_auc, recall.targets, recall.time_s) == (0, 0, 0, 1, None)
    assert precision.ap == 0
    assert list(recall.objects) == [1]


def test_only_as_many_estimates_as_targets_count_and_equal_scores_keep_their_order():
    data = dataset(0.0)
    good, bad = Row(0, 1, 0.5, at(0.0)), Row(0, 1, 0.5, at(0.3))
    assert score_bop19(data, [good, bad], threads=1).ar == 1
    assert score_bop19(data, [bad, good], threads=1).ar == 0
    assert score_bop24(data, [bad, good]).ap == pytest.approx(0.5)


def test_the_most_visible_instances_are_valid():
    data = dataset(-0.06, 0.06, count=1)
    data.truths[0] = [Instance(1, at(-0.06), 0.3), Instance(1, at(0.06), 0.9)]
    assert score_bop19(data, [Row(0, 1, 1.0, at(0.06))], threads=1).ar == 1
    assert score_bop19(data, [Row(0, 1, 1.0, at(-0.06))], threads=1).ar_mssd == 0


def test_hidden_instances_neither_help_nor_hurt_precision():
    data = dataset(-0.06, 0.06)
    data.truths[0] = [Instance(1, at(-0.06), 0.05), Instance(1, at(0.06), 0.9)]
    found = score_bop24(data, [Row(0, 1, 0.9, at(-0.06)), Row(0, 1, 0.5, at(0.06))])
    assert (found.ap, found.targets) == (1, 1)
    data.truths[0][0] = Instance(1, at(-0.06), 0.5)
    assert score_bop24(data, [Row(0, 1, 0.5, at(0.06))]).ap == pytest.approx(51 / 101)


def test_a_diameter_apart_is_never_found_and_add_auc_sees_it():
    data = dataset(0.0)
    found = score_bop19(data, [Row(0, 1, 1.0, at(0.095, z=0.4))], threads=1)
    assert data.models[1].diameter_m < 0.095
    assert found.ar_mssd == 0
    assert found.add_recall == 0
    assert found.add_auc == pytest.approx(0.05)  # the area knows no such rule


def test_thresholds_are_strict_and_scaled_by_the_width():
    data = dataset(0.0)
    size = data.models[1].diameter_m
    off = [at(0.1 * size * (1 + sign * 1e-9)) for sign in (-1, 1)]
    inside, outside = (score_bop19(data, [Row(0, 1, 1.0, one)], threads=1) for one in off)
    assert (inside.ar_mssd, outside.ar_mssd) == (0.9, 0.8)
    assert (inside.add_recall, outside.add_recall) == (1, 0)
    pixels = 60 * 0.1 * size / 0.4 * 640 / 32  # the nearest vertex; half of them are at z = 0.4
    assert inside.ar_mspd == pytest.approx(np.mean(pixels < np.arange(5, 51, 5)))
    assert 0 < inside.ar_mspd < 1


def test_unused_rows_are_counted():
    data = dataset(0.0)
    rows = [Row(0, 1, 1.0, at(0.0)), Row(7, 1, 1.0, at(0.0)), Row(0, 2, 1.0, at(0.0))]
    assert score_bop19(data, rows, threads=1).unused == 2
    assert score_bop24(data, rows).unused == 2
    many = [Row(0, 1, 1.0 - 0.001 * k, at(0.2)) for k in range(100)] + [Row(0, 1, 0.1, at(0.0))]
    assert score_bop24(data, many).ap == 0
    assert score_bop24(data, many).unused == 1
    assert score_bop24(data, many, most=101).ap == pytest.approx(1 / 101)


def test_scores_go_to_json_and_to_a_table():
    data = dataset(0.0)
    for scores in (
        score_bop19(data, [Row(0, 1, 1.0, at(0.0))], threads=1),
        score_bop24(data, [Row(0, 1, 1.0, at(0.0))]),
    ):
        record = json.loads(json.dumps(scores.as_dict(), allow_nan=False))
        assert record["objects"]["1"]["targets"] == 1
        lines = scores.table().splitlines()
        assert len(lines) == 3
        assert "wedge" in lines[1]
        assert "1.0000" in lines[2]
        assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    "rows",
    [
        [Row(0, 1, float("nan"), at(0.0))],
        [Row(0, 1, 1.0, np.full((4, 4), np.nan))],
        [Row(0, 1, 1.0, np.diag([1000.0, 1000.0, 1000.0, 1.0]))],
        [Row(0, 1, 1.0, at(0.0), 0.1), Row(0, 1, 0.9, at(0.0), 0.2)],
    ],
)
def test_bad_rows_are_named(rows):
    for score in (score_bop19, score_bop24):
        with pytest.raises(DataError):
            score(dataset(0.0), rows)


def test_nothing_to_find_and_no_model_are_errors():
    empty = dataset(share=0.0)
    for score in (score_bop19, score_bop24):
        with pytest.raises(DataError):
            score(empty, [])
    unknown = dataset(0.0)
    unknown.truths[0].append(Instance(9, at(0.0), 1.0))
    with pytest.raises(DataError):
        score_bop24(unknown, [])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_matching_equals_the_greedy_rule(seed):
    rng = np.random.default_rng(seed)
    errors = rng.integers(0, 6, (rng.integers(0, 6), rng.integers(0, 5))) / 4.0  # many ties
    errors[rng.random(errors.shape) < 0.1] = np.inf
    valid = rng.random(errors.shape[1]) < 0.7
    limits = [0.25, 0.5, 0.75, 2.0]
    found = match(errors, limits, valid)
    for limit, row in zip(limits, found, strict=True):
        want = ref.greedy(errors.tolist(), [0.0] * len(errors), limit, valid.tolist())
        assert {e: g for e, g in enumerate(row.tolist()) if g >= 0} == want


def test_matching_of_many_groups_in_one_call():
    """Levels are independent: each may have instances of its own that may be found, and groups can be stacked."""
    rng = np.random.default_rng(3)
    errors, limits, valid = rng.random((7, 4, 3)), rng.random(7), rng.random((7, 3)) < 0.6
    want = [match(error, limit[None], free)[0] for error, limit, free in zip(errors, limits, valid, strict=True)]
    np.testing.assert_array_equal(match(errors, limits, valid), want)
    assert len(np.unique(want)) == 4
    with pytest.raises(SpecError, match="valid"):
        match(errors, limits, valid[:6])


def test_pictures_of_different_shapes_are_matched_as_alone():
    """Groups with 0, 1 and 2 estimates of 1 and 2 instances, and one of another object that is not found."""
    one, two = dataset(0.0), dataset(-0.08, 0.08)
    data = Memory(
        one.models,
        [[*one.truths[0], Instance(2, at(0.08), 1.0)], *two.truths, *two.truths, *one.truths],
        [np.zeros((24, 32))] * 4,
        [Target(0, 1, 1), Target(0, 2, 1), Target(1, 1, 2), Target(2, 1, 1), Target(3, 1, 1)],
        LENS,
    )
    rows = [Row(0, 1, 0.5, at(0.0)), Row(1, 1, 0.9, at(0.08)), Row(1, 1, 0.8, at(-0.08)), Row(2, 1, 0.7, at(-0.08))]
    scores = score_bop19(data, [*rows, Row(0, 2, 0.5, at(-0.08))], threads=1)
    assert scores.targets == 6
    assert scores.objects[2].ar == 0.0
    first = scores.objects[1]
    found = [first.ar_vsd, first.ar_mssd, first.ar_mspd, first.add_recall]
    assert found == pytest.approx([4 / 5] * 4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), max_size=30), st.integers(1, 20))
def test_precision_equals_the_definition(right, spare):
    targets = sum(right) + spare
    assert average_precision(right, targets) == pytest.approx(ref.average_precision(right, targets), abs=1e-12)


def test_small_rules():
    assert by_score([0.5, 0.9, 0.5, 0.9]).tolist() == [1, 3, 0, 2]
    assert match([[np.nan, 0.2]], [0.5]).tolist() == [[1]]
    assert match(np.zeros((2, 0)), [0.5, 1.0]).tolist() == [[-1, -1], [-1, -1]]
    assert area_under_recall([0.0, 0.05, 0.2], 4, 0.1) == pytest.approx(1.5 / 4)
    with pytest.raises(DataError):
        by_score([0.1, np.nan])
    with pytest.raises(SpecError):
        match(np.zeros((2, 2)), 0.5)
    with pytest.raises(SpecError):
        match(np.zeros((2, 2)), [0.5], [True])
    with pytest.raises(SpecError):
        average_precision([True], 0)
