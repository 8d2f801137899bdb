"""What every encoder of point clouds shares: which fields of a frame it reads, and what of them is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor

from perceive.batch import BatchStream
from perceive.encoders.base import field_shape
from perceive.geometry import full_precision, transform_points, widened
from perceive.points.neighbours import usable
from sensors.errors import WiringError

_CHANNELS = {"rgb": 3, "intensity": 1, "offset_s": 1, "range": 1}
_LARGEST = 10.0  # features of a point are clipped to this, on both sides
_SWEEP_S = 0.1  # a time within a sweep that is 1 to a network


@dataclass(frozen=True, eq=False)
class FramePoints:
    """P points in each of M = B * T frames.

    Attributes:
        xyz_m: float [M, P, 3] in the frame of the sensor; 0 where not valid.
        features: float [M, P, C], what was measured beside the place; 0 where not valid or not finite.
        valid: bool [M, P]; False = beyond the count, absent frame, or not finite.
        base_from_sensor: float [M, 4, 4]; the identity where the frame is absent or its pose not finite.
    """

    xyz_m: Tensor
    features: Tensor
    valid: Tensor
    base_from_sensor: Tensor

    def in_base(self, points_m: Tensor) -> Tensor:
        """Points [M, ..., 3] of the sensor's frame in the base frame."""
        return transform_points(self.base_from_sensor, points_m.flatten(1, -2)).view_as(points_m)

    def turned(self, vectors: Tensor) -> Tensor:
        """Directions [M, ..., 3] of the sensor's frame in the base frame; exactly the same wherever the sensor is."""
        with full_precision(vectors.device):
            flat = vectors.flatten(1, -2) @ self.base_from_sensor[:, :3, :3].transpose(1, 2)
        return flat.view_as(vectors)


class PointReader:
    """Reads point clouds and sweeps: ``xyz_m`` [N, 3] and ``count`` [1], in the base frame or with a pose beside them.

    Features of a point are ``rgb`` (3 channels from -0.5 to 0.5), ``intensity``, ``offset_s`` (time of capture within
    the sweep, in tenths of a second) and ``range``: log(1 + distance from the sensor in metres), since how dense points
    lie, and how wrong they are, goes with it. ``range`` needs a pose, for without it nobody knows where the sensor was.

    Args:
        owner: class that asks, for errors.
        space: frame space with ``xyz_m`` and ``count``, and at most one ``base_from_...`` [4, 4].
        features: which of the four to read; None = all that the sensor has.

    Raises:
        WiringError: a field is missing or of another shape, or there are several poses.
    """

    def __init__(self, owner: str, space: spaces.Dict, features: Sequence[str] | None) -> None:
        shape = field_shape(owner, space, "xyz_m", 2)
        if shape[1] != 3 or shape[0] < 1:
            raise WiringError(owner, "'xyz_m' [N, 3] with N >= 1", f"shape {shape}", "Use another encoder.")
        if field_shape(owner, space, "count", 1) != (1,):
            raise WiringError(owner, "'count' [1]", f"shape {space.spaces['count'].shape}", "Use another encoder.")
        poses = [name for name in space.spaces if name.startswith("base_from_")]
        if len(poses) > 1:
            raise WiringError(owner, "at most one field base_from_...", f"{poses}", "Leave one in the frame.")
        for name in poses:
            if field_shape(owner, space, name, 2) != (4, 4):
                raise WiringError(owner, f"'{name}' [4, 4]", f"{space.spaces[name].shape}", "Use another encoder.")
        known = [name for name in _CHANNELS if name in space.spaces or (name == "range" and poses)]
        chosen = known if features is None else list(features)
        missing = [name for name in chosen if name not in known]
        if missing or len(set(chosen)) != len(chosen):
            raise WiringError(
                f"{owner}.features",
                f"different ones of what the sensor measures, {known}",
                f"{chosen}, without {missing}" if missing else f"{chosen}",
                "Leave them out, or use another sensor; null takes all there are.",
            )
        for name in chosen:
            wanted = (shape[0], 3) if name == "rgb" else (shape[0],)
            if name != "range" and field_shape(owner, space, name, len(wanted)) != wanted:
                raise WiringError(owner, f"'{name}' {wanted}", f"{space.spaces[name].shape}", "Correct the sensor.")
        self._pose = poses[0] if poses else None
        self._features = tuple(chosen)

    @property
    def posed(self) -> bool:
        """Whether frames come with the sensor's pose, so that the origin of their points is where the sensor was."""
        return self._pose is not None

    @property
    def channels(self) -> int:
        """C."""
        return sum(_CHANNELS[name] for name in self._features)

    def read(self, stream: BatchStream) -> FramePoints:
        """The points of all frames; whatever stands where there are none is not looked at."""
        xyz = widened(stream.data["xyz_m"].flatten(0, 1))
        frame = stream.valid.flatten()
        with full_precision(xyz.device):
            if self._pose is None:
                pose = torch.eye(4, dtype=xyz.dtype, device=xyz.device).expand(len(frame), 4, 4)
            else:
                pose = stream.data[self._pose].flatten(0, 1).to(xyz.dtype)
                frame = frame & pose.flatten(1).isfinite().all(-1)
                pose = torch.where(frame[:, None, None], pose, torch.eye(4, dtype=xyz.dtype, device=xyz.device))
            count = stream.data["count"].flatten(0, 1)
            there = (torch.arange(xyz.shape[1], device=xyz.device) < count) & frame[:, None]
            there = usable(xyz, there)
            xyz = torch.where(there[..., None], xyz, 0.0)
            parts = [self._feature(name, stream, xyz) for name in self._features]
            features = torch.cat([xyz.new_zeros(*there.shape, 0), *parts], -1)
            # Selected before any network: a NaN that reached its weights' gradient would stay.
            keep = there[..., None] & features.isfinite()
            features = torch.where(keep, features, 0.0).clamp(-_LARGEST, _LARGEST)
        return FramePoints(xyz, features, there, pose)

    def _feature(self, name: str, stream: BatchStream, xyz_m: Tensor) -> Tensor:
        if name == "range":
            far_m: Tensor = xyz_m.norm(dim=-1, keepdim=True)
            return far_m.log1p()
        value = stream.data[name].flatten(0, 1).to(xyz_m.dtype)
        if name == "rgb":
            return value / 255.0 - 0.5
        return value[..., None] / (_SWEEP_S if name == "offset_s" else 1.0)
