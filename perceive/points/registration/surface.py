"""Surface: what point clouds are registered to."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from perceive.geometry import widened
from perceive.points.registration.nearest import Nearest, NearestGrid, NearestTree
from sensors.errors import SpecError


@final
class Surface:
    """Points of a known surface with a way to find the nearest; built once, used for many registrations.

    Kept around the middle of the points, so that single precision suffices far from the origin too.

    Args:
        xyz_m: float [P, 3] in the model's frame; points with a NaN or infinite coordinate are left out.
        normal: float [P, 3], unit length, either side; needed by the point-to-plane method. Points whose normal is
            zero or not finite are left out.
        search: ``"tree"`` is exact and needs no time to build; ``"grid"`` answers many times faster, after about a
            second, and is meant for models that are registered to again and again.
        cells: of the grid along its longest side.

    Raises:
        SpecError: no point is left, shapes that do not fit, or an unknown search.
    """

    def __init__(
        self, xyz_m: Tensor, normal: Tensor | None = None, search: Literal["tree", "grid"] = "tree", cells: int = 64
    ) -> None:
        if xyz_m.ndim != 2 or xyz_m.shape[-1] != 3 or (normal is not None and normal.shape != xyz_m.shape):
            raise SpecError(
                "Surface",
                "points [P, 3], and normals of the same shape",
                f"{list(xyz_m.shape)}, {None if normal is None else list(normal.shape)}",
                "Correct it.",
            )
        if search not in ("tree", "grid"):
            raise SpecError("Surface.search", "'tree' or 'grid'", repr(search), "Choose one.")
        xyz = widened(xyz_m.detach())
        there = (xyz.abs() <= 1e9).all(-1)
        if normal is not None:
            length = torch.linalg.vector_norm(normal, dim=-1)
            there = there & (length > 1e-6) & length.isfinite()
        if not bool(there.any()):
            raise SpecError("Surface", "at least one finite point", f"{len(xyz)} without", "Pass points of the model.")
        self.left_out = int((~there).sum())
        xyz = xyz[there]
        self.middle_m = xyz.double().mean(0)
        self.local_m = (xyz.double() - self.middle_m).to(xyz.dtype)
        self.size_m = float(self.local_m.double().square().sum(-1).mean().sqrt()) or 1.0
        self.normal: Tensor | None = None
        if normal is not None:
            self.normal = torch.nn.functional.normalize(normal.detach()[there].to(xyz.dtype), dim=-1)
        self.nearest: Nearest = (
            NearestTree(self.local_m) if search == "tree" else NearestGrid(self.local_m, cells=cells)
        )

    def __len__(self) -> int:
        return len(self.local_m)
