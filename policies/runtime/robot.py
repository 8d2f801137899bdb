"""RobotLink, the interface between the control loop and a robot, real or simulated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from sensors.action import Action, ActionSpec
from sensors.observation import Observation


class RobotLink(ABC):
    """A robot that runs on its own clock while it is being watched and commanded.

    Life: constructed whole and connected -> (``observe``, ``command``) at the loop's rate -> ``stop`` -> ``close``.
    A robot must stay safe by itself when commands cease: the loop may die.
    """

    @property
    @abstractmethod
    def action_spec(self) -> ActionSpec:
        """What it takes for an action."""

    @abstractmethod
    def observe(self) -> Observation:
        """What its sensors show now; ``now_s`` is the robot's clock.

        Raises:
            SafetyStop: the robot does not answer.
        """

    @abstractmethod
    def command(self, action: Action) -> Action:
        """Start to act. Returns the action as the robot obeys it, after its own limits.

        Raises:
            SafetyStop: the robot does not answer.
        """

    @abstractmethod
    def stop(self) -> None:
        """Come to a halt and stay there, whatever was commanded. Never raises; may be called from another thread."""

    @abstractmethod
    def report(self) -> Mapping[str, float | bool | str]:
        """What the robot says about its run: clocks, counts, and ``is_success`` where it knows of a task.

        Raises:
            SafetyStop: the robot does not answer.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the robot. May be called twice."""
