"""Losses of poses and of object coordinates that no symmetry of the object changes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from perceive.geometry import full_precision, transform_points
from perceive.points.registration.kabsch import align_unchecked
from perceive.points.registration.rigid import invert_rigid, rigid, skew_of
from perceive.pose.symmetry import Symmetries
from sensors.errors import SpecError

Distance = Literal["length", "squared"]


def best_symmetry(points_m: Tensor, reference_m: Tensor, weight: Tensor, symmetries: Symmetries) -> Tensor:
    """The symmetry that brings reference points nearest to other points, in the least-squares sense.

    In closed form: the sum of squares is linear in the symmetry's matrix, so every discrete symmetry costs a product
    of 4 x 4 matrices, and the best angle about an axis of revolution is an arc tangent: there are no angular steps.
    Objects with two axes (balls) may be turned in any way about the point where the axes are nearest to each other.

    Args:
        points_m: [B, K, 3] in the object's frame.
        reference_m: [B, K, 3] in the object's frame.
        weight: [B, K], 0 or more; where it is 0 the points may be anything.
        symmetries: of the object.

    Returns:
        float64 [B, 4, 4]: ``S`` for the least ``sum of weight |points - S reference|^2``. It has no gradient.
    """
    with full_precision(points_m.device), torch.no_grad():
        w = weight.double()
        used = (w > 0)[..., None]
        p, q = torch.where(used, points_m.double(), 0.0), torch.where(used, reference_m.double(), 0.0)
        discrete = torch.as_tensor(symmetries.discrete, dtype=torch.float64, device=p.device)
        every = torch.cat([torch.eye(4, dtype=torch.float64, device=p.device)[None], discrete])
        batch = len(p)
        if not symmetries.continuous:
            return every[_sums(p, q, w, every.expand(batch, -1, 4, 4)).argmin(1)]
        axes = [torch.as_tensor(one.axis, dtype=torch.float64, device=p.device) for one in symmetries.continuous]
        offsets = [torch.as_tensor(one.offset_m, dtype=torch.float64, device=p.device) for one in symmetries.continuous]
        ball = any(float(torch.linalg.cross(axes[0], one).norm()) > 1e-6 for one in axes[1:])
        if ball:
            return _about_point(p, q, w, _meeting(torch.stack(axes), torch.stack(offsets)))
        moved = (q[:, None] @ every[:, :3, :3].transpose(1, 2)) + every[:, None, :3, 3]  # [B, D, K, 3]
        turned = _about_axis(p, moved, w, axes[0], offsets[0]) @ every
        best = _sums(p, q, w, turned).argmin(1)
        return turned[torch.arange(batch, device=p.device), best]


def closest_truth(predicted: Tensor, truth: Tensor, points_m: Tensor, symmetries: Symmetries) -> Tensor:
    """For each sample the true pose [B, 4, 4], among those that look the same, that is nearest to the predicted one.

    Nearest in the mean squared distance of the model's points. Also what a regression loss on the pose's own numbers
    is to be given as its target. It has no gradient.

    Args:
        predicted: [B, 4, 4], camera_from_object.
        truth: [B, 4, 4], camera_from_object.
        points_m: [P, 3] or [B, P, 3] of the model.
        symmetries: of the object.

    Raises:
        SpecError: shapes that do not fit.
    """
    points = _points(predicted, truth, points_m)
    with full_precision(predicted.device), torch.no_grad():
        true = truth.double()
        if not symmetries:
            return truth.detach().to(predicted.dtype)
        apart = invert_rigid(true) @ predicted.detach().double()
        moved = transform_points(apart, points.double())
        weight = torch.ones(points.shape[:2], dtype=torch.float64, device=points.device)
        return (true @ best_symmetry(moved, points, weight, symmetries)).to(predicted.dtype)


def pose_loss(
    predicted: Tensor, truth: Tensor, points_m: Tensor, symmetries: Symmetries, distance: Distance = "length"
) -> Tensor:
    """How far the model's points are from where they should be, [B], at the nearest of the poses that look the same.

    With ``"length"`` it is the mean distance in metres (the point-matching loss of DeepIM, Li et al., ECCV 2018), with
    ``"squared"`` the mean square. Zero at every symmetric truth; its gradient is finite there too.

    Args:
        predicted: [B, 4, 4], camera_from_object; its rotation part need not be one.
        truth: [B, 4, 4].
        points_m: [P, 3] or [B, P, 3] of the model.
        symmetries: of the object.
        distance: see above.

    Raises:
        SpecError: shapes that do not fit, or an unknown distance.
    """
    points = _points(predicted, truth, points_m)
    target = closest_truth(predicted, truth, points_m, symmetries)
    with full_precision(predicted.device):
        points = points.to(predicted.dtype)
        apart = transform_points(predicted, points) - transform_points(target, points)
        return _size(apart, distance).mean(-1)


def coordinate_loss(
    predicted_m: Tensor,
    truth_m: Tensor,
    valid: Tensor,
    symmetries: Symmetries,
    distance: Distance = "length",
) -> Tensor:
    """The error [B] of object coordinates seen at pixels, with one symmetry for all pixels of a sample.

    Where an object is symmetric, its picture does not say which of several coordinates a pixel has; but all pixels
    of one picture have to agree about it.

    Args:
        predicted_m: [B, K, 3], or pictures [B, H, W, 3].
        truth_m: of the same shape.
        valid: bool [B, K] or [B, H, W], pixels with a true coordinate. A sample without any has the loss 0.
        symmetries: of the object.
        distance: as :func:`pose_loss`.

    Raises:
        SpecError: shapes that do not fit, or an unknown distance.
    """
    if predicted_m.shape != truth_m.shape or predicted_m.shape[-1] != 3 or valid.shape != predicted_m.shape[:-1]:
        raise SpecError(
            "coordinate_loss",
            "coordinates [B, ..., 3] twice, valid [B, ...]",
            f"{list(predicted_m.shape)}, {list(truth_m.shape)}, {list(valid.shape)}",
            "Correct it.",
        )
    predicted, truth, there = predicted_m.flatten(1, -2), truth_m.flatten(1, -2), valid.flatten(1)
    with full_precision(predicted.device):
        symmetry = best_symmetry(predicted.detach(), truth, there.double(), symmetries)
        truth = torch.where(there[..., None], truth, 0.0).double()
        target = transform_points(symmetry, truth).to(predicted.dtype)
        apart = torch.where(there[..., None], predicted - target, 0.0)
        return (_size(apart, distance) * there).sum(1) / there.sum(1).clamp_min(1)


def _sums(p: Tensor, q: Tensor, w: Tensor, symmetry: Tensor) -> Tensor:
    """Weighted sums of squares [B, S] for symmetries [B, S, 4, 4], less what is the same for all of them."""
    one = torch.ones_like(p[..., :1])
    p1, q1 = torch.cat([p, one], -1), torch.cat([q, one], -1)
    cross = (w[..., None] * p1).transpose(1, 2) @ q1
    spread = (w[..., None] * q1).transpose(1, 2) @ q1
    top = symmetry[..., :3, :]
    moved = torch.einsum("bsij,bjk,bsik->bs", top, spread, top)
    return moved - 2 * (top * cross[:, None, :3, :]).sum((-1, -2))


def _about_axis(p: Tensor, q: Tensor, w: Tensor, axis: Tensor, offset: Tensor) -> Tensor:
    """Turns [B, D, 4, 4] about an axis that bring q [B, D, K, 3] nearest to p [B, K, 3]."""
    cross = torch.einsum("bk,bki,bdkj->bdij", w, p - offset, q - offset)
    along = torch.einsum("i,bdij,j->bd", axis, cross, axis)
    skew = skew_of(axis)
    angle = torch.atan2((skew * cross).sum((-1, -2)), cross.diagonal(dim1=-2, dim2=-1).sum(-1) - along)
    eye = torch.eye(3, dtype=p.dtype, device=p.device)
    sine, cosine = angle.sin()[..., None, None], angle.cos()[..., None, None]
    turn = eye + sine * skew + (1 - cosine) * (skew @ skew)
    return rigid(turn, offset - turn @ offset)


def _about_point(p: Tensor, q: Tensor, w: Tensor, point: Tensor) -> Tensor:
    """Turns [B, 4, 4] about a point that bring q nearest to p."""
    # Each pair with its mirror image, so that the middles are at the point and the turn is about it.
    source, target = q - point, p - point
    both = align_unchecked(torch.cat([source, -source], 1), torch.cat([target, -target], 1), torch.cat([w, w], 1))
    turn = both.target_from_source[:, :3, :3]
    return rigid(turn, point - turn @ point)


def _meeting(axes: Tensor, offsets: Tensor) -> Tensor:
    """The point nearest to lines [L, 3] through offsets [L, 3]."""
    across = torch.eye(3, dtype=axes.dtype, device=axes.device) - axes[:, :, None] * axes[:, None]
    found: Tensor = torch.linalg.solve(across.sum(0), (across @ offsets[..., None]).sum(0)[:, 0])
    return found


def _size(apart: Tensor, distance: str) -> Tensor:
    if distance == "squared":
        return apart.square().sum(-1)
    if distance != "length":
        raise SpecError("distance", "'length' or 'squared'", repr(distance), "Choose one.")
    # torch defines the gradient of a zero vector's length as zero.
    length: Tensor = torch.linalg.vector_norm(apart, dim=-1)
    return length


def _points(predicted: Tensor, truth: Tensor, points_m: Tensor) -> Tensor:
    batch = len(predicted)
    fits = points_m.ndim in (2, 3) and points_m.shape[-1] == 3 and (points_m.ndim == 2 or len(points_m) == batch)
    if predicted.shape != (batch, 4, 4) or truth.shape != predicted.shape or not fits:
        raise SpecError(
            "pose_loss",
            "poses [B, 4, 4] twice and points [P, 3] or [B, P, 3]",
            f"{list(predicted.shape)}, {list(truth.shape)}, {list(points_m.shape)}",
            "Correct it.",
        )
    return points_m.expand(batch, -1, 3)
