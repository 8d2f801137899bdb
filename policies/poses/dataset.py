"""PoseCropDataset: every visible instance of a folder of posed objects is one sample for the head of coordinates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from perceive.batch import Batch, BatchStream
from perceive.heads.object_coordinates import BOX, NUMBER, SURFACE
from perceive.heads.object_coordinates_target import PoseTarget
from perceive.model_base import Model
from perceive.normalize import FieldStats
from perceive.points.sample import pick_farthest
from perceive.pose.crop_source import recut
from perceive.pose.model import ObjectModel
from policies.poses.crop_space import crop_space
from policies.poses.crops import CropPlan, wide_crops
from policies.poses.source import PoseSource
from policies.poses.symmetry_table import symmetry_table
from sensors.errors import DataError, SpecError, WiringError
from sensors.geometry import FloatArray
from sensors.spec import Json, box

_LOG = logging.getLogger(__name__)
SURFACE_POINTS = 64
KEPT_IN = ".pose_crops"


@dataclass(frozen=True)
class PosesHeader:
    """What is known of where the pictures come from; see :class:`policies.training_data.Recorded`."""

    sensor_spaces: dict[str, spaces.Dict]
    history: dict[str, int]
    env: Json


@final
class PoseCropDataset:
    """Crops around the visible instances of a folder in BOP's layout, real or generated, and what each pixel shows.

    All crops are cut once, wider than they are needed, and kept beside the data, so that an augmentation can shift,
    scale and turn them at the cost of one resampling (see :class:`perceive.pose.augment.PoseCropAugment`).

    A sample has two streams: ``crop``, the fields of an RgbdFrame whose base is the crop's frame
    (:mod:`perceive.pose.crop`), and ``object``, with ``which`` [K], 1 at the index of the asked object. May be pickled.

    Args:
        folder: of the data set.
        split: folder of scenes in it.
        models: folder of meshes in it.
        crop: what the first stream is called.
        asked: what the second is called.
        size_px: S, side of a crop; even.
        extent: width of a crop, in diameters of its object.
        wide_px: side of the wide crops; even.
        wide_extent: their width, in diameters.
        least_visible: instances of which a smaller share is visible are left out.
        most: instances of one object at most, spread over all; 0 = all.
        objects: numbers of the objects that are learned; None = all.
        symmetry_steps: into which axes of revolution are cut in the loss.
        keep: whether wide crops are kept in a hidden folder of the data set.
        on_bad: what to do with a picture that is damaged: "raise", or "skip" it, log a warning and list it in
            :attr:`skipped`.
        limit: use the first so many crops only.
        source: the data set itself, for data that is in no folder; None = read ``folder``.

    Attributes:
        numbers: the objects' numbers, by index.
        names: the objects' names, by index.
        skipped: what was wrong with pictures that are left out.

    Raises:
        DataError: nothing usable.
        SpecError: an argument out of its range, or unknown objects.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        models: str = "models",
        crop: str = "crop",
        asked: str = "object",
        size_px: int = 96,
        extent: float = 1.4,
        wide_px: int = 128,
        wide_extent: float = 2.0,
        least_visible: float = 0.15,
        most: int = 0,
        objects: Sequence[int] | None = None,
        symmetry_steps: int = 24,
        keep: bool = True,
        on_bad: Literal["raise", "skip"] = "raise",
        limit: int | None = None,
        source: PoseSource | None = None,
    ) -> None:
        _check_arguments(size_px, extent, wide_px, wide_extent, least_visible, most, symmetry_steps, on_bad, limit)
        self.folder = Path(folder)
        data = _read(self.folder, split, models) if source is None else source
        self.numbers = tuple(sorted(data.models)) if objects is None else tuple(objects)
        strange = [number for number in self.numbers if number not in data.models]
        if strange or not self.numbers or len(set(self.numbers)) < len(self.numbers):
            raise SpecError(
                "PoseCropDataset.objects", f"different ones of {sorted(data.models)}", f"{objects}", "Correct it."
            )
        known = [data.models[number] for number in self.numbers]
        self.names = tuple(model.name for model in known)
        self.skipped: list[str] = []
        self._on_bad = on_bad
        self._crop, self._asked, self._size, self._extent = crop, asked, size_px, extent
        plan = CropPlan(wide_px, wide_extent, least_visible, most)
        kept = self.folder / KEPT_IN if keep and source is None else None
        self._crops = wide_crops(data, plan, self.numbers, kept, self._bad)
        self._count = len(self._crops) if limit is None else min(limit, len(self._crops))
        self._low_m = np.stack([model.low_m for model in known])
        self._high_m = np.stack([model.high_m for model in known])
        self._diameter_m = np.array([model.diameter_m for model in known])
        self._surface_m = np.stack([_surface(model) for model in known])
        self._symmetries = symmetry_table([model.symmetries for model in known], symmetry_steps)
        self.sensor_spaces = {
            crop: crop_space(size_px),
            asked: spaces.Dict({"which": box(0.0, 1.0, (len(self.numbers),))}),
        }
        self.history = {crop: 1, asked: 1}
        self.action_spec = None
        self.header = PosesHeader(self.sensor_spaces, self.history, {})

    def __len__(self) -> int:
        """Number of crops."""
        return self._count

    def batch(self, indices: ArrayLike) -> tuple[Batch, PoseTarget]:
        """The crops at ``indices`` [B], aimed as at a mask that is known, and their truth with its source.

        Raises:
            SpecError: no index, or one out of range.
        """
        chosen = np.atleast_1d(np.asarray(indices, np.int64))
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= len(self):
            raise SpecError("PoseCropDataset.batch", f"indices from 0 to {len(self) - 1}", f"{chosen[:5]}", "Correct.")
        source = self._crops.source(chosen, self._low_m, self._high_m, self._diameter_m)
        which = torch.from_numpy(self._crops.fields["which"][chosen].astype(np.int64))
        size = len(chosen)
        measured = (source.depth.flatten(1).to(torch.int32) > 0).any(1)
        distance = torch.where(measured, source.surface_m, source.blind_m) * source.slant
        new = recut(source, self._size, source.middle_px, distance, self._extent * source.diameter_m, torch.zeros(size))
        one = torch.nn.functional.one_hot(which, len(self.numbers)).to(torch.float32)
        data = {
            "rgb": new.rgb[:, None],
            "depth_m": new.depth_m[:, None],
            "intrinsics_px": new.intrinsics_px[:, None],
            "base_from_camera": new.frame_from_crop[:, None],
        }
        age, valid = torch.zeros(size, 1), torch.ones(size, 1, dtype=torch.bool)
        target = PoseTarget(
            which,
            torch.ones(size, dtype=torch.bool),
            new.mask,
            new.coordinates_m,
            new.frame_from_object,
            torch.tensor(self.numbers),
            self._symmetries,
            source,
        )
        streams = {
            self._crop: BatchStream(data, age, valid),
            self._asked: BatchStream({"which": one[:, None]}, age, valid),
        }
        return Batch(streams), target

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices for training and for validation: whole scenes are held back, of a single scene whole pictures."""
        views = np.asarray(self._crops.fields["view"][: len(self)])
        scenes = np.unique(views[:, 0])
        names = views[:, 0] if len(scenes) > 1 else views[:, 1]
        groups = np.random.default_rng(seed).permutation(np.unique(names))
        count = min(max(round(fraction * len(groups)), 1), len(groups) - 1) if fraction > 0 else 0
        back = np.isin(names, groups[:count])
        return np.flatnonzero(~back), np.flatnonzero(back)

    def stats(self) -> dict[str, FieldStats]:
        """The objects' numbers, boxes and surfaces, which the head keeps with its weights."""

        def same(value: FloatArray) -> FieldStats:
            return FieldStats(value, np.zeros_like(value), value, value)

        middle, half = (self._low_m + self._high_m) / 2, (self._high_m - self._low_m) / 2
        return {
            f"{self._asked}/{NUMBER}": same(np.asarray(self.numbers, np.float64)),
            f"{self._asked}/{BOX}": FieldStats(middle, half, self._low_m, self._high_m),
            f"{self._asked}/{SURFACE}": same(self._surface_m),
        }

    def check_classes(self, model: Model, heads: Sequence[str]) -> None:
        """Raise unless the model was made for crops of this size and so many objects.

        Raises:
            WiringError: it was not.
        """
        expected = {f: list(p.shape or ()) for f, p in self.sensor_spaces[self._crop].spaces.items()}
        found = model.config["sensor_spaces"].get(self._crop)
        if found is None:
            got = f"{sorted(model.config['sensor_spaces'])}"
            raise WiringError("PoseCropDataset", f"a sensor '{self._crop}' {expected}", got, "Correct the names.")

    def _bad(self, error: DataError) -> None:
        if self._on_bad == "raise":
            raise error
        self.skipped.append(str(error))
        _LOG.warning("skipped a picture: %s", error)


def _read(folder: Path, split: str, models: str) -> PoseSource:
    from perceive.pose.files.dataset import PoseDataset

    return cast("PoseSource", PoseDataset(folder, split, models))


def _surface(model: ObjectModel) -> FloatArray:
    """Points of the surface, far from each other: the first R are spread as well as all."""
    points = torch.from_numpy(model.surface(4096).xyz_m).float()[None]
    index = pick_farthest(points, torch.ones(1, points.shape[1], dtype=torch.bool), SURFACE_POINTS).index
    return np.asarray(points[0, index[0]].numpy(), np.float64)


def _check_arguments(
    size_px: int,
    extent: float,
    wide_px: int,
    wide_extent: float,
    least_visible: float,
    most: int,
    symmetry_steps: int,
    on_bad: str,
    limit: int | None,
) -> None:
    rules: dict[str, tuple[bool, Any, str]] = {
        "size_px": (size_px >= 8 and size_px % 2 == 0, size_px, "an even number from 8"),
        "wide_px": (wide_px >= 8 and wide_px % 2 == 0, wide_px, "an even number from 8"),
        "extent": (0.2 <= extent < np.inf, extent, "0.2 or more diameters"),
        "wide_extent": (extent <= wide_extent < np.inf, wide_extent, f"{extent} or more diameters"),
        "least_visible": (0 <= least_visible <= 1, least_visible, "a share from 0 to 1"),
        "most": (most >= 0, most, "0 or more"),
        "symmetry_steps": (symmetry_steps >= 1, symmetry_steps, "1 or more"),
        "on_bad": (on_bad in ("raise", "skip"), on_bad, "'raise' or 'skip'"),
        "limit": (limit is None or limit >= 1, limit, "at least 1, or None"),
    }
    for argument, (good, got, expected) in rules.items():
        if not good:
            raise SpecError(f"PoseCropDataset.{argument}", expected, repr(got), "Correct it.")
