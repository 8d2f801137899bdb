"""Which token is to answer for which box, and how strongly: the targets of centre-based detection on tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.points.files.collate import CloudBatch
from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class BoxTruth:
    """The boxes of a batch.

    Attributes:
        boxes: float [B, K, 9]: centre, size, yaw, velocity along x and y (NaN = not known).
        label: int64 [B, K]; -1 = not known.
        there: bool [B, K].
        scored: bool [B, K], boxes that are to be found: there, of a known class and with enough measured points.
    """

    boxes: Tensor
    label: Tensor
    there: Tensor
    scored: Tensor


@dataclass(frozen=True, eq=False)
class BoxAssignment:
    """What N tokens of each sample are to answer.

    Attributes:
        heat: float [B, N, S], from 0 to 1; exactly 1 where a token is the nearest one to a box of that class.
        ignored: bool [B, N]; what such a token says of classes for which it is not the nearest is not judged.
        owner: int64 [B, N], the box that a token is to describe; anything where ``weight`` is 0.
        weight: float [B, N], how much its description counts; 1 in all for each box that has an owner.
        found: how many boxes have a token that is to answer for them, at least 1.
    """

    heat: Tensor
    ignored: Tensor
    owner: Tensor
    weight: Tensor
    found: Tensor


def read_truth(target: CloudBatch, size: int, classes: int, least_points: int) -> BoxTruth:
    """The boxes of a target.

    Args:
        target: with boxes.
        size: B that it must have.
        classes: S; labels are -1 to S - 1.
        least_points: boxes with fewer measured points are not to be found. A count of -1 is not known, and enough.

    Raises:
        SpecError: it has no boxes, those of another batch, or of a class that does not exist.
    """
    boxes, label, there, points = target.boxes, target.box_label, target.box_valid, target.box_points
    if boxes is None or label is None or there is None or points is None:
        raise SpecError("BoxHead, target", "clouds with boxes", "clouds without", "Use another head, or label them.")
    if boxes.shape[0] != size or boxes.shape[2:] != (9,):
        raise SpecError("BoxHead, target.boxes", f"[{size}, K, 9]", f"{list(boxes.shape)}", "Give this batch's own.")
    most = int(label.max()) if label.numel() else -1
    if most >= classes:
        raise SpecError(
            "BoxHead, target.box_label", f"-1 to {classes - 1}", f"{most}", "Name all classes of the data in `classes`."
        )
    enough = (points < 0) | (points >= least_points)
    # What is not there may hold anything.
    return BoxTruth(torch.where(there[..., None], boxes, 0.0), label, there, there & (label >= 0) & enough)


def assign(
    place_m: Tensor, usable: Tensor, truth: BoxTruth, classes: int, margin_m: float, spread: float
) -> BoxAssignment:
    """Give each box the tokens in it.

    A token's heat for a box falls with its distance d to the box's middle as exp(-(d^2 - d0^2) / (2 s^2)), s being
    ``spread`` times half the box's diagonal and d0 the distance of the nearest token: a LiDAR sees surfaces, never
    middles, and yet some token shall answer for each box. Only tokens in the box are warm, besides the nearest one,
    which may lie within ``margin_m`` of a box whose inside holds none. A token in several boxes describes the one for
    which it is warmest, of equals the first.

    Args:
        place_m: [B, N, 3].
        usable: bool [B, N], tokens that are there and have a place.
        truth: the boxes.
        classes: S.
        margin_m: by how much boxes grow on all sides before tokens are called inside.
        spread: see above.
    """
    batch, count = usable.shape
    if truth.boxes.shape[1] == 0 or count == 0:
        zero = place_m.new_zeros(batch, count)
        owner = torch.zeros(batch, count, dtype=torch.int64, device=place_m.device)
        one = place_m.new_ones(())
        return BoxAssignment(place_m.new_zeros(batch, count, classes), owner > 0, owner, zero, one)
    centre, half, yaw = truth.boxes[..., :3], truth.boxes[..., 3:6] / 2, truth.boxes[..., 6]
    apart = place_m[:, :, None] - centre[:, None]  # [B, N, K, 3]
    cos, sin = yaw.cos()[:, None], yaw.sin()[:, None]
    along = cos * apart[..., 0] + sin * apart[..., 1]
    across = cos * apart[..., 1] - sin * apart[..., 0]
    own = torch.stack([along, across, apart[..., 2]], -1).abs()
    inside = (own <= half[:, None] + margin_m).all(-1) & usable[..., None] & truth.there[:, None]
    square = apart.square().sum(-1)
    reach = half.norm(dim=-1) + margin_m
    # Inside first; without any, whatever token is within the ball around the box.
    near = torch.where(inside.any(1, keepdim=True), inside, usable[..., None] & (square <= reach.square()[:, None]))
    nearest = torch.where(near, square, torch.inf).min(1, keepdim=True).values  # [B, 1, K]
    answered = nearest.isfinite() & truth.scored[:, None]
    sigma_square = (spread * half.norm(dim=-1)).square()[:, None].clamp_min(1e-6)
    beyond = square - torch.where(answered, nearest, 0.0)
    heat = torch.where(inside, (-beyond / (2 * sigma_square)).exp(), 0.0)
    heat = torch.where(near & (square == nearest), 1.0, heat)
    heat = torch.where(answered, heat, 0.0)  # [B, N, K]
    warmest, owner = heat.max(-1)
    owned = torch.where(torch.arange(heat.shape[2], device=heat.device) == owner[..., None], heat, 0.0)
    total = owned.sum(1, keepdim=True)
    weight = (owned / torch.where(total > 0, total, 1.0)).sum(-1)
    label = truth.label.clamp_min(0)[:, None].expand(-1, count, -1)
    of_class = heat.new_zeros(batch, count, classes).scatter_reduce(2, label, heat, "amax")
    # A box that need not be found, or whose class nobody knows, is neither something nor nothing.
    ignored = (inside & ~truth.scored[:, None]).any(-1) & (warmest == 0)
    return BoxAssignment(of_class, ignored, owner, weight, (total > 0).sum().clamp_min(1).to(place_m.dtype))
