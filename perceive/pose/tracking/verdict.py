"""Whether a fitted pose may be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.tracking.fit import DepthView, classify, outline, place
from perceive.pose.tracking.side import Side
from perceive.pose.tracking.tracked import State
from sensors.geometry import FloatArray

_OUTLINE_PX = 4
_LEAST_BRIGHT = 60  # sum of three channels below which a pixel has no hue to speak of


@final
@dataclass(frozen=True, eq=False)
class Limits:
    """What a pose must show to be believed.

    Attributes:
        agree: least agreeing share of the visible points.
        visible: least share of the object that is not covered.
        known: least share of the object with depth at all.
        outline: least share of the visible outline on a jump of depth. Without it any large smooth surface would
            confirm a flat object.
        least_points: least number of agreeing points.
        spread_m: greatest standard deviation of the object's middle in its best-known direction but one.
        through: greatest share of the visible inner points that are looked through. A small part of an object in the
            wrong place (a handle) does little to ``agree``; but away from the outline not even noise looks through.
    """

    agree: float = 0.75
    visible: float = 0.25
    known: float = 0.2
    outline: float = 0.3
    least_points: int = 60
    spread_m: float = 0.01
    through: float = 0.1


@final
@dataclass(frozen=True, eq=False)
class Verdict:
    """What one frame says about one pose; shares as in ``TrackedPose``."""

    state: State
    reason: str
    agree_share: float
    visible_share: float
    outline_share: float
    through_share: float = 0.0

    def meets(self, limits: Limits) -> bool:
        """Whether it is a tracked pose within the shares of other limits."""
        enough = self.agree_share >= limits.agree and self.outline_share >= limits.outline
        return self.state == "tracked" and enough and self.through_share <= limits.through

    @property
    def worth(self) -> float:
        """To compare poses of one object in one picture: what is explained, less what is contradicted."""
        return (self.agree_share - 2.0 * self.through_share) * self.visible_share * (0.5 + 0.5 * self.outline_share)


def judge(
    view: DepthView,
    side: Side,
    camera_from_object: FloatArray,
    covariance: FloatArray,
    limits: Limits,
    band_m: float,
    occlusion_test: bool = True,
) -> Verdict:
    """Count what agrees, what is covered, and what should have been seen but was looked through.

    Args:
        view: the picture.
        side: the object as drawn near the pose.
        camera_from_object: [4, 4].
        covariance: [6, 6] of the pose.
        limits: what is asked.
        band_m: how far a measurement may lie from the surface and still agree.
        occlusion_test: False = what is in front of the object disagrees with it (the ablation).
    """
    seen = classify(view, side, camera_from_object[None], band_m)
    agrees, front, behind = (int(one.sum()) for one in (seen.agrees, seen.in_front, seen.behind))
    total, known = seen.agrees.shape[1], agrees + front + behind
    wrong = behind if occlusion_test else behind + front
    agree = agrees / max(agrees + wrong, 1)
    visible = (agrees + behind) / max(known, 1)
    rim = outline(view, side, camera_from_object[None], _OUTLINE_PX, band_m)
    rim_seen = int(rim.seen.sum())
    edge = float((np.isfinite(rim.jump_px) & rim.seen).sum() / max(rim_seen, 1))

    inner = np.ones_like(seen.behind) if side.inner is None else side.inner
    through = float((seen.behind & inner).sum() / max(int(((seen.agrees | seen.behind) & inner).sum()), 1))

    def say(state: State, reason: str) -> Verdict:
        return Verdict(state, reason, agree, visible, edge, through)

    if known < limits.known * total:
        return say("uncertain", f"depth at {100 * known / max(total, 1):.0f} % of the object")
    if occlusion_test and visible < limits.visible:
        return say("uncertain", f"hidden: {100 * visible:.0f} % of the object is visible")
    if agree < limits.agree:
        return say("lost" if agree < 0.5 * limits.agree else "uncertain", f"{100 * agree:.0f} % of what is seen agrees")
    if occlusion_test and through > limits.through:
        return say("uncertain", f"{100 * through:.0f} % of its inside is looked through")
    if agrees < limits.least_points:
        return say("uncertain", f"{agrees} points agree")
    if edge < limits.outline and rim_seen >= 10:
        return say("uncertain", f"outline at {100 * edge:.0f} %: it may be another surface")
    spread_m = float(np.sqrt(np.linalg.eigvalsh(covariance[3:, 3:])[1]))
    if spread_m > limits.spread_m:
        return say("uncertain", f"the place is known to {1e3 * spread_m:.0f} mm only")
    return say("tracked", f"{100 * agree:.0f} % agrees, {100 * visible:.0f} % visible")


def hue_difference(
    view: DepthView, side: Side, camera_from_object: FloatArray, rgb: NDArray[np.uint8], band_m: float
) -> float:
    """Median difference of chromaticity between the object and the picture where their depths agree, 0 to 1.

    Chromaticity is a pixel divided by its sum, so that shading does not matter. 0 where nothing can be compared: a
    model of one grey says nothing about its colour.
    """
    if (side.rgb == side.rgb[..., :1]).all():
        return 0.0
    u, v, z = view.project(place(camera_from_object[None], side.xyz_m))
    column, row, seen = view.at(u, v)
    used = (seen > 0) & (np.abs(seen - z) <= band_m)
    there, model = rgb[row[used], column[used]].astype(np.float64), side.rgb[used].astype(np.float64)
    bright = (there.sum(-1) > _LEAST_BRIGHT) & (model.sum(-1) > _LEAST_BRIGHT)
    if bright.sum() < 20:
        return 0.0
    there, model = there[bright], model[bright]
    difference = np.abs(there / there.sum(-1, keepdims=True) - model / model.sum(-1, keepdims=True)).sum(-1)
    return float(np.median(difference)) / 2.0
