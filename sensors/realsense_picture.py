"""From one depth and one colour picture of the SDK to colour and depth of the same pixels, in metres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from sensors.geometry import FloatArray, pose

GRID_PX = 8  # lenses bend smoothly: the SDK is asked at every eighth pixel, a spline knows the others to 1e-3 px
SAME_SURFACE = 0.03  # of the distance; far more than a D400's noise, and less than what is cared about behind an edge


def intrinsics_px(profile: Any) -> FloatArray:
    """fx fy cx cy [4] of a video stream profile of the SDK."""
    lens = profile.get_intrinsics()
    return np.array([lens.fx, lens.fy, lens.ppx, lens.ppy])


def extrinsics(profile: Any, to: Any) -> FloatArray:
    """``to_from_profile`` [4, 4], metres, between two stream profiles of the SDK."""
    found = profile.get_extrinsics_to(to)
    out = pose(found.translation)
    out[:3, :3] = np.reshape(found.rotation, (3, 3)).T  # the SDK stores columns
    return out + 0.0  # no -0.0


def is_distorted(profile: Any) -> bool:
    """Whether the lens of a video stream profile bends its picture."""
    return bool(np.any(profile.get_intrinsics().coeffs))


@final
class Registration:
    """Depth onto the colour picture, by the SDK's ``align``, with z taken to the colour camera.

    ``align`` finds for every colour pixel the depth pixels that fall onto it, and copies the smallest of their values.
    Two things are put right here. (1) That value is z in the *depth* camera's frame; a depth camera that is turned by
    half a degree makes it wrong by 9 mm at 1 m distance and 1 m to the side. The point lies on the colour pixel's ray
    r (z = 1) too, so with depth_from_colour = (R, t) its z in the colour camera's frame is (z_depth - t_z) / (R r)_z.
    (2) The smallest of four noisy values is too small, by 1.03 standard deviations. So of the surface that ``align``
    found, the depth pixel is read that the point projects to.

    Args:
        rs: the SDK's module.
        filters: the SDK's depth filters, in order.
        depth: stream profile of the depth pictures.
        colour: stream profile of the colour pictures.
        undistort: rectify both pictures if the colour lens bends.
        min_m: depth nearer than this is no measurement.
        max_m: nor is depth farther than this.
    """

    def __init__(
        self, rs: Any, filters: Sequence[Any], depth: Any, colour: Any, undistort: bool, min_m: float, max_m: float
    ) -> None:
        self._filters = filters
        self._align = rs.align(rs.stream.color)
        self._bgr = colour.format() == rs.format.bgr8
        self._limits_m = min_m, max_m
        lens = colour.get_intrinsics()
        rays = _sampled(
            lens.width, lens.height, lambda u, v: rs.rs2_deproject_pixel_to_point(lens, [u, v], 1.0)[:2]
        )  # x and y where z = 1, for the picture as the lens gives it
        depth_from_colour = extrinsics(colour, depth)
        rays = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1) @ depth_from_colour[:3, :3].T
        self._rays = np.moveaxis(rays, -1, 0).astype(np.float32)  # [3, H, W], in the depth camera's frame
        self._apart_m = depth_from_colour[:3, 3].astype(np.float32)
        self._depth_px = intrinsics_px(depth).astype(np.float32)  # no distortion: the D400 rectifies its depth
        self._map: NDArray[np.float32] | None = None
        if undistort and is_distorted(colour):

            def bend(u: float, v: float) -> Sequence[float]:
                ray = [(u - lens.ppx) / lens.fx, (v - lens.ppy) / lens.fy, 1.0]
                bent: Sequence[float] = rs.rs2_project_point_to_pixel(lens, ray)
                return bent

            self._map = _sampled(lens.width, lens.height, bend).astype(np.float32)
        self._pair: list[Any] = []
        self._joined = rs.frame_queue(1)
        self._join = rs.processing_block(_joining(self._pair))
        self._join.start(self._joined)

    def apply(self, depth: Any, colour: Any) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """rgb uint8 [H, W, 3] and depth_m float32 [H, W] of a depth and a colour frame of the SDK, in new memory.

        Raises:
            RuntimeError: the SDK fails.
        """
        frames = self._frameset(depth, colour)
        for step in self._filters:
            frames = step.process(frames).as_frameset()
        aligned: NDArray[np.uint16] = np.asanyarray(self._align.process(frames).get_depth_frame().get_data())
        raw: NDArray[np.uint16] = np.asanyarray(frames.get_depth_frame().get_data())
        unit_m = np.float32(depth.as_depth_frame().get_units())
        depth_m = self._in_colour(self._nearest(aligned, raw, unit_m) * unit_m)
        low, high = self._limits_m
        depth_m[(aligned == 0) | (depth_m < low) | (depth_m > high)] = 0.0
        rgb: NDArray[np.uint8] = np.array(colour.get_data())
        if self._bgr:
            rgb = np.ascontiguousarray(rgb[..., ::-1])
        if self._map is None:
            return rgb, depth_m
        import cv2

        u, v = self._map[..., 0], self._map[..., 1]
        # Depth is not blended across edges: the mean of a cup and the wall behind it is neither.
        straight_m = cv2.remap(depth_m, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        straight = cv2.remap(rgb, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        return np.asarray(straight, np.uint8), np.asarray(straight_m, np.float32)

    def _in_colour(self, z_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """z in the colour camera's frame of points on its rays, from their z in the depth camera's; all [H, W]."""
        moved: NDArray[np.float32] = (z_m - self._apart_m[2]) / self._rays[2]
        return moved

    def _nearest(self, aligned: NDArray[np.uint16], raw: NDArray[np.uint16], unit_m: np.float32) -> NDArray[np.uint16]:
        """The raw depth at the pixel that the aligned point projects to, where it is of the same surface; [H, W]."""
        z_m = np.maximum(aligned, 1) * unit_m
        along_m = self._in_colour(z_m)
        fx, fy, cx, cy = self._depth_px
        u = (self._rays[0] * along_m + self._apart_m[0]) / z_m * fx + (cx + np.float32(0.5))
        v = (self._rays[1] * along_m + self._apart_m[1]) / z_m * fy + (cy + np.float32(0.5))
        height, width = raw.shape
        # 0.5 was added: rounding to whole pixels by cutting off, which is right within the picture.
        column = np.clip(u, 0, width - 1).astype(np.int32)
        row = np.clip(v, 0, height - 1).astype(np.int32)
        found = raw[row, column]
        limit = np.maximum(aligned * np.float32(SAME_SURFACE), 2.0)
        same = (found > 0) & (np.abs(found.astype(np.int32) - aligned) <= limit)
        return np.where(same, found, aligned)

    def _frameset(self, depth: Any, colour: Any) -> Any:
        self._pair[:] = depth, colour
        self._join.invoke(depth)
        self._pair.clear()
        return self._joined.wait_for_frame(1000).as_frameset()


def _joining(pair: list[Any]) -> Callable[[Any, Any], None]:
    """What makes a frameset of the frames in ``pair``; it holds nothing else, as Python's collector cannot see it."""

    def join(_: Any, source: Any) -> None:
        source.frame_ready(source.allocate_composite_frame(pair))

    return join


def _sampled(width: int, height: int, ask: Callable[[float, float], Sequence[float]]) -> FloatArray:
    """``ask(u, v)`` -> 2 numbers, at every pixel: [H, W, 2]."""
    u = np.linspace(0, width - 1, max(width // GRID_PX, 4) + 1)
    v = np.linspace(0, height - 1, max(height // GRID_PX, 4) + 1)
    known = np.array([[ask(x, y) for x in u] for y in v])
    pixels = np.arange(height), np.arange(width)
    return np.stack([RectBivariateSpline(v, u, known[..., k])(*pixels) for k in range(2)], axis=-1)
