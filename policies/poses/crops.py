"""Every visible instance of a data set as one wide crop with its truth, made once and kept in one file per field."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.pose.crop import BLIND, aim, cut, cut_mask, halved
from perceive.pose.crop_source import DEPTH_M, CropSource
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from policies.poses.source import PoseSource
from sensors.errors import DataError
from sensors.frames import RgbdFrame
from sensors.geometry import transform_points

_LOG = logging.getLogger(__name__)
FORMAT = 1
LEAST_PIXELS = 16  # of the mask in a wide crop; smaller objects teach nothing
_DEEPEST_M = 65535 * DEPTH_M


@final
@dataclass(frozen=True)
class CropPlan:
    """How wide crops are made.

    Attributes:
        wide_px: W, their side; a multiple of 2.
        extent: their width, in diameters of the object.
        least_visible: instances of which less is visible are left out.
        most: instances of one object, spread over all; 0 = all.
    """

    wide_px: int
    extent: float
    least_visible: float
    most: int


@final
@dataclass(frozen=True, eq=False)
class WideCrops:
    """N wide crops; see :class:`perceive.pose.crop_source.CropSource`, whose fields these are.

    Attributes:
        fields: name -> array [N, ...]; besides those of CropSource ``which`` int64 and ``view`` int64 [N, 2].
    """

    fields: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        """N."""
        return len(self.fields["which"])

    def source(
        self, rows: NDArray[np.int64], low_m: NDArray[Any], high_m: NDArray[Any], diameter_m: NDArray[Any]
    ) -> CropSource:
        """Some of them; boxes [K, 3] and diameters [K] are those of all objects."""
        taken = {name: torch.from_numpy(np.ascontiguousarray(array[rows])) for name, array in self.fields.items()}
        which = taken.pop("which").numpy()
        taken.pop("view")
        boxes = [torch.from_numpy(value[which].astype(np.float32)) for value in (low_m, high_m, diameter_m)]
        return CropSource(**taken, low_m=boxes[0], high_m=boxes[1], diameter_m=boxes[2])


def wide_crops(
    source: PoseSource, plan: CropPlan, numbers: Sequence[int], folder: Path | None, on_bad: Callable[[DataError], None]
) -> WideCrops:
    """All wide crops of a data set.

    Args:
        source: the data set.
        plan: how they are made.
        numbers: the objects' numbers, by index; instances of others are left out.
        folder: where they are kept, for the next time; None = in memory only.
        on_bad: called with what is wrong with a picture that cannot be read; may raise.

    Raises:
        DataError: no instance is visible.
    """
    chosen = _chosen(source, plan, numbers)
    kept = None if folder is None else folder / f"crops_{_fingerprint(source, plan, numbers, chosen)}"
    if kept is not None and (kept / "whole.json").exists():
        names = json.loads((kept / "whole.json").read_text())["fields"]
        return WideCrops({name: np.load(kept / f"{name}.npy", mmap_mode="r") for name in names})
    renderers = {number: MeshRenderer(source.models[number], threads=1) for number in numbers}
    rows: list[dict[str, Any]] = []
    for key, indices in chosen.items():
        try:
            frame = source.frame(key)
            found = source.truth(key)
            there = [one.number for one in found]
            nowhere = np.array([number not in there for number in numbers])
            for index in indices:
                one = found[index]
                mask = source.visible_mask(key, one.index)
                row = wide_crop(frame, mask, one.camera_from_object, renderers[one.number], plan)
                if row is not None:
                    view = np.array([key.scene, key.image])
                    rows.append(row | {"which": numbers.index(one.number), "view": view, "nowhere": nowhere})
        except DataError as error:
            on_bad(error)
    if not rows:
        raise DataError("wide_crops", "visible instances", "none", "Check the folder, its split and least_visible.")
    fields = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    if kept is not None:
        keep_crops(kept, fields)
    return WideCrops(fields)


def wide_crop(
    frame: RgbdFrame,
    mask: NDArray[np.bool_],
    camera_from_object: NDArray[Any],
    renderer: MeshRenderer,
    plan: CropPlan,
) -> dict[str, Any] | None:
    """One instance; None = too little of it is seen."""
    model: ObjectModel = renderer.model
    centre = transform_points(camera_from_object, ((model.low_m + model.high_m) / 2)[None])[0]
    if centre[2] <= 1e-3:
        return None
    fx, fy, cx, cy = np.asarray(frame.intrinsics_px, np.float64)
    pixel = (fx * centre[0] / centre[2] + cx, fy * centre[1] / centre[2] + cy)
    away = float(np.linalg.norm(centre))
    view = aim(pixel, frame.intrinsics_px, away, plan.extent * model.diameter_m, plan.wide_px)
    small = halved(view)
    turned = np.eye(4)
    turned[:3, :3] = view.crop_from_camera
    pose = turned @ camera_from_object
    truth = renderer.render(pose, small.intrinsics_px, (0, 0, small.size_px, small.size_px))
    seen = cut_mask(mask, frame.intrinsics_px, small) & (truth.depth_m[0] > 0)
    if seen.sum() < LEAST_PIXELS:
        return None
    wide = cut(frame, view)
    share = (truth.coordinates_m[0] - model.low_m) / np.maximum(model.high_m - model.low_m, 1e-9)
    coordinates = np.where(seen[..., None], np.rint(share.clip(0, 1) * 65535), 0).astype(np.uint16)
    depth = np.where(wide.depth_m < _DEEPEST_M, wide.depth_m, 0.0)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    half = np.array([columns[0] + columns[-1], rows[0] + rows[-1]]) / 2
    large = seen.repeat(2, 0).repeat(2, 1)
    measured = wide.depth_m[large & (wide.depth_m > 0)]
    surface = float(np.median(measured if len(measured) else truth.depth_m[0][seen]))
    blind = small.intrinsics_px[0] * model.diameter_m * BLIND / longest
    return {
        "rgb": wide.rgb,
        "depth": np.rint(depth / DEPTH_M).astype(np.uint16),
        "mask": seen,
        "coordinates": coordinates,
        "focal_px": np.float32(view.intrinsics_px[0]),
        "crop_from_object": pose.astype(np.float32),
        "middle_px": (2 * half + 0.5).astype(np.float32),
        "surface_m": np.float32(surface),
        "blind_m": np.float32(blind),
    }


def _chosen(source: PoseSource, plan: CropPlan, numbers: Sequence[int]) -> dict[Any, list[int]]:
    """View -> places in its truth of the instances that are used."""
    by_number: dict[int, list[tuple[Any, int]]] = {number: [] for number in numbers}
    for key in source.views:
        for place, one in enumerate(source.truth(key)):
            if one.number in by_number and one.visible_share >= plan.least_visible:
                by_number[one.number].append((key, place))
    out: dict[Any, list[int]] = {}
    for found in by_number.values():
        step = 1.0 if not plan.most else max(1.0, len(found) / plan.most)
        for rank in range(math.ceil(len(found) / step)):
            key, place = found[int(rank * step)]
            out.setdefault(key, []).append(place)
    return {key: sorted(out[key]) for key in source.views if key in out}


def _fingerprint(source: PoseSource, plan: CropPlan, numbers: Sequence[int], chosen: dict[Any, list[int]]) -> str:
    """Changes with whatever changes a wide crop, as far as it is known without reading pictures."""
    digest = hashlib.sha256(repr((FORMAT, plan, list(numbers))).encode())
    for number in numbers:
        digest.update(np.ascontiguousarray(source.models[number].vertices_m).tobytes())
        digest.update(np.ascontiguousarray(source.models[number].faces).tobytes())
    for key, places in chosen.items():
        digest.update(repr((key, places)).encode())
        for one in source.truth(key):
            digest.update(np.ascontiguousarray(one.camera_from_object, np.float64).tobytes())
    return digest.hexdigest()[:16]


def keep_crops(folder: Path, fields: dict[str, NDArray[Any]]) -> None:
    """Write beside and rename; a folder that cannot be written to only costs the time to do it again."""
    temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        for name, array in fields.items():
            np.save(temporary / f"{name}.npy", array)
        (temporary / "whole.json").write_text(json.dumps({"format": FORMAT, "fields": list(fields)}))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as error:
        _LOG.warning("crops are not kept in '%s': %s", folder, error)
        shutil.rmtree(temporary, ignore_errors=True)
