"""The board: what is printed, what is found, and that found corners are where exact pictures put them."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.calibration.board import DICTIONARIES, LEAST_CORNERS, Board
from sensors.calibration.lens import Lens, distort, distort_jacobian, undistort
from sensors.calibration.print_board import print_pdf, print_png
from sensors.calibration.rendering import BoardRenderer, random_views
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray, pose, transform_points

BOARD = Board()
LENS = Lens(480, 360, np.array([450.0, 453.0, 243.0, 176.5]), np.array([-0.11, 0.05, 0.001, -0.0006, 0.01]))


def straight(depth_m: float, board: Board = BOARD) -> FloatArray:
    """camera_from_board of a board whose middle is straight ahead."""
    width_m, height_m = board.size_m
    return pose((-width_m / 2, -height_m / 2, depth_m))


def test_modules_import_no_opencv_and_no_torch() -> None:
    folder = Path(__file__).resolve().parents[2] / "sensors" / "calibration"
    imports = "; ".join(f"import sensors.calibration.{path.stem}" for path in sorted(folder.glob("[a-z]*.py")))
    code = (
        f"import sys; {imports}; print([m for m in ('cv2', 'torch', 'perceive', 'scipy.optimize') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_dictionaries_are_those_of_opencv() -> None:
    for name, count in DICTIONARIES.items():
        assert len(cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name)).bytesList) == count, name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("size", [(8, 6), (5, 7), (4, 4), (3, 5)])
def test_corners_and_markers_are_those_of_opencv(size: tuple[int, int], legacy: bool) -> None:
    board = Board(*size, square_m=0.04, marker_m=0.03, legacy=legacy)
    theirs = cv2.aruco.CharucoBoard(size, 0.04, 0.03, cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_100))
    theirs.setLegacyPattern(legacy)
    np.testing.assert_allclose(board.corners_m, np.asarray(theirs.getChessboardCorners()), atol=1e-7)
    assert board.markers == len(np.asarray(theirs.getIds()))
    drawn = theirs.generateImage((size[0] * 56, size[1] * 56), marginSize=0, borderBits=1)
    np.testing.assert_array_equal(board.picture(56), drawn)


def test_edges_of_squares_in_the_picture_are_exact() -> None:
    picture = Board(4, 3, 0.02, 0.01).picture(40)
    assert picture.shape == (120, 160)
    for row, column in itertools.product(range(3), range(4)):
        square = picture[40 * row : 40 * row + 40, 40 * column : 40 * column + 40]
        edge = np.concatenate([square[0], square[-1], square[:, 0], square[:, -1]])
        assert (edge == (255 if (row + column) % 2 else 0)).all(), (row, column)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"dictionary": "DICT_5X5_1OO"}, "Did you mean 'DICT_5X5_100'"),
        ({"dictionary": "5x5_50", "squares_x": 12, "squares_y": 10}, "larger dictionary"),
        ({"squares_x": 2}, "3 x 3"),
        ({"marker_m": 0.03}, "inside of a white square"),
        ({"square_m": -1.0}, "0 < marker_m < square_m"),
    ],
)
def test_impossible_boards_are_refused(change: dict[str, object], hint: str) -> None:
    with pytest.raises(SpecError, match=re.escape(hint)):
        Board(**change)  # type: ignore[arg-type]


def test_a_dictionary_may_be_named_without_its_prefix() -> None:
    assert Board(dictionary="5x5_100") == BOARD


def test_found_corners_are_where_the_lens_puts_them() -> None:
    """Ours and OpenCV's integer pixels are both pixel centres: half a pixel of difference would show as bias."""
    rng = np.random.default_rng(0)
    renderer = BoardRenderer(BOARD, LENS)
    errors = []
    for view in random_views(BOARD, LENS, 8, rng):
        corners = BOARD.detect(renderer.render(view, rng, 1.0))
        assert len(corners) >= 30
        errors.append(corners.pixels - LENS.project(transform_points(view, BOARD.corners_m[corners.ids])))
    whole = np.concatenate(errors)
    assert np.abs(whole.mean(axis=0)).max() < 0.02
    assert np.sqrt((whole**2).mean()) < 0.12
    # The control: the same corners by the other convention are off by what this test must be able to see.
    assert np.abs((whole + 0.5).mean(axis=0)).min() > 0.4


def test_the_renderer_agrees_with_an_area_average() -> None:
    """A square edge that cuts through pixels darkens each by the share that it covers."""
    lens = Lens(200, 150, np.array([300.0, 300.0, 99.5, 74.5]), np.zeros(0))
    board = Board(4, 4, 0.03, 0.02)
    # 300 px/m at 1 m: a square is 9 px; at 0.45 m it is 20 px, its left edge here 0.25 px into column 100.
    camera_from_board = pose((0.25 / 300 * 0.45 - 0.015 / 300 * 0, -0.06, 0.45))
    picture = BoardRenderer(board, lens, samples=8, blur_px=0.0).render(camera_from_board).astype(float)
    edge_px = lens.project(np.array([[camera_from_board[0, 3], -0.05, 0.45]]))[0, 0]  # in the black square's rows
    column = int(np.floor(edge_px + 0.5))
    black_share = column + 0.5 - edge_px
    row = int(lens.project(np.array([[0.0, -0.045, 0.45]]))[0, 1])
    assert 0.1 < black_share < 0.9
    assert picture[row, column - 1] == 215
    assert picture[row, column + 1] == 35
    assert picture[row, column] == pytest.approx(215 - 180 * black_share, abs=180 / 8 / 2 + 1)


def test_colour_and_grey_give_the_same_corners_and_other_arrays_are_refused() -> None:
    grey = BoardRenderer(BOARD, LENS).render(straight(0.4))
    coloured = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_allclose(BOARD.detect(grey).pixels, BOARD.detect(coloured).pixels)
    for wrong in (grey.astype(np.float32), grey[None], np.repeat(grey[..., None], 4, axis=2)):
        with pytest.raises(SpecError, match="uint8"):
            BOARD.detect(wrong)


def test_what_is_not_the_board_is_told_apart() -> None:
    empty = np.full((360, 480), 128, np.uint8)
    with pytest.raises(DataError, match="no marker at all"):
        BOARD.detect(empty)
    picture = BoardRenderer(BOARD, LENS).render(straight(0.4))
    with pytest.raises(DataError, match="dictionary=DICT_5X5"):
        Board(dictionary="DICT_6X6_250").detect(picture)
    with pytest.raises(DataError, match="another"):
        Board(squares_x=6, squares_y=8).detect(picture)
    with pytest.raises(DataError, match="another"):
        Board(squares_x=9, squares_y=6).detect(picture)
    # One row of corners, as over the edge of a table.
    row = picture.copy()
    row[int(BOARD.detect(picture).pixels[7:14, 1].min()) - 1 :] = 120
    with pytest.raises(DataError, match="corners on one line"):
        BOARD.detect(row)
    # A board whose most part is outside of the picture: its markers are seen, too few corners.
    aside = straight(0.35)
    aside[0, 3] += 0.24
    with pytest.raises(DataError, match=f"at least {LEAST_CORNERS} corners"):
        BOARD.detect(BoardRenderer(BOARD, LENS).render(aside))


def test_a_legacy_board_is_found_as_such_only() -> None:
    old = Board(legacy=True)
    picture = BoardRenderer(old, LENS).render(straight(0.4))
    assert len(old.detect(picture)) == 35
    with pytest.raises(DataError, match="legacy"):
        BOARD.detect(picture)


def test_a_printed_png_carries_its_size(tmp_path: Path) -> None:
    width, height = print_png(BOARD, tmp_path / "board.png", dpi=200)
    content = (tmp_path / "board.png").read_bytes()
    place = content.index(b"pHYs")
    per_m = int.from_bytes(content[place + 4 : place + 8], "big")
    assert content[place + 12] == 1  # the unit is the metre
    assert int.from_bytes(content[place + 13 : place + 17], "big") == zlib.crc32(content[place : place + 13])
    picture = cv2.imread(str(tmp_path / "board.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape == (height, width)
    corners = BOARD.detect(np.asarray(picture, np.uint8))
    spacing_px = np.linalg.norm(np.diff(corners.pixels[:7], axis=0), axis=1)
    np.testing.assert_allclose(spacing_px / per_m, BOARD.square_m, rtol=1e-3)
    assert list(tmp_path.iterdir()) == [tmp_path / "board.png"]


def test_a_printed_page_has_the_true_size(tmp_path: Path) -> None:
    print_pdf(BOARD, tmp_path / "board.pdf", dpi=100, paper="A4")
    content = (tmp_path / "board.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", content)
    drawn = re.search(rb"q ([\d.]+) 0 0 ([\d.]+) [\d.]+ [\d.]+ cm /Board Do", content)
    size = re.search(rb"/Width (\d+) /Height (\d+)", content)
    assert box is not None
    assert drawn is not None
    assert size is not None
    per_mm = 72 / 25.4
    assert [float(part) / per_mm for part in box.groups()] == pytest.approx([297, 210], abs=1e-3)
    assert [float(part) / per_mm for part in drawn.groups()] == pytest.approx([240, 180], abs=1e-3)
    width, height = (int(part) for part in size.groups())
    start = content.index(b"stream\n", content.index(b"/FlateDecode")) + len(b"stream\n")
    raw = zlib.decompressobj().decompress(content[start:])
    np.testing.assert_array_equal(np.frombuffer(raw, np.uint8).reshape(height, width), BOARD.picture(width // 8))
    # Every entry of the table of objects points at its object.
    table = content[content.index(b"xref\n") :].splitlines()[3:9]
    for number, line in enumerate(table, start=1):
        assert content[int(line.split()[0]) :].startswith(f"{number} 0 obj".encode())
    with pytest.raises(SpecError, match="paper=a3"):
        print_pdf(Board(square_m=0.04, marker_m=0.03), tmp_path / "b.pdf")
    with pytest.raises(SpecError, match="Did you mean 'letter'"):
        print_pdf(BOARD, tmp_path / "b.pdf", paper="leter")
    with pytest.raises(SpecError, match="resolution"):
        print_pdf(BOARD, tmp_path / "b.pdf", dpi=10)


coefficient = st.floats(-0.15, 0.15)
points = st.lists(st.tuples(st.floats(-0.6, 0.6), st.floats(-0.45, 0.45)), min_size=1, max_size=5)


@given(points, st.tuples(coefficient, coefficient, st.floats(-0.01, 0.01), st.floats(-0.01, 0.01), coefficient))
def test_the_lens_is_opencvs_and_has_an_inverse(flat: list[tuple[float, float]], said: tuple[float, ...]) -> None:
    at, k = np.array(flat), np.array(said)
    bent = distort(at, k)
    spatial = np.column_stack([at, np.ones(len(at))])
    theirs = np.asarray(cv2.projectPoints(spatial, np.zeros(3), np.zeros(3), np.eye(3), k)[0]).reshape(-1, 2)
    np.testing.assert_allclose(bent, theirs, atol=1e-12)
    np.testing.assert_allclose(undistort(bent, k), at, atol=1e-9)
    step = 1e-6
    for axis in range(2):
        shift = step * np.eye(2)[axis]
        slope = (distort(at + shift, k) - distort(at - shift, k)) / (2 * step)
        np.testing.assert_allclose(distort_jacobian(at, k)[..., axis], slope, atol=1e-8)


def test_the_lens_moves_with_its_numbers_as_stated() -> None:
    points = np.array([[0.1, -0.2, 0.8], [-0.3, 0.25, 0.9], [0.0, 0.0, 1.0]])
    slopes = LENS.by_parameters(points)
    start = np.concatenate([LENS.intrinsics_px, LENS.distortion])
    for number in range(9):
        step = 1e-5 * np.eye(9)[number]
        up, down = (Lens(480, 360, (start + s)[:4], (start + s)[4:]).project(points) for s in (step, -step))
        np.testing.assert_allclose(slopes[..., number], (up - down) / 2e-5, atol=1e-5)


def test_a_lens_that_folds_back_says_so() -> None:
    with pytest.raises(SpecError, match="fold back"):
        Lens(640, 480, np.array([200.0, 200.0, 319.5, 239.5]), np.array([-0.6, 0, 0, 0])).rays(np.zeros(2))
    with pytest.raises(SpecError, match="k1 k2 p1 p2 k3"):
        Lens(640, 480, np.array([200.0, 200.0, 319.5, 239.5]), np.zeros(8))
    with pytest.raises(SpecError, match="fx fy cx cy"):
        Lens(640, 480, np.array([200.0, -200.0, 319.5, 239.5]), np.zeros(0))
