"""ClassicEstimator: FPFH, RANSAC and ICP of Open3D, the baseline that the others are measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.points.preprocess.engine import open3d, points_of
from perceive.pose.estimate import PoseEstimate, PoseEstimator, check_view
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.verify import Verifier
from sensors.errors import SpecError, nearest
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, invert, unproject

_SAMPLES = 20000  # points of a model before thinning
_LEAST_POINTS = 30  # seen points, after thinning, with which matching features makes sense
_SAME = 0.1  # of the diameter: poses whose points differ by less are one hypothesis


@dataclass(frozen=True, eq=False)
class _Known:
    model: ObjectModel
    verifier: Verifier
    voxel_m: float
    cloud: Any
    feature: Any


@final
class ClassicEstimator(PoseEstimator):
    """Geometry alone, nothing learned: no colours are looked at.

    The masked depth is thinned to a grid of a share of the object's diameter; fast point feature histograms (Rusu,
    Blodow and Beetz, ICRA 2009) are matched with those of the whole model, RANSAC finds the rigid transform, several
    times from different seeds, point-to-plane ICP refines each, and the verifier picks the best. Features, RANSAC and
    ICP are Open3D's.

    Args:
        models: by number.
        voxel: the grid's edge as a share of the diameter.
        restarts: RANSAC runs per instance.
        iterations: of one run, at most.
        seed: of the runs.

    Raises:
        SpecError: no model, or a number out of its range.
        WiringError: Open3D does not load.
    """

    def __init__(
        self,
        models: Mapping[int, ObjectModel],
        voxel: float = 0.04,
        restarts: int = 6,
        iterations: int = 20000,
        seed: int = 0,
    ) -> None:
        if not models or not 0.005 <= voxel <= 0.2 or restarts < 1 or iterations < 1:
            raise SpecError(
                "ClassicEstimator",
                "models, voxel in 0.005 to 0.2, restarts and iterations >= 1",
                f"{len(models)} models, {voxel}, {restarts}, {iterations}",
                "Correct it.",
            )
        self._voxel, self._restarts, self._iterations, self._seed = voxel, restarts, iterations, seed
        self._known = {number: self._prepare(model) for number, model in sorted(models.items())}

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._known)

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        if number not in self._known:
            raise SpecError(
                "ClassicEstimator",
                f"an object of {list(self._known)}",
                str(number),
                nearest(str(number), (str(one) for one in self._known)),
            )
        check_view("ClassicEstimator", frame, mask)
        if not (np.isfinite(frame.depth_m) & (frame.depth_m > 0)).any():
            raise SpecError("ClassicEstimator", "depth", "none at any pixel", "Use an estimator that works on colours.")
        if mask is not None:
            found = self._instance(frame, self._known[number], mask)
            return [] if found is None else [found]
        from perceive.pose.proposals import propose  # only where no mask is given

        every = [self._instance(frame, self._known[number], one) for one in propose(frame)]
        return sorted((one for one in every if one is not None), key=lambda one: -one.score)[:most]

    def _prepare(self, model: ObjectModel) -> _Known:
        surface = model.surface(_SAMPLES)
        voxel = self._voxel * model.diameter_m
        with open3d() as module:
            cloud = points_of(module, surface.xyz_m)
            cloud.normals = module.utility.Vector3dVector(surface.normal)
            cloud = cloud.voxel_down_sample(voxel)
            feature = self._feature(module, cloud, voxel)
        return _Known(model, Verifier(MeshRenderer(model)), voxel, cloud, feature)

    def _feature(self, module: Any, cloud: Any, voxel_m: float) -> Any:
        around = module.geometry.KDTreeSearchParamHybrid(radius=5 * voxel_m, max_nn=100)
        return module.pipelines.registration.compute_fpfh_feature(cloud, around)

    def _instance(self, frame: RgbdFrame, known: _Known, mask: NDArray[np.bool_]) -> PoseEstimate | None:
        """The pose behind one mask; None = too little is seen of it."""
        depth = np.where(np.isfinite(frame.depth_m) & (frame.depth_m > 0) & mask, frame.depth_m, 0.0)
        points = unproject(depth, frame.intrinsics_px)[depth > 0]
        # What lies farther from the middle than the object is long is not the object.
        middle = np.median(points, axis=0) if len(points) else np.zeros(3)
        points = points[np.linalg.norm(points - middle, axis=1) <= known.model.diameter_m]
        poses = self._search(known, points)
        if not len(poses):
            return None
        scores = known.verifier.score(frame.depth_m, mask, poses, frame.intrinsics_px)
        order = _distinct(poses, np.argsort(-scores, kind="stable"), known.model)
        best, rest = order[0], order[1:]
        return PoseEstimate(
            known.model.number, poses[best], float(scores[best]), None, poses[rest], np.asarray(scores[rest])
        )

    def _search(self, known: _Known, points_m: FloatArray) -> FloatArray:
        """camera_from_object [K, 4, 4], one for each restart that found something."""
        found: list[FloatArray] = []
        with open3d() as module:
            tools = module.pipelines.registration
            seen = points_of(module, points_m).voxel_down_sample(known.voxel_m)
            if len(seen.points) < _LEAST_POINTS:
                return np.zeros((0, 4, 4))
            seen.estimate_normals(module.geometry.KDTreeSearchParamHybrid(radius=2.5 * known.voxel_m, max_nn=30))
            seen.orient_normals_towards_camera_location(np.zeros(3))
            feature = self._feature(module, seen, known.voxel_m)
            near = 1.5 * known.voxel_m
            checks = [
                tools.CorrespondenceCheckerBasedOnEdgeLength(0.9),
                tools.CorrespondenceCheckerBasedOnDistance(near),
            ]
            for restart in range(self._restarts):
                module.utility.random.seed(self._seed + restart)
                # What is seen is a part of the model, so each of its points has a partner there; not the reverse.
                rough = tools.registration_ransac_based_on_feature_matching(
                    seen, known.cloud, feature, known.feature, restart % 2 == 1, near,
                    tools.TransformationEstimationPointToPoint(), 3, checks,
                    tools.RANSACConvergenceCriteria(self._iterations, 0.999),
                )  # fmt: skip
                if not rough.correspondence_set:
                    continue
                pose = np.asarray(rough.transformation)
                for reach in (near, 0.5 * near):
                    fine = tools.registration_icp(
                        seen, known.cloud, reach, pose, tools.TransformationEstimationPointToPlane(),
                        tools.ICPConvergenceCriteria(1e-7, 1e-7, 50),
                    )  # fmt: skip
                    pose = np.asarray(fine.transformation)
                if np.isfinite(pose).all():
                    found.append(invert(pose))
        return np.stack(found) if found else np.zeros((0, 4, 4))


def _distinct(poses: FloatArray, order: Sequence[int] | NDArray[np.int64], model: ObjectModel) -> list[int]:
    """The order without poses that place the model like a better one."""
    point = model.surface(64).xyz_m
    placed = point @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]
    kept: list[int] = []
    for one in order:
        apart = [float(np.linalg.norm(placed[one] - placed[other], axis=1).max()) for other in kept]
        if not apart or min(apart) > _SAME * model.diameter_m:
            kept.append(int(one))
    return kept
