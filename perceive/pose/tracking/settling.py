"""From starts to a judged pose: draw the object, fit the drawing, draw it again, fit again, judge."""

from __future__ import annotations

from functools import partial
from typing import final

import numpy as np

from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.tracking.fit import DepthView, Fitted, fit
from perceive.pose.tracking.side import Side, see
from perceive.pose.tracking.turn import compare_turns, turn_spread
from perceive.pose.tracking.verdict import Limits, Verdict, judge
from sensors.geometry import FloatArray

_COARSE, _FINE = (1.0, 0.7, 0.5), (0.5, 0.35, 0.25)  # reaches, as shares of reach_m
_WIDE = 3  # how many of many starts are fitted to the end

Pose = tuple[FloatArray, FloatArray, Verdict]  # camera_from_object, covariance, what is said of it


@final
class Settling:
    """Settles one object into depth pictures.

    Args:
        model: the object.
        reach_m: how far a measurement may be from a start and still count.
        noise_m: standard deviation of depth at one metre.
        points: how many points of the surface are compared.
        rim: how many points of the outline.
        occlusion_test: False = what is in front counts as if it were the object.
        threads: of the renderer; 0 = all cores.
    """

    def __init__(
        self,
        model: ObjectModel,
        reach_m: float,
        noise_m: float,
        points: int,
        rim: int,
        occlusion_test: bool,
        threads: int,
    ) -> None:
        self.renderer = MeshRenderer(model, threads)
        self.symmetries = model.symmetries.transforms(0.02)
        self.middle_m: FloatArray = 0.5 * (model.low_m + model.high_m)
        self._size_m = 0.5 * model.diameter_m
        self._reach_m, self._noise_m, self._points, self._rim = reach_m, noise_m, points, rim
        self._occlusion_test = occlusion_test

    def noise(self, pose: FloatArray) -> float:
        """Standard deviation of depth at a pose, in metres."""
        return max(self._noise_m * float(pose[2, 3]) ** 2, 0.0005)

    def see(self, view: DepthView, pose: FloatArray) -> Side | None:
        """The object as drawn at a pose; None = out of view."""
        if float((pose[:3, :3] @ self.middle_m + pose[:3, 3])[2]) < 0.02:
            return None
        return see(self.renderer, pose, view.intrinsics_px, view.depth_m.shape, self._points, self._rim)

    def settle(
        self, view: DepthView, starts: FloatArray, drawn_at: FloatArray, limits: Limits, wider: float, most: int = _WIDE
    ) -> list[Pose]:
        """The best few of the starts [P, 4, 4], to the end.

        Args:
            view: the picture.
            starts: where the object may be.
            drawn_at: [4, 4], where it is drawn for the first fit of all starts.
            limits: to be believed.
            wider: times the reach.
            most: how many of the starts go on after the first fit.
        """
        side = self.see(view, drawn_at)
        if side is None:
            return []
        coarse = self._fit(view, side, starts, _COARSE, wider)
        best = coarse.camera_from_object[np.argsort(coarse.cost, kind="stable")[:most]]
        done = [self.finish(view, pose, limits, wider) for pose in best]
        return [one for one in done if one is not None]

    def finish(self, view: DepthView, pose: FloatArray, limits: Limits, wider: float) -> Pose | None:
        """Fit once more from a pose and judge."""
        side = self.see(view, pose)
        if side is None:
            return None
        fine = self._fit(view, side, pose[None], _FINE, wider)
        pose, covariance = fine.camera_from_object[0], fine.covariance[0]
        band_m = max(4.0 * self.noise(pose), 0.006)
        return pose, covariance, judge(view, side, pose, covariance, limits, band_m, self._occlusion_test)

    def resolve_turn(self, view: DepthView, found: Pose, limits: Limits, wider: float) -> Pose | None:
        """The pose, or one turned otherwise that explains more; None = turns beside it explain as much."""
        for _ in range(2):
            band_m = max(4.0 * self.noise(found[0]), 0.006)
            spread_rad, axis = turn_spread(found[1])
            # The axis goes where the least known motion leaves the object at rest: through a can, not beside it.
            at_origin = found[1][3:, :3] @ axis / max(spread_rad**2, 1e-12)
            centre_m = np.cross(axis, at_origin)
            turns = compare_turns(view, found[0], axis, centre_m, self.symmetries, partial(self.see, view), band_m)
            if turns.better is None:
                return None if turns.ambiguous else found
            again = self.finish(view, turns.better, limits, wider)
            if again is None or again[2].state != "tracked" or again[2].worth <= found[2].worth:
                return found
            found = again
        return found

    def _fit(self, view: DepthView, side: Side, starts: FloatArray, shares: tuple[float, ...], wider: float) -> Fitted:
        reaches = [share * wider * self._reach_m for share in shares]
        return fit(view, side, starts, reaches, self.noise(starts[0]), self._size_m, self._occlusion_test)
