"""An episode as film frames: one box per camera, depth, cloud, fingertip and vector of every sensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.viewing.cloud_board import frame_points
from perceive.viewing.cloud_picture import cloud_picture
from perceive.viewing.cloud_view import View, around
from perceive.viewing.draw import (
    Picture,
    blank,
    curve_picture,
    depth_picture,
    force_picture,
    mosaic,
    touch_picture,
    write,
)
from sensors.errors import DataError
from sensors.observation import Observation, Stream

BOX_PX = 168
TALLEST_PX = 1080
VIEWED = 8  # observations that decide from where a cloud is seen
# What is drawn as a picture, by its field, number of axes (a wrench's force is a curve) and title.
PICTURES = (
    ("rgb", 3, ""), ("depth_m", 2, "depth"), ("indentation_m", 2, "touch"),
    ("normal_N", 2, "pressure"), ("force_N", 3, "forces"), ("xyz_m", 2, "points"),
)  # fmt: skip
TITLES = {field: title for field, _, title in PICTURES}
# Vectors worth a curve, in the order of preference; of a sensor without any of these, its first small float field.
CURVES = ("force_N", "position_rad", "gripper_m")


class Storyboard:
    """Draws the observations of one episode; scales are fixed over the whole of it.

    Args:
        observations: in order of time, at least one, all of one rig.

    Raises:
        DataError: there is no observation.
    """

    def __init__(self, observations: Sequence[Observation]) -> None:
        if not observations:
            raise DataError("Storyboard", "at least one observation", "none", "Choose another episode.")
        self._observations = observations
        first = observations[0].streams
        self._images = [
            (n, f) for n, s in first.items() for f, axes, _ in PICTURES if f in s.data and s.data[f][-1].ndim == axes
        ]
        pictured = {name for name, _ in self._images}
        self._curves = {n: f for n, s in first.items() if n not in pictured and (f := _curve_field(s)) is not None}
        self._ranges = {pair: self._range(*pair) for pair in self._images if pair[1] not in ("rgb", "xyz_m")}
        self._views = {name: self._view(name) for name, field in self._images if field == "xyz_m"}
        self._values = {name: self._history(name, field) for name, field in self._curves.items()}
        self._columns = max(1, math.ceil(math.sqrt(len(self._images) + len(self._curves))))

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self._observations)

    def __iter__(self) -> Iterator[Picture]:
        """All frames in order."""
        return (self.frame(step) for step in range(len(self)))

    def frame(self, step: int) -> Picture:
        """The picture of one step, uint8 [H, W, 3]; what was not valid then says so."""
        streams = self._observations[step].streams
        boxes: dict[str, Picture] = {}
        for name, field in self._images:
            boxes[f"{name} {TITLES[field]}"] = self._image(streams[name], name, field)
        for name, field in self._curves.items():
            boxes[f"{name} {field}"] = curve_picture(self._values[name], step, BOX_PX, BOX_PX)
        return mosaic(boxes, self._columns, BOX_PX, BOX_PX)

    def _image(self, stream: Stream, name: str, field: str) -> Picture:
        value = stream.data[field][-1]
        if not stream.valid[-1]:
            out = blank(BOX_PX, BOX_PX)
            write(out, "not there", (BOX_PX // 2 - 34, BOX_PX // 2), 0.45)
            return out
        if field == "rgb":
            return np.asarray(value, np.uint8)
        if field == "xyz_m":
            found = frame_points(_newest(stream))
            assert found is not None  # it was chosen for its points
            return cloud_picture(self._views[name], *found)
        low, high = self._ranges[name, field]
        if field == "depth_m":
            return depth_picture(value, low, high)
        return force_picture(value, high, BOX_PX) if field == "force_N" else touch_picture(value, high)

    def _view(self, name: str) -> View:
        """One place to look from for the whole episode, or what stands still would seem to move."""
        there = [stream for o in self._observations if (stream := o.streams[name]).valid[-1]]
        seen = [frame_points(_newest(there[step])) for step in grid_steps(len(there), VIEWED)]
        points = [found[0] for found in seen if found is not None]
        return around(np.concatenate(points) if points else np.zeros((0, 3)), BOX_PX, BOX_PX)

    def _range(self, name: str, field: str) -> tuple[float, float]:
        seen = [o.streams[name].data[field][-1] for o in self._observations if o.streams[name].valid[-1]]
        seen = [-value[..., 2] if field == "force_N" else value for value in seen]
        measured = np.concatenate([value[value > 0].ravel() for value in seen]) if seen else np.zeros(0)
        if measured.size == 0:
            return 0.0, 1.0
        # Percentiles: one stray pixel must not wash the picture out.
        return float(np.percentile(measured, 1)), float(np.percentile(measured, 99))

    def _history(self, name: str, field: str) -> NDArray[np.float64]:
        rows = []
        for observation in self._observations:
            stream = observation.streams[name]
            value = np.asarray(stream.data[field][-1], float).ravel()
            rows.append(value if stream.valid[-1] else np.full_like(value, np.nan))
        return np.stack(rows)


def grid_steps(length: int, most: int) -> list[int]:
    """At most ``most`` steps spread over an episode, first and last included."""
    count = min(most, length)
    return [round(i * (length - 1) / max(count - 1, 1)) for i in range(count)]


def _newest(stream: Stream) -> dict[str, NDArray[Any]]:
    return {field: value[-1] for field, value in stream.data.items()}


def _curve_field(stream: Stream) -> str | None:
    for field in CURVES:
        if field in stream.data:
            return field
    small: Mapping[str, NDArray[np.float64]] = {
        f: v for f, v in stream.data.items() if v.dtype.kind == "f" and 0 < math.prod(v.shape[1:]) <= 16
    }
    return next(iter(small), None)
