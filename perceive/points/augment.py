"""CloudAugment: clouds turned, mirrored, scaled and shifted with their labels; other colours, noise, fewer points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.geometry import turn_z, widened
from perceive.points.files.cloud import UNLABELLED
from perceive.points.files.collate import CloudBatch
from sensors.errors import SpecError, WiringError, nearest

_POSE = "base_from_lidar"
_OF_POINTS = ("xyz_m", "rgb", "intensity", "offset_s")  # fields of a frame with one row per point
_SIGMAS = 3.0  # noise of places is cut off here


@dataclass(frozen=True, eq=False)
class Motion:
    """What is done to the space of each of B samples: x -> scale * turn * mirror * x + move.

    Attributes:
        flip: float [B], -1 where y is mirrored before it is turned, else 1.
        angle_rad: float [B], turn about z.
        scale: float [B].
        move_m: float [B, 3].
    """

    flip: Tensor
    angle_rad: Tensor
    scale: Tensor
    move_m: Tensor

    def directions(self, value: Tensor) -> Tensor:
        """Vectors [B, N, 3] mirrored and turned; what is not finite stays so."""
        cosine, sine = self.angle_rad.cos()[:, None], self.angle_rad.sin()[:, None]
        x, y, z = value.unbind(-1)
        y = y * self.flip[:, None]
        return torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], -1)

    def places(self, value_m: Tensor) -> Tensor:
        """Points [B, N, 3]."""
        return self.scale[:, None, None] * self.directions(value_m) + self.move_m[:, None]

    def yaw(self, yaw_rad: Tensor) -> Tensor:
        """Headings [B, N], from -pi to pi."""
        turned = self.flip[:, None] * yaw_rad + self.angle_rad[:, None]
        return torch.remainder(turned + math.pi, 2 * math.pi) - math.pi

    def pose(self, base_from_sensor: Tensor) -> Tensor:
        """Poses [B, 4, 4] of sensors whose own points are mirrored and scaled as well; still rigid."""
        mirror = torch.diag_embed(torch.stack([torch.ones_like(self.flip), self.flip, torch.ones_like(self.flip)], -1))
        out = base_from_sensor.clone()
        out[:, :3, :3] = turn_z(self.angle_rad)[:, :3, :3] @ mirror @ base_from_sensor[:, :3, :3] @ mirror
        out[:, :3, 3] = self.places(base_from_sensor[:, None, :3, 3])[:, 0]
        return out


@final
class CloudAugment:
    """Random changes of clouds after which all labels still hold. Everything is drawn from the generator passed in.

    Space is changed about a vertical axis: mirrored across the plane y = 0, turned, scaled, then shifted. A cloud in
    the base frame is changed itself. Of a LiDAR, whose points are in its own frame, the pose takes the turn and the
    shift, so that distances from the sensor stay as they were, and points are mirrored and scaled.

    Args:
        sensor: the stream; None = the only one that has ``xyz_m``.
        yaw_rad: turns by up to +- this; 3.1416 = all the way round.
        centre_m: what the space is changed about [3]; None = above or below the mean of the cloud's points at z = 0.
        mirror: probability that it is mirrored.
        scale: smallest and largest factor; drawn evenly in its logarithm.
        shift_m: moves by up to +- this along x, y and z [3].
        colour_gain: each channel is multiplied by a factor in [1 - c, 1 + c], the same for all points.
        colour_jitter: standard deviation of noise on each channel of each point, counts of 255.
        colour_dropout: probability that all points of a cloud become black.
        jitter_m: standard deviation of noise on each coordinate of each point, cut off at three times as much.
        point_dropout: up to this share of the points is left out, another share for each cloud. The others move up, in
            their order, and ``count`` falls; one point stays at least. ``box_points`` stays what was measured.

    Raises:
        SpecError: an argument out of its range.
    """

    def __init__(
        self,
        sensor: str | None = None,
        yaw_rad: float = 0.0,
        centre_m: Sequence[float] | None = (0.0, 0.0, 0.0),
        mirror: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shift_m: Sequence[float] = (0.0, 0.0, 0.0),
        colour_gain: float = 0.0,
        colour_jitter: float = 0.0,
        colour_dropout: float = 0.0,
        jitter_m: float = 0.0,
        point_dropout: float = 0.0,
    ) -> None:
        finite = centre_m is None or (len(centre_m) == 3 and all(map(math.isfinite, centre_m)))
        rules = {
            "yaw_rad": (0 <= yaw_rad < math.inf, yaw_rad, "a finite angle >= 0"),
            "centre_m": (finite, centre_m, "3 finite numbers, or None"),
            "mirror": (0 <= mirror <= 1, mirror, "a probability"),
            "scale": (len(scale) == 2 and 0 < scale[0] <= scale[-1] < math.inf, scale, "two numbers, 0 < low <= high"),
            "shift_m": (len(shift_m) == 3 and all(0 <= s < math.inf for s in shift_m), shift_m, "3 numbers >= 0"),
            "colour_gain": (0 <= colour_gain <= 1, colour_gain, "from 0 to 1"),
            "colour_jitter": (0 <= colour_jitter < math.inf, colour_jitter, "a finite number >= 0"),
            "colour_dropout": (0 <= colour_dropout <= 1, colour_dropout, "a probability"),
            "jitter_m": (0 <= jitter_m < math.inf, jitter_m, "a finite number >= 0"),
            "point_dropout": (0 <= point_dropout < 1, point_dropout, "from 0 to below 1"),
        }
        for argument, (good, got, expected) in rules.items():
            if not good:
                raise SpecError(f"CloudAugment.{argument}", expected, repr(got), "Correct it.")
        self._sensor = sensor
        self._yaw_rad, self._mirror, self._jitter_m, self._point_dropout = yaw_rad, mirror, jitter_m, point_dropout
        self._centre_m = None if centre_m is None else torch.tensor([float(c) for c in centre_m])
        self._log_scale = math.log(scale[0]), math.log(scale[1])
        self._shift_m = torch.tensor([float(s) for s in shift_m])
        self._gain, self._colour_jitter, self._colour_dropout = colour_gain, colour_jitter, colour_dropout

    def __call__(self, batch: Batch, target: CloudBatch, generator: torch.Generator) -> tuple[Batch, CloudBatch]:
        """A changed copy of a batch and its target, both on the CPU or the generator's device.

        Raises:
            SpecError: a history longer than one, or a target of another number of points.
            WiringError: no such stream, or several to choose from.
        """
        name = self._name(batch)
        stream = batch.stream(name)
        xyz = stream.data["xyz_m"]
        if xyz.shape[1] != 1 or target.xyz_m.shape[:2] != (xyz.shape[0], xyz.shape[2]):
            got = f"stream {list(xyz.shape)}, target {list(target.xyz_m.shape)}"
            raise SpecError("CloudAugment", "xyz_m [B, 1, P, 3] and a target [B, P, 3]", got, "Use a history of 1.")
        frame = {field: value[:, 0] for field, value in stream.data.items()}
        there = torch.arange(xyz.shape[2], device=xyz.device) < frame["count"]
        there &= stream.valid
        motion = self._motion(target.xyz_m, target.valid, generator)
        frame = self._moved(frame, there, motion, generator)
        if "rgb" in frame:
            frame["rgb"] = self._recoloured(frame["rgb"], there, generator)
        target = _moved_target(target, frame, motion)
        if self._point_dropout:
            frame, target = self._thinned(frame, target, there, generator)
        data = {field: value.unsqueeze(1) for field, value in frame.items()}
        return Batch({**batch.streams, name: BatchStream(data, stream.age_s, stream.valid)}), target

    def _name(self, batch: Batch) -> str:
        able = [name for name, stream in batch.streams.items() if "xyz_m" in stream.data]
        if self._sensor is None and len(able) == 1:
            return able[0]
        if self._sensor in able:
            return self._sensor
        fix = "Name one with sensor=..." if self._sensor is None else nearest(self._sensor, able)
        raise WiringError("CloudAugment.sensor", "one stream with xyz_m", f"{self._sensor} of {able}", fix)

    def _motion(self, xyz_m: Tensor, valid: Tensor, generator: torch.Generator) -> Motion:
        size, device = len(xyz_m), generator.device
        draw = torch.rand(6, size, generator=generator, device=device)
        flip = torch.where(draw[0] < self._mirror, -1.0, 1.0)
        angle = (draw[1] * 2 - 1) * self._yaw_rad
        low, high = self._log_scale
        scale = (low + (high - low) * draw[2]).exp()
        shift = (draw[3:].T * 2 - 1) * self._shift_m.to(device)
        if self._centre_m is None:
            sound = valid & xyz_m.isfinite().all(-1)
            mean = torch.where(sound[..., None], xyz_m, 0.0).sum(1) / sound.sum(1, keepdim=True).clamp_min(1)
            centre = torch.cat([mean[:, :2], torch.zeros_like(mean[:, 2:])], -1)
        else:
            centre = self._centre_m.to(device).expand(size, 3)
        still = Motion(flip, angle, scale, torch.zeros_like(shift))
        return replace(still, move_m=centre - still.places(centre[:, None])[:, 0] + shift)

    def _moved(
        self, frame: Mapping[str, Tensor], there: Tensor, motion: Motion, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """With other places; rows without a point stay as they are."""
        out, xyz = dict(frame), widened(frame["xyz_m"])
        if _POSE in frame:
            flip = torch.stack([torch.ones_like(motion.flip), motion.flip, torch.ones_like(motion.flip)], -1)
            moved = xyz * (flip * motion.scale[:, None])[:, None]
            out[_POSE] = motion.pose(frame[_POSE])
        else:
            moved = motion.places(xyz)
        if self._jitter_m:
            noise = torch.randn(xyz.shape, generator=generator, device=generator.device)
            moved = moved + self._jitter_m * noise.clamp_(-_SIGMAS, _SIGMAS)
        out["xyz_m"] = torch.where(there[..., None], moved, xyz).to(frame["xyz_m"].dtype)
        return out

    def _recoloured(self, rgb: Tensor, there: Tensor, generator: torch.Generator) -> Tensor:
        size, device = len(rgb), generator.device
        value = rgb.float()
        gain = 1 + (torch.rand(size, 1, 3, generator=generator, device=device) * 2 - 1) * self._gain
        black = torch.rand(size, 1, 1, generator=generator, device=device) < self._colour_dropout
        if self._gain:
            value = value * gain
        if self._colour_jitter:
            value = value + self._colour_jitter * torch.randn(value.shape, generator=generator, device=device)
        value = torch.where(black, 0.0, value).clamp(0.0, 255.0)
        return torch.where(there[..., None], value.round().to(rgb.dtype), rgb)

    def _thinned(
        self, frame: Mapping[str, Tensor], target: CloudBatch, there: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], CloudBatch]:
        size, device = len(there), generator.device
        share = torch.rand(size, 1, generator=generator, device=device) * self._point_dropout
        luck = torch.rand(there.shape, generator=generator, device=device)
        # The luckiest stays whatever happens.
        best = torch.where(there, luck, -1.0).argmax(1, keepdim=True)
        kept = (there & (luck >= share)).scatter(1, best, there.gather(1, best))
        order = torch.argsort(~kept, dim=1, stable=True)
        count = kept.sum(1, keepdim=True)
        left = torch.arange(there.shape[1], device=there.device) < count

        def chosen(value: Tensor, empty: int) -> Tensor:
            index = order.reshape(*order.shape, *[1] * (value.dim() - 2)).expand(*order.shape, *value.shape[2:])
            mask = left.reshape(*left.shape, *[1] * (value.dim() - 2))
            return torch.where(mask, value.gather(1, index), value.new_full((), empty))

        out = {field: chosen(value, 0) if field in _OF_POINTS else value for field, value in frame.items()}
        out["count"] = count.to(frame["count"].dtype)
        thinned = replace(
            target,
            xyz_m=chosen(target.xyz_m, 0),
            valid=left,
            features=chosen(target.features, 0),
            semantic=None if target.semantic is None else chosen(target.semantic, UNLABELLED),
            instance=None if target.instance is None else chosen(target.instance, UNLABELLED),
            part=None if target.part is None else chosen(target.part, UNLABELLED),
            normal=None if target.normal is None else chosen(target.normal, 0),
        )
        return out, thinned


def _moved_target(target: CloudBatch, frame: Mapping[str, Tensor], motion: Motion) -> CloudBatch:
    xyz = widened(frame["xyz_m"])
    if _POSE in frame:
        pose = frame[_POSE].to(xyz.dtype)
        xyz = xyz @ pose[:, :3, :3].mT + pose[:, None, :3, 3]
    xyz = torch.where(target.valid[..., None], xyz, 0.0)
    normal, boxes = target.normal, target.boxes
    if normal is not None:
        normal = torch.where(target.valid[..., None], motion.directions(normal), 0.0)
    if boxes is not None:
        velocity = torch.cat([boxes[..., 7:9], torch.zeros_like(boxes[..., :1])], -1)
        velocity = motion.scale[:, None, None] * motion.directions(velocity)
        moved = torch.cat(
            [
                motion.places(boxes[..., :3]),
                boxes[..., 3:6] * motion.scale[:, None, None],
                motion.yaw(boxes[..., 6])[..., None],
                velocity[..., :2],
            ],
            -1,
        )
        # Rows without a box stay as they are.
        there = (
            torch.ones_like(boxes[..., :1], dtype=torch.bool)
            if target.box_valid is None
            else target.box_valid[..., None]
        )
        boxes = torch.where(there, moved, boxes)
    return replace(target, xyz_m=xyz.to(target.xyz_m.dtype), normal=normal, boxes=boxes)
