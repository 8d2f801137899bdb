"""From what each token says to boxes: candidates, those that stand for themselves, and means of those that agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# What a token says of its box: offset to the middle, log of the edges, cosine and sine of twice the yaw (the axis), of
# the yaw itself (which end is the front), and the velocity.
OFFSET, EDGES, AXIS, FRONT, VELOCITY = slice(0, 3), slice(3, 6), slice(6, 8), slice(8, 10), slice(10, 12)
CODE = 12
_LOG_EDGE = (-4.0, 4.0)  # edges of 2 cm to 55 m


@dataclass(frozen=True, eq=False)
class BoxGuess:
    """Boxes of B scenes, those of the highest score first.

    Attributes:
        boxes: float [B, K, 9]: centre, size, yaw in [-pi, pi], velocity along x and y, in the base frame; 0 where not
            valid.
        score: float [B, K] from 0 to 1; 0 where not valid.
        label: int64 [B, K]; -1 where not valid.
        valid: bool [B, K].
    """

    boxes: Tensor
    score: Tensor
    label: Tensor
    valid: Tensor


def encode(boxes: Tensor, place_m: Tensor) -> Tensor:
    """The code [..., 12] of boxes [..., 9] as seen from tokens at places [..., 3]."""
    yaw = boxes[..., 6:7]
    edges = boxes[..., 3:6].clamp_min(1e-3).log().clamp(*_LOG_EDGE)
    turn = [(2 * yaw).cos(), (2 * yaw).sin(), yaw.cos(), yaw.sin()]
    return torch.cat([boxes[..., :3] - place_m, edges, *turn, boxes[..., 7:9]], -1)


def decode(code: Tensor, place_m: Tensor, reach_m: float) -> Tensor:
    """Boxes [..., 9] of codes [..., 12]; middles lie at most ``reach_m`` from the token along each axis."""
    axis = torch.atan2(code[..., AXIS][..., 1], code[..., AXIS][..., 0]) / 2
    front = code[..., FRONT]
    # The axis tells the yaw up to half a turn; the end that looks more like the front decides.
    ahead = axis.cos() * front[..., 0] + axis.sin() * front[..., 1] >= 0
    yaw = torch.where(ahead, axis, torch.where(axis > 0, axis - torch.pi, axis + torch.pi))
    centre = place_m + code[..., OFFSET].clamp(-reach_m, reach_m)
    edges = code[..., EDGES].clamp(*_LOG_EDGE).exp()
    return torch.cat([centre, edges, yaw[..., None], code[..., VELOCITY]], -1)


def swapped(code: Tensor) -> Tensor:
    """The code of the same box by its other side: a quarter turn on, with the edges along x and y swapped."""
    edges, axis = code[..., EDGES], code[..., AXIS]
    turned = torch.stack([-code[..., FRONT][..., 1], code[..., FRONT][..., 0]], -1)
    return torch.cat([code[..., OFFSET], edges[..., [1, 0, 2]], -axis, turned, code[..., VELOCITY]], -1)


def pick(
    score: Tensor,
    code: Tensor,
    place_m: Tensor,
    *,
    most: int,
    candidates: int,
    least_score: float,
    apart: float,
    reach_m: float,
    frontless: Tensor,
    merge: bool,
) -> BoxGuess:
    """The boxes that tokens speak of, each once.

    Of the ``candidates`` highest scores, from the highest on, of equals the first token and class first, a box is left
    out if its middle, as seen from above, is nearer to that of a kept one of its class than ``apart`` times the mean of
    both boxes' radii, a radius being that of the circle with the box's area (circle suppression: Yin et al., CVPR
    2021). With ``merge`` a kept box becomes the mean of itself and of those that it suppresses, weighted by score.

    Args:
        score: [B, N, S], from 0 to 1; 0 where a token may not vote.
        code: [B, N, 12].
        place_m: [B, N, 3].
        most: K.
        candidates: see above.
        least_score: lower scores are no candidates.
        apart: see above.
        reach_m: see :func:`decode`.
        frontless: bool [S], classes of which no side is the front: their codes are turned alike before they are merged.
        merge: see above.
    """
    classes = max(score.shape[2], 1)
    flat = score.flatten(1)
    best = flat.sort(dim=1, descending=True, stable=True)
    top = min(candidates, flat.shape[1])
    value, index = best.values[:, :top], best.indices[:, :top]
    token, label = index // classes, index % classes
    usable = value >= max(least_score, 1e-12)
    codes = code.gather(1, token[..., None].expand(-1, -1, CODE))
    places = place_m.gather(1, token[..., None].expand(-1, -1, 3))
    boxes = decode(codes, places, reach_m)
    radius = (boxes[..., 3] * boxes[..., 4] / torch.pi).sqrt()
    middle = boxes[..., :2]
    far = (middle[:, :, None] - middle[:, None]).norm(dim=-1)
    limit = apart * (radius[:, :, None] + radius[:, None]) / 2
    alike = (label[:, :, None] == label[:, None]) & usable[:, :, None] & usable[:, None]
    near = (far < limit) & alike  # [B, C, C]
    kept = _greedy(near, usable)
    if merge:
        of = _first_kept(near, kept)
        boxes = _merged(boxes, codes, value, of, frontless[label])
    order = torch.where(kept, value, -1.0).sort(dim=1, descending=True, stable=True)
    wide = min(most, top)
    chosen, valid = order.indices[:, :wide], order.values[:, :wide] > 0
    out = BoxGuess(
        torch.where(valid[..., None], boxes.gather(1, chosen[..., None].expand(-1, -1, 9)), 0.0),
        torch.where(valid, value.gather(1, chosen), 0.0),
        torch.where(valid, label.gather(1, chosen), -1),
        valid,
    )
    return _padded(out, most)


def _greedy(near: Tensor, usable: Tensor) -> Tensor:
    """Which candidates [B, C], sorted, stay: those that no earlier one that stays is near to."""
    before = near.tril(-1)  # [b, i, j]: j comes earlier, and is near
    kept = usable
    while True:
        # After n rounds the first n are right for good, so this ends; chains are short, so it ends soon.
        better = usable & ~(before & kept[:, None]).any(-1)
        if torch.equal(better, kept):
            return kept
        kept = better


def _first_kept(near: Tensor, kept: Tensor) -> Tensor:
    """bool [B, C, C]: [b, i, j] = candidate j goes into kept candidate i, the first kept one that it is near to."""
    into = near & kept[:, :, None]
    into = into | (torch.eye(near.shape[1], dtype=torch.bool, device=near.device) & kept[:, :, None])
    into = into & ~(kept[:, None] & ~torch.eye(near.shape[1], dtype=torch.bool, device=near.device))
    return into & (into.cumsum(1) == 1)


def _merged(boxes: Tensor, code: Tensor, score: Tensor, into: Tensor, frontless: Tensor) -> Tensor:
    """Boxes [B, C, 9], each the mean of the candidates that go into it; those that nothing goes into as they were."""
    weight = torch.where(into, score[:, None], 0.0)  # [B, C, C]
    total = weight.sum(-1, keepdim=True)
    weight = weight / torch.where(total > 0, total, 1.0)
    yaw = boxes[..., 6]
    axis = torch.stack([(2 * yaw).cos(), (2 * yaw).sin()], -1)
    edges = boxes[..., 3:6].log()
    # Of a class without a front two boxes may be the same with length and width swapped: the mean takes what is nearer.
    across = ((axis @ axis.transpose(1, 2)) < 0) & frontless[:, :, None] & frontless[:, None]
    straight, crossed = torch.where(across, 0.0, weight), torch.where(across, weight, 0.0)
    mean_axis = straight @ axis - crossed @ axis
    mean_edges = straight @ edges + crossed @ edges[..., [1, 0, 2]]
    front = weight @ code[..., FRONT]
    centre, velocity = weight @ boxes[..., :3], weight @ boxes[..., 7:9]
    mean = decode(torch.cat([centre, mean_edges, mean_axis, front, velocity], -1), torch.zeros_like(centre), torch.inf)
    return torch.where(total > 0, mean, boxes)


def _padded(guess: BoxGuess, most: int) -> BoxGuess:
    short = most - guess.valid.shape[1]
    if short <= 0:
        return guess
    pad = torch.nn.functional.pad
    return BoxGuess(
        pad(guess.boxes, (0, 0, 0, short)),
        pad(guess.score, (0, short)),
        pad(guess.label, (0, short), value=-1),
        pad(guess.valid, (0, short), value=False),
    )
