"""Whether the robot moved so that hand-eye calibration has one answer, and what motion is missing if not.

R. Y. Tsai and R. K. Lenz, "A New Technique for Fully Autonomous and Efficient 3D Robotics Hand/Eye Calibration", IEEE
Trans. Robotics and Automation 5(3), 1989: two turns about axes that are not parallel are needed; without them the
camera's place along the one axis is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from sensors.calibration.closed_form import relative_poses
from sensors.errors import DataError
from sensors.geometry import FloatArray, matrix_to_axis_angle

LEAST_POSES = 3
_LEAST_TURN_DEG = 5.0
_LEAST_ACROSS_DEG = 3.0
_GOOD_ACROSS_DEG = 15.0
_GOOD_POSES = 10


@final
@dataclass(frozen=True, eq=False)
class Motion:
    """How the hand turned between the pictures.

    Attributes:
        turn_deg: the greatest turn between two poses.
        across_deg: the greatest turn about axes across the main one.
        axis: the main axis [3], unit length, in the frame of the camera's carrier.
    """

    turn_deg: float
    across_deg: float
    axis: FloatArray


def check_motion(carriers: FloatArray, frame: str) -> Motion:
    """Look at the motion.

    Args:
        carriers: G [N, 4, 4], see :mod:`sensors.calibration.refine`.
        frame: name of the camera's carrier, for the message.

    Raises:
        DataError: fewer than 3 poses, no turns, or all turns about one axis.
    """
    if len(carriers) < LEAST_POSES:
        raise DataError(
            "hand-eye calibration", f"at least {LEAST_POSES} poses of the hand", str(len(carriers)),
            f"Take {_GOOD_POSES} to 20 pictures, the hand turned to different sides.",
        )  # fmt: skip
    turns = matrix_to_axis_angle(relative_poses(carriers)[:, :3, :3])
    turns = turns[np.linalg.norm(turns, axis=1) < 3.0]  # near pi the sign of the axis is chance
    angles = np.linalg.norm(turns, axis=1)
    turn_deg = float(np.rad2deg(angles.max(initial=0.0)))
    if turn_deg < _LEAST_TURN_DEG:
        raise DataError(
            "hand-eye calibration", "a hand that turns between the pictures",
            f"turns of at most {turn_deg:.1f} degrees",
            "Turn the hand by 20 to 40 degrees, about two axes that are across each other; shifting it tells nothing.",
        )  # fmt: skip
    axis = np.linalg.svd(turns, full_matrices=False)[2][0]
    axis = axis * (1.0 if axis[np.argmax(np.abs(axis))] > 0 else -1.0)
    across_deg = float(np.rad2deg(np.linalg.norm(turns - np.outer(turns @ axis, axis), axis=1).max()))
    if across_deg < _LEAST_ACROSS_DEG:
        named = _named(axis)
        raise DataError(
            "hand-eye calibration", "turns of the hand about two axes or more",
            f"turns about one axis only, ({named}) of the {frame} frame (across it: {across_deg:.1f} degrees)",
            f"Also turn the hand by {_GOOD_ACROSS_DEG:.0f} degrees or more about an axis across this one: the camera's "
            f"place along it cannot be found otherwise.",
        )  # fmt: skip
    return Motion(turn_deg, across_deg, axis)


def motion_warnings(motion: Motion, poses: int) -> list[str]:
    """What would make the result surer."""
    said = []
    if poses < _GOOD_POSES:
        said.append(f"only {poses} poses: take {_GOOD_POSES} to 20")
    if motion.across_deg < _GOOD_ACROSS_DEG:
        named = _named(motion.axis)
        said.append(
            f"the hand turned by only {motion.across_deg:.0f} degrees about axes across ({named}): turn it more to all "
            "sides"
        )
    return said


def _named(axis: FloatArray) -> str:
    return ", ".join(f"{part:.2f}" for part in np.round(axis, 2) + 0.0)  # no -0.00
