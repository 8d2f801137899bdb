"""KeyPoseModel: RGB-D cameras -> one cloud -> virtual views -> the next key pose, in one or two zoom stages.

RVT (Goyal et al., CoRL 2023) has one stage, RVT-2 (Goyal et al., RSS 2024) a second one that looks at what the first
one found four times as large. The stages' network is a part: the published one or the project's own trunk.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from perceive.batch import ActionTarget, Batch
from perceive.geometry import full_precision, matrix_to_rotation_6d, rotation_6d_to_matrix, widened
from perceive.language.base import Language
from perceive.language.colours import ColourNames
from perceive.model_base import Model, decayed
from perceive.normalize import FieldStats
from perceive.points.cloud import FIELDS, Cloud, fuse
from perceive.rvt.cube import Cube
from perceive.rvt.network import PoseLogits, StageFeatures, StageInput, StageNetwork
from perceive.rvt.pillar import move_pillars
from perceive.rvt.readout import heatmap_loss, peak_of_logits
from perceive.rvt.renderer import Rendered, channels, render
from perceive.rvt.rotation import RotationBins
from perceive.rvt.views import pixel_of, views_named
from perceive.saved import Description
from perceive.wiring import check_sensors
from sensors.action import ActionMode, ActionSpec
from sensors.errors import SpecError, WiringError

HEAD = "action"
OPEN_M = 0.08  # gripper opening that counts as 1
PROPRIO = 10  # opening, place of the tool in the cube, two columns of its rotation


@dataclass(frozen=True, eq=False)
class Look:
    """What one stage saw and said.

    Attributes:
        cube: what was looked at.
        rendered: the virtual views.
        logits: float [B, V, S, S], heatmaps before their softmax.
        point: float [B, 3], where the maps agree best, in the cube's coordinates.
    """

    cube: Cube
    rendered: Rendered
    logits: Tensor
    point: Tensor


@dataclass(frozen=True, eq=False)
class KeyPose:
    """The next key pose.

    Attributes:
        values: float [B, 1, A], in the units of the key-pose action spec.
        seen: float [B], which part of the cameras' pixels are points inside the workspace.
        usable: bool [B]; False = too few points were seen, and ``values`` means nothing.
        looks: one per stage, for people and reports.
    """

    values: Tensor
    seen: Tensor
    usable: Tensor
    looks: tuple[Look, ...]


@final
class KeyPoseModel(Model):
    """Predicts where the tool is to be next, how it is turned, and what the gripper does there.

    Args:
        sensor_spaces: sensor -> frame space.
        history: sensor -> T; the newest frame is used.
        action_spec: key poses (mode ``key_pose``).
        cameras: names of the RGB-D sensors; further ones may be there later.
        low_m: lowest corner [3] of the workspace, base frame.
        high_m: highest corner [3].
        views: names of the cube faces that are looked at (see perceive.rvt.views.FACES).
        size_px: S, edge of a virtual view.
        stages: the network of each stage; all but the first see ``zoom`` times as much detail.
        language: turns instructions into tokens; None = no instruction is read.
        colours: gives the stages one more channel for each of its slots: how much a pixel looks like the first, second,
            ... colour that the instruction names. None = none.
        joints: the sensor with ``base_from_tool`` and ``gripper_m``.
        instruction: the sensor with ``text``.
        zoom: of the second stage.
        zoom_jitter: in training the second stage looks up to this far beside the key pose, in units of the first cube.
        sigma_px: of the heatmaps' targets.
        splat_px: radius of a rendered point.
        least_seen: part of all pixels that has to be a point inside the workspace.
        max_depth_m: farther surfaces count as not measured.
        max_points: in training each sample keeps so many random points; 0 = all.
        pillar_m: in training, what is within this of the vertical through a key pose is moved elsewhere together with
            the key pose (see perceive.rvt.pillar); 0 = nothing is.
        floor_m: height below which points are the table, for ``pillar_m``.
        proprio: how many of the numbers opening, place of the tool in the cube (3), rotation of the tool (6) are read.
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
        views: Sequence[str],
        size_px: int,
        stages: Sequence[StageNetwork],
        language: Language | None = None,
        colours: ColourNames | None = None,
        joints: str = "joints",
        instruction: str = "task",
        zoom: float = 4.0,
        zoom_jitter: float = 0.1,
        sigma_px: float = 1.5,
        splat_px: float = 1.344,
        least_seen: float = 0.01,
        max_depth_m: float = 3.0,
        max_points: int = 0,
        pillar_m: float = 0.0,
        floor_m: float = 0.01,
        proprio: int = PROPRIO,
        ignored_sensors: Sequence[str] = (),
    ) -> None:
        super().__init__()
        owner = "KeyPoseModel"
        if action_spec is None or action_spec.mode is not ActionMode.KEY_POSE:
            got = "none" if action_spec is None else action_spec.mode.value
            raise WiringError(owner, "actions of the mode key_pose", got, "Train it on a KeyframeDataset.")
        if not 1 <= len(stages) <= 2:
            raise WiringError(f"{owner}.stages", "one or two", f"{len(stages)}", "Give one, or two to zoom.")
        if zoom <= 1 or zoom * zoom_jitter >= 1 or not 0 <= least_seen < 1 or sigma_px <= 0:
            raise SpecError(
                owner, "zoom > 1, zoom * zoom_jitter < 1, 0 <= least_seen < 1, sigma_px > 0",
                f"{zoom}, {zoom_jitter}, {least_seen}, {sigma_px}", "With more jitter the key pose leaves the cube.",
            )  # fmt: skip
        self._sensors = (*cameras, joints, *([] if language is None and colours is None else [instruction]))
        read: list[tuple[str, Sequence[str]]] = [(name, FIELDS) for name in cameras]
        read.append((joints, ("base_from_tool", "gripper_m")))
        check_sensors(
            owner, read + [(name, ("text",)) for name in self._sensors[len(read) :]], sensor_spaces, ignored_sensors
        )
        self._cameras, self._joints, self._instruction = tuple(cameras), joints, instruction
        self._spec = action_spec
        self.faces = tuple(views)
        self._views, self._size = views_named(views), size_px
        self._zoom, self._jitter, self._sigma_px, self._splat_px = zoom, zoom_jitter, sigma_px, splat_px
        self._least, self._max_depth_m, self._max_points = least_seen, max_depth_m, max_points
        self._pillar_m, self._floor_m = pillar_m, floor_m
        self._proprio_size = proprio
        self.stages = nn.ModuleList(stages)
        self.language = language
        self.colours = colours
        self.bins = RotationBins()
        for stage in stages:
            if stage.views != len(self._views) or stage.size_px != size_px:
                raise WiringError(
                    f"{owner}.stages", f"networks for {len(self._views)} views of {size_px} px",
                    f"{stage.views} of {stage.size_px} px", "Make views and size_px the same.",
                )  # fmt: skip
        self.low_m: Tensor
        self.high_m: Tensor
        self.register_buffer("low_m", torch.tensor(low_m, dtype=torch.float32), persistent=False)
        self.register_buffer("high_m", torch.tensor(high_m, dtype=torch.float32), persistent=False)

    @property
    def sensor_names(self) -> tuple[str, ...]:
        return self._sensors

    def also_reads(self, fields: Collection[str]) -> bool:
        """True for RGB-D cameras: one more is only more points."""
        return set(FIELDS) <= set(fields)

    @property
    def head_names(self) -> tuple[str, ...]:
        return (HEAD,)

    def describe(self, description: Description) -> None:
        plan = dict(description.plan)
        if self.language is not None:
            plan["language"] = self.language.config()
        super().describe(replace(description, plan=plan))

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: the cube is the scale."""

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Matrices decay; biases, norms, positions and embeddings do not."""
        return decayed(self, weight_decay, ("position", "embedding", "embedding.weight", ".table.weight", ".place"))

    def forward(self, batch: Batch) -> dict[str, KeyPose]:
        """``"action"`` -> the key pose of each sample."""
        cloud, seen = self._cloud(batch)
        cube, told = self._first_cube(batch), self._told(batch)
        looks: list[Look] = []
        features: StageFeatures | None = None
        for number, stage in enumerate(self._networks()):
            if number:
                cube = cube.zoomed(looks[-1].point, self._zoom)
            rendered, features = self._look(stage, cloud, cube, batch, told)
            with full_precision(cube.half_m.device):
                point = peak_of_logits(features.logits, self._views).point
            looks.append(Look(cube, rendered, features.logits, point))
        assert features is not None
        last = looks[-1]
        with full_precision(cube.half_m.device):
            pixels = pixel_of(last.point[:, None], self._views, self._size)[:, :, 0]
            pose = self._networks()[-1].pose(features, pixels, None)
            values = self._values(last.cube.restore(last.point[:, None])[:, 0], pose)
        return {HEAD: KeyPose(values[:, None], seen, seen >= self._least, tuple(looks))}

    def loss(self, batch: Batch, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross entropies: ``heat1``, ``heat2`` (per view), ``rotation``, ``gripper``, ``collision``.

        Logged only: ``_rotation_right`` (part of samples with all three angles right), ``_position_px`` (mean distance
        between each view's best pixel and the key pose in the last stage).
        """
        for name in targets:
            if name != HEAD:
                raise WiringError("KeyPoseModel.loss", f"a target for '{HEAD}'", f"'{name}'", "Train heads=[action].")
        target: ActionTarget = targets[HEAD]
        wanted = target.values[:, 0].to(self.low_m.device)
        position = wanted[:, self._spec.part("position_m")]
        bins = self.bins.encode(rotation_6d_to_matrix(wanted[:, self._spec.part("rotation_6d")]))
        cloud, _ = self._cloud(batch)
        if self.training and self._pillar_m:
            tool_m = batch.stream(self._joints).data["base_from_tool"][:, -1, :3, 3].float()
            cloud, position = move_pillars(
                cloud, position, tool_m, self.low_m, self.high_m, self._pillar_m, self._floor_m
            )
        cube, told = self._first_cube(batch), self._told(batch)
        terms: dict[str, Tensor] = {}
        features: StageFeatures | None = None
        pixels: Tensor | None = None
        for number, stage in enumerate(self._networks()):
            point = cube.normalise(position[:, None])[:, 0]
            if number:
                jitter = (torch.rand_like(point) * 2 - 1) * self._jitter
                cube = cube.zoomed((point + jitter).clamp(-1, 1), self._zoom)
                point = cube.normalise(position[:, None])[:, 0]
            _, features = self._look(stage, cloud, cube, batch, told)
            with full_precision(point.device):
                terms[f"heat{number + 1}"] = heatmap_loss(widened(features.logits), point, self._views, self._sigma_px)
                pixels = pixel_of(point[:, None], self._views, self._size)[:, :, 0]
        assert features is not None
        assert pixels is not None
        pose = self._networks()[-1].pose(features, pixels, bins)
        with full_precision(position.device):
            terms |= self._pose_losses(pose, wanted, bins)
            terms["_position_px"] = _distance_px(features.logits.detach(), pixels)
        terms = {f"{HEAD}/{name}": value for name, value in terms.items()}
        total = torch.stack([value for name, value in terms.items() if "/_" not in name]).sum()
        return {"loss": total} | terms

    def _networks(self) -> list[StageNetwork]:
        """The stages with their type, which a ModuleList forgets."""
        return [stage for stage in self.stages if isinstance(stage, StageNetwork)]

    def _pose_losses(self, pose: PoseLogits, wanted: Tensor, bins: Tensor) -> dict[str, Tensor]:
        gripper = (wanted[:, self._spec.part("gripper")][:, 0] > 0).long()
        avoid = (wanted[:, self._spec.part("avoid")][:, 0] > 0).long()
        terms = {
            "gripper": cross_entropy(widened(pose.gripper), gripper),
            "collision": cross_entropy(widened(pose.collision), avoid),
        }
        if pose.rotation_6d is not None:
            turned = rotation_6d_to_matrix(widened(pose.rotation_6d))
            right = rotation_6d_to_matrix(wanted[:, self._spec.part("rotation_6d")])
            terms["rotation"] = (turned - right).abs().sum((1, 2)).mean()
        else:
            assert pose.rotation is not None
            logits = widened(pose.rotation)
            terms["rotation"] = torch.stack([cross_entropy(logits[:, axis], bins[:, axis]) for axis in range(3)]).sum()
            terms["_rotation_right"] = (logits.detach().argmax(-1) == bins).all(-1).float().mean()
        return terms

    def _cloud(self, batch: Batch) -> tuple[Cloud, Tensor]:
        """The points inside the workspace, and which part of all pixels they are [B]."""
        more = [n for n, s in batch.streams.items() if n not in self._sensors and self.also_reads(s.data)]
        cloud = fuse(batch, [*self._cameras, *more], self._max_depth_m)
        valid = cloud.within(self.low_m, self.high_m)
        seen = valid.float().mean(1)
        if self.training and 0 < self._max_points < valid.shape[1]:
            # A random part; equal odds for every valid point.
            keep = self._max_points / valid.sum(1, keepdim=True).clamp_min(1)
            valid = valid & (torch.rand(valid.shape, device=valid.device) < keep)
        return Cloud(cloud.xyz_m, cloud.rgb, valid), seen

    def _first_cube(self, batch: Batch) -> Cube:
        return Cube.around(self.low_m, self.high_m, batch.size, self.low_m.device)

    def _told(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The instruction's tokens [B, L, E] and which of them are there [B, L]."""
        if self.language is None:
            none = torch.zeros(batch.size, 0, 1, device=self.low_m.device)
            return none, none[..., 0].bool()
        stream = batch.stream(self._instruction)
        found = self.language(stream.data["text"][:, -1])
        return found.tokens, found.valid & stream.valid[:, -1:]

    def _look(
        self, stage: StageNetwork, cloud: Cloud, cube: Cube, batch: Batch, told: tuple[Tensor, Tensor]
    ) -> tuple[Rendered, StageFeatures]:
        with full_precision(cube.half_m.device), torch.no_grad():
            points = cube.normalise(cloud.xyz_m)
            rendered = render(points, cloud.rgb, cloud.valid, self._views, self._size, self._splat_px)
            images = channels(rendered, self._views)
            if self.colours is not None:
                images = torch.cat([images, self._named(self.colours, rendered, batch)], 2)
            own = self._proprio(batch, cube)
        seen = StageInput(images, rendered.xyz, rendered.hit, own, *told)
        features: StageFeatures = stage(seen)
        return rendered, features

    def _named(self, colours: ColourNames, rendered: Rendered, batch: Batch) -> Tensor:
        """How much each pixel looks like each colour that the instruction names [B, V, K, S, S]."""
        stream = batch.stream(self._instruction)
        text = stream.data["text"][:, -1].to(rendered.features.device)
        pixels = rendered.features.permute(0, 1, 3, 4, 2)  # [B, V, S, S, 3]
        score = colours(pixels.flatten(1, 3), text).unflatten(1, pixels.shape[1:4]).permute(0, 1, 4, 2, 3)
        told = stream.valid[:, -1].to(score.device)[:, None, None, None, None]
        return torch.where(told & rendered.hit[:, :, None], score, 0.0)

    def _proprio(self, batch: Batch, cube: Cube) -> Tensor:
        """Opening, place in the cube and rotation of the tool [B, 10]; zero where the joints are absent."""
        stream = batch.stream(self._joints)
        tool, opening = stream.data["base_from_tool"][:, -1].float(), stream.data["gripper_m"][:, -1].float()
        place = cube.normalise(tool[:, None, :3, 3])[:, 0].clamp(-4, 4)
        own = torch.cat([opening * (2 / OPEN_M) - 1, place, matrix_to_rotation_6d(tool[:, :3, :3])], -1)
        return torch.where(stream.valid[:, -1:], own[:, : self._proprio_size], 0.0)

    def _values(self, position_m: Tensor, pose: PoseLogits) -> Tensor:
        """Physical key poses [B, A]."""
        size = len(position_m)
        values = position_m.new_zeros(size, self._spec.size)
        values[:, self._spec.part("position_m")] = position_m
        if pose.rotation_6d is not None:
            rotation = rotation_6d_to_matrix(widened(pose.rotation_6d))
        else:
            assert pose.rotation is not None
            rotation = self.bins.decode(pose.rotation.argmax(-1))
        values[:, self._spec.part("rotation_6d")] = matrix_to_rotation_6d(rotation.to(values.dtype))
        for name, logits in (("gripper", pose.gripper), ("avoid", pose.collision)):
            values[:, self._spec.part(name)] = (logits.argmax(-1, keepdim=True) * 2 - 1).to(values.dtype)
        return values


def _distance_px(logits: Tensor, pixels: Tensor) -> Tensor:
    """Mean distance between each view's best pixel and the right one, scalar."""
    size = logits.shape[-1]
    best = logits.flatten(2).argmax(-1)
    found = torch.stack([best % size, best // size], -1) + 0.5
    away: Tensor = (found - pixels).norm(dim=-1).mean()
    return away
