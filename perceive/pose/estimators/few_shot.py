"""FewShotEstimator: poses of objects of which there are only a few posed pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from perceive.loading import load_model
from perceive.model import PerceptionModel
from perceive.pose.crop import aim_at_mask
from perceive.pose.episode import scale_of
from perceive.pose.estimate import PoseEstimate, PoseEstimator, check_view
from perceive.pose.estimators.few_shot_views import Context, FewShotReader, check_settings, poses_of_all
from perceive.pose.estimators.instance_views import poses_without_depth, within
from perceive.pose.free_space import FreeSpaceJudge
from perceive.pose.model import ObjectModel
from perceive.pose.proposals import propose
from perceive.pose.raster import MeshRenderer
from perceive.pose.references import Reference, fuse
from perceive.pose.refine import ModelRefiner
from perceive.pose.templates.hypotheses import of_one_body, rough_covariance, searched
from perceive.pose.templates.judging import Judge
from sensors.errors import SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, invert, unproject

_LEAST_POINTS = 20  # measured pixels of an object below which its depth is not used
_TOLERANCE, _FLOOR_M, _JUDGE_PX = 0.02, 0.002, 40  # of the judge without depth, as TemplateEstimator has them
_BEHIND = 0.2  # of a diameter: the middle of an object is behind what is seen of it
_ROUNDS, _KEPT, _TRIED = 6, 6, 16  # of the search without depth
_SIZE_PX = 64  # of a crop that no network reads
_AGAIN = 3  # poses by which the network is told of the object anew
_GROUPS = {12: "T", 24: "O", 60: "I"}

Hypotheses = tuple[FloatArray, list[FloatArray | None]]  # [N, 4, 4] and their covariances


@final
class _Known:
    """What there is of one object."""

    def __init__(self, context: Context | None, references: Sequence[Reference], number: int, points: int) -> None:
        self.context, self.model = context, fuse(references, number)
        cloud = torch.from_numpy(np.concatenate([one.points() for one in references]))[None]
        scale = scale_of(cloud, torch.ones(1, cloud.shape[1], dtype=torch.bool))
        self.middle_m = np.asarray(scale.middle_m[0].numpy(), np.float64)
        self.diameter_m = 2 * float(scale.radius_m) if context is None else context.diameter_m
        self.refiner = ModelRefiner(self.model, points)
        self.judge = FreeSpaceJudge(references, self.diameter_m)
        self.blind = Judge(MeshRenderer(self.model), _TOLERANCE, _FLOOR_M, _JUDGE_PX)


@final
class _Query:
    """What is asked about: a picture, the mask of an object, and what was measured of it."""

    def __init__(self, frame: RgbdFrame, mask: NDArray[np.bool_], known: _Known, size_px: int, extent: float) -> None:
        self.view = aim_at_mask(frame, mask, known.diameter_m, size_px, extent)
        self.frame, self.mask, self.known = frame, mask, known
        self.camera = np.asarray(frame.intrinsics_px, np.float64)
        depth = np.where(np.isfinite(frame.depth_m) & (frame.depth_m > 0), frame.depth_m, 0.0).astype(np.float32)
        row, column = np.nonzero(mask & (depth > 0))
        self.points_m: FloatArray | None = None
        self.depth_m = np.zeros_like(depth)
        if len(row) >= _LEAST_POINTS:
            row, column = of_one_body(row, column, depth, known.diameter_m)
            self.points_m, self.depth_m = unproject(depth, frame.intrinsics_px)[row, column], depth

    def judged(self, poses: FloatArray) -> FloatArray:
        judge = self.known.blind if self.points_m is None else self.known.judge
        return judge.score(self.frame.rgb, self.depth_m, self.mask, poses, self.camera)

    def refined(self, poses: FloatArray, seed: int) -> Hypotheses:
        """Poses, and the same moved onto the points; without depth, to where they look most like the picture."""
        if self.points_m is None:
            best = poses[np.argsort(-self.judged(poses), kind="stable")]
            model = self.known.model
            middle = (model.low_m + model.high_m) / 2
            moved = searched(best, middle, model.diameter_m, self.judged, _ROUNDS, _KEPT, _TRIED, seed)
            return moved, [None] * len(moved)
        cloud, reach = torch.from_numpy(self.points_m), 0.1 * self.known.model.diameter_m
        found = self.known.refiner.refine(cloud, torch.from_numpy(poses), reach_m=reach)
        both = np.concatenate([poses, found.camera_from_object.cpu().numpy()])
        return both, [*[None] * len(poses), *found.covariance.cpu().numpy()]


@final
class FewShotEstimator(PoseEstimator):
    """Poses from a few references: no mesh, and no training for an object.

    The object is put where the mask is, in turns that cover all rotations. A network adds to them: dense coordinates
    that it reads off the references, told in such turns, give poses by RANSAC and Kabsch, without depth by PnP. It is a
    conditional neural process (Garnelo et al., ICML 2018; for poses: Li et al., 2022): the references are its context,
    a crop around the mask its query. All poses are refined on the surface that the references show together, by
    iterated closest points, and what agrees best with all that was seen, and seen through, is chosen
    (:class:`~perceive.pose.free_space.FreeSpaceJudge`). Without depth, poses are moved to where a rendering of that
    surface looks most like the picture, and the answer is rough.

    Args:
        references: of the objects, by their numbers; of more than the network takes it is told those that differ most.
        network: a trained model, or the folder of a checkpoint's model; None = there is none.
        extent: width of a crop, in diameters of what the references show; as in training.
        reference_extent: width of a reference.
        reach: of a match that counts, as a share of the diameter.
        reach_px: the same without depth, in pixels of the network's map.
        turns: that the object is put in: 12, 24 or 60, the rotations of a tetrahedron, a cube or an icosahedron, of
            which one is within 90, 63 or 45 degrees of any.
        told: the same of the turns that the network is first told of the object in.
        passes: how often the network is asked, told of the object as the best poses had it from the second time on.
        samples: poses by RANSAC for each answer from the second time on.
        points: of the picture that hypotheses are refined with.
        least_score: what is found without a mask counts if judging gives it this score; another object seldom has more.
        others: further hypotheses in an answer.
        head: name of the network's head.
        crop: name of its sensor with the crop.
        views: name of its sensor with the references.
        device: of the network.
        seed: of RANSAC.

    Attributes:
        models: the fused surfaces, by number.

    Raises:
        DataError: an object without references, or whose references show no surface.
        SpecError: no object, or a setting out of its range.
        WiringError: the model has no such head or sensors.
    """

    def __init__(
        self,
        references: Mapping[int, Sequence[Reference]],
        network: PerceptionModel | str | Path | None = None,
        extent: float = 1.4,
        reference_extent: float = 1.2,
        reach: float = 0.1,
        reach_px: float = 2.0,
        turns: int = 60,
        told: int = 12,
        passes: int = 2,
        samples: int = 3,
        points: int = 512,
        least_score: float = 0.6,
        others: int = 4,
        head: str = "coordinates",
        crop: str = "crop",
        views: str = "references",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        check_settings((passes, samples, points, others + 1), (extent, reference_extent, reach, reach_px))
        if turns not in _GROUPS or told not in _GROUPS:
            got = f"turns {turns}, told {told}"
            raise SpecError("FewShotEstimator", f"turns and told out of {sorted(_GROUPS)}", got, "Take one of these.")
        if not references:
            raise SpecError("FewShotEstimator.references", "at least one object", "none", "Pass {number: references}.")
        self._reader: FewShotReader | None = None
        if network is not None:
            model = network if isinstance(network, PerceptionModel) else load_model(network, device)
            if not isinstance(model, PerceptionModel):
                raise WiringError("FewShotEstimator", "a PerceptionModel", type(model).__name__, "Load another.")
            self._reader = FewShotReader(model, head, crop, views, reference_extent)
        self._known = {
            number: _Known(None if self._reader is None else self._reader.context(given), given, number, points)
            for number, given in references.items()
        }
        self.models: dict[int, ObjectModel] = {number: known.model for number, known in self._known.items()}
        self._turns, self._told = (Rotation.create_group(_GROUPS[count]).as_matrix() for count in (turns, told))
        self._size_px = _SIZE_PX if self._reader is None else self._reader.size_px
        self._extent, self._reach, self._reach_px = extent, reach, reach_px
        self._passes = passes
        self._samples, self._least_score, self._others, self._seed = samples, least_score, others, seed

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._known)

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        """See :class:`~perceive.pose.estimate.PoseEstimator`.

        Raises:
            SpecError: an object without references; neither mask nor depth.
        """
        where = "FewShotEstimator"
        check_view(where, frame, mask)
        if number not in self._known:
            raise SpecError(where, f"one of the objects {list(self.numbers)}", f"{number}", "Give it references.")
        known = self._known[number]
        deep = bool((np.isfinite(frame.depth_m) & (frame.depth_m > 0)).any())
        if mask is not None:
            return [self._one(self._query(frame, mask, known))]
        if not deep:
            raise SpecError(where, "a mask, or depth to find things by", "neither", "Pass the object's mask.")
        parts = propose(frame, largest_m=2 * known.diameter_m)
        found = [self._one(self._query(frame, part, known)) for part in parts]
        return sorted((one for one in found if one.score >= self._least_score), key=lambda one: -one.score)[:most]

    def _query(self, frame: RgbdFrame, mask: NDArray[np.bool_], known: _Known) -> _Query:
        return _Query(frame, mask, known, self._size_px, self._extent)

    def _one(self, query: _Query) -> PoseEstimate:
        """The best pose of what a mask shows."""
        poses, covariances, scores = np.zeros((0, 4, 4)), list[FloatArray | None](), np.zeros(0)
        for k in range(1 if self._reader is None else self._passes):
            # Told of the object as the best poses have it before the camera, the network has less of a turn to find.
            best = poses[np.argsort(-scores, kind="stable")[:_AGAIN]]
            turns = query.view.crop_from_camera @ best[:, :3, :3] if len(best) else self._told
            new = self._read(query, turns, self._samples if k else 1)
            if not k:
                new = np.concatenate([self._turned(query), new])
            if len(new):
                both, known_of = query.refined(new, self._seed)
                poses, covariances = np.concatenate([poses, both]), covariances + known_of
                scores = np.append(scores, query.judged(both))
        order = np.argsort(-scores, kind="stable")
        first, rest = int(order[0]), order[1 : 1 + self._others]
        covariance, model = covariances[first], query.known.model
        if covariance is None:  # of a pose that refining did not make better
            covariance = rough_covariance(poses[first], model.diameter_m)
        return PoseEstimate(model.number, poses[first], float(scores[first]), covariance, poses[rest], scores[rest])

    def _turned(self, query: _Query) -> FloatArray:
        """The object in all turns where its points were measured, or as far away as it would fill the mask's box."""
        known = query.known
        seen = invert(query.view.frame_from_camera)[:3, 3] if query.points_m is None else np.median(query.points_m, 0)
        out = np.tile(np.eye(4), (len(self._turns), 1, 1))
        out[:, :3, :3] = query.view.crop_from_camera.T @ self._turns
        middle = seen * (1 + _BEHIND * known.diameter_m / float(np.linalg.norm(seen)))
        out[:, :3, 3] = middle - out[:, :3, :3] @ known.middle_m
        return out

    def _read(self, query: _Query, turns: FloatArray, samples: int) -> FloatArray:
        """Poses [N, 4, 4] as the network has them, told of the object in some turns before the crop's camera."""
        if self._reader is None:
            return np.zeros((0, 4, 4))
        assert query.known.context is not None
        said = self._reader.read(query.frame, query.known.context, query.view, turns)
        there = [within(seen, query.frame, query.mask) for seen in said]
        if query.points_m is not None:
            return poses_of_all(said, there, self._reach * query.known.diameter_m, samples, self._seed)
        found = [
            poses_without_depth(one, use, self._reach_px, self._seed) for one, use in zip(said, there, strict=True)
        ]
        return np.stack([pose for some in found for pose, _ in some]) if any(found) else np.zeros((0, 4, 4))
