"""Clouds turned, thinned and shaken before a model reads them: how much of what it learned survives that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.points.files.cloud import UNLABELLED
from perceive.points.files.collate import CloudBatch
from sensors.errors import SpecError
from sensors.geometry import quaternion_to_matrix

TURNS = ("none", "z", "so3")
# Fields of a target that are of points, with what fills them up.
_OF_POINTS: Mapping[str, float] = {
    "xyz_m": 0, "valid": 0, "features": 0, "normal": 0, "semantic": UNLABELLED, "instance": UNLABELLED,
    "part": UNLABELLED,
}  # fmt: skip


@final
@dataclass(frozen=True)
class Disturbance:
    """The same for a cloud whatever batch it is in: everything is drawn by a generator of (seed, number of the cloud).

    A sweep of a LiDAR turns about the sensor; any other cloud about the middle of its points, so that it stays where it
    was. Labels, normals and boxes turn along; how many points were measured on a box is left as it was.

    Attributes:
        rotate: "none", "z" (about the vertical, by any angle) or "so3" (any rotation, each as likely).
        drop: share of the points that is left out.
        jitter_m: standard deviation of noise on each coordinate.
        seed: see above.

    Raises:
        SpecError: a number out of its range.
    """

    rotate: str = "none"
    drop: float = 0.0
    jitter_m: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rotate not in TURNS or not 0 <= self.drop < 1 or not 0 <= self.jitter_m < np.inf or self.seed < 0:
            got = f"rotate={self.rotate}, drop={self.drop:g}, jitter_m={self.jitter_m:g}, seed={self.seed}"
            expected = f"rotate of {TURNS}, a share in [0, 1) to drop, noise >= 0, a seed >= 0"
            raise SpecError("Disturbance", expected, got, "Correct it.")

    def __call__(
        self, batch: Batch, target: CloudBatch, sensor: str, numbers: Sequence[int]
    ) -> tuple[Batch, CloudBatch]:
        """The disturbed clouds.

        Args:
            batch: with the stream of the sensor, [B, 1, P, ...].
            target: of the same points in the same places.
            sensor: name of the stream.
            numbers: of the B clouds.

        Raises:
            SpecError: boxes, which stand upright, to be turned any way.
        """
        if self.rotate == "so3" and target.boxes is not None:
            raise SpecError(
                "Disturbance.rotate", "none or z for clouds with boxes", "so3", "A box can only turn about z."
            )
        rngs = [np.random.default_rng([self.seed, number]) for number in numbers]
        stream = batch.stream(sensor)
        data = dict(stream.data)
        if self.drop:
            data, target = self._thinned(data, target, rngs)
        if self.rotate != "none":
            turn = torch.from_numpy(np.stack([self._turn(rng) for rng in rngs])).float()
            data, target = _turned(data, target, turn)
        if self.jitter_m:
            shape = target.xyz_m.shape[1:]
            noise = np.stack([rng.normal(0.0, self.jitter_m, shape) for rng in rngs])
            moved = torch.where(target.valid[..., None], torch.from_numpy(noise).float(), 0.0)
            data["xyz_m"] = data["xyz_m"] + moved[:, None]
            target = replace(target, xyz_m=target.xyz_m + moved)
        return Batch({**batch.streams, sensor: BatchStream(data, stream.age_s, stream.valid)}), target

    def _turn(self, rng: np.random.Generator) -> Any:
        if self.rotate == "so3":  # a normal quaternion points in every direction alike
            quaternion = rng.normal(size=4)
            return quaternion_to_matrix(quaternion / np.linalg.norm(quaternion))
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])

    def _thinned(
        self, data: dict[str, Tensor], target: CloudBatch, rngs: Sequence[np.random.Generator]
    ) -> tuple[dict[str, Tensor], CloudBatch]:
        kept = torch.zeros_like(target.valid)
        for row, there, rng in zip(kept, target.valid, rngs, strict=True):
            index = there.nonzero()[:, 0].numpy()
            row[rng.permutation(index)[: len(index) - round(self.drop * len(index))]] = True
        count = kept.sum(dim=1)
        # What stays moves to the front, in its order.
        order = torch.argsort((~kept).to(torch.int8), dim=1, stable=True)
        there = torch.arange(kept.shape[1]) < count[:, None]

        def taken(value: Tensor, fill: float, lead: int) -> Tensor:
            wide = order.reshape(*order.shape[:1], *(1,) * lead, -1, *(1,) * (value.ndim - 2 - lead)).expand_as(value)
            held = there.reshape(wide.shape[:1] + (1,) * lead + there.shape[1:] + (1,) * (value.ndim - 2 - lead))
            return torch.where(held, value.gather(1 + lead, wide), torch.as_tensor(fill, dtype=value.dtype))

        points = kept.shape[1]
        new = {
            name: taken(value, 0, 1) if value.ndim >= 3 and value.shape[2] == points and name != "count" else value
            for name, value in data.items()
        }
        new["count"] = count[:, None, None].to(data["count"].dtype)
        parts = {item.name: getattr(target, item.name) for item in fields(target)}
        for name, fill in _OF_POINTS.items():
            if parts[name] is not None:
                parts[name] = taken(parts[name], fill, 0)
        return new, CloudBatch(**parts)


def _turned(data: dict[str, Tensor], target: CloudBatch, turn: Tensor) -> tuple[dict[str, Tensor], CloudBatch]:
    """Everything turned by [B, 3, 3]."""
    pivot = torch.zeros(len(turn), 1, 3)
    if "base_from_lidar" not in data:
        there = target.valid[..., None]
        low = torch.where(there, target.xyz_m, torch.inf).amin(dim=1, keepdim=True)
        high = torch.where(there, target.xyz_m, -torch.inf).amax(dim=1, keepdim=True)
        pivot = torch.where(target.valid.any(dim=1)[:, None, None], (low + high) / 2, 0.0)

    def about(points: Tensor) -> Tensor:
        return (points - pivot) @ turn.mT + pivot

    xyz_m = torch.where(target.valid[..., None], about(target.xyz_m), target.xyz_m)
    data = {**data, "xyz_m": torch.where(target.valid[:, None, :, None], xyz_m[:, None], data["xyz_m"])}
    normal = None if target.normal is None else target.normal @ turn.mT
    boxes = target.boxes
    if boxes is not None:
        angle = torch.atan2(turn[:, 1, 0], turn[:, 0, 0])[:, None, None]
        moved = boxes[..., 7:9] @ turn[:, :2, :2].mT
        boxes = torch.cat([about(boxes[..., :3]), boxes[..., 3:6], boxes[..., 6:7] + angle, moved], dim=-1)
    return data, replace(target, xyz_m=xyz_m, normal=normal, boxes=boxes)
