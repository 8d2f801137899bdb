"""Grasps from above by true poses, for the expert that puts a named object in a tray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from envs.experts.base import CLOSED, OPEN, down
from envs.experts.waypoints import AVOID, TOUCH, KeyPose
from sensors.errors import SpecError
from sensors.geometry import FloatArray

CLEAR_M = 0.12  # clearance under the object on its way
WIDEST_M = 0.072  # of 0.08 between the open fingers
YAWS = 36
PAD_HALF_M, FINGER_M = 0.0088, 0.0094  # half a finger's width, and its thickness
TIP_M = 0.0088  # how far the fingers reach below the tool point
PALM_M = 0.034  # how far the object may reach above it
OVER_TABLE_M = 0.002  # of the fingertips
OFFSETS_M = np.arange(-0.04, 0.0401, 0.005)  # of the grasp from the object's middle, across the closing direction
RELEASE_M = 0.008  # between the object and the tray's floor when the hand opens


@final
@dataclass(frozen=True, eq=False)
class TopGrasp:
    """A grasp from above.

    Attributes:
        position_m: tool point [3], base frame.
        rotation: ``base_from_tool`` [3, 3].
    """

    position_m: FloatArray
    rotation: FloatArray

    def key_poses(
        self, body: int, held: bool, lowest_m: float, tray_m: FloatArray, floor_m: float, rim_m: float
    ) -> list[KeyPose]:
        """Above, down, close, up; above the tray, down, open. From an object in the hand on: up first, then the last.

        Args:
            body: what is carried.
            held: whether it is in the hand already.
            lowest_m: height of its lowest point now, base frame.
            tray_m: middle [2] of the tray.
            floor_m: height of its floor.
            rim_m: height of its rim.
        """
        grasp, turn = self.position_m, self.rotation
        below = float(grasp[2]) - lowest_m  # from the object's lowest point to the tool point, kept all the way
        top = max(CLEAR_M + rim_m + below, float(grasp[2]))
        over = np.array([tray_m[0], tray_m[1], top])
        release = np.array([tray_m[0], tray_m[1], floor_m + RELEASE_M + below])
        high = np.array([grasp[0], grasp[1], top])
        taken = [
            KeyPose(high, turn, OPEN, AVOID),
            KeyPose(grasp, turn, OPEN, TOUCH),
            KeyPose(grasp, turn, CLOSED, TOUCH),
        ]
        return [
            *([] if held else taken),
            KeyPose(high, turn, CLOSED, TOUCH, body),
            KeyPose(over, turn, CLOSED, TOUCH, body),
            KeyPose(release, turn, CLOSED, TOUCH, body),
            KeyPose(release, turn, OPEN, TOUCH),
            KeyPose(over, turn, OPEN, TOUCH),
        ]


def top_grasps(points_m: FloatArray, middle_m: FloatArray, others_m: Sequence[FloatArray]) -> list[TopGrasp]:
    """Grasps from above that fit between the fingers, the best first.

    For each yaw, strips as broad as the fingers are laid across the object near its middle; what is in a strip, from
    the fingertips up, has to fit between the open fingers, and the fingers have to be clear of the other objects.

    Args:
        points_m: on the object's surface [N, 3], dense, base frame.
        middle_m: its middle [3].
        others_m: points [M, 3] on each other object.

    Raises:
        SpecError: there is no such grasp.
    """
    around = np.concatenate([*others_m, np.full((1, 3), 1e3)])
    bottom, top = float(points_m[:, 2].min()), float(points_m[:, 2].max())
    lowest = max(float(middle_m[2]), TIP_M + OVER_TABLE_M, top - PALM_M)
    lowest = min(max(lowest, bottom), max(top, TIP_M + OVER_TABLE_M))
    found: list[tuple[float, TopGrasp]] = []
    for yaw in math.pi * np.arange(YAWS) / YAWS - math.pi / 2:
        turn = down(float(yaw))
        across, along = (points_m - middle_m) @ turn[:, 0], (points_m - middle_m) @ turn[:, 1]
        reached = points_m[:, 2] > lowest - TIP_M
        for offset in OFFSETS_M:
            strip = reached & (np.abs(across - offset) < PAD_HALF_M + 0.002)
            if strip.sum() < 3:
                continue
            low, high = float(along[strip].min()), float(along[strip].max())
            if high - low > WIDEST_M or high - low < 0.006:
                continue
            place = middle_m + offset * turn[:, 0] + (low + high) / 2 * turn[:, 1]
            place[2] = lowest
            local = (around - place) @ turn
            gap = 0.04 + FINGER_M + 0.004
            struck = (np.abs(local[:, 0]) < 0.035) & (np.abs(local[:, 1]) < gap) & (local[:, 2] < TIP_M)
            if struck.any():
                continue
            # Near the middle, narrow, and with a hand that turns little.
            cost = abs(float(offset)) + 0.3 * (high - low) + 0.01 * abs(float(yaw)) + 0.5 * abs((low + high) / 2)
            found.append((cost, TopGrasp(place, turn)))
    if not found:
        raise SpecError("PickNamed, expert", "a grasp from above", "none for this object as it lies", "Leave it out.")
    found.sort(key=lambda each: each[0])
    return [grasp for _, grasp in found]
