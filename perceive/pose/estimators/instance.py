"""InstanceEstimator: poses of objects that a network was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.loading import load_model
from perceive.model import PerceptionModel
from perceive.pose.crop import CropView, aim, aim_at_mask, halved
from perceive.pose.estimate import PoseEstimate, PoseEstimator, check_view
from perceive.pose.estimators.instance_views import CropReader, Seen, poses_with_depth, poses_without_depth, within
from perceive.pose.model import ObjectModel
from perceive.pose.proposals import propose
from perceive.pose.proposals_object import object_proposals
from perceive.pose.templates.hypotheses import rough_covariance, searched
from perceive.pose.templates.scene import Known, Scene
from perceive.pose.templates.settle import settle_alone
from perceive.pose.verify import Verifier
from sensors.errors import DataError, SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, unproject

_SAME = 0.02  # boxes may differ from those of the training by this share of the diameter
_UNIONS = 10  # of patches that are looked at, at most
_TOLERANCE, _FLOOR_M, _JUDGE_PX = 0.02, 0.002, 40  # of judging without a mask, as TemplateEstimator's
_ROUNDS, _TRIED = 6, 16  # of the search without depth
_LEAST_POINTS = 20  # measured pixels of an object below which its depth is not used


@final
class InstanceEstimator(PoseEstimator):
    """Poses of known objects by dense coordinates (GDR-Net: Wang et al., CVPR 2021) over the shared trunk.

    A crop around the mask (or around each thing that stands on the table, where there is no mask) is read by the
    network; a second crop is aimed at where the first says the object is. With depth, measured points and their
    coordinates give poses by RANSAC and Kabsch, which are refined on the mesh all at once; without, PnP does, and they
    are moved to where outline and colours fit best. Rendering and comparing chooses among these and the pose that the
    network regressed.

    Args:
        network: a trained model, or the folder of a checkpoint's model.
        models: the objects' meshes.
        extent: width of a crop, in diameters; as in training.
        passes: crops for each object, each aimed by the one before.
        reach: of a match that counts, as a share of the diameter.
        reach_px: the same without depth, in pixels of the network's map.
        samples: poses by RANSAC for each crop.
        points: of the picture that hypotheses are refined with.
        least_present: what is found without a mask counts only if the network is so sure that the object is there.
        least_score: and if rendering and comparing gives it this score.
        sure: a score without a mask at which no other place is tried.
        others: further hypotheses in an answer.
        head: name of the network's head.
        crop: name of its sensor with the crop.
        asked: name of its sensor that says which object is asked for.
        device: of the network.
        seed: of RANSAC.

    Raises:
        DataError: a mesh is not the one that the network was trained on.
        SpecError: an object without a mesh, or a setting out of its range.
        WiringError: the model has no such head or sensors.
    """

    def __init__(
        self,
        network: PerceptionModel | str | Path,
        models: Iterable[ObjectModel] | Mapping[int, ObjectModel],
        extent: float = 1.4,
        passes: int = 2,
        reach: float = 0.06,
        reach_px: float = 2.0,
        samples: int = 4,
        points: int = 512,
        least_present: float = 0.3,
        least_score: float = 0.3,
        sure: float = 0.85,
        others: int = 4,
        head: str = "coordinates",
        crop: str = "crop",
        asked: str = "object",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        counts, sizes = (passes, samples, points), (extent, reach, reach_px)
        if min(counts) < 1 or others < 0 or not all(0 < size < math.inf for size in sizes):
            got = f"passes {passes}, samples {samples}, points {points}, others {others}, sizes {sizes}"
            raise SpecError("InstanceEstimator", "counts of at least 1 and sizes above 0", got, "Correct them.")
        model = network if isinstance(network, PerceptionModel) else load_model(network, device)
        if not isinstance(model, PerceptionModel):
            raise WiringError("InstanceEstimator", "a PerceptionModel", type(model).__name__, "Load another.")
        self._reader = CropReader(model, head, crop, asked)
        listed = list(models.values() if isinstance(models, Mapping) else models)
        self._models = _fitting({one.number: one for one in listed}, self._reader)
        self._extent, self._passes, self._reach, self._reach_px = extent, passes, reach, reach_px
        self._samples, self._points, self._others, self._seed = samples, points, others, seed
        self._least_present, self._least_score, self._sure = least_present, least_score, sure
        self._scene: Scene | None = None  # of the last picture: several objects may be asked for in it
        self._known: dict[int, Known] = {}
        self._verifiers: dict[int, Verifier] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        return self._reader.numbers

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        where = "InstanceEstimator"
        check_view(where, frame, mask)
        if number not in self._models:
            raise SpecError(where, f"one of the objects {list(self.numbers)}", f"{number}", "Train with it.")
        model = self._models[number]
        if mask is not None:
            view = aim_at_mask(frame, mask, model.diameter_m, self._reader.size_px, self._extent)
            return self._follow(frame, model, [view], mask)[:1]
        if not (np.isfinite(frame.depth_m) & (frame.depth_m > 0)).any():
            raise SpecError(where, "a mask, or depth to find things by", "neither", "Pass the object's mask.")
        masks = self._places(frame, model)
        if not masks:
            return []
        size = self._reader.size_px
        views = [aim_at_mask(frame, one, model.diameter_m, size, self._extent) for one in masks]
        seen = self._reader.read(frame, number, views)
        likely = sorted(
            (k for k, one in enumerate(seen) if one.present >= self._least_present), key=lambda k: -seen[k].present
        )
        found: list[PoseEstimate] = []
        for k in likely[: 2 * most + 2]:
            found += [self._settled(frame, model, one) for one in self._follow(frame, model, [views[k]], None)]
            if most == 1 and found and found[-1].score > self._sure:
                break
        found = [one for one in found if one.score >= self._least_score]
        return _apart(sorted(found, key=lambda one: -one.score), model.diameter_m)[:most]

    def _settled(self, frame: RgbdFrame, model: ObjectModel, one: PoseEstimate) -> PoseEstimate:
        """An estimate judged by all that its pose says should be seen, so that those of different places compare."""
        assert self._scene is not None, "made by what found the places"
        known, camera = self._known_of(model), np.asarray(frame.intrinsics_px, np.float64)
        poses = np.concatenate([one.camera_from_object[None], one.others])
        first = rough_covariance(one.camera_from_object, model.diameter_m) if one.covariance is None else one.covariance
        given = np.tile(first, (len(poses), 1, 1))
        poses, score, covariance = settle_alone(
            self._scene, frame.rgb, known, poses, given, camera, self._points, self._seed
        )
        order = np.argsort(-score, kind="stable")
        best, rest = int(order[0]), order[1 : 1 + self._others]
        return PoseEstimate(model.number, poses[best], float(score[best]), covariance[best], poses[rest], score[rest])

    def _places(self, frame: RgbdFrame, model: ObjectModel) -> list[NDArray[np.bool_]]:
        """Where the object may be: things that stand alone, and patches of a heap that have its colours and size."""
        if self._scene is None or not self._scene.shows(frame):
            self._scene = Scene(frame)
        known = self._known_of(model)
        unions = object_proposals(
            self._scene.patches, known.palette, model.diameter_m, known.silhouette_m2, most=_UNIONS
        )
        return propose(frame, largest_m=2 * model.diameter_m) + [one.mask for one in unions]

    def _follow(
        self, frame: RgbdFrame, model: ObjectModel, views: list[CropView], mask: NDArray[np.bool_] | None
    ) -> list[PoseEstimate]:
        """Poses from a first view and those that are aimed by it."""
        best: PoseEstimate | None = None
        for _ in range(self._passes):
            for seen in self._reader.read(frame, model.number, views):
                one = self._solve(frame, model, seen, mask)
                if one is not None and (best is None or one.score > best.score):
                    best = one
            if best is None:
                break
            again = self._aim(frame, model, best.camera_from_object, mask)
            if again is None:
                break
            views = [again]
        return [] if best is None else [best]

    def _aim(
        self, frame: RgbdFrame, model: ObjectModel, pose: FloatArray, mask: NDArray[np.bool_] | None
    ) -> CropView | None:
        """The view through the object's centre, at the distance of its surface where that was measured."""
        centre = pose[:3, :3] @ ((model.low_m + model.high_m) / 2) + pose[:3, 3]
        if centre[2] <= 0.01:
            return None
        camera = np.asarray(frame.intrinsics_px, np.float64)
        pixel = camera[:2] * centre[:2] / centre[2] + camera[2:]
        away = float(np.linalg.norm(centre))
        if mask is not None:
            seen = frame.depth_m[mask]
            seen = seen[np.isfinite(seen) & (seen > 0)]
            if len(seen):
                away = float(np.median(seen)) * away / float(centre[2])
        elif (frame.depth_m > 0).any():
            away = max(away - 0.3 * model.diameter_m, 0.1 * model.diameter_m)
        return aim(pixel, camera, away, self._extent * model.diameter_m, self._reader.size_px)

    def _solve(
        self, frame: RgbdFrame, model: ObjectModel, seen: Seen, mask: NDArray[np.bool_] | None
    ) -> PoseEstimate | None:
        """The best pose of one crop; None = there is none."""
        there = within(seen, frame, mask)
        known = self._known_of(model)
        renderer, refiner, verifier = known.renderer, known.refiner, self._verifiers[model.number]
        height, width = frame.depth_m.shape
        shown = mask if mask is not None else _whole_mask(seen, there, frame)
        measured = shown & np.isfinite(frame.depth_m) & (frame.depth_m > 0)
        points = unproject(np.where(measured, frame.depth_m, 0.0), frame.intrinsics_px)[measured]
        with_depth = len(points) >= _LEAST_POINTS
        poses = [seen.camera_from_object]
        covariances: list[FloatArray | None] = [None]
        if with_depth:
            poses += poses_with_depth(seen, there, self._reach * model.diameter_m, self._samples, self._seed)
            refined = refiner.refine(torch.from_numpy(points), torch.from_numpy(np.stack(poses)))
            poses = poses + list(refined.camera_from_object.cpu().numpy())
            covariances = [None] * (len(poses) - len(refined.covariance)) + list(refined.covariance.cpu().numpy())
        else:
            for pose, covariance in poses_without_depth(seen, there, self._reach_px, self._seed):
                poses.append(pose)
                covariances.append(covariance)
            if shown.any():
                poses = list(self._searched(frame, known, shown, np.stack(poses)))
                covariances = [None] * len(poses)  # those of PnP are of poses that have moved since
        kept = [k for k, p in enumerate(poses) if renderer.box(p, frame.intrinsics_px, height, width) is not None]
        if not kept or not (with_depth or shown.any()):
            return None
        stack = np.stack([poses[k] for k in kept])
        if with_depth:
            scores = verifier.score(frame.depth_m, shown if shown.any() else None, stack, frame.intrinsics_px)
        else:
            scores = self._looks_like(frame, known, shown, stack)
        order = np.argsort(-scores, kind="stable")
        first = int(order[0])
        rest = order[1 : 1 + self._others]
        return PoseEstimate(
            model.number, stack[first], float(scores[first]), covariances[kept[first]], stack[rest], scores[rest]
        )

    def _searched(self, frame: RgbdFrame, known: Known, mask: NDArray[np.bool_], poses: FloatArray) -> FloatArray:
        """Poses [N, 4, 4] moved to where outline and colours fit best: of a picture without depth. In their order."""
        middle = (known.model.low_m + known.model.high_m) / 2
        score_of = partial(self._looks_like, frame, known, mask)
        return searched(poses, middle, known.model.diameter_m, score_of, _ROUNDS, len(poses), _TRIED, self._seed)

    def _looks_like(self, frame: RgbdFrame, known: Known, mask: NDArray[np.bool_], poses: FloatArray) -> FloatArray:
        """How well outlines and colours fit, [N]."""
        nothing = np.zeros(frame.depth_m.shape, np.float32)
        return known.judge.score(frame.rgb, nothing, mask, poses, np.asarray(frame.intrinsics_px, np.float64))

    def _known_of(self, model: ObjectModel) -> Known:
        if model.number not in self._known:
            known = Known(model, _TOLERANCE, _FLOOR_M, _JUDGE_PX, self._points)
            self._known[model.number], self._verifiers[model.number] = known, Verifier(known.renderer)
        return self._known[model.number]


def _whole_mask(seen: Seen, there: NDArray[np.bool_], frame: RgbdFrame) -> NDArray[np.bool_]:
    """A mask of the crop's map in the whole picture, bool [H, W]."""
    import cv2

    height, width = frame.depth_m.shape
    view = halved(seen.view)
    fx, fy, cx, cy = np.asarray(frame.intrinsics_px, np.float64)
    v, u = np.mgrid[0:height, 0:width].astype(np.float64)
    ray = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1) @ view.crop_from_camera.T
    ahead = ray[..., 2] > 1e-6
    depth = np.where(ahead, ray[..., 2], 1.0)
    place = ray[..., :2] / depth[..., None] * view.intrinsics_px[:2] + view.intrinsics_px[2:]
    place = np.where(ahead[..., None], place, -1e6).astype(np.float32)
    back = cv2.remap(there.astype(np.uint8), place[..., 0], place[..., 1], cv2.INTER_NEAREST)
    return np.asarray(back, bool)


def _fitting(models: Mapping[int, ObjectModel], reader: CropReader) -> dict[int, ObjectModel]:
    """The meshes of the network's objects, checked against those of the training."""
    out = {}
    for index, number in enumerate(reader.numbers):
        if number not in models:
            raise SpecError("InstanceEstimator.models", f"the mesh of object {number}", f"{list(models)}", "Add it.")
        model = models[number]
        off = max(np.abs(model.low_m - reader.low_m[index]).max(), np.abs(model.high_m - reader.high_m[index]).max())
        span = float(np.linalg.norm(reader.high_m[index] - reader.low_m[index]))
        if off > _SAME * span:
            raise DataError(
                f"model of object {number}",
                f"the box {np.round(reader.low_m[index], 4)} to {np.round(reader.high_m[index], 4)} m of the training",
                f"{np.round(model.low_m, 4)} to {np.round(model.high_m, 4)} m",
                "Load the same mesh, in metres.",
            )
        out[number] = model
    return out


def _apart(found: list[PoseEstimate], diameter_m: float) -> list[PoseEstimate]:
    """Without those that are where a better one is."""
    out: list[PoseEstimate] = []
    for one in found:
        place = one.camera_from_object[:3, 3]
        if all(np.linalg.norm(place - other.camera_from_object[:3, 3]) > 0.5 * diameter_m for other in out):
            out.append(one)
    return out
