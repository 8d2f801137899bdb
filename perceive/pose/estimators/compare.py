"""CompareEstimator: the hypotheses of another estimator, refined and scored by a network that compares pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.build import TARGET, build
from perceive.loading import load_model
from perceive.model import PerceptionModel
from perceive.pose.estimate import PoseEstimate, PoseEstimator, check_view
from perceive.pose.estimators.compare_network import HypothesisReader
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.refine import ModelRefiner
from sensors.errors import SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, unproject

_LEAST_POINTS = 20  # measured pixels of an object below which its depth is not used
_REACH = 0.1  # of the depth of a drawn pose, in diameters, within which points are taken for the object's
CLASS = "class"  # key of the inner estimator's class in a mapping


@final
class CompareEstimator(PoseEstimator):
    """Render and compare (DeepIM: Li et al., ECCV 2018; CosyPose: Labbe et al., ECCV 2020; MegaPose: Labbe et al.,
    CoRL 2022) over the shared trunk.

    All hypotheses of another estimator are drawn, compared with the picture and changed, several times. Then each is
    judged: the answer is the one that is most likely right. This needs no depth, and no training with the object. With
    depth, poses are refined on the measured points too, and judged beside those that were not.

    Args:
        network: a trained model, or the folder of a checkpoint's model.
        inner: where hypotheses come from; or a mapping with its class' import path under ``class`` and its arguments,
            which is given the same models (and seed).
        models: the objects' meshes.
        iterations: changes of each hypothesis.
        hypotheses: of each answer of the inner estimator, at most.
        points: of the picture that poses are refined with where there is depth; 0 = they are not.
        least_score: what is found without a mask counts only if it is as likely right.
        others: further hypotheses in an answer.
        extent: width of a crop, in diameters; as in training.
        head: name of the network's head.
        seen: name of its sensor with what was seen.
        drawn: name of its sensor with the drawing.
        device: of the network.
        seed: for the inner estimator.

    Raises:
        SpecError: an object of the inner estimator without a mesh, or a setting out of its range.
        WiringError: the model has no such head or sensors, or ``inner`` is no estimator.
    """

    def __init__(
        self,
        network: PerceptionModel | str | Path,
        inner: PoseEstimator | Mapping[str, Any],
        models: Iterable[ObjectModel] | Mapping[int, ObjectModel],
        iterations: int = 4,
        hypotheses: int = 8,
        points: int = 512,
        least_score: float = 0.0,
        others: int = 4,
        extent: float = 1.4,
        head: str = "change",
        seen: str = "seen",
        drawn: str = "drawn",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        where = "CompareEstimator"
        if iterations < 0 or hypotheses < 1 or points < 0 or others < 0 or not 0 <= least_score <= 1:
            got = f"{iterations} iterations, {hypotheses} hypotheses, {points} points, {others} others, {least_score}"
            raise SpecError(where, "counts of 0 or more, 1 hypothesis or more, a score of 0 to 1", got, "Correct it.")
        listed = list(models.values() if isinstance(models, Mapping) else models)
        self._models = {model.number: model for model in listed}
        self._inner = inner if isinstance(inner, PoseEstimator) else _built(inner, self._models, seed)
        missing = [number for number in self._inner.numbers if number not in self._models]
        if missing:
            raise SpecError(f"{where}.models", f"meshes of {list(self._inner.numbers)}", f"none of {missing}", "Add.")
        model = network if isinstance(network, PerceptionModel) else load_model(network, device)
        if not isinstance(model, PerceptionModel):
            raise WiringError(where, "a PerceptionModel", type(model).__name__, "Load another.")
        self._reader = HypothesisReader(model, head, seen, drawn, extent)
        self._iterations, self._hypotheses, self._points = iterations, hypotheses, points
        self._least_score, self._others = least_score, others
        self._tools: dict[int, tuple[MeshRenderer, ModelRefiner]] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        return self._inner.numbers

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        check_view("CompareEstimator", frame, mask)
        if number not in self.numbers:
            raise SpecError("CompareEstimator", f"one of {list(self.numbers)}", f"{number}", "Give it its model.")
        found = []
        for one in self._inner.estimate(frame, number, mask, most):
            better = self._better(frame, one, mask)
            if mask is not None or better.score >= self._least_score:
                found.append(better)
        return sorted(found, key=lambda one: -one.score)

    def refine(self, frame: RgbdFrame, number: int, camera_from_object: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Hypotheses [N, 4, 4] after all iterations, by pictures alone, and how likely each is right, [N].

        Raises:
            DataError: the poses are not [N, 4, 4].
            SpecError: the object is not known.
        """
        if number not in self._models:
            raise SpecError("CompareEstimator", f"one of {list(self._models)}", f"{number}", "Give it its model.")
        renderer = self._tools_of(self._models[number])[0]
        poses = camera_from_object
        for _ in range(self._iterations):
            poses = self._reader.read(frame, renderer, poses)[0]
        return poses, self._reader.read(frame, renderer, poses)[1]

    def _better(self, frame: RgbdFrame, one: PoseEstimate, mask: NDArray[np.bool_] | None) -> PoseEstimate:
        renderer, refiner = self._tools_of(self._models[one.number])
        starts = np.concatenate([one.camera_from_object[None], one.others.reshape(-1, 4, 4)])[: self._hypotheses]
        poses, scores = self.refine(frame, one.number, starts)
        covariances: list[FloatArray | None] = [None] * len(poses)
        measured, sure = poses, scores
        # Without a mask the points are those where the drawn object is, so they are gathered anew from a better pose.
        for _ in range(1 if mask is not None else 2):
            points = self._points_of(frame, renderer, measured[int(np.argmax(sure))], mask)
            if not self._points or len(points) < _LEAST_POINTS:
                break
            refined = refiner.refine(torch.from_numpy(points), torch.from_numpy(measured))
            measured = refined.camera_from_object.cpu().numpy()
            sure = self._reader.read(frame, renderer, measured)[1]
            covariances = list(refined.covariance.cpu().numpy())
        if covariances[0] is not None:
            covariances = covariances + [None] * len(poses)
            poses, scores = np.concatenate([measured, poses]), np.concatenate([sure, scores])
        order = np.argsort(-scores, kind="stable")
        first, rest = int(order[0]), order[1 : 1 + self._others]
        return PoseEstimate(
            one.number, poses[first], float(scores[first]), covariances[first], poses[rest], scores[rest]
        )

    def _points_of(
        self, frame: RgbdFrame, renderer: MeshRenderer, pose: FloatArray, mask: NDArray[np.bool_] | None
    ) -> FloatArray:
        """Measured points [P, 3] of the mask; without one, those that are where the drawn object is."""
        depth = np.where(np.isfinite(frame.depth_m) & (frame.depth_m > 0), frame.depth_m, 0.0)
        if mask is None and depth.any():
            height, width = depth.shape
            box = renderer.box(pose, frame.intrinsics_px, height, width)
            mask = np.zeros(depth.shape, bool)
            if box is not None:
                left, top, right, bottom = box
                drawn = renderer.depth(pose, frame.intrinsics_px, box)[0]
                near = np.abs(drawn - depth[top:bottom, left:right]) < _REACH * renderer.model.diameter_m
                mask[top:bottom, left:right] = (drawn > 0) & near
        shown = depth > 0 if mask is None else mask & (depth > 0)
        return np.asarray(unproject(np.where(shown, depth, 0.0), frame.intrinsics_px)[shown], np.float64)

    def _tools_of(self, model: ObjectModel) -> tuple[MeshRenderer, ModelRefiner]:
        if model.number not in self._tools:
            self._tools[model.number] = (MeshRenderer(model), ModelRefiner(model, max(self._points, 1)))
        return self._tools[model.number]


def _built(inner: Mapping[str, Any], models: Mapping[int, ObjectModel], seed: int) -> PoseEstimator:
    if CLASS not in inner:
        raise WiringError("CompareEstimator.inner", f"an estimator, or '{CLASS}'", f"{sorted(inner)}", "Name a class.")
    plan = {TARGET if key == CLASS else key: value for key, value in inner.items()}
    made = build(plan, where="inner", offered={"models": models, "seed": seed})
    if not isinstance(made, PoseEstimator):
        raise WiringError("CompareEstimator.inner", "a PoseEstimator", type(made).__name__, "Name another class.")
    return made
