"""Stems: what differs from one kind of touch sensor to the next, before a trunk that they all share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, final

from gymnasium import spaces

from perceive.build import TARGET
from perceive.encoders.base import Encoder
from perceive.encoders.force_field import ForceFieldEncoder
from perceive.encoders.gel_image import GelImageEncoder


@dataclass(frozen=True)
class StemPlan(ABC):
    """The settings of a stem: an encoder without its sensor, so that one plan can serve several kinds."""

    @abstractmethod
    def build(self, space: spaces.Dict, history: int, width: int) -> Encoder:
        """The encoder of a sensor.

        Raises:
            WiringError: it does not fit the space.
        """

    def to_config(self) -> dict[str, Any]:
        """Plain data from which :func:`perceive.build.build` makes this plan again."""
        return {TARGET: f"{type(self).__module__}.{type(self).__qualname__}", **asdict(self)}


@final
@dataclass(frozen=True)
class GelStem(StemPlan):
    """A stem of gel pictures; see :class:`perceive.encoders.gel_image.GelImageEncoder`."""

    patch_px: int = 8
    cell_px: int = 4
    cell_width: int = 32
    contrast: float = 64.0
    reference: str | None = None

    def build(self, space: spaces.Dict, history: int, width: int) -> GelImageEncoder:
        return GelImageEncoder(
            space, history, width, self.patch_px, self.cell_px, self.cell_width, self.contrast, self.reference
        )


@final
@dataclass(frozen=True)
class ForceStem(StemPlan):
    """A stem of force fields, taxels or beads; see :class:`perceive.encoders.force_field.ForceFieldEncoder`."""

    field: str = "force_N"
    patch_rows: int = 5
    patch_columns: int = 5
    scale_N: float = 0.05  # noqa: N815  (units keep their own capital letter, design convention 4)

    def build(self, space: spaces.Dict, history: int, width: int) -> ForceFieldEncoder:
        return ForceFieldEncoder(space, history, width, self.field, self.patch_rows, self.patch_columns, self.scale_N)
