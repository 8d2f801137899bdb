"""TemplateEstimator: poses of objects of which there is nothing but a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.pose.estimate import PoseEstimate, PoseEstimator, check_view
from perceive.pose.model import ObjectModel
from perceive.pose.proposals_object import object_proposals
from perceive.pose.templates.correspondence import poses_of_pixels, poses_of_points
from perceive.pose.templates.crops import SightCamera, cut, round_side
from perceive.pose.templates.features import PatchFeatures, SurfaceFeatures
from perceive.pose.templates.hypotheses import apart, different, of_one_body, rough_covariance, searched, thinned
from perceive.pose.templates.matching import Cells, best_poses, by_cells, compare, mutual_matches
from perceive.pose.templates.scene import Known, Scene
from perceive.pose.templates.settle import LEAST_DEPTH, settle_alone
from perceive.pose.templates.store import (
    METRIC_SIDE,
    Kind,
    Templates,
    fingerprint,
    load_templates,
    make_templates,
    save_templates,
)
from sensors.errors import SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

_MATCHED = 8  # templates whose cells are matched
_SHARE = 0.4  # of the hypotheses, for a proposal that is one of several
_ALONE = 4  # of the hypotheses of a proposal, that are judged without its mask
_ROUNDS, _KEPT, _TRIED = 6, 6, 16  # of the search without depth


@final
class TemplateEstimator(PoseEstimator):
    """Poses of objects that nothing was trained on, from templates rendered once.

    What is seen is cut out, turned and shifted, and compared with pictures of the mesh from all sides (the templates
    of CNOS, Nguyen et al., ICCVW 2023; MegaPose, Labbe et al., CoRL 2022; GigaPose, Nguyen et al., CVPR 2024). The best
    that differ give poses; features that are too slow to turn the query (a backbone's) are matched cell by cell with
    turned templates, which gives poses by RANSAC with depth and by PnP without (FoundPose, Ornek et al., ECCV 2024).
    With depth all hypotheses are refined at once; rendering and comparing chooses among them. Without depth nothing is
    refined and the answer is rough, the more so along the line of sight.

    Args:
        models: the objects by their numbers.
        features: None = :class:`SurfaceFeatures`, which need no weights.
        views: directions that templates are rendered from.
        turns: in the picture plane for each of them.
        hypotheses: how many poses are refined.
        shifts: steps to either side by which cut-outs are shifted, as a part of the object may be hidden.
        shift: size of a step, as a share of the diameter.
        points: of the picture that hypotheses are refined with.
        tolerance: depth difference, as a share of the diameter, that counts half in the judgement.
        floor_m: the same at least.
        judge_px: size of the object in the pictures that are judged.
        least_score: what is found without a mask and judged below this is not the object; what is half hidden cannot
            score much above a half.
        rough: proposals of a picture without a mask that are compared with the templates.
        tried: the likeliest of them, that are refined.
        sure: a score without a mask at which nothing more is tried.
        others: further hypotheses in an answer.
        folder: where templates are kept between runs; None = in memory only.
        seed: of the points and of RANSAC.

    Raises:
        SpecError: no object, one under another's number, or a setting out of its range.
    """

    def __init__(
        self,
        models: Mapping[int, ObjectModel],
        features: PatchFeatures | None = None,
        views: int = 162,
        turns: int = 24,
        hypotheses: int = 64,
        shifts: int = 1,
        shift: float = 0.15,
        points: int = 256,
        tolerance: float = 0.02,
        floor_m: float = 0.002,
        judge_px: int = 40,
        least_score: float = 0.3,
        rough: int = 12,
        tried: int = 4,
        sure: float = 0.85,
        others: int = 8,
        folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self._models = dict(models)
        if not models or any(number != model.number for number, model in models.items()):
            raise SpecError(
                "TemplateEstimator.models",
                "objects by their numbers",
                str({number: model.number for number, model in models.items()}),
                "Pass {model.number: model}.",
            )
        numbers = (views, turns, hypotheses, points, judge_px, rough, tried)
        if min(numbers) < 1 or shifts < 0 or others < 0 or not (shift > 0 and tolerance > 0 and floor_m >= 0):
            raise SpecError(
                "TemplateEstimator", "counts of at least 1, and sizes above 0",
                f"{numbers}, shifts {shifts} of {shift}, others {others}, tolerance {tolerance}, {floor_m} m",
                "Correct it.",
            )  # fmt: skip
        self._features = SurfaceFeatures() if features is None else features
        self._views, self._turns, self._hypotheses = views, turns, hypotheses
        self._shifts, self._shift, self._points = shifts, shift, points
        self._tolerance, self._floor_m, self._judge_px = tolerance, floor_m, judge_px
        self._least_score, self._others, self._seed = least_score, others, seed
        self._rough, self._tried, self._sure = rough, tried, sure
        self._last: Scene | None = None
        self._folder = None if folder is None else Path(folder)
        self._known: dict[int, Known] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._models)

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        where = "TemplateEstimator"
        check_view(where, frame, mask)
        if number not in self._models:
            raise SpecError(where, f"one of the objects {list(self._models)}", str(number), "Give it its model.")
        known = self._of(number)
        if mask is not None:
            return self._one(frame, known, mask)
        if not (np.isfinite(frame.depth_m) & (frame.depth_m > 0)).any():
            raise SpecError(
                where, "a mask, or depth to find the object by", "neither", "Pass the mask of one instance."
            )
        found = [one for one in self._alone(frame, known, most) if one.score >= self._least_score]
        return found[:most]

    def prepare(self, number: int | None = None, depth: bool = True) -> None:
        """Render (or read) templates now rather than at the first picture.

        Args:
            number: of the object; None = all.
            depth: for pictures with depth, or for those without.
        """
        for one in self._models if number is None else (number,):
            self._templates(self._of(one), "metric" if depth and self._features.turns_query else "round")

    def _of(self, number: int) -> Known:
        if number not in self._known:
            self._known[number] = Known(
                self._models[number], self._tolerance, self._floor_m, self._judge_px, 4 * self._points
            )
        return self._known[number]

    def _templates(self, known: Known, kind: Kind) -> Templates:
        if kind in known.templates:
            return known.templates[kind]
        turns = 1 if self._features.turns_query else self._turns
        mark = fingerprint(known.model, self._features, kind, self._views, turns)
        path = None if self._folder is None else self._folder / f"{known.model.number:06d}_{kind}.npz"
        made = load_templates(path, mark) if path is not None and path.exists() else None
        if made is None:
            made = make_templates(known.renderer, self._features, kind, self._views, turns)
            if path is not None:
                save_templates(path, made, mark)
        known.templates[kind] = made
        return made

    def _one(self, frame: RgbdFrame, known: Known, mask: NDArray[np.bool_], share: float = 1.0) -> list[PoseEstimate]:
        """The estimate of the instance that a mask shows, from a share of the hypotheses."""
        camera = np.asarray(frame.intrinsics_px, np.float64)
        depth = np.where(np.isfinite(frame.depth_m) & (frame.depth_m > 0), frame.depth_m, 0).astype(np.float32)
        row, column = np.nonzero(mask & (depth > 0))
        deep = len(row) >= LEAST_DEPTH
        if deep:
            row, column = of_one_body(row, column, depth, known.model.diameter_m)
        poses, _ = self._starts(frame, depth, mask, camera, known, deep, self._shifts)
        poses = poses[: max(1, round(share * len(poses)))]
        if not len(poses):
            return []
        covariance: FloatArray | None = None
        if deep:
            points = thinned(row, column, depth, camera, self._points, self._seed)
            cloud = torch.from_numpy(points)
            # From a rough pose the nearest point is often a wrong one: reach far at first.
            reach = 0.1 * known.model.diameter_m
            refined = known.refiner.refine(cloud, torch.from_numpy(poses), reach_m=reach)
            poses, covariance = refined.camera_from_object.numpy(), refined.covariance.numpy()
        else:
            poses = self._searched(frame, depth, mask, camera, known, poses)
        return self._best(known, poses, known.judge.score(frame.rgb, depth, mask, poses, camera), covariance)

    def _best(
        self, known: Known, poses: FloatArray, score: FloatArray, covariance: FloatArray | None
    ) -> list[PoseEstimate]:
        """The estimate with the highest score, and what differs from it."""
        diameter = known.model.diameter_m
        order = np.argsort(-score, kind="stable")
        middle = (known.model.low_m + known.model.high_m) / 2
        order = order[different(poses[order], middle, diameter)][: self._others + 1]
        best = int(order[0])
        return [
            PoseEstimate(
                known.model.number,
                poses[best],
                float(score[best]),
                rough_covariance(poses[best], diameter) if covariance is None else covariance[best],
                poses[order[1:]],
                score[order[1:]],
            )
        ]

    def _alone(self, frame: RgbdFrame, known: Known, most: int) -> list[PoseEstimate]:
        """Estimates without a mask, best first: rough proposals, whose hypotheses then say their own masks."""
        scene = self._scene_of(frame)
        model, camera = known.model, np.asarray(frame.intrinsics_px, np.float64)
        proposals = object_proposals(scene.patches, known.palette, model.diameter_m, known.silhouette_m2, self._rough)
        rough = []
        for part in proposals:
            poses, score = self._starts(frame, scene.depth_m, part.mask, camera, known, True, 0)
            if len(poses):
                rough.append((part.score**0.5 * float(score[0]), part.mask))
        rough.sort(key=lambda pair: -pair[0])
        found: list[PoseEstimate] = []
        for _, mask in rough[: self._tried + most - 1]:
            for one in self._one(frame, known, mask, _SHARE):
                found.append(self._again(scene, frame.rgb, known, one, camera))
            if most == 1 and found and found[-1].score > self._sure:
                break
        found.sort(key=lambda one: -one.score)
        return apart(found, model)

    def _again(
        self, scene: Scene, rgb: NDArray[np.uint8], known: Known, one: PoseEstimate, camera: FloatArray
    ) -> PoseEstimate:
        """An estimate refined and judged by what its hypotheses themselves say they explain."""
        poses = np.concatenate([one.camera_from_object[None], one.others])[:_ALONE]
        first = one.covariance
        if first is None:
            first = rough_covariance(one.camera_from_object, known.model.diameter_m)
        given = np.tile(first, (len(poses), 1, 1))
        poses, score, covariance = settle_alone(scene, rgb, known, poses, given, camera, 4 * self._points, self._seed)
        return self._best(known, poses, score, covariance)[0]

    def _scene_of(self, frame: RgbdFrame) -> Scene:
        """What there is in a picture; the last one is kept, as several objects are asked for in each."""
        if self._last is None or not self._last.shows(frame):
            self._last = Scene(frame)
        return self._last

    def _starts(
        self,
        frame: RgbdFrame,
        depth_m: NDArray[np.float32],
        mask: NDArray[np.bool_],
        intrinsics_px: FloatArray,
        known: Known,
        deep: bool,
        shifts_aside: int,
    ) -> tuple[FloatArray, FloatArray]:
        """Hypotheses [K, 4, 4], and scores of those among them that are templates', best first."""
        turned, diameter = self._features.turns_query, known.model.diameter_m
        u, v, side = round_side(mask, intrinsics_px)
        # The middle of an object is behind what is seen of it.
        reference = float(np.median(depth_m[mask & (depth_m > 0)])) + 0.2 * diameter if deep else 1.0
        metric = deep and turned
        shifts = np.zeros((1, 2))
        if metric:
            side = METRIC_SIDE * diameter / reference
            step = np.arange(-shifts_aside, shifts_aside + 1) * self._shift * diameter / reference
            shifts = np.stack(np.meshgrid(step, step), -1).reshape(-1, 2)
        camera = SightCamera.towards(u, v, intrinsics_px, reference, side)
        turns = self._turns if turned else 1
        crops = cut(
            frame.rgb, depth_m if deep else np.zeros_like(depth_m), mask, intrinsics_px, camera, turns, shifts,
            self._features.pixels,
        )  # fmt: skip
        query = by_cells(crops, self._features)
        templates = self._templates(known, "metric" if metric else "round")
        score, behind = compare(query, templates, diameter)
        apart = 0.8 * min(np.sqrt(4 * np.pi / self._views), 2 * np.pi / self._turns)
        poses, which, best = best_poses(score, behind, templates, camera, turns, shifts, self._hypotheses, apart)
        if turned:
            return poses, best
        matched = self._matched(query, templates, which[:_MATCHED], camera, deep, diameter)
        return np.concatenate([matched, poses]), best

    def _searched(
        self,
        frame: RgbdFrame,
        depth_m: NDArray[np.float32],
        mask: NDArray[np.bool_],
        intrinsics_px: FloatArray,
        known: Known,
        poses: FloatArray,
    ) -> FloatArray:
        """Hypotheses of a picture without depth: the best first, moved to where they look most like it."""

        def score_of(some: FloatArray) -> FloatArray:
            return known.judge.score(frame.rgb, depth_m, mask, some, intrinsics_px)

        poses = poses[np.argsort(-score_of(poses), kind="stable")]
        middle = (known.model.low_m + known.model.high_m) / 2
        return searched(poses, middle, known.model.diameter_m, score_of, _ROUNDS, _KEPT, _TRIED, self._seed)

    def _matched(
        self,
        query: Cells,
        templates: Templates,
        which: NDArray[np.int64],
        camera: SightCamera,
        deep: bool,
        diameter_m: float,
    ) -> FloatArray:
        """Hypotheses from matches of cells."""
        matches = mutual_matches(query, templates, which, camera.side)
        if deep:
            return poses_of_points(matches, camera, 0.08 * diameter_m, self._seed)
        return poses_of_pixels(matches, camera, self._features.cells, self._seed)
