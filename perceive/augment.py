"""Augmentation of whole scenes: turned with their action, other light, shifted patches, absent sensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from perceive.batch import ActionTarget, Batch, BatchStream
from perceive.geometry import axis_angle_to_matrix, matrix_to_rotation_6d, rotation_6d_to_matrix, turn_z
from perceive.recolour import ColourWords
from sensors.action import ActionMode, ActionSpec
from sensors.errors import WiringError, nearest


class SceneAugment:
    """Random changes that leave the right action known. Everything is drawn from the generator that is passed in.

    Args:
        action_spec: what the target's numbers mean.
        turn_rad: the whole scene, cameras and robot included, turns about the base's vertical axis by up to +- this,
            and the commanded pose with it. Needs mode ``ee_pose``. Joint angles are not changed, so a model that
            reads ``position_rad`` should not use it.
        colour_gain: each channel of each picture and cloud is multiplied by a factor in [1 - c, 1 + c].
        shift_px: pictures move by up to +- this many pixels with their principal point, so that patches cut the scene
            elsewhere; what enters is unmeasured.
        camera_turn_rad: each camera turns about its own centre by up to this angle about a random axis. A turn, other
            than a displacement, is the same as a homography of the picture, so nothing is guessed; what enters is
            unmeasured. It keeps a model from relying on how a camera is mounted.
        sensor_dropout: probability that a sensor is absent in a sample: one for all, or sensor -> probability (those
            not named are always there).
        keep_one_of: at least one of these sensors stays present in every sample.
        colour_words: named colours and their hues that are exchanged in pictures and instruction together, see
            perceive.recolour; none if empty.
        instruction: the sensor that says the instruction, for ``colour_words``.

    Raises:
        WiringError: ``turn_rad`` with an action mode that cannot be turned.
    """

    def __init__(
        self,
        action_spec: ActionSpec,
        turn_rad: float = 0.0,
        colour_gain: float = 0.0,
        shift_px: int = 0,
        camera_turn_rad: float = 0.0,
        sensor_dropout: float | Mapping[str, float] = 0.0,
        keep_one_of: Sequence[str] = (),
        colour_words: Mapping[str, float] | None = None,
        instruction: str = "task",
    ) -> None:
        if turn_rad and action_spec.mode is not ActionMode.EE_POSE:
            raise WiringError(
                "SceneAugment.turn_rad", "action mode ee_pose", action_spec.mode.value, "Set turn_rad to 0."
            )
        self._spec = action_spec
        self._turn_rad = turn_rad
        self._colour_gain = colour_gain
        self._shift_px = shift_px
        self._camera_turn_rad = camera_turn_rad
        self._sensor_dropout = sensor_dropout
        self._keep_one_of = tuple(keep_one_of)
        self._colour_words = ColourWords(colour_words, instruction) if colour_words else None

    def __call__(self, batch: Batch, target: ActionTarget, generator: torch.Generator) -> tuple[Batch, ActionTarget]:
        """A changed copy of a batch and its target, both on the CPU or the generator's device."""
        if self._colour_words is not None:
            batch = self._colour_words(batch, generator)
        size = batch.size
        turn = turn_z((torch.rand(size, generator=generator) * 2 - 1) * self._turn_rad)
        present = self._present(list(batch.streams), size, generator)
        streams = {}
        for name, stream in batch.streams.items():
            data = dict(stream.data)
            if self._turn_rad:
                for field, value in data.items():
                    if field.startswith("base_from_"):
                        data[field] = turn[:, None] @ value
                if "xyz_m" in data and not any(field.startswith("base_from_") for field in data):
                    # Such a cloud is in the base frame. Its points [B, T, N, 3] lie in rows.
                    data["xyz_m"] = data["xyz_m"] @ turn[:, None, :3, :3].mT.to(data["xyz_m"].dtype)
            if "rgb" in data and "intrinsics_px" in data:  # a gel's picture is no camera's: it stays where it is
                data = self._picture(data, generator)
            elif "rgb" in data and "xyz_m" in data and self._colour_gain:
                gain = 1 + (torch.rand(size, 1, 1, 3, generator=generator) * 2 - 1) * self._colour_gain
                data["rgb"] = (data["rgb"].float() * gain).clamp(0, 255)
            streams[name] = BatchStream(data, stream.age_s, stream.valid & present[name][:, None])
        return Batch(streams), replace(target, values=self._turned(target.values, turn))

    def _present(self, names: list[str], size: int, generator: torch.Generator) -> dict[str, Tensor]:
        chance = self._sensor_dropout
        for name in chance if isinstance(chance, Mapping) else ():
            if name not in names:
                raise WiringError(
                    "SceneAugment.sensor_dropout", "sensors of the batch", f"'{name}'", nearest(name, names)
                )
        present = {}
        for name in names:
            absent = chance.get(name, 0.0) if isinstance(chance, Mapping) else chance
            present[name] = torch.rand(size, generator=generator) >= absent
        if self._keep_one_of:
            for name in self._keep_one_of:
                if name not in present:
                    raise WiringError(
                        "SceneAugment.keep_one_of", "sensors of the batch", f"'{name}'", nearest(name, present)
                    )
            lucky = torch.randint(len(self._keep_one_of), (size,), generator=generator)
            none_left = ~torch.stack([present[name] for name in self._keep_one_of]).any(0)
            for index, name in enumerate(self._keep_one_of):
                present[name] = present[name] | (none_left & (lucky == index))
        return present

    def _picture(self, data: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        size = data["rgb"].shape[0]
        if self._camera_turn_rad:
            axis = torch.nn.functional.normalize(torch.randn(size, 3, generator=generator), dim=-1)
            angle = torch.rand(size, 1, generator=generator) * self._camera_turn_rad
            data = camera_turned(data, axis_angle_to_matrix(axis * angle))
        if self._colour_gain:
            gain = 1 + (torch.rand(size, 1, 1, 1, 3, generator=generator) * 2 - 1) * self._colour_gain
            data = data | {"rgb": (data["rgb"].float() * gain).clamp(0, 255)}
        down, right = torch.randint(-self._shift_px, self._shift_px + 1, (2,), generator=generator).tolist()
        data = data | {"rgb": shifted(data["rgb"], down, right)}
        if "depth_m" in data:
            data["depth_m"] = shifted(data["depth_m"], down, right)
        moved = torch.tensor([0.0, 0.0, right, down])
        return data | {"intrinsics_px": data["intrinsics_px"] + moved}

    def _turned(self, values: Tensor, turn: Tensor) -> Tensor:
        if not self._turn_rad:
            return values
        position, rotation = self._spec.part("position_m"), self._spec.part("rotation_6d")
        out = values.clone()
        out[..., position] = values[..., position] @ turn[:, :3, :3].transpose(1, 2)
        matrix = turn[:, None, :3, :3] @ rotation_6d_to_matrix(values[..., rotation])
        out[..., rotation] = matrix_to_rotation_6d(matrix)
        return out


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """Pictures [B, T, H, W, ...] moved by whole pixels; zeros enter."""
    height, width = image.shape[2:4]
    out = torch.zeros_like(image)
    to_rows = slice(max(down, 0), height + min(down, 0))
    to_columns = slice(max(right, 0), width + min(right, 0))
    from_rows = slice(max(-down, 0), height + min(-down, 0))
    from_columns = slice(max(-right, 0), width + min(-right, 0))
    out[:, :, to_rows, to_columns] = image[:, :, from_rows, from_columns]
    return out


def camera_turned(data: Mapping[str, Tensor], camera_from_turned: Tensor) -> dict[str, Tensor]:
    """The frames of cameras that stood where they stand but turned: nearest pixels, zeros where nothing was seen.

    Args:
        data: ``rgb`` [B, T, H, W, 3], ``intrinsics_px`` [B, T, 4], ``base_from_camera`` [B, T, 4, 4] and, if there is
            depth, ``depth_m`` [B, T, H, W].
        camera_from_turned: rotations [B, 3, 3], from the turned camera's frame to its own.
    """
    rgb = data["rgb"]
    frames, height, width = rgb.shape[0] * rgb.shape[1], *rgb.shape[2:4]
    intrinsics = data["intrinsics_px"].flatten(0, 1).float()
    pixels = torch.zeros(frames, 3, 3)  # from a ray in the camera's frame
    pixels[:, 0, 0], pixels[:, 1, 1], pixels[:, :2, 2] = intrinsics[:, 0], intrinsics[:, 1], intrinsics[:, 2:]
    pixels[:, 2, 2] = 1.0
    turn = camera_from_turned.float()[:, None].expand(-1, rgb.shape[1], -1, -1).flatten(0, 1)
    old_from_new = (pixels @ turn @ torch.linalg.inv_ex(pixels)[0])[..., None, None]  # a homography, [F, 3, 3, 1, 1]
    down, right = torch.arange(height)[:, None].float(), torch.arange(width).float()
    seen = [old_from_new[:, i, 0] * right + old_from_new[:, i, 1] * down + old_from_new[:, i, 2] for i in range(3)]
    column, row = (seen[0] / seen[2]).round_(), (seen[1] / seen[2]).round_()  # [F, H, W]
    # Comparisons are written so that NaN, out of the intrinsics of an absent frame, counts as not seen.
    inside = (seen[2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    first = torch.arange(frames)[:, None, None] * (height * width)
    picked = torch.where(inside, row * width + column, 0.0).long().add_(first).flatten()
    out = dict(data)
    colours = rgb.reshape(-1, 3).index_select(0, picked).reshape(rgb.shape)
    out["rgb"] = torch.where(inside.reshape(*rgb.shape[:4], 1), colours, colours.new_zeros(()))
    if "depth_m" in data:
        # The surface point that the old pixel measured lies on the new pixel's ray at another depth.
        depth = data["depth_m"].flatten().index_select(0, picked).reshape(inside.shape) / seen[2]
        depth = torch.where(inside, depth, 0.0)
        out["depth_m"] = depth.reshape(data["depth_m"].shape).to(data["depth_m"].dtype)
    camera = data["base_from_camera"].clone()
    camera[..., :3, :3] = camera[..., :3, :3] @ camera_from_turned.to(camera.dtype)[:, None]
    out["base_from_camera"] = camera
    return out
