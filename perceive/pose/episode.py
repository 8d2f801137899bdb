"""Episodes of few-shot pose: references and a query stated in the frame and scale of what the references show.

Nothing is known of an object but its references. So its frame is put in the middle of what they show, and the world is
scaled so that this has a radius of :data:`RADIUS_M`. Scaling a world leaves its pictures as they are; whoever learns
from such pictures never knows how large things are, and sees a nut and a bucket alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from perceive.batch import Batch, BatchStream
from perceive.geometry import camera_rays
from perceive.heads.query_target import Episode, QueryTarget
from perceive.pose.crop_source import Recut

RADIUS_M = 0.05
_LEAST_CORE = 0.4  # of a mask without its outline; of thinner ones all pixels are used
_OUTLIER, _FLAT_M = 4.0, 0.01  # a pixel so many median distances from the median depth shows something else
_SHARE = 0.98  # of the points that count: the others may be flying pixels at the outline


@final
@dataclass(frozen=True, eq=False)
class ObjectScale:
    """B changes of frame and scale.

    Attributes:
        middle_m: float [B, 3], of what the references show, in the object's own frame.
        radius_m: float [B], of the same.
        turn: float [B, 3, 3], the new frame's axes from the object's own.
    """

    middle_m: Tensor
    radius_m: Tensor
    turn: Tensor

    @property
    def factor(self) -> Tensor:
        """[B], lengths in the scaled world over true ones."""
        return RADIUS_M / self.radius_m

    @property
    def new_from_old(self) -> Tensor:
        """[B, 4, 4] for points: a rotation, a scale and a shift; not rigid."""
        out = torch.eye(4, dtype=self.turn.dtype, device=self.turn.device).repeat(len(self.turn), 1, 1)
        out[:, :3, :3] = self.turn * self.factor[:, None, None]
        out[:, :3, 3] = -(out[:, :3, :3] @ self.middle_m[..., None])[..., 0]
        return out

    def pose(self, frame_from_old: Tensor) -> Tensor:
        """Poses [B, ..., 4, 4] of the object in some frame, in the scaled world: rigid again."""
        lead = (slice(None), *[None] * (frame_from_old.ndim - 3))
        turn = frame_from_old[..., :3, :3] @ self.turn.mT[lead]
        middle = frame_from_old[..., :3, :3] @ self.middle_m[lead][..., None] + frame_from_old[..., :3, 3:]
        out = torch.zeros_like(frame_from_old)
        out[..., :3, :3], out[..., 3, 3] = turn, 1.0
        out[..., :3, 3] = middle[..., 0] * self.factor[lead][..., None]
        return out

    def undo(self, frame_from_new: Tensor) -> Tensor:
        """The inverse of :meth:`pose`."""
        lead = (slice(None), *[None] * (frame_from_new.ndim - 3))
        out = torch.zeros_like(frame_from_new)
        out[..., :3, :3], out[..., 3, 3] = frame_from_new[..., :3, :3] @ self.turn[lead], 1.0
        moved = out[..., :3, :3] @ self.middle_m[lead][..., None]
        out[..., :3, 3] = frame_from_new[..., :3, 3] / self.factor[lead][..., None] - moved[..., 0]
        return out

    def symmetry(self, old_from_old: Tensor) -> Tensor:
        """Symmetries [B, S, 4, 4] of the object as those of the scaled one in its new frame."""
        new, turn = self.new_from_old, self.turn[:, None]
        out = old_from_old.clone()
        out[..., :3, :3] = turn @ old_from_old[..., :3, :3] @ turn.mT
        # n(A o(x) + b), where o undoes n: its part without x.
        middle = self.middle_m[:, None, :, None]
        moved = old_from_old[..., :3, :3] @ middle + old_from_old[..., :3, 3:] - middle
        out[..., :3, 3] = (new[:, None, :3, :3] @ moved)[..., 0]
        return out


def scale_of(points_m: Tensor, there: Tensor, turn: Tensor | None = None) -> ObjectScale:
    """The frame and scale of what is shown of objects.

    Args:
        points_m: float [B, N, 3] in the objects' own frames.
        there: bool [B, N], at least one of each object.
        turn: float [B, 3, 3], the new frame's axes; None = the object's own.
    """
    count = there.sum(1).clamp_min(1)

    def quantile(value: Tensor, share: float) -> Tensor:  # of [B, N, ...] along N, among those that are there
        shape = (len(value), -1) + (1,) * (value.ndim - 2)
        ordered = torch.where(there.view(shape), value, torch.inf).sort(1).values
        index = (share * (count - 1)).round().long().view(shape).expand(-1, 1, *value.shape[2:])
        return ordered.gather(1, index)[:, 0]

    middle = (quantile(points_m, 1 - _SHARE) + quantile(points_m, _SHARE)) / 2
    radius = quantile((points_m - middle[:, None]).norm(dim=-1), _SHARE).clamp_min(1e-4)
    if turn is None:
        turn = torch.eye(3, dtype=points_m.dtype).expand(len(points_m), 3, 3)
    return ObjectScale(middle, radius, turn)


@final
@dataclass(frozen=True, eq=False)
class References:
    """B * K cut-out pictures of objects, K of one after another, of R pixels.

    Attributes:
        rgb: uint8 [B * K, R, R, 3].
        depth_m: float [B * K, R, R]; 0 off the object.
        intrinsics_px: float [B * K, 4].
        object_from_crop: float [B * K, 4, 4].
        there: bool [B, K], which of them count.
    """

    rgb: Tensor
    depth_m: Tensor
    intrinsics_px: Tensor
    object_from_crop: Tensor
    there: Tensor

    def points(self, stride: int = 2) -> tuple[Tensor, Tensor]:
        """Points [B, N, 3] in the objects' frames of every so many pixels, and which of them were measured."""
        size = self.depth_m.shape[1]
        depth = self.depth_m.flatten(1)
        ray = camera_rays(self.intrinsics_px, size, size).view(len(depth), size, size, 3)[:, ::stride, ::stride]
        along = self.depth_m[:, ::stride, ::stride]
        point = (ray * along[..., None]).flatten(1, 2) @ self.object_from_crop[:, :3, :3].mT
        point = point + self.object_from_crop[:, None, :3, 3]
        batch, views = self.there.shape
        known = (along > 0).flatten(1).view(batch, views, -1) & self.there[..., None]
        return point.view(batch, -1, 3), known.flatten(1)

    def stream(self, scale: ObjectScale) -> BatchStream:
        """What a :class:`~perceive.encoders.reference_views.ReferenceViewEncoder` reads, in another frame and scale."""
        batch, views = self.there.shape
        factor = scale.factor[:, None]
        crop_from_object = _rigid_inverse(self.object_from_crop).view(batch, views, 4, 4)
        data = {
            "rgb": self.rgb.view(batch, views, *self.rgb.shape[1:]),
            "depth_m": self.depth_m.view(batch, views, *self.depth_m.shape[1:]) * factor[..., None, None],
            "intrinsics_px": self.intrinsics_px.view(batch, views, 4),
            "base_from_camera": _rigid_inverse(scale.pose(crop_from_object)),
        }
        return BatchStream(data, torch.zeros(batch, views), self.there)


def references_of(cut: Recut, there: Tensor) -> References:
    """Crops with known poses as references of half their size, cut out along their masks."""
    size = cut.mask.shape[1]
    focal, middle = cut.intrinsics_px[:, :2] / 2, cut.intrinsics_px[:, 2:] / 2
    rgb = nn.functional.avg_pool2d(cut.rgb.permute(0, 3, 1, 2).float(), 2).permute(0, 2, 3, 1)
    depth = cut.depth_m[:, ::2, ::2][:, :size, :size]
    depth = torch.where(_inner(cut.mask, depth), depth, 0.0)
    return References(
        torch.where(cut.mask[..., None], rgb, 0.0).round().to(torch.uint8),
        depth,
        torch.cat([focal, middle], -1),  # of every second pixel, the first among them
        _rigid_inverse(cut.frame_from_object) @ cut.frame_from_crop,
        there,
    )


def assemble(
    query: Recut,
    references: References,
    scale: ObjectScale,
    symmetries: Tensor,
    names: tuple[str, str],
    episode: Episode | None,
) -> tuple[Batch, QueryTarget]:
    """A batch of a query and its references, stated in the references' frame and scale.

    Args:
        query: B crops and their truth.
        references: K of each.
        scale: what of.
        symmetries: float [B, S, 4, 4], of the objects.
        names: of the two streams.
        episode: kept with the target.
    """
    factor = scale.factor
    camera = query.frame_from_crop.clone()
    camera[:, :3, 3] *= factor[:, None]
    data = {
        "rgb": query.rgb[:, None],
        "depth_m": (query.depth_m * factor[:, None, None])[:, None],
        "intrinsics_px": query.intrinsics_px[:, None],
        "base_from_camera": camera[:, None],
    }
    size = len(factor)
    crop = BatchStream(data, torch.zeros(size, 1), torch.ones(size, 1, dtype=torch.bool))
    new = scale.new_from_old[:, None]
    placed = query.coordinates_m.flatten(1, 2)
    placed = (new[..., :3, :3] @ placed[..., None])[..., 0] + new[..., :3, 3]
    coordinates = torch.where(query.mask[..., None], placed.view_as(query.coordinates_m), 0.0)
    target = QueryTarget(
        query.mask, coordinates, scale.symmetry(symmetries), scale.pose(query.frame_from_object), episode
    )
    return Batch({names[0]: crop, names[1]: references.stream(scale)}), target


def _inner(mask: Tensor, depth_m: Tensor) -> Tensor:
    """The pixels [B, R, R] of masks that surely show the object: at its outline pixels often have the depth behind."""
    outside = nn.functional.max_pool2d((~mask).float()[:, None], 3, 1, 1)[:, 0] > 0
    core = mask & ~outside
    thin = core.sum((1, 2)) < _LEAST_CORE * mask.sum((1, 2))
    core = torch.where(thin[:, None, None], mask, core) & (depth_m > 0)
    value = torch.where(core, depth_m, torch.nan).flatten(1)
    off = (value - value.nanmedian(1, keepdim=True).values).abs()
    far = off > _OUTLIER * off.nanmedian(1, keepdim=True).values.clamp_min(_FLAT_M)  # False for NaN
    return core & ~far.view(core.shape)


def _rigid_inverse(pose: Tensor) -> Tensor:
    out = torch.zeros_like(pose)
    out[..., :3, :3], out[..., 3, 3] = pose[..., :3, :3].mT, 1.0
    out[..., :3, 3] = -(pose[..., :3, :3].mT @ pose[..., :3, 3:])[..., 0]
    return out
