"""Vectors: joints, gripper, wrench, goals - one token per instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from gymnasium import spaces
from torch import nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder, field_shape
from perceive.geometry import matrix_to_rotation_6d
from perceive.normalize import Affine, FieldStats
from perceive.tokens import Tokens


class VectorEncoder(Encoder):
    """One token per instant from vector fields, placed at a pose of the frame where it has one.

    Args:
        space: frame space that holds the named fields.
        history: T.
        width: D.
        fields: vector fields [n] to read, in order.
        pose: a transform field [4, 4] (``base_from_tool``, ``base_from_sensor``); the token sits at its origin, and
            its rotation is a feature. None = the token has no place.
        place: a position field [3] in the base frame at which the token sits (a goal); excludes ``pose``.
        position_feature: the origin of ``pose`` is a feature too; for trunks that do not use places.

    Raises:
        WiringError: a named field is missing or has another number of axes.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        fields: Sequence[str],
        pose: str | None = None,
        place: str | None = None,
        position_feature: bool = False,
    ) -> None:
        super().__init__()
        sizes = {name: field_shape("VectorEncoder", space, name, 1)[0] for name in fields}
        if pose is not None:
            field_shape("VectorEncoder", space, pose, 2)
        if place is not None:
            field_shape("VectorEncoder", space, place, 1)
        self._history = history
        self._fields = tuple(fields)
        self._pose = pose
        self._place = place
        self._position_feature = position_feature and pose is not None
        self.normalizers = nn.ModuleDict({name: Affine(size) for name, size in sizes.items()})
        inputs = sum(sizes.values()) + (6 if pose else 0) + (3 if self._position_feature else 0)
        # A placed token without any field still has its position, which the trunk adds.
        self.embed = nn.Sequential(nn.Linear(max(inputs, 1), width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._history

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Normalise every field that has statistics."""
        for name, normalizer in self.normalizers.items():
            if name in stats and isinstance(normalizer, Affine):
                normalizer.fit(stats[name])

    def forward(self, stream: BatchStream) -> Tokens:
        batch, steps = stream.valid.shape
        keep = stream.valid[..., None]
        parts = [self.normalizers[name](stream.data[name].float()) for name in self._fields]
        position = torch.zeros(batch, steps, 3, device=keep.device)
        if self._pose is not None:
            transform = stream.data[self._pose].float()
            parts.append(matrix_to_rotation_6d(transform[..., :3, :3]))
            position = transform[..., :3, 3]
            if self._position_feature:
                parts.append(position)
        elif self._place is not None:
            position = stream.data[self._place].float()
        inputs = torch.cat(parts, -1) if parts else torch.zeros(batch, steps, 1, device=keep.device)
        # Selected before the network: a NaN that reached its weights' gradient would stay.
        inputs = torch.where(keep, inputs.clamp(-10, 10), 0.0)
        placed = torch.full_like(stream.valid, self._pose is not None or self._place is not None)
        return Tokens(self.norm(self.embed(inputs)), position, placed, stream.age_s, stream.valid)
