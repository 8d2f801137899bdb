"""PoseCompareDataset: visible instances of posed objects, each beside drawings of disturbed poses of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from perceive.batch import Batch
from perceive.heads.pose_change_target import ChangeTarget
from perceive.metrics.pose_fast import PoseErrors
from perceive.model_base import Model
from perceive.normalize import FieldStats
from perceive.pose.compare import Pairs, change_between, drawing
from perceive.pose.crop_source import Recut, recut
from perceive.pose.raster import MeshRenderer
from perceive.pose.symmetric_loss import closest_truth
from policies.poses.crop_space import crop_space
from policies.poses.crops import CropPlan, wide_crops
from policies.poses.dataset import KEPT_IN, PosesHeader
from policies.poses.source import PoseSource
from sensors.errors import DataError, SpecError, WiringError
from sensors.geometry import FloatArray, axis_angle_to_matrix

_LOG = logging.getLogger(__name__)
POINTS = 48  # of each surface, in the loss
RIGHT = 0.1  # largest MSSD, in diameters, of a hypothesis that counts as right
_SMALLEST = 3.0  # disturbances are exp(-_SMALLEST u^2) times as large as they may be, u even from 0 to 1
_SIGMAS, _FARTHEST = 2.0, 0.3  # bounds of disturbances: in deviations, and of the logarithm of the distance


@final
class PoseCompareDataset:
    """Pairs of what is seen and what is drawn (see :mod:`perceive.pose.compare`) out of a folder in BOP's layout.

    A sample is one visible instance at one of ``variants`` disturbed poses, the same whenever it is asked for: its
    random numbers follow from its index. Disturbances are of all sizes up to the full one, since after each step of
    refinement they are smaller; a share of them is turned at random, to be recognised as wrong and not to be mended.

    Instances are cut once, wider than needed, and kept beside the data (with those of
    :class:`policies.poses.dataset.PoseCropDataset`); drawings are made when they are asked for. May be pickled.

    Args:
        folder: of the data set.
        split: folder of scenes in it.
        models: folder of meshes in it.
        seen: what the first stream is called.
        drawn: what the second is called.
        size_px: S, side of a crop; a multiple of 8.
        extent: width of a crop, in diameters of its object.
        wide_px: side of the wide crops; even.
        wide_extent: their width, in diameters.
        least_visible: instances of which a smaller share is visible are left out.
        variants: disturbed poses of each instance.
        turn_rad: deviation of the full disturbance's angle.
        shift: the same of its shift in the picture plane, along each axis, in diameters.
        depth: the same of the logarithm of the distance.
        gross: share of the hypotheses that are turned at random.
        objects: numbers of the objects that are used; None = all.
        keep: whether wide crops are kept in a hidden folder of the data set.
        on_bad: what to do with a picture that is damaged: "raise", or "skip" it, log a warning and list it in
            :attr:`skipped`.
        limit: use the first so many instances only.
        source: the data set itself, for data that is in no folder; None = read ``folder``.

    Attributes:
        numbers: the used objects' numbers.
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
        seen: str = "seen",
        drawn: str = "drawn",
        size_px: int = 64,
        extent: float = 1.4,
        wide_px: int = 128,
        wide_extent: float = 2.0,
        least_visible: float = 0.15,
        variants: int = 24,
        turn_rad: float = 0.44,
        shift: float = 0.1,
        depth: float = 0.15,
        gross: float = 0.1,
        objects: Sequence[int] | None = None,
        keep: bool = True,
        on_bad: Literal["raise", "skip"] = "raise",
        limit: int | None = None,
        source: PoseSource | None = None,
    ) -> None:
        rules: dict[str, tuple[bool, Any, str]] = {
            "size_px": (size_px >= 8 and size_px % 8 == 0, size_px, "a multiple of 8"),
            "wide_px": (wide_px >= 8 and wide_px % 2 == 0, wide_px, "an even number from 8"),
            "extent": (0.2 <= extent < math.inf, extent, "0.2 or more diameters"),
            "wide_extent": (extent <= wide_extent < math.inf, wide_extent, f"{extent} or more diameters"),
            "least_visible": (0 <= least_visible <= 1, least_visible, "a share from 0 to 1"),
            "variants": (variants >= 1, variants, "1 or more"),
            "turn_rad": (0 <= turn_rad < math.pi, turn_rad, "0 to pi"),
            "shift": (0 <= shift < 1, shift, "0 to 1 diameters"),
            "depth": (0 <= depth < 1, depth, "0 to 1"),
            "gross": (0 <= gross <= 1, gross, "a share from 0 to 1"),
            "on_bad": (on_bad in ("raise", "skip"), on_bad, "'raise' or 'skip'"),
            "limit": (limit is None or limit >= 1, limit, "at least 1, or None"),
        }
        for argument, (good, got, expected) in rules.items():
            if not good:
                raise SpecError(f"PoseCompareDataset.{argument}", expected, repr(got), "Correct it.")
        self.folder = Path(folder)
        data = _read(self.folder, split, models) if source is None else source
        every = tuple(sorted(data.models))
        self.numbers = every if objects is None else tuple(objects)
        if not self.numbers or any(number not in every for number in self.numbers):
            raise SpecError("PoseCompareDataset.objects", f"some of {list(every)}", f"{objects}", "Correct it.")
        self.skipped: list[str] = []
        self._on_bad = on_bad
        self._seen, self._drawn, self._size, self._extent = seen, drawn, size_px, extent
        self._variants, self._turn_rad, self._shift, self._depth, self._gross = variants, turn_rad, shift, depth, gross
        kept = self.folder / KEPT_IN if keep and source is None else None
        # Of all objects, so that one cache serves every choice of objects.
        self._crops = wide_crops(data, CropPlan(wide_px, wide_extent, least_visible, 0), every, kept, self._bad)
        self._models = [data.models[number] for number in every]
        used = np.isin(np.asarray(every)[np.asarray(self._crops.fields["which"])], self.numbers)
        self._rows = np.flatnonzero(used)[:limit]
        if not len(self._rows):
            raise DataError("PoseCompareDataset", f"instances of {list(self.numbers)}", "none", "Check the folder.")
        self._low_m = np.stack([model.low_m for model in self._models])
        self._high_m = np.stack([model.high_m for model in self._models])
        self._diameter_m = np.array([model.diameter_m for model in self._models])
        self._surface_m = torch.from_numpy(np.stack([model.surface(POINTS).xyz_m for model in self._models]))
        self._tools: dict[int, tuple[MeshRenderer, PoseErrors]] = {}
        self.sensor_spaces = {seen: crop_space(size_px), drawn: crop_space(size_px)}
        self.history = {seen: 1, drawn: 1}
        self.action_spec = None
        self.header = PosesHeader(self.sensor_spaces, self.history, {})

    def __getstate__(self) -> dict[str, Any]:
        """Without what cannot be pickled and is built again when it is needed."""
        return {**self.__dict__, "_tools": {}}

    def __len__(self) -> int:
        """Number of instances times variants."""
        return len(self._rows) * self._variants

    def batch(self, indices: ArrayLike) -> tuple[Batch, ChangeTarget]:
        """The samples at ``indices`` [B].

        Raises:
            SpecError: no index, or one out of range.
        """
        chosen = np.atleast_1d(np.asarray(indices, np.int64))
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= len(self):
            raise SpecError(
                "PoseCompareDataset.batch", f"indices from 0 to {len(self) - 1}", f"{chosen[:5]}", "Correct."
            )
        rows = self._rows[chosen // self._variants]
        source = self._crops.source(rows, self._low_m, self._high_m, self._diameter_m)
        which = np.asarray(self._crops.fields["which"])[rows].astype(np.int64)
        middle = torch.from_numpy((self._low_m + self._high_m)[which] / 2)
        truth = source.crop_from_object.double()
        drawn = [self._disturbed(int(i), pose) for i, pose in zip(chosen, _about(truth, middle), strict=True)]
        start = _about(torch.from_numpy(np.stack([pose for pose, _ in drawn])), -middle)
        centre = (start[:, :3, :3] @ middle[..., None])[..., 0] + start[:, :3, 3]
        pixel = source.focal_px.double()[:, None] * centre[:, :2] / centre[:, 2:] + (source.rgb.shape[1] - 1) / 2
        away, size = centre.norm(dim=1), len(chosen)
        diameter = source.diameter_m
        new = recut(source, self._size, pixel.float(), away.float(), self._extent * diameter, torch.zeros(size))
        turn = _turn_of(new, truth)
        start, truth = turn @ start, turn @ truth
        camera = new.intrinsics_px.double()
        right = torch.empty(size, dtype=torch.bool)
        drawings = []
        for k in range(size):
            renderer, errors = self._of(int(which[k]))
            drawings.append(drawing(renderer, start[k].numpy(), camera[k].numpy(), self._size))
            right[k] = bool(
                errors.mssd(start[k : k + 1].numpy(), truth[k : k + 1].numpy())[0] < RIGHT * float(diameter[k])
            )
        for index in np.unique(which):
            same = torch.from_numpy(which == index)
            model = self._models[index]
            truth[same] = closest_truth(start[same], truth[same], self._surface_m[index], model.symmetries)
        change = change_between(start, truth, middle, camera, self._size)
        points = (self._surface_m[which] - middle[:, None]) @ start[:, :3, :3].mT / diameter.double()[:, None, None]
        rgb, depth = _filled(new)
        pairs = Pairs(
            rgb,
            depth,
            torch.from_numpy(np.stack([one for one, _ in drawings])),
            torch.from_numpy(np.stack([one for _, one in drawings])),
            camera,
            away,
            diameter,
        )
        near = torch.tensor([not gross for _, gross in drawn])
        turn, shift, depth_change = change.turn.float(), change.shift.float(), change.depth.float()
        target = ChangeTarget(turn, shift, depth_change, near, right, points.float(), new.mask)
        return pairs.batch(self._seen, self._drawn), target

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices for training and for validation: whole scenes are held back, of a single scene whole pictures."""
        views = np.asarray(self._crops.fields["view"])[self._rows]
        names = views[:, 0] if len(np.unique(views[:, 0])) > 1 else views[:, 1]
        groups = np.random.default_rng(seed).permutation(np.unique(names))
        count = min(max(round(fraction * len(groups)), 1), len(groups) - 1) if fraction > 0 else 0
        back = np.isin(names, groups[:count]).repeat(self._variants)
        return np.flatnonzero(~back), np.flatnonzero(back)

    def stats(self) -> dict[str, FieldStats]:
        """None: crops are stated in the objects' size."""
        return {}

    def check_classes(self, model: Model, heads: Sequence[str]) -> None:
        """Raise unless the model was made for crops of this size.

        Raises:
            WiringError: it was not.
        """
        for name in (self._seen, self._drawn):
            expected = {f: list(p.shape or ()) for f, p in self.sensor_spaces[name].spaces.items()}
            if name not in model.config["sensor_spaces"]:
                got = f"{sorted(model.config['sensor_spaces'])}"
                raise WiringError("PoseCompareDataset", f"a sensor '{name}' {expected}", got, "Correct the names.")

    def _disturbed(self, index: int, pose: Tensor) -> tuple[FloatArray, bool]:
        """A hypothesis [4, 4] near a pose, both about the object's middle, and whether it is turned at random."""
        rng = np.random.default_rng([index, 4])
        level = math.exp(-_SMALLEST * rng.random() ** 2)
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        normal = rng.normal(size=4).clip(-_SIGMAS, _SIGMAS)
        gross, large = rng.random() < self._gross, rng.uniform(1.0, math.pi)
        angle = large if gross else level * self._turn_rad * abs(normal[0])
        out = pose.numpy().copy()
        out[:3, :3] = axis_angle_to_matrix(axis * angle) @ out[:3, :3]
        size = float(self._diameter_m[int(self._crops.fields["which"][self._rows[index // self._variants]])])
        out[:2, 3] += level * self._shift * size * normal[1:3]
        out[:3, 3] *= math.exp(np.clip(level * self._depth * normal[3], -_FARTHEST, _FARTHEST))
        return out, gross

    def _of(self, index: int) -> tuple[MeshRenderer, PoseErrors]:
        if index not in self._tools:
            model = self._models[index]
            self._tools[index] = (MeshRenderer(model, threads=1), PoseErrors(model))
        return self._tools[index]

    def _bad(self, error: DataError) -> None:
        if self._on_bad == "raise":
            raise error
        self.skipped.append(str(error))
        _LOG.warning("skipped a picture: %s", error)


def _about(poses: Tensor, point_m: Tensor) -> Tensor:
    """Poses [B, 4, 4] of the object whose frame's origin is moved to ``point_m`` [B, 3] of the old frame."""
    out = poses.clone()
    out[:, :3, 3] += (poses[:, :3, :3] @ point_m[..., None])[..., 0]
    return out


def _turn_of(new: Recut, truth: Tensor) -> Tensor:
    """Transforms [B, 4, 4], rotations, that took wide crops' cameras to those of the new crops."""
    out = torch.eye(4, dtype=torch.float64).repeat(len(truth), 1, 1)
    u, _, v = torch.linalg.svd(new.frame_from_object.double()[:, :3, :3] @ truth[:, :3, :3].mT)
    out[:, :3, :3] = u @ v  # single precision is not quite a rotation
    return out


def _filled(new: Recut) -> tuple[Tensor, Tensor]:
    """Colours and depth with pictures of other samples beyond what was kept, whose border would tell the truth."""
    beyond = (new.rgb == 0).all(-1)
    wider = torch.nn.functional.max_pool2d(beyond[:, None].float(), 3, 1, 1)[:, 0] > 0  # half a pixel is darker
    rgb = torch.where(wider[..., None], new.rgb.roll(1, 0).flip(2), new.rgb)
    return rgb, torch.where(wider, 0.0, new.depth_m)


def _read(folder: Path, split: str, models: str) -> PoseSource:
    from perceive.pose.files.dataset import PoseDataset

    return cast("PoseSource", PoseDataset(folder, split, models))
