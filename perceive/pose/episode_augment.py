"""Episodes of few-shot pose changed in ways that leave their truth known."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.geometry import axis_angle_to_matrix
from perceive.heads.object_coordinates_target import PoseTarget
from perceive.heads.query_target import Episode, QueryTarget
from perceive.pose.augment import PoseCropAugment
from perceive.pose.crop_source import CropSource, Recut, recut
from perceive.pose.episode import References, assemble, references_of, scale_of
from sensors.errors import SpecError, WiringError

_ORDERS = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])


@final
class EpisodeAugment:
    """Queries as of :class:`~perceive.pose.augment.PoseCropAugment`, references cut anew, objects made of others.

    The object's frame is turned away from the query's by a random angle, so that no axis of an object means anything,
    and seldom by more than ``frame_rad``: a trained network is told of an object in frames that cover all rotations, of
    which one is near. In a share of the samples it is not, which is how the network learns to say so. Colour
    channels are swapped, alike in query and references: that is another object. References are shifted, scaled, turned,
    lit, and their depth is noisy.

    Args:
        query: what is done to queries; its crop must be called as here, its extent be that of the dataset.
        crop: the sensor with the queries.
        references: the sensor with the references.
        asked: what ``query`` calls the asked object, which there is none of here.
        recolour: share of the samples whose colour channels are swapped.
        extent: width of the references, in diameters.
        shift: of their middles, along each axis, in diameters.
        scale: of them, as a share.
        turn_rad: largest turn about their axes.
        brightness: of their colours, as a share.
        frame_rad: largest angle between the object's frame and the query's.
        far: share of the samples in which that angle may be anything.
        depth_noise: deviation of their depth at 1 m, in metres, which grows with the square of the depth.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(
        self,
        query: PoseCropAugment,
        crop: str = "crop",
        references: str = "references",
        asked: str = "object",
        recolour: float = 0.5,
        extent: float = 1.2,
        shift: float = 0.05,
        scale: float = 0.1,
        turn_rad: float = 0.3,
        brightness: float = 0.15,
        depth_noise: float = 0.001,
        frame_rad: float = 0.9,
        far: float = 0.2,
    ) -> None:
        numbers = (recolour, shift, scale, turn_rad, brightness, depth_noise, frame_rad, far)
        if not all(0 <= value < 10 for value in numbers) or max(recolour, far) > 1 or not 0.2 <= extent < 10:
            raise SpecError(
                "EpisodeAugment", "shares from 0 to 1, an extent above 0.2", f"{numbers}, {extent}", "Correct."
            )
        self._query, self._crop, self._references, self._asked = query, crop, references, asked
        self._recolour, self._extent, self._shift, self._scale = recolour, extent, shift, scale
        self._turn_rad, self._brightness, self._depth_noise = turn_rad, brightness, depth_noise
        self._frame_rad, self._far = frame_rad, far

    def __call__(self, batch: Batch, target: QueryTarget, generator: torch.Generator) -> tuple[Batch, QueryTarget]:
        """A changed copy of a batch and its target, on the CPU.

        Raises:
            WiringError: the target does not hold what its crops were cut out of.
        """
        episode = target.episode
        if episode is None:
            raise WiringError("EpisodeAugment", "a target with its episode", "none", "Use dataset=poses_few_shot.")
        size, pixels = len(target.mask), batch.stream(self._crop).data["rgb"].shape[2]
        draw = torch.rand(size, 2, generator=generator)
        order = _ORDERS[torch.where(draw[:, 0] < self._recolour, (draw[:, 1] * 6).long(), 0)]
        side = batch.stream(self._references).data["rgb"].shape[2]
        references = self._recut(episode, 2 * side, order, generator)
        axis = torch.nn.functional.normalize(torch.randn(size, 3, generator=generator), dim=-1)
        luck = torch.rand(size, 2, generator=generator)
        angle = torch.where(luck[:, :1] < self._far, torch.pi, self._frame_rad) * luck[:, 1:]
        turn = axis_angle_to_matrix(axis * angle) @ episode.query.crop_from_object[:, :3, :3]
        scale = scale_of(*references.points(), turn)
        query = replace(_recoloured(episode.query, order), diameter_m=2 * scale.radius_m)
        new = self._cut_query(query, pixels, generator)
        return assemble(new, references, scale, episode.symmetries, (self._crop, self._references), None)

    def _recut(self, episode: Episode, pixels: int, order: Tensor, generator: torch.Generator) -> References:
        source = episode.references
        count, each = len(source.rgb), episode.there.shape[1]
        luck = torch.rand(count, 8, generator=generator) * 2 - 1
        diameter_px = source.focal_px * source.diameter_m / source.surface_m
        middle = source.middle_px + luck[:, :2] * (self._shift * diameter_px)[:, None]
        extent = self._extent * source.diameter_m * (self._scale * luck[:, 2]).exp()
        source = _recoloured(source, order.repeat_interleave(each, 0))
        turn = luck[:, 3] * self._turn_rad
        made = references_of(
            recut(source, pixels, middle, source.surface_m * source.slant, extent, turn), episode.there
        )
        gain = (1 + self._brightness * luck[:, 4:5]) * (1 + 0.3 * self._brightness * luck[:, 5:8])
        rgb = (made.rgb * gain[:, None, None]).clamp(0, 255).round().to(torch.uint8)
        noise = torch.randn(made.depth_m.shape, generator=generator).clamp_(-3, 3) * self._depth_noise
        depth = torch.where(made.depth_m > 0, (made.depth_m + noise * made.depth_m.square()).clamp_min(1e-3), 0.0)
        return replace(made, rgb=rgb, depth_m=depth)

    def _cut_query(self, source: CropSource, pixels: int, generator: torch.Generator) -> Recut:
        size = len(source.rgb)
        one = torch.ones(size, 1, 1)
        rgb = torch.zeros(size, 1, pixels, pixels, 3, dtype=torch.uint8)
        age, valid = torch.zeros(size, 1), torch.ones(size, 1, dtype=torch.bool)
        streams = {
            self._crop: BatchStream({"rgb": rgb}, age, valid),
            self._asked: BatchStream({"which": one}, age, valid),
        }
        nothing = torch.zeros(size, 1, 1)
        which = torch.zeros(size, dtype=torch.long)
        plain = PoseTarget(
            which, valid[:, 0], nothing > 0, nothing, nothing, which[:1], torch.eye(4)[None, None],
            replace(source, nowhere=torch.zeros(size, 1, dtype=torch.bool)),
        )  # fmt: skip
        batch, cut = self._query(Batch(streams), plain, generator)
        data = {name: value[:, 0] for name, value in batch.stream(self._crop).data.items()}
        return Recut(
            data["rgb"], data["depth_m"], data["intrinsics_px"], data["base_from_camera"],
            cut.mask, cut.coordinates_m, cut.frame_from_object,
        )  # fmt: skip


def _recoloured(source: CropSource, order: Tensor) -> CropSource:
    """Colour channels in another order, [B, 3]."""
    index = order[:, None, None].expand(-1, *source.rgb.shape[1:3], -1)
    return replace(source, rgb=source.rgb.gather(-1, index))
