"""PerceptionFeatures: a PerceptionModel as the features extractor of stable-baselines3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.heads.readout import ReadoutHead
from perceive.model import PerceptionModel
from policies.goals import GOAL_KEYS, POSITION, split_space
from sensors.errors import WiringError
from sensors.observation import AGE, VALID

HEAD = "features"


@final
class PerceptionFeatures(BaseFeaturesExtractor):
    """Flat observations -> encoders -> trunk -> the readouts of one head.

    Args:
        observation_space: flat Dict of a rig, with goals or without.
        model: config for PerceptionModel.from_config with one head, ``features``, a ReadoutHead. Goals are sensors
            named ``achieved_goal`` and ``desired_goal`` with the field ``position_m``.

    Raises:
        WiringError: the config does not fit the space.
    """

    def __init__(self, observation_space: spaces.Dict, model: Mapping[str, Any]) -> None:
        sensor_spaces, history = split_space(observation_space)
        perception = PerceptionModel.from_config(model, sensor_spaces, history)
        head = dict(perception.heads.items()).get(HEAD)
        if not isinstance(head, ReadoutHead) or len(perception.heads) != 1:
            got = {name: type(part).__name__ for name, part in perception.heads.items()}
            fix = "Give the model this one head: it learns from the algorithm's loss."
            raise WiringError("PerceptionFeatures", f"one head '{HEAD}', a ReadoutHead", f"{got}", fix)
        super().__init__(observation_space, head.size)
        self.model = perception

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features [B, R * D] of a dict of tensors [B, ...]."""
        result: Tensor = self.model(to_batch(observations))[HEAD].features
        return result


def to_batch(observations: Mapping[str, Tensor]) -> Batch:
    """Flat tensors [B, T, ...] and goals [B, 3] as a batch."""
    data: dict[str, dict[str, Tensor]] = {}
    ages: dict[str, Tensor] = {}
    valid: dict[str, Tensor] = {}
    for key, value in observations.items():
        name, _, field = key.rpartition("/")
        if key in GOAL_KEYS:
            data[key] = {POSITION: value[:, None]}
            ages[key] = value.new_zeros(len(value), 1)
            valid[key] = torch.ones_like(ages[key], dtype=torch.bool)
        elif field == AGE:
            ages[name] = value
        elif field == VALID:
            valid[name] = value > 0.5
        else:
            data.setdefault(name, {})[field] = value
    return Batch({name: BatchStream(parts, ages[name], valid[name]) for name, parts in data.items()})
