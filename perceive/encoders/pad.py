"""What every encoder of a map over a fingertip shares: its patches, and where they stand on the finger."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder, field_shape, grid_shape, per_token
from perceive.geometry import full_precision, transform_points
from sensors.errors import WiringError

_REACH_M = 0.01  # a place on the pad that is 1 to a network


@dataclass(frozen=True, eq=False)
class PadPlaces:
    """Where the patches of T frames stand, P patches each.

    Attributes:
        position_m: float [B, T * P, 3] in the base frame; 0 where it is not known.
        on_pad: float [B * T, P, 2], x to the right and y down from the pad's middle, in centimetres.
        valid: bool [B, T * P]; False = frame absent, or its pose or size is not finite.
    """

    position_m: Tensor
    on_pad: Tensor
    valid: Tensor


class PadPatches(nn.Module):
    """Rectangular patches of a map [h, w, C] over a pad; the entries of a patch are ordered cell by cell.

    Args:
        owner: class that asks, for errors.
        space: frame space with the map, ``base_from_pad`` [4, 4] and ``size_m`` [2].
        size: h and w of the map.
        patch: rows and columns of a patch; must divide h and w.
        cell: rows and columns of a cell; must divide the patch.

    Raises:
        WiringError: a field is missing, or a size does not divide.
    """

    def __init__(
        self, owner: str, space: spaces.Dict, size: tuple[int, int], patch: tuple[int, int], cell: tuple[int, int]
    ) -> None:
        super().__init__()
        field_shape(owner, space, "base_from_pad", 2)
        field_shape(owner, space, "size_m", 1)
        if min(*patch, *cell) < 1:
            raise WiringError(owner, "patches and cells of at least 1 x 1", f"{patch} and {cell}", "Correct them.")
        self._grid, self._cells, self._cell = grid_shape(owner, size, patch), grid_shape(owner, patch, cell), cell
        # Middle of each patch as a fraction of the pad, from its centre: (x to the right, y down).
        rows = (torch.arange(self._grid[0]) + 0.5) / self._grid[0] - 0.5
        columns = (torch.arange(self._grid[1]) + 0.5) / self._grid[1] - 0.5
        middle = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        self.middle: Tensor
        self.register_buffer("middle", middle.flip(-1), persistent=False)

    @property
    def patches(self) -> int:
        """P, patches of one map."""
        return self._grid[0] * self._grid[1]

    @property
    def cells(self) -> int:
        """Cells of one patch."""
        return self._cells[0] * self._cells[1]

    @property
    def entries(self) -> int:
        """Entries of the map in one patch."""
        return self.cells * self._cell[0] * self._cell[1]

    def split(self, value: Tensor) -> Tensor:
        """Maps [M, h, w, C] -> [M, P, entries, C]."""
        (rows, columns), (down, across), (high, wide) = self._grid, self._cells, self._cell
        grid = value.reshape(len(value), rows, down, high, columns, across, wide, value.shape[-1])
        return grid.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(value), self.patches, self.entries, -1)

    def places(self, stream: BatchStream) -> PadPlaces:
        """Places of all patches; whatever stands in an absent frame is not looked at."""
        batch, steps = stream.valid.shape
        with full_precision(stream.valid.device):
            pose, size = stream.data["base_from_pad"].float(), stream.data["size_m"].float()
            known = stream.valid & pose.flatten(2).isfinite().all(-1) & size.isfinite().all(-1)
            pose = torch.where(known[..., None, None], pose, torch.eye(4, device=pose.device))
            size = torch.where(known[..., None], size, 0.0)
            local = self.middle * size.flatten(0, 1)[:, None].flip(-1)  # (width, height)
            position = transform_points(pose.flatten(0, 1), nn.functional.pad(local, (0, 1)))
        position = position.reshape(batch, steps * self.patches, 3)
        there = per_token(known, self.patches)
        return PadPlaces(torch.where(there[..., None], position, 0.0), local / _REACH_M, there)


class PatchEncoder(Encoder, ABC):
    """An encoder whose tokens each stand for a patch of a map, so that the map can be guessed back from tokens."""

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Numbers in one patch."""

    @abstractmethod
    def patches(self, stream: BatchStream) -> tuple[Tensor, Tensor]:
        """Values float [B, N, patch_size] of each token's patch, and which were measured, bool of the same shape."""
