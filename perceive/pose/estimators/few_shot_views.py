"""What the trained network says of a crop, told what an object looks like by a few references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.batch import Batch, BatchStream
from perceive.heads.query_coordinates import QueryCoordinateHead, QueryCoordinates
from perceive.model import PerceptionModel
from perceive.points.registration.ransac import ransac
from perceive.pose.crop import CropView, aim_at_mask, cut
from perceive.pose.episode import RADIUS_M, ObjectScale, References, scale_of
from perceive.pose.estimators.instance_views import Seen
from perceive.pose.references import Reference
from sensors.errors import DataError, SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, invert

_LEAST_MATCHES = 12


@final
class Context:
    """What a network is told of one object.

    Attributes:
        references: as tensors, of one object.
        diameter_m: of what the references show.
    """

    def __init__(self, references: References) -> None:
        self.references = references
        self.points_m, self.there = references.points(stride=1)
        self.diameter_m = 2 * float(scale_of(self.points_m, self.there).radius_m)


@final
class FewShotReader:
    """Asks a trained model about crops.

    Args:
        model: with a head of query coordinates.
        head: the name of that head.
        crop: the sensor with the crop.
        references: the sensor with the references.
        reference_extent: width of a reference, in diameters; as in training.

    Raises:
        WiringError: the model has no such head or sensors, or works in another scale.
    """

    def __init__(
        self,
        model: PerceptionModel,
        head: str,
        crop: str,
        references: str,
        reference_extent: float,
    ) -> None:
        part = dict(model.heads.items()).get(head)
        if not isinstance(part, QueryCoordinateHead):
            raise WiringError("FewShotReader.head", "a QueryCoordinateHead", f"'{head}'", f"One of {model.head_names}.")
        for name in (crop, references):
            if name not in model.sensor_names:
                raise WiringError("FewShotReader", f"a sensor '{name}'", f"{model.sensor_names}", "Correct the name.")
        if abs(part.radius_m - RADIUS_M) > 1e-9:
            raise WiringError("FewShotReader", f"a head with radius_m {RADIUS_M}", f"{part.radius_m}", "Train anew.")
        self.size_px = part.size_px
        self._reference_px = int(model.config["sensor_spaces"][references]["spaces"]["depth_m"]["shape"][0])
        self._most = int(model.config["history"][references])
        self._model, self._head, self._crop, self._references = model.eval(), head, crop, references
        self._extent = reference_extent
        self._device = model.fallback_origin_m.device

    def context(self, references: Sequence[Reference]) -> Context:
        """What the network is told of an object; of too many references those that differ most.

        Raises:
            DataError: no reference.
        """
        if not references:
            raise DataError("FewShotEstimator", "at least one reference", "none", "Take a picture of the object.")
        chosen = _apart(references, self._most)
        points = np.concatenate([one.points() for one in chosen])
        cloud = torch.from_numpy(points)[None]
        diameter = 2 * float(scale_of(cloud, torch.ones(1, len(points), dtype=torch.bool)).radius_m)
        rgb, depth, camera, pose = [], [], [], []
        for one in chosen:
            view = aim_at_mask(one.frame, one.mask, diameter, self._reference_px, self._extent)
            alone = RgbdFrame(
                stamp_s=0.0, rgb=np.where(one.mask[..., None], one.frame.rgb, np.uint8(0)), depth_m=one.depth_m,
                intrinsics_px=one.frame.intrinsics_px, base_from_camera=np.eye(4),
            )  # fmt: skip
            small = cut(alone, view)
            turned = np.eye(4)
            turned[:3, :3] = view.crop_from_camera
            rgb.append(np.where(small.depth_m[..., None] > 0, small.rgb, np.uint8(0)))
            depth.append(small.depth_m)
            camera.append(view.intrinsics_px)
            pose.append(invert(turned @ one.camera_from_object))
        gap = self._most - len(chosen)

        def full(values: Sequence[FloatArray]) -> torch.Tensor:
            return torch.from_numpy(np.stack([*values, *[values[0]] * gap])).float()

        there = torch.arange(self._most)[None] < len(chosen)
        return Context(References(full(rgb).to(torch.uint8), full(depth), full(camera), full(pose), there))

    def read(self, frame: RgbdFrame, context: Context, view: CropView, turns: FloatArray) -> list[Seen]:
        """What is seen in a crop, once for each object frame in which the network is told of the object.

        Args:
            frame: the whole picture.
            context: the object.
            view: the crop.
            turns: float [N, 3, 3], these frames' axes from the object's own.
        """
        told_in = torch.from_numpy(turns).float()
        count = len(told_in)
        scale = scale_of(
            context.points_m.expand(count, -1, -1), context.there.expand(count, -1), told_in
        )  # in each of the frames
        crop = cut(frame, view)
        factor = scale.factor[:, None]
        camera = torch.from_numpy(view.frame_from_crop).float().repeat(count, 1, 1)
        camera[:, :3, 3] *= factor
        data = {
            "rgb": torch.from_numpy(crop.rgb)[None].expand(count, -1, -1, -1),
            "depth_m": torch.from_numpy(crop.depth_m)[None] * factor[..., None],
            "intrinsics_px": torch.from_numpy(view.intrinsics_px).float().expand(count, -1),
            "base_from_camera": camera,
        }
        stream = BatchStream(
            {name: value[:, None] for name, value in data.items()},
            torch.zeros(count, 1), torch.ones(count, 1, dtype=torch.bool),
        )  # fmt: skip
        one = context.references
        told = References(
            *(value.repeat(count, *[1] * (value.ndim - 1)) for value in (
                one.rgb, one.depth_m, one.intrinsics_px, one.object_from_crop, one.there,
            ))
        ).stream(scale)  # fmt: skip
        batch = Batch({self._crop: stream, self._references: told}).to(self._device)
        with torch.no_grad():
            said: QueryCoordinates = self._model(batch)[self._head]
        return [self._seen(said, scale, k, view) for k in range(count)]

    def _seen(self, said: QueryCoordinates, scale: ObjectScale, k: int, view: CropView) -> Seen:
        def plain(value: torch.Tensor) -> FloatArray:
            return np.asarray(value[k].cpu().numpy(), np.float64)

        factor, turn = float(scale.factor[k]), plain(scale.turn)
        back = invert(view.frame_from_camera)
        placed = plain(said.points_m) / factor @ back[:3, :3].T + back[:3, 3]
        coordinates = plain(said.coordinates_m) / factor @ turn + plain(scale.middle_m)
        mask, measured = plain(said.mask_logits.sigmoid()), said.measured[k].cpu().numpy()
        return Seen(view, mask, coordinates, plain(said.spread_m) / factor, placed, measured, np.eye(4), 1.0)


def poses_of_all(
    seen: Sequence[Seen], there: Sequence[NDArray[np.bool_]], reach_m: float, samples: int, seed: int
) -> FloatArray:
    """Poses [N, 4, 4] of the camera's frame that measured points and their coordinates agree on.

    By RANSAC and Kabsch, of all answers at once; each gives so many, fitted to ever fewer and surer pixels.
    """
    use = np.stack([(mask & one.measured).ravel() for one, mask in zip(seen, there, strict=True)])
    some = use.any(0)
    use = use[:, some]
    source, target = (
        np.stack([getattr(one, name).reshape(-1, 3)[some] for one in seen]) for name in ("coordinates_m", "points_m")
    )
    spread = np.where(use, np.stack([one.spread_m.ravel()[some] for one in seen]), np.nan)
    keep = np.concatenate([use & (spread <= _quantile(spread, share)) for share in np.linspace(0.9, 0.4, samples)])
    enough = keep.sum(1) >= _LEAST_MATCHES
    if not enough.any():
        return np.zeros((0, 4, 4))
    source, target = np.tile(source, (samples, 1, 1)), np.tile(target, (samples, 1, 1))
    found = ransac(
        torch.from_numpy(source[enough]), torch.from_numpy(target[enough]), torch.from_numpy(keep[enough]),
        inlier_m=reach_m, triplets=256, judged=48, seed=seed,
    )  # fmt: skip
    return np.asarray(found.target_from_source.numpy()[found.found.numpy()])


def _quantile(values: FloatArray, share: float) -> FloatArray:
    """Of each row [N, 1], NaN left out; 0 where there is nothing else."""
    filled = np.where(np.isnan(values).all(1, keepdims=True), 0.0, values)
    return np.asarray(np.nanquantile(filled, share, axis=1, keepdims=True))


def _apart(references: Sequence[Reference], most: int) -> list[Reference]:
    """At most so many of them, each next one seen from as far as can be from all before."""
    sight = np.stack([one.camera_from_object[:3, :3].T @ one.camera_from_object[:3, 3] for one in references])
    sight /= np.maximum(np.linalg.norm(sight, axis=1, keepdims=True), 1e-9)
    chosen = [0]
    while len(chosen) < min(most, len(references)):
        nearest = (sight @ sight[chosen].T).max(1)
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
    return [references[k] for k in chosen]


def check_settings(counts: Sequence[int], sizes: Sequence[float]) -> None:
    """Raise unless counts are at least 1 and sizes above 0.

    Raises:
        SpecError: they are not.
    """
    if min(counts) < 1 or not all(0 < size < np.inf for size in sizes):
        raise SpecError(
            "FewShotEstimator", "counts of at least 1, sizes above 0", f"{counts}, {sizes}", "Correct them."
        )
