"""Augmentation: the changes that are made leave the right action known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from perceive.augment import SceneAugment, camera_turned, shifted
from perceive.batch import ActionTarget, Batch, BatchStream
from perceive.geometry import axis_angle_to_matrix, rotation_6d_to_matrix
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


def test_a_cloud_in_the_base_frame_turns_with_its_action() -> None:
    """One with a pose stays as it is, since its pose turns."""
    batch, target = drawn()
    size = batch.size
    points = torch.cat([target.values[:, :1, :3], torch.rand(size, 4, 3)], 1)[:, None]  # the first is the target
    own = {"xyz_m": points, "base_from_sensor": torch.eye(4).expand(size, 1, 4, 4)}
    like = batch.stream("joints")
    streams = {
        name: BatchStream(data, like.age_s, like.valid) for name, data in (("here", {"xyz_m": points}), ("own", own))
    }
    augment = SceneAugment(SPEC, turn_rad=1.0)
    after, moved = augment(Batch({**batch.streams, **streams}), target, torch.Generator().manual_seed(0))
    torch.testing.assert_close(after.stream("here").data["xyz_m"][:, 0, 0], moved.values[:, 0, :3])
    assert (after.stream("here").data["xyz_m"] - points).abs().max() > 0.01
    posed = after.stream("own").data
    torch.testing.assert_close(posed["xyz_m"], points)
    turned = posed["xyz_m"] @ posed["base_from_sensor"][..., :3, :3].mT
    torch.testing.assert_close(turned, after.stream("here").data["xyz_m"])


def test_the_light_changes_on_clouds_too() -> None:
    """One factor for each channel of a sample, the same for all its points; places stay."""
    batch, target = drawn()
    size, like = batch.size, batch.stream("joints")
    grey = {"xyz_m": torch.rand(size, 1, 6, 3), "rgb": torch.full((size, 1, 6, 3), 100, dtype=torch.uint8)}
    cloud = Batch({**batch.streams, "cloud": BatchStream(grey, like.age_s, like.valid)})
    augment = SceneAugment(SPEC, colour_gain=0.3)
    after = augment(cloud, target, torch.Generator().manual_seed(0))[0].stream("cloud").data
    factor = after["rgb"] / 100
    assert factor.min() >= 0.7
    assert factor.max() <= 1.3
    assert torch.equal(factor, factor[:, :, :1].expand_as(factor))
    assert factor[:, 0, 0].std(0).min() > 0.02
    assert factor[:, 0, 0].std(1).min() > 0.005
    assert torch.equal(after["xyz_m"], grey["xyz_m"])


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


def plane_picture(history: int = 2) -> dict[str, torch.Tensor]:
    """A camera over a tilted plane whose colour tells where on the plane one looks."""
    camera = np.eye(4)
    camera[:3, :3] = axis_angle_to_matrix(torch.tensor([2.9, 0.2, 0.1])).double().numpy()
    camera[:3, 3] = [0.4, 0.1, 0.5]
    intrinsics = np.array([60.0, 55.0, 31.0, 29.0])
    rays = np.stack(np.meshgrid(np.arange(64), np.arange(64)), -1)
    rays = np.concatenate([(rays - intrinsics[2:]) / intrinsics[:2], np.ones((64, 64, 1))], -1)
    normal = np.array([0.1, -0.2, 1.0])
    depth = (0.02 - camera[:3, 3] @ normal) / (rays @ camera[:3, :3].T @ normal)
    points = rays * depth[..., None] @ camera[:3, :3].T + camera[:3, 3]
    stack = {
        "rgb": 127 + 100 * np.sin(points * 6),
        "depth_m": depth,
        "intrinsics_px": intrinsics,
        "base_from_camera": camera,
    }
    return {name: torch.tensor(np.stack([value] * history), dtype=torch.float32)[None] for name, value in stack.items()}


def test_a_turned_camera_sees_the_same_surface() -> None:
    before = plane_picture()
    turn = axis_angle_to_matrix(torch.tensor([[0.1, -0.15, 0.3]]))
    after = camera_turned(before, turn)
    assert torch.equal(after["base_from_camera"][..., :3, 3], before["base_from_camera"][..., :3, 3])
    whole = {name: value[0, 1].double().numpy() for name, value in after.items()}
    found = whole["depth_m"] > 0
    assert 0.5 < found.mean() < 1.0
    assert (whole["rgb"][~found] == 0).all()
    points = unproject(whole["depth_m"], whole["intrinsics_px"])[found]
    camera = whole["base_from_camera"]
    points = points @ camera[:3, :3].T + camera[:3, 3]
    pixel_m = whole["depth_m"].max() / 55.0  # what is rounded to the nearest pixel
    assert np.abs(points @ [0.1, -0.2, 1.0] - 0.02).max() < pixel_m / 2
    colours = 127 + 100 * np.sin(points * 6)
    assert np.abs(colours - whole["rgb"][found]).max() < 600 * pixel_m
    assert np.abs(colours - plane_picture()["rgb"][0, 1].numpy()[found]).max() > 60  # control: it did turn


def test_no_turn_of_a_camera_changes_nothing_and_absent_frames_stay_finite() -> None:
    before = plane_picture()
    same = camera_turned(before, torch.eye(3)[None])
    for name, value in before.items():
        torch.testing.assert_close(same[name], value)
    blank = {name: torch.full_like(value, float("nan")) for name, value in before.items()}
    after = camera_turned(blank, axis_angle_to_matrix(torch.tensor([[0.1, 0.0, 0.0]])))
    assert (after["rgb"] == 0).all()
    assert (after["depth_m"] == 0).all()


def test_each_sample_has_a_camera_turn_of_its_own() -> None:
    (batch, _), (after, _) = drawn(), apply(camera_turn_rad=0.3)
    was, now = (whole.stream("front").data["base_from_camera"][:, 0, :3, :3] for whole in (batch, after))
    relative = was.transpose(1, 2) @ now
    angles = ((relative.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos()
    assert (angles <= 0.3 + 1e-3).all()
    assert angles.unique().numel() == SIZE
