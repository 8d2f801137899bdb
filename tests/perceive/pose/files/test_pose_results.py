from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from perceive.pose.files.results_file import HEADER, PoseRow, read_results, write_results
from perceive.pose.files.view import ViewKey
from sensors.errors import DataError, SpecError
from sensors.geometry import axis_angle_to_matrix

EXACT = "3,7,2,0.75,1 0 0 0 0 -1 0 1 0,10.5 -20 800,0.25"


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "results.csv"
    path.write_text("\n".join((HEADER, *lines)) + "\n")
    return path


def row(turn: ArrayLike = (0.1, -0.2, 0.3), image: int = 1, time_s: float = -1.0) -> PoseRow:
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = axis_angle_to_matrix(np.asarray(turn)), (0.1, 0.2, 0.9)
    return PoseRow(ViewKey(4, image), 9, 0.5, transform, time_s)


def test_a_line_written_by_hand_is_read_row_by_row_and_in_metres(tmp_path: Path) -> None:
    (found,) = read_results(written(tmp_path, EXACT))
    assert (found.key, found.number, found.score, found.time_s) == (ViewKey(3, 7), 2, 0.75, 0.25)
    expected = np.array([[1, 0, 0, 0.0105], [0, 0, -1, -0.02], [0, 1, 0, 0.8], [0, 0, 0, 1]])
    np.testing.assert_allclose(found.camera_from_object, expected, atol=1e-15)


def test_what_is_written_is_the_format_to_the_letter(tmp_path: Path) -> None:
    transform = np.array([[1.0, 0, 0, 0.5], [0, 0, -1, -0.25], [0, 1, 0, 2.0], [0, 0, 0, 1]])
    rows = [
        PoseRow(ViewKey(3, 7), 2, 0.75, transform, 0.25),
        PoseRow(ViewKey(3, 8), 2, -1.5, transform),
    ]
    write_results(tmp_path / "r.csv", rows)
    pose = "1.0 0.0 0.0 0.0 0.0 -1.0 0.0 1.0 0.0,500.0 -250.0 2000.0"
    expected = f"scene_id,im_id,obj_id,score,R,t,time\n3,7,2,0.75,{pose},0.25\n3,8,2,-1.5,{pose},-1\n"
    assert (tmp_path / "r.csv").read_text() == expected


_floats = st.floats(-3.0, 3.0, allow_nan=False)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(
        st.tuples(st.integers(0, 999999), st.integers(0, 3), st.tuples(*[_floats] * 3), st.tuples(*[_floats] * 3)),
        max_size=5,
    )
)
def test_what_is_written_is_read_again(tmp_path: Path, data: list[tuple[int, int, Any, Any]]) -> None:
    rows = []
    for scene, image, turn, shift in data:
        one = row(turn)
        one.camera_from_object[:3, 3] = shift
        rows.append(PoseRow(ViewKey(scene, image), 3, float(np.sum(shift)), one.camera_from_object, 0.1 * image))
    write_results(tmp_path / "r.csv", rows)
    found = read_results(tmp_path / "r.csv")
    assert len(found) == len(rows)
    for one, other in zip(found, rows, strict=True):
        assert (one.key, one.number, one.score, one.time_s) == (other.key, other.number, other.score, other.time_s)
        np.testing.assert_allclose(one.camera_from_object, other.camera_from_object, rtol=0, atol=1e-12)


def test_a_half_turn_is_not_taken_for_its_inverse_nor_for_nothing(tmp_path: Path) -> None:
    turned = row((np.pi * 0.6, 0.0, np.pi * 0.8))
    write_results(tmp_path / "r.csv", [turned])
    found = read_results(tmp_path / "r.csv")[0].camera_from_object[:3, :3]
    np.testing.assert_allclose(found @ [0.6, 0, 0.8], [0.6, 0, 0.8], atol=1e-12)  # the axis stays
    np.testing.assert_allclose(found @ [0, 1, 0], [0, -1, 0], atol=1e-12)
    quarter = row((0.0, 0.0, np.pi / 2))
    write_results(tmp_path / "q.csv", [quarter])
    found = read_results(tmp_path / "q.csv")[0].camera_from_object[:3, :3]
    np.testing.assert_allclose(found @ [1, 0, 0], [0, 1, 0], atol=1e-12)  # its transpose would give [0, -1, 0]


def test_few_digits_are_still_a_rotation_and_an_empty_file_of_estimates_is_one(tmp_path: Path) -> None:
    c, s = f"{np.cos(0.7):.4f}", f"{np.sin(0.7):.4f}"
    assert len(read_results(written(tmp_path, f"1,1,1,1,{c} -{s} 0 {s} {c} 0 0 0 1,0 0 1,-1", ""))) == 1
    assert read_results(written(tmp_path)) == ()


@pytest.mark.parametrize(
    ("line", "expected", "got"),
    [
        (EXACT + ",1", "7 fields", "8"),
        (EXACT.rpartition(",")[0], "7 fields", "6"),
        (EXACT.replace("10.5 -20 800", "10.5 -20"), "t as 3 numbers", "10.5 -20"),
        (EXACT.replace("1 0 0 0 0 -1 0 1 0", "1 0 0 0 0 -1 0 1"), "R as 9 numbers", "1 0 0"),
        (EXACT.replace("800", "far"), "t as 3 numbers", "far"),
        (EXACT.replace("800", "nan"), "t as 3 numbers", "nan"),
        (EXACT.replace("0.75", "inf"), "score as 1", "inf"),
        (EXACT.replace("3,7,2", "3,7.5,2"), "im_id as a whole number", "7.5"),
        (EXACT.replace("3,7,2", "-3,7,2"), "scene_id as a whole number", "-3"),
        (EXACT.replace("1 0 0 0 0 -1 0 1 0", "1 0 0 0 1 0 0 0 -1"), "a rotation", "0 0 -1"),  # a reflection
        (EXACT.replace("1 0 0 0 0 -1 0 1 0", "1.1 0 0 0 1 0 0 0 1"), "a rotation", "1.1"),
        (EXACT.replace("1 0 0 0 0 -1 0 1 0", "0 0 0 0 0 0 0 0 0"), "a rotation", "0 0 0"),
        (EXACT.replace(",0.25", ",-0.5"), "a time of 0 s or more", "-0.5"),
        (EXACT.replace(",0.25", ",0.3"), "the time 0.25 s as in line 2", "0.3"),
        (EXACT.replace(",0.25", ",-1"), "the time 0.25 s as in line 2", "-1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, expected: str, got: str) -> None:
    with pytest.raises(DataError) as caught:
        read_results(written(tmp_path, EXACT, "5,1,1,1,1 0 0 0 1 0 0 0 1,0 0 1,-1", line))
    assert caught.value.where.endswith("results.csv, line 4")
    assert expected in caught.value.expected
    assert got in caught.value.got


def test_times_may_differ_between_pictures(tmp_path: Path) -> None:
    other = EXACT.replace("3,7,2", "3,8,2").replace("0.25", "0.5")
    assert [one.time_s for one in read_results(written(tmp_path, EXACT, other, EXACT))] == [0.25, 0.5, 0.25]


@pytest.mark.parametrize("text", ["", "scene,im,obj\n", EXACT + "\n", HEADER.replace("time", "runtime") + "\n"])
def test_another_header_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(DataError, match="the header 'scene_id,im_id,obj_id,score,R,t,time'"):
        read_results(tmp_path / "r.csv")


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_results(tmp_path / "none.csv")
    (tmp_path / "r.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="a readable file of results"):
        read_results(tmp_path / "r.csv")


def _scaled(one: PoseRow) -> PoseRow:
    return PoseRow(one.key, one.number, one.score, one.camera_from_object * 1000.0, one.time_s)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_scaled, "a rigid transform"),
        (lambda one: PoseRow(one.key, 1, float("nan"), one.camera_from_object), "a finite score"),
        (lambda one: PoseRow(one.key, 1, 0.0, one.camera_from_object, 3.0), "the time -1.0 s"),
        (lambda one: PoseRow(one.key, 1, 0.0, one.camera_from_object, -2.0), "a time of 0 s or more"),
        (lambda one: PoseRow(one.key, 1, 0.0, one.camera_from_object[:3]), "a rigid transform"),
    ],
)
def test_nothing_is_written_that_could_not_be_read(
    tmp_path: Path, spoil: Callable[[PoseRow], PoseRow], expected: str
) -> None:
    write_results(tmp_path / "r.csv", [row()])
    before = (tmp_path / "r.csv").read_text()
    with pytest.raises(SpecError, match=expected):
        write_results(tmp_path / "r.csv", [row(), spoil(row())])
    assert (tmp_path / "r.csv").read_text() == before
    assert len(list(tmp_path.iterdir())) == 1
