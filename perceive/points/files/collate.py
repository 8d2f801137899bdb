"""CloudBatch: labelled clouds of different size as tensors of one size, for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceive.points.files.cloud import UNLABELLED, Boxes, LabelledCloud
from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class CloudBatch:
    """B clouds, filled up to P points and K boxes. What no cloud of the batch has is None.

    Attributes:
        xyz_m: float32 [B, P, 3]; 0 where not valid.
        valid: bool [B, P].
        features: float32 [B, P, F], the fields that were asked for side by side; F may be 0.
        semantic: int64 [B, P]; -1 where not valid, or to be ignored.
        instance: int64 [B, P]; as above.
        part: int64 [B, P]; as above.
        normal: float32 [B, P, 3]; 0 where not valid.
        label: int64 [B].
        boxes: float32 [B, K, 9]: centre 3, size 3, yaw, velocity along x and y (NaN = not known).
        box_label: int64 [B, K]; -1 = there is no box, or its class is not known.
        box_valid: bool [B, K].
        box_points: int64 [B, K], points measured on it; -1 = not known.
    """

    xyz_m: Tensor
    valid: Tensor
    features: Tensor
    semantic: Tensor | None
    instance: Tensor | None
    part: Tensor | None
    normal: Tensor | None
    label: Tensor | None
    boxes: Tensor | None
    box_label: Tensor | None
    box_valid: Tensor | None
    box_points: Tensor | None

    def to(self, device: torch.device | str) -> CloudBatch:
        """The same batch on another device."""
        return CloudBatch(**{item.name: _moved(getattr(self, item.name), device) for item in fields(self)})


# field -> its width and what it is divided by
FEATURES: dict[str, tuple[int, float]] = {
    "rgb": (3, 255.0), "intensity": (1, 1.0), "time_s": (1, 1.0), "normal": (3, 1.0),
}  # fmt: skip


def collate(
    clouds: Sequence[LabelledCloud],
    points: int | None = None,
    features: Sequence[str] = (),
    rng: np.random.Generator | None = None,
) -> CloudBatch:
    """Clouds as one batch.

    Args:
        clouds: B of them; a field of some and not of others is refused, since it would be made up.
        points: P; of larger clouds so many are chosen, at random with ``rng`` or evenly along the cloud without. None =
            as many as the largest has, at least 1.
        features: names out of :data:`FEATURES`, for ``features``, in this order; colours from 0 to 1.
        rng: see ``points``.

    Raises:
        SpecError: no cloud, ``points`` below 1, an unknown feature, or a field that only some of the clouds have.
    """
    if not clouds or (points is not None and points < 1):
        raise SpecError("collate", "at least 1 cloud and 1 point", f"{len(clouds)} clouds, points={points}", "Correct.")
    for name in features:
        if name not in FEATURES:
            raise SpecError("collate, features", f"some of {list(FEATURES)}", repr(name), "Correct it.")
        if not _shared(clouds, name):
            raise SpecError("collate, features", f"clouds with '{name}'", "clouds without", "Leave it out.")
    wide = max(1, *(len(cloud) for cloud in clouds)) if points is None else points
    chosen = [_choice(len(cloud), wide, rng) for cloud in clouds]

    def filled(name: str, empty: float) -> Tensor | None:
        if not _shared(clouds, name):
            return None
        values = [np.asarray(getattr(cloud, name))[index] for cloud, index in zip(clouds, chosen, strict=True)]
        out = np.full((len(clouds), wide, *values[0].shape[1:]), empty, values[0].dtype)
        for row, value in zip(out, values, strict=True):
            row[: len(value)] = value
        return torch.from_numpy(out)

    xyz_m = filled("xyz_m", 0.0)
    assert xyz_m is not None  # every cloud has it
    columns = [torch.zeros(len(clouds), wide, 0)]
    for name in features:
        width, scale = FEATURES[name]
        value = filled(name, 0)
        assert value is not None  # it is shared
        columns.append(value.float().reshape(len(clouds), wide, width) / scale)
    counts = torch.tensor([len(index) for index in chosen])
    labelled = _shared(clouds, "label")
    return CloudBatch(
        xyz_m,
        torch.arange(wide) < counts[:, None],
        torch.cat(columns, dim=-1),
        filled("semantic", UNLABELLED),
        filled("instance", UNLABELLED),
        filled("part", UNLABELLED),
        filled("normal", 0.0),
        torch.tensor([cloud.label for cloud in clouds]) if labelled else None,
        *(
            _boxes([cloud.boxes for cloud in clouds if cloud.boxes is not None])
            if _shared(clouds, "boxes")
            else [None] * 4
        ),
    )


def _moved(value: Any, device: torch.device | str) -> Any:
    return None if value is None else value.to(device)


def _shared(clouds: Sequence[LabelledCloud], name: str) -> bool:
    there = [getattr(cloud, name) is not None for cloud in clouds]
    if any(there) and not all(there):
        got = f"{sum(there)} of {len(there)}"
        raise SpecError(f"collate, {name}", "all of the clouds or none to have it", got, "Batch like with like.")
    return all(there)


def _choice(count: int, most: int, rng: np.random.Generator | None) -> NDArray[np.intp]:
    if count <= most:
        return np.arange(count)
    if rng is None:  # the middles of equal runs
        return (2 * np.arange(most) + 1) * count // (2 * most)
    return np.sort(rng.permutation(count)[:most])


def _boxes(boxes: Sequence[Boxes]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = max(len(each) for each in boxes)
    rows = torch.zeros(len(boxes), wide, 9)
    label = torch.full((len(boxes), wide), UNLABELLED)
    points = torch.full((len(boxes), wide), UNLABELLED)
    for number, each in enumerate(boxes):
        parts = [each.centre_m, each.size_m, each.yaw_rad[:, None], each.velocity_m_s[:, :2]]
        rows[number, : len(each)] = torch.from_numpy(np.concatenate(parts, axis=1)).float()
        label[number, : len(each)] = torch.from_numpy(each.label)
        points[number, : len(each)] = torch.from_numpy(each.points)
    counts = torch.tensor([len(each) for each in boxes])
    return rows, label, torch.arange(wide) < counts[:, None], points
