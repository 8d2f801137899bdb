"""A picture of how well a calibration fits: detected and expected corners, error arrows, histogram, scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.calibration.intrinsics import ViewFit
from sensors.calibration.views import View
from sensors.geometry import FloatArray

_TILE_W, _COLUMNS, _MOST_TILES, _PANEL_H, _CAPTION = 480, 3, 6, 300, 20
_PAPER, _INK, _FAINT = (250, 250, 250), (40, 40, 40), (200, 200, 200)
_DETECTED, _EXPECTED, _ARROW = (0, 158, 115), (213, 94, 0), (0, 114, 178)  # RGB; Okabe and Ito
_ARROW_PX = 14.0  # length of an arrow as long as the root mean square error
_BINS = 40

Picture = NDArray[np.uint8]


def draw_reprojection(views: Sequence[View], residuals_px: Sequence[FloatArray], fits: Sequence[ViewFit]) -> Picture:
    """Draw.

    Args:
        views: with their pictures; without one a tile is blank.
        residuals_px: per view [K, 2], detected minus expected, of all corners or of none.
        fits: per view.

    Returns:
        uint8 [H, W, 3] RGB: views left out and the worst ones first, then the histogram of the errors of the
        views that were used, and their scatter.
    """
    used = [part for part, fit in zip(residuals_px, fits, strict=True) if fit.used]
    errors = np.concatenate(used) if used else np.zeros((0, 2))
    rms_px = float(np.sqrt((errors**2).sum(-1).mean())) if len(errors) else 1.0
    magnify = _ARROW_PX / max(rms_px, 1e-6)
    # Left out first, then the worst and from there evenly down to the best.
    order = sorted(range(len(views)), key=lambda i: (fits[i].used, -fits[i].rms_px))
    if len(order) > _MOST_TILES:
        order = [order[round(i)] for i in np.linspace(0, len(order) - 1, _MOST_TILES)]
    tiles = [_tile(views[i], residuals_px[i], fits[i], magnify) for i in order]
    height = max(tile.shape[0] for tile in tiles)
    rows = []
    for first in range(0, len(tiles), _COLUMNS):
        row = [_padded(tile, height) for tile in tiles[first : first + _COLUMNS]]
        row += [_blank(height, _TILE_W)] * (_COLUMNS - len(row))
        rows.append(np.concatenate(row, axis=1))
    wide = _COLUMNS * _TILE_W
    panel = _blank(_PANEL_H, wide)
    _histogram(panel[:, : wide * 2 // 3], np.linalg.norm(errors, axis=1), rms_px)
    _scatter(panel[:, wide * 2 // 3 :], errors, rms_px)
    return np.concatenate([*rows, panel], axis=0)


def _tile(view: View, residuals_px: FloatArray, fit: ViewFit, magnify: float) -> Picture:
    import cv2

    scale = _TILE_W / view.width
    height = max(1, round(view.height * scale))
    out = _blank(_CAPTION + height, _TILE_W)
    if view.picture is not None:
        small = cv2.resize(view.picture, (_TILE_W, height), interpolation=cv2.INTER_AREA)
        out[_CAPTION:] = (np.asarray(small)[..., None] // 2 + 120).astype(np.uint8)  # pale, so that the marks are seen
    detected = (view.corners.pixels + 0.5) * scale - 0.5 + [0, _CAPTION]
    for point in detected:
        cv2.circle(out, _at(point), 4, _DETECTED, 1, cv2.LINE_AA)
    if len(residuals_px) == len(detected):
        expected = detected - residuals_px * scale
        for point, residual in zip(expected, residuals_px, strict=True):
            cv2.drawMarker(out, _at(point), _EXPECTED, cv2.MARKER_CROSS, 6, 1, cv2.LINE_AA)
            if np.isfinite(residual).all():
                cv2.arrowedLine(out, _at(point), _at(point + residual * magnify), _ARROW, 1, cv2.LINE_AA)
    state = "" if fit.used else "  LEFT OUT"
    _write(out, f"{view.name}  {fit.rms_px:.2f} px{state}  (arrows x {magnify:.0f})", (4, 14))
    return out


def _histogram(panel: Picture, lengths: FloatArray, rms_px: float) -> None:
    import cv2

    height, width = panel.shape[:2]
    left, right, top, base = 30, width - 20, 30, height - 40
    _write(panel, f"errors of {len(lengths)} corners, px; root mean square {rms_px:.3f}", (left, 18))
    if not len(lengths):
        return
    most_px = max(float(lengths.max()), 1e-9)
    counts, _ = np.histogram(lengths, bins=_BINS, range=(0, most_px))
    step = (right - left) / _BINS
    for number, count in enumerate(counts):
        tall = round((base - top) * int(count) / int(counts.max()))
        corner = (round(left + number * step) + 1, base - tall)
        cv2.rectangle(panel, corner, (round(left + (number + 1) * step) - 1, base), _ARROW, -1)
    cv2.line(panel, (left, base), (right, base), _INK, 1)
    x = round(left + (right - left) * min(rms_px / most_px, 1.0))
    cv2.line(panel, (x, top), (x, base), _EXPECTED, 1, cv2.LINE_AA)
    for share in (0.0, 0.5, 1.0):
        _write(panel, f"{share * most_px:.2g}", (round(left + share * (right - left)) - 12, base + 18))


def _scatter(panel: Picture, errors: FloatArray, rms_px: float) -> None:
    import cv2

    height, width = panel.shape[:2]
    middle, reach = np.array([width / 2, height / 2 + 8]), min(width, height) / 2 - 30
    _write(panel, f"errors, circle of {rms_px:.3f} px", (10, 18))
    if not len(errors):
        return
    scale = reach / max(float(np.abs(errors).max(initial=0.0)), 1e-9)
    for axis in reach * np.eye(2):
        cv2.line(panel, _at(middle - axis), _at(middle + axis), _FAINT, 1)
    for error in errors:
        cv2.circle(panel, _at(middle + error * scale), 1, _ARROW, -1, cv2.LINE_AA)
    cv2.circle(panel, _at(middle), round(rms_px * scale), _EXPECTED, 1, cv2.LINE_AA)


def _at(point: Any) -> tuple[int, int]:
    finite = np.nan_to_num(np.asarray(point, float), nan=-1e4).clip(-1e4, 1e4)  # far outside is not drawn
    return round(float(finite[0])), round(float(finite[1]))


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _padded(tile: Picture, height: int) -> Picture:
    out = _blank(height, tile.shape[1])
    out[: tile.shape[0]] = tile
    return out


def _write(picture: Picture, text: str, corner: tuple[int, int]) -> None:
    import cv2

    cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
