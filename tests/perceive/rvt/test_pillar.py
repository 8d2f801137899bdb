from __future__ import annotations

import torch
from torch import Tensor

from perceive.points.cloud import Cloud
from perceive.rvt.pillar import AIR_M, move_pillars

LOW, HIGH = torch.tensor([0.2, -0.4, 0.0]), torch.tensor([0.8, 0.4, 0.5])
RADIUS, FLOOR = 0.05, 0.01
B = 8


def scene() -> tuple[Cloud, Tensor, Tensor]:
    """A table, a thing under the key pose, another thing 20 cm away, and points that are not there."""
    draw = torch.Generator().manual_seed(0)
    table = torch.rand(B, 400, 3, generator=draw) * (HIGH - LOW) + LOW
    table[..., 2] = 0.0
    key = torch.tensor([0.5, 0.1, 0.12]).expand(B, 3).clone()
    thing = key[:, None] + (torch.rand(B, 60, 3, generator=draw) - 0.5) * torch.tensor([0.04, 0.04, 0.04])
    other = thing + torch.tensor([0.0, -0.2, 0.0])
    xyz = torch.cat([table, thing, other, thing + 0.001], 1)
    valid = torch.ones(B, xyz.shape[1], dtype=torch.bool)
    valid[:, -60:] = False
    return Cloud(xyz, torch.zeros_like(xyz), valid), key, torch.tensor([0.5, -0.3, 0.4]).expand(B, 3)


def test_the_thing_and_its_key_pose_move_together_and_nothing_else_does() -> None:
    cloud, key, tool = scene()
    torch.manual_seed(0)
    moved, there = move_pillars(cloud, key, tool, LOW, HIGH, RADIUS, FLOOR)
    shift = there - key
    assert float(shift[:, :2].norm(dim=-1).median()) > 0.05
    assert float(shift[:, 2].abs().max()) == 0.0
    torch.testing.assert_close(moved.xyz_m[:, 400:460], cloud.xyz_m[:, 400:460] + shift[:, None])
    for still in (slice(0, 400), slice(460, 580)):
        assert torch.equal(moved.xyz_m[:, still], cloud.xyz_m[:, still])
    assert torch.equal(moved.valid, cloud.valid)
    assert bool(((there >= LOW) & (there <= HIGH)).all())
    # It does not come to stand in the other thing.
    gap = torch.cdist(moved.xyz_m[:, 400:460, :2], moved.xyz_m[:, 460:520, :2]).amin((1, 2))
    assert float(gap.min()) > AIR_M - 1e-6


def test_near_the_tool_nothing_moves() -> None:
    cloud, key, _ = scene()
    moved, there = move_pillars(cloud, key, key + 0.03, LOW, HIGH, RADIUS, FLOOR)
    assert torch.equal(there, key)
    assert torch.equal(moved.xyz_m, cloud.xyz_m)


def test_where_no_place_is_free_nothing_moves() -> None:
    cloud, key, tool = scene()
    full = cloud.xyz_m.clone()
    full[:, :400, 2] = 0.1  # the whole table is covered
    moved, there = move_pillars(Cloud(full, cloud.rgb, cloud.valid), key, tool, LOW, HIGH, 0.2, FLOOR)
    assert torch.equal(there, key)
    assert torch.equal(moved.xyz_m, full)
