"""What is wrong with a depth image: the square law of triangulation, and a fuller model of active stereo cameras."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.geometry import FloatArray
from sensors.simulated import check_settings, not_negative, positive

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


class DepthNoise(ABC):
    """Turns a true depth image into a measured one. Holds settings only, so that cameras may share one."""

    @abstractmethod
    def apply(
        self, depth_m: Image, intrinsics_px: FloatArray, near_m: float, far_m: float, rng: np.random.Generator
    ) -> Image:
        """The measured depth image.

        Args:
            depth_m: float32 [H, W], true z in the camera frame; 0 = nothing there. It is left as it is.
            intrinsics_px: fx fy cx cy [4].
            near_m: nothing nearer is seen, metres.
            far_m: no measurement lies beyond it, metres.
            rng: the camera's generator of depth noise, one for all frames of an episode.

        Returns:
            float32 [H, W] of its own memory; 0 = no measurement.
        """


@final
@dataclass(frozen=True)
class SquareLawNoise(DepthNoise):
    """Independent normal noise whose standard deviation is ``sigma_m * z^2``: the law of triangulation.

    Paper: K. Khoshelham and S. O. Elberink, "Accuracy and Resolution of Kinect Depth Data for Indoor Mapping
    Applications", Sensors 12(2), 2012, equation 9.

    Attributes:
        sigma_m: standard deviation at 1 m, metres.
    """

    sigma_m: float

    def __post_init__(self) -> None:
        check_settings("SquareLawNoise", not_negative({"sigma_m": self.sigma_m}))

    def apply(
        self, depth_m: Image, intrinsics_px: FloatArray, near_m: float, far_m: float, rng: np.random.Generator
    ) -> Image:
        noisy = np.array(depth_m, dtype=np.float32)
        if self.sigma_m > 0:
            noise = rng.standard_normal(noisy.shape, dtype=np.float32)
            noise *= np.float32(self.sigma_m)
            noise *= noisy
            noise *= noisy
            noisy += noise  # where the depth is 0, so is the noise
            np.clip(noisy, near_m, far_m, out=noisy)
            noisy[depth_m <= 0] = 0.0
        return noisy


@final
@dataclass(frozen=True)
class StereoDepthNoise(DepthNoise):
    """An active stereo camera: noise along and across the ray, and the pixels that it cannot measure.

    In this order, each cause with a generator of its own, so that one can be switched off and the others stay:

    1. lateral: pixel (u, v) measures the depth at (u, v) plus normal noise of ``lateral_px`` in both directions. The
       surface is that of the nearest pixel, continued as a plane, so edges fray and planes keep their plane;
    2. axial: normal noise of standard deviation ``axial_floor_m + axial_m * z^2``;
    3. edges: within ``edge_px`` pixels of a depth discontinuity a pixel is lost with probability ``edge_dropout``, as
       in the half-shadow that only one of the two imagers sees;
    4. grazing: between the two angles (of the ray to the surface's normal) the probability of loss rises linearly from
       0 to 1;
    5. random: any pixel is lost with probability ``dropout``;
    6. range: what is measured nearer than ``min_range_m`` or farther than ``max_range_m`` is no measurement.

    Edges and normals are those of the true image. Both come from inverse depth, which is linear in the pixel on every
    plane: a discontinuity is a change from one pixel to the next that neither neighbouring change explains, so steep
    planes and creases are none; and a plane's normal is exact.

    For a stereo camera with baseline b (m), focal length f (px) and disparity noise s (px), ``axial_m = s / (f b)``:
    b = 50 mm, f = 640 px and s = 0.08 px give 0.0025.

    Papers: Khoshelham and Elberink, Sensors 12(2), 2012 (axial law); C. V. Nguyen, S. Izadi and D. Lovell, "Modeling
    Kinect Sensor Noise for Improved 3D Reconstruction and Tracking", 3DIMPVT 2012 (lateral noise in pixels, constant
    term, loss at steep angles). Their growth of *noise* with the angle is not modelled, nor are correlation between
    neighbouring pixels and the side of an edge on which the shadow falls.

    Attributes:
        axial_m: standard deviation at 1 m of the part that grows with the square, metres (that is, 1/m times m^2).
        axial_floor_m: constant part of the standard deviation, metres.
        lateral_px: standard deviation of the place in each direction, pixels.
        edge_dropout: probability that a pixel near an edge is lost.
        edge_px: how near, pixels, along rows, columns and diagonals; 1 = the two pixels that the edge runs between.
        edge_step_m: least height of a step in depth that is an edge, metres.
        grazing_from_deg: steeper rays than this are lost sometimes, degrees from the normal; 90 = never.
        grazing_to_deg: steeper rays than this are lost always, degrees.
        dropout: probability that any pixel is lost.
        min_range_m: least depth that is measured, metres.
        max_range_m: greatest depth that is measured, metres; the camera's ``far_m`` limits it, too.

    Raises:
        SpecError: a setting is out of its range.
    """

    axial_m: float = 0.0025
    axial_floor_m: float = 0.0
    lateral_px: float = 0.5
    edge_dropout: float = 0.5
    edge_px: int = 1
    edge_step_m: float = 0.02
    grazing_from_deg: float = 70.0
    grazing_to_deg: float = 88.0
    dropout: float = 0.002
    min_range_m: float = 0.15
    max_range_m: float = 6.0

    def __post_init__(self) -> None:
        start, end = self.grazing_from_deg, self.grazing_to_deg
        check_settings(
            "StereoDepthNoise",
            {
                "edge_dropout": (0 <= self.edge_dropout <= 1, self.edge_dropout, "a probability"),
                "dropout": (0 <= self.dropout <= 1, self.dropout, "a probability"),
                "edge_px": (self.edge_px >= 1, self.edge_px, "at least 1 pixel"),
                "grazing_from_deg": (0 <= start <= 90, start, "an angle from 0 to 90 degrees"),
                "grazing_to_deg": (start <= end <= 90, end, "an angle from grazing_from_deg to 90 degrees"),
                "max_range_m": (self.max_range_m > self.min_range_m, self.max_range_m, "more than min_range_m"),
                **positive({"edge_step_m": self.edge_step_m}),
                **not_negative(
                    {
                        "axial_m": self.axial_m,
                        "axial_floor_m": self.axial_floor_m,
                        "lateral_px": self.lateral_px,
                        "min_range_m": self.min_range_m,
                    }
                ),
            },
        )

    def apply(
        self, depth_m: Image, intrinsics_px: FloatArray, near_m: float, far_m: float, rng: np.random.Generator
    ) -> Image:
        lateral_rng, axial_rng, edge_rng, grazing_rng, random_rng = rng.spawn(5)
        shape = depth_m.shape
        there = depth_m > 0
        inverse = np.zeros(shape, np.float32)  # 1/m; what is not there is infinitely far
        np.divide(1.0, depth_m, out=inverse, where=there)
        lost = np.zeros(shape, bool)
        measured = np.array(depth_m, dtype=np.float32)
        grazes = self.grazing_from_deg < 90
        if self.lateral_px > 0 or grazes:
            slopes = _slope(inverse.T).T, _slope(inverse)
            if grazes:
                lost |= self._grazing(inverse, slopes, intrinsics_px, grazing_rng)
            if self.lateral_px > 0:
                measured = _moved(inverse, slopes, self.lateral_px, lateral_rng)
                there = measured > 0
        if self.edge_dropout > 0:
            near_edge = _widened(edge_pixels(inverse, self.edge_step_m), self.edge_px - 1)
            lost |= near_edge & (edge_rng.random(shape, dtype=np.float32) < self.edge_dropout)
        if self.dropout > 0:
            lost |= random_rng.random(shape, dtype=np.float32) < self.dropout
        if self.axial_m > 0 or self.axial_floor_m > 0:
            sigma = np.square(measured)
            sigma *= np.float32(self.axial_m)
            sigma += np.float32(self.axial_floor_m)
            sigma *= axial_rng.standard_normal(shape, dtype=np.float32)
            measured += sigma
        lost |= ~there | (measured < self.min_range_m) | (measured <= 0) | (measured > min(self.max_range_m, far_m))
        measured[lost] = 0.0
        return measured

    def _grazing(
        self, inverse: Image, slopes: tuple[Image, Image], intrinsics_px: FloatArray, rng: np.random.Generator
    ) -> Mask:
        start, end = np.deg2rad([self.grazing_from_deg, self.grazing_to_deg])
        share = rng.random(inverse.shape, dtype=np.float32)
        cosine = incidence_cosine(inverse, slopes, intrinsics_px)
        steep: Mask = cosine < np.cos(start)
        # The arc cosine is taken only of the few pixels that need it.
        steep[steep] = np.arccos(cosine[steep]) > start + (end - start) * share[steep]
        return steep


def edge_pixels(inverse_depth: Image, step_m: float) -> Mask:
    """Pixels [H, W] on either side of a step in depth of at least ``step_m``; inverse depth [H, W] in 1/m, 0 = nothing.

    A step is what is left of the change between two pixels when the change before it, or the one after it, is taken
    off; whichever leaves less.
    """
    out = np.zeros(inverse_depth.shape, bool)
    for image, mark in ((inverse_depth, out), (inverse_depth.T, out.T)):
        if len(image) < 2:
            continue
        change = image[1:] - image[:-1]
        left = np.abs(change)  # at the picture's rim there is no further change to compare with
        if len(change) > 1:
            turn = np.abs(change[1:] - change[:-1])
            left[0] = np.minimum(left[0], turn[0])
            left[-1] = np.minimum(left[-1], turn[-1])
            np.minimum(turn[:-1], turn[1:], out=left[1:-1])
        # 1/a - 1/b = (b - a) / (a b), so this compares metres with metres, and a step to nothing is one of any height.
        step = left > np.float32(step_m) * image[1:] * image[:-1]
        mark[1:] |= step
        mark[:-1] |= step
    return out


def incidence_cosine(inverse_depth: Image, slopes: tuple[Image, Image], intrinsics_px: FloatArray) -> Image:
    """Cosine [H, W] of the angle between each pixel's ray and the normal of the surface that it meets.

    On the plane n . X = d a pixel's X is z (x, y, 1), so 1/z = (n_x x + n_y y + n_z) / d: its slopes in x and y are
    n_x / d and n_y / d, and what is left at x = y = 0 is n_z / d.

    Args:
        inverse_depth: [H, W] in 1/m; 0 = nothing, where the cosine is 0 or without meaning.
        slopes: its change from pixel to pixel [H, W] along rows (u) and along columns (v).
        intrinsics_px: fx fy cx cy [4].
    """
    fx, fy, cx, cy = (np.float32(value) for value in intrinsics_px)
    height, width = inverse_depth.shape
    x = ((np.arange(width, dtype=np.float32) - cx) / fx)[None, :]
    y = ((np.arange(height, dtype=np.float32) - cy) / fy)[:, None]
    normal_x, normal_y = slopes[0] * fx, slopes[1] * fy
    normal_z = inverse_depth - x * normal_x - y * normal_y
    lengths = np.sqrt((normal_x**2 + normal_y**2 + normal_z**2) * (x**2 + y**2 + 1))
    out = np.zeros_like(inverse_depth)
    np.divide(inverse_depth, lengths, out=out, where=lengths > 0)
    return out


def _slope(image: Image) -> Image:
    """Change per row [H, W]: of the differences to both neighbours the smaller, which does not reach over an edge."""
    if len(image) < 2:
        return np.zeros_like(image)
    change = image[1:] - image[:-1]
    size = np.abs(change)
    out = np.empty_like(image)
    out[0], out[-1] = change[0], change[-1]
    out[1:-1] = np.where(size[:-1] < size[1:], change[:-1], change[1:])
    return out


def _moved(inverse: Image, slopes: tuple[Image, Image], sigma_px: float, rng: np.random.Generator) -> Image:
    """Depth [H, W] in metres at places moved by normal noise; 0 = nothing there."""
    height, width = inverse.shape
    column, row = rng.standard_normal((2, height, width), dtype=np.float32) * np.float32(sigma_px)
    column += np.arange(width, dtype=np.float32)[None, :]
    row += np.arange(height, dtype=np.float32)[:, None]
    nearest_column = np.clip(np.rint(column), 0, width - 1)
    nearest_row = np.clip(np.rint(row), 0, height - 1)
    index = (nearest_row * width + nearest_column).astype(np.intp)
    column -= nearest_column
    row -= nearest_row
    np.clip(column, -0.5, 0.5, out=column)  # beyond the picture's rim nothing is known
    np.clip(row, -0.5, 0.5, out=row)
    found = inverse.take(index)
    there = found > 0
    found += slopes[0].take(index) * column
    found += slopes[1].take(index) * row
    out = np.zeros_like(inverse)
    np.divide(1.0, found, out=out, where=there & (found > 0))
    return out


def _widened(mask: Mask, by_px: int) -> Mask:
    """The mask [H, W] grown by so many pixels along rows, columns and diagonals."""
    for _ in range(by_px):
        for view in (mask, mask.T):
            grown = view.copy()
            grown[1:] |= view[:-1]
            grown[:-1] |= view[1:]
            view[:] = grown
    return mask
