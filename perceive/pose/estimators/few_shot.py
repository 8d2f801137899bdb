"""FewShotEstimator: poses of objects of which there are only a few posed pictures, by a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.loading import load_model
from perceive.model import PerceptionModel
from perceive.pose.crop import CropView, aim_at_mask
from perceive.pose.estimate import PoseEstimate, PoseEstimator, check_view
from perceive.pose.estimators.few_shot_views import Context, FewShotReader, check_settings
from perceive.pose.estimators.instance_views import poses_with_depth, poses_without_depth, within
from perceive.pose.model import ObjectModel
from perceive.pose.proposals import propose
from perceive.pose.raster import MeshRenderer
from perceive.pose.references import Reference, fuse
from perceive.pose.refine import ModelRefiner
from perceive.pose.verify import Verifier
from sensors.errors import SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, unproject

_LEAST_POINTS = 20  # measured pixels of an object below which its depth is not used
_AGAIN = 3  # poses by which the network is told of the object anew


@final
class _Known:
    """What there is of one object."""

    def __init__(self, context: Context, model: ObjectModel, points: int) -> None:
        self.context, self.model = context, model
        self.renderer = MeshRenderer(model)
        self.refiner = ModelRefiner(model, points)
        self.verifier = Verifier(self.renderer)


@final
class FewShotEstimator(PoseEstimator):
    """Poses by dense coordinates that a network reads off a few references: no mesh, and no training for an object.

    The network is a conditional neural process (Garnelo et al., ICML 2018; for poses: Li et al., 2022): the references
    are its context, a crop around the mask its query. Measured points and their coordinates give poses by RANSAC and
    Kabsch, without depth by PnP. These are refined on the surface that the references show together, by iterated
    closest points, and what agrees best with the picture's depth is chosen.

    Args:
        network: a trained model, or the folder of a checkpoint's model.
        references: of the objects, by their numbers; of more than the network takes those that differ most.
        extent: width of a crop, in diameters of what the references show; as in training.
        reference_extent: width of a reference.
        reach: of a match that counts, as a share of the diameter.
        reach_px: the same without depth, in pixels of the network's map.
        turns: object frames in which the network is told of an object; each gives poses.
        passes: how often the network is asked, told of the object as the best poses had it from the second time on.
        samples: poses by RANSAC for each.
        points: of the picture that hypotheses are refined with.
        least_score: what is found without a mask counts if comparing gives it this score.
        others: further hypotheses in an answer.
        head: name of the network's head.
        crop: name of its sensor with the crop.
        views: name of its sensor with the references.
        device: of the network.
        seed: of RANSAC and of the object frames.

    Attributes:
        models: the fused surfaces, by number.

    Raises:
        DataError: an object without references, or whose references show no surface.
        SpecError: no object, or a setting out of its range.
        WiringError: the model has no such head or sensors.
    """

    def __init__(
        self,
        network: PerceptionModel | str | Path,
        references: Mapping[int, Sequence[Reference]],
        extent: float = 1.4,
        reference_extent: float = 1.2,
        reach: float = 0.1,
        reach_px: float = 2.0,
        turns: int = 6,
        passes: int = 2,
        samples: int = 3,
        points: int = 512,
        least_score: float = 0.4,
        others: int = 4,
        head: str = "coordinates",
        crop: str = "crop",
        views: str = "references",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        check_settings((turns, passes, samples, points, others + 1), (extent, reference_extent, reach, reach_px))
        if not references:
            raise SpecError("FewShotEstimator.references", "at least one object", "none", "Pass {number: references}.")
        model = network if isinstance(network, PerceptionModel) else load_model(network, device)
        if not isinstance(model, PerceptionModel):
            raise WiringError("FewShotEstimator", "a PerceptionModel", type(model).__name__, "Load another.")
        self._reader = FewShotReader(model, head, crop, views, reference_extent, turns, seed)
        self.models = {number: fuse(given, number) for number, given in references.items()}
        self._known = {
            number: _Known(self._reader.context(given), self.models[number], points)
            for number, given in references.items()
        }
        self._extent, self._reach, self._reach_px = extent, reach, reach_px
        self._passes = passes
        self._samples, self._least_score, self._others, self._seed = samples, least_score, others, seed

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._known)

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        where = "FewShotEstimator"
        check_view(where, frame, mask)
        if number not in self._known:
            raise SpecError(where, f"one of the objects {list(self.numbers)}", f"{number}", "Give it references.")
        known = self._known[number]
        if mask is not None:
            one = self._one(frame, known, mask)
            return [] if one is None else [one]
        if not (np.isfinite(frame.depth_m) & (frame.depth_m > 0)).any():
            raise SpecError(where, "a mask, or depth to find things by", "neither", "Pass the object's mask.")
        parts = propose(frame, largest_m=2 * known.context.diameter_m)
        found = [one for part in parts if (one := self._one(frame, known, part)) is not None]
        return sorted((one for one in found if one.score >= self._least_score), key=lambda one: -one.score)[:most]

    def _one(self, frame: RgbdFrame, known: _Known, mask: NDArray[np.bool_]) -> PoseEstimate | None:
        """The best pose of what a mask shows; None = there is none."""
        diameter = known.context.diameter_m
        view = aim_at_mask(frame, mask, diameter, self._reader.size_px, self._extent)
        measured = mask & np.isfinite(frame.depth_m) & (frame.depth_m > 0)
        points = unproject(np.where(measured, frame.depth_m, 0.0), frame.intrinsics_px)[measured]
        with_depth = len(points) >= _LEAST_POINTS
        poses: list[FloatArray] = []
        covariances: list[FloatArray | None] = []
        scores = np.zeros(0)
        depth = frame.depth_m if with_depth else np.zeros_like(frame.depth_m)
        turns: FloatArray | None = None
        for _ in range(self._passes):
            new, known_of = self._hypotheses(frame, known, view, mask, turns, points if with_depth else None)
            if new:
                poses, covariances = poses + new, covariances + known_of
                scores = np.append(scores, known.verifier.score(depth, mask, np.stack(new), frame.intrinsics_px))
            if not poses:
                return None
            # Told of the object as the best poses have it before the camera, the network has less of a turn to find.
            best = np.argsort(-scores, kind="stable")[:_AGAIN]
            turns = np.stack([view.crop_from_camera @ poses[int(k)][:3, :3] for k in best])
        stack = np.stack(poses)
        order = np.argsort(-scores, kind="stable")
        first, rest = int(order[0]), order[1 : 1 + self._others]
        return PoseEstimate(
            known.model.number, stack[first], float(scores[first]), covariances[first], stack[rest], scores[rest]
        )

    def _hypotheses(
        self,
        frame: RgbdFrame,
        known: _Known,
        view: CropView,
        mask: NDArray[np.bool_],
        turns: FloatArray | None,
        points_m: FloatArray | None,
    ) -> tuple[list[FloatArray], list[FloatArray | None]]:
        """Poses with their covariances, as the network has them and refined on the measured points."""
        diameter = known.context.diameter_m
        poses: list[FloatArray] = []
        covariances: list[FloatArray | None] = []
        for seen in self._reader.read(frame, known.context, view, turns):
            there = within(seen, frame, mask)
            if points_m is not None:
                found = poses_with_depth(seen, there, self._reach * diameter, self._samples, self._seed)
                poses += found
                covariances += [None] * len(found)
            else:
                for pose, covariance in poses_without_depth(seen, there, self._reach_px, self._seed):
                    poses.append(pose)
                    covariances.append(covariance)
        if points_m is not None and poses:
            cloud, start = torch.from_numpy(points_m), torch.from_numpy(np.stack(poses))
            refined = known.refiner.refine(cloud, start, reach_m=0.1 * known.model.diameter_m)
            poses = poses + list(refined.camera_from_object.cpu().numpy())
            covariances = covariances + list(refined.covariance.cpu().numpy())
        return poses, covariances
