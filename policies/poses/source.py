"""PoseSource: what a dataset of posed objects is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray


class PosedInstance(Protocol):
    """One object in one picture."""

    @property
    def number(self) -> int:
        """Which object."""

    @property
    def camera_from_object(self) -> FloatArray:
        """float64 [4, 4]."""

    @property
    def visible_share(self) -> float:
        """Visible pixels over all pixels that it would have with nothing in front."""

    @property
    def index(self) -> int:
        """Its place in the picture's list of instances."""


class PoseSource(Protocol):
    """Pictures of posed objects, such as :class:`perceive.pose.files.dataset.PoseDataset`."""

    @property
    def models(self) -> Mapping[int, ObjectModel]:
        """Number -> model."""

    @property
    def views(self) -> tuple[Any, ...]:
        """Keys of the pictures, each with ``scene`` and ``image``."""

    def truth(self, key: Any) -> tuple[Any, ...]:
        """The instances in a picture, each a :class:`PosedInstance`."""

    def frame(self, key: Any) -> RgbdFrame:
        """A picture."""

    def visible_mask(self, key: Any, index: int) -> NDArray[np.bool_]:
        """The visible pixels of an instance, [H, W]."""
