"""Task: what has to be done, when it is done, and what it is worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.base import Expert
from envs.randomisation import Randomisation
from envs.robots.base import Robot
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError


@dataclass(frozen=True)
class Outcome:
    """How things stand after a control step.

    Attributes:
        reward: of this step.
        success: whether the task is done.
    """

    reward: float
    success: bool


@dataclass(frozen=True, eq=False)
class Goal:
    """What a goal-conditioned learner sees: float32 [3] in the base frame, metres."""

    achieved: NDArray[np.float32]
    desired: NDArray[np.float32]


class Task(ABC):
    """One task. Life: constructed -> ``attach`` once -> (``reset`` -> ``update``, ``outcome`` ...) per episode."""

    @property
    @abstractmethod
    def instruction(self) -> str:
        """The task in words."""

    @property
    @abstractmethod
    def has_goal(self) -> bool:
        """Whether the task has a goal in space, see :meth:`goal`."""

    @abstractmethod
    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot; put up what stays through all episodes."""

    @abstractmethod
    def clear(self) -> None:
        """Remove what :meth:`reset` put up."""

    @abstractmethod
    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up this episode's objects and targets."""

    @abstractmethod
    def update(self) -> None:
        """What the scene does by itself: a lamp that lights up, a latch that falls in.

        Called after every stretch of physics, at least once per control period.
        """

    @abstractmethod
    def outcome(self) -> Outcome:
        """How things stand now. Calling it twice changes nothing."""

    @abstractmethod
    def goal(self) -> Goal | None:
        """The goal of this episode and what is achieved of it; None if the task has no goal in space."""

    @abstractmethod
    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """Reward [...] of having achieved [..., 3] when [..., 3] was desired.

        Raises:
            SpecError: the task has no goal in space.
        """

    @abstractmethod
    def expert(self, spec: ActionSpec) -> Expert:
        """A scripted solver for this episode; ``spec`` is an end-effector-pose spec of the robot."""


def check_reward(name: str, reward: str) -> bool:
    """True for "dense", False for "sparse".

    Raises:
        SpecError: it is neither.
    """
    if reward not in ("dense", "sparse"):
        raise SpecError(f"{name}, reward", "'dense' or 'sparse'", repr(reward), "Correct the task's config.")
    return reward == "dense"


def goal_reward(achieved: ArrayLike, desired: ArrayLike, threshold_m: float, dense: bool) -> NDArray[np.float32]:
    """Minus the distance [...] in metres times ten (dense), or 0 within ``threshold_m`` and -1 outside (sparse).

    Times ten brings distances of centimetres to the size of the sparse reward.
    """
    distance = np.linalg.norm(np.asarray(achieved, float) - np.asarray(desired, float), axis=-1)
    reward: Any = -10.0 * distance if dense else -(distance >= threshold_m).astype(float)
    return np.asarray(reward, np.float32)


def no_goal(name: str) -> SpecError:
    """The error of a task that has no goal in space."""
    return SpecError(
        f"{name}, goal", "a task with a goal in space (Reach, Push, PickPlace)", name, "Use goal_keys: false."
    )


def attached(name: str, world: PyBulletWorld | None, robot: Robot | None) -> tuple[PyBulletWorld, Robot]:
    """Both, or the error that says that ``attach`` is missing."""
    if world is None or robot is None:
        raise SpecError(name, "a task attached to a world", "none", "Build it through envs.base.RobotEnv.")
    return world, robot
