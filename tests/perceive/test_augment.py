"""Augmentation: the changes that are made leave the right action known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from perceive.augment import SceneAugment, shifted
from perceive.batch import ActionTarget, Batch
from perceive.geometry import rotation_6d_to_matrix
from sensors.action import ActionMode, ActionSpec
from sensors.errors import WiringError
from sensors.geometry import unproject
from tests.perceive.scene import SPACES, SPEC, fake_batch, fake_target, model

SIZE = 6


def drawn() -> tuple[Batch, ActionTarget]:
    rng = np.random.default_rng(0)
    return fake_batch(rng, SIZE), fake_target(rng, SIZE)


def apply(seed: int = 0, **settings: Any) -> tuple[Batch, ActionTarget]:
    return SceneAugment(SPEC, **settings)(*drawn(), torch.Generator().manual_seed(seed))


def test_nothing_asked_nothing_changed() -> None:
    (batch, target), (after, wanted) = drawn(), apply()
    assert torch.equal(wanted.values, target.values)
    for name, stream in batch.streams.items():
        assert torch.equal(after.streams[name].valid, stream.valid)
        for field, value in stream.data.items():
            assert torch.equal(after.streams[name].data[field], value), f"{name}/{field}"


def test_the_same_generator_gives_the_same_change() -> None:
    settings: dict[str, Any] = {"turn_rad": 0.5, "colour_gain": 0.2, "shift_px": 3, "sensor_dropout": 0.4}
    one, other, third = apply(1, **settings), apply(1, **settings), apply(2, **settings)
    assert torch.equal(one[1].values, other[1].values)
    assert not torch.equal(one[1].values, third[1].values)
    for name in SPACES:
        assert torch.equal(one[0].streams[name].valid, other[0].streams[name].valid)


def test_the_scene_turns_with_its_action() -> None:
    """What the gripper, the cameras and the action have to do with each other stays as it was."""
    (batch, target), (after, wanted) = drawn(), apply(turn_rad=1.0)

    def relative(whole: Batch, goal: ActionTarget) -> list[torch.Tensor]:
        tool = whole.stream("joints").data["base_from_tool"][:, 0]
        camera = whole.stream("front").data["base_from_camera"][:, 0]
        pad = whole.stream("touch").data["base_from_pad"][:, 0]
        out = [torch.linalg.inv(tool) @ camera, torch.linalg.inv(camera) @ pad]
        offset = goal.values[..., :3] - tool[:, None, :3, 3]
        rotation = rotation_6d_to_matrix(goal.values[..., 3:9])
        back = tool[:, None, :3, :3].transpose(-1, -2)
        return [*out, (back @ offset[..., None])[..., 0], back @ rotation]

    for one, other in zip(relative(batch, target), relative(after, wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    moved = after.stream("front").data["base_from_camera"] - batch.stream("front").data["base_from_camera"]
    assert (moved.abs().amax((1, 2, 3)) > 1e-3).all()
    assert torch.equal(wanted.values[..., 2], target.values[..., 2])  # the table stays level
    assert torch.equal(wanted.values[..., 9], target.values[..., 9])


def test_turning_moves_every_token_about_the_base() -> None:
    net = model().eval()
    (batch, _), (after, _) = drawn(), apply(turn_rad=1.0)
    before, turned = net.encode(batch), net.encode(after)
    was, now = (whole.stream("joints").data["base_from_tool"][:, 0] for whole in (batch, after))
    turn = now[:, :3, :3] @ was[:, :3, :3].transpose(-1, -2)
    expected = before.position_m @ turn.transpose(-1, -2)
    torch.testing.assert_close(turned.position_m[turned.placed], expected[turned.placed], rtol=0, atol=1e-5)


def test_shifted_pictures_keep_every_surface_point() -> None:
    (batch, _), (after, _) = drawn(), apply(seed=4, shift_px=5)
    before, moved = batch.stream("front").data, after.stream("front").data
    offset = (moved["intrinsics_px"] - before["intrinsics_px"])[0, 0].tolist()
    right, down = int(offset[2]), int(offset[3])
    assert (right, down) != (0, 0)
    assert offset[:2] == [0, 0]

    def cloud(data: Any) -> set[tuple[float, ...]]:
        points = unproject(data["depth_m"][0, 0].numpy(), data["intrinsics_px"][0, 0].numpy())
        rows = np.concatenate([points, data["rgb"][0, 0].numpy()], -1).reshape(-1, 6)
        return {tuple(row) for row in np.round(rows[rows[:, 2] > 0], 5)}

    height, width = before["depth_m"].shape[2:]
    kept = cloud(moved)
    assert kept <= cloud(before)
    measured = (before["depth_m"][0, 0] > 0).float()
    rows = slice(max(-down, 0), height + min(-down, 0))
    columns = slice(max(-right, 0), width + min(-right, 0))
    assert len(kept) == int(measured[rows, columns].sum())  # only what left the picture is gone


def test_shift_moves_pixels_and_fills_with_nothing() -> None:
    image = torch.arange(1, 13.0).reshape(1, 1, 3, 4)
    assert shifted(image, 1, -2)[0, 0].tolist() == [[0, 0, 0, 0], [3, 4, 0, 0], [7, 8, 0, 0]]
    assert torch.equal(shifted(image, 0, 0), image)


def test_colour_gain_stays_in_its_bounds() -> None:
    (batch, _), (after, _) = drawn(), apply(colour_gain=0.3)
    before, changed = batch.stream("front").data["rgb"].float(), after.stream("front").data["rgb"].float()
    assert changed.min() >= 0
    assert changed.max() <= 255
    middle = (before > 50) & (before < 190)
    ratio = torch.where(middle, changed / before, 1.0)
    assert ratio.min() >= 0.7 - 0.02
    assert ratio.max() <= 1.3 + 0.02
    per_channel = torch.stack([ratio[i, 0][middle[i, 0].all(-1)].mean(0) for i in range(SIZE)])
    assert per_channel.std(0).min() > 0.02  # every sample has its own light
    assert per_channel.std(1).min() > 0.005  # and every channel


def test_dropout_makes_whole_sensors_absent() -> None:
    rng = np.random.default_rng(0)
    batch, target = (
        fake_batch(rng, 400, {"joints": SPACES["joints"], "wrench": SPACES["wrench"]}),
        fake_target(rng, 400),
    )
    augment = SceneAugment(SPEC, sensor_dropout=0.3)
    after, _ = augment(batch, target, torch.Generator().manual_seed(0))
    share = [after.stream(name).valid.float().mean().item() for name in ("joints", "wrench")]
    assert share == pytest.approx([0.7, 0.7], abs=0.08)
    keep = SceneAugment(SPEC, sensor_dropout=0.9, keep_one_of=("joints", "wrench"))
    after, _ = keep(batch, target, torch.Generator().manual_seed(0))
    assert (after.stream("joints").valid | after.stream("wrench").valid).all()
    with pytest.raises(WiringError, match="joints"):
        SceneAugment(SPEC, keep_one_of=("joint",))(batch, target, torch.Generator())


def test_an_absent_sensor_does_not_come_back() -> None:
    batch, target = drawn()
    batch.stream("front").valid[0] = False
    after, _ = SceneAugment(SPEC, keep_one_of=("front",))(batch, target, torch.Generator())
    assert not after.stream("front").valid[0].any()


def test_only_poses_can_be_turned() -> None:
    spec = ActionSpec(ActionMode.JOINT_POSITION, SPEC.space, {"position_rad": (0, 9), "gripper": (9, 10)}, 0.1)
    with pytest.raises(WiringError, match="joint_position"):
        SceneAugment(spec, turn_rad=0.1)
    assert SceneAugment(spec, colour_gain=0.1) is not None
