"""Query coordinates: which point of an object that only its references show each pixel of a crop shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.contrast import spread_out
from perceive.geometry import full_precision
from perceive.heads.base import Head, HeadContext
from perceive.heads.crop_points import crop_points, newest_tokens, square_crop
from perceive.heads.object_coordinates_loss import nearest_truth
from perceive.heads.object_coordinates_net import CoordinateNet
from perceive.heads.query_target import QueryTarget
from sensors.errors import SpecError, WiringError

_FAR = 3.0  # points beyond this many radii of the object look alike
_SPREAD = (-5.0, 1.0)  # bounds of the logarithm of the spread of a coordinate, in radii
_NEAR = 0.12  # deviation of the wanted matches about a token's true place, in radii
_MATCHED = 0.35  # a token farther than this from every reference shows what they do not


@final
@dataclass(frozen=True, eq=False)
class QueryCoordinates:
    """What a crop shows of the object of the references.

    Attributes:
        mask_logits: float [B, h, w].
        coordinates_m: float [B, h, w, 3] in the references' frame, wherever the mask is.
        spread_m: float [B, h, w], the scale of a Laplace distribution about them.
        points_m: float [B, h, w, 3], what was measured there, in the crop's frame; 0 = nothing.
        measured: bool [B, h, w], whether ``points_m`` is.
    """

    mask_logits: Tensor
    coordinates_m: Tensor
    spread_m: Tensor
    points_m: Tensor
    measured: Tensor


@final
class QueryCoordinateHead(Head):
    """Dense coordinates of an object that nothing was trained on, from the tokens of a few references of it.

    In the trunk the tokens of the crop have met those of the references. Each token of the crop then points at the
    references, by what it has become and by how near they lie: the mean of their places, weighted by attention, is
    roughly where on the object it lies. Affine maps and
    convolutions as of :class:`~perceive.heads.object_coordinates_net.CoordinateNet` say for each pixel how far it is
    from there, whether it shows the object, and how far its coordinates may be off: much, where no reference shows it.

    Losses: cross entropy of the mask; distance and negative log likelihood of a Laplace distribution for coordinates;
    cross entropy of the pointing against the references that are truly near. All against the nearest of the truths that
    look alike.

    Args:
        width: D.
        sensor_spaces: frame spaces by sensor name.
        crop: sensor with ``rgb``, ``depth_m``, ``intrinsics_px``, ``base_from_camera`` (see perceive.pose.crop).
        references: sensor of a :class:`~perceive.encoders.reference_views.ReferenceViewEncoder`.
        patch_px: side of the patches of the crop's encoder, whose tokens come row by row; a multiple of 4.
        channels: of the convolutions.
        told: channels that each pixel gets from its token.
        radius_m: of every object, in the scale that the references and the crop are stated in.
        coordinate_weight: of the coordinates against the mask.
        match_weight: of the pointing.

    Raises:
        WiringError: a sensor or field is missing, or a number is out of its range.
    """

    def __init__(
        self,
        width: int,
        sensor_spaces: Mapping[str, spaces.Dict],
        crop: str = "crop",
        references: str = "references",
        patch_px: int = 8,
        channels: int = 32,
        told: int = 16,
        radius_m: float = 0.05,
        coordinate_weight: float = 1.0,
        match_weight: float = 1.0,
    ) -> None:
        super().__init__()
        owner = "QueryCoordinateHead"
        self._size, self._side = square_crop(owner, sensor_spaces, crop, references, patch_px)
        weights = (coordinate_weight, match_weight)
        if not (channels >= 1 and told >= 1 and 0 < radius_m < math.inf) or not all(0 <= w < math.inf for w in weights):
            got = f"channels {channels}, told {told}, radius_m {radius_m}, weights {weights}"
            raise WiringError(owner, "channels >= 1, radius_m > 0, weights >= 0", got, "Correct them.")
        self._crop, self._references, self._radius_m = crop, references, radius_m
        self._factor = patch_px // 2
        self._weights = weights
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(2.3))
        self.nearness = nn.Parameter(torch.tensor(1.5))
        self.pointed = nn.Linear(3, width)
        self.net = CoordinateNet(width, self._side, self._factor, channels, told, 5)

    @property
    def num_readouts(self) -> int:
        return 1

    @property
    def size_px(self) -> int:
        """S, side of the crops."""
        return self._size

    @property
    def radius_m(self) -> float:
        """Of every object, in the scale that references and crop are stated in."""
        return self._radius_m

    def fit(self, stats: Any) -> None:
        """Nothing to fit: it knows no object."""

    def forward(self, context: HeadContext) -> QueryCoordinates:
        return self._read(context)[0]

    def loss(self, context: HeadContext, target: QueryTarget) -> dict[str, Tensor]:
        """``mask``, ``coordinates``, ``match``; what starts with ``_`` is logged.

        Raises:
            SpecError: maps of another size.
        """
        guess, log_match, places, known = self._read(context)
        if target.mask.shape != guess.mask_logits.shape:
            got = f"{list(target.mask.shape)}"
            raise SpecError("QueryCoordinateHead.loss", f"maps {list(guess.mask_logits.shape)}", got, "Cut them anew.")
        mask, radius = target.mask, self._radius_m
        truth = nearest_truth(guess.coordinates_m, target.coordinates_m, mask, target.symmetries)
        off = (guess.coordinates_m - truth).abs().sum(-1)
        each = off / guess.spread_m + 3 * (guess.spread_m / radius).log()
        count = mask.sum((1, 2), keepdim=True)
        share = torch.where(mask, 1.0 / count.clamp_min(1), 0.0) / (count > 0).sum().clamp_min(1)
        coordinate_weight, match_weight = self._weights
        met = ((guess.mask_logits > 0) & mask).sum((1, 2))
        whole = ((guess.mask_logits > 0) | mask).sum((1, 2)).clamp_min(1)
        apart = (guess.coordinates_m - truth).norm(dim=-1)
        return {
            "mask": nn.functional.binary_cross_entropy_with_logits(guess.mask_logits, mask.to(off.dtype)),
            "coordinates": coordinate_weight * (share * (off / radius + 0.1 * each)).sum(),
            "match": match_weight * self._match(log_match, places, known, truth, mask),
            "_off": (share * apart).sum().detach() / (2 * radius),  # in diameters
            "_near": (share * (apart < 0.2 * radius)).sum().detach(),  # share of the pixels within a tenth of one
            "_iou": (met / whole).mean().detach(),
        }

    def _read(self, context: HeadContext) -> tuple[QueryCoordinates, Tensor, Tensor, Tensor]:
        """The answer; logarithms of the pointing [B, side * side, N], places [B, N, 3] and validity of references."""
        rgb, points, hit = crop_points(context.batch.stream(self._crop), self._size)
        radius, readout = self._radius_m, context.readouts[:, 0]
        tokens, seen = newest_tokens("QueryCoordinateHead", context.tokens, self._crop, self._side**2)
        tokens = torch.where(seen[..., None], tokens, 0.0)
        group = context.tokens.groups[self._references]
        there, known = context.tokens.features[:, group], context.tokens.valid[:, group]
        known = known & context.tokens.placed[:, group]  # the latent has no place
        places = torch.where(known[..., None], context.tokens.position_m[:, group], 0.0)
        there = torch.where(known[..., None], there, 0.0)
        query, key = spread_out(self.query(tokens), seen), spread_out(self.key(there), known)
        query, key = (nn.functional.normalize(one, dim=-1) for one in (query, key))
        score = self.sharpness.exp() * query @ key.mT
        own = slice(context.tokens.groups[self._crop].stop - self._side**2, context.tokens.groups[self._crop].stop)
        far = torch.cdist(context.tokens.position_m[:, own], places) / radius
        against = self.nearness.exp() * far.square().clamp_max(_FAR**2)
        score = score - torch.where(context.tokens.placed[:, own, None], against, 0.0)
        log_match = score.masked_fill(~known[:, None], -1e4).log_softmax(-1)
        pointed = log_match.exp() @ places / radius  # [B, side * side, 3]
        near = (points / radius).clamp(-_FAR, _FAR)
        out, shared, measured = self.net(tokens + self.pointed(pointed), readout, rgb, near, hit)
        rough = pointed.mT.reshape(len(tokens), 3, self._side, self._side)
        rough = nn.functional.interpolate(rough, scale_factor=self._factor, mode="bilinear", align_corners=False)
        with full_precision(points.device):
            answer = QueryCoordinates(
                out[..., 0],
                radius * (out[..., 1:4] + rough.permute(0, 2, 3, 1)),
                radius * out[..., 4].clamp(*_SPREAD).exp(),
                torch.where(measured[..., None], shared * radius, 0.0),
                measured,
            )
        return answer, log_match, places, known

    def _match(self, log_match: Tensor, places: Tensor, known: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
        """Cross entropy of the pointing, mean over the tokens that show something that a reference shows."""
        with torch.no_grad():
            pool, factor = nn.functional.avg_pool2d, self._factor
            amount = pool(mask[:, None].to(truth.dtype), factor)
            mean = pool(truth.permute(0, 3, 1, 2), factor) / amount.clamp_min(1e-6)
            far = torch.cdist(mean.flatten(2).mT, places) / self._radius_m
            far = far.masked_fill(~known[:, None], torch.inf)
            wanted = (-0.5 * (far / _NEAR).square()).masked_fill(~known[:, None], -1e4).softmax(-1)
            weight = (amount.flatten(1) > 0.3) & (far.amin(-1) < _MATCHED)
        entropy = -(wanted * log_match).sum(-1)
        return torch.where(weight, entropy, 0.0).sum() / weight.sum().clamp_min(1)
