from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perceive.pose.files.models_info import read_models_info, write_models_info
from perceive.pose.model import ObjectModel
from sensors.errors import DataError
from sensors.geometry import transform_points

# As the benchmark's data sets have it: a half turn about z through (10, 0, 0) mm, an axis off the centre.
BY_HAND = {
    "2": {
        "diameter": 130.5, "min_x": -10.0, "min_y": -20.0, "min_z": -30.0, "size_x": 40.0, "size_y": 50.0,
        "size_z": 60.0, "symmetries_discrete": [[-1, 0, 0, 20, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]],
        "symmetries_continuous": [{"axis": [0, 0, 1], "offset": [10, 0, 5]}],
    },
    "11": {"diameter": 99.0},
}  # fmt: skip


def test_millimetres_become_metres(tmp_path: Path) -> None:
    path = tmp_path / "models_info.json"
    path.write_text(json.dumps(BY_HAND))
    found = read_models_info(path)
    assert list(found) == [2, 11]
    one = found[2]
    assert one.diameter_m == pytest.approx(0.1305)
    assert one.low_m is not None
    assert one.size_m is not None
    np.testing.assert_allclose([one.low_m, one.size_m], [[-0.01, -0.02, -0.03], [0.04, 0.05, 0.06]])
    # The half turn takes (10, 0, 0) mm to itself and (11, 1, 2) mm to (9, -1, 2) mm.
    moved = transform_points(one.symmetries.discrete[0], [[0.010, 0, 0], [0.011, 0.001, 0.002]])
    np.testing.assert_allclose(moved, [[0.010, 0, 0], [0.009, -0.001, 0.002]], atol=1e-15)
    (axis,) = one.symmetries.continuous
    np.testing.assert_allclose(axis.offset_m, [0.01, 0, 0.005])
    np.testing.assert_allclose(transform_points(axis.at(np.pi / 2), [[0.02, 0, 0]]), [[0.01, 0.01, 0]], atol=1e-15)
    assert len(one.symmetries.transforms()) == 2 * 315
    assert not found[11].symmetries
    assert found[11].low_m is None


def test_what_is_written_is_read_again(tmp_path: Path, models: list[ObjectModel]) -> None:
    path = tmp_path / "models_info.json"
    write_models_info(path, models)
    found = read_models_info(path)
    assert sorted(found) == [one.number for one in models]
    for model in models:
        info = found[model.number]
        assert info.diameter_m == pytest.approx(model.diameter_m, rel=1e-12)
        np.testing.assert_allclose(info.symmetries.transforms(), model.symmetries.transforms(), rtol=0, atol=1e-15)
        assert info.size_m is not None
        assert info.low_m is not None
        np.testing.assert_allclose(info.low_m + info.size_m, model.high_m, atol=1e-15)
    raw = json.loads(path.read_text())
    assert raw["1"]["size_z"] == pytest.approx(100.0)  # millimetres in the file
    assert raw["5"]["symmetries_continuous"][0]["offset"] == pytest.approx([10.0, -20.0, 0.0])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"diameter": "wide"}, "diameter as 1 finite number"),
        ({"diameter": 0}, "a diameter > 0"),
        ({"diameter": float("nan")}, "diameter as 1 finite number"),
        ({"min_x": None, "min_y": 1, "min_z": "low"}, None),  # without all three there is no corner
        ({"min_x": 1, "min_y": 1, "min_z": "low"}, "min_x to min_z as 3"),
        ({"symmetries_discrete": [[1, 0, 0]]}, "symmetries_discrete as 16"),
        ({"symmetries_discrete": [list(range(16))]}, "rigid transforms"),
        ({"symmetries_discrete": 5}, "symmetries_discrete as a list"),
        ({"symmetries_continuous": [{"axis": [0, 0, 0], "offset": [0, 0, 0]}]}, "an axis"),
        ({"symmetries_continuous": [{"offset": [0, 0, 0]}]}, "axis and offset"),
        ({"symmetries_continuous": [{"axis": [0, 0, 1]}]}, None),  # through the origin
    ],
)
def test_bad_entries_name_the_object(tmp_path: Path, change: dict[str, object], expected: str | None) -> None:
    path = tmp_path / "models_info.json"
    path.write_text(json.dumps({"2": {"diameter": 10.0, **change}}))
    if expected is None:
        assert read_models_info(path)[2].low_m is None
        return
    with pytest.raises(DataError, match=expected) as caught:
        read_models_info(path)
    assert "object 2" in caught.value.where


@pytest.mark.parametrize("text", ["", "[1]", '{"two": {}}', '{"2": 3}', '{"2": {"diameter": 1'])
def test_damaged_files_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models_info.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"models_info\.json"):
        read_models_info(path)
