"""KeyPosePolicy: the key poses of a model, as whole moves or led there period by period."""

from __future__ import annotations

import logging
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.batch import collate
from perceive.model_base import Model
from policies.base import Policy
from policies.learned import check_fits, newest
from policies.schema import ignored_sensors, model_sensors
from sensors.action import Action, ActionMode, end_effector_spec
from sensors.errors import SensorError, SpecError, WiringError
from sensors.geometry import matrix_to_rotation_6d, rotation_6d_to_matrix, rotation_angle_rad
from sensors.observation import Observation
from sensors.timeline import EPSILON_S

_LOG = logging.getLogger(__name__)
HEAD = "action"
OPEN_M = 0.08  # gripper opening that is command 1


@final
class KeyPosePolicy(Policy):
    """Predicts the next key pose and sends the robot there.

    Without ``follow`` each action is a key pose, for an environment or robot that plans and carries out whole moves
    (mode ``key_pose``). With ``follow`` the actions are end-effector poses for every control period: the same key pose
    until the tool is there (or does not come nearer), then the gripper's command until it has had its time, then a new
    prediction; so the policy runs in any control loop with a speed-limited robot.

    Where too few points are seen inside the workspace (a wrong calibration, a covered camera), the robot holds still
    and ``blind`` counts it; after ``most_blind`` such looks in a row an error says so. It never moves on a guess.

    Args:
        model: with key-pose actions; ``perceive.loading`` made it.
        follow: lead the tool there period by period.
        joints: the sensor with ``base_from_tool`` and ``gripper_m``.
        most_blind: looks in a row without enough points that end in an error; None = it holds still for ever.
        near_m: with ``follow``, how near the tool has to come.
        near_rad: and how well turned.
        gripper_s: with ``follow``, how long the gripper gets to open or close.
        patience_s: with ``follow``, a tool that has not come nearer for so long is taken to have arrived.

    Raises:
        WiringError: the model's actions are not key poses.
        SpecError: ``most_blind`` below 1.
    """

    def __init__(
        self,
        model: Model,
        follow: bool = False,
        joints: str = "joints",
        most_blind: int | None = 3,
        near_m: float = 0.004,
        near_rad: float = 0.035,
        gripper_s: float = 0.6,
        patience_s: float = 0.75,
    ) -> None:
        spec = model.action_spec
        if spec is None or spec.mode is not ActionMode.KEY_POSE:
            got = "none" if spec is None else spec.mode.value
            raise WiringError("KeyPosePolicy", "a model whose actions are key poses", got, "Use LearnedPolicy.")
        if most_blind is not None and most_blind < 1:
            raise SpecError("KeyPosePolicy.most_blind", "at least 1", f"{most_blind}", "Correct it.")
        self._model = model.eval()
        self._key_spec = spec
        self._spec = end_effector_spec(spec) if follow else spec
        self._follow, self._joints, self._most_blind = follow, joints, most_blind
        self._near_m, self._near_rad, self._gripper_s, self._patience_s = near_m, near_rad, gripper_s, patience_s
        self._sensors, self._ignored = model_sensors(model), ignored_sensors(model)
        self._device = next(model.parameters()).device
        self.blind = 0
        self.last: Any = None  # the model's newest result, for reports
        self.reset()

    @property
    def model(self) -> Model:
        """The model, in evaluation mode."""
        return self._model

    def reset(self) -> None:
        self._checked = False
        self._more: tuple[str, ...] = ()  # cameras that the model was not made for and reads nevertheless
        self._blind_now = 0
        self._goal: NDArray[np.float32] | None = None
        self._gripper = 1.0  # what the gripper was last told
        self._best, self._best_s = np.inf, 0.0  # the nearest that the tool has come, and when
        self._arrived_s: float | None = None

    def act(self, observation: Observation) -> Action:
        """The next command.

        Raises:
            SensorError: too few points inside the workspace, several times in a row.
            WiringError: the observation is not of the model's sensors.
        """
        if not self._checked:
            others = observation.streams.keys() - self._sensors.keys() - self._ignored
            self._more = tuple(n for n in others if self._model.also_reads(observation.streams[n].data))
            check_fits("KeyPosePolicy", self._model, self._sensors, self._ignored | {*self._more}, observation)
            self._checked = True
        if not self._follow:
            return Action(self._predict(observation), self._spec)
        if self._goal is None or self._over(observation.now_s):
            self._goal, self._arrived_s = self._predict(observation), None
            self._best, self._best_s = np.inf, observation.now_s
        goal = self._goal
        if self._arrived_s is None and self._there(goal, observation):
            self._arrived_s = observation.now_s
            self._gripper = float(goal[self._key_spec.part("gripper")][0])
        values = np.empty(self._spec.size, np.float32)
        for name in self._spec.parts:
            values[self._spec.part(name)] = goal[self._key_spec.part(name)]
        values[self._spec.part("gripper")] = self._gripper
        return Action(values, self._spec)

    @torch.inference_mode()
    def _predict(self, observation: Observation) -> NDArray[np.float32]:
        read = Observation(
            observation.now_s, {name: observation.streams[name] for name in (*self._sensors, *self._more)}
        )
        self.last = result = self._model(collate([read], self._device))[HEAD]
        values: NDArray[np.float32] = result.values[0, 0].float().cpu().numpy()
        if bool(result.usable[0]) and np.isfinite(values).all():
            self._blind_now = 0
            return np.clip(values, self._key_spec.space.low, self._key_spec.space.high)
        self.blind, self._blind_now = self.blind + 1, self._blind_now + 1
        seen = 100 * float(result.seen[0])
        if self._most_blind is not None and self._blind_now >= self._most_blind:
            raise SensorError(
                "KeyPosePolicy", "enough points inside the workspace",
                f"{seen:.2f} % of the pixels, {self._blind_now} times in a row",
                "Check that the cameras see the workspace, their calibration, and the model's low_m and high_m.",
            )  # fmt: skip
        _LOG.warning("holding still: only %.2f %% of the pixels are points inside the workspace", seen)
        return self._here(observation)

    def _here(self, observation: Observation) -> NDArray[np.float32]:
        """The present pose as a key pose, so that nothing moves."""
        joints = newest(observation, self._joints)
        if joints is None:
            raise SensorError(
                "KeyPosePolicy", f"a valid frame of '{self._joints}'", "none", "The robot must know where it is."
            )
        values = np.zeros(self._key_spec.size, np.float32)
        tool, opening = joints["base_from_tool"], float(joints["gripper_m"][0])
        values[self._key_spec.part("position_m")] = tool[:3, 3]
        values[self._key_spec.part("rotation_6d")] = matrix_to_rotation_6d(tool[:3, :3])
        values[self._key_spec.part("gripper")] = 1.0 if opening > OPEN_M / 2 else -1.0
        values[self._key_spec.part("avoid")] = 1.0
        return np.clip(values, self._key_spec.space.low, self._key_spec.space.high)

    def _there(self, goal: NDArray[np.float32], observation: Observation) -> bool:
        """Whether the tool has arrived, or has stopped to come nearer."""
        joints = newest(observation, self._joints)
        if joints is None:
            return False  # not known; the command stays the same
        tool = joints["base_from_tool"]
        away_m = float(np.linalg.norm(tool[:3, 3] - goal[self._key_spec.part("position_m")]))
        wanted = rotation_6d_to_matrix(goal[self._key_spec.part("rotation_6d")])
        away_rad = float(rotation_angle_rad(tool[:3, :3], wanted))
        if away_m + 0.1 * away_rad < self._best - 1e-3:
            self._best, self._best_s = away_m + 0.1 * away_rad, observation.now_s
        stuck = observation.now_s - self._best_s > self._patience_s
        return (away_m < self._near_m and away_rad < self._near_rad) or stuck

    def _over(self, now_s: float) -> bool:
        """Whether the gripper has had its time at the key pose."""
        return self._arrived_s is not None and now_s - self._arrived_s >= self._gripper_s - EPSILON_S
