"""Moving what a key pose is about: the pillar of points around it goes elsewhere, and the key pose with it.

Ten demonstrations are ten layouts. A model can learn them by heart ("in this scene, the left one") before it learns
what a word means. What matters for most key poses stands right under them; so this part of the cloud is moved to a free
place, and where the thing stands among the others tells nothing any more.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from perceive.points.cloud import Cloud

TRIES = 12  # places that are looked at per sample; a sample without a free one among them stays as it is
AIR_M = 0.03  # between the moved pillar and everything else
FAR = 2.0  # how many radii the tool has to be away from the key pose: nearer, the hand would be torn apart


def move_pillars(
    cloud: Cloud, key_m: Tensor, tool_m: Tensor, low_m: Tensor, high_m: Tensor, radius_m: float, floor_m: float
) -> tuple[Cloud, Tensor]:
    """Move the points around each key pose, and the key pose, along the floor to a random free place.

    Samples whose tool is near the key pose, or for which no free place is found, stay as they are. Random numbers are
    of torch's global generator.

    Args:
        cloud: of B samples.
        key_m: key positions [B, 3], base frame.
        tool_m: where the tool is [B, 3].
        low_m: lowest corner [3] of where key poses may be.
        high_m: highest corner [3].
        radius_m: of the pillar about the vertical through the key pose.
        floor_m: height below which points are the table and stay.

    Returns:
        The changed cloud and key positions.
    """
    away = (tool_m - key_m)[:, :2].norm(dim=-1)
    thing = cloud.valid & (cloud.xyz_m[..., 2] > floor_m)  # [B, P]
    flat = cloud.xyz_m[..., :2]
    inside = thing & ((flat - key_m[:, None, :2]).norm(dim=-1) < radius_m)
    others = thing & ~inside
    margin = radius_m / 2
    span = (high_m - low_m)[:2] - 2 * margin
    places = low_m[:2] + margin + torch.rand(len(key_m), TRIES, 2, device=key_m.device) * span
    # One place after the other: all distances at once would be a large table.
    goal = key_m[:, :2].clone()
    found = away < FAR * radius_m  # these stay
    for number in range(TRIES):
        place = places[:, number]
        near = (flat - place[:, None]).norm(dim=-1) < radius_m + AIR_M
        free = ~(others & near).any(1) & ~found
        goal = torch.where(free[:, None], place, goal)
        found = found | free
    shift = goal - key_m[:, :2]
    moved = torch.cat([shift, torch.zeros_like(shift[:, :1])], 1)
    xyz_m = torch.where(inside[..., None], cloud.xyz_m + moved[:, None], cloud.xyz_m)
    return replace(cloud, xyz_m=xyz_m), key_m + moved
