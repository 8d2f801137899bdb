"""The side of an object that a camera sees: points with normals, and its outline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

from perceive.pose.raster import MeshRenderer
from sensors.geometry import FloatArray

_MARGIN_PX = 2


@final
@dataclass(frozen=True, eq=False)
class Side:
    """What is seen of an object at H poses (or 1 for all hypotheses).

    Attributes:
        xyz_m: float64 [H, N, 3], points of the surface in the object's frame.
        normal: float64 [H, N, 3] in the object's frame, towards the camera.
        rgb: uint8 [H, N, 3], colours of the model, unshaded.
        rim_m: float64 [H, M, 3], points just inside of the outline, in the object's frame.
        rim_px: float64 [H, M, 2], unit vectors in the picture, out of the object.
        inside_px: how far the points of the rim lie inside of the outline, on average.
        inner: bool [H, N], points whose neighbours in the drawing are of the object as well; None = not known.
    """

    xyz_m: FloatArray
    normal: FloatArray
    rgb: NDArray[np.uint8]
    rim_m: FloatArray
    rim_px: FloatArray
    inside_px: float
    inner: NDArray[np.bool_] | None = None


def see(
    renderer: MeshRenderer,
    camera_from_object: FloatArray,
    intrinsics_px: FloatArray,
    size_px: tuple[int, int],
    points: int,
    rim: int,
) -> Side | None:
    """Draw the object at one pose [4, 4] and keep a regular choice of its pixels.

    Only every ``step``-th pixel of its box is drawn: a camera with ``fx / step`` sees exactly those.

    Args:
        renderer: of the object.
        camera_from_object: the pose.
        intrinsics_px: fx fy cx cy.
        size_px: height and width of the picture.
        points: about how many points to keep.
        rim: how many points of the outline at most.

    Returns:
        None where the object is out of view.
    """
    height, width = size_px
    box = renderer.box(camera_from_object, intrinsics_px, height, width)
    if box is None:
        return None
    # About half of a box is object.
    step = max(1, math.floor(math.sqrt((box[2] - box[0]) * (box[3] - box[1]) / (2.0 * points))))
    fx, fy, cx, cy = intrinsics_px
    small = np.array([fx / step, fy / step, cx / step, cy / step])
    margin = _MARGIN_PX
    # The grid may leave the picture by a margin: an outline there is the picture's edge, not the object's, and is
    # dropped when it is looked up.
    grid = (
        box[0] // step - margin,
        box[1] // step - margin,
        -(-box[2] // step) + margin,
        -(-box[3] // step) + margin,
    )
    drawn = renderer.render(camera_from_object, small, grid)
    there = drawn.depth_m[0] > 0
    if there.sum() < 6:
        return None
    rotation = camera_from_object[:3, :3]
    xyz = drawn.coordinates_m[0][there].astype(np.float64)
    normal = drawn.normal[0][there].astype(np.float64) @ rotation
    inner = binary_erosion(there)
    edge = there & ~inner
    down, right = np.gradient(gaussian_filter(there.astype(np.float64), 1.5))
    outwards = -np.stack([right[edge], down[edge]], -1)
    length = np.linalg.norm(outwards, axis=-1)
    kept = np.flatnonzero(length > 0)
    kept = kept[np.linspace(0, len(kept) - 1, min(rim, len(kept))).astype(int)] if len(kept) else kept
    rim_m = drawn.coordinates_m[0][edge].astype(np.float64)[kept]
    return Side(
        xyz[None],
        normal[None],
        drawn.rgb[0][there][None],
        rim_m[None],
        (outwards[kept] / length[kept, None])[None],
        0.5 * step,
        inner[there][None],
    )
