"""PointDiffusionModel: a coloured point cloud, the robot's state and an instruction -> the next K commands.

3D Diffusion Policy (DP3: Ze et al., RSS 2024) over the sensors of this project: what the other models are compared to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.functional import gelu

from perceive.batch import ActionTarget, Batch
from perceive.diffusion.denoiser import Denoiser
from perceive.diffusion.pointnet import PointNet
from perceive.diffusion.scale import ActionScale
from perceive.diffusion.schedule import CosineSchedule
from perceive.geometry import full_precision, matrix_to_rotation_6d, widened
from perceive.heads.base import ActionChunk
from perceive.language.base import Language
from perceive.language.colours import ColourNames
from perceive.model_base import Model, decayed
from perceive.normalize import FieldStats
from perceive.points.cloud import FIELDS, Cloud, fuse
from perceive.points.sample import Method, downsample, thinned
from perceive.saved import Description
from perceive.wiring import check_sensors
from sensors.action import ActionSpec
from sensors.errors import SpecError, WiringError

HEAD = "action"
OPEN_M = 0.08  # gripper opening that counts as 1
_STATE = 11  # opening, place of the tool in the workspace, two columns of its rotation, whether all these are known


@final
class PointDiffusionModel(Model):
    """Denoises an action chunk, told by a PointNet over the workspace's points, the tool's pose and the instruction.

    The published method, with these differences: rotations are six numbers that are not scaled; the newest frame is
    read, not the last two; what is sampled may leave the range of the data a little (``limit``), as augmented targets
    do; sampling starts at the noisiest step; the denoiser is smaller; points are thinned by voxels, which leaves
    gaps about as small as farthest point sampling, the published way, does, at a fifth of its time.

    The noise of an answer comes from torch's global generator.

    Args:
        sensor_spaces: sensor -> frame space.
        history: sensor -> T; the newest frame is used.
        action_spec: of the commands, dense ones such as ``ee_pose``.
        cameras: names of the RGB-D sensors.
        low_m: lowest corner [3] of the workspace, base frame; just above the table, so that points are not spent on it.
        high_m: highest corner [3].
        chunk: K, a multiple of 2 ** (resolutions of the denoiser - 1).
        points: N, read by the PointNet.
        sampling: how they are chosen, see :func:`perceive.points.sample.downsample`.
        candidates: from among how many.
        voxel_m: edge of the cubes for ``sampling="voxel"``.
        stride: in training only every so-manieth row and column of the pictures, from a random one on, is read. Where
            the workspace still holds ``candidates`` points then, it saves time and costs nothing.
        use_color: whether points have a colour.
        language: turns instructions into tokens; None = no instruction is read.
        colours: tells of each point how much it looks like the first, second, ... colour that the instruction names;
            None = nothing. Not part of the published method.
        joints: the sensor with ``base_from_tool`` and ``gripper_m``.
        instruction: the sensor with ``text``.
        point_layers: widths of the PointNet's layers.
        point_width: numbers that tell the cloud.
        state_width: numbers that tell the robot's state, and as many for the instruction.
        widths: channels of the denoiser's resolutions.
        kernel: of the denoiser's convolutions.
        noise_steps: of the schedule.
        sample_steps: of an answer.
        limit: what is sampled stays within +- this; 1 = the range of the data.
        max_depth_m: farther surfaces count as not measured.
        ignored_sensors: sensors of the rig that are meant not to be read.

    Raises:
        WiringError: parts that do not fit each other or the rig.
        SpecError: a number out of its range.
    """

    def __init__(
        self,
        sensor_spaces: Mapping[str, spaces.Dict],
        history: Mapping[str, int],
        action_spec: ActionSpec | None,
        cameras: Sequence[str],
        low_m: Sequence[float],
        high_m: Sequence[float],
        chunk: int = 16,
        points: int = 512,
        sampling: Method = "voxel",
        candidates: int = 1024,
        voxel_m: float = 0.006,
        stride: int = 1,
        use_color: bool = True,
        language: Language | None = None,
        colours: ColourNames | None = None,
        joints: str = "joints",
        instruction: str = "task",
        point_layers: Sequence[int] = (64, 128, 256),
        point_width: int = 128,
        state_width: int = 64,
        widths: Sequence[int] = (64, 128, 256),
        kernel: int = 3,
        noise_steps: int = 100,
        sample_steps: int = 10,
        limit: float = 1.2,
        max_depth_m: float = 3.0,
        ignored_sensors: Sequence[str] = (),
    ) -> None:
        super().__init__()
        owner = "PointDiffusionModel"
        if action_spec is None:
            raise WiringError(owner, "an action spec", "none", "Build it with action_spec=...")
        low, high = list(low_m), list(high_m)
        if not len(low) == len(high) == 3 or any(a >= b for a, b in zip(low, high, strict=True)):
            raise SpecError(owner, "low_m below high_m, three numbers each", f"{low}, {high}", "Correct them.")
        if not cameras or points < 1 or candidates < points or limit < 1 or stride < 1:
            raise SpecError(
                owner, "a camera, 1 <= points <= candidates, limit >= 1, stride >= 1",
                f"{list(cameras)}, {points}, {candidates}, {limit}, {stride}", "Correct them.",
            )  # fmt: skip
        read: list[tuple[str, Sequence[str]]] = [(name, FIELDS) for name in cameras]
        read.append((joints, ("base_from_tool", "gripper_m")))
        if language is not None or colours is not None:
            read.append((instruction, ("text",)))
        check_sensors(owner, read, sensor_spaces, ignored_sensors)
        self._sensors = tuple(name for name, _ in read)
        self._cameras, self._joints, self._instruction = tuple(cameras), joints, instruction
        self._points, self._sampling, self._candidates, self._voxel_m = points, sampling, candidates, voxel_m
        self._stride, self._color, self._max_depth_m = stride, use_color, max_depth_m
        self._shape, self._sample_steps, self._limit = (chunk, action_spec.size), sample_steps, limit
        self.low_m: Tensor
        self.high_m: Tensor
        self.register_buffer("low_m", torch.tensor(low, dtype=torch.float32), persistent=False)
        self.register_buffer("high_m", torch.tensor(high, dtype=torch.float32), persistent=False)
        self.schedule = CosineSchedule(noise_steps)
        self.schedule.visited(sample_steps)  # raises here rather than at the first answer
        self.scale = ActionScale(action_spec)
        self.colours = colours
        slots = 0 if colours is None else colours.slots
        self.pointnet = PointNet((6 if use_color else 3) + slots, point_width, point_layers)
        self.state = _two_layers(_STATE, state_width)
        self.language = language
        told = point_width + state_width
        if language is not None:
            self.word = nn.Linear(language.width, state_width)
            self.told = _two_layers(state_width + 1, state_width)
            told += state_width
        self.denoiser = Denoiser(action_spec.size, chunk, told, widths, kernel)

    @property
    def sensor_names(self) -> tuple[str, ...]:
        return self._sensors

    @property
    def head_names(self) -> tuple[str, ...]:
        return (HEAD,)

    def describe(self, description: Description) -> None:
        plan = dict(description.plan)
        if self.language is not None:
            plan["language"] = {**plan["language"], **self.language.resolved_arguments()}
        super().describe(replace(description, plan=plan))

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit the scale of the actions; the workspace is the scale of everything that is read."""
        self.scale.fit(stats)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Matrices decay; biases, norms, positions and embeddings do not."""
        return decayed(self, weight_decay, ("language.table.weight", "language.place"))

    def forward(self, batch: Batch) -> dict[str, ActionChunk]:
        """``"action"`` -> one of the ways in which the demonstrations may go on."""
        told, _ = self._observed(batch)
        noise = torch.randn(batch.size, *self._shape, device=self.low_m.device)
        latent = self.schedule.sample(
            lambda noised, step: self.denoiser(noised, step, told), noise, self._sample_steps, self._limit
        )
        with full_precision(latent.device):
            return {HEAD: ActionChunk(self.scale.decode(latent))}

    def loss(self, batch: Batch, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """``denoise``: mean squared error of the chunk that is told from a noised one, over the valid steps.

        Logged only: ``_seen``, which part of the PointNet's points there were to be had.

        Raises:
            WiringError: a target for another head.
        """
        for name in targets:
            if name != HEAD:
                raise WiringError(
                    "PointDiffusionModel.loss", f"a target for '{HEAD}'", f"'{name}'", "Train heads=[action]."
                )
        target: ActionTarget = targets[HEAD]
        keep = target.valid[..., None]
        told, seen = self._observed(batch)
        with full_precision(told.device):
            wanted = self.scale.encode(_held(target))
            step = torch.randint(self.schedule.steps, (len(wanted),), device=wanted.device)
            noised = self.schedule.noised(wanted, torch.randn_like(wanted), step)
        error = widened(self.denoiser(noised, step, told)) - wanted
        squared = torch.where(keep, error, 0.0).square().sum()
        denoise = squared / (target.valid.sum().clamp_min(1) * wanted.shape[-1])
        return {"loss": denoise, f"{HEAD}/denoise": denoise, f"{HEAD}/_seen": seen}

    def _observed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the denoiser is told [B, C], and which part of the points there were, scalar."""
        points, valid = self._points_of(batch)
        parts = [self.pointnet(points, valid), self.state(self._state_of(batch))]
        if self.language is not None:
            parts.append(self._told_by(self.language, batch))
        return torch.cat(parts, -1), valid.float().mean()

    @torch.no_grad()
    def _points_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Points of the workspace in its units, with what else is known of them [B, N, F]; which are there [B, N]."""
        with full_precision(self.low_m.device):
            if self.training:
                row, column = torch.randint(self._stride, (2,)).tolist()
                batch = thinned(batch, self._cameras, self._stride, row, column)
            cloud = fuse(batch, self._cameras, self._max_depth_m)
            cloud = Cloud(cloud.xyz_m, cloud.rgb, cloud.within(self.low_m, self.high_m))
            cloud = downsample(
                cloud, self._points, self._sampling, self._candidates, self._voxel_m, jitter=self.training
            )
            place = self._normalised(cloud.xyz_m)
            points = torch.cat([place, cloud.rgb * 2 - 1], -1) if self._color else place
            if self.colours is not None:
                text = batch.stream(self._instruction)
                named = self.colours(cloud.rgb, text.data["text"][:, -1].to(points.device))
                points = torch.cat([points, torch.where(text.valid[:, -1:, None].to(points.device), named, 0.0)], -1)
            return torch.where(cloud.valid[..., None], points, 0.0), cloud.valid

    def _normalised(self, points_m: Tensor) -> Tensor:
        """Points [..., 3]: the middle of the workspace becomes 0, half of its longest side 1."""
        half = (self.high_m - self.low_m).max() / 2
        return (points_m - (self.low_m + self.high_m) / 2) / half

    def _state_of(self, batch: Batch) -> Tensor:
        """The robot's state [B, 11]; all zeros where the joints are absent."""
        stream = batch.stream(self._joints)
        with full_precision(self.low_m.device):
            tool, opening = stream.data["base_from_tool"][:, -1].float(), stream.data["gripper_m"][:, -1, :1].float()
            place = self._normalised(tool[:, :3, 3]).clamp(-4, 4)
            known = torch.ones_like(opening)
            state = torch.cat([opening * (2 / OPEN_M) - 1, place, matrix_to_rotation_6d(tool[:, :3, :3]), known], -1)
            return torch.where(stream.valid[:, -1:] & state.isfinite().all(-1, keepdim=True), state, 0.0)

    def _told_by(self, language: Language, batch: Batch) -> Tensor:
        """The instruction [B, state_width]: the mean over its words of what a layer makes of each."""
        stream = batch.stream(self._instruction)
        text = language(stream.data["text"][:, -1])
        valid = text.valid & stream.valid[:, -1:]
        words = torch.where(valid[..., None], gelu(self.word(text.tokens)), 0.0)
        mean = words.sum(1) / valid.sum(1, keepdim=True).clamp_min(1)
        told: Tensor = self.told(torch.cat([mean, valid.any(1, keepdim=True).to(mean.dtype)], -1))
        return told


def _two_layers(inputs: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))


def _held(target: ActionTarget) -> Tensor:
    """A target's values with the last valid step held beyond an episode's end, where anything may stand."""
    steps = torch.arange(target.valid.shape[1], device=target.valid.device)
    first = target.valid.int().argmax(1, keepdim=True)
    last = torch.where(target.valid, steps, first).cummax(1).values
    held = target.values.gather(1, last[..., None].expand_as(target.values))
    return torch.where(target.valid.any(1)[:, None, None], held, 0.0)
