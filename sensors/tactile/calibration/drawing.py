"""A picture of a calibration: presses with their circles, errors, colours of slopes, and depth read back."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sensors.geometry import FloatArray
from sensors.tactile.calibration.calibrate import Calibrated, Press
from sensors.tactile.calibration.contact import Rgb
from sensors.tactile.calibration.result import TouchCalibration
from sensors.tactile.calibration.session import Session
from sensors.tactile.gel import Gel

_TILE_W, _COLUMNS, _MOST_TILES, _CAPTION = 320, 3, 6, 20
_PAPER, _INK, _FAINT = (250, 250, 250), (40, 40, 40), (200, 200, 200)
_CREST, _CIRCLE, _BAR = (0, 158, 115), (213, 94, 0), (0, 114, 178)  # RGB; Okabe and Ito
_GOAL = 5.0  # grey values
_WHEEL_DEG = 45.0


def draw_calibration(found: Calibrated, session: Session) -> Rgb:
    """Draw.

    Returns:
        uint8 [H, W, 3] RGB: pictures that were not used and presses, the worst first; then each press's error by the
        fit to the others, the colours of slopes in the middle of the gel, and the depth of the best press, read back.
    """
    pictures = dict(zip(session.names, session.presses, strict=True))
    order = sorted(found.presses, key=lambda press: (press.refusal is None, -np.nan_to_num(press.left_out)))
    if len(order) > _MOST_TILES:
        order = [order[round(i)] for i in np.linspace(0, len(order) - 1, _MOST_TILES)]
    tiles = [_tile(press, pictures[press.name], found.calibration.gel) for press in order]
    best = min(found.used, key=lambda press: press.left_out)
    tiles += [
        _bars(found, tiles[0].shape[0]),
        _wheel(found.calibration, tiles[0].shape[0]),
        _depth(found.calibration, best, pictures[best.name]),
    ]
    tiles += [_blank(tiles[0].shape[0], _TILE_W)] * (-len(tiles) % _COLUMNS)
    height = max(tile.shape[0] for tile in tiles)
    tiles = [np.concatenate([tile, _blank(height - tile.shape[0], _TILE_W)]) for tile in tiles]
    rows = [np.concatenate(tiles[first : first + _COLUMNS], axis=1) for first in range(0, len(tiles), _COLUMNS)]
    return np.concatenate(rows)


def draw_refit(after: TouchCalibration, before: TouchCalibration) -> Rgb:
    """The untouched gel and the colours of slopes of two fingertips, uint8 [H, W, 3]: before above, after below."""
    rows = []
    for name, one in (("the one that was pressed", before), ("this one", after)):
        tile = _picture(np.clip(np.rint(one.background), 0, 255).astype(np.uint8), one.gel, f"{name}: background")
        rows.append(np.concatenate([tile, _wheel(one, tile.shape[0])], axis=1))
    return np.concatenate(rows)


def _tile(press: Press, picture: Rgb, gel: Gel) -> Rgb:
    import cv2

    said = f"{press.left_out:.2f} grey" if press.refusal is None else f"NOT USED {press.refusal.split(':')[0]}"
    out = _picture(picture, gel, f"{press.name}  {said}")
    if press.contact is not None:
        for x, y in _at(press.contact.points_m, gel):
            cv2.circle(out, (x, y), 1, _CREST, -1, cv2.LINE_AA)
        circle = press.contact.circle
        angle = np.linspace(0, 2 * math.pi, 121)
        rim = np.stack([np.cos(angle), np.sin(angle)], axis=1) * circle.radius_m + [circle.x_m, circle.y_m]
        cv2.polylines(out, [np.array(_at(rim, gel), np.int32)], True, _CIRCLE, 1, cv2.LINE_AA)
        middle = _at(np.array([[circle.x_m, circle.y_m]]), gel)[0]
        cv2.drawMarker(out, middle, _CIRCLE, cv2.MARKER_CROSS, 8, 1, cv2.LINE_AA)
    return out


def _bars(found: Calibrated, height: int) -> Rgb:
    import cv2

    errors = np.sort([press.left_out for press in found.used])[::-1]
    out = _blank(height, _TILE_W)
    _write(out, f"each press by the others: {errors.mean():.2f} grey values", (6, 14))
    left, right, top, base = 30, _TILE_W - 8, 34, height - 12
    most = max(float(errors[0]) * 1.1, _GOAL * 1.1)
    step = (right - left) / len(errors)
    for number, error in enumerate(errors):
        corner = (round(left + number * step), base - round((base - top) * float(error) / most))
        cv2.rectangle(out, corner, (max(round(left + (number + 1) * step) - 2, corner[0]), base), _BAR, -1)
    goal = base - round((base - top) * _GOAL / most)
    cv2.line(out, (left, goal), (right, goal), _CIRCLE, 1)
    _write(out, f"{_GOAL:g}", (8, goal + 4))
    cv2.line(out, (left, base), (right, base), _INK, 1)
    return out


def _wheel(calibration: TouchCalibration, height: int) -> Rgb:
    """The colours that the middle of the gel takes on when it is tilted; the circle is how far presses tilted it."""
    import cv2

    out = _blank(height, _TILE_W)
    _write(out, f"colours of slopes, to {_WHEEL_DEG:.0f} degrees", (6, 14))
    edge = min(_TILE_W, height - _CAPTION) - 8
    tilt = (np.arange(edge) + 0.5) / edge * 2 - 1
    x, y = np.meshgrid(tilt, tilt)
    angle, direction = np.hypot(x, y) * math.radians(_WHEEL_DEG), np.arctan2(y, x)
    table = calibration.table
    M, D = table.coefficients.shape[:2]
    row = np.rint(angle * (M - 1) / (math.pi / 2)).astype(int).clip(0, M - 1)
    column = np.rint((direction + math.pi) * (D - 1) / (2 * math.pi)).astype(int)
    c, r = table.columns / 2, table.rows / 2
    change = table.coefficients[row, column] @ np.array([c * c, r * r, c * r, c, r, 1.0])
    gel = calibration.gel
    middle = calibration.background[gel.rows // 2, gel.columns // 2]
    colours = np.clip(np.rint(middle + change), 0, 255).astype(np.uint8)
    colours[np.hypot(x, y) > 1] = _PAPER
    left = (_TILE_W - edge) // 2
    out[_CAPTION : _CAPTION + edge, left : left + edge] = colours
    steepest = float(calibration.details.get("steepest_deg", 0.0))
    cv2.circle(out, (left + edge // 2, _CAPTION + edge // 2), round(edge / 2 * min(steepest / _WHEEL_DEG, 1)), _INK, 1,
               cv2.LINE_AA)  # fmt: skip
    return out


def _depth(calibration: TouchCalibration, press: Press, picture: Rgb) -> Rgb:
    """The depth of a press, and its profile through the middle beside that of the ball."""
    import cv2

    assert press.contact is not None
    gel, circle = calibration.gel, press.contact.circle
    depth = calibration.reader().read(picture).depth_m[0].numpy().astype(np.float64)
    deepest = max(float(depth.max()), 1e-6)
    shade = np.clip(255 * depth / deepest, 0, 255).astype(np.uint8)
    coloured = np.asarray(cv2.applyColorMap(shade, cv2.COLORMAP_VIRIDIS), np.uint8)[..., ::-1]
    out = _picture(np.ascontiguousarray(coloured), gel, f"{press.name}: {1000 * deepest:.2f} mm deep, read back")
    row = int(np.clip((circle.y_m / gel.height_m + 0.5) * gel.rows, 0, gel.rows - 1))
    x = (np.arange(gel.columns) + 0.5) / gel.columns * gel.width_m - gel.width_m / 2
    base, tall = out.shape[0] - 8, 60
    ball = float(calibration.details["ball_radius_m"])
    inside = np.abs(x - circle.x_m) < circle.radius_m
    cap = np.sqrt(np.maximum(ball**2 - (x - circle.x_m) ** 2, 0.0))
    known = cap + float(np.median(depth[row][inside] - cap[inside]))
    for line, chosen, colour in ((depth[row], x < np.inf, _PAPER), (known, inside, _CIRCLE)):
        at = np.stack([(x / gel.width_m + 0.5) * _TILE_W, base - tall * line / deepest], axis=1)[chosen]
        cv2.polylines(out, [np.rint(at).astype(np.int32)], False, colour, 1, cv2.LINE_AA)
    return out


def _picture(picture: NDArray[np.uint8], gel: Gel, caption: str) -> Rgb:
    import cv2

    height = max(1, round(_TILE_W * gel.height_m / gel.width_m))  # in true proportions, whatever the pixels are
    out = _blank(_CAPTION + height, _TILE_W)
    out[_CAPTION:] = cv2.resize(picture, (_TILE_W, height), interpolation=cv2.INTER_AREA)
    _write(out, caption, (6, 14))
    return out


def _at(points_m: FloatArray, gel: Gel) -> list[tuple[int, int]]:
    """Places in metres -> pixels of a tile."""
    share = points_m / np.array([gel.width_m, gel.height_m]) + 0.5
    height = max(1, round(_TILE_W * gel.height_m / gel.width_m))
    return [(round(float(x) * _TILE_W), _CAPTION + round(float(y) * height)) for x, y in share]


def _blank(height: int, width: int) -> Rgb:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _write(picture: Rgb, text: str, corner: tuple[int, int]) -> None:
    import cv2

    cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
