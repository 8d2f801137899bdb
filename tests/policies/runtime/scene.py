"""A robot made of numbers, for the tests of the runtime: specs, observations, and a link with a clock of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from policies.runtime.clock import Clock
from policies.runtime.robot import RobotLink
from sensors.action import Action, ActionMode, ActionSpec
from sensors.errors import SafetyStop
from sensors.geometry import FloatArray
from sensors.observation import MAX_AGE_S, Observation, Stream

LOW_M, HIGH_M = (0.25, -0.35, 0.005), (0.75, 0.35, 0.5)
PERIOD_S = 1 / 12
DOWN = np.diag([1.0, -1.0, -1.0])

# The modes whose actions are for one control period; a key pose is a whole move.
TICK_MODES = [mode for mode in ActionMode if mode is not ActionMode.KEY_POSE]


def make_spec(mode: ActionMode, period_s: float = PERIOD_S) -> ActionSpec:
    """The Panda's action specs, with gripper."""
    if mode is ActionMode.EE_POSE:
        parts = {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)}
        low, high = [*LOW_M, *[-1.0] * 7], [*HIGH_M, *[1.0] * 7]
    elif mode is ActionMode.EE_DELTA:
        parts = {"position": (0, 3), "rotation": (3, 6), "gripper": (6, 7)}
        low, high = [-1.0] * 7, [1.0] * 7
    else:
        parts = {"position_rad": (0, 7), "gripper": (7, 8)}
        low, high = [-2.8] * 7 + [-1.0], [2.8] * 7 + [1.0]
    box = spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)
    return ActionSpec(mode, box, parts, period_s)


def make_observation(
    now_s: float,
    position_m: FloatArray | tuple[float, ...] = (0.5, 0.0, 0.25),
    age_s: float = 0.0,
    valid: bool = True,
    rotation: FloatArray = DOWN,
    joints: FloatArray | tuple[float, ...] = (0.0,) * 7,
) -> Observation:
    """What a rig of joints only shows."""
    tool = np.eye(4, dtype=np.float32)
    tool[:3, :3], tool[:3, 3] = rotation, position_m
    data = {
        "position_rad": np.asarray(joints, np.float32)[None],
        "velocity_rad_s": np.zeros((1, 7), np.float32),
        "gripper_m": np.full((1, 1), 0.08, np.float32),
        "base_from_tool": tool[None],
    }
    if not valid:
        data = {name: np.zeros_like(value) for name, value in data.items()}
        age_s = MAX_AGE_S
    return Observation(now_s, {"joints": Stream(data, np.array([age_s], np.float32), np.array([valid]))})


class FakeClock(Clock):
    """Time that passes only when told to, or by waiting."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def now_s(self) -> float:
        return self.time_s

    def wait_until(self, moment_s: float) -> None:
        self.time_s = max(self.time_s, moment_s)


class FakeRobot(RobotLink):
    """A tool that jumps to where it is commanded.

    Args:
        clock: the loop's; observing and commanding take no time by it.
        spec: of its actions.
    """

    def __init__(self, clock: FakeClock, spec: ActionSpec) -> None:
        self._clock = clock
        self._spec = spec
        self.position_m = np.array([0.5, 0.0, 0.25])
        self.sent: list[tuple[float, np.ndarray]] = []
        self.stopped = threading.Event()
        self.dead = False
        self.blind_after_s = float("inf")
        self.frozen_after_s = float("inf")

    @property
    def action_spec(self) -> ActionSpec:
        return self._spec

    def observe(self) -> Observation:
        if self.dead:
            raise SafetyStop("robot 'fake'", "an answer", "none", "Plug it in.")
        now_s = self._clock.now_s() - 100.0
        last_s = min(now_s, self.blind_after_s)
        return make_observation(
            min(now_s, self.frozen_after_s), self.position_m, age_s=now_s - last_s if last_s < now_s else 0.0
        )

    def command(self, action: Action) -> Action:
        assert not self.stopped.is_set(), "a command after the stop"
        self.sent.append((self._clock.now_s(), action.values))
        if self._spec.mode is ActionMode.EE_POSE:
            self.position_m = action.values[:3].astype(float)
        return action

    def stop(self) -> None:
        self.stopped.set()

    def report(self) -> Mapping[str, float | bool | str]:
        if self.dead:
            raise SafetyStop("robot 'fake'", "an answer", "none", "Plug it in.")
        return {"is_success": False}

    def close(self) -> None:
        self.stop()
