"""What a tracker says after each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from sensors.geometry import FloatArray

State = Literal["tracked", "uncertain", "lost"]


@final
@dataclass(frozen=True, eq=False)
class TrackedPose:
    """Where the object is, or was last seen, and whether to believe it.

    Attributes:
        number: which object (``ObjectModel.number``).
        stamp_s: capture time of the frame that this answers.
        camera_from_object: float64 [4, 4] in the camera of this frame; None = the object has not been seen yet. Where
            ``age_s`` is not 0 it is the last pose that was tracked, held still in the robot's base: never a prediction.
        covariance: float64 [6, 6] as ``PoseEstimate.covariance``, of the time when it was measured; None = no pose.
        state: "tracked" = measured in this frame and confirmed; "uncertain" = not confirmed, but it may come back at
            once; "lost" = a search is needed.
        reason: why, in words for people.
        age_s: time since the pose was measured; 0 = in this frame; infinite = never.
        score: between 0 and 1, agreeing share of the pixels where the object should be seen, unknown ones left out.
        visible_share: of the object's pixels with depth, those not behind an occluder.
        outline_share: of the visible outline, what lies on a jump of depth.
    """

    number: int
    stamp_s: float
    camera_from_object: FloatArray | None
    covariance: FloatArray | None
    state: State
    reason: str
    age_s: float
    score: float
    visible_share: float
    outline_share: float

    @property
    def valid(self) -> bool:
        """Whether the pose was measured in this frame and confirmed; act on nothing else."""
        return self.state == "tracked"
