"""FewShotDataset: episodes of a query picture of an object and a few other pictures of it whose poses are known."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from perceive.batch import Batch
from perceive.geometry import axis_angle_to_matrix
from perceive.heads.query_target import Episode, QueryTarget
from perceive.model_base import Model
from perceive.normalize import FieldStats
from perceive.pose.crop_source import CropSource, recut
from perceive.pose.episode import assemble, references_of, scale_of
from perceive.pose.files.dataset import PoseDataset
from perceive.pose.model import ObjectModel
from policies.poses.crop_space import crop_space
from policies.poses.crops import CropPlan, WideCrops, wide_crops
from policies.poses.dataset import KEPT_IN, PosesHeader
from policies.poses.made_crops import FORMAT, kept_crops, made_crops
from policies.poses.made_shapes import made_shape
from policies.poses.source import PoseSource
from policies.poses.symmetry_table import symmetry_table
from sensors.errors import DataError, SpecError, WiringError

_LOG = logging.getLogger(__name__)


@final
class FewShotDataset:
    """Episodes for few-shot pose: a query, K references of the same object from other pictures, and the truth.

    Either of random solids (:mod:`policies.poses.made_shapes`), of which there can be as many as it takes to learn no
    object in particular, or of the objects of a folder in BOP's layout. Everything of an episode is stated in the frame
    and scale of what its references show (:mod:`perceive.pose.episode`). Two streams: ``crop``, the fields of an
    RgbdFrame whose base is the crop's frame, and ``references`` [T = K], RgbdFrames whose base is the object's frame
    and whose depth is 0 beside the object; those that an episode has not are not valid. May be pickled.

    Args:
        folder: of the data set; where random solids are kept.
        shapes: how many random solids; 0 = the objects of the folder.
        views: pictures of each solid.
        split: folder of scenes of a data set.
        models: folder of meshes of a data set.
        objects: their numbers; None = all.
        crop: what the stream of queries is called.
        references: what that of references is called.
        size_px: S, side of a query; even.
        reference_px: R, side of a reference.
        most: K, of references.
        draws: episodes of each query, with other references.
        extent: width of a query, in diameters of what the references show.
        reference_extent: width of a reference, in diameters of the object.
        wide_px: side of the crops that are kept; even.
        wide_extent: their width, in diameters.
        least_visible: of a query.
        least_shown: of a reference.
        symmetry_steps: into which axes of revolution are cut in the loss.
        frame_rad: largest angle between the frame an object is stated in and its query's, drawn for each episode.
        keep: whether wide crops are kept in a hidden folder.
        seed: of random solids and of the choice of references.
        on_bad: what to do with a picture of a data set that is damaged: "raise" or "skip".
        limit: use the first so many episodes only.
        source: the data set itself, for data that is in no folder.

    Attributes:
        numbers: the objects' numbers, by index.

    Raises:
        DataError: nothing usable, or no object with two pictures.
        SpecError: an argument out of its range.
    """

    def __init__(
        self,
        folder: str | Path,
        shapes: int = 240,
        views: int = 24,
        split: str = "test",
        models: str = "models",
        objects: Sequence[int] | None = None,
        crop: str = "crop",
        references: str = "references",
        size_px: int = 64,
        reference_px: int = 48,
        most: int = 4,
        draws: int = 16,
        extent: float = 1.4,
        reference_extent: float = 1.2,
        wide_px: int = 96,
        wide_extent: float = 2.0,
        least_visible: float = 0.3,
        least_shown: float = 0.6,
        symmetry_steps: int = 24,
        frame_rad: float = 0.9,
        keep: bool = True,
        seed: int = 0,
        on_bad: Literal["raise", "skip"] = "raise",
        limit: int | None = None,
        source: PoseSource | None = None,
    ) -> None:
        counts = {"views": views, "reference_px": reference_px, "most": most, "draws": draws, "steps": symmetry_steps}
        even = size_px >= 8 and size_px % 2 == 0 and wide_px >= 8 and wide_px % 2 == 0
        wide = 0.2 <= extent < wide_extent < 10 and 0.2 <= reference_extent < wide_extent
        shares = 0 <= least_visible <= 1 and 0 <= least_shown <= 1 and 0 <= frame_rad < 10
        if (
            min(counts.values()) < 1
            or shapes < 0
            or not (even and wide and shares)
            or (limit is not None and limit < 1)
        ):
            got = (
                f"{counts}, shapes {shapes}, sizes {size_px}, {wide_px}, extents {extent}, {reference_extent}, {limit}"
            )
            raise SpecError(
                "FewShotDataset", "counts of at least 1, even sizes, extents below wide_extent, shares from 0 to 1",
                got, "Correct it.",
            )  # fmt: skip
        if on_bad not in ("raise", "skip"):
            raise SpecError("FewShotDataset.on_bad", "'raise' or 'skip'", repr(on_bad), "Correct it.")
        self.folder = Path(folder)
        self.skipped: list[str] = []
        self._crop, self._references, self._on_bad = crop, references, on_bad
        self._size, self._reference_px, self._most, self._draws = size_px, reference_px, most, draws
        self._extent, self._reference_extent, self._seed = extent, reference_extent, seed
        self._frame_rad = frame_rad
        plan = CropPlan(wide_px, wide_extent, least_visible, 0)
        kept = self.folder / KEPT_IN if keep and source is None else None
        known, self._crops, visible = self._made(shapes, views, plan, kept) if shapes else self._read(
            split, models, objects, plan, kept, source
        )  # fmt: skip
        self.numbers = tuple(model.number for model in known)
        self._low_m = np.stack([model.low_m for model in known])
        self._high_m = np.stack([model.high_m for model in known])
        self._diameter_m = np.array([model.diameter_m for model in known])
        self._symmetries = symmetry_table([model.symmetries for model in known], symmetry_steps)
        which = np.asarray(self._crops.fields["which"])
        scene = np.asarray(self._crops.fields["view"])[:, 0]
        self._shown: list[NDArray[np.int64]] = [
            np.flatnonzero((which == k) & (visible >= least_shown)) for k in range(len(known))
        ]
        # A query needs a reference out of another scene.
        usable = [len(np.setdiff1d(scene[self._shown[w]], [s])) > 0 for w, s in zip(which, scene, strict=True)]
        self._rows = np.flatnonzero(usable)
        if not len(self._rows):
            raise DataError(
                f"'{self.folder}'",
                "objects that are well visible in two scenes",
                "none",
                "Lower least_shown, add views.",
            )
        self._which, self._scene = which, scene
        count = len(self._rows) * draws
        self._count = count if limit is None else min(limit, count)
        self.sensor_spaces = {crop: crop_space(size_px), references: crop_space(reference_px)}
        self.history = {crop: 1, references: most}
        self.action_spec = None
        self.header = PosesHeader(self.sensor_spaces, self.history, {})

    def __len__(self) -> int:
        """Number of episodes."""
        return self._count

    def batch(self, indices: ArrayLike) -> tuple[Batch, QueryTarget]:
        """The episodes at ``indices`` [B], cut as they would be with a mask that is known, with their sources.

        Raises:
            SpecError: no index, or one out of range.
        """
        chosen = np.atleast_1d(np.asarray(indices, np.int64))
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= len(self):
            raise SpecError("FewShotDataset.batch", f"indices from 0 to {len(self) - 1}", f"{chosen[:5]}", "Correct.")
        rows = self._rows[chosen % len(self._rows)]
        context = [self._context(int(index), int(row)) for index, row in zip(chosen, rows, strict=True)]
        there = torch.from_numpy(np.stack([known for _, known in context]))
        query, references = self._source(rows), self._source(np.concatenate([taken for taken, _ in context]))
        symmetries = self._symmetries[torch.from_numpy(self._which[rows])]
        episode = Episode(query, references, there, symmetries)
        extent = self._reference_extent * references.diameter_m
        level = torch.zeros(len(extent))
        seen = recut(
            references,
            2 * self._reference_px,
            references.middle_px,
            references.surface_m * references.slant,
            extent,
            level,
        )
        shown = references_of(seen, there)
        scale = scale_of(*shown.points(), self._frames(chosen) @ query.crop_from_object[:, :3, :3])
        measured = (query.depth.flatten(1).to(torch.int32) > 0).any(1)
        distance = torch.where(measured, query.surface_m, query.blind_m) * query.slant
        extent = self._extent * 2 * scale.radius_m
        cut = recut(query, self._size, query.middle_px, distance, extent, torch.zeros(len(extent)))
        return assemble(cut, shown, scale, symmetries, (self._crop, self._references), episode)

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices for training and for validation: whole objects are held back."""
        which = self._which[self._rows[np.arange(len(self)) % len(self._rows)]]
        groups = np.random.default_rng(seed).permutation(np.unique(which))
        count = min(max(round(fraction * len(groups)), 1), len(groups) - 1) if fraction > 0 else 0
        back = np.isin(which, groups[:count])
        return np.flatnonzero(~back), np.flatnonzero(back)

    def stats(self) -> dict[str, FieldStats]:
        """None: everything is stated in one scale."""
        return {}

    def check_classes(self, model: Model, heads: Sequence[str]) -> None:
        """Raise unless the model was made for such pictures.

        Raises:
            WiringError: it was not.
        """
        for name in (self._crop, self._references):
            if name not in model.config["sensor_spaces"]:
                got = f"{sorted(model.config['sensor_spaces'])}"
                raise WiringError("FewShotDataset", f"a sensor '{name}'", got, "Correct the names.")

    def _context(self, index: int, row: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """K rows of references and which of them count, of one episode: a function of its index alone."""
        rng = np.random.default_rng((self._seed, index))
        able = self._shown[self._which[row]]
        able = able[self._scene[able] != self._scene[row]]
        count = min(int(rng.integers(1, self._most + 1)), len(able))
        taken = rng.permutation(able)[:count]
        known = np.arange(self._most) < count
        return np.concatenate([taken, np.full(self._most - count, taken[0])]), known

    def _frames(self, indices: NDArray[np.int64]) -> torch.Tensor:
        """Turns [B, 3, 3] of the objects' frames away from their queries', functions of the episodes' indices."""
        drawn = [np.random.default_rng((self._seed, int(index), 1)) for index in indices]
        axis = torch.nn.functional.normalize(torch.from_numpy(np.stack([rng.normal(size=3) for rng in drawn])), dim=-1)
        angle = torch.from_numpy(np.array([rng.uniform(0, self._frame_rad) for rng in drawn]))
        return axis_angle_to_matrix((axis * angle[:, None]).float())

    def _source(self, rows: NDArray[np.int64]) -> CropSource:
        order = np.argsort(rows, kind="stable")  # the file is read from its beginning to its end
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        found = self._crops.source(rows[order], self._low_m, self._high_m, self._diameter_m)
        return replace(found, **{name: getattr(found, name)[back] for name in found.__dataclass_fields__})

    def _made(
        self, shapes: int, views: int, plan: CropPlan, kept: Path | None
    ) -> tuple[list[ObjectModel], WideCrops, NDArray[np.float32]]:
        known = [made_shape(number, self._seed) for number in range(1, shapes + 1)]
        digest = hashlib.sha256(repr((FORMAT, shapes, views, plan, self._seed)).encode())
        for model in known:
            digest.update(model.vertices_m.tobytes())

        def make() -> tuple[WideCrops, NDArray[np.float32]]:
            return made_crops(known, views, plan, self._seed)

        if kept is None:
            return known, *make()
        return known, *kept_crops(kept, f"made_{digest.hexdigest()[:16]}", make)

    def _read(
        self, split: str, models: str, objects: Sequence[int] | None, plan: CropPlan, kept: Path | None,
        source: PoseSource | None,
    ) -> tuple[list[ObjectModel], WideCrops, NDArray[np.float32]]:  # fmt: skip
        data = cast("PoseSource", PoseDataset(self.folder, split, models)) if source is None else source
        numbers = tuple(sorted(data.models)) if objects is None else tuple(objects)
        strange = [number for number in numbers if number not in data.models]
        if strange or not numbers:
            raise SpecError("FewShotDataset.objects", f"some of {sorted(data.models)}", f"{objects}", "Correct it.")
        crops = wide_crops(data, plan, numbers, kept, self._bad)
        least: dict[tuple[int, int, int], float] = {}
        for key in data.views:
            for one in data.truth(key):
                if one.visible_share >= plan.least_visible:
                    name = (key.scene, key.image, one.number)
                    least[name] = min(one.visible_share, least.get(name, 1.0))
        view, which = np.asarray(crops.fields["view"]), np.asarray(crops.fields["which"])
        shares = [least[int(s), int(i), numbers[int(w)]] for (s, i), w in zip(view, which, strict=True)]
        return [data.models[number] for number in numbers], crops, np.array(shares, np.float32)

    def _bad(self, error: DataError) -> None:
        if self._on_bad == "raise":
            raise error
        self.skipped.append(str(error))
        _LOG.warning("skipped a picture: %s", error)
