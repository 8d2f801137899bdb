"""The process of a simulated robot: physics by the wall clock, sensors read when due, commands obeyed as they come.

Started by :mod:`perceive.cli.sim_robot` as ``python -m perceive.cli.sim_process <socket>``; not for people.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from typing import final

import numpy as np
from numpy.typing import NDArray

from envs.base import RobotEnv
from perceive.build import build
from policies.goals import GOAL_KEYS, with_goals
from policies.runtime.wire import VERSION, Disconnected, Message, pack_observation, receive, send
from sensors.action import ActionMode
from sensors.errors import PerceiveError
from sensors.geometry import matrix_to_rotation_6d
from sensors.observation import Observation

MAX_LAG_S = 0.25  # further behind the wall clock than this, the simulated time slips instead of rushing to catch up
MAX_BURST = 5  # physics steps between two looks at the line, so that an answer is never late by more than these
SETUP_TIMEOUT_S = 30.0
MESSAGE_TIMEOUT_S = 1.0


def main(arguments: list[str]) -> int:
    """Serve one connection until it ends.

    Args:
        arguments: the number of the inherited socket.
    """
    line = socket.socket(fileno=int(arguments[0]))
    try:
        setup = receive(line, SETUP_TIMEOUT_S)
        try:
            env = build(setup["env"], where="env")
            env.rig.disable(frozenset(setup["disabled"]))
        except PerceiveError as error:
            send(line, {"error": str(error)})
            return 1
        try:
            physics_hz = float(setup["env"].get("physics_hz", 240.0))
            RealTimeRobot(env, int(setup["seed"]), float(setup["silence_s"]), physics_hz).serve(line)
        finally:
            env.close()
    except Disconnected:
        return 0  # the loop has ended, and with it the reason to be
    finally:
        line.close()
    return 0


@final
class RealTimeRobot:
    """An environment's robot, world and rig, run by the wall clock instead of by ``step``.

    Args:
        env: reset with ``seed`` here.
        seed: of its episode.
        silence_s: without a command for so long, the robot halts.
        physics_hz: the environment's.
    """

    def __init__(self, env: RobotEnv, seed: int, silence_s: float, physics_hz: float) -> None:
        env.reset(seed=seed)
        self._env = env
        self._silence_s = silence_s
        self._physics_hz = physics_hz
        self._per_period = max(round(env.action_spec.period_s * self._physics_hz), 1)
        self._gripper = np.zeros(0, np.float32)  # the gripper's last command
        self._steps = 0
        self._slipped_s = 0.0
        self._commands = 0
        self._halts = 0
        self._stopped = False
        self._commanded_s: float | None = None
        self._success_s: float | None = None

    def serve(self, line: socket.socket) -> None:
        """Run in real time and answer until the line is closed.

        Raises:
            Disconnected: it is.
        """
        env = self._env
        send(line, {"version": VERSION, "action": env.action_spec.to_json()})
        start_s = time.monotonic()
        while True:
            behind_s = time.monotonic() - start_s - env.now_s
            if behind_s > MAX_LAG_S:
                self._slipped_s += behind_s
                start_s += behind_s
                behind_s = 0.0
            steps = min(int(behind_s * self._physics_hz), MAX_BURST)
            self._advance(steps)
            wait_s = 0.0 if steps else max(start_s + env.now_s + 1.0 / self._physics_hz - time.monotonic(), 0.0)
            if select.select([line], [], [], wait_s)[0]:
                answer = self._answer(receive(line, MESSAGE_TIMEOUT_S))
                if answer is not None:
                    send(line, answer)

    def _advance(self, steps: int) -> None:
        """Physics, with every sensor read exactly when it is due."""
        env = self._env
        for _ in range(steps):
            env.world.step(1)
            self._steps += 1
            env.rig.tick(env.now_s)
            if self._steps % self._per_period == 0:
                if self._success_s is None and env.task.outcome().success:
                    self._success_s = env.now_s
                if self._commanded_s is not None and env.now_s - self._commanded_s > self._silence_s:
                    self._halt()

    def _answer(self, message: Message) -> Message | None:
        what, number = message.get("do"), message.get("number")
        if what == "observe":
            return {"number": number, "observation": pack_observation(self._observe())}
        if what == "command":
            return self._command(message["values"], number)
        if what == "report":
            return {"number": number, "report": self._report()}
        if what == "stop":
            self._stopped = True
            self._halt()
            return None
        return {"number": number, "error": f"unknown message '{what}'"}

    def _observe(self) -> Observation:
        env = self._env
        observation, goal = env.rig.observe(env.now_s), env.task.goal()
        if goal is None or GOAL_KEYS[0] not in env.observation_space.spaces:
            return observation
        return with_goals(observation, dict(zip(GOAL_KEYS, (goal.achieved, goal.desired), strict=True)))

    def _command(self, values: NDArray[np.float32], number: int | None) -> Message:
        if self._stopped:
            return {"number": number, "error": "the robot was told to stop"}
        env = self._env
        try:
            sent = env.robot.command(values, env.action_spec)
        except PerceiveError as error:
            return {"number": number, "error": str(error)}
        self._commands += 1
        self._commanded_s = env.now_s
        if "gripper" in env.action_spec.parts:
            self._gripper = sent[env.action_spec.part("gripper")].copy()
        return {"number": number, "values": sent}

    def _halt(self) -> None:
        """Command the pose at which the robot is, with the gripper as it was commanded."""
        self._commanded_s = None
        self._halts += 1
        env, spec = self._env, self._env.action_spec
        values = np.zeros(spec.size, np.float32)
        tool = env.robot.tool_pose()
        if spec.mode is ActionMode.EE_POSE:
            values[spec.part("position_m")] = tool[:3, 3]
            if "rotation_6d" in spec.parts:
                values[spec.part("rotation_6d")] = matrix_to_rotation_6d(tool[:3, :3])
        elif spec.mode is ActionMode.JOINT_POSITION:
            values[spec.part("position_rad")] = env.world.joint_state().position_rad
        if "gripper" in spec.parts:
            values[spec.part("gripper")] = self._gripper if self._gripper.size else 1.0
        env.robot.command(values, spec)

    def _report(self) -> dict[str, float | bool]:
        wall_s = self._env.now_s + self._slipped_s
        return {
            "is_success": self._success_s is not None,
            "success_s": -1.0 if self._success_s is None else self._success_s,
            "time_s": self._env.now_s,
            "slipped_s": self._slipped_s,
            "real_time_factor": self._env.now_s / wall_s if wall_s > 0 else 1.0,
            "commands": self._commands,
            "halts": self._halts,
        }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
