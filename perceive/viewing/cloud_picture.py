"""Pictures of point clouds with boxes, by numpy alone: the same pixels on every machine, and no window is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceive.viewing.cloud_view import View
from perceive.viewing.draw import Picture, blank
from sensors.errors import SpecError
from sensors.geometry import FloatArray

# Radius of a point as a share of sqrt(H W / N), the edge of the square that each of N points has to itself.
FILL = 0.5
MOST_PX = 4.0
_BLOCK = 100_000  # points drawn at once, which bounds the memory
# Corners of a box as signs: the bottom counter-clockwise from the front left, then the top.
_SIGNS = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
_EDGES = [(i, (i + 1) % 4) for i in range(4)]
_EDGES = [*_EDGES, *((a + 4, b + 4) for a, b in _EDGES), *((i, i + 4) for i in range(4))]


@final
@dataclass(frozen=True, eq=False)
class BoxLayer:
    """Boxes to draw in one colour.

    Attributes:
        boxes: [K, 7 or more], centre 3, size 3 along its own axes, yaw; metres and radians.
        colour: red, green, blue.
        texts: [K] what stands at each, or nothing.

    Raises:
        SpecError: arrays that do not fit together.
    """

    boxes: FloatArray
    colour: tuple[int, int, int]
    texts: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] < 7 or len(self.texts) not in (0, len(self.boxes)):
            got = f"{list(self.boxes.shape)}, {len(self.texts)} texts"
            raise SpecError("BoxLayer", "boxes [K, 7 or more], and no or K texts", got, "Correct them.")


def cloud_picture(
    view: View,
    xyz_m: ArrayLike,
    colours: NDArray[np.uint8],
    boxes: Sequence[BoxLayer] = (),
    radius_px: float | None = None,
) -> Picture:
    """A picture of a cloud, uint8 [H, W, 3]. Points without a finite place are not drawn.

    Args:
        view: where it is taken from.
        xyz_m: [N, 3] in the frame that the view speaks of.
        colours: uint8 [N, 3].
        boxes: drawn over the points, in this order.
        radius_px: of a point at the distance that the view looks at; nearer ones are larger. None = by how many points
            there are, so that sparse clouds are seen and dense ones stay sharp.

    Raises:
        SpecError: not one colour for each point.
    """
    points = np.asarray(xyz_m, float)
    if points.ndim != 2 or points.shape[1] != 3 or colours.shape != points.shape:
        got = f"{list(points.shape)} and {list(colours.shape)}"
        raise SpecError("cloud_picture", "points [N, 3] and colours [N, 3]", got, "Give each point a colour.")
    out = blank(view.height, view.width)
    if radius_px is None:
        radius_px = min(FILL * math.sqrt(view.height * view.width / max(len(points), 1)), MOST_PX)
    _splat(out, view, points, colours, radius_px)
    for layer in boxes:
        draw_boxes(out, view, layer)
    return out


def box_corners(boxes: ArrayLike) -> FloatArray:
    """Corners [K, 8, 3] of boxes [K, 7 or more]: the bottom counter-clockwise from the front left, then the top."""
    boxes = np.asarray(boxes, float)
    half = boxes[:, 3:6] / 2
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    x, y = (_SIGNS[None, :, axis] * half[:, axis, None] for axis in (0, 1))
    flat = np.stack([cos[:, None] * x - sin[:, None] * y, sin[:, None] * x + cos[:, None] * y], axis=-1)
    flat = flat + boxes[:, None, :2]
    floors = boxes[:, 2, None] + half[:, 2, None] * np.array([-1.0, 1.0])
    levels = [np.concatenate([flat, np.broadcast_to(z[:, None, None], (*flat.shape[:2], 1))], -1) for z in floors.T]
    return np.concatenate(levels, axis=1)


def draw_boxes(picture: Picture, view: View, layer: BoxLayer) -> None:
    """Wire frames, an arrow out of the front of each, and its text; boxes that are not finite are left out."""
    kept = np.flatnonzero(np.isfinite(layer.boxes[:, :7]).all(axis=1)).tolist()
    for number, corners in zip(kept, box_corners(layer.boxes[kept]), strict=True):
        for first, second in _EDGES:
            _line(picture, view, corners[first], corners[second], layer.colour, arrow=False)
        middle, front = corners[4:].mean(axis=0), (corners[4] + corners[7]) / 2
        _line(picture, view, middle, middle + 1.5 * (front - middle), layer.colour, arrow=True)
        if layer.texts:
            place = view.pixels(view.seen(corners[4:]))
            if np.isfinite(place).all():
                corner = (round(float(place[:, 0].min())), round(float(place[:, 1].min())) - 3)
                if 0 <= corner[0] < view.width and 0 <= corner[1] < view.height:
                    cv2.putText(
                        picture, layer.texts[number], corner, cv2.FONT_HERSHEY_SIMPLEX, 0.33, layer.colour, 1,
                        cv2.LINE_AA,
                    )  # fmt: skip


def _splat(out: Picture, view: View, points: FloatArray, colours: NDArray[np.uint8], radius_px: float) -> None:
    """Far to near, so that the nearest is drawn last; of equally near ones the first in the cloud is."""
    seen = view.seen(np.where(np.isfinite(points), points, np.nan))
    with np.errstate(invalid="ignore"):
        there = np.flatnonzero((seen[:, 2] > view.near_m) & np.isfinite(seen).all(axis=1))[::-1]
    # A sort of whole numbers, and stable: equal depths keep their order.
    there = there[np.argsort(-seen[there, 2], kind="stable")]
    height, width = out.shape[:2]
    flat = out.reshape(-1, 3)
    reach = math.ceil(MOST_PX)
    steps = [(r, c) for r in range(-reach, reach + 1) for c in range(-reach, reach + 1)]
    steps.sort(key=lambda step: step[0] ** 2 + step[1] ** 2)
    down, right = np.array(steps).T
    square = down**2 + right**2
    for start in range(0, len(there), _BLOCK):
        block = there[start : start + _BLOCK]
        pixels = view.pixels(seen[block])
        inside = ((pixels > -reach - 1) & (pixels < np.array([width, height]) + reach)).all(axis=1)
        block, pixels = block[inside], np.rint(pixels[inside]).astype(np.int64)
        larger = 1.0 if view.parallel else view.distance_m / seen[block, 2]
        radius = np.clip(radius_px * larger, 0, MOST_PX) * np.ones(len(block))
        # Each point takes the first so many steps, those within its radius.
        counts = np.searchsorted(square, radius**2, side="right")
        ends = np.cumsum(counts)
        owner = np.repeat(np.arange(len(block)), counts)
        step = np.arange(len(owner)) - np.repeat(ends - counts, counts)
        row, column = pixels[owner, 1] + down[step], pixels[owner, 0] + right[step]
        held = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        flat[(row * width + column)[held]] = colours[block[owner[held]]]


def _line(
    picture: Picture, view: View, first: FloatArray, second: FloatArray, colour: tuple[int, int, int], arrow: bool
) -> None:
    ends = view.seen(np.stack([first, second]))
    depth = ends[:, 2]
    if (depth <= view.near_m).all():
        return
    if (depth <= view.near_m).any():  # the part behind the eye is cut off
        share = (view.near_m - depth[0]) / (depth[1] - depth[0])
        ends[int(np.argmin(depth))] = ends[0] + share * (ends[1] - ends[0])
    pixels = view.pixels(ends)
    # OpenCV counts in 32 bits; so far outside, a line may as well end.
    a, b = (tuple(int(v) for v in np.rint(np.clip(end, -1e6, 1e6))) for end in pixels)
    if arrow:
        cv2.arrowedLine(picture, a, b, colour, 1, cv2.LINE_AA, tipLength=0.2)
    else:
        cv2.line(picture, a, b, colour, 1, cv2.LINE_AA)
