"""The ChArUco board: a chessboard whose white squares hold markers, so that every corner is known by its number.

Paper of the markers: S. Garrido-Jurado et al., "Automatic generation and detection of highly reliable fiducial markers
under occlusion", Pattern Recognition 47(6), 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError, SpecError, nearest
from sensors.geometry import FloatArray

Grey = NDArray[np.uint8]

# OpenCV's predefined dictionaries -> how many markers each holds.
DICTIONARIES = {
    **{f"DICT_{bits}X{bits}_{count}": count for bits in (4, 5, 6, 7) for count in (50, 100, 250, 1000)},
    "DICT_ARUCO_ORIGINAL": 1024,
    "DICT_APRILTAG_16H5": 30,
    "DICT_APRILTAG_25H9": 35,
    "DICT_APRILTAG_36H10": 2320,
    "DICT_APRILTAG_36H11": 587,
}
LEAST_CORNERS = 6  # of one view; a homography has 8 unknowns and two corners may lie on one line
# The markers are found by their outlines, which bend with the lens; the corners are refined in the picture itself.
_LEAST_MODULE_PX = 2
_LEAST_OTHER_MARKERS = 4  # a random quadrilateral may pass for one marker of a small code, not for four different ones


@final
@dataclass(frozen=True, eq=False)
class Corners:
    """The inner corners of a board that were found in one picture.

    Attributes:
        ids: int [K], rising; row-major from the board's upper left inner corner.
        pixels: float [K, 2], u v; integer pixels are pixel centres.
    """

    ids: NDArray[np.int64]
    pixels: FloatArray

    def __len__(self) -> int:
        return len(self.ids)


@final
@dataclass(frozen=True)
class Board:
    """A ChArUco board.

    The board's frame has its origin in the outer corner of the upper left square, +x along the rows to the right, +y
    down, +z into the paper: a camera that looks at it straight has no rotation to it.

    Attributes:
        squares_x: squares in a row.
        squares_y: squares in a column.
        square_m: edge of a square, metres, as measured on the print.
        marker_m: edge of a marker, metres.
        dictionary: name of OpenCV's dictionary of markers, with or without "DICT_".
        legacy: the layout of boards made by OpenCV before 4.6 (with an even number of rows the upper left square is
            white).

    Raises:
        SpecError: a size is not possible, or there is no such dictionary.
    """

    squares_x: int = 8
    squares_y: int = 6
    square_m: float = 0.03
    marker_m: float = 0.022
    dictionary: str = "DICT_5X5_100"
    legacy: bool = False

    def __post_init__(self) -> None:
        name = self.dictionary.upper()
        name = name if name.startswith("DICT_") else f"DICT_{name}"
        if name not in DICTIONARIES:
            raise SpecError(
                "Board.dictionary", "a dictionary of OpenCV", f"'{self.dictionary}'", nearest(name, DICTIONARIES)
            )
        object.__setattr__(self, "dictionary", name)
        if self.squares_x < 3 or self.squares_y < 3:
            got = f"{self.squares_x} x {self.squares_y}"
            raise SpecError("Board", "at least 3 x 3 squares", got, "Fewer have too few inner corners for a view.")
        if not 0 < self.marker_m < self.square_m:
            got = f"marker_m {self.marker_m}, square_m {self.square_m}"
            raise SpecError("Board", "0 < marker_m < square_m (metres)", got, "A marker lies inside of a white square.")
        if self.markers > DICTIONARIES[name]:
            raise SpecError(
                "Board.dictionary", f"at least {self.markers} markers", f"{DICTIONARIES[name]} in {name}",
                "Take a larger dictionary, e.g. DICT_5X5_1000.",
            )  # fmt: skip

    @property
    def markers(self) -> int:
        """How many markers the board holds."""
        white_first = self.legacy and self.squares_y % 2 == 0
        return (self.squares_x * self.squares_y + white_first) // 2

    @property
    def corners_m(self) -> FloatArray:
        """The inner corners [N, 3] in the board's frame, metres, in the order of their ids."""
        v, u = np.mgrid[1 : self.squares_y, 1 : self.squares_x]
        return np.stack([u.ravel(), v.ravel(), np.zeros(u.size)], axis=-1) * self.square_m

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height of all squares together, metres."""
        return self.squares_x * self.square_m, self.squares_y * self.square_m

    def describe(self) -> str:
        """One line, as printed on the board."""
        squares = f"{self.squares_x} x {self.squares_y} squares of {1000 * self.square_m:g} mm"
        old = ", legacy layout" if self.legacy else ""
        return f"ChArUco {squares}, markers {1000 * self.marker_m:g} mm, {self.dictionary}{old}"

    def picture(self, px_per_square: int) -> Grey:
        """The board without margin, uint8 [squares_y * px, squares_x * px]; edges of squares fall between pixels.

        Raises:
            SpecError: too few pixels to show the markers.
        """
        import cv2

        dictionary = cv2.aruco.getPredefinedDictionary(_number(self.dictionary))
        modules = dictionary.markerSize + 2
        least = int(np.ceil(_LEAST_MODULE_PX * modules * self.square_m / self.marker_m))
        if px_per_square < least:
            raise SpecError(
                "Board.picture", f"at least {least} px a square", str(px_per_square), "Raise the resolution."
            )
        # Not OpenCV's generateImage: its rounding leaves the picture at some sizes.
        out = np.full((self.squares_y * px_per_square, self.squares_x * px_per_square), 255, np.uint8)
        side = round(px_per_square * self.marker_m / self.square_m)
        inset = (px_per_square - side) // 2
        white_first = self.legacy and self.squares_y % 2 == 0
        number = 0
        for row, column in np.ndindex(self.squares_y, self.squares_x):
            top, left = row * px_per_square, column * px_per_square
            if (row + column) % 2 == int(white_first):
                out[top : top + px_per_square, left : left + px_per_square] = 0
            else:
                place = np.s_[top + inset : top + inset + side, left + inset : left + inset + side]
                out[place] = cv2.aruco.generateImageMarker(dictionary, number, side)
                number += 1
        return out

    def detect(self, picture: NDArray[Any], where: str = "picture") -> Corners:
        """Find the board.

        Args:
            picture: uint8 [H, W] grey or [H, W, 3] colour.
            where: what the picture is called in errors.

        Raises:
            SpecError: not such an array.
            DataError: no board, another board, or fewer than 6 of its corners; says which.
        """
        import cv2

        grey = to_grey(picture, where)
        detector = cv2.aruco.CharucoDetector(_opencv_board(self))
        pixels, ids, _, marker_ids = (_array(part) for part in detector.detectBoard(grey))
        if ids.size < LEAST_CORNERS:
            raise self._not_seen(grey, where, marker_ids.size, ids.size)
        order = np.argsort(ids.ravel())
        corners = Corners(ids.ravel()[order].astype(np.int64), pixels.astype(float).reshape(-1, 2)[order])
        self._check_spread(corners, where)
        return corners

    def _check_spread(self, corners: Corners, where: str) -> None:
        """Corners on one line tell no pose. (That they lie as on this board, OpenCV has seen to.)"""
        plane = self.corners_m[corners.ids, :2]
        spread = np.linalg.svd((plane - plane.mean(0)) / self.square_m, compute_uv=False)
        if spread[1] < 0.5:
            raise DataError(
                where, "corners of at least two rows of the board", "corners on one line", "Show more of the board."
            )

    def _not_seen(self, grey: Grey, where: str, markers: int, corners: int) -> DataError:
        if markers > self.markers / 2 and corners == 0:
            return DataError(
                where, self.describe(), f"{markers} of its markers, but not laid out like this",
                "This is another board: check squares_x, squares_y, legacy and the ratio of marker_m to square_m.",
            )  # fmt: skip
        if markers:
            return DataError(
                where, f"at least {LEAST_CORNERS} corners of the board", f"{corners} ({markers} markers)",
                "Show more of it, closer, sharper, or without glare.",
            )  # fmt: skip
        other = _other_dictionary(grey, self.dictionary)
        if other is not None:
            return DataError(
                where, f"markers of {self.dictionary}", f"markers of {other}", f"Set the board's dictionary={other}."
            )
        return DataError(
            where, self.describe(), "no marker at all", "Is the whole board in the picture, flat, sharp and well lit?"
        )


def to_grey(picture: NDArray[Any], where: str = "picture") -> Grey:
    """uint8 [H, W] from uint8 [H, W] or [H, W, 3].

    Raises:
        SpecError: another shape or type.
    """
    import cv2

    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        got = f"{picture.dtype} {picture.shape}"
        raise SpecError(where, "uint8 [H, W] or [H, W, 3]", got, "Convert the picture.")
    if picture.ndim == 2:
        return np.ascontiguousarray(picture)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), np.uint8)


def _array(found: Any) -> NDArray[Any]:
    """OpenCV answers None where there is nothing, whatever its stubs say."""
    return np.zeros(0) if found is None or isinstance(found, tuple) else np.asarray(found)


def _number(dictionary: str) -> int:
    import cv2

    return int(getattr(cv2.aruco, dictionary))


def _opencv_board(board: Board) -> Any:
    import cv2

    dictionary = cv2.aruco.getPredefinedDictionary(_number(board.dictionary))
    made = cv2.aruco.CharucoBoard((board.squares_x, board.squares_y), board.square_m, board.marker_m, dictionary)
    made.setLegacyPattern(board.legacy)
    return made


def _other_dictionary(grey: Grey, own: str) -> str | None:
    """The smallest dictionary that holds the markers in a picture, for the error message."""
    import cv2

    # The smaller dictionaries of a family are the first markers of its largest one.
    family = {name.rsplit("_", 1)[0] if "X" in name else name: name for name in DICTIONARIES}
    best, most = None, _LEAST_OTHER_MARKERS - 1
    for kind, largest in family.items():
        detector = cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(_number(largest)))
        ids = _array(detector.detectMarkers(grey)[1]).ravel()
        fitting = [n for n, count in DICTIONARIES.items() if n.startswith(kind) and ids.max(initial=0) < count]
        if ids.size > most and own not in fitting:
            best, most = fitting[0], ids.size
    return best
