"""Whether a picture says how an object is turned, and how, where the fit alone cannot know."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from perceive.pose.symmetry import symmetry_nearest
from perceive.pose.tracking.fit import DepthView, classify
from perceive.pose.tracking.side import Side
from perceive.pose.tracking.starts import round_axis
from sensors.geometry import FloatArray, rotation_angle_rad

_STEP_RAD = math.radians(15.0)
_SAME_RAD = math.radians(8.0)  # a symmetry puts it that near: nobody can see the difference
_TIE = 0.012  # shares of area that differ less say nothing
_APART = 0.03  # some turn must be so much worse, or the shape looks the same from all round


@final
@dataclass(frozen=True, eq=False)
class Turns:
    """What other turns about the least known axis explain.

    Attributes:
        better: float64 [4, 4], a pose that explains clearly more than the one asked about; None = there is none.
        ambiguous: a little to the left or right explains as much, though farther round it would not.
    """

    better: FloatArray | None
    ambiguous: bool


def turn_spread(covariance: FloatArray) -> tuple[float, FloatArray]:
    """Greatest standard deviation of the rotation in radians, and its axis [3] in the object's frame."""
    values, axes = np.linalg.eigh(covariance[:3, :3])
    return float(np.sqrt(max(values[-1], 0.0))), axes[:, -1]


def compare_turns(
    view: DepthView,
    camera_from_object: FloatArray,
    axis: FloatArray,
    middle_m: FloatArray,
    symmetries: FloatArray,
    see: Callable[[FloatArray], Side | None],
    band_m: float,
) -> Turns:
    """Turn an object all round an axis and compare how much of the picture each turn explains.

    A part that tells how it is turned (a handle) may be hidden behind the object itself. Then turns next to each other
    look the same although the object is not of revolution; where it has come out again, another turn explains more.

    Args:
        view: the picture.
        camera_from_object: [4, 4], the pose in question.
        axis: [3] of the object.
        middle_m: [3], through which it goes.
        symmetries: [S, 4, 4]; turns that are the same by one of them are not compared.
        see: draws the object at a pose.
        band_m: how far a measurement may lie from the surface and still agree.
    """
    others = round_axis(camera_from_object, middle_m, axis, _STEP_RAD)
    here = camera_from_object[:3, :3]
    apart = [
        float(rotation_angle_rad(symmetry_nearest(one, camera_from_object, symmetries)[:3, :3], here)) > _SAME_RAD
        for one in others
    ]
    if not any(apart):
        return Turns(None, False)
    own = _explained(view, camera_from_object, see(camera_from_object), band_m)
    areas = np.array(
        [_explained(view, one, see(one), band_m) if far else own for one, far in zip(others, apart, strict=True)]
    )
    if own <= 0:
        return Turns(None, True)
    best = int(areas.argmax())
    if areas[best] > (1.0 + _TIE) * own:
        return Turns(others[best], False)
    tie = (areas > (1.0 - _TIE) * own) & np.array(apart)
    return Turns(None, bool((tie[0] or tie[-1]) and areas.min() < (1.0 - _APART) * own))


def _explained(view: DepthView, pose: FloatArray, side: Side | None, band_m: float) -> float:
    """Pixels of the picture that a pose explains, less those that speak against it."""
    if side is None:
        return 0.0
    seen = classify(view, side, pose[None], band_m)
    inner = np.ones_like(seen.behind) if side.inner is None else side.inner
    return float(seen.agrees.sum() - 2.0 * (seen.behind & inner).sum()) * (2.0 * side.inside_px) ** 2
