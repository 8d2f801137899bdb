"""ObjectModel: checked when made, and its surface is sampled evenly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perceive.pose.model import GREY, ObjectModel
from sensors.errors import DataError
from tests.perceive.pose.meshes import mesh

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])  # counter-clockwise from outside


def test_a_tetrahedron_by_hand() -> None:
    model = ObjectModel.make(3, "corner", CORNERS, FACES)
    assert model.diameter_m == pytest.approx(np.sqrt(2))
    assert model.watertight
    assert not model.symmetries
    assert model.rgb.tolist() == [[GREY] * 3] * 4
    np.testing.assert_allclose(model.face_normals, [[0, 0, -1], [0, -1, 0], [3**-0.5] * 3, [-1, 0, 0]], atol=1e-12)
    assert model.low_m.tolist() == [0, 0, 0]
    assert model.high_m.tolist() == [1, 1, 1]


def test_what_is_not_watertight() -> None:
    assert not ObjectModel.make(1, "open", CORNERS, FACES[:3]).watertight
    turned = FACES.copy()
    turned[1] = turned[1, ::-1]
    assert not ObjectModel.make(1, "turned", CORNERS, turned).watertight
    # The same places as vertices of their own are one place.
    apart = CORNERS[FACES.reshape(-1)]
    assert ObjectModel.make(1, "soup", apart, np.arange(12).reshape(4, 3)).watertight
    for name in ("box", "blob", "can", "ball", "plate"):
        assert mesh(name).watertight, name


def test_the_surface_is_even_and_on_the_mesh() -> None:
    rgb = np.zeros((4, 3), np.uint8)
    rgb[1] = (200, 0, 0)
    model = ObjectModel.make(3, "corner", CORNERS, FACES, rgb)
    found = model.surface(20000, seed=1)
    # Three faces of area 1/2 and one of sqrt(3)/2.
    share = np.array([1, 1, np.sqrt(3), 1]) / (3 + np.sqrt(3))
    for normal, expected in zip(model.face_normals, share, strict=True):
        here = (found.normal == normal).all(1)
        assert here.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / 20000))
        level = found.xyz_m[here] @ normal
        np.testing.assert_allclose(level, level[0], atol=1e-12)
    floor = found.xyz_m[(found.normal == [0, 0, -1]).all(1)]
    np.testing.assert_allclose(floor.mean(0), [1 / 3, 1 / 3, 0], atol=0.02)
    # The only coloured vertex is at x = 1, so the red is the x coordinate.
    np.testing.assert_allclose(found.rgb[:, 0], 200 * found.xyz_m[:, 0], atol=0.51)
    assert np.array_equal(found.xyz_m, model.surface(20000, seed=1).xyz_m)
    assert not np.array_equal(found.xyz_m, model.surface(20000, seed=2).xyz_m)


def test_a_given_diameter_is_kept_and_one_colour_is_spread() -> None:
    model = ObjectModel.make(1, "x", CORNERS, FACES, rgb=(1, 2, 3), diameter_m=0.5)
    assert model.diameter_m == 0.5
    assert model.rgb.tolist() == [[1, 2, 3]] * 4


@pytest.mark.parametrize(
    ("vertices", "faces", "says"),
    [
        (CORNERS[:, :2], FACES, "faces"),
        (CORNERS, FACES[:, :2], "faces"),
        (CORNERS, np.zeros((0, 3)), "triangles"),
        (CORNERS * np.nan, FACES, "finite"),
        (CORNERS, FACES + 1, "0 to 3"),
        (CORNERS, FACES - 1, "0 to 3"),
    ],
)
def test_bad_meshes(vertices: Any, faces: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        ObjectModel.make(7, "bad", vertices, faces)
    assert "7" in caught.value.where
    assert "bad" in caught.value.where
