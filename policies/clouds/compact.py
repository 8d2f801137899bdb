"""Clouds held in little memory, and put side by side again as one batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceive.points.files.cloud import UNLABELLED, LabelledCloud
from perceive.points.files.collate import CloudBatch
from sensors.errors import DataError

BOXES = "boxes"
LABEL = "label"
_WHOLE = (np.int8, np.int16, np.int32, np.int64)


@dataclass(frozen=True)
class Field:
    """How a field of clouds lies in a batch.

    Attributes:
        dtype: of the batch.
        shape: of one row.
        empty: where no point is.
        fills: whether ``empty`` also says "not known", so that it may stand in for a field that a cloud lacks.
    """

    dtype: type[np.generic]
    shape: tuple[int, ...] = ()
    empty: int = 0
    fills: bool = False


FIELDS: dict[str, Field] = {
    "xyz_m": Field(np.float32, (3,)),
    "rgb": Field(np.uint8, (3,)),
    "intensity": Field(np.float32),
    "time_s": Field(np.float32),
    "normal": Field(np.float32, (3,)),
    "semantic": Field(np.int64, (), UNLABELLED, True),
    "instance": Field(np.int64, (), UNLABELLED, True),
    "part": Field(np.int64, (), UNLABELLED, True),
    LABEL: Field(np.int64, (), UNLABELLED, True),
    BOXES: Field(np.float32, (9,)),
}
_OF_POINTS = [name for name in FIELDS if name not in (LABEL, BOXES)]


@dataclass(frozen=True, eq=False)
class CompactCloud:
    """One cloud.

    Attributes:
        values: field -> array [N, ...], whole numbers in as few bytes as hold them.
        label: class of the cloud; None = it has none.
        boxes: float32 [K, 9] as in :class:`perceive.points.files.collate.CloudBatch`; None = nobody looked for any.
        box_label: int64 [K].
        box_points: int64 [K].
        name: for errors.
    """

    values: dict[str, NDArray[Any]]
    label: int | None
    boxes: NDArray[np.float32] | None
    box_label: NDArray[np.int64]
    box_points: NDArray[np.int64]
    name: str

    def __len__(self) -> int:
        """N."""
        return len(self.values["xyz_m"])

    @property
    def bytes(self) -> int:
        """Memory of its arrays."""
        return sum(value.nbytes for value in self.values.values())

    def has(self, field: str) -> bool:
        """Whether it is there."""
        if field == LABEL:
            return self.label is not None
        return self.boxes is not None if field == BOXES else field in self.values


def compact(cloud: LabelledCloud, least_points: int) -> CompactCloud:
    """A cloud in little memory, without the boxes on which fewer points than ``least_points`` were measured."""
    values = {name: getattr(cloud, name) for name in _OF_POINTS if getattr(cloud, name) is not None}
    small = {name: _small(value) if value.dtype == np.int64 else value for name, value in values.items()}
    rows, label, points = None, np.zeros(0, np.int64), np.zeros(0, np.int64)
    if cloud.boxes is not None:
        boxes = cloud.boxes
        kept = (boxes.points == UNLABELLED) | (boxes.points >= least_points)
        parts = [boxes.centre_m, boxes.size_m, boxes.yaw_rad[:, None], boxes.velocity_m_s[:, :2]]
        rows, label, points = (
            np.concatenate(parts, axis=1)[kept].astype(np.float32),
            boxes.label[kept],
            boxes.points[kept],
        )
    return CompactCloud(small, cloud.label, rows, label, points, cloud.name)


def filled(
    clouds: Sequence[CompactCloud], rows: Sequence[NDArray[np.intp] | None], points: int, name: str
) -> NDArray[Any]:
    """One field of points of B clouds, [B, P, ...].

    Args:
        clouds: B of them.
        rows: which points of each; None = all.
        points: P.
        name: of the field.

    Raises:
        DataError: a cloud lacks it, and nothing can stand in for it.
    """
    field = FIELDS[name]
    out = np.empty((len(clouds), points, *field.shape), field.dtype)
    for row, cloud, index in zip(out, clouds, rows, strict=True):
        if name not in cloud.values:
            if not field.fills:
                raise DataError(f"cloud '{cloud.name}'", f"'{name}', as others have", "none", "Use verify='full'.")
            row[:] = field.empty
            continue
        value = cloud.values[name] if index is None else cloud.values[name][index]
        row[: len(value)] = value
        row[len(value) :] = field.empty
    return out


def joined(
    clouds: Sequence[CompactCloud], rows: Sequence[NDArray[np.intp] | None], points: int, fields: Collection[str]
) -> tuple[CloudBatch, Tensor]:
    """Clouds as one batch with the given fields, and how many points each has, int64 [B]; see :func:`filled`."""
    counts = torch.tensor(
        [len(cloud) if index is None else len(index) for cloud, index in zip(clouds, rows, strict=True)]
    )

    def tensor(name: str) -> Tensor | None:
        return torch.from_numpy(filled(clouds, rows, points, name)) if name in fields else None

    label = torch.tensor([UNLABELLED if cloud.label is None else cloud.label for cloud in clouds])
    target = CloudBatch(
        torch.from_numpy(filled(clouds, rows, points, "xyz_m")),
        torch.arange(points) < counts[:, None],
        torch.zeros(len(clouds), points, 0),
        tensor("semantic"),
        tensor("instance"),
        tensor("part"),
        tensor("normal"),
        label if LABEL in fields else None,
        *(_boxes(clouds) if BOXES in fields else (None, None, None, None)),
    )
    return target, counts


def _boxes(clouds: Sequence[CompactCloud]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    for cloud in clouds:
        if cloud.boxes is None:
            raise DataError(f"cloud '{cloud.name}'", "boxes, as others have", "none", "Use verify='full'.")
    counts = torch.tensor([len(cloud.box_label) for cloud in clouds])
    wide = int(counts.max())
    rows = torch.zeros(len(clouds), wide, 9)
    label, points = torch.full((2, len(clouds), wide), UNLABELLED)
    for number, cloud in enumerate(clouds):
        assert cloud.boxes is not None  # as seen above
        rows[number, : len(cloud.boxes)] = torch.from_numpy(cloud.boxes)
        label[number, : len(cloud.boxes)] = torch.from_numpy(cloud.box_label)
        points[number, : len(cloud.boxes)] = torch.from_numpy(cloud.box_points)
    return rows, label, torch.arange(wide) < counts[:, None], points


def _small(value: NDArray[np.int64]) -> NDArray[Any]:
    low, high = int(value.min(initial=0)), int(value.max(initial=0))
    kind = next(kind for kind in _WHOLE if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return value.astype(kind)
