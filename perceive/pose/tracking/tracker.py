"""PoseTracker: the pose of one known object in a stream of RGB-D frames."""

from __future__ import annotations

import math
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from perceive.pose.estimate import PoseEstimator
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.symmetry import symmetry_nearest
from perceive.pose.tracking.fit import DepthView, Fitted, fit
from perceive.pose.tracking.frames import FrameGate
from perceive.pose.tracking.motion import DampedMotion
from perceive.pose.tracking.search import Searching
from perceive.pose.tracking.side import Side, see
from perceive.pose.tracking.tracked import TrackedPose
from perceive.pose.tracking.verdict import Limits, Verdict, hue_difference, judge
from sensors.errors import DataError, SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, invert

_UNKNOWN = 1.6  # farther to look while the velocity is not known
_COARSE, _FINE = (1.0, 0.7, 0.5), (0.5, 0.35, 0.25)  # reaches, as shares of reach_m
_FOUND = Limits(agree=0.95, visible=0.7, outline=0.85)  # a found pose has no past that speaks for it


@final
class PoseTracker:
    """Follows one object. Not for several threads; ``estimator`` may be used by a thread of the tracker's own.

    Each frame: predict (damped constant velocity in the robot's base, by the frames' stamps), draw the object there,
    fit the drawn side to the depth picture from the prediction and from the last pose, draw it once more at the better
    one and fit again; then judge. What lies in front of the object is left out of both; what lies behind it speaks
    against the pose. A pose that is not confirmed is not reported: the last one is held, still in the base, and ages.

    When the object is lost, ``estimator`` is asked every ``search_every`` frames. Its answers are fitted and judged
    more strictly than a tracked pose. With ``threaded=False`` it runs inside :meth:`update`, which then takes that
    much longer and is a function of the frames alone; with ``threaded=True`` it runs in a worker and the rate holds:
    its answer is about an older frame, so the object is followed through the frames since then, which were kept.

    Args:
        model: the object.
        estimator: finds it when it is lost and at the beginning; None = only :meth:`start` does.
        search_every: frames between two questions to the estimator.
        threaded: ask it in a worker thread.
        reach_m: how far a measurement may be from the prediction and still count; None = a fifth of the object's
            diameter, between 1.5 and 4 cm.
        noise_m: standard deviation of depth at one metre; grows with its square, but is at least half a millimetre.
        points: how many points of the surface are compared.
        rim: how many points of the outline are compared; 0 = none.
        damping_s: of the prediction; 0 = none.
        lost_after_s: how long it may stay unconfirmed before it counts as lost.
        occlusion_test: False = what is in front counts as if it were the object; to see what the test is worth.
        hue: how far the chromaticity of what the estimator found may be from the model's, 0 to 1; None = colours do
            not count. A grey model has none to compare.
        threads: of the renderer; 0 = all cores.

    Raises:
        SpecError: an argument is out of range.
        WiringError: the estimator does not know the object.
    """

    def __init__(
        self,
        model: ObjectModel,
        estimator: PoseEstimator | None = None,
        search_every: int = 3,
        threaded: bool = False,
        reach_m: float | None = None,
        noise_m: float = 0.002,
        points: int = 900,
        rim: int = 160,
        damping_s: float = 0.3,
        lost_after_s: float = 0.3,
        occlusion_test: bool = True,
        hue: float | None = 0.08,
        threads: int = 0,
    ) -> None:
        where = f"PoseTracker of '{model.name}'"
        fine = points >= 50 and rim >= 0 and noise_m > 0 and search_every >= 1 and damping_s >= 0 and lost_after_s >= 0
        if not fine or not (reach_m is None or reach_m > 0):
            raise SpecError(
                where,
                "points >= 50, search_every >= 1, noise_m, reach_m > 0 and rim, damping_s, lost_after_s >= 0",
                f"{points}, {rim}, {noise_m}, {search_every}, {damping_s}, {lost_after_s}, {reach_m}",
                "Correct the arguments.",
            )
        if estimator is not None and model.number not in estimator.numbers:
            raise WiringError(
                where,
                f"an estimator that knows object {model.number}",
                f"one of {estimator.numbers}",
                "Give it this model.",
            )
        self.model = model
        self._renderer = MeshRenderer(model, threads)
        self._symmetries = model.symmetries.transforms(0.02)
        self._reach_m = min(max(0.2 * model.diameter_m, 0.015), 0.04) if reach_m is None else reach_m
        self._noise_m, self._points, self._rim = noise_m, points, rim
        self._lost_after_s, self._occlusion_test = lost_after_s, occlusion_test
        self._hue = hue
        self._motion = DampedMotion(damping_s)
        self._gate = FrameGate(where)
        self._where = where
        self._search = None if estimator is None else Searching(estimator, model.number, search_every, threaded)
        self._base_from_object: FloatArray | None = None
        self._covariance: FloatArray | None = None
        self._measured_s = -math.inf
        self._last: TrackedPose | None = None
        self.missed_frames = 0  # frames without any depth

    def reset(self) -> None:
        """Forget the object, the camera and the clock."""
        self._gate.forget()
        if self._search is not None:
            self._search.cancel()
        self._base_from_object = self._covariance = self._last = None
        self._measured_s, self.missed_frames = -math.inf, 0

    def start(self, camera_from_object: ArrayLike, frame: RgbdFrame) -> None:
        """Say where the object is in a frame (from an estimator, a person, a known place).

        The pose counts as measured then; the next :meth:`update`, which may be of the same frame, confirms it or not.

        Raises:
            DataError: the frame is bad, or the pose is no rigid transform in front of the camera.
        """
        self._gate.view(frame)
        pose = np.asarray(camera_from_object, np.float64)
        if pose.shape != (4, 4) or not np.isfinite(pose).all() or not np.allclose(pose[3], (0, 0, 0, 1)):
            raise DataError(self._where, "camera_from_object [4, 4]", f"{pose!r}", "Pass a rigid transform.")
        turn = pose[:3, :3]
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-4) or np.linalg.det(turn) < 0:
            raise DataError(self._where, "a rotation", f"{turn!r}", "Pass a rigid transform.")
        if np.linalg.norm(pose[:3, 3]) > 50.0 or (pose @ [*self._middle_m(), 1.0])[2] <= 0:
            raise DataError(
                self._where, "an object in front of the camera, in metres", f"{pose[:3, 3]}", "Are those millimetres?"
            )
        self._base_from_object = np.asarray(frame.base_from_camera, np.float64) @ pose
        self._motion.start(self._base_from_object, frame.stamp_s)
        self._covariance, self._measured_s, self._last = None, frame.stamp_s, None
        if self._search is not None:
            self._search.cancel()

    def update(self, frame: RgbdFrame) -> TrackedPose:
        """Follow the object into the next frame. The same stamp again gives the same answer and changes nothing.

        Raises:
            DataError: a frame of another size or camera, not in metres, or older than the last one.
        """
        if self._last is not None and frame.stamp_s == self._last.stamp_s:
            return self._last
        if self._last is not None and frame.stamp_s < self._last.stamp_s:
            raise DataError(
                self._where,
                f"a frame later than {self._last.stamp_s:.6f} s",
                f"{frame.stamp_s:.6f} s",
                "Sort the frames; call reset() after a jump of the clock.",
            )
        view = self._gate.view(frame)
        self._last = self._answer(view, frame)
        return self._last

    def _answer(self, view: DepthView, frame: RgbdFrame) -> TrackedPose:
        if not view.depth_m.any():
            self.missed_frames += 1
            return self._hold(frame, Verdict("uncertain", "no depth in the frame", 0.0, 0.0, 0.0))
        said = Verdict("lost", "not found yet", 0.0, 0.0, 0.0)
        if self._base_from_object is not None:
            found = self._follow(view, frame)
            if found is None:
                said = Verdict("lost", "out of view", 0.0, 0.0, 0.0)
            else:
                pose, covariance, said = found
                if said.state == "tracked":
                    return self._accept(frame, pose, covariance, said)
        if self._search is not None and self._lost(frame.stamp_s, said):
            for older, candidates in self._search.ask(frame):
                again = self._take(older, candidates, frame)
                if again is not None:
                    return again
            self._search.next(frame)
        return self._hold(frame, said)

    def _take(self, older: RgbdFrame, candidates: FloatArray, frame: RgbdFrame) -> TrackedPose | None:
        """Confirm what an estimator found in an older frame (or this one) and follow it until now."""
        picked = self._confirm(older, candidates)
        if picked is None or self._search is None:
            return None
        kept = (self._base_from_object, self._covariance, self._measured_s)
        pose, covariance, said = picked
        if self._base_from_object is not None:
            before = invert(older.base_from_camera) @ self._base_from_object
            pose = symmetry_nearest(pose, before, self._symmetries)
        self._motion.start(np.asarray(older.base_from_camera) @ pose, older.stamp_s)
        since = (*self._search.since(older.stamp_s), frame)
        answer = self._accept(older, pose, covariance, said)
        for later in since:
            if later.stamp_s <= older.stamp_s:
                continue
            found = self._follow(self._gate.view(later), later)
            if found is None or found[2].state != "tracked":
                # It was there; it is not any more: as it was before.
                self._base_from_object, self._covariance, self._measured_s = kept
                if kept[0] is not None:
                    self._motion.start(kept[0], kept[2])
                return None
            answer = self._accept(later, *found)
        return answer

    def _confirm(self, frame: RgbdFrame, candidates: FloatArray) -> tuple[FloatArray, FloatArray, Verdict] | None:
        """The candidate that the frame itself bears out best; of equal ones that nearest to where it was."""
        view = self._gate.view(frame)
        best: tuple[FloatArray, FloatArray, Verdict] | None = None
        best_worth = -math.inf
        for candidate in candidates:
            if self._other_colour(view, frame, candidate, 2.0):  # saves the fit, most of the time
                continue
            found = self._settle(view, candidate[None], candidate, _FOUND)
            if found is None or found[2].state != "tracked" or self._other_colour(view, frame, found[0], 1.0):
                continue
            worth = found[2].agree_share * found[2].visible_share * found[2].outline_share
            if self._base_from_object is not None:
                before = invert(frame.base_from_camera) @ self._base_from_object
                worth -= 0.2 * float(np.linalg.norm(found[0][:3, 3] - before[:3, 3]))
            if worth > best_worth:
                best, best_worth = found, worth
        return best

    def _other_colour(self, view: DepthView, frame: RgbdFrame, pose: FloatArray, slack: float) -> bool:
        side = self._see(view, pose)
        if self._hue is None or side is None:
            return False
        return hue_difference(view, side, pose, frame.rgb, 4.0 * self._noise(pose) + 0.004) > slack * self._hue

    def _follow(self, view: DepthView, frame: RgbdFrame) -> tuple[FloatArray, FloatArray, Verdict] | None:
        """From the last pose into this frame; None = it would be out of view."""
        assert self._base_from_object is not None, "asked only when there is a pose"
        camera_from_base = invert(frame.base_from_camera)
        predicted = camera_from_base @ self._motion.predict(frame.stamp_s)
        held = camera_from_base @ self._base_from_object
        return self._settle(view, np.stack([predicted, held]), predicted, Limits())

    def _settle(
        self, view: DepthView, starts: FloatArray, drawn_at: FloatArray, limits: Limits
    ) -> tuple[FloatArray, FloatArray, Verdict] | None:
        side = self._see(view, drawn_at)
        if side is None:
            return None
        coarse = self._fit(view, side, starts, _COARSE)
        pose = coarse.camera_from_object[int(coarse.cost.argmin())]
        side = self._see(view, pose)
        if side is None:
            return None
        fine = self._fit(view, side, pose[None], _FINE)
        pose, covariance = fine.camera_from_object[0], fine.covariance[0]
        band_m = max(4.0 * self._noise(pose), 0.006)
        return pose, covariance, judge(view, side, pose, covariance, limits, band_m, self._occlusion_test)

    def _see(self, view: DepthView, pose: FloatArray) -> Side | None:
        if float((pose[:3, :3] @ self._middle_m() + pose[:3, 3])[2]) < 0.02:
            return None
        return see(self._renderer, pose, view.intrinsics_px, view.depth_m.shape, self._points, self._rim)

    def _fit(self, view: DepthView, side: Side, starts: FloatArray, shares: tuple[float, ...]) -> Fitted:
        wider = 1.0 if self._motion.known else _UNKNOWN
        reaches = [share * wider * self._reach_m for share in shares]
        noise_m = self._noise(starts[0])
        return fit(view, side, starts, reaches, noise_m, 0.5 * self.model.diameter_m, self._occlusion_test)

    def _noise(self, pose: FloatArray) -> float:
        return max(self._noise_m * float(pose[2, 3]) ** 2, 0.0005)

    def _middle_m(self) -> FloatArray:
        return 0.5 * (self.model.low_m + self.model.high_m)

    def _lost(self, stamp_s: float, said: Verdict) -> bool:
        return said.state == "lost" or stamp_s - self._measured_s > self._lost_after_s

    def _accept(self, frame: RgbdFrame, pose: FloatArray, covariance: FloatArray, said: Verdict) -> TrackedPose:
        self._base_from_object = np.asarray(frame.base_from_camera, np.float64) @ pose
        self._motion.moved(self._base_from_object, frame.stamp_s)
        self._covariance, self._measured_s = covariance, frame.stamp_s
        if self._search is not None:
            self._search.found()
        return self._say(frame, said, 0.0)

    def _hold(self, frame: RgbdFrame, said: Verdict) -> TrackedPose:
        if self._lost(frame.stamp_s, said):
            said = Verdict("lost", said.reason, said.agree_share, said.visible_share, said.outline_share)
        return self._say(frame, said, frame.stamp_s - self._measured_s)

    def _say(self, frame: RgbdFrame, said: Verdict, age_s: float) -> TrackedPose:
        held = None if self._base_from_object is None else invert(frame.base_from_camera) @ self._base_from_object
        return TrackedPose(
            self.model.number,
            frame.stamp_s,
            held,
            self._covariance,
            said.state,
            said.reason,
            age_s,
            said.agree_share,
            said.visible_share,
            said.outline_share,
        )
