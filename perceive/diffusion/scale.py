"""ActionScale: physical action chunks <-> numbers from -1 to 1. A map and its inverse."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perceive.geometry import matrix_to_rotation_6d, rotation_6d_to_matrix
from perceive.normalize import FieldStats
from sensors.action import ActionSpec
from sensors.errors import SpecError

_AS_THEY_ARE = ("rotation_6d", "gripper", "avoid")  # within -1 to 1 by their meaning


class ActionScale(nn.Module):
    """The dataset's least and greatest value of each entry become -1 and 1; rotations and switches stay as they are.

    Positions stay in the base frame, other than in :class:`perceive.heads.codec.ActionCodec`.

    Args:
        spec: meaning of the entries.
        floor: smallest half range, so that an entry that hardly changes is not blown up.
    """

    def __init__(self, spec: ActionSpec, floor: float = 0.01) -> None:
        super().__init__()
        self._floor = floor
        self._rotation = spec.part("rotation_6d") if "rotation_6d" in spec.parts else None
        self._switches = [spec.part(name) for name in ("gripper", "avoid") if name in spec.parts]
        self._fitted = [i for name, (a, b) in spec.parts.items() if name not in _AS_THEY_ARE for i in range(a, b)]
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.zeros(spec.size))
        self.register_buffer("scale", torch.ones(spec.size))

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit to ``stats["action"]``.

        Raises:
            SpecError: the statistics are of another size, or not finite.
        """
        if "action" not in stats or not self._fitted:
            return
        low, high = (
            torch.as_tensor(value, dtype=torch.float32).flatten()
            for value in (stats["action"].low, stats["action"].high)
        )
        if low.shape != self.shift.shape or not bool((low.isfinite() & high.isfinite()).all()):
            raise SpecError(
                "ActionScale.fit", f"finite statistics of {len(self.shift)} entries", f"{low.tolist()} to "
                f"{high.tolist()}", "Fit on episodes of the same action spec.",
            )  # fmt: skip
        self.shift[self._fitted] = ((low + high) / 2)[self._fitted].to(self.shift.device)
        self.scale[self._fitted] = ((high - low) / 2).clamp_min(self._floor)[self._fitted].to(self.scale.device)

    def encode(self, values: Tensor) -> Tensor:
        """Physical [B, K, A] -> latent [B, K, A]."""
        return (values - self.shift) / self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [B, K, A] -> physical [B, K, A]; rotations come out orthonormal, switches between -1 and 1."""
        out = latent * self.scale + self.shift
        if self._rotation is not None:
            out[..., self._rotation] = matrix_to_rotation_6d(rotation_6d_to_matrix(out[..., self._rotation]))
        for part in self._switches:
            out[..., part] = out[..., part].clamp(-1, 1)
        return out
