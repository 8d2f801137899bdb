"""Small models for the tasks that need touch, written as URDF files: a scale, and a socket for a peg."""

from __future__ import annotations

import math
from pathlib import Path

from envs.models import Part, Slide, model_file

SCALE_HALF_M, SCALE_BASE_M = 0.04, 0.004  # half edge of base and plate; height of the base
SCALE_TOP_M, SCALE_PLATE_M = 0.02, 0.008  # height of the plate's upper side at joint position 0, its thickness
SCALE_TRAVEL_M = 0.006  # of the plate, up and down
SCALE_PLATE_KG = 0.5
SCALE_N_M, SCALE_DAMPING_N_S_M = 5000.0, 60.0  # of its spring


def scale_urdf() -> Path:
    """A kitchen scale; link "plate" goes up by joint "plate_up", -``SCALE_TRAVEL_M`` to ``SCALE_TRAVEL_M``."""
    edge = 2 * SCALE_HALF_M
    plate = [Part((edge, edge, SCALE_PLATE_M), (0.0, 0.0, -SCALE_PLATE_M / 2))]
    travel = SCALE_TRAVEL_M
    slide = Slide("plate", "plate_up", plate, (0.0, 0.0, SCALE_TOP_M), (0, 0, 1), -travel, travel, SCALE_PLATE_KG)
    return model_file("scale", [Part((edge, edge, SCALE_BASE_M), (0.0, 0.0, SCALE_BASE_M / 2))], slide)


BLOCK_HALF_M, BLOCK_TALL_M, BLOCK_TOP_M = 0.035, 0.035, 0.05  # half edge, height, and where its upper side is at rest
FUNNEL_M, SLOPE_M = 0.012, 0.005  # width and depth of the funnel around the hole; thickness of its slopes
LIP_M = 2e-4
BLOCK_TRAVEL_M = 0.006  # of the block on its rubber feet, along each axis
BLOCK_KG, FOOT_KG = 0.8, 0.2
BLOCK_FRICTION = 0.15
FEET_N_M = {"x": 2000.0, "y": 2000.0, "z": 2000.0}  # of the feet, by joint
FEET_DAMPING_N_S_M = 80.0


def socket_urdf(hole_m: float) -> Path:
    """A block with a square hole, the rim of which is a funnel of 45 degrees, on rubber feet that give way.

    Joints "x", "y" and "z", each -``BLOCK_TRAVEL_M`` to ``BLOCK_TRAVEL_M``; link "block" has its origin in the middle
    of the upper side.

    Args:
        hole_m: edge of the hole.
    """
    # The walls stand back a little from the funnel's lower edges, or the peg would come to stand on the walls' tops.
    inner, top = hole_m + 2 * LIP_M, -FUNNEL_M - LIP_M
    wall, half, tall = BLOCK_HALF_M - inner / 2, BLOCK_HALF_M, BLOCK_TALL_M + top
    length, wide = math.sqrt(2) * FUNNEL_M, hole_m + 2 * FUNNEL_M
    # The middle of a slope's upper side, less half its thickness along its normal.
    out, down = (hole_m + FUNNEL_M) / 2 + SLOPE_M / math.sqrt(8), -FUNNEL_M / 2 - SLOPE_M / math.sqrt(8)
    parts = []
    for side in (-1.0, 1.0):
        middle = side * (inner + wall) / 2
        parts.append(Part((wall, 2 * half, tall), (middle, 0.0, top - tall / 2)))
        parts.append(Part((inner, wall, tall), (0.0, middle, top - tall / 2)))
        lean = math.pi / 4
        parts.append(Part((length, wide, SLOPE_M), (side * out, 0.0, down), pitch_rad=-side * lean))
        parts.append(Part((wide, length, SLOPE_M), (0.0, side * out, down), roll_rad=side * lean))
    travel, none = BLOCK_TRAVEL_M, (0.0, 0.0, 0.0)
    ground = [Part((2 * half, 2 * half, 0.004), (0.0, 0.0, 0.002))]
    return model_file(
        "socket",
        ground,
        Slide("foot_x", "x", [], (0.0, 0.0, BLOCK_TOP_M), (1, 0, 0), -travel, travel, FOOT_KG),
        Slide("foot_y", "y", [], none, (0, 1, 0), -travel, travel, FOOT_KG),
        Slide("block", "z", parts, none, (0, 0, 1), -travel, travel, BLOCK_KG, BLOCK_FRICTION),
    )
