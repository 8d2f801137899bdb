"""What several schemas share: components, the training loop's numbers, the noise of demonstrations."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any

from policies.settings import TrainSettings

Component = dict[str, Any]


def mutable_twin(cls: type) -> type:
    """A dataclass with the same fields and defaults that is not frozen: Hydra refuses overrides of frozen ones.

    Only plain data may be a default.
    """
    hints = typing.get_type_hints(cls)
    fields = [(f.name, hints[f.name], field(default=f.default)) for f in dataclasses.fields(cls)]
    return dataclasses.make_dataclass(f"{cls.__name__}Schema", fields, namespace={"__doc__": cls.__doc__})


TrainSettingsSchema = mutable_twin(TrainSettings)


@dataclass
class NoiseSchema:
    """Disturbance of what is executed while the expert's clean action stays the label (see perceive.cli.noise).

    Attributes:
        position_m: standard deviation of the offset of the commanded position in each axis, metres.
        rotation_rad: standard deviation of the commanded rotation about each axis, radians.
        burst_probability: that a burst starts at a step.
        burst_steps: mean length of a burst, control steps; the offset stays the same within one.
        only_open: none while the gripper is told to close, for things that must not be shaken in the hand.
    """

    position_m: float = 0.0
    rotation_rad: float = 0.0
    burst_probability: float = 0.1
    burst_steps: float = 6.0
    only_open: bool = False
