"""Drive a robot in real time: a policy of your own, a loop at a fixed rate, and limits in between.

    python examples/05_run_on_a_robot.py [seconds]

The robot is the simulated Panda in a process of its own, which goes on whether or not anybody commands it. A driver
for a real arm implements the same interface, policies.runtime.robot.RobotLink. The policy asks for far more than is
safe on purpose: watch what the limiter makes of it.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from perceive.cli.compose import compose_config
from perceive.cli.sim_robot import launch
from policies.base import Policy
from policies.runtime.clock import MonotonicClock
from policies.runtime.hold import HoldPolicy
from policies.runtime.limits import SafetyLimits
from policies.runtime.loop import ControlLoop
from policies.runtime.safety import SafetyLimiter
from sensors.action import Action, ActionSpec
from sensors.observation import Observation


class Circle(Policy):
    """Draws a circle of 8 cm, and once a second says something that no robot should do."""

    def __init__(self, spec: ActionSpec) -> None:
        self._hold = HoldPolicy(spec)  # the first pose: middle of the circle, and the tool's rotation
        self._start_s: float | None = None

    def reset(self) -> None:
        self._hold.reset()
        self._start_s = None

    def act(self, observation: Observation) -> Action:
        middle = self._hold.act(observation)
        if self._start_s is None:
            self._start_s = observation.now_s
        passed_s = observation.now_s - self._start_s
        values = middle.values.copy()
        position = middle.spec.part("position_m")
        angle = 2 * math.pi * passed_s / 4
        values[position] += np.array([0.08 * math.cos(angle) - 0.08, 0.08 * math.sin(angle), 0.0], np.float32)
        if passed_s % 1 > 0.9:
            values[position] = (np.nan, 5.0, -3.0)[int(passed_s) % 3]
        return Action(values, middle.spec)


if __name__ == "__main__":
    duration_s = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    env = compose_config("run", ["policy=circle", "env=reach", "rig=state"])["env"]
    robot = launch(env, seed=0)
    try:
        # The workspace comes from the robot's action spec; the speed limit is our own, half of what the robot could do.
        limiter = SafetyLimiter(robot.action_spec, SafetyLimits(linear_m_s=0.25))
        loop = ControlLoop(robot, Circle(robot.action_spec), limiter, MonotonicClock(), phase_sensor="joints")
        print(loop.run(duration_s))
    finally:
        robot.close()
