"""ActionCodec: physical action chunks <-> numbers of order one, relative to the gripper. A map and its inverse."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perceive.geometry import matrix_to_rotation_6d, rotation_6d_to_matrix
from perceive.heads.base import HeadContext
from perceive.normalize import Affine, FieldStats
from sensors.action import ActionSpec


class ActionCodec(nn.Module):
    """Encodes action chunks [B, K, A].

    ``position_m`` becomes the offset from the tool point over ``reach_m``; ``rotation_6d`` becomes the rotation from
    the tool's to the commanded orientation, in base axes, as the difference of its 6D form from the identity's; the
    gripper stays; everything else is normalised by fitted statistics.

    Args:
        spec: meaning of the entries.
        reach_m: offset that becomes 1.
    """

    def __init__(self, spec: ActionSpec, reach_m: float = 0.05) -> None:
        super().__init__()
        self._reach_m = reach_m
        self._position = spec.part("position_m") if "position_m" in spec.parts else None
        self._rotation = spec.part("rotation_6d") if "rotation_6d" in spec.parts else None
        geometric = {"position_m", "rotation_6d", "gripper"}
        self._plain = [i for name, (a, b) in spec.parts.items() if name not in geometric for i in range(a, b)]
        self.normalizer = Affine(len(self._plain))
        self.identity: Tensor
        self.register_buffer("identity", torch.tensor([1.0, 0, 0, 0, 1, 0]), persistent=False)

    @property
    def reach_m(self) -> float:
        """The offset that becomes 1."""
        return self._reach_m

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit the plain entries to ``stats["action"]``."""
        if self._plain and "action" in stats:
            whole = stats["action"]
            pick = [array.reshape(-1)[self._plain] for array in (whole.mean, whole.std, whole.low, whole.high)]
            self.normalizer.fit(FieldStats(*pick))

    def encode(self, values: Tensor, context: HeadContext) -> Tensor:
        """Physical [B, K, A] -> latent [B, K, A]."""
        out = values.clone()
        if self._position is not None:
            out[..., self._position] = (values[..., self._position] - context.origin_m[:, None]) / self._reach_m
        if self._rotation is not None:
            wanted = rotation_6d_to_matrix(values[..., self._rotation])
            turn = wanted @ context.origin_rotation[:, None].transpose(-1, -2)
            out[..., self._rotation] = matrix_to_rotation_6d(turn) - self.identity
        if self._plain:
            out[..., self._plain] = self.normalizer(values[..., self._plain])
        return out

    def decode(self, latent: Tensor, context: HeadContext) -> Tensor:
        """Latent [B, K, A] -> physical [B, K, A]; rotations come out orthonormal."""
        out = latent.clone()
        if self._position is not None:
            out[..., self._position] = latent[..., self._position] * self._reach_m + context.origin_m[:, None]
        if self._rotation is not None:
            turn = rotation_6d_to_matrix(latent[..., self._rotation] + self.identity)
            out[..., self._rotation] = matrix_to_rotation_6d(turn @ context.origin_rotation[:, None])
        if self._plain:
            out[..., self._plain] = self.normalizer.inverse(latent[..., self._plain])
        return out


def chunk_l1(predicted: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error over the valid steps of chunks [B, K, A], valid bool [B, K]."""
    error = torch.where(valid[..., None], predicted - wanted, 0.0).abs()
    return error.sum() / (valid.sum().clamp_min(1) * predicted.shape[-1])
