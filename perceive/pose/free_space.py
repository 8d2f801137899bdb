"""FreeSpaceJudge: which of several poses agree with all that a picture and the references saw, and saw through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.pose.raster import NEAREST_M
from perceive.pose.references import Reference
from perceive.pose.templates.features import colour_features
from sensors.errors import DataError
from sensors.geometry import FloatArray, invert, unproject

_POINTS = 256  # of the picture, and of all references together
_COLOUR_SHARE = 0.4  # how much of a point's agreement is its colour
_UNKNOWN = 0.6  # what a point counts that no reference could have seen
_HIDDEN = 2.0  # tolerances behind a seen surface, beyond which a point is hidden by it
_EDGE_PX = 1  # about the outline of a mask in which nothing is held against a point


@final
@dataclass(frozen=True, eq=False)
class Sight:
    """What one camera saw of an object and of what is behind.

    Attributes:
        depth_m: float32 [H, W], 0 = unknown.
        inside: bool [H, W], the object's pixels.
        edge: bool [H, W], about the outline.
        colour: float32 [H, W, 4], unit features of the object's pixels.
        intrinsics_px: float64 [4].
    """

    depth_m: NDArray[np.float32]
    inside: NDArray[np.bool_]
    edge: NDArray[np.bool_]
    colour: NDArray[np.float32]
    intrinsics_px: FloatArray

    def points(self) -> tuple[FloatArray, NDArray[np.float32]]:
        """Points [P, 3] of the object in the camera's frame, away from the outline if enough are left; colours."""
        there = self.inside & (self.depth_m > 0)
        core = there & ~self.edge
        there = core if core.sum() > 0.4 * there.sum() else there
        row, column = np.nonzero(there)
        return unproject(self.depth_m, self.intrinsics_px)[row, column], self.colour[row, column]

    def look(
        self, points_m: FloatArray, colour: NDArray[np.float32], tolerance_m: float
    ) -> tuple[FloatArray, FloatArray]:
        """How much points [N, P, 3] in the camera's frame agree with what was seen, and how much they are denied.

        A point is denied that the camera saw through: something farther away was seen there, or something that is not
        the object. What lies behind a seen surface is neither.
        """
        fx, fy, cx, cy = (float(value) for value in self.intrinsics_px)
        z = points_m[..., 2]
        ahead = z > NEAREST_M
        safe = np.where(ahead, z, 1.0)
        column = np.rint(points_m[..., 0] / safe * fx + cx)
        row = np.rint(points_m[..., 1] / safe * fy + cy)
        height, width = self.depth_m.shape
        known = ahead & (column >= 0) & (row >= 0) & (column < width) & (row < height)
        where = (np.where(known, row, 0).astype(np.int64), np.where(known, column, 0).astype(np.int64))
        seen, inside, edge = self.depth_m[where], self.inside[where], self.edge[where]
        known &= seen > 0
        gap = (seen - z) / tolerance_m  # above 0: the camera saw past the point
        like = 1.0 / (1.0 + gap * gap)
        same = 0.5 + 0.5 * (self.colour[where] * colour).sum(-1)
        near = known & inside & (gap > -_HIDDEN)
        agree = np.where(near, like * (1 - _COLOUR_SHARE + _COLOUR_SHARE * same), 0.0)
        past = np.where(inside, gap > 0, gap > -_HIDDEN) & known & ~edge
        denied = np.where(past, np.where(inside, 1.0 - like, 1.0), 0.0)
        return agree, denied


@final
class FreeSpaceJudge:
    """Scores poses by the depth, masks and colours of a picture and of a few references, with no mesh.

    A mesh of few references is open: rendering it punishes the true pose for what no reference saw, and rewards a wrong
    one that brings what they saw before the camera. Here each point of the picture is put, by a pose, before every
    reference. It agrees with one that saw a surface of that colour there; it is denied by one that saw through it; it
    is unknown if it is hidden from all, which is no fault. In the same way points of the references are put before the
    picture, which must not have seen through them.

    Args:
        references: of one object.
        diameter_m: of it.
        tolerance: depth difference that counts half, as a share of the diameter.
        floor_m: the same at least.
        seed: of the points.

    Raises:
        DataError: no reference.
    """

    def __init__(
        self,
        references: Sequence[Reference],
        diameter_m: float,
        tolerance: float = 0.03,
        floor_m: float = 0.003,
        seed: int = 0,
    ) -> None:
        if not references:
            raise DataError("FreeSpaceJudge", "at least one reference", "none", "Take a picture of the object.")
        self._tolerance_m = max(tolerance * diameter_m, floor_m)
        self._seed = seed
        self._sights = [
            sight_of(one.frame.rgb, one.frame.depth_m, one.mask, one.frame.intrinsics_px) for one in references
        ]
        self._poses = [np.asarray(one.camera_from_object, np.float64) for one in references]
        places, colours = [], []
        for sight, pose in zip(self._sights, self._poses, strict=True):
            place, colour = sight.points()
            back = invert(pose)
            places.append(place @ back[:3, :3].T + back[:3, 3])
            colours.append(colour)
        self._places, self._colours = _some(np.concatenate(places), np.concatenate(colours), seed)

    def score(
        self,
        rgb: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        mask: NDArray[np.bool_],
        camera_from_object: FloatArray,
        intrinsics_px: FloatArray,
    ) -> FloatArray:
        """Float64 [N] in 0 to 1.

        Args:
            rgb: [H, W, 3].
            depth_m: [H, W], 0 = unknown.
            mask: [H, W].
            camera_from_object: [N, 4, 4].
            intrinsics_px: fx fy cx cy.

        Raises:
            DataError: the mask has no depth.
        """
        poses = np.asarray(camera_from_object, np.float64).reshape(-1, 4, 4)
        sight = sight_of(rgb, depth_m, mask, intrinsics_px)
        points, colours = _some(*sight.points(), self._seed)
        if not len(points):
            raise DataError("FreeSpaceJudge", "depth within the mask", "none", "Judge by a rendering.")
        turn, shift = poses[:, :3, :3], poses[:, None, :3, 3]
        placed = (points[None] - shift) @ turn  # in the object's frame, [N, P, 3]
        agree: FloatArray = np.zeros(placed.shape[:2])
        denied: FloatArray = np.zeros(placed.shape[:2])
        for reference, pose in zip(self._sights, self._poses, strict=True):
            one, other = reference.look(placed @ pose[:3, :3].T + pose[:3, 3], colours, self._tolerance_m)
            agree, denied = np.maximum(agree, one), np.maximum(denied, other)
        good = ((1 - denied) * (agree + (1 - agree) * _UNKNOWN)).mean(1)
        back = self._places[None] @ turn.transpose(0, 2, 1) + shift
        _, through = sight.look(back, self._colours, self._tolerance_m)
        return np.asarray(good * (1 - through.mean(1)), np.float64)


def sight_of(
    rgb: NDArray[np.uint8], depth_m: NDArray[np.floating], mask: NDArray[np.bool_], intrinsics_px: FloatArray
) -> Sight:
    """What a picture shows of the object of a mask."""
    depth = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0).astype(np.float32)
    inside = np.asarray(mask, bool)
    outline = torch.from_numpy(inside.astype(np.float32))[None, None]
    reach = 2 * _EDGE_PX + 1
    pool = torch.nn.functional.max_pool2d
    wide = pool(outline, reach, 1, _EDGE_PX) > 0
    narrow = -pool(-outline, reach, 1, _EDGE_PX) > 0
    values = torch.from_numpy(rgb.astype(np.float32) / np.float32(255)).permute(2, 0, 1)[None]
    colour = colour_features(values, torch.from_numpy(inside)[None, None])[0].permute(1, 2, 0).numpy()
    return Sight(depth, inside, (wide & ~narrow)[0, 0].numpy(), colour, np.asarray(intrinsics_px, np.float64))


def _some(points: FloatArray, colours: NDArray[np.float32], seed: int) -> tuple[FloatArray, NDArray[np.float32]]:
    if len(points) <= _POINTS:
        return points, colours
    chosen = np.random.default_rng(seed).choice(len(points), _POINTS, replace=False)
    return points[chosen], colours[chosen]
