"""What a pose data set speaks of: a view, an instance in it, and a target that is to be found in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from sensors.geometry import FloatArray

PixelBox = tuple[int, int, int, int]  # x, y, width, height in pixels, as BOP has them
UNKNOWN_BOX: PixelBox = (-1, -1, -1, -1)
UNKNOWN_SHARE = -1.0
LEAST_VISIBLE = 0.1  # an instance that shows less of itself need not be found (Hodan et al., BOP)


@final
@dataclass(frozen=True, order=True)
class ViewKey:
    """One picture of a data set; ordered by scene, then by picture.

    Attributes:
        scene: BOP's ``scene_id``.
        image: BOP's ``im_id``, unique in its scene only.
    """

    scene: int
    image: int

    def __str__(self) -> str:
        return f"scene {self.scene}, image {self.image}"


@final
@dataclass(frozen=True, eq=False)
class Instance:
    """One object in one view.

    Attributes:
        number: which object (``ObjectModel.number``).
        camera_from_object: float64 [4, 4], metres, OpenCV camera (z forwards, y down).
        visible_share: how much of its silhouette can be seen, 0 to 1; -1 = the data set does not say.
        box_visible_px: x, y, width and height of what can be seen; all -1 = nothing, or the data set does not say.
        index: its place among the instances of the view, which names its masks.
    """

    number: int
    camera_from_object: FloatArray
    visible_share: float
    box_visible_px: PixelBox
    index: int

    @property
    def counts(self) -> bool:
        """Whether it is visible enough to be looked for; one of unknown visibility counts as visible."""
        return self.visible_share < 0 or self.visible_share >= LEAST_VISIBLE


@final
@dataclass(frozen=True, order=True)
class Target:
    """What is to be found in a view.

    Attributes:
        key: where.
        number: which object.
        count: how many instances of it.
    """

    key: ViewKey
    number: int
    count: int
