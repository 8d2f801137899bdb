"""Sensor data as pictures: colour, depth, touch, and curves of vectors over time; all uint8 [H, W, 3], RGB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

BACKGROUND = (24, 24, 28)
INK = (230, 230, 230)
FAINT = (90, 90, 96)
# Distinct to colour-blind readers as well (Okabe and Ito).
LINES = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
CAPTION_PX = 18


def blank(height: int, width: int) -> Picture:
    """An empty picture."""
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def depth_picture(depth_m: NDArray[Any], near_m: float, far_m: float) -> Picture:
    """Metric depth [H, W] in colours, near = bright; pixels without measurement (0) stay dark."""
    there = depth_m > 0
    share = np.clip((depth_m - near_m) / max(far_m - near_m, 1e-6), 0, 1)
    coloured = cv2.applyColorMap((255 * (1 - share)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(there[..., None], coloured, np.uint8(BACKGROUND[0])).astype(np.uint8)


def touch_picture(indentation_m: NDArray[Any], full_m: float) -> Picture:
    """Indentation [h, w] in colours; ``full_m`` and more is brightest, 0 is dark."""
    share = np.clip(indentation_m / max(full_m, 1e-9), 0, 1)
    return np.ascontiguousarray(cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1])


def force_picture(force_N: NDArray[Any], full_N: float, side_px: int = 168) -> Picture:  # noqa: N803
    """A field of forces [h, w, 3] on a gel: what presses in colours, what drags as arrows, each over about an eighth.

    Args:
        force_N: in the pad frame, on the gel: z < 0 presses, x > 0 drags to the right, y > 0 down.
        full_N: what presses a piece with this and more is brightest; an arrow as long as its square drags as hard.
        side_px: the longer side of the picture.
    """
    rows, columns = force_N.shape[:2]
    cell = max(side_px // max(rows, columns), 1)
    force = np.nan_to_num(np.asarray(force_N, float))
    pressed = touch_picture(-force[..., 2], full_N)
    out = np.ascontiguousarray(np.repeat(np.repeat(pressed, cell, 0), cell, 1))
    step = max(round(max(rows, columns) / 8), 1)
    for top in range(0, rows, step):
        for left in range(0, columns, step):
            part = force[top : top + step, left : left + step, :2]
            way = part.mean((0, 1)) / max(full_N, 1e-9) * step * cell
            middle = np.array([left + part.shape[1] / 2, top + part.shape[0] / 2]) * cell
            if np.hypot(*way) >= 1:
                tip = tuple(int(v) for v in np.round(middle + way))
                tail = tuple(int(v) for v in np.round(middle))
                cv2.arrowedLine(out, tail, tip, LINES[1], 1, cv2.LINE_AA, tipLength=0.35)
    return out


def curve_picture(values: NDArray[Any], upto: int, height: int, width: int) -> Picture:
    """Curves of a vector over an episode, drawn up to a moment.

    Args:
        values: [L, C], one curve a column; NaN leaves a gap.
        upto: the step now; later ones are not drawn.
        height: of the picture, px.
        width: of the picture, px.

    The scale spans the whole episode and always shows zero.
    """
    out = blank(height, width)
    values = np.asarray(values, float).reshape(len(values), -1)
    finite = values[np.isfinite(values)]
    low = min(0.0, float(finite.min()) if finite.size else 0.0)
    high = max(0.0, float(finite.max()) if finite.size else 0.0)
    span = (high - low) or 1.0
    margin = 4
    x = margin + (width - 2 * margin) * np.arange(len(values)) / max(len(values) - 1, 1)
    y = height - margin - (height - 2 * margin) * (values - low) / span
    zero = int(height - margin - (height - 2 * margin) * (0 - low) / span)
    cv2.line(out, (0, zero), (width, zero), FAINT, 1)
    for column in range(values.shape[1]):
        for step in range(1, min(upto + 1, len(values))):
            ends = (x[step - 1], y[step - 1, column], x[step], y[step, column])
            if np.isfinite(ends).all():
                a, b, c, d = (round(float(end)) for end in ends)
                cv2.line(out, (a, b), (c, d), LINES[column % len(LINES)], 1, cv2.LINE_AA)
    write(out, f"{high:.3g}", (3, 12), 0.35)
    write(out, f"{low:.3g}", (3, height - 4), 0.35)
    return out


def write(picture: Picture, text: str, corner: tuple[int, int], size: float = 0.4) -> None:
    """Write text into a picture; ``corner`` is the lower left of its first letter, px."""
    cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)


def fit(picture: Picture, height: int, width: int) -> Picture:
    """The picture as large as it fits into a box, its shape kept, on the background. Pixels stay sharp."""
    scale = min(height / picture.shape[0], width / picture.shape[1])
    h, w = max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))
    way = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    out = blank(height, width)
    top, left = (height - h) // 2, (width - w) // 2
    out[top : top + h, left : left + w] = cv2.resize(np.ascontiguousarray(picture), (w, h), interpolation=way)
    return out


def mosaic(pictures: Mapping[str, Picture], columns: int, height: int, width: int) -> Picture:
    """Named pictures in a grid of equal boxes with their names above them; even-sized, as video codecs need."""
    rows = -(-len(pictures) // columns)
    out = blank(2 * -(-rows * (height + CAPTION_PX) // 2), 2 * -(-columns * width // 2))
    for index, (name, picture) in enumerate(pictures.items()):
        top, left = (index // columns) * (height + CAPTION_PX), (index % columns) * width
        out[top + CAPTION_PX : top + CAPTION_PX + height, left : left + width] = fit(picture, height, width)
        write(out, name, (left + 4, top + CAPTION_PX - 5))
    return out


def contact_sheet(frames: Sequence[Picture], labels: Sequence[str], columns: int) -> Picture:
    """Equal-sized frames side by side, for a single picture of an episode."""
    height, width = frames[0].shape[:2]
    return mosaic(dict(zip(labels, frames, strict=True)), columns, height, width)
