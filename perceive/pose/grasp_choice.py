"""Which grasp to take: of all grasps of an object that lies there, those that the hand can get at, the best first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceive.pose.grasps import Grasps, Gripper
from sensors.errors import SpecError
from sensors.geometry import FloatArray

_LEVEL_RAD = math.radians(20)  # costs of tilt and turn are counted in these


@final
@dataclass(frozen=True)
class Reach:
    """Where the hand may come, and how.

    Attributes:
        low_m: lowest corner [3] of the box that the tool point is kept in, base frame.
        high_m: highest corner.
        table_m: height of the table.
        over_table_m: kept between it and the fingertips.
        most_tilt_rad: between the approach and straight down.
        most_turn_rad: between the tool's turn now and in the grasp.
        approach_m: how far the hand comes straight along its approach.
        clearance_m: kept from everything else that was seen.
    """

    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]
    table_m: float = 0.0
    over_table_m: float = 0.002
    most_tilt_rad: float = math.radians(50)
    most_turn_rad: float = math.radians(115)
    approach_m: float = 0.08
    clearance_m: float = 0.006

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low_m, self.high_m, strict=True)):
            raise SpecError("Reach", "low_m < high_m", f"{self.low_m}, {self.high_m}", "Correct the corners.")


@final
@dataclass(frozen=True, eq=False)
class Reachable:
    """Grasps that the hand can get at, the best first.

    Attributes:
        base_from_tool: float64 [K, 4, 4].
        width_m: float64 [K].
        why_not: how many grasps were left out for what, in the order in which it was looked at.
    """

    base_from_tool: FloatArray
    width_m: FloatArray
    why_not: dict[str, int]


def reachable(
    grasps: Grasps,
    base_from_object: FloatArray,
    reach: Reach,
    gripper: Gripper,
    obstacles_m: FloatArray,
    base_from_tool: FloatArray,
    most: int = 8,
) -> Reachable:
    """The grasps of an object at a pose that are clear of table and obstacles.

    The hand comes straight along its approach with open fingers; the boxes of fingers and hand, drawn out backwards
    over this way, hold no obstacle and do not reach into the table. Grasps from above, which turn the hand little, come
    first among grasps of equal quality.

    Args:
        grasps: all of them, also those that symmetries make (:meth:`Grasps.everywhere`).
        base_from_object: [4, 4].
        reach: where the hand may come.
        gripper: the hand.
        obstacles_m: float64 [N, 3], points that were seen of everything but object and robot, base frame.
        base_from_tool: [4, 4] now.
        most: grasps to return.
    """
    poses = base_from_object @ grasps.object_from_tool
    width, quality = grasps.width_m, grasps.quality
    why_not: dict[str, int] = {}

    def keep(chosen: ArrayLike, why: str) -> None:
        nonlocal poses, width, quality
        good: NDArray[np.bool_] = np.asarray(chosen, bool)
        why_not[why] = int((~good).sum())
        poses, width, quality = poses[good], width[good], quality[good]

    keep(-poses[:, 2, 2] >= math.cos(reach.most_tilt_rad), "tilt")
    before = poses[:, :3, 3] - reach.approach_m * poses[:, :3, 2]
    inside = [(p >= reach.low_m).all(1) & (p <= reach.high_m).all(1) for p in (poses[:, :3, 3], before)]
    keep(inside[0] & inside[1], "workspace")
    keep(_turn(poses, base_from_tool) <= reach.most_turn_rad, "turn")
    low, high = gripper.boxes(np.full(len(poses), gripper.opening_m / 2))
    keep(_lowest(poses, low, high) >= reach.table_m + reach.over_table_m, "table")
    # The best first, and no more looked at than needed: the cloud is large.
    tilt = np.arccos(np.clip(-poses[:, 2, 2], -1, 1)) / _LEVEL_RAD
    cost = -np.log(np.maximum(quality, 1e-6)) + 0.35 * tilt**2 + 0.04 * (_turn(poses, base_from_tool) / _LEVEL_RAD) ** 2
    order = np.argsort(cost, kind="stable")
    free: list[int] = []
    low, high = gripper.boxes(np.full(1, gripper.opening_m / 2))
    low, high = low[0] - reach.clearance_m, high[0] + reach.clearance_m
    low[:, 2] -= reach.approach_m
    struck = 0
    for number in order:
        local = (obstacles_m - poses[number, :3, 3]) @ poses[number, :3, :3]
        if any(bool(((local > low[k]) & (local < high[k])).all(1).any()) for k in range(3)):
            struck += 1
            continue
        free.append(int(number))
        if len(free) == most:
            break
    why_not["obstacles"] = struck
    return Reachable(poses[free], width[free], why_not)


def _turn(poses: FloatArray, base_from_tool: FloatArray) -> FloatArray:
    """Radians [G] between the present turn of the tool and those of grasps."""
    trace = np.einsum("gij,ij->g", poses[:, :3, :3], base_from_tool[:3, :3])
    return np.asarray(np.arccos(np.clip((trace - 1) / 2, -1.0, 1.0)))


def _lowest(poses: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Height [G] of the lowest corner of boxes [G, K, 3] in the tools' frames."""
    up = poses[:, None, 2, :3]
    return np.asarray((np.minimum(up * low, up * high).sum(-1)).min(1) + poses[:, 2, 3])
