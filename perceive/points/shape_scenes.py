"""ShapeScenes: generated shapes one by one, as labelled clouds to be kept in files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from perceive.points.files.cloud import LabelledCloud
from perceive.points.shapes import Rotation, ShapeSource
from sensors.errors import SpecError


@final
class ShapeScenes:
    """Clouds of single shapes by number: the class is ``label``, the parts are those of the points.

    Cloud number i is of class ``i % len(classes)``, and a pure function of the arguments and i.

    Args:
        seed: see :class:`perceive.points.shapes.ShapeSource`, also for the others.
        points: of every cloud.
        classes: names; None = all.
        rotation: "none", "z" or "so3".
        radius_m: None = as large as the real thing.
        noise_m: standard deviation of each coordinate.
        outlier_share: from 0 to 1.
        one_sided: keep what a viewer in a random direction sees.

    Attributes:
        classes: names of the clouds' classes.
        parts: names of the points' parts, "class/part".

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        seed: int,
        points: int = 1024,
        classes: Sequence[str] | None = None,
        rotation: Rotation = "none",
        radius_m: float | None = 1.0,
        noise_m: float = 0.0,
        outlier_share: float = 0.0,
        one_sided: bool = False,
    ) -> None:
        self._source = ShapeSource(seed, points, classes, rotation, radius_m, noise_m, outlier_share, one_sided)
        self._seed = seed
        self.classes, self.parts = self._source.class_names, self._source.part_names

    def scene(self, number: int) -> LabelledCloud:
        """Cloud ``number``, 0 or more, in the frame "object".

        Raises:
            SpecError: a negative number.
        """
        if number < 0:
            raise SpecError("ShapeScenes.scene", "a number >= 0", repr(number), "Correct it.")
        shape = self._source.batch([number])
        return LabelledCloud(
            xyz_m=shape.xyz_m[0].numpy(),
            frame="object",
            normal=shape.normal[0].numpy(),
            part=shape.part[0].numpy(),
            label=int(shape.label[0]),
            classes=self.classes,
            parts=self.parts,
            name=f"shape {self._seed}/{number}",
        )

    def close(self) -> None:
        """Nothing is held."""
