"""Small crops of pictures, as streams with tokens, and targets for the heads that read them."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from perceive.batch import BatchStream
from perceive.heads.object_coordinates_target import PoseTarget
from perceive.heads.pose_change_target import ChangeTarget
from perceive.heads.query_target import QueryTarget
from sensors.geometry import axis_angle_to_matrix
from sensors.spec import box

SIZE, SIDE, OBJECTS, VIEWS = 16, 2, 3, 2
_CROP = {
    "rgb": box(0, 255, (SIZE, SIZE, 3), np.uint8),
    "depth_m": box(0, 10, (SIZE, SIZE)),
    "intrinsics_px": box(-1e4, 1e4, (4,)),
    "base_from_camera": box(-10, 10, (4, 4)),
}
CROPS = {name: spaces.Dict(_CROP) for name in ("crop", "seen", "drawn", "references")} | {
    "object": spaces.Dict({"which": box(0, 1, (OBJECTS,))})
}
# Which of 14 tokens are whose: patches of 8 px; of references also one for each view.
GROUPS = {"crop": slice(0, 4), "seen": slice(0, 4), "drawn": slice(4, 8), "references": slice(4, 14)}
TOKENS = 14


def crop_streams(size: int) -> dict[str, BatchStream]:
    """One of each."""
    draw = torch.Generator().manual_seed(0)
    age, there = torch.zeros(size, 1), torch.ones(size, 1, dtype=torch.bool)
    out = {"object": BatchStream({"which": torch.eye(OBJECTS)[torch.arange(size) % OBJECTS][:, None]}, age, there)}
    for name, steps in (("crop", 1), ("seen", 1), ("drawn", 1), ("references", VIEWS)):
        pose = torch.eye(4).repeat(size, steps, 1, 1)
        pose[..., 2, 3] = -0.5
        data = {
            "rgb": torch.randint(0, 255, (size, steps, SIZE, SIZE, 3), generator=draw, dtype=torch.uint8),
            "depth_m": 0.45 + 0.1 * torch.rand(size, steps, SIZE, SIZE, generator=draw),
            "intrinsics_px": torch.tensor([40.0, 40.0, 7.5, 7.5]).repeat(size, steps, 1),
            "base_from_camera": pose,
        }
        out[name] = BatchStream(data, age.expand(-1, steps), there.expand(-1, steps))
    return out


def _maps(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    mask = torch.zeros(size, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 2:7] = True
    place = torch.where(mask[..., None], 0.05 * (2 * torch.rand(size, 8, 8, 3, generator=draw) - 1), 0.0)
    pose = torch.eye(4).repeat(size, 1, 1)
    pose[:, :3, :3] = torch.from_numpy(axis_angle_to_matrix([0.3, -0.2, 0.5])).float()
    pose[:, 0, 3] = 0.02
    return mask, place, pose


def pose_target(size: int) -> PoseTarget:
    """For object coordinates; the second object looks the same after half a turn."""
    mask, place, pose = _maps(size)
    same = torch.eye(4).repeat(OBJECTS, 2, 1, 1)
    same[1, 1] = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    present = torch.ones(size, dtype=torch.bool)
    nothing = torch.full((OBJECTS,), -1)
    return PoseTarget(torch.arange(size) % OBJECTS, present, mask, place, pose, nothing, same)


def query_target(size: int) -> QueryTarget:
    """For query coordinates."""
    mask, place, pose = _maps(size)
    return QueryTarget(mask, place, torch.eye(4).repeat(size, 1, 1, 1), pose)


def change_target(size: int) -> ChangeTarget:
    """For pose changes."""
    draw = torch.Generator().manual_seed(1)
    mask, _, pose = _maps(size)
    return ChangeTarget(
        pose[:, :3, :3], torch.full((size, 2), 0.05), torch.full((size,), -0.1), torch.ones(size, dtype=torch.bool),
        torch.arange(size) % 2 == 0, 0.4 * torch.randn(size, 20, 3, generator=draw), mask,
    )  # fmt: skip
