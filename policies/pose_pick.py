"""PosePick: finds the object that is named by its mesh, grasps it, and lets go of it over a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import final

import numpy as np
from scipy.spatial import cKDTree

from perceive.pose.estimate import PoseEstimate, PoseEstimator
from perceive.pose.grasp_choice import Reach, reachable
from perceive.pose.grasps import Grasps, Gripper, grasps_of
from perceive.pose.model import ObjectModel
from policies.base import Policy
from policies.learned import newest
from policies.pose_look import Finder, Look, Verdict
from policies.waypoint_follower import CLOSED, OPEN, Follower, Waypoint
from sensors.action import Action, ActionMode, ActionSpec
from sensors.errors import SensorError, SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, unproject
from sensors.instruction import to_text
from sensors.observation import Observation

SURFACE_POINTS = 2000  # of a model, to tell its own points in the picture from others
OWN_M = 0.012  # a point this near to the object's surface is the object's
EMPTY_M = 0.004  # fingers nearer to each other than this hold nothing
HIGHEST_M = 0.2  # above the table; what was seen higher is the arm
OVER_M = 0.03  # between what is carried, or the open hand, and what it passes over
RELEASE_M = 0.012  # between the object and the target's surface when the hand opens
GRIP_S, STEP_S = 0.7, 0.1  # time for the fingers; and for a pose only passed through
POINTS = 20_000  # of the picture, as obstacles


@final
class PosePick(Policy):
    """Puts an object that is named in words, and known by its mesh, on a target whose place is known.

    It takes the arm out of the camera's view, asks an estimator for the pose of the object in the newest picture,
    chooses a grasp of its table (:mod:`perceive.pose.grasps`) that is clear of table and of everything else that was
    seen, and follows approach, grasp, lift, way over the target, and release. Where the first estimate scored low it
    looks again and takes the better one; where the lift failed it looks and tries anew, ``tries`` times in all. If
    nothing is found it holds still, and ``verdict`` says why: it never moves on a guess.

    Args:
        spec: the environment's actions, end-effector poses with rotation and gripper.
        estimator: knows the models by their numbers; or what makes one of ``models`` (by number).
        models: the objects, by whose names instructions call them.
        target_m: where to let go [3]: the middle of the target's surface, base frame.
        gripper: None = the Franka hand.
        camera: the sensor with colours and depth.
        joints: the sensor with ``base_from_tool`` and ``gripper_m``.
        words: the sensor with the instruction.
        look_m: tool point [3] from where the arm hides nothing.
        table_m: height of the table.
        rim_m: height of the target's rim over the table.
        low_score: an estimate below it is asked for again.
        tries: to pick the object up.
        patience_s: to wait for a picture.
        stop: raise an error instead of holding still.
        threaded: estimate in a thread and hold still meanwhile, for robots that do not wait; else within one ``act``.

    Raises:
        WiringError: the actions are no end-effector poses with rotation and gripper.
        SpecError: no model, two of one name, or one that the estimator does not know.
        DataError: an object that no grasp fits.
    """

    def __init__(
        self,
        spec: ActionSpec,
        estimator: PoseEstimator | Callable[..., PoseEstimator],
        models: Sequence[ObjectModel] | Mapping[int, ObjectModel],
        target_m: Sequence[float],
        gripper: Gripper | None = None,
        camera: str = "front",
        joints: str = "joints",
        words: str = "task",
        look_m: Sequence[float] = (0.36, 0.0, 0.42),
        table_m: float = 0.0,
        rim_m: float = 0.03,
        low_score: float = 0.6,
        tries: int = 2,
        patience_s: float = 3.0,
        stop: bool = False,
        threaded: bool = False,
    ) -> None:
        missing = {"position_m", "rotation_6d", "gripper"} - set(spec.parts)
        if spec.mode is not ActionMode.EE_POSE or missing:
            raise WiringError(
                "PosePick", "action mode 'ee_pose' with rotation and gripper",
                f"'{spec.mode.value}' with {sorted(spec.parts)}", "Set action_mode: ee_pose of the environment.",
            )  # fmt: skip
        models = tuple(models.values()) if isinstance(models, Mapping) else tuple(models)
        if not isinstance(estimator, PoseEstimator):
            estimator = estimator(models={model.number: model for model in models})
        self._models = {model.name: model for model in models}
        unknown = [model.number for model in models if model.number not in estimator.numbers]
        if not models or len(self._models) != len(models) or unknown:
            got = f"{[model.name for model in models]}, not known to the estimator: {unknown}"
            raise SpecError(
                "PosePick.models", "objects of different names that the estimator knows", got, "Correct it."
            )
        if tries < 1 or len(target_m) != 3 or len(look_m) != 3:
            got = f"{tries}, {list(target_m)}, {list(look_m)}"
            raise SpecError("PosePick", "tries >= 1, target_m and look_m of 3 numbers", got, "Correct it.")
        self._spec, self._finder, self._gripper = spec, Finder(estimator, threaded), gripper or Gripper()
        self._target_m, self._look_m = np.asarray(target_m, float), np.asarray(look_m, float)
        self._camera, self._joints, self._words = camera, joints, words
        self._table_m, self._rim_m, self._low_score = table_m, rim_m, low_score
        self._tries, self._patience_s, self._stop = tries, patience_s, stop
        part = spec.part("position_m")
        low, high = (tuple(map(float, side[part])) for side in (spec.space.low, spec.space.high))
        self._reach = Reach((low[0], low[1], low[2]), (high[0], high[1], high[2]), table_m)
        self._grasps: dict[str, tuple[Grasps, FloatArray]] = {}
        self._follower = Follower(spec)
        self._verdict = Verdict.LOOKING
        self.reset()

    @property
    def verdict(self) -> Verdict:
        """How things stand."""
        return self._verdict

    @property
    def thinking(self) -> bool:
        """Whether an estimate is under way in a thread."""
        return self._finder.busy

    @property
    def looks(self) -> tuple[Look, ...]:
        """The looks of this episode, oldest first."""
        return tuple(self._looks)

    def reset(self) -> None:
        self._verdict = Verdict.LOOKING
        self._looks: list[Look] = []
        self._follower.reset()
        self._finder.forget()
        self._asked_s = 0.0  # when the estimator was asked
        self._rest_s: float | None = None  # since when the arm is out of the view
        self._begun = False
        self._first: tuple[PoseEstimate, FloatArray, RgbdFrame] | None = None
        self._picked = 0

    def act(self, observation: Observation) -> Action:
        """The next command.

        Raises:
            SensorError: the joints are not known; and with ``stop``, nothing was found.
            DataError: picture and camera do not fit together.
        """
        joints = newest(observation, self._joints)
        if joints is None:
            raise SensorError(
                "PosePick", f"a valid frame of '{self._joints}'", "none", "The robot must know where it is."
            )
        tool = np.asarray(joints["base_from_tool"], np.float64)
        opening = float(joints["gripper_m"][0])
        now_s = observation.now_s
        if not self._begun:
            self._begun = True
            self._back_to_look(tool)
        if self._follower.going():
            action = self._follower.act(tool, opening, now_s)
            if self._follower.going():
                return action
            self._arrived(now_s)
            return action
        if self._verdict is Verdict.LOOKING:
            self._look(observation, tool)
        if self._stop and self._verdict not in (Verdict.LOOKING, Verdict.MOVING, Verdict.DONE):
            raise SensorError("PosePick", "an object to pick", self._verdict.value, "See the policy's looks.")
        if self._follower.going():
            return self._follower.act(tool, opening, now_s)
        return self._follower.hold(tool, opening)

    def _back_to_look(self, tool: FloatArray) -> None:
        """Up and out of the camera's view, with an open hand."""
        up = tool.copy()
        up[2, 3] = max(up[2, 3], self._look_m[2])
        away = up.copy()
        away[:3, 3] = self._look_m
        away[:3, :3] = _down()
        self._follower.go([Waypoint(up, OPEN, STEP_S), Waypoint(away, OPEN, STEP_S)])

    def _arrived(self, now_s: float) -> None:
        """The waypoints are over, or one of them failed."""
        if self._verdict is Verdict.LOOKING:
            self._rest_s = now_s
        elif not self._follower.failed:
            self._verdict = Verdict.DONE
        elif self._picked < self._tries:
            self._verdict, self._rest_s, self._first, self._begun = Verdict.LOOKING, None, None, False
        else:
            self._verdict = Verdict.NOT_LIFTED

    def _look(self, observation: Observation, tool: FloatArray) -> None:
        """Find the object in a picture that was taken since the arm is away, and plan."""
        name = self._asked(observation)
        if name is None:
            self._verdict = Verdict.UNKNOWN
            return
        if not self._finder.busy:
            frame = self._picture(observation)
            if frame is None:
                return
            self._finder.ask(frame, self._models[name].number, partial(self._known, name))
            self._asked_s = observation.now_s
        found = self._finder.answer()
        if found is None:
            return
        frame, best, spent_s, now_s = found.frame, found.best, found.spent_s, self._asked_s
        pose: FloatArray | None = None if best is None else frame.base_from_camera @ best.camera_from_object
        again = self._first is None and (best is None or best.score < self._low_score)
        if self._first is not None and (best is None or self._first[0].score > best.score):
            best, pose, frame = self._first  # the better one of the two looks
        if again or best is None or pose is None:
            score = 0.0 if best is None else best.score
            self._looks.append(Look(name, now_s, pose, score, 0, {}, spent_s))
            if again and best is not None and pose is not None:
                self._first = (best, pose, frame)
            elif sum(look.base_from_object is None for look in self._looks) > self._tries:
                self._verdict = Verdict.NOT_FOUND
            else:
                self._rest_s = observation.now_s
            return
        self._plan(name, best, pose, frame, tool, now_s, spent_s)

    def _picture(self, observation: Observation) -> RgbdFrame | None:
        """The newest picture, if it was taken since the arm is out of the view, or since the last look."""
        assert self._rest_s is not None, "set on arrival"
        stream, data = observation.streams.get(self._camera), newest(observation, self._camera)
        since_s = self._looks[-1].now_s if self._first is not None else self._rest_s
        taken_s = -np.inf if stream is None else observation.now_s - float(stream.age_s[-1])
        if data is None or taken_s < since_s:
            if observation.now_s - since_s > self._patience_s:
                self._verdict = Verdict.NO_PICTURE
            return None
        return RgbdFrame(
            stamp_s=taken_s,
            rgb=data["rgb"],
            depth_m=data["depth_m"],
            intrinsics_px=np.asarray(data["intrinsics_px"], np.float64),
            base_from_camera=np.asarray(data["base_from_camera"], np.float64),
        )

    def _plan(
        self,
        name: str,
        best: PoseEstimate,
        pose: FloatArray,
        frame: RgbdFrame,
        tool: FloatArray,
        now_s: float,
        spent_s: float,
    ) -> None:
        grasps, surface = self._known(name)
        obstacles, seen = self._obstacles(frame, pose, surface)
        found = reachable(grasps, pose, self._reach, self._gripper, obstacles, tool)
        count = len(found.width_m)
        self._looks.append(Look(name, now_s, pose, best.score, count, found.why_not, spent_s))
        self._first = None
        if not count:
            self._verdict = Verdict.NOT_REACHABLE
            return
        self._picked += 1
        chosen = found.base_from_tool[min(self._picked - 1, count - 1)]
        self._verdict = Verdict.MOVING
        self._follower.go(self._way(chosen, pose, surface, seen))

    def _way(self, grasp: FloatArray, pose: FloatArray, surface_m: FloatArray, seen_m: float) -> list[Waypoint]:
        """Waypoints of a grasp [4, 4]: over it, before it, there, close; up, over the target, down, open; up.

        Args:
            grasp: ``base_from_tool``.
            pose: ``base_from_object``.
            surface_m: points of the object in its own frame.
            seen_m: height of the highest thing that was seen on the table.
        """
        highest = float(self._reach.high_m[2])
        points = surface_m @ pose[:3, :3].T + pose[:3, 3]
        below = float(grasp[2, 3] - points[:, 2].min())  # of what hangs in the hand, from the tool point down
        before = grasp.copy()
        before[:3, 3] -= self._reach.approach_m * grasp[:3, 2]
        fly = min(max(before[2, 3], seen_m + OVER_M + 0.02), highest)
        carry = min(max(grasp[2, 3], max(seen_m, self._table_m + self._rim_m) + OVER_M + below), highest)
        middle = (points.min(0) + points.max(0)) / 2
        over = grasp.copy()
        over[:2, 3] = self._target_m[:2] + grasp[:2, 3] - middle[:2]  # the object's middle comes over the target's
        over[:3, 3] = np.clip(over[:3, 3], self._reach.low_m, self._reach.high_m)
        release = self._target_m[2] + RELEASE_M + below
        return [
            Waypoint(_at(before, fly), OPEN, STEP_S),
            Waypoint(before, OPEN, STEP_S),
            Waypoint(grasp, OPEN, STEP_S, needed=True),
            Waypoint(grasp, CLOSED, GRIP_S, holding_m=EMPTY_M),
            Waypoint(_at(grasp, carry), CLOSED, STEP_S, holding_m=EMPTY_M),
            Waypoint(_at(over, carry), CLOSED, STEP_S, holding_m=EMPTY_M),
            Waypoint(_at(over, release), CLOSED, STEP_S),
            Waypoint(_at(over, release), OPEN, GRIP_S),
            Waypoint(_at(over, max(carry, release + 0.1)), OPEN, STEP_S),
        ]

    def _known(self, name: str) -> tuple[Grasps, FloatArray]:
        """All grasps of an object, and points of its surface [N, 3]; made when it is asked for first."""
        if name not in self._grasps:
            model = self._models[name]
            grasps = grasps_of(model, self._gripper).everywhere(model.symmetries)
            self._grasps[name] = (grasps, model.surface(SURFACE_POINTS).xyz_m)
        return self._grasps[name]

    def _obstacles(self, frame: RgbdFrame, pose: FloatArray, surface_m: FloatArray) -> tuple[FloatArray, float]:
        """Points [N, 3] of everything on the table but the object, base frame; and how high it all reaches."""
        depth = np.where(np.isfinite(frame.depth_m), frame.depth_m, 0)
        points = unproject(depth, frame.intrinsics_px)[depth > 0].reshape(-1, 3)
        points = points[:: max(1, len(points) // (8 * POINTS))]
        points = points @ frame.base_from_camera[:3, :3].T + frame.base_from_camera[:3, 3]
        low, high = np.array(self._reach.low_m), np.array(self._reach.high_m)
        low, high = low - 0.1, high + 0.1
        low[2], high[2] = self._table_m + 0.008, self._table_m + HIGHEST_M
        points = points[((points > low) & (points < high)).all(1)]
        points = points[:: max(1, len(points) // POINTS)]
        own = surface_m @ pose[:3, :3].T + pose[:3, 3]
        seen = float(max(own[:, 2].max(), points[:, 2].max(initial=self._table_m)))
        if len(points):
            distance, _ = cKDTree(own).query(points, distance_upper_bound=OWN_M)
            points = points[~np.isfinite(distance)]
        return np.asarray(points), seen

    def _asked(self, observation: Observation) -> str | None:
        """The name of a known object in the instruction, the longest if several fit."""
        data = newest(observation, self._words)
        if data is None:
            return None
        words = f" {to_text(data['text']).lower()} "
        named = [name for name in self._models if f" {name.lower()} " in words]
        return max(named, key=len, default=None)


def _down() -> FloatArray:
    """The turn [3, 3] of a tool that points straight down."""
    return np.diag([1.0, -1.0, -1.0])


def _at(pose: FloatArray, height_m: float) -> FloatArray:
    out = pose.copy()
    out[2, 3] = height_m
    return out
