"""CloudScene: the points of one generated scene with the truth about each of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sensors.geometry import FloatArray


@final
@dataclass(frozen=True, eq=False)
class SceneBoxes:
    """K things of a scene as upright boxes in the base frame.

    Attributes:
        centre_m: float64 [K, 3].
        size_m: float64 [K, 3], along the box's own x (forwards), y (left) and z (up).
        yaw_rad: float64 [K], in [-pi, pi).
        label: int64 [K], into ``box_classes``.
        velocity_m_s: float64 [K, 3], over the ground.
        instance: int64 [K], as in the points' ``instance``.
        points: int64 [K], how many of the scene's points lie on it.
    """

    centre_m: FloatArray
    size_m: FloatArray
    yaw_rad: FloatArray
    label: NDArray[np.int64]
    velocity_m_s: FloatArray
    instance: NDArray[np.int64]
    points: NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class CloudScene:
    """N measured points in the base frame, and what each lies on, as the renderer or the ray said.

    Attributes:
        xyz_m: float32 [N, 3].
        semantic: int64 [N], into ``classes``.
        instance: int64 [N]; -1 = floor, wall or table top.
        part: int64 [N], into ``parts``.
        boxes: all things, seen or not.
        classes: names.
        parts: names, "class/part".
        box_classes: names of the boxes' labels; the same as ``classes``.
        name: which scene it is.
        stamp_s: the moment that the base frame and the boxes belong to.
        rgb: uint8 [N, 3] of a camera's points.
        intensity: float32 [N] in [0, 1] of a LiDAR's points.
        time_s: float32 [N] relative to ``stamp_s``, of a LiDAR's points.
    """

    xyz_m: NDArray[np.float32]
    semantic: NDArray[np.int64]
    instance: NDArray[np.int64]
    part: NDArray[np.int64]
    boxes: SceneBoxes
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    box_classes: tuple[str, ...]
    name: str
    stamp_s: float = 0.0
    rgb: NDArray[np.uint8] | None = None
    intensity: NDArray[np.float32] | None = None
    time_s: NDArray[np.float32] | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything by name, as a cloud file holds it: text as arrays of text, boxes as "boxes/..."."""
        out: dict[str, NDArray[Any]] = {"frame": np.asarray("base")}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "boxes" and value is not None:
                out[item.name] = np.asarray(value)
        out.update({f"boxes/{item.name}": getattr(self.boxes, item.name) for item in fields(self.boxes)})
        return out


def thinned(count: int, at_most: int | None, rng: np.random.Generator) -> NDArray[np.intp]:
    """Which of ``count`` points to keep: ``at_most`` of them at random, in their order; None = all."""
    if at_most is None or count <= at_most:
        return np.arange(count)
    return np.sort(rng.permutation(count)[:at_most])
