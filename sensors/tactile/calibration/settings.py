"""What is known of a fingertip and of the ball before it is calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sensors.simulated import check_settings, positive
from sensors.tactile.gel import Gel
from sensors.tactile.presets import preset


@final
@dataclass(frozen=True)
class TouchSettings:
    """A kind of fingertip, the pictures that it gives, and the ball that is pressed into it.

    Attributes:
        model: "digit" or "gelsight_mini": the size of the gel unless ``size_m`` says otherwise.
        width: pixels of the upright picture.
        height: likewise.
        size_m: height and width [2] of the gel in the upright picture, metres; None = the model's.
        thickness_m: of the gel, metres; None = the model's.
        ball_radius_m: of the ball, metres. Measure it: the slopes are wrong by as much as it is.
        inner: share of a circle's radius within which the gel is taken to lie on the ball.
        least_presses: fewer that can be used are an error.
        least_change: grey values by which a contact changes the picture at least.
        saturated_share: share of pixels at 0 or 255 in a colour, beyond those of the background, that is too many.

    Raises:
        SpecError: a value is out of its range.
    """

    model: str
    width: int
    height: int
    ball_radius_m: float
    size_m: Sequence[float] | None = None
    thickness_m: float | None = None
    inner: float = 0.9
    least_presses: int = 6
    least_change: float = 12.0
    saturated_share: float = 0.02

    def __post_init__(self) -> None:
        size = preset(self.model).size_m if self.size_m is None else self.size_m
        check_settings(
            "TouchSettings",
            {
                "width": (self.width >= 16, self.width, "at least 16 pixels"),
                "height": (self.height >= 16, self.height, "at least 16 pixels"),
                "size_m": (len(size) == 2 and min(size) > 0, self.size_m, "height and width > 0, metres, or null"),
                **positive({"ball_radius_m": self.ball_radius_m, "least_change": self.least_change}),
                "ball_radius_m, in metres": (self.ball_radius_m < 0.05, self.ball_radius_m, "at most 0.05 m"),
                "thickness_m": (self.thickness_m is None or self.thickness_m > 0, self.thickness_m, "> 0, or null"),
                "inner": (0.3 <= self.inner <= 1, self.inner, "in [0.3, 1]"),
                "least_presses": (self.least_presses >= 3, self.least_presses, "at least 3"),
                "saturated_share": (0 < self.saturated_share < 1, self.saturated_share, "in (0, 1)"),
            },
        )

    @property
    def gel(self) -> Gel:
        """Its gel, seen with its pixels."""
        kind = preset(self.model)
        size = kind.size_m if self.size_m is None else self.size_m
        thickness = kind.thickness_m if self.thickness_m is None else self.thickness_m
        return Gel(float(size[0]), float(size[1]), thickness, self.height, self.width)
