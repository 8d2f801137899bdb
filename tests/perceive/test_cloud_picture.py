"""Pictures of clouds: every pixel that is asked about is known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perceive.points.files.cloud import Boxes, LabelledCloud
from perceive.points.preprocess.presets import tabletop
from perceive.viewing.cloud_board import cloud_tiles, frame_points, point_cloud, processed_tiles, sheet, turning
from perceive.viewing.cloud_colours import (
    RIGHT,
    UNKNOWN,
    WRONG,
    class_colours,
    legend,
    own_colours,
    palette,
    right_colours,
    value_colours,
)
from perceive.viewing.cloud_picture import BoxLayer, box_corners, cloud_picture
from perceive.viewing.cloud_view import View, above, around
from perceive.viewing.draw import BACKGROUND
from sensors.errors import SpecError

RED, BLUE = np.array([[255, 0, 0]], np.uint8), np.array([[0, 0, 255]], np.uint8)


def pinhole(height: int = 41, width: int = 61, focal_px: float = 100.0) -> View:
    """A camera in the origin that looks along +z."""
    intrinsics = np.array([focal_px, focal_px, (width - 1) / 2, (height - 1) / 2])
    return View(np.eye(4), height, width, intrinsics, 1.0, parallel=False)


def drawn(picture: np.ndarray) -> set[tuple[int, int]]:
    return {(int(r), int(c)) for r, c in np.argwhere((picture != BACKGROUND).any(axis=2))}


def test_a_point_is_at_its_pixel() -> None:
    # u = 100 * 0.2 / 2 + 30, v = 100 * -0.1 / 2 + 20.
    picture = cloud_picture(pinhole(), [[0.2, -0.1, 2.0]], RED, radius_px=0)
    assert drawn(picture) == {(15, 40)}
    assert picture[15, 40].tolist() == [255, 0, 0]
    disc = cloud_picture(pinhole(), [[0.2, -0.1, 2.0]], RED, radius_px=2)  # twice as far: a radius of 1
    assert drawn(disc) == {(15, 40), (14, 40), (16, 40), (15, 39), (15, 41)}


def test_the_nearer_hides_the_farther_in_any_order() -> None:
    near, far = [0.0, 0.0, 1.0], [0.0, 0.0, 2.0]
    for points, colours in (([near, far], [RED, BLUE]), ([far, near], [BLUE, RED])):
        picture = cloud_picture(pinhole(), points, np.concatenate(colours), radius_px=1)
        assert picture[20, 30].tolist() == [255, 0, 0]
    # Of equally near ones, the first.
    both = cloud_picture(pinhole(), [near, near], np.concatenate([BLUE, RED]), radius_px=1)
    assert both[20, 30].tolist() == [0, 0, 255]


def test_from_above_x_is_up_and_y_is_left() -> None:
    corners = np.array([[-1.0, -1, 0], [-1, 1, 0], [1, -1, 0], [1, 1, 0]])
    view = above(corners, 101, 101, half_m=2.0)
    pixel = {name: view.pixels(view.seen(point)).ravel() for name, point in (("x", [1.0, 0, 5]), ("y", [0.0, 1, -5]))}
    scale = 101 / 4
    np.testing.assert_allclose(pixel["x"], [50, 50 - scale], atol=1e-9)
    np.testing.assert_allclose(pixel["y"], [50 - scale, 50], atol=1e-9)
    # The higher hides the lower.
    picture = cloud_picture(view, [[0, 0, 0.0], [0, 0, 1.0]], np.concatenate([RED, BLUE]), radius_px=0)
    assert picture[50, 50].tolist() == [0, 0, 255]


def test_corners_of_a_box() -> None:
    corners = box_corners([[1.0, 2.0, 3.0, 4.0, 2.0, 6.0, math.pi / 2]])[0]
    # Turned by a quarter: its length lies along y.
    assert corners[:, 0].min() == pytest.approx(0)
    assert corners[:, 0].max() == pytest.approx(2)
    assert corners[:, 1].min() == pytest.approx(0)
    assert corners[:, 1].max() == pytest.approx(4)
    assert sorted(set(corners[:, 2].round(9))) == [0, 6]
    np.testing.assert_allclose(corners[0], [0, 4, 0], atol=1e-12)  # the front left
    # Turned by the angle of the triangle of 3, 4 and 5: (2, 1) goes to (0.8 2 - 0.6 1, 0.6 2 + 0.8 1).
    askew = box_corners([[0.0, 0.0, 0.0, 4.0, 2.0, 6.0, math.atan2(3, 4)]])[0]
    np.testing.assert_allclose(askew[:2], [[1, 2, -3], [-2.2, -0.4, -3]], atol=1e-12)


def test_a_box_is_drawn_where_it_is_with_an_arrow_ahead() -> None:
    view = above([[0.0, 0, 0]], 101, 101, half_m=5.05)  # 10 px per metre, the origin at (50, 50)
    layer = BoxLayer(np.array([[0, 0, 0, 4.0, 2.0, 1.0, 0.0]]), (255, 0, 0))
    picture = cloud_picture(view, np.zeros((0, 3)), np.zeros((0, 3), np.uint8), [layer])
    found = np.array(sorted(drawn(picture)))
    assert found[:, 1].min() in (39, 40)
    assert found[:, 1].max() in (60, 61)
    assert found[:, 0].max() in (70, 71)
    # The arrow goes half as far again as the front, which is 20 px above the middle.
    assert found[:, 0].min() in (19, 20)
    turned = BoxLayer(np.array([[0, 0, 0, 4.0, 2.0, 1.0, math.pi]]), (255, 0, 0))
    behind = np.array(sorted(drawn(cloud_picture(view, np.zeros((0, 3)), np.zeros((0, 3), np.uint8), [turned]))))
    assert behind[:, 0].max() in (80, 81)
    for nothing in ([[np.nan, 0, 0, 1, 1, 1, 0]], np.zeros((0, 9))):
        layers = [BoxLayer(np.array(nothing, float), (255, 0, 0))]
        assert not drawn(cloud_picture(view, np.zeros((0, 3)), np.zeros((0, 3), np.uint8), layers))


def test_what_is_behind_the_eye_is_not_drawn() -> None:
    assert not drawn(cloud_picture(pinhole(), [[0, 0, -1.0], [0, 0, 0.001]], np.concatenate([RED, RED]), radius_px=3))
    # A box that the eye stands in: its part ahead only.
    layer = BoxLayer(np.array([[0.0, 0, 0, 1, 1, 10, 0]]), (255, 0, 0))
    assert drawn(cloud_picture(pinhole(), np.zeros((0, 3)), np.zeros((0, 3), np.uint8), [layer]))


@pytest.mark.parametrize(
    "points", [np.zeros((0, 3)), np.ones((1, 3)), np.ones((5, 3)), np.full((3, 3), np.nan), np.full((2, 3), 1e9)]
)
def test_odd_clouds_give_a_picture(points: np.ndarray) -> None:
    colours = own_colours(points)
    for view in (around(points, 30, 40), above(points, 30, 40)):
        picture = cloud_picture(view, points, colours)
        assert picture.shape == (30, 40, 3)
        assert bool(drawn(picture)) == bool(len(points) and np.isfinite(points).all())


@settings(max_examples=20, deadline=None)
@given(arrays(np.float64, (20, 3), elements=st.floats(-5, 5)), st.floats(-3, 3), st.floats(-1.4, 1.4))
def test_most_points_are_inside(points: np.ndarray, azimuth: float, elevation: float) -> None:
    view = around(points, 60, 90, azimuth, elevation)
    seen = view.seen(points)
    assert (seen[:, 2] > 0).mean() >= 0.9
    pixels = view.pixels(seen)
    inside = (pixels >= -0.5).all(axis=1) & (pixels < [89.5, 59.5]).all(axis=1)
    assert inside.mean() >= 0.9


def test_pictures_do_not_depend_on_the_order_of_points() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(150_000, 3))  # more than are drawn at once
    colours = rng.integers(0, 255, (150_000, 3)).astype(np.uint8)
    view, order = around(points, 60, 80), rng.permutation(150_000)
    once = cloud_picture(view, points, colours, radius_px=2)
    np.testing.assert_array_equal(once, cloud_picture(view, points[order], colours[order], radius_px=2))
    assert once.std() > 20


def test_colours_of_classes_are_apart_and_the_same_whatever_there_is() -> None:
    many = palette(24).astype(int)
    apart = np.linalg.norm(many[:, None] - many[None], axis=-1) + 1000 * np.eye(24)
    assert apart.min() > 50
    np.testing.assert_array_equal(palette(5), many[:5])
    np.testing.assert_array_equal(class_colours([1, -1], 3), [many[1], UNKNOWN])
    with pytest.raises(SpecError, match="names of all classes"):
        class_colours([3], 3)
    np.testing.assert_array_equal(right_colours([1, 1, 1], [1, 0, -1]), [RIGHT, WRONG, UNKNOWN])
    low, unknown, high = value_colours([0.0, np.nan, 1.0]).astype(int)
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert tuple(unknown) == UNKNOWN
    strip = legend(["a", "b" * 20, "c" * 20], palette(3), 200)
    assert strip.shape == (54, 200, 3)
    assert all((strip == colour).all(axis=2).sum() >= 80 for colour in palette(3))


def test_colours_and_boxes_must_fit() -> None:
    with pytest.raises(SpecError, match="colour"):
        cloud_picture(pinhole(), np.zeros((2, 3)), RED)
    with pytest.raises(SpecError, match="K texts"):
        BoxLayer(np.zeros((2, 7)), (0, 0, 0), ["one"])
    with pytest.raises(SpecError, match="above"):
        around(np.zeros((1, 3)), 10, 10, elevation_rad=math.pi / 2)
    with pytest.raises(SpecError, match="at least 1 pixel"):
        above(np.zeros((1, 3)), 0, 10)


def test_tiles_show_classes_and_what_preprocessing_left() -> None:
    rng = np.random.default_rng(0)
    table = np.stack([rng.uniform(0.2, 0.6, 3000), rng.uniform(-0.2, 0.2, 3000), np.zeros(3000)], axis=1)
    thing = np.array([0.4, 0, 0.06]) + rng.uniform(-0.03, 0.03, (1500, 3))
    semantic = np.repeat([0, 1], [3000, 1500]).astype(np.int64)
    cloud = LabelledCloud(
        np.concatenate([table, thing]).astype(np.float32), "base", semantic=semantic, boxes=Boxes.none()
    )
    tiles = cloud_tiles(cloud)
    assert [tile.title for tile in tiles] == ["as measured", "classes"]
    np.testing.assert_array_equal(tiles[1].colours, palette(2)[semantic])
    done = tabletop()(point_cloud(cloud))
    left, clusters = processed_tiles(cloud, done)
    assert clusters.title == "1 cluster"
    gone = (left.colours == np.array(UNKNOWN) // 2).all(axis=1)
    assert gone[:3000].mean() > 0.9 > 0.1 > gone[3000:].mean()
    picture = sheet([*tiles, left, clusters], 2, 30, 40)
    assert picture.shape[1] == 80
    film = list(turning(tiles, 4, 30, 40))
    assert len(film) == 4
    assert np.any(film[0] != film[2])


def test_points_of_a_frame_are_put_into_the_base() -> None:
    base_from_lidar = np.eye(4)
    base_from_lidar[:3, 3] = [1, 2, 3]
    found = frame_points(
        {"xyz_m": np.zeros((4, 3), np.float32), "count": np.array([2]), "intensity": np.arange(4.0),
         "base_from_lidar": base_from_lidar}
    )  # fmt: skip
    assert found is not None
    np.testing.assert_array_equal(found[0], [[1, 2, 3]] * 2)
    assert len(found[1]) == 2
    assert frame_points({"rgb": np.zeros((2, 2, 3))}) is None
