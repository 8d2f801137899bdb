"""Pose changes: what is to be done to a hypothesis so that its drawing fits the picture, and whether it is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.encoders.base import field_shape
from perceive.geometry import axis_angle_to_matrix, camera_rays, full_precision, rotation_6d_to_matrix
from perceive.heads.base import Head, HeadContext
from perceive.heads.crop_points import newest_tokens, square_crop
from perceive.heads.pose_change_net import CELL_PX, CompareNet
from perceive.heads.pose_change_solve import rigid_motion
from perceive.heads.pose_change_target import ChangeTarget
from perceive.pose.compare import DIAMETER_M, PoseChange
from sensors.errors import SpecError, WiringError

PATCH_PX = 8  # of the encoders of both streams
_TURN, _SHIFT, _DEPTH = 0.3, 0.1, 0.3  # sizes of corrections, for answers of order 1
_FARTHEST = 0.7  # bound of the logarithm of the change of distance
_MOST_RAD, _MOST = 1.0, 1.0  # bounds of what is solved for: a turn, and a shift to the sides in diameters


@final
@dataclass(frozen=True, eq=False)
class PoseChanges:
    """What is said of B hypotheses.

    Attributes:
        turn: float [B, 3, 3], see :class:`perceive.pose.compare.PoseChange`.
        shift: float [B, 2].
        depth: float [B].
        score: float [B], logit of whether the hypothesis is right as it is, before the change.
        motion: float [B, g, g, 3], how far the drawn surface of each cell of 4 x 4 pixels is from where it is seen:
            right and down, as a share of the crop, and away from the middle, in diameters.
        found: float [B, g * g, W], logarithms of where around it each drawn cell is found, see
            :meth:`perceive.heads.pose_change_net.CompareNet.misses`.
    """

    turn: Tensor
    shift: Tensor
    depth: Tensor
    score: Tensor
    motion: Tensor
    found: Tensor

    @property
    def change(self) -> PoseChange:
        """The change alone."""
        return PoseChange(self.turn, self.shift, self.depth)


@final
class PoseChangeHead(Head):
    """Render and compare (DeepIM: Li et al., ECCV 2018; CosyPose: Labbe et al., ECCV 2020; MegaPose: Labbe et al.,
    CoRL 2022) over situated tokens, of any object.

    What was seen and what was drawn are two streams of one camera. Their tokens have met in the trunk; side by side
    they join the features of a small convolutional network over the pair of pictures. Each cell says where its drawn
    surface is seen, and how sure it is (as in GenFlow: Moon et al., CVPR 2024). The rigid motion that explains these
    best is solved for; a small correction of it, and whether the hypothesis is right, are read from all cells.
    Nothing tells which object it is, so it may be one that was never seen before.

    Losses: the mean distance of surface points for the turn, and lengths for shift and distance, each with the others
    as they should be (Simonelli et al., ICCV 2019); lengths for the motion of cells, and cross entropy for where the
    visible ones are found; cross entropy for the score.

    Args:
        width: D.
        sensor_spaces: frame spaces by sensor name.
        seen: sensor with what was seen; ``rgb``, ``depth_m``, ``intrinsics_px``, ``base_from_camera``.
        drawn: sensor with the drawing, of the same size. Encoders of both have patches of 8 px.
        channels: of a cell; a multiple of 8.
        hidden: width of the layers that read the answer.
        turn_weight: of the turn.
        shift_weight: of the shift.
        depth_weight: of the distance.
        score_weight: of the score.
        motion_weight: of the motion of cells.
        match_weight: of where they are found.

    Raises:
        WiringError: a sensor or field is missing, or a number is out of its range.
    """

    def __init__(
        self,
        width: int,
        sensor_spaces: Mapping[str, spaces.Dict],
        seen: str = "seen",
        drawn: str = "drawn",
        channels: int = 64,
        hidden: int = 192,
        turn_weight: float = 2.0,
        shift_weight: float = 2.0,
        depth_weight: float = 2.0,
        score_weight: float = 0.1,
        motion_weight: float = 2.0,
        match_weight: float = 0.5,
    ) -> None:
        super().__init__()
        owner = "PoseChangeHead"
        self._size, self._side = square_crop(owner, sensor_spaces, seen, drawn, PATCH_PX)
        for name in (seen, drawn):
            for field, dims in (("rgb", 3), ("depth_m", 2), ("intrinsics_px", 1), ("base_from_camera", 2)):
                field_shape(owner, sensor_spaces[name], field, dims)
        sizes = [field_shape(owner, sensor_spaces[name], "rgb", 3)[:2] for name in (seen, drawn)]
        if sizes[0] != sizes[1]:
            raise WiringError(owner, "two pictures of one size", f"{sizes}", "Correct the dataset.")
        weights = (turn_weight, shift_weight, depth_weight, score_weight, motion_weight, match_weight)
        if channels < 8 or channels % 8 or hidden < 1 or not all(0 <= one < float("inf") for one in weights):
            got = f"channels {channels}, hidden {hidden}, weights {weights}"
            raise WiringError(owner, "channels a multiple of 8, hidden >= 1, weights >= 0", got, "Correct them.")
        self._seen, self._drawn, self._weights = seen, drawn, weights
        self.net = CompareNet(width, self._side, channels, hidden)

    @property
    def num_readouts(self) -> int:
        return 1

    @property
    def size_px(self) -> int:
        """S, side of the crops."""
        return self._size

    def fit(self, stats: Any) -> None:
        """Nothing to fit: crops are stated in the objects' size."""

    def forward(self, context: HeadContext) -> PoseChanges:
        pictures, points, hit = self._pictures(context)
        tokens = torch.cat([self._tokens(context, name) for name in (self._seen, self._drawn)], -1)
        surface = self._surface(points, hit)
        motion, sure, features, found = self.net(pictures, tokens)
        camera, away = self._camera(context)
        with full_precision(motion.device):
            motion = motion.permute(0, 2, 3, 1).float()
            weight = surface[:, 3:].permute(0, 2, 3, 1) * sure.permute(0, 2, 3, 1).float().sigmoid()
            place = surface[:, :3].permute(0, 2, 3, 1)
            focal, far = camera[:, :2] / self._size, away / DIAMETER_M
            points, moves, weights = (x.flatten(1, 2) for x in (place, motion, weight))
            turned, moved = rigid_motion(points, moves, weights, focal, far)
            turned = turned * (_MOST_RAD / turned.norm(dim=-1, keepdim=True).clamp_min(_MOST_RAD))
            aside, grown = moved[:, :2].clamp(-_MOST, _MOST), (moved[:, 2] / far).clamp(-0.5, 1.0)
            solved = torch.cat([turned, aside, grown[:, None]], -1)
        answer = self.net.answer(features, surface, solved, context.readouts[:, 0])
        with full_precision(answer.device):
            answer = answer.float()
            start = torch.tensor([1.0, 0, 0, 0, 1.0, 0], device=answer.device)
            turn = rotation_6d_to_matrix(start + _TURN * answer[:, :6]) @ axis_angle_to_matrix(turned)
            shift = focal * aside / (far * (1 + grown))[:, None]
            depth = ((1 + grown).log() + _DEPTH * answer[:, 8]).clamp(-_FARTHEST, _FARTHEST)
        return PoseChanges(turn, shift + _SHIFT * answer[:, 6:8], depth, answer[:, 9], motion, found)

    def loss(self, context: HeadContext, target: ChangeTarget) -> dict[str, Tensor]:
        """``turn``, ``shift``, ``depth``, ``score``, ``motion``, ``match``; what starts with ``_`` is logged.

        Raises:
            SpecError: another number of hypotheses than there are targets.
        """
        guess: PoseChanges = self(context)
        if len(target.turn) != len(guess.turn):
            got = f"{len(target.turn)} targets"
            raise SpecError("PoseChangeHead.loss", f"{len(guess.turn)} hypotheses", got, "Pass those of the batch.")
        near = target.near.to(guess.depth.dtype)
        share = near / near.sum().clamp_min(1)
        points = target.points
        apart = (points @ guess.turn.mT - points @ target.turn.mT).norm(dim=-1).mean(-1)
        shift, depth = (guess.shift - target.shift).norm(dim=-1), (guess.depth - target.depth).abs()
        right = target.right.to(guess.score.dtype)
        motion, there = self._motion(context, target)
        there = there * share[:, None, None]
        off = ((guess.motion - motion).norm(dim=-1) * there).sum() / there.sum().clamp_min(1e-6)
        still = (motion.norm(dim=-1) * there).sum() / there.sum().clamp_min(1e-6)
        before = (points - points @ target.turn.mT).norm(dim=-1).mean(-1)
        misses, within = self.net.misses(guess.found, motion[..., :2])
        within = within * there * _visible(motion[..., :2], target.mask)
        turn_weight, shift_weight, depth_weight, score_weight, motion_weight, match_weight = self._weights
        return {
            "turn": turn_weight * (share * apart).sum(),
            "shift": shift_weight * (share * shift).sum(),
            "depth": depth_weight * (share * depth).sum(),
            "score": score_weight * nn.functional.binary_cross_entropy_with_logits(guess.score, right),
            "motion": motion_weight * off,
            "match": match_weight * (misses * within).sum() / within.sum().clamp_min(1e-6),
            "_turn_left": ((share * apart).sum() / (share * before).sum().clamp_min(1e-6)).detach(),
            "_shift_left": _left(share, shift, target.shift.norm(dim=-1)),
            "_depth_left": _left(share, depth, target.depth.abs()),
            "_motion_left": (off / still.clamp_min(1e-6)).detach(),
            "_told": ((guess.score > 0) == target.right).to(near.dtype).mean(),
        }

    def _tokens(self, context: HeadContext, name: str) -> Tensor:
        """Tokens [B, side * side, D] of the newest frame of a sensor; 0 where it is absent."""
        tokens, valid = newest_tokens("PoseChangeHead", context.tokens, name, self._side**2)
        return torch.where(valid[..., None], tokens, 0.0)

    def _pictures(self, context: HeadContext) -> tuple[Tensor, Tensor, Tensor]:
        """The pair of pictures [B, CHANNELS, S, S], the drawn points [B, S, S, 3] in the crop's frame, where they are.

        Depths are relative to the frame's origin, in diameters.
        """
        colours, depths, hits = [], [], []
        for name in (self._seen, self._drawn):
            stream = context.batch.stream(name)
            there = stream.valid[:, -1, None, None]
            rgb, depth = stream.data["rgb"][:, -1].float() / 255.0 - 0.5, stream.data["depth_m"][:, -1].float()
            colours.append(torch.where(there[..., None], rgb, 0.0).permute(0, 3, 1, 2))
            hits.append(there & (depth > 0) & torch.isfinite(depth))
            depths.append(torch.where(hits[-1], depth, 0.0))
        camera, away = self._camera(context)
        with full_precision(away.device):
            seen, drawn = ((one - away[:, None, None]) / DIAMETER_M for one in depths)
            both = hits[0] & hits[1]
            planes = [
                hits[0].to(seen.dtype),
                torch.where(hits[0], seen, 0.0).clamp(-1, 1),
                hits[1].to(seen.dtype),
                torch.where(hits[1], drawn, 0.0).clamp(-1, 1),
                torch.where(both, 2 * (seen - drawn), 0.0).clamp(-1, 1),
            ]
            ray = camera_rays(camera, self._size, self._size).view(len(seen), self._size, self._size, 3)
            points = ray * depths[1][..., None]
            points = torch.cat([points[..., :2], (points[..., 2] - away[:, None, None])[..., None]], -1)
            points = torch.where(hits[1][..., None], points, 0.0)
        return torch.cat([*colours, torch.stack(planes, 1)], 1), points, hits[1]

    def _camera(self, context: HeadContext) -> tuple[Tensor, Tensor]:
        """Intrinsics [B, 4] of the crops and the distance [B] of their frames' origins; harmless where absent."""
        stream = context.batch.stream(self._drawn)
        there = stream.valid[:, -1]
        camera = torch.where(there[:, None], stream.data["intrinsics_px"][:, -1].float(), float(self._size))
        pose = stream.data["base_from_camera"][:, -1].float()
        return camera, torch.where(there, -pose[:, 2, 3], 1.0)

    def _surface(self, points: Tensor, hit: Tensor) -> Tensor:
        """The mean drawn point of each cell, in diameters, and its share of drawn pixels, [B, 4, g, g]."""
        known = hit[:, None].to(points.dtype)
        share = nn.functional.avg_pool2d(known, CELL_PX)
        mean = nn.functional.avg_pool2d(points.permute(0, 3, 1, 2), CELL_PX) / share.clamp_min(CELL_PX**-2)
        return torch.cat([mean / DIAMETER_M, share], 1)

    def _motion(self, context: HeadContext, target: ChangeTarget) -> tuple[Tensor, Tensor]:
        """Where the surface of each cell is seen, less where it is drawn, [B, g, g, 3], and the cells that have any."""
        _, points, hit = self._pictures(context)
        camera, away = self._camera(context)
        with full_precision(points.device):
            mean = self._surface(points, hit)
            place = DIAMETER_M * mean[:, :3].permute(0, 2, 3, 1)
            far = away * target.depth.exp()
            # The middle is on the axis, so the shift alone says where in the picture it is seen.
            middle = torch.cat([self._size * target.shift / camera[:, :2] * far[:, None], far[:, None]], 1)
            moved = (place.flatten(1, 2) @ target.turn.mT).view_as(place) + middle[:, None, None]
            before = place + nn.functional.pad(away[:, None], (2, 0))[:, None, None]
            pixel = [one[..., :2] / one[..., 2:].clamp_min(1e-3) for one in (before, moved)]
            flow = (pixel[1] - pixel[0]) * camera[:, None, None, :2] / self._size
            along = ((moved - before)[..., 2] - (far - away)[:, None, None])[..., None] / DIAMETER_M
        return torch.cat([flow.clamp(-1, 1), along.clamp(-1, 1)], -1), (mean[:, 3] > 0).to(points.dtype)


def _visible(motion: Tensor, mask: Tensor) -> Tensor:
    """Whether the object is seen at the places [B, g, g] that cells moved to."""
    grid = motion.shape[1]
    seen = nn.functional.adaptive_avg_pool2d(mask[:, None].to(motion.dtype), grid).flatten(1) > 0.5
    number = torch.arange(grid, device=motion.device)
    cells = torch.stack([number.expand(grid, grid), number[:, None].expand(grid, grid)], -1)  # column, row
    place = (cells + grid * motion).round().long()
    inside = ((place >= 0) & (place < grid)).all(-1)
    place = place.clamp(0, grid - 1)
    return inside & seen.gather(1, (place[..., 1] * grid + place[..., 0]).flatten(1)).view(inside.shape)


def _left(share: Tensor, now: Tensor, before: Tensor) -> Tensor:
    return ((share * now).sum() / (share * before).sum().clamp_min(1e-6)).detach()
