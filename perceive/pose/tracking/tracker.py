"""PoseTracker: the pose of one known object in a stream of RGB-D frames."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from perceive.pose.estimate import PoseEstimator
from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import symmetry_nearest
from perceive.pose.tracking.fit import DepthView
from perceive.pose.tracking.frames import FrameGate
from perceive.pose.tracking.memory import SceneMemory
from perceive.pose.tracking.motion import DampedMotion
from perceive.pose.tracking.search import Searching
from perceive.pose.tracking.settling import Pose, Settling
from perceive.pose.tracking.starts import shifted
from perceive.pose.tracking.tracked import TrackedPose
from perceive.pose.tracking.turn import turn_spread
from perceive.pose.tracking.verdict import Limits, Verdict, hue_difference
from sensors.errors import DataError, SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, invert

_UNKNOWN = 1.6  # farther to look while the velocity is not known
_FOUND = Limits(agree=0.95, visible=0.7, outline=0.85, through=0.01)  # a found pose has no past that speaks for it
_YOUNG = Limits(agree=0.93, visible=0.3, outline=0.75, through=0.02)  # nor has one much that was found just now
_YOUNG_FRAMES = 3
_PLAIN = Limits(agree=0.95, outline=0.6, through=0.02)  # less than that: see whether another start explains more
_TURN_RAD = 0.004  # a turn that is known worse than that may not be known at all
_TURN_CHECK_S, _TURN_UNSEEN_S = 0.2, 0.5
_SOON_S = 0.35  # later than that it may be anywhere; a search is cheaper
_STOOD = 0.5  # what has stood there before, for so large a share, is not the object


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
        hue: greatest difference of chromaticity of what was found to the model, 0 to 1; None = not compared.
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
        reach_m = min(max(0.2 * model.diameter_m, 0.015), 0.04) if reach_m is None else reach_m
        self._settling = Settling(model, reach_m, noise_m, points, rim, occlusion_test, threads)
        self._lost_after_s = lost_after_s
        self._hue = hue
        self._motion = DampedMotion(damping_s)
        self._gate = FrameGate(where)
        self._where = where
        self._search = None if estimator is None else Searching(estimator, model.number, search_every, threaded)
        self._base_from_object: FloatArray | None = None
        self._covariance: FloatArray | None = None
        self._measured_s = -math.inf
        self._memory = SceneMemory()
        self._turn_checked_s = self._turn_seen_s = -math.inf
        self._young = 0  # frames until a found pose counts as followed
        self._last: TrackedPose | None = None
        self.missed_frames = 0  # frames without any depth

    def reset(self) -> None:
        """Forget the object, the camera and the clock."""
        self._gate.forget()
        if self._search is not None:
            self._search.cancel()
        self._base_from_object = self._covariance = self._last = None
        self._measured_s, self.missed_frames, self._young = -math.inf, 0, 0
        self._memory.forget()

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
        if np.linalg.norm(pose[:3, 3]) > 50.0 or (pose @ [*self._settling.middle_m, 1.0])[2] <= 0:
            raise DataError(
                self._where, "an object in front of the camera, in metres", f"{pose[:3, 3]}", "Are those millimetres?"
            )
        self._base_from_object = np.asarray(frame.base_from_camera, np.float64) @ pose
        self._motion.start(self._base_from_object, frame.stamp_s)
        self._covariance, self._measured_s, self._last, self._young = None, frame.stamp_s, None, 0
        self._turn_checked_s = self._turn_seen_s = frame.stamp_s
        self._memory.forget()
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
                pose, covariance, said = self._turn(view, found, frame.stamp_s)
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
        self._young, self._turn_seen_s, self._turn_checked_s = _YOUNG_FRAMES, older.stamp_s, older.stamp_s
        pose, covariance, said = picked
        if self._base_from_object is not None:
            before = invert(older.base_from_camera) @ self._base_from_object
            pose = symmetry_nearest(pose, before, self._settling.symmetries)
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
                self._young = 0
                if kept[0] is not None:
                    self._motion.start(kept[0], kept[2])
                return None
            answer = self._accept(later, *found)
        return answer

    def _confirm(self, frame: RgbdFrame, candidates: FloatArray) -> Pose | None:
        """The candidate that the frame itself bears out best; of equal ones that nearest to where it was."""
        view = self._gate.view(frame)
        best: Pose | None = None
        best_worth = -math.inf
        for candidate in candidates:
            if self._other_colour(view, frame, candidate, 2.0):  # saves the fit, most of the time
                continue
            settled = self._settling.settle(view, candidate[None], candidate, _FOUND, self._wider(), 1)
            found = settled[0] if settled else None
            if found is None or found[2].state != "tracked" or self._other_colour(view, frame, found[0], 1.0):
                continue
            if self._stood_before(view, frame, found[0]):
                continue
            resolved = self._settling.resolve_turn(view, found, _FOUND, self._wider())
            if resolved is None:
                continue
            found = resolved
            worth = found[2].worth
            if self._base_from_object is not None:
                before = invert(frame.base_from_camera) @ self._base_from_object
                worth -= 0.2 * float(np.linalg.norm(found[0][:3, 3] - before[:3, 3]))
            if worth > best_worth:
                best, best_worth = found, worth
        return best

    def _other_colour(self, view: DepthView, frame: RgbdFrame, pose: FloatArray, slack: float) -> bool:
        side = self._settling.see(view, pose)
        if self._hue is None or side is None:
            return False
        return hue_difference(view, side, pose, frame.rgb, 4.0 * self._settling.noise(pose) + 0.004) > slack * self._hue

    def _stood_before(self, view: DepthView, frame: RgbdFrame, pose: FloatArray) -> bool:
        side = self._settling.see(view, pose)
        if side is None:
            return False
        base_from_camera = np.asarray(frame.base_from_camera, np.float64)
        band_m = 4.0 * self._settling.noise(pose) + 0.004
        return self._memory.known_share(view, side, base_from_camera, pose, band_m) > _STOOD

    def _follow(self, view: DepthView, frame: RgbdFrame) -> Pose | None:
        """From the last pose into this frame; None = it would be out of view."""
        assert self._base_from_object is not None, "asked only when there is a pose"
        camera_from_base = invert(frame.base_from_camera)
        predicted = camera_from_base @ self._motion.predict(frame.stamp_s)
        held = camera_from_base @ self._base_from_object
        limits = _YOUNG if self._young else Limits()
        wider = self._wider()
        settled = self._settling.settle(view, np.stack([predicted, held]), predicted, limits, wider, 1)
        found = settled[0] if settled else None
        said = None if found is None else found[2]
        passed_s = frame.stamp_s - self._measured_s
        if said is not None and (said.meets(_PLAIN) or said.visible_share < limits.visible or passed_s > _SOON_S):
            return found
        starts = np.concatenate([predicted[None], held[None], shifted(predicted, self._settling.middle_m, passed_s)])
        for other in self._settling.settle(view, starts, predicted, limits, wider):
            better = found is None or (other[2].state == "tracked", other[2].worth) > (
                found[2].state == "tracked", found[2].worth,
            )  # fmt: skip
            found = other if better else found
        return found

    def _turn(self, view: DepthView, found: Pose, stamp_s: float) -> Pose:
        """See now and then that it is not turned otherwise, and say so when that has not been seen for long."""
        said = found[2]
        recent = stamp_s - self._turn_seen_s <= _TURN_CHECK_S
        if said.state != "tracked" or (recent and turn_spread(found[1])[0] < _TURN_RAD and said.meets(_PLAIN)):
            self._turn_seen_s = stamp_s if said.state == "tracked" else self._turn_seen_s
            return found
        if stamp_s - self._turn_checked_s < _TURN_CHECK_S:
            return found
        self._turn_checked_s = stamp_s
        resolved = self._settling.resolve_turn(view, found, Limits(), self._wider())
        if resolved is not None:
            self._turn_seen_s = stamp_s
            return resolved
        if stamp_s - self._turn_seen_s <= _TURN_UNSEEN_S:
            return found
        unseen = replace(said, state="uncertain", reason="what says how it is turned is hidden")
        return found[0], found[1], unseen

    def _wider(self) -> float:
        return 1.0 if self._motion.known else _UNKNOWN

    def _lost(self, stamp_s: float, said: Verdict) -> bool:
        return said.state == "lost" or self._young > 0 or stamp_s - self._measured_s > self._lost_after_s

    def _accept(self, frame: RgbdFrame, pose: FloatArray, covariance: FloatArray, said: Verdict) -> TrackedPose:
        self._base_from_object = np.asarray(frame.base_from_camera, np.float64) @ pose
        self._motion.moved(self._base_from_object, frame.stamp_s)
        self._covariance, self._measured_s = covariance, frame.stamp_s
        if self._young:
            self._young -= 1
        elif said.meets(_PLAIN):
            view = self._gate.view(frame)
            self._memory.keep(
                self._settling.renderer, view, frame.stamp_s, np.asarray(frame.base_from_camera, np.float64), pose
            )
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
