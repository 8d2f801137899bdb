"""Fields of forces on a fingertip, taxels and beads: patches, each placed where it is on the finger."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import field_shape, per_token
from perceive.encoders.pad import PadPatches, PatchEncoder
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.errors import WiringError

_MOST = 20.0  # a broken cell that tells a thousand times the scale must not drown the others


class ForceFieldEncoder(PatchEncoder):
    """Rectangular patches of a map of forces: [h, w, 3] in the pad frame, or [h, w] along its normal (taxels, beads).

    A piece that is not a number (a dead cell) counts as no force; a patch of nothing else is not valid.

    Args:
        space: frame space with the map, ``base_from_pad`` [4, 4] and ``size_m`` [2].
        history: T.
        width: D.
        field: name of the map: ``force_N`` [h, w, 3] or ``normal_N`` [h, w].
        patch_rows: height of a patch in pieces; must divide h.
        patch_columns: width of a patch in pieces; must divide w.
        scale_N: force on a piece that becomes 1, newton.

    Raises:
        WiringError: a field is missing, a size does not divide, or the scale is not positive.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        field: str = "force_N",
        patch_rows: int = 5,
        patch_columns: int = 5,
        scale_N: float = 0.05,  # noqa: N803  (units keep their own capital letter)
    ) -> None:
        super().__init__()
        owner = "ForceFieldEncoder"
        if field not in ("force_N", "normal_N"):
            raise WiringError(f"{owner}.field", "'force_N' or 'normal_N'", repr(field), "Choose one.")
        if not scale_N > 0:
            raise WiringError(f"{owner}.scale_N", "a force > 0", repr(scale_N), "Correct it.")
        self._vectors = field == "force_N"
        size = field_shape(owner, space, field, 3 if self._vectors else 2)
        if self._vectors and size[2] != 3:
            raise WiringError(owner, "force_N [h, w, 3]", f"{size}", "Use another encoder.")
        patch = (patch_rows, patch_columns)
        self.grid = PadPatches(owner, space, (size[0], size[1]), patch, patch)
        self._history, self._field, self._scale = history, field, scale_N
        self.embed = nn.Sequential(nn.Linear(self.patch_size, width), nn.GELU(), nn.Linear(width, width))
        self.place = nn.Linear(2, width)
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._history * self.grid.patches

    @property
    def patch_size(self) -> int:
        return self.grid.entries * (3 if self._vectors else 1)

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: the scale is given in newton."""

    def forward(self, stream: BatchStream) -> Tokens:
        batch, _ = stream.valid.shape
        values, known = self._look(stream)
        places = self.grid.places(stream)
        features = self.norm(self.embed(values) + self.place(places.on_pad))
        return Tokens(
            features.reshape(batch, self.num_tokens, -1),
            places.position_m,
            torch.ones_like(places.valid),
            per_token(stream.age_s, self.grid.patches),
            places.valid & known.any(-1).reshape(batch, -1),
        )

    @torch.no_grad()
    def patches(self, stream: BatchStream) -> tuple[Tensor, Tensor]:
        batch, _ = stream.valid.shape
        values, known = self._look(stream)
        return values.reshape(batch, self.num_tokens, -1), known.reshape(batch, self.num_tokens, -1)

    def _look(self, stream: BatchStream) -> tuple[Tensor, Tensor]:
        """Values [M, P, patch_size], 0 where they are not known, and which are."""
        force = stream.data[self._field].float().flatten(0, 1)
        field = self.grid.split(force if self._vectors else force[..., None]).flatten(2)
        known = stream.valid.flatten()[:, None, None] & field.isfinite()
        return torch.where(known, field / self._scale, 0.0).clamp(-_MOST, _MOST), known
