"""Object coordinates: which point of the asked object each pixel of a crop shows, its mask, and its pose at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.encoders.base import field_shape
from perceive.geometry import full_precision, rotation_6d_to_matrix
from perceive.heads.base import Head, HeadContext
from perceive.heads.crop_points import crop_points, newest_tokens, square_crop
from perceive.heads.object_coordinates_loss import nearest_truth, point_matching, region_of
from perceive.heads.object_coordinates_net import CoordinateNet
from perceive.heads.object_coordinates_target import PoseTarget
from sensors.errors import SpecError, WiringError

UNFITTED_M = 0.05  # half the box of an object before the head is fitted
NUMBER, BOX, SURFACE = "number", "box_m", "surface_m"  # statistics of the object sensor that the head is fitted to
_FAR = 3.0  # points beyond this many halves of the object's box look alike
_SPREAD = (-5.0, 1.0)  # bounds of the logarithm of the spread of a coordinate


@final
@dataclass(frozen=True, eq=False)
class ObjectCoordinates:
    """What a crop shows of the asked object.

    Attributes:
        mask_logits: float [B, h, w].
        coordinates_m: float [B, h, w, 3] in the object's frame, wherever the mask is.
        spread_m: float [B, h, w], how far coordinates are off (the scale of a Laplace distribution).
        regions: float [B, h, w, R], logits of the regions of the object's surface.
        points_m: float [B, h, w, 3], what was measured there, in the crop's frame; 0 = nothing.
        measured: bool [B, h, w], whether ``points_m`` is.
        frame_from_object: float [B, 4, 4], the pose in the crop's frame, regressed from the readout.
        present: float [B], logit of whether the crop shows the object at all.
    """

    mask_logits: Tensor
    coordinates_m: Tensor
    spread_m: Tensor
    regions: Tensor
    points_m: Tensor
    measured: Tensor
    frame_from_object: Tensor
    present: Tensor


@final
class ObjectCoordinateHead(Head):
    """Dense coordinates of a known object, as GDR-Net (Wang et al., CVPR 2021) has them, over situated tokens.

    The crop's tokens have met the object that is asked for in the trunk. Each token gives every pixel an affine map
    from where its surface point lies to which point of the object that is: for a rigid object all tokens should give
    the same map, its pose. Convolutions over the tokens, these coordinates and the raw crop correct them at half of the
    crop's resolution, and say for each pixel whether it shows the object, how far its coordinates may be off, and in
    which region of the surface it lies. The readout gives a pose of its own (rotation by two columns: Zhou et al., CVPR
    2019).

    Losses: cross entropy of mask and presence; the negative log likelihood of a Laplace distribution for coordinates
    (Kendall and Gal, NeurIPS 2017) and cross entropy of regions within the visible mask; point matching for the pose.
    Coordinates and pose are compared with the nearest of all truths that look alike.

    Args:
        width: D.
        sensor_spaces: frame spaces by sensor name.
        crop: sensor with ``rgb``, ``depth_m``, ``intrinsics_px``, ``base_from_camera`` (see perceive.pose.crop).
        asked: sensor with ``which`` [K], 1 at the index of the asked object.
        patch_px: side of the patches of the crop's encoder, whose tokens come row by row; a multiple of 4.
        channels: of the convolutions.
        told: channels that each pixel gets from its token.
        regions: R, at most 64.
        coordinate_weight: of the coordinates against the mask.
        region_weight: of the regions.
        pose_weight: of the regressed pose.
        present_weight: of the presence.

    Raises:
        WiringError: a sensor or field is missing, or a number is out of its range.
    """

    def __init__(
        self,
        width: int,
        sensor_spaces: Mapping[str, spaces.Dict],
        crop: str = "crop",
        asked: str = "object",
        patch_px: int = 8,
        channels: int = 32,
        told: int = 16,
        regions: int = 32,
        coordinate_weight: float = 1.0,
        region_weight: float = 0.1,
        pose_weight: float = 0.5,
        present_weight: float = 0.1,
    ) -> None:
        super().__init__()
        owner = "ObjectCoordinateHead"
        self._size, self._side = square_crop(owner, sensor_spaces, crop, asked, patch_px)
        weights = (coordinate_weight, region_weight, pose_weight, present_weight)
        if not (1 <= regions <= 64 and channels >= 1 and told >= 1) or not all(0 <= w < float("inf") for w in weights):
            got = f"regions {regions}, channels {channels}, told {told}, weights {weights}"
            raise WiringError(owner, "1 to 64 regions, channels >= 1, weights >= 0", got, "Correct them.")
        self._crop, self._asked, self._regions = crop, asked, regions
        self._weights = weights
        count = field_shape(owner, sensor_spaces[asked], "which", 1)[0]
        self.numbers: Tensor
        self.low_m: Tensor
        self.high_m: Tensor
        self.surface_m: Tensor
        self.register_buffer("numbers", torch.full((count,), -1))
        self.register_buffer("low_m", torch.full((count, 3), -UNFITTED_M))
        self.register_buffer("high_m", torch.full((count, 3), UNFITTED_M))
        spread = torch.linspace(-1, 1, regions)[:, None] * torch.tensor([1.0, -0.5, 0.25])
        self.register_buffer("surface_m", (UNFITTED_M * spread).repeat(count, 1, 1))
        self.net = CoordinateNet(width, self._side, patch_px // 2, channels, told, 5 + regions)
        self.pose = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10))

    @property
    def num_readouts(self) -> int:
        return 1

    @property
    def size_px(self) -> int:
        """S, side of the crops."""
        return self._size

    def fit(self, stats: Any) -> None:
        """Take over the objects' numbers, boxes and surfaces: ``"<asked>/number"``, ``"/box_m"``, ``"/surface_m"``.

        Raises:
            SpecError: another number of objects than the head was made for.
        """
        keys = [f"{self._asked}/{name}" for name in (NUMBER, BOX, SURFACE)]
        if not all(key in stats for key in keys):
            return
        number, box, surface = (stats[key] for key in keys)
        if len(number.mean) != len(self.numbers) or surface.mean.shape[1] < self._regions:
            got = f"{len(number.mean)} objects with {surface.mean.shape[1]} points"
            raise SpecError("ObjectCoordinateHead.fit", f"{len(self.numbers)} with {self._regions}", got, "Train anew.")
        self.numbers.copy_(torch.as_tensor(number.mean).round().long())
        self.low_m.copy_(torch.as_tensor(box.low))
        self.high_m.copy_(torch.as_tensor(box.high))
        self.surface_m.copy_(torch.as_tensor(surface.mean)[:, : self._regions])

    def forward(self, context: HeadContext) -> ObjectCoordinates:
        rgb, points, hit = crop_points(context.batch.stream(self._crop), self._size)
        low, high = self._box(context)
        middle, half = (low + high) / 2, (high - low).norm(dim=-1) / 2  # [B, 3], [B]
        near = (points / half[:, None, None, None]).clamp(-_FAR, _FAR)
        readout = context.readouts[:, 0]
        tokens, seen = newest_tokens("ObjectCoordinateHead", context.tokens, self._crop, self._side**2)
        out, shared, there = self.net(torch.where(seen[..., None], tokens, 0.0), readout, rgb, near, hit)
        shape = (-1, 1, 1, 1)
        with full_precision(points.device):
            coordinates = middle.view(-1, 1, 1, 3) + half.view(shape) * out[..., 1:4]
            log_spread = out[..., 4].clamp(*_SPREAD)
            turn_and_place = self.pose(readout)
            pose = torch.eye(4, device=points.device).repeat(len(points), 1, 1)
            start = torch.tensor([1.0, 0, 0, 0, 1.0, 0], device=points.device)
            pose[:, :3, :3] = rotation_6d_to_matrix(turn_and_place[:, :6] + start)
            centre = half[:, None] * turn_and_place[:, 6:9]
            pose[:, :3, 3] = centre - (pose[:, :3, :3] @ middle[..., None])[..., 0]
        return ObjectCoordinates(
            out[..., 0],
            coordinates,
            half[:, None, None] * log_spread.exp(),
            out[..., 5:],
            torch.where(there[..., None], shared * half.view(shape), 0.0),
            there,
            pose,
            turn_and_place[:, 9],
        )

    def loss(self, context: HeadContext, target: PoseTarget) -> dict[str, Tensor]:
        """``mask``, ``coordinates``, ``regions``, ``pose``, ``present``; what starts with ``_`` is logged.

        Raises:
            SpecError: maps of another size, or other objects than the head was fitted to.
        """
        guess: ObjectCoordinates = self(context)
        if target.mask.shape != guess.mask_logits.shape:
            got = f"{list(target.mask.shape)}"
            raise SpecError("ObjectCoordinateHead.loss", f"maps {list(guess.mask_logits.shape)}", got, "Cut them anew.")
        fitted = bool((self.numbers >= 0).all())
        if len(target.numbers) != len(self.numbers) or (fitted and not torch.equal(target.numbers, self.numbers)):
            got = f"{target.numbers.tolist()}"
            raise SpecError("ObjectCoordinateHead.loss", f"objects {self.numbers.tolist()}", got, "Train anew.")
        which, mask = target.which, target.mask & target.present[:, None, None]
        symmetries = target.symmetries[which]
        half = (self.high_m - self.low_m).norm(dim=-1)[which] / 2
        truth = nearest_truth(guess.coordinates_m, target.coordinates_m, mask, symmetries)
        off = (guess.coordinates_m - truth).abs().sum(-1)
        each = off / guess.spread_m + 3 * (guess.spread_m / half[:, None, None]).log()
        share = _shares(mask)
        region = region_of(truth.flatten(1, 2), self.surface_m[which])
        entropy = nn.functional.cross_entropy(guess.regions.flatten(0, 2), region.flatten(), reduction="none")
        apart = point_matching(guess.frame_from_object, target.frame_from_object, self.surface_m[which], symmetries)
        there = target.present.to(apart.dtype)
        count = there.sum().clamp_min(1)
        logit = nn.functional.binary_cross_entropy_with_logits
        coordinate_weight, region_weight, pose_weight, present_weight = self._weights
        wrong = logit(guess.mask_logits, mask.to(guess.mask_logits.dtype))
        dense = (share * (off / half[:, None, None] + 0.1 * each)).sum()
        met = ((guess.mask_logits > 0) & mask).sum((1, 2))
        whole = ((guess.mask_logits > 0) | mask).sum((1, 2)).clamp_min(1)
        return {
            "mask": wrong,
            "coordinates": coordinate_weight * dense,
            "regions": region_weight * (share * entropy.view_as(share)).sum(),
            "pose": pose_weight * (there * apart / half).sum() / count,
            "present": present_weight * logit(guess.present, there),
            "_off_mm": 1e3 * (share * (guess.coordinates_m - truth).norm(dim=-1)).sum().detach(),
            "_pose_mm": 1e3 * (there * apart).sum().detach() / count,
            "_iou": (there * met / whole).sum() / count,
        }

    def _box(self, context: HeadContext) -> tuple[Tensor, Tensor]:
        """Corners [B, 3] of the boxes of the asked objects; the mean of all where nothing is asked."""
        stream = context.batch.stream(self._asked)
        asked = stream.data["which"][:, -1].float()
        even = torch.full_like(asked, 1.0 / asked.shape[1])
        one = nn.functional.one_hot(asked.argmax(-1), asked.shape[1]).to(asked.dtype)
        share = torch.where(stream.valid[:, -1:], one, even)
        return share @ self.low_m, share @ self.high_m


def _shares(mask: Tensor) -> Tensor:
    """Weights [B, h, w] of the pixels of masks that sum to 1, each sample that has any weighing the same."""
    count = mask.sum((1, 2), keepdim=True)
    each = torch.where(mask, 1.0 / count.clamp_min(1), 0.0)
    return each / (count > 0).sum().clamp_min(1)
