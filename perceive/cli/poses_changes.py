"""Pictures made worse, or taken by another camera, before poses are estimated in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import cv2
import numpy as np
from numpy.typing import NDArray

from perceive.pose.files.view import ViewKey
from sensors.errors import SpecError
from sensors.frames import RgbdFrame


@final
@dataclass(frozen=True)
class PictureChange:
    """The same for a picture whatever is estimated in it: noise is drawn by a generator of (seed, scene, picture).

    Attributes:
        depth_noise_m: standard deviation of noise on every measured depth.
        drop_depth: no depth at all.
        zoom: factor of the picture's size; the intrinsics are those of the new picture.
        gain: factor of the colours.
        tint: red times ``1 + tint``, blue times ``1 - tint``.
        seed: see above.

    Raises:
        SpecError: a number out of its range.
    """

    depth_noise_m: float = 0.0
    drop_depth: bool = False
    zoom: float = 1.0
    gain: float = 1.0
    tint: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        fine = 0 <= self.depth_noise_m < 1 and 0.1 <= self.zoom <= 10 and 0 < self.gain <= 10 and -1 < self.tint < 1
        if not fine or self.seed < 0:
            raise SpecError(
                "perceive poses",
                "depth_noise_m in [0, 1), zoom in [0.1, 10], gain in (0, 10], tint in (-1, 1), seed >= 0",
                repr(self),
                "Correct it.",
            )  # fmt: skip

    def frame(self, frame: RgbdFrame, key: ViewKey) -> RgbdFrame:
        """The changed picture."""
        depth, rgb, camera = frame.depth_m, frame.rgb, np.asarray(frame.intrinsics_px)
        if self.depth_noise_m:
            rng = np.random.default_rng([self.seed, key.scene, key.image])
            noisy = depth + rng.normal(0.0, self.depth_noise_m, depth.shape).astype(np.float32)
            depth = np.where(depth > 0, np.maximum(noisy, np.float32(1e-3)), np.float32(0))
        if self.drop_depth:
            depth = np.zeros_like(depth)
        if self.gain != 1 or self.tint:
            factor = self.gain * np.array([1 + self.tint, 1.0, 1 - self.tint])
            rgb = np.clip(np.rint(rgb * factor), 0, 255).astype(np.uint8)
        if self.zoom != 1:
            height, width = self._size(rgb)
            down = cv2.INTER_AREA if self.zoom < 1 else cv2.INTER_LINEAR
            y, x = height / rgb.shape[0], width / rgb.shape[1]
            rgb = cv2.resize(rgb, (width, height), interpolation=down).astype(np.uint8)
            # Depth is never mixed across an edge.
            depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.float32)
            # Integer pixels are pixel centres, so the middle of a picture's corner is at -0.5.
            camera = np.array(
                [camera[0] * x, camera[1] * y, (camera[2] + 0.5) * x - 0.5, (camera[3] + 0.5) * y - 0.5], np.float64
            )
        return replace(frame, rgb=rgb, depth_m=depth, intrinsics_px=camera)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the changed picture."""
        if self.zoom == 1:
            return mask
        height, width = self._size(mask)
        return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)

    def __str__(self) -> str:
        parts = []
        if self.drop_depth:
            parts.append("without depth")
        if self.depth_noise_m:
            parts.append(f"{1e3 * self.depth_noise_m:g} mm more noise of the depth")
        if self.zoom != 1:
            parts.append(f"pictures and intrinsics resized by {self.zoom:g}")
        if self.gain != 1 or self.tint:
            parts.append(f"light changed (gain {self.gain:g}, tint {self.tint:g})")
        return ", ".join(parts)

    def _size(self, picture: NDArray[np.generic]) -> tuple[int, int]:
        return max(round(picture.shape[0] * self.zoom), 1), max(round(picture.shape[1] * self.zoom), 1)
