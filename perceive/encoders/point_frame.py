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
_PERIODS = 2.0  # a steady motion is believed for so many periods before a frame, and after it


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

    With ``compensate``, a sweep whose points have times (``offset_s``) and that comes with a pose is straightened by
    the motion since the frame before it in the history, as :func:`sensors.deskew.deskew` does; ``range`` stays what was
    measured. The first frame, one whose predecessor is absent, and one as old as its predecessor stay as they are: how
    the sensor moved is not known. Frames without times or without a pose are of one moment.

    Args:
        owner: class that asks, for errors.
        space: frame space with ``xyz_m`` and ``count``, and at most one ``base_from_...`` [4, 4].
        features: which of the four to read; None = all that the sensor has.
        compensate: whether sweeps are straightened.

    Raises:
        WiringError: a field is missing or of another shape, or there are several poses.
    """

    def __init__(
        self, owner: str, space: spaces.Dict, features: Sequence[str] | None, compensate: bool = False
    ) -> None:
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
        self._compensate = compensate and bool(poses) and "offset_s" in space.spaces
        if self._compensate and field_shape(owner, space, "offset_s", 1) != shape[:1]:
            raise WiringError(
                owner, f"'offset_s' {shape[:1]}", f"{space.spaces['offset_s'].shape}", "Correct the sensor."
            )
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
            if self._compensate and stream.valid.shape[1] > 1:
                xyz = torch.where(there[..., None], self._at_once(xyz, pose, frame, stream), 0.0)
        return FramePoints(xyz, features, there, pose)

    def _at_once(self, xyz_m: Tensor, pose: Tensor, frame: Tensor, stream: BatchStream) -> Tensor:
        """Points [M, P, 3] as each frame's sensor would have seen them at its stamp, where its motion is known."""
        known, age = frame.view(stream.valid.shape), stream.age_s.to(xyz_m.dtype)
        period = torch.zeros_like(age)
        period[:, 1:] = age[:, :-1] - age[:, 1:]
        moved = torch.zeros_like(known)
        # Written so that NaN counts as not known.
        moved[:, 1:] = known[:, 1:] & known[:, :-1] & (period[:, 1:] > 0) & (period[:, 1:] < torch.inf)
        earlier = torch.cat([pose[:1], pose[:-1]])  # of the sample before, where it is the first: not taken
        before = torch.where(moved.flatten()[:, None, None], earlier, pose)
        offset = stream.data["offset_s"].flatten(0, 1).to(xyz_m.dtype)
        ago = -offset / torch.where(moved, period, 1.0).flatten()[:, None]
        ago = torch.where(moved.flatten()[:, None] & ago.isfinite(), ago, 0.0).clamp(-_PERIODS, _PERIODS)
        return straightened(xyz_m, ago, before, pose)

    def _feature(self, name: str, stream: BatchStream, xyz_m: Tensor) -> Tensor:
        if name == "range":
            far_m: Tensor = xyz_m.norm(dim=-1, keepdim=True)
            return far_m.log1p()
        value = stream.data[name].flatten(0, 1).to(xyz_m.dtype)
        if name == "rgb":
            return value / 255.0 - 0.5
        return value[..., None] / (_SWEEP_S if name == "offset_s" else 1.0)


def straightened(xyz_m: Tensor, ago: Tensor, base_from_before: Tensor, base_from_now: Tensor) -> Tensor:
    """:func:`sensors.deskew.deskew` of many sweeps: points [M, P, 3] in the frame of their sensor now.

    Args:
        xyz_m: float [M, P, 3], each in the sensor's frame at its own time.
        ago: float [M, P], how long before now, in periods; 0 leaves a point as it is, to the bit.
        base_from_before: float [M, 4, 4], a period ago.
        base_from_now: float [M, 4, 4].
    """
    turn = rotation_vector(base_from_before[:, :3, :3].transpose(1, 2) @ base_from_now[:, :3, :3])
    step = (base_from_before[:, :3, 3] - base_from_now[:, :3, 3])[:, None] @ base_from_now[:, :3, :3]  # [M, 1, 3]
    angle = turn.norm(dim=-1, keepdim=True)
    axis = (turn / torch.where(angle > 0, angle, 1.0))[:, None]
    half = (-0.5 * ago * angle)[..., None]
    # Rodrigues' formula, written as what is added: nothing is lost where the angle is small.
    across = torch.linalg.cross(axis.expand_as(xyz_m), xyz_m)
    further = torch.linalg.cross(axis.expand_as(xyz_m), across)
    bent: Tensor = (2 * half).sin() * across + (2 * half.sin().square()) * further
    moved: Tensor = xyz_m + bent + ago[..., None] * step
    return moved


def rotation_vector(rotation: Tensor) -> Tensor:
    """Rotation vectors [..., 3] in radians, length in [0, pi], of rotation matrices [..., 3, 3]."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotation.unbind(-2))
    # Each row is the quaternion (x y z w) times four times one of its components; the largest loses no digits.
    rows = (
        (1 + a - e - i, b + d, c + g, h - f),
        (b + d, 1 - a + e - i, f + h, c - g),
        (c + g, f + h, 1 - a - e + i, d - b),
        (h - f, c - g, d - b, 1 + a + e + i),
    )
    table = torch.stack([torch.stack(row, -1) for row in rows], -2)
    best = table.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*table.shape[:-2], 1, 4)
    quaternion = torch.nn.functional.normalize(table.gather(-2, best).squeeze(-2), dim=-1)
    quaternion = torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    sine = quaternion[..., :3].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quaternion[..., 3:])
    scale = torch.where(sine > 0, angle / torch.where(sine > 0, sine, 1.0), 2.0)
    return torch.mul(quaternion[..., :3], scale)
