from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from perceive.batch import ActionTarget, Batch, BatchStream
from perceive.geometry import axis_angle_to_matrix, matrix_to_rotation_6d, rotation_6d_to_matrix
from perceive.points.cloud import fuse
from perceive.rvt.augment import KeyPoseAugment
from sensors.action import ActionMode, ActionSpec, key_pose_spec
from sensors.errors import SpecError, WiringError
from sensors.spec import box

LOW, HIGH = (0.2, -0.4, 0.0), (0.8, 0.4, 0.5)
B, H, W = 6, 8, 10


def spec() -> ActionSpec:
    low, high = [*LOW, *[-1.0] * 7], [*HIGH, *[1.0] * 7]
    parts = {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)}
    whole = spaces.Box(torch.tensor(low).numpy(), torch.tensor(high).numpy())
    return key_pose_spec(ActionSpec(ActionMode.EE_POSE, whole, parts, 1 / 12))


def pose(generator: torch.Generator, place: Tensor) -> Tensor:
    out = torch.eye(4).repeat(B, 1, 1)
    out[:, :3, :3] = axis_angle_to_matrix(torch.randn(B, 3, generator=generator))
    out[:, :3, 3] = place
    return out


def sample(seed: int = 0) -> tuple[Batch, ActionTarget]:
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    streams = {}
    for name in ("front", "left"):
        camera = pose(generator, torch.randn(B, 3, generator=generator))
        data = {
            "rgb": torch.randint(0, 256, (B, 1, H, W, 3), generator=generator, dtype=torch.uint8),
            "depth_m": torch.rand(B, 1, H, W, generator=generator) + 0.5,
            "intrinsics_px": torch.tensor([12.0, 12.0, 4.5, 3.5]).expand(B, 1, 4).clone(),
            "base_from_camera": camera[:, None],
        }
        streams[name] = BatchStream(data, torch.zeros(B, 1), torch.ones(B, 1, dtype=torch.bool))
    tool = pose(generator, low + torch.rand(B, 3, generator=generator) * (high - low))
    data = {"base_from_tool": tool[:, None], "gripper_m": torch.full((B, 1, 1), 0.08)}
    streams["joints"] = BatchStream(data, torch.zeros(B, 1), torch.ones(B, 1, dtype=torch.bool))
    text = {"text": torch.zeros(B, 1, 16, dtype=torch.uint8)}
    streams["task"] = BatchStream(text, torch.zeros(B, 1), torch.ones(B, 1, dtype=torch.bool))
    key = pose(generator, low + torch.rand(B, 3, generator=generator) * (high - low))
    values = torch.cat([key[:, :3, 3], matrix_to_rotation_6d(key[:, :3, :3]), torch.ones(B, 2)], 1)
    return Batch(streams), ActionTarget(values[:, None], torch.ones(B, 1, dtype=torch.bool))


def key_of(target: ActionTarget) -> Tensor:
    out = torch.eye(4).repeat(B, 1, 1)
    out[:, :3, :3] = rotation_6d_to_matrix(target.values[:, 0, 3:9])
    out[:, :3, 3] = target.values[:, 0, :3]
    return out


def in_frame(pose: Tensor, points: Tensor) -> Tensor:
    return (points - pose[:, None, :3, 3]) @ pose[:, :3, :3]


def augment(**changes: Any) -> KeyPoseAugment:
    return KeyPoseAugment(spec(), LOW, HIGH, **changes)


def test_relative_to_the_gripper_nothing_changes() -> None:
    batch, target = sample()
    moved, there = augment()(batch, target, torch.Generator().manual_seed(3))
    before, after = fuse(batch, ("front", "left")), fuse(moved, ("front", "left"))
    torch.testing.assert_close(
        in_frame(key_of(there), after.xyz_m), in_frame(key_of(target), before.xyz_m), atol=1e-5, rtol=0
    )
    tools = [b.stream("joints").data["base_from_tool"][:, 0] for b in (batch, moved)]
    own = [torch.linalg.inv(tool) @ key_of(t) for tool, t in zip(tools, (target, there), strict=True)]
    torch.testing.assert_close(own[1], own[0], atol=1e-5, rtol=0)
    # The positive control: in the base frame it did move.
    assert float((after.xyz_m - before.xyz_m).norm(dim=-1).mean()) > 0.05
    assert float((key_of(there) - key_of(target)).abs().max()) > 0.05


def test_the_key_pose_stays_inside_and_turns_about_the_vertical_only() -> None:
    for seed in range(20):
        batch, target = sample(seed)
        _, there = augment(turn_deg=180.0, shift=0.5)(batch, target, torch.Generator().manual_seed(seed))
        place = there.values[:, 0, :3]
        assert bool((place >= torch.tensor(LOW) - 1e-6).all())
        assert bool((place <= torch.tensor(HIGH) + 1e-6).all())
        turn = key_of(there)[:, :3, :3] @ key_of(target)[:, :3, :3].transpose(1, 2)
        torch.testing.assert_close(turn[:, 2], torch.tensor([0.0, 0.0, 1.0]).expand(B, 3), atol=1e-5, rtol=0)


def test_a_key_pose_outside_is_left_there() -> None:
    batch, target = sample()
    target.values[:, 0, 2] = 0.7
    _, there = augment(shift=0.0)(batch, target, torch.Generator().manual_seed(0))
    torch.testing.assert_close(there.values[:, 0, :3], target.values[:, 0, :3], atol=1e-6, rtol=0)


def test_camera_faults_move_the_cameras_and_not_the_key_pose() -> None:
    batch, target = sample()
    faulty = augment(turn_deg=0.0, shift=0.0, camera_shift_m=0.01, camera_turn_deg=2.0, depth_noise_m=0.01)
    moved, there = faulty(batch, target, torch.Generator().manual_seed(1))
    torch.testing.assert_close(there.values, target.values, atol=1e-6, rtol=0)
    for name in ("front", "left"):
        old, new = (b.stream(name).data["base_from_camera"][:, 0] for b in (batch, moved))
        error = torch.linalg.inv(old) @ new
        assert float(error[:, :3, 3].abs().max()) <= 0.01 + 1e-6
        angle = ((error[:, :3, :3].diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).arccos()
        assert 1e-3 < float(angle.max()) <= math.radians(2.0) + 1e-3
    noise = moved.stream("front").data["depth_m"] - batch.stream("front").data["depth_m"]
    assert 1e-4 < float(noise.std()) < 0.01


def test_unmeasured_depth_stays_unmeasured() -> None:
    batch, target = sample()
    batch.stream("front").data["depth_m"][:, :, :2] = 0.0
    moved, _ = augment(depth_noise_m=0.05)(batch, target, torch.Generator().manual_seed(1))
    assert float(moved.stream("front").data["depth_m"][:, :, :2].abs().max()) == 0.0


def test_the_generator_decides_everything() -> None:
    batch, target = sample()
    parts = {"colour_gain": 0.2, "depth_noise_m": 0.01, "camera_turn_deg": 1.0, "sensor_dropout": {"front": 0.5}}
    seeds = [7, 7, 8]
    results = [augment(**parts)(batch, target, torch.Generator().manual_seed(seed)) for seed in seeds]
    same, other = results[1][0].stream("front").data, results[2][0].stream("front").data
    for field, value in results[0][0].stream("front").data.items():
        torch.testing.assert_close(value, same[field], atol=0, rtol=0)
    assert not torch.equal(same["base_from_camera"], other["base_from_camera"])
    assert torch.equal(batch.stream("task").data["text"], results[0][0].stream("task").data["text"])


def test_one_camera_is_always_left() -> None:
    batch, target = sample()
    lossy = augment(sensor_dropout={"front": 1.0, "left": 1.0}, keep_one_of=["front", "left"])
    moved, _ = lossy(batch, target, torch.Generator().manual_seed(0))
    left = sum(moved.stream(name).valid.long() for name in ("front", "left"))
    assert bool((left == 1).all())


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SpecError, match="low < high"):
        KeyPoseAugment(spec(), HIGH, LOW)
    joints = ActionSpec(ActionMode.JOINT_POSITION, box(-1.0, 1.0, (3,)), {"position_rad": (0, 3)}, 0.1)
    with pytest.raises(WiringError, match="position_m"):
        KeyPoseAugment(joints, LOW, HIGH)


def test_a_mirrored_scene_is_the_reflection_and_keeps_proper_rotations() -> None:
    batch, target = sample()
    still = augment(turn_deg=0.0, shift=0.0, mirror=1.0)
    moved, there = still(batch, target, torch.Generator().manual_seed(0))
    flip = torch.tensor([1.0, -1.0, 1.0])
    before, after = fuse(batch, ("front", "left")), fuse(moved, ("front", "left"))
    torch.testing.assert_close(after.xyz_m, before.xyz_m * flip, atol=1e-5, rtol=0)
    for old, new in ((key_of(target), key_of(there)), *_tools(batch, moved)):
        torch.testing.assert_close(new[:, :3, 3], old[:, :3, 3] * flip, atol=1e-6, rtol=0)
        torch.testing.assert_close(torch.linalg.det(new[:, :3, :3]), torch.ones(B), atol=1e-5, rtol=0)
        # What lies before the tool in its own frame lies there, reflected across the fingers' axis.
        seen = [in_frame(old, before.xyz_m), in_frame(new, after.xyz_m)]
        torch.testing.assert_close(seen[1], seen[0] * flip, atol=1e-4, rtol=0)
    again = still(moved, there, torch.Generator().manual_seed(0))
    torch.testing.assert_close(again[1].values, target.values, atol=1e-5, rtol=0)


def _tools(*batches: Batch) -> list[tuple[Tensor, Tensor]]:
    old, new = (b.stream("joints").data["base_from_tool"][:, 0] for b in batches)
    return [(old, new)]


def test_about_half_are_mirrored() -> None:
    batch, target = sample()
    draw = torch.Generator().manual_seed(0)
    half = augment(turn_deg=0.0, shift=0.0, mirror=0.5)
    flipped = [half(batch, target, draw)[1].values[:, 0, 1].sign() != target.values[:, 0, 1].sign() for _ in range(20)]
    assert 0.3 < float(torch.cat(flipped).float().mean()) < 0.7
