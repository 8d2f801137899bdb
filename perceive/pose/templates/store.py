"""Templates of one object: rendered once, described, kept in memory and on disk."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.templates.crops import ROUND_RADII, Crops
from perceive.pose.templates.features import PatchFeatures, cell_means
from perceive.pose.templates.views import turn_rotations, view_rotations
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

Kind = Literal["metric", "round"]
FAR = 5.0  # diameters from the camera to the object's middle
METRIC_SIDE = 1.15  # side of a metric crop in diameters
_BATCH = 32
_VERSION = 1


@final
@dataclass(frozen=True, eq=False)
class Templates:
    """N pictures of one object.

    Crops are of one size in metres (``metric``: depth tells the scale of the query) or as large as what is seen
    (``round``: nothing else does). Their middle is the middle of what is seen.

    Attributes:
        rotation: float64 [N, 3, 3], camera_from_object.
        middle_m: float64 [3], the object's middle in its own frame.
        distance_m: from the camera to it.
        side: float64 [N], of the crops in metres at one metre.
        offset: float64 [N, 2], the crop's middle in metres at one metre; the object's middle is at 0.
        share: float32 [N, G, G], of the cells' pixels that show the object.
        depth_m: float32 [N, G, G], mean of those, relative to the distance.
        features: float32 [N, C, G, G].
        place_m: float32 [N, G, G, 3], one point of the object seen in each cell, in its own frame.
        place_px: float32 [N, G, G, 2], where in the cell that is: from its middle, in cells.
    """

    rotation: FloatArray
    middle_m: FloatArray
    distance_m: float
    side: FloatArray
    offset: FloatArray
    share: Tensor
    depth_m: Tensor
    features: Tensor
    place_m: Tensor
    place_px: Tensor

    def __len__(self) -> int:
        return len(self.rotation)


def make_templates(renderer: MeshRenderer, features: PatchFeatures, kind: Kind, views: int, turns: int) -> Templates:
    """Render and describe the templates of one object.

    Args:
        renderer: of the object.
        features: what describes the cells.
        kind: see :class:`Templates`.
        views: directions to look from.
        turns: of the camera about each of them; 1 if the query will be turned.

    Raises:
        SpecError: no view, or none that shows the object.
    """
    model = renderer.model
    rotation = (turn_rotations(turns)[None] @ view_rotations(views)[:, None]).reshape(-1, 3, 3)
    middle = (model.low_m + model.high_m) / 2
    distance = FAR * model.diameter_m
    parts: list[tuple[NDArray[np.int64], FloatArray, FloatArray, list[Tensor]]] = []
    for start in range(0, len(rotation), _BATCH):
        index = np.arange(start, min(start + _BATCH, len(rotation)))
        parts.append(_rendered(renderer, features, kind, rotation[index], middle, distance, index))
    kept = np.concatenate([part[0] for part in parts])
    if not len(kept):
        raise SpecError(
            f"model {model.number} ({model.name})", "a mesh that can be seen", "no pixel from anywhere",
            "Repair the mesh.",
        )  # fmt: skip
    tensors = [torch.cat(list(column)) for column in zip(*(part[3] for part in parts), strict=True)]
    return Templates(
        rotation[kept], middle, distance,
        np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts]), *tensors,
    )  # fmt: skip


def _rendered(
    renderer: MeshRenderer,
    features: PatchFeatures,
    kind: Kind,
    rotation: FloatArray,
    middle: FloatArray,
    distance: float,
    index: NDArray[np.int64],
) -> tuple[NDArray[np.int64], FloatArray, FloatArray, list[Tensor]]:
    """Some of the views: which show the object, their sides and offsets, and the tensors."""
    pose = np.tile(np.eye(4), (len(rotation), 1, 1))
    pose[:, :3, :3] = rotation
    pose[:, :3, 3] = np.array([0.0, 0.0, distance]) - rotation @ middle
    # A first, wide look says where the middle of what is seen is.
    rough, wide = 64, 1.3 / FAR
    focal = rough / wide
    depth = renderer.depth(pose, (focal, focal, (rough - 1) / 2, (rough - 1) / 2), (0, 0, rough, rough))
    shown = depth > 0
    count = shown.sum((1, 2))
    kept = np.flatnonzero(count > 0)
    place = (np.arange(rough) - (rough - 1) / 2) / focal
    number = count[kept].astype(np.float64)
    x = (shown[kept].sum(1) * place).sum(1) / number
    y = (shown[kept].sum(2) * place).sum(1) / number
    square = (shown[kept].sum(1) * place**2).sum(1) / number + (shown[kept].sum(2) * place**2).sum(1) / number
    radius = np.sqrt(square - x**2 - y**2 + (1.0 / 6.0) / focal**2)
    side = ROUND_RADII * radius if kind == "round" else np.full(len(kept), METRIC_SIDE / FAR)
    pixels, cells = features.pixels, features.cells
    pictures = []
    for one, here in enumerate(kept):
        f = pixels / side[one]
        camera = (f, f, (pixels - 1) / 2 - f * x[one], (pixels - 1) / 2 - f * y[one])
        pictures.append(renderer.render(pose[here], camera, (0, 0, pixels, pixels)))
    if not pictures:
        return index[kept], side, np.zeros((0, 2)), []
    seen = np.concatenate([p.depth_m for p in pictures])
    mask = seen > 0
    crops = Crops(
        np.concatenate([p.rgb for p in pictures]).astype(np.float32) / np.float32(255),
        mask,
        np.where(mask, seen - distance, 0).astype(np.float32),
        mask if kind == "metric" else np.zeros_like(mask),
        ~mask,
        float(side[0] * distance / pixels),
    )
    there = torch.from_numpy(mask)
    mean, share = cell_means(torch.from_numpy(crops.depth_m)[:, None], there, cells)
    place_m, place_px = _points(np.concatenate([p.coordinates_m for p in pictures]), mask, cells)
    return (
        index[kept], side, np.stack([x, y], -1),
        [share[:, 0], mean[:, 0], features.describe(crops), place_m, place_px],
    )  # fmt: skip


def _points(place_m: NDArray[np.float32], mask: NDArray[np.bool_], cells: int) -> tuple[Tensor, Tensor]:
    """The seen pixel nearest to each cell's middle: its point [N, G, G, 3] and its place in the cell [N, G, G, 2]."""
    pixels = mask.shape[1]
    cell = (np.arange(pixels) * cells) // pixels
    offset = (np.arange(pixels) + 0.5) * cells / pixels - cell - 0.5
    away = np.broadcast_to(np.hypot(offset[:, None], offset[None]), mask.shape)
    which = (np.arange(len(mask))[:, None, None] * cells + cell[:, None]) * cells + cell[None]
    order = np.lexsort((away[mask], which[mask]))
    first = np.unique(which[mask][order], return_index=True)
    pick = np.flatnonzero(mask)[order[first[1]]]
    points = np.zeros((len(mask) * cells * cells, 3), np.float32)
    points[first[0]] = place_m.reshape(-1, 3)[pick]
    inside = np.zeros((len(points), 2), np.float32)
    row, column = (pick // pixels) % pixels, pick % pixels
    inside[first[0]] = np.stack([offset[column], offset[row]], -1)
    shape = (len(mask), cells, cells)
    return torch.from_numpy(points.reshape(*shape, 3)), torch.from_numpy(inside.reshape(*shape, 2))


def fingerprint(model: ObjectModel, features: PatchFeatures, kind: Kind, views: int, turns: int) -> str:
    """What templates depend on; stored ones of another fingerprint are not used."""
    digest = hashlib.sha256()
    for array in (model.vertices_m, model.faces, model.rgb):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(f"{_VERSION} {model.diameter_m!r} {features.name} {kind} {views} {turns}".encode())
    return digest.hexdigest()


def save_templates(path: str | Path, templates: Templates, mark: str) -> None:
    """Write templates to one file; written beside and renamed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f.name: np.asarray(getattr(templates, f.name)) for f in fields(Templates)}
    beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    with beside.open("wb") as file:
        np.savez(file, allow_pickle=False, fingerprint=np.array(mark), **arrays)
    beside.replace(target)


def load_templates(path: str | Path, mark: str) -> Templates | None:
    """Read templates; None = they are of another mesh, of other features or of other settings.

    Raises:
        DataError: the file is missing, cut off, or not of templates.
    """
    kept = Path(path)
    try:
        with kept.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if str(file["fingerprint"]) != mark:
                return None
            data = {f.name: file[f.name] for f in fields(Templates)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(str(kept), "templates", str(error), "Delete the file; it will be made again.") from error
    tensors = {name: torch.from_numpy(data[name]) for name in ("share", "depth_m", "features", "place_m", "place_px")}
    return Templates(
        rotation=data["rotation"], middle_m=data["middle_m"], distance_m=float(data["distance_m"]),
        side=data["side"], offset=data["offset"], **tensors,
    )  # fmt: skip
