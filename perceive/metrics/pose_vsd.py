"""Visible surface discrepancy: how the parts of an object that can be seen differ between two poses.

:func:`vsd` is the definition on whole distance images. :class:`VisibleSurface` renders and compares only the part of
the picture that holds the object, and keeps what belongs to the true pose; its values are the same.

Papers: T. Hodan, J. Matas, S. Obdrzalek, "On Evaluation of 6D Object Pose Estimation", ECCV workshops 2016; T. Hodan
et al., "BOP Challenge 2020 on 6D Object Localization", ECCV workshops 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceive.metrics.pose_errors import checked_intrinsics, checked_pose
from perceive.pose.raster import Box, MeshRenderer
from sensors.errors import SensorError, SpecError
from sensors.geometry import FloatArray, transform_points

DELTA_M = 0.015  # BOP; 0.005 for ITODD
TAUS = np.arange(0.05, 0.51, 0.05)  # shares of the diameter
_MM = 1000.0


def distance_image(depth_m: ArrayLike, intrinsics_px: ArrayLike, box: Box | None = None) -> FloatArray:
    """Distance to the camera's centre [H, W] from depth (z) [H, W], metres; 0 stays 0.

    Args:
        depth_m: of the whole picture, or of its part ``box``.
        intrinsics_px: fx fy cx cy.
        box: left, top, right, bottom of the part; None = it is the whole picture.
    """
    depth = np.asarray(depth_m, np.float64)
    box = (0, 0, depth.shape[1], depth.shape[0]) if box is None else box
    return np.asarray(depth * _ray_lengths(checked_intrinsics(intrinsics_px), box))


def vsd(
    test_m: ArrayLike,
    truth_m: ArrayLike,
    estimate_m: ArrayLike,
    diameter_m: float,
    taus: ArrayLike = TAUS,
    delta_m: float = DELTA_M,
) -> FloatArray:
    """VSD from distance images [H, W] in metres (see :func:`distance_image`), one value in 0..1 per tau [T].

    A pixel of the object in the true pose counts as visible if it is at most ``delta_m`` behind what was measured, or
    if nothing was measured; the same in the estimated pose, where pixels that are visible in the true pose count too.
    The cost of a pixel in both is 1 if the two distances differ by ``tau`` diameters **or more**; that of a pixel in
    one of them is 1. No visible pixel at all: 1.

    Args:
        test_m: what the camera measured; 0 = nothing.
        truth_m: the object alone in the true pose; 0 = not there.
        estimate_m: the object alone in the estimated pose.
        diameter_m: of the object.
        taus: misalignment tolerances [T], shares of the diameter, rising.
        delta_m: tolerance of visibility.

    Raises:
        SpecError: images of different shapes, taus that do not rise, or a diameter that is not positive.
    """
    test, truth, estimate = (np.asarray(image, np.float64) for image in (test_m, truth_m, estimate_m))
    if test.ndim != 2 or not test.shape == truth.shape == estimate.shape:
        got = f"{test.shape}, {truth.shape}, {estimate.shape}"
        raise SpecError("vsd", "three distance images [H, W] of one shape", got, "Render at the picture's size.")
    limits = _checked(taus, diameter_m)
    seen = visible(test, truth, delta_m)
    guessed = visible(test, estimate, delta_m) | (seen & (estimate > 0.0))
    both = seen & guessed
    return _cost(np.abs(truth[both] - estimate[both]), int((seen | guessed).sum()), limits, diameter_m)


def visible(test_m: FloatArray, object_m: FloatArray, delta_m: float) -> NDArray[np.bool_]:
    """Which pixels of an object are not hidden: at most ``delta_m`` behind what was measured, or nothing was measured.

    Compared in float32 millimetres as the benchmark does, so that a surface exactly ``delta_m`` behind is visible.
    """
    behind = (object_m * _MM).astype(np.float32) - (test_m * _MM).astype(np.float32)
    return np.asarray(((behind <= np.float32(round(delta_m * _MM, 6))) | (test_m == 0.0)) & (object_m > 0.0))


def projections_overlap(diameter_m: float, estimate: ArrayLike, truth: ArrayLike) -> bool:
    """Whether the outlines of balls of the object's diameter about its two origins overlap; BOP sets VSD to 1 if not.

    The benchmark's approximation: centres on the plane z = 1 nearer than the sum of the radii there. An origin in the
    plane of the camera overlaps with nothing.
    """
    return _balls_overlap(diameter_m, checked_pose("estimate", estimate), checked_pose("truth", truth))


# A box, or None for out of view, and the depth in it.
Drawn = tuple[Box | None, NDArray[np.floating[Any]]]


@final
@dataclass(frozen=True, eq=False)
class TrueSurface:
    """The object in its true pose in one picture.

    Attributes:
        camera_from_object: float64 [4, 4].
        box: the part of the picture that holds it; None = it is out of view.
        distance_m: float64 [h, w]; 0 = it is not there.
        seen: bool [h, w], which of its pixels are visible.
    """

    camera_from_object: FloatArray
    box: Box | None
    distance_m: FloatArray
    seen: NDArray[np.bool_]


@final
class VisibleSurface:
    """VSD of poses of one object in one picture.

    Example::

        surface = VisibleSurface(MeshRenderer(model), depth_m, intrinsics_px)
        truth = surface.truth(camera_from_object)  # rendered once
        errors = surface.vsd(estimate, truth)  # one per tau

    Args:
        renderer: of the object.
        depth_m: [H, W], what was measured; 0 or NaN = nothing.
        intrinsics_px: fx fy cx cy.
        taus: [T], rising.
        delta_m: tolerance of visibility.
        shortcut: VSD is 1 without a look where :func:`projections_overlap` says no, as in the benchmark.
        corners_m: [C, 3], corners of the model's convex hull, if they are known: a closer box is rendered then.

    Raises:
        SensorError: depth that is no picture, or negative.
        SpecError: taus that do not rise, or intrinsics of the wrong shape.
    """

    def __init__(
        self,
        renderer: MeshRenderer,
        depth_m: ArrayLike,
        intrinsics_px: ArrayLike,
        taus: ArrayLike = TAUS,
        delta_m: float = DELTA_M,
        shortcut: bool = True,
        corners_m: FloatArray | None = None,
    ) -> None:
        self._renderer = renderer
        self._depth = np.asarray(depth_m)
        self._intrinsics = checked_intrinsics(intrinsics_px)
        self._diameter = renderer.model.diameter_m
        self._taus = _checked(taus, self._diameter)
        self._delta_m = delta_m
        self._shortcut = shortcut
        self._corners = corners_m
        if self._depth.ndim != 2 or not self._depth.size:
            raise SensorError("VisibleSurface", "depth [H, W]", f"{self._depth.shape}", "Pass z in metres per pixel.")

    def box(self, camera_from_object: ArrayLike) -> Box | None:
        """The part of the picture that is rendered for a pose [4, 4]; None = it is out of view."""
        pose = checked_pose("pose", camera_from_object)
        height, width = self._depth.shape
        box = self._renderer.box(pose, self._intrinsics, height, width)
        return box if box is None or self._corners is None else self._closer(pose, box)

    def truth(self, camera_from_object: ArrayLike, drawn: Drawn | None = None) -> TrueSurface:
        """The object in its true pose [4, 4], to be used for all estimates of it; ``drawn`` if it is rendered."""
        pose = checked_pose("truth", camera_from_object)
        return TrueSurface(pose, *self._look(pose, drawn))

    def vsd(self, estimate: ArrayLike, truth: TrueSurface, drawn: Drawn | None = None) -> FloatArray:
        """One value per tau [T] of an estimated pose [4, 4], as :func:`vsd`; ``drawn`` if it is rendered already."""
        pose = checked_pose("estimate", estimate)
        if self._shortcut and not _balls_overlap(self._diameter, pose, truth.camera_from_object):
            return np.ones(len(self._taus))
        box, distance, guessed = self._look(pose, drawn)
        union = int(np.count_nonzero(truth.seen))
        if box is None:
            return _cost(np.zeros(0), union, self._taus, self._diameter)
        apart = np.zeros(0)
        common = None if truth.box is None else _overlap(box, truth.box)
        if common is not None and truth.box is not None:
            here, there = _window(common, box), _window(common, truth.box)
            both = truth.seen[there] & (distance[here] > 0.0)  # all of them are visible in the estimate by definition
            guessed[here] |= both
            apart = np.abs(truth.distance_m[there][both] - distance[here][both])
        return _cost(apart, union + int(np.count_nonzero(guessed)) - len(apart), self._taus, self._diameter)

    def _look(self, pose: FloatArray, drawn: Drawn | None) -> tuple[Box | None, FloatArray, NDArray[np.bool_]]:
        """The box of a pose, the object's distance in it and which of its pixels are visible."""
        if drawn is None:
            box = self.box(pose)
            drawn = box, np.zeros((0, 0)) if box is None else self._renderer.depth(pose, self._intrinsics, box)[0]
        box, depth = drawn
        if box is None:
            return None, np.zeros((0, 0)), np.zeros((0, 0), np.bool_)
        lengths = _ray_lengths(self._intrinsics, box)  # of the object and of what was measured
        distance = depth * lengths
        return box, distance, visible(self._measured(box) * lengths, distance, self._delta_m)

    def _closer(self, pose: FloatArray, box: Box) -> Box | None:
        """The part of a box that holds the projected hull; the box itself if something is beside or behind the eye."""
        assert self._corners is not None
        points = transform_points(pose, self._corners)
        if points[:, 2].min() <= 1e-3:
            return box
        pixel = points[:, :2] / points[:, 2:] * self._intrinsics[:2] + self._intrinsics[2:]
        (left, top), (right, bottom) = np.floor(pixel.min(0)), np.ceil(pixel.max(0)) + 1
        return _overlap(box, (int(left), int(top), int(right), int(bottom)))

    def _measured(self, box: Box) -> NDArray[Any]:
        """The part of the depth; 0 = nothing."""
        left, top, right, bottom = box
        depth = self._depth[top:bottom, left:right]
        if depth.min() >= 0.0 and depth.max() < np.inf:  # not so if there is a NaN
            return depth
        depth = np.asarray(np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=-1.0))
        if (depth < 0.0).any():
            raise SensorError("VisibleSurface", "depth >= 0, 0 = nothing", "negative depth", "Pass z in metres.")
        return depth


def _ray_lengths(intrinsics: FloatArray, box: Box) -> FloatArray:
    """Lengths [h, w] of the rays to the plane z = 1: distance per depth."""
    fx, fy, cx, cy = intrinsics
    x = (np.arange(box[0], box[2]) - cx) / fx
    y = (np.arange(box[1], box[3]) - cy) / fy
    squares = np.add(x[None, :] ** 2, y[:, None] ** 2)
    squares += 1.0
    return np.asarray(np.sqrt(squares, out=squares))


def _balls_overlap(diameter_m: float, estimate: FloatArray, truth: FloatArray) -> bool:
    """As :func:`projections_overlap`, of poses that are known to be poses."""
    one, other = estimate[:3, 3], truth[:3, 3]
    if one[2] == 0.0 or other[2] == 0.0:
        return False
    apart = np.linalg.norm(one[:2] / one[2] - other[:2] / other[2])
    return bool(apart < 0.5 * diameter_m * (1.0 / one[2] + 1.0 / other[2]))


def _cost(apart_m: FloatArray, union: int, taus: FloatArray, diameter_m: float) -> FloatArray:
    """VSD from the distances [I] of the pixels in both and the number of pixels in any."""
    if union == 0:
        return np.ones(len(taus))
    reached = np.searchsorted(taus, apart_m / diameter_m, side="right")  # how many taus each reaches: >=, not >
    wrong = np.bincount(reached, minlength=len(taus) + 1)[::-1].cumsum()[::-1][1:]
    return np.asarray((wrong + (union - len(apart_m))) / union)


def _checked(taus: ArrayLike, diameter_m: float) -> FloatArray:
    limits = np.asarray(taus, np.float64)
    if limits.ndim != 1 or not len(limits) or not (np.diff(limits) > 0.0).all() or not diameter_m > 0.0:
        raise SpecError(
            "vsd", "rising taus [T] and a positive diameter", f"{limits.tolist()}, {diameter_m}", "Correct them."
        )
    return limits


def _overlap(one: Box, other: Box) -> Box | None:
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[2], other[2]), min(one[3], other[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _window(part: Box, of: Box) -> tuple[slice, slice]:
    """Rows and columns of a box inside of an array of another box."""
    return slice(part[1] - of[1], part[3] - of[1]), slice(part[0] - of[0], part[2] - of[0])
