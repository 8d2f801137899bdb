"""What a pose estimator is asked and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray


@final
@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """Where one object is, how sure that is, and what else it could be.

    Attributes:
        number: which object (``ObjectModel.number``).
        camera_from_object: float64 [4, 4], metres, OpenCV camera (z forwards, y down).
        score: higher is better; comparable between estimates of one estimator only.
        covariance: float64 [6, 6] of a small motion (rotation vector rad, then translation m) applied to the object
            in its own frame: true = camera_from_object @ exp(motion). None = the estimator cannot say.
        others: float64 [K, 4, 4], further hypotheses, best first.
        other_scores: float64 [K].
    """

    number: int
    camera_from_object: FloatArray
    score: float
    covariance: FloatArray | None
    others: FloatArray
    other_scores: FloatArray


class PoseEstimator(ABC):
    """Finds the poses of known objects in one RGB-D picture."""

    @property
    @abstractmethod
    def numbers(self) -> tuple[int, ...]:
        """The objects that it knows."""

    @abstractmethod
    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        """Poses of one object, best first; an empty list = not seen.

        Args:
            frame: colours, depth (all zero = there is no depth) and camera.
            number: which object.
            mask: bool [H, W], the pixels of one instance of it; None = find it.
            most: how many instances to report at most, where no mask is given.

        Raises:
            DataError: the mask is empty or of another size, the intrinsics are not of this picture.
            SpecError: the estimator does not know the object, or cannot do without a mask or without depth.
        """


def check_view(where: str, frame: RgbdFrame, mask: NDArray[np.bool_] | None) -> None:
    """Refuse pictures, cameras and masks that do not belong together.

    Raises:
        DataError: sizes differ, intrinsics are impossible for the picture, or the mask is empty.
    """
    height, width = frame.rgb.shape[:2]
    if frame.depth_m.shape != (height, width):
        raise DataError(
            where, f"depth [{height}, {width}] like the colours", f"{frame.depth_m.shape}", "Align depth to colour."
        )
    camera = np.asarray(frame.intrinsics_px)
    if camera.shape != (4,) or not np.isfinite(camera).all():
        raise DataError(
            where, "intrinsics [fx, fy, cx, cy]", f"{camera!r}", "Pass four numbers, not the 3 x 3 matrix K."
        )
    fx, fy, cx, cy = (float(x) for x in camera)
    if fx <= 0 or fy <= 0 or not (-width < cx < 2 * width and -height < cy < 2 * height):
        raise DataError(
            where, f"intrinsics of a picture of {width} x {height} px", f"fx {fx}, fy {fy}, cx {cx}, cy {cy}",
            "Scale K with the picture; are they those of another resolution?",
        )  # fmt: skip
    if mask is not None:
        if mask.shape != (height, width):
            raise DataError(where, f"a mask [{height}, {width}]", f"{mask.shape}", "Use the mask of this picture.")
        if not mask.any():
            raise DataError(where, "a mask with pixels", "an empty one", "The object is not in view: skip it.")
