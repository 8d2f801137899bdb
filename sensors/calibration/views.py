"""Views of a board: found in the pictures of a folder, or taken live from a camera sensor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from sensors.base import Sensor
from sensors.calibration.board import Board, Corners, Grey, to_grey
from sensors.clock import host_now_s
from sensors.errors import DataError, SensorError, SpecError
from sensors.frames import Frame

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")


@final
@dataclass(frozen=True, eq=False)
class View:
    """One picture in which the board was found.

    Attributes:
        name: the picture's file name, or its number.
        width: of the picture, px.
        height: of the picture, px.
        corners: of the board in it.
        picture: uint8 [H, W], to draw on; None where only the corners are known.
    """

    name: str
    width: int
    height: int
    corners: Corners
    picture: Grey | None = None


@final
@dataclass(frozen=True, eq=False)
class Found:
    """What a folder holds.

    Attributes:
        views: pictures with the board, by name.
        without: name -> why the board was not found there; these are not used.
    """

    views: tuple[View, ...]
    without: dict[str, str]


def picture_size(views: Sequence[View]) -> tuple[int, int]:
    """Width and height that all views share.

    Raises:
        DataError: they differ, or there is no view.
    """
    if not views:
        raise DataError("calibration", "views of the board", "none", "Take pictures of the board.")
    first = views[0]
    for view in views:
        if (view.width, view.height) != (first.width, first.height):
            raise DataError(
                f"picture '{view.name}'", f"{first.width} x {first.height} px, as '{first.name}'",
                f"{view.width} x {view.height} px", "Calibrate every camera and every resolution on its own.",
            )  # fmt: skip
    return first.width, first.height


def read_pictures(folder: str | Path, board: Board, names: Sequence[str] | None = None) -> Found:
    """Find the board in the pictures of a folder.

    Args:
        folder: holds pictures of one camera.
        board: what is looked for.
        names: only these files, in this order; None = every picture in order of its name.

    Raises:
        DataError: no such folder, no pictures, one that cannot be read, different sizes, or no board in any of them.
    """
    import cv2

    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("pictures", "a folder", f"'{folder}', which is none", "Check the path.")
    if names is None:
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICTURE_ENDINGS)
    if not names:
        raise DataError(
            f"folder '{folder.name}'", f"pictures ({', '.join(PICTURE_ENDINGS)})", "none", "Put the pictures there."
        )
    views: list[View] = []
    reasons: dict[str, DataError] = {}
    for name in names:
        if not (folder / name).is_file():
            raise DataError(f"picture '{name}'", f"a file in '{folder.name}'", "nothing", "Check the name.")
        grey = cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise DataError(f"picture '{name}'", "a picture", "a file that cannot be decoded", "Remove or replace it.")
        try:
            views.append(find_view(np.asarray(grey, np.uint8), board, name))
        except DataError as error:
            reasons[name] = error
    if not views:
        first = next(iter(reasons.values()))
        raise DataError(
            f"{len(reasons)} pictures of '{folder.name}'", f"the board in some ({first.expected})",
            f"it in none; in '{next(iter(reasons))}': {first.got}", first.fix,
        )  # fmt: skip
    picture_size(views)
    return Found(tuple(views), {name: f"{error.got}. {error.fix}" for name, error in reasons.items()})


def find_view(picture: Grey, board: Board, name: str) -> View:
    """The view in one picture, uint8 [H, W] or [H, W, 3].

    Raises:
        DataError: as :meth:`Board.detect`.
    """
    grey = to_grey(picture, f"picture '{name}'")
    return View(name, grey.shape[1], grey.shape[0], board.detect(grey, f"picture '{name}'"), grey)


def capture_views(
    sensor: Sensor,
    board: Board,
    count: int,
    timeout_s: float,
    *,
    still_px: float = 1.0,
    new_share: float = 0.05,
    report: Callable[[str], None] | None = None,
) -> list[View]:
    """Take views from a camera sensor while somebody moves the board or the camera.

    A picture is taken when the board rests in it and shows where it was in none before.

    Args:
        sensor: closed; its frames have ``rgb``. Opened without a world, so it is a device or plays like one.
        board: what is shown.
        count: views to take.
        timeout_s: how long at most between one view and the next.
        still_px: the most that corners may have moved on average since the picture before; infinity = take moving ones.
        new_share: how far corners must be on average from those of every earlier view, in widths of the picture.
        report: told what happens, line by line.

    Raises:
        SpecError: the sensor gives no ``rgb``.
        SensorError: it cannot be opened, was lost, or no new view came in time.
    """
    if "rgb" not in sensor.space.spaces:
        raise SpecError(
            "capture_views", "a sensor with 'rgb'", f"fields {sorted(sensor.space.spaces)}", "Take a camera."
        )
    sensor.open(None)
    try:
        sensor.reset(np.random.default_rng(0))
        views: list[View] = []
        last: Corners | None = None
        why = "no picture came"
        end_s = host_now_s() + timeout_s
        while len(views) < count:
            now_s = host_now_s()
            if now_s > end_s:
                raise SensorError(
                    "capture_views", f"a new view of the board within {timeout_s:g} s",
                    f"{why} ({len(views)} of {count})",
                    "Show the whole board, rest, then move or tilt it.",
                )  # fmt: skip
            frame = _newest(sensor, now_s)
            if frame is None:
                time.sleep(0.002 if sensor.timing.live else 1 / sensor.timing.rate_hz)
                continue
            try:
                view = find_view(frame.arrays()["rgb"], board, f"{len(views):04d}")
            except DataError as error:
                last, why = None, error.got
                continue
            moved_px = np.inf if last is None else _distance_px(view.corners, last)
            last = view.corners
            if moved_px > still_px:
                why = "the board moves"
            elif any(_distance_px(view.corners, old.corners) < new_share * view.width for old in views):
                why = "the board is where it was before"
            else:
                views.append(view)
                end_s = host_now_s() + timeout_s
                if report is not None:
                    report(f"view {len(views)} of {count}: {len(view.corners)} corners")
        return views
    finally:
        sensor.close()


def _newest(sensor: Sensor, now_s: float) -> Frame | None:
    """The newest frame: finding the board may take longer than the camera needs for the next picture."""
    frame = sensor.read(now_s)
    while sensor.timing.live and frame is not None and frame.stamp_s < now_s:
        newer = sensor.read(now_s)
        if newer is None:
            break
        frame = newer
    return frame


def _distance_px(first: Corners, second: Corners) -> float:
    """Mean distance of the corners that both saw; infinity if there are none."""
    _, a, b = np.intersect1d(first.ids, second.ids, return_indices=True)
    if not len(a):
        return np.inf
    return float(np.linalg.norm(first.pixels[a] - second.pixels[b], axis=1).mean())
