"""Fusion: one cloud out of the pictures of several RGB-D cameras, and the way back to their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.batch import Batch, BatchStream, to_tensor
from perceive.points.cloud import FIELDS, fuse
from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.step import Trace, keep
from sensors.errors import SpecError
from sensors.frames import RgbdFrame


@dataclass(frozen=True, eq=False)
class FusedCloud:
    """A cloud in the base frame whose points are pixels of some cameras.

    Attributes:
        cloud: N points, camera after camera, row after row; each knows its camera's place.
        trace: from all pixels of all cameras, in that order, to the points; pixels without depth are removed.
        camera: int64 [N], number of the camera that saw a point.
        cameras: names of the cameras.
        shapes: height and width of each camera's picture.
    """

    cloud: PointCloud
    trace: Trace
    camera: NDArray[np.int64]
    cameras: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]

    def pictures(self, values: NDArray[Any], fill: float | bool | None = None) -> dict[str, NDArray[Any]]:
        """Values of the points [N, ...] as a picture [H, W, ...] for each camera; ``fill`` where nothing was measured.

        Raises:
            SpecError: not N rows.
        """
        pixels = self.trace.back(values, fill)
        ends = np.cumsum([height * width for height, width in self.shapes])
        parts = np.split(pixels, ends[:-1])
        return {
            name: part.reshape(*shape, *pixels.shape[1:])
            for name, part, shape in zip(self.cameras, parts, self.shapes, strict=True)
        }


def fuse_frames(frames: Mapping[str, RgbdFrame], max_depth_m: float = 3.0) -> FusedCloud:
    """The pictures of several cameras as one cloud in the base frame; see :func:`perceive.points.cloud.fuse`.

    Args:
        frames: name of a camera -> its picture.
        max_depth_m: farther surfaces count as not measured.

    Raises:
        SpecError: no camera, or a picture and its depth differ in size.
    """
    if not frames:
        raise SpecError("fuse_frames", "at least one camera", "none", "Pass the frames of the RGB-D cameras.")
    streams, shapes = {}, []
    for name, frame in frames.items():
        if frame.rgb.shape != (*frame.depth_m.shape, 3):
            raise SpecError(
                f"fuse_frames, camera '{name}'",
                "a depth for each pixel",
                f"rgb {list(frame.rgb.shape)} and depth {list(frame.depth_m.shape)}",
                "Align depth to colour.",
            )
        arrays = frame.arrays()
        data = {field: to_tensor(arrays[field])[None, None] for field in FIELDS}
        streams[name] = BatchStream(data, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))
        shapes.append((frame.depth_m.shape[0], frame.depth_m.shape[1]))
    fused = fuse(Batch(streams), list(frames), max_depth_m)
    pixels = [height * width for height, width in shapes]
    places = [np.asarray(frame.base_from_camera)[:3, 3].astype(np.float32) for frame in frames.values()]
    camera = np.repeat(np.arange(len(pixels)), pixels)
    everything = PointCloud(xyz_m=fused.xyz_m[0].numpy(), rgb=fused.rgb[0].numpy(), origin_m=np.stack(places)[camera])
    cloud, trace = keep(everything, fused.valid[0].numpy(), "pixels")
    return FusedCloud(cloud, trace, camera[trace.index], tuple(frames), tuple(shapes))
