"""Batch: observations as tensors. The only step from numpy to torch and the only device move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensors.errors import WiringError, nearest
from sensors.observation import Observation


@dataclass(frozen=True, eq=False)
class BatchStream:
    """One sensor of a batch.

    Attributes:
        data: field -> tensor [B, T, ...]; uint8 stays uint8, floats are float32.
        age_s: float32 [B, T].
        valid: bool [B, T].
    """

    data: Mapping[str, Tensor]
    age_s: Tensor
    valid: Tensor

    def to(self, device: torch.device | str) -> BatchStream:
        """The same stream on a device."""
        data = {name: value.to(device, non_blocking=True) for name, value in self.data.items()}
        return BatchStream(data, self.age_s.to(device), self.valid.to(device))


@dataclass(frozen=True, eq=False)
class Batch:
    """Sensor name -> stream of B samples."""

    streams: Mapping[str, BatchStream]

    @property
    def size(self) -> int:
        """B."""
        return next((stream.valid.shape[0] for stream in self.streams.values()), 0)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return Batch({name: stream.to(device) for name, stream in self.streams.items()})

    def stream(self, name: str) -> BatchStream:
        """One sensor's stream.

        Raises:
            WiringError: the batch has no such sensor.
        """
        if name not in self.streams:
            raise WiringError("Batch", f"the sensor '{name}'", f"{sorted(self.streams)}", nearest(name, self.streams))
        return self.streams[name]


@dataclass(frozen=True, eq=False)
class ActionTarget:
    """What an action head is to imitate.

    Attributes:
        values: float32 [B, K, A] in the units of the action spec.
        valid: bool [B, K]; False beyond the end of an episode.
    """

    values: Tensor
    valid: Tensor

    def to(self, device: torch.device | str) -> ActionTarget:
        """The same target on a device."""
        return ActionTarget(self.values.to(device), self.valid.to(device))


def to_tensor(value: NDArray[Any]) -> Tensor:
    """A tensor that shares memory where it can; float64 becomes float32."""
    return torch.from_numpy(np.ascontiguousarray(value, np.float32 if value.dtype == np.float64 else None))


def collate(observations: Sequence[Observation], device: torch.device | str = "cpu") -> Batch:
    """B observations of the same rig as one batch.

    Raises:
        WiringError: no observation, or observations with different sensors.
    """
    if not observations:
        raise WiringError("collate", "at least one observation", "none", "Pass the rig's observation in a list.")
    names = list(observations[0].streams)
    for index, observation in enumerate(observations):
        if list(observation.streams) != names:
            raise WiringError(
                "collate",
                f"the sensors {names}",
                f"{list(observation.streams)} in observation {index}",
                "Batch observations of one rig.",
            )
    streams = {}
    for name in names:
        parts = [observation.streams[name] for observation in observations]
        data = {field: to_tensor(np.stack([p.data[field] for p in parts])) for field in parts[0].data}
        age_s = to_tensor(np.stack([p.age_s for p in parts]))
        streams[name] = BatchStream(data, age_s, to_tensor(np.stack([p.valid for p in parts])))
    return Batch(streams).to(device)
