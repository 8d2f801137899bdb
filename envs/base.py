"""RobotEnv: a robot, a task and a rig of sensors as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from envs.experts.base import Expert, down
from envs.key_moves import KeyMoves
from envs.planner import BLOCKED, UNREACHABLE
from envs.randomisation import Randomisation
from envs.robots.base import Robot
from envs.scene import Table
from envs.stepping import Stepping
from envs.tasks.base import Goal, Task, no_goal
from envs.world import PyBulletWorld
from sensors.action import ActionMode, ActionSpec
from sensors.errors import SpecError, nearest
from sensors.geometry import FloatArray, intrinsics_from_fov, look_at
from sensors.rig import SensorRig

START_M = (0.5, 0.0, 0.27)  # tool point at the start: over the middle of the table, high enough for a wrist camera
START_SPREAD_M, START_SPREAD_RAD = 0.02, 0.1
SETTLE_STEPS = 6  # contacts need a few physics steps to carry the weight
MAX_FAILED = 3  # so many moves in a row to which there is no way end an episode
NO_WAY = (UNREACHABLE, BLOCKED)
PLANNER = 1  # tells the planner's random numbers from the sensors'


@final
class RobotEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """One robot at one task, seen through a rig of sensors.

    Observations are flat dicts ``"sensor/field"`` (:mod:`sensors.observation`), plus ``achieved_goal`` and
    ``desired_goal`` (float32 [3], metres, base frame) if ``goal_keys``. ``info`` has ``now_s`` (float), ``is_success``
    (bool) and ``action_sent`` (float32 [A], the action after clipping to the limits). An episode ends with success.

    In the mode "key_pose" one step is one whole move (:mod:`envs.key_moves`), and the ``info`` of a step has ``plan``
    too: "" when the key pose was reached, or why not: "unreachable", "blocked" or "stalled". Three moves in a row to
    which there is no way ("unreachable", "blocked") truncate the episode.

    Args:
        task: what is to be done.
        robot: who does it.
        rig: what it senses; every rate must divide ``physics_hz``.
        action_mode: a value of :class:`sensors.action.ActionMode`.
        control_hz: actions per second; must divide ``physics_hz``.
        physics_hz: physics steps per second.
        max_steps: actions per episode in the modes in which an action lasts one control period.
        max_key_poses: actions per episode in the mode "key_pose", in which one is a whole move.
        randomisation: what differs between episodes.
        goal_keys: whether observations carry the goal, for goal-conditioned learning.
        renderer: "tiny" (CPU), "egl" (GPU) or "auto".
        render_mode: "rgb_array" or None.

    Raises:
        SpecError: rates that do not fit together, an unknown mode, or goal keys for a task without a goal.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self,
        task: Task,
        robot: Robot,
        rig: SensorRig,
        action_mode: str = "ee_pose",
        control_hz: float = 12.0,
        physics_hz: float = 240.0,
        max_steps: int = 60,
        max_key_poses: int = 25,
        randomisation: Randomisation | None = None,
        goal_keys: bool = False,
        renderer: str = "auto",
        render_mode: str | None = None,
    ) -> None:
        modes = [mode.value for mode in ActionMode]
        if action_mode not in modes:
            raise SpecError(
                "RobotEnv, action_mode", f"one of {modes}", repr(action_mode), nearest(str(action_mode), modes)
            )
        if render_mode not in (None, "rgb_array"):
            raise SpecError("RobotEnv, render_mode", "'rgb_array' or None", repr(render_mode), "Use one of them.")
        if goal_keys and not task.has_goal:
            raise no_goal(type(task).__name__)
        if max_steps < 1:
            raise SpecError("RobotEnv, max_steps", "at least 1", repr(max_steps), "Correct the env's config.")
        if max_key_poses < 1:
            raise SpecError("RobotEnv, max_key_poses", "at least 1", repr(max_key_poses), "Correct the env's config.")
        self.render_mode = render_mode
        self.task = task
        self.robot = robot
        self.rig = rig
        self.action_spec: ActionSpec = robot.action_spec(ActionMode(action_mode), 1.0 / control_hz)
        self.max_steps = max_steps
        self.max_key_poses = max_key_poses
        self._randomisation = randomisation or Randomisation()
        self._steps = 0
        self._failed = 0
        self._done = True
        self._closed = False
        self._expert_spec: ActionSpec = robot.action_spec(ActionMode.EE_POSE, 1.0 / control_hz)
        self.world = PyBulletWorld(physics_hz, renderer=renderer)
        self._stepping = Stepping(self.world, task, rig, physics_hz, control_hz)
        self._moves: KeyMoves | None = None
        if self.action_spec.mode is ActionMode.KEY_POSE:
            self._moves = KeyMoves(self.world, robot, self._stepping, self.action_spec)
        robot.attach(self.world)
        self._table = Table(self.world)
        task.attach(self.world, robot)
        robot.reset(_start(np.zeros(4)))
        self.world.remember()
        rig.open(self.world)
        self._goal_keys = goal_keys
        self.action_space: spaces.Box = self.action_spec.space  # type: ignore[assignment]  # Gymnasium wants one dtype
        parts: dict[str, spaces.Space[Any]] = dict(rig.space.spaces)
        if goal_keys:
            for name in ("achieved_goal", "desired_goal"):
                parts[name] = spaces.Box(-10.0, 10.0, (3,), np.float32)
        self.observation_space: spaces.Dict = spaces.Dict(parts)  # type: ignore[assignment]  # its type holds Any

    @property
    def now_s(self) -> float:
        """Simulated time since reset, seconds."""
        return self.world.time_s

    @property
    def period_s(self) -> float:
        """Seconds between two actions."""
        return self.action_spec.period_s

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode. All that is random comes from ``np_random``, so a seeded reset fixes all later ones too."""
        super().reset(seed=seed)
        # One generator for each part: what one draws never shifts the others.
        look, place, start = (np.random.default_rng(key) for key in self.np_random.integers(0, 2**63, 3))
        noise = int(self.np_random.integers(0, 2**63))
        self.task.clear()
        self.world.restore()
        self._table.reset(look, self._randomisation)
        drawn = start.uniform(-1.0, 1.0, 4)
        self.robot.reset(_start(drawn if self._randomisation.start else np.zeros(4)))
        self.task.reset(place, self._randomisation)
        self.world.instruct(self.task.instruction)
        self.world.step(SETTLE_STEPS)
        self.task.update()
        self.world.start_clock()
        self._steps = self._failed = 0
        self._done = False
        if self._moves is not None:
            # From the noise's key, so that the mode shifts no other random number.
            self._moves.reset(np.random.default_rng([noise, PLANNER]))
        self.rig.reset(0.0, noise)
        self.rig.tick(0.0)
        idle = np.zeros(self.action_spec.size, np.float32)
        return self._observation(), {"now_s": 0.0, "is_success": self.task.outcome().success, "action_sent": idle}

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Act for one control period; in the mode "key_pose" for one whole move.

        Raises:
            SpecError: the action has a wrong shape or is not finite, or the episode is over.
        """
        if self._done:
            raise SpecError("RobotEnv.step", "a running episode", "none, or one that has ended", "Call reset() first.")
        sent, plan = self._act(action)
        outcome = self.task.outcome()
        self._steps += 1
        self._failed = self._failed + 1 if plan in NO_WAY else 0
        most = self.max_steps if self._moves is None else self.max_key_poses
        truncated = (self._steps >= most or self._failed >= MAX_FAILED) and not outcome.success
        self._done = outcome.success or truncated
        info = {"now_s": self.now_s, "is_success": outcome.success, "action_sent": sent}
        if self._moves is not None:
            info["plan"] = plan
        observation = self._observation()
        reward = outcome.reward
        if self._goal_keys:
            # Relabelled steps are paid by the goal alone, so the steps that were really made have to be too.
            reward = float(self._goal_reward(observation["achieved_goal"], observation["desired_goal"], None))
        return observation, reward, outcome.success, truncated, info

    def _act(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
        """Act for one control period or one whole move: what was obeyed, and why a key pose was not reached."""
        if self._moves is not None:
            return self._moves.carry_out(action)
        sent = self.robot.command(action, self.action_spec)
        self._stepping.period()
        return sent, ""

    def expert(self) -> Expert:
        """A scripted solver of the present episode; its actions are end-effector poses.

        Raises:
            SpecError: the robot's actions lack rotation or gripper.
        """
        return self.task.expert(self._expert_spec)

    @property
    def compute_reward(self) -> Callable[[ArrayLike, ArrayLike, Any], NDArray[np.float32]]:
        """``compute_reward(achieved, desired, info)``: reward [...] of goals [..., 3], for hindsight relabelling.

        There only if observations carry goals, since stable-baselines3 takes an environment for a goal environment by
        the existence of this name.

        Raises:
            AttributeError: the environment was made without ``goal_keys``.
        """
        if not self._goal_keys:
            raise AttributeError("compute_reward: made without goal_keys")
        return self._goal_reward

    def render(self) -> NDArray[np.uint8]:
        """A picture uint8 [240, 320, 3] of the scene from the front, for people."""
        return _portrait(self.world)

    def close(self) -> None:
        """Let go of the simulator. May be called twice."""
        if not self._closed:
            self.rig.close()
            self.world.close()
            self._closed = True

    def _observation(self) -> dict[str, NDArray[Any]]:
        out = self.rig.observe(self.now_s).to_dict()
        if self._goal_keys:
            goal = self._goal()
            out["achieved_goal"], out["desired_goal"] = goal.achieved, goal.desired
        return out

    def _goal_reward(self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any) -> NDArray[np.float32]:
        return self.task.compute_reward(achieved_goal, desired_goal)

    def _goal(self) -> Goal:
        goal = self.task.goal()
        if goal is None:
            raise no_goal(type(self.task).__name__)
        return goal


def _start(drawn: NDArray[np.float64]) -> FloatArray:
    """``base_from_tool`` at the start of an episode, moved by four numbers in [-1, 1]."""
    out = np.eye(4)
    out[:3, :3] = down(START_SPREAD_RAD * float(drawn[3]))
    out[:3, 3] = np.asarray(START_M) + START_SPREAD_M * drawn[:3]
    return out


def _portrait(world: PyBulletWorld) -> NDArray[np.uint8]:
    camera = look_at((1.35, 0.75, 0.75), (0.4, 0.0, 0.15))
    return world.render(camera, intrinsics_from_fov(320, 240, 45.0), 320, 240, 0.05, 5.0).rgb
