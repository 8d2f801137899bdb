"""Augmentation of key poses: the whole scene moved about the key pose, and the faults that cameras have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from perceive.augment import SceneAugment
from perceive.batch import ActionTarget, Batch, BatchStream
from perceive.geometry import axis_angle_to_matrix, matrix_to_rotation_6d, rotation_6d_to_matrix, turn_z
from sensors.action import ActionSpec
from sensors.errors import SpecError, WiringError


@final
class KeyPoseAugment:
    """Random rigid motions of scene and key pose together (PerAct, Shridhar et al., CoRL 2022), and camera faults.

    The scene, cameras and robot included, turns about the vertical axis through the key pose and is shifted; the key
    pose goes with it and stays inside the workspace. Relative to the gripper nothing changes. Everything is drawn from
    the generator that is passed in.

    Args:
        action_spec: with ``position_m`` and ``rotation_6d`` in the base frame.
        low_m: lowest corner [3] of the workspace.
        high_m: highest corner [3].
        turn_deg: largest turn either way.
        shift: largest shift along each axis, as a part of the workspace's edge.
        mirror: probability that left and right of the base are exchanged: the cloud is reflected, and tool and key pose
            become their mirror images, which a gripper with two equal fingers can take. Not for tasks that are told
            in words like "left".
        colour_gain: each channel of each picture is multiplied by a factor in [1 - c, 1 + c].
        depth_noise_m: standard deviation of depth noise; each sample draws its own between 0 and this.
        camera_shift_m: each camera is believed elsewhere than it is by up to this along each axis ...
        camera_turn_deg: ... and turned by up to this, as extrinsics are that were measured once.
        sensor_dropout: sensor -> probability that it is absent in a sample.
        keep_one_of: at least one of these sensors stays present in every sample.
        colour_words: named colours and their hues that are exchanged in pictures and instruction together, see
            perceive.recolour; none if empty.
        instruction: the sensor that says the instruction, for ``colour_words``.

    Raises:
        WiringError: actions without position and rotation.
        SpecError: a workspace whose corners are not in order.
    """

    def __init__(
        self,
        action_spec: ActionSpec,
        low_m: Sequence[float],
        high_m: Sequence[float],
        turn_deg: float = 45.0,
        shift: float = 0.125,
        mirror: float = 0.0,
        colour_gain: float = 0.0,
        depth_noise_m: float = 0.0,
        camera_shift_m: float = 0.0,
        camera_turn_deg: float = 0.0,
        sensor_dropout: Mapping[str, float] | None = None,
        keep_one_of: Sequence[str] = (),
        colour_words: Mapping[str, float] | None = None,
        instruction: str = "task",
    ) -> None:
        missing = {"position_m", "rotation_6d"} - set(action_spec.parts)
        if missing:
            raise WiringError(
                "KeyPoseAugment",
                "actions with position_m and rotation_6d",
                f"without {sorted(missing)}",
                "Use key_pose.",
            )
        self._low, self._high = torch.tensor(low_m, dtype=torch.float32), torch.tensor(high_m, dtype=torch.float32)
        if self._low.shape != (3,) or self._high.shape != (3,) or not bool((self._low < self._high).all()):
            raise SpecError(
                "KeyPoseAugment, low_m and high_m", "low < high in x, y, z", f"{low_m}, {high_m}", "Fix it."
            )
        self._spec = action_spec
        self._turn_rad, self._shift = math.radians(turn_deg), shift
        self._mirror = mirror
        self._depth_noise_m = depth_noise_m
        self._camera_shift_m, self._camera_turn_rad = camera_shift_m, math.radians(camera_turn_deg)
        self._pictures = SceneAugment(
            action_spec,
            colour_gain=colour_gain,
            sensor_dropout=dict(sensor_dropout or {}),
            keep_one_of=keep_one_of,
            colour_words=colour_words,
            instruction=instruction,
        )

    def __call__(self, batch: Batch, target: ActionTarget, generator: torch.Generator) -> tuple[Batch, ActionTarget]:
        """A changed copy of a batch and its target, on the CPU."""
        batch, target = self._pictures(batch, target, generator)
        batch, target = self._mirrored(batch, target, generator)
        position, rotation = self._spec.part("position_m"), self._spec.part("rotation_6d")
        key_m = target.values[:, 0, position]
        motion = self._motion(key_m, generator)
        streams = {}
        for name, stream in batch.streams.items():
            data = {
                field: motion[:, None] @ value.float() if field.startswith("base_from_") else value
                for field, value in stream.data.items()
            }
            if "depth_m" in data:
                data |= self._faulty(data, generator)
            streams[name] = BatchStream(data, stream.age_s, stream.valid)
        values = target.values.clone()
        turn = motion[:, None, :3, :3]
        values[..., position] = (turn @ values[..., position, None])[..., 0] + motion[:, None, :3, 3]
        values[..., rotation] = matrix_to_rotation_6d(turn @ rotation_6d_to_matrix(values[..., rotation]))
        return Batch(streams), replace(target, values=values)

    def _mirrored(self, batch: Batch, target: ActionTarget, generator: torch.Generator) -> tuple[Batch, ActionTarget]:
        chosen = torch.rand(batch.size, generator=generator) < self._mirror
        if not self._mirror:
            return batch, target
        flip = torch.eye(4).repeat(batch.size, 1, 1)
        flip[:, 1, 1] = torch.where(chosen, -1.0, 1.0)
        streams = {}
        for name, stream in batch.streams.items():
            data = dict(stream.data)
            for field, value in stream.data.items():
                if field == "base_from_camera":
                    # Its frame becomes a left-handed one: the picture stays as it is, and the points are reflected.
                    data[field] = flip[:, None] @ value.float()
                elif field.startswith("base_from_"):
                    data[field] = flip[:, None] @ value.float() @ flip[:, None]
            streams[name] = BatchStream(data, stream.age_s, stream.valid)
        position, rotation = self._spec.part("position_m"), self._spec.part("rotation_6d")
        values, small = target.values.clone(), flip[:, None, :3, :3]
        values[..., position] = (small @ values[..., position, None])[..., 0]
        values[..., rotation] = matrix_to_rotation_6d(small @ rotation_6d_to_matrix(values[..., rotation]) @ small)
        return Batch(streams), replace(target, values=values)

    def _motion(self, key_m: Tensor, generator: torch.Generator) -> Tensor:
        """``moved_from_base`` [B, 4, 4] for key positions [B, 3]."""
        size = len(key_m)
        motion = turn_z((torch.rand(size, generator=generator) * 2 - 1) * self._turn_rad)
        shift = (torch.rand(size, 3, generator=generator) * 2 - 1) * self._shift * (self._high - self._low)
        # A key pose that is outside by itself is not pulled in: the motion would no longer be the drawn one's kind.
        low, high = torch.minimum(self._low, key_m), torch.maximum(self._high, key_m)
        moved_m = torch.minimum(torch.maximum(key_m + shift, low), high)
        motion[:, :3, 3] = moved_m - (motion[:, :3, :3] @ key_m[..., None])[..., 0]
        return motion

    def _faulty(self, data: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        depth, camera = data["depth_m"], data["base_from_camera"]
        size = len(depth)
        out: dict[str, Tensor] = {}
        if self._depth_noise_m:
            strength = torch.rand(size, 1, 1, 1, generator=generator) * self._depth_noise_m
            noise = torch.randn(depth.shape, generator=generator) * strength
            out["depth_m"] = torch.where(depth > 0, (depth + noise).clamp_min(1e-3), depth)
        if self._camera_shift_m or self._camera_turn_rad:
            error = torch.eye(4).repeat(size, 1, 1)
            axis = torch.nn.functional.normalize(torch.randn(size, 3, generator=generator), dim=-1)
            angle = torch.rand(size, 1, generator=generator) * self._camera_turn_rad
            error[:, :3, :3] = axis_angle_to_matrix(axis * angle)
            error[:, :3, 3] = (torch.rand(size, 3, generator=generator) * 2 - 1) * self._camera_shift_m
            out["base_from_camera"] = camera @ error[:, None]
        return out
