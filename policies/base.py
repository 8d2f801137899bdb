"""Policy, the interface of everything that looks at an observation and says what the robot should do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from sensors.action import Action, ActionSpec
from sensors.observation import Observation


class Policy(ABC):
    """Observation -> Action.

    Life: constructed whole -> (``reset`` -> ``act`` ...) per episode.
    """

    @abstractmethod
    def reset(self) -> None:
        """Start an episode: forget everything remembered from the one before."""

    @abstractmethod
    def act(self, observation: Observation) -> Action:
        """The command for the moment ``observation.now_s``.

        Raises:
            WiringError: the observation is not of the sensors that this policy needs.
        """


@final
@dataclass(frozen=True)
class PolicyFor:
    """How to make a policy that has to be told the robot's actions, as a trained one is not.

    Attributes:
        make: robot's actions -> policy.
    """

    make: Callable[[ActionSpec], Policy]
