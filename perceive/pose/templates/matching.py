"""Which templates look like a cut-out, and the poses that this says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceive.pose.templates.crops import Crops, SightCamera
from perceive.pose.templates.features import PatchFeatures, cell_means
from perceive.pose.templates.store import Templates
from perceive.pose.templates.views import turn_rotations
from sensors.geometry import FloatArray

_STEP = 0.04  # depth residual, as a share of the diameter, that counts half
_WEIGHT_DEPTH = 0.4


@final
@dataclass(frozen=True, eq=False)
class Cells:
    """Cut-outs by cells.

    Attributes:
        share: float32 [A, G, G], of pixels that show the object.
        placed: float32 [A, G, G], of pixels that do and have a depth.
        empty: float32 [A, G, G], of pixels where the object cannot be.
        depth_m: float32 [A, G, G].
        features: float32 [A, C, G, G].
    """

    share: Tensor
    placed: Tensor
    empty: Tensor
    depth_m: Tensor
    features: Tensor


def by_cells(crops: Crops, features: PatchFeatures) -> Cells:
    """Describe cut-outs."""
    mask, placed, empty = (torch.from_numpy(v) for v in (crops.mask, crops.placed, crops.empty))
    depth, measured = cell_means(torch.from_numpy(crops.depth_m)[:, None], placed, features.cells)
    share, nothing = (
        cell_means(torch.zeros(len(v), 1, *v.shape[1:]), v, features.cells)[1][:, 0] for v in (mask, empty)
    )
    return Cells(share, measured[:, 0], nothing, depth[:, 0], features.describe(crops))


def compare(query: Cells, templates: Templates, diameter_m: float) -> tuple[Tensor, Tensor]:
    """How well each template explains each cut-out [A, N], and how far behind the reference the object is then [A, N].

    Everything is sums over the cells of products, so all pairs are a few matrix products. Over the cells that both
    show: likeness of the features, and the spread of the difference of depths (their mean is the distance). Over all:
    the share of the cut-out that the template covers, and the share of the template that lies where nothing is; cells
    hidden by something nearer count for neither.
    """
    q, t = (v.flatten(1) for v in (query.share, templates.share))
    covered = q @ t.T
    wrong = query.empty.flatten(1) @ t.T
    overlap = covered / (q.sum(1, keepdim=True) + wrong).clamp_min(1e-6)
    mine = (query.features * query.share[:, None]).flatten(1)
    theirs = (templates.features * templates.share[:, None]).flatten(1)
    likeness = (mine @ theirs.T) / covered.clamp_min(1e-6)
    p = query.placed.flatten(1)
    if not bool(p.any()):
        return overlap * (0.5 + 0.5 * likeness), torch.full_like(overlap, torch.nan)
    y, z = query.depth_m.flatten(1) / diameter_m, templates.depth_m.flatten(1) / diameter_m
    weight = (p @ t.T).clamp_min(1e-6)
    behind = (p * y) @ t.T / weight - p @ (t * z).T / weight
    square = ((p * y * y) @ t.T - 2 * (p * y) @ (t * z).T + p @ (t * z * z).T) / weight
    spread = (square - behind**2).clamp_min(0)
    depth = 1 / (1 + spread / _STEP**2)
    score = overlap * ((1 - _WEIGHT_DEPTH) * (0.5 + 0.5 * likeness) + _WEIGHT_DEPTH * depth)
    return torch.where(covered > 1e-3, score, 0.0), behind * diameter_m


def best_poses(
    score: Tensor,
    behind_m: Tensor,
    templates: Templates,
    camera: SightCamera,
    turns: int,
    shifts: FloatArray,
    most: int,
    apart_rad: float,
) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """The poses [K, 4, 4] of the best pairs that differ in rotation, their templates [K] and scores [K], best first.

    Args:
        score: [turns * J, N], as :func:`compare` gives for the cut-outs of ``camera``.
        behind_m: likewise; NaN = depth does not tell, but the size of the crop does.
        templates: N of them.
        camera: what the cut-outs were made with.
        turns: likewise.
        shifts: likewise, [J, 2].
        most: K at most.
        apart_rad: a pose that is turned by less against a better one is left out.
    """
    count = len(templates)
    table = score.reshape(turns, len(shifts), count)
    best, shift = (v.numpy() for v in table.max(1))  # [T, N]
    rotation = camera.camera_from_sight @ turn_rotations(turns)[:, None] @ templates.rotation[None]  # [T, N, 3, 3]
    order = np.argsort(-best, axis=None, kind="stable")[: 60 * most]
    flat = rotation.reshape(-1, 9)[order]
    free = np.ones(len(order), np.bool_)
    least = 1 + 2 * np.cos(apart_rad)
    taken: list[int] = []
    while len(taken) < most and free.any():
        here = int(np.argmax(free))
        taken.append(here)
        free &= flat @ flat[here] < least
        free[here] = False
    turn, number = np.divmod(order[taken], count)
    which = shift[turn, number]
    behind = behind_m.reshape(turns, len(shifts), count).numpy()[turn, which, number].astype(np.float64)
    zoom = camera.side / templates.side[number]
    far = np.where(np.isfinite(behind), camera.reference_m + behind, templates.distance_m / zoom)
    at = shifts[which] - templates.offset[number] * zoom[:, None]
    # Where depth tells, lengths beside the line of sight were measured at the reference distance.
    beside = np.where(np.isfinite(behind), camera.reference_m, far)
    sight = np.concatenate([at * beside[:, None], far[:, None]], 1)
    pose = np.tile(np.eye(4), (len(taken), 1, 1))
    pose[:, :3, :3] = rotation[turn, number]
    turned = camera.camera_from_sight @ turn_rotations(turns)[turn]
    pose[:, :3, 3] = (turned @ sight[..., None])[..., 0] - pose[:, :3, :3] @ templates.middle_m
    return pose, number.astype(np.int64), best.reshape(-1)[order[taken]].astype(np.float64)


@final
@dataclass(frozen=True, eq=False)
class Matches:
    """Cells of one cut-out and of K templates that are each other's likest.

    Attributes:
        object_m: float64 [K, M, 3], in the object's frame.
        at: float64 [K, M, 2], in the cut-out, in metres at one metre.
        depth_m: float64 [K, M], behind the reference; NaN = unknown.
        valid: bool [K, M].
    """

    object_m: FloatArray
    at: FloatArray
    depth_m: FloatArray
    valid: NDArray[np.bool_]


def mutual_matches(query: Cells, templates: Templates, which: NDArray[np.int64], side: float) -> Matches:
    """Match the cells of the one cut-out in ``query`` with those of some templates.

    Args:
        query: A = 1.
        templates: of the object.
        which: [K].
        side: of the cut-out, in metres at one metre.
    """
    here = torch.from_numpy(which)
    mine = query.features[0].flatten(1).T  # [M, C]
    theirs = templates.features[here].flatten(2)  # [K, C, M']
    like = mine @ theirs
    there, known = query.share.flatten() > 0.3, templates.share[here].flatten(1) > 0.3
    like = torch.where(there[None, :, None] & known[:, None], like, -torch.inf)
    forth, back = like.argmax(2), like.argmax(1)
    mutual = back.gather(1, forth) == torch.arange(len(mine))
    valid = mutual & there & known.gather(1, forth)
    pick = forth[..., None]
    cells = query.share.shape[1]
    row, column = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    middle = torch.stack([column, row], -1).reshape(1, -1, 2).double()
    # The template's point is not in the middle of its cell; nor then, if the cells match, is what is seen of it.
    inside = templates.place_px[here].flatten(1, 2).gather(1, pick.expand(-1, -1, 2)).double()
    at = (middle + inside - (cells - 1) / 2) * (side / cells)
    depth = torch.where(query.placed.flatten() > 0.3, query.depth_m.flatten().double(), torch.nan)
    return Matches(
        templates.place_m[here].flatten(1, 2).gather(1, pick.expand(-1, -1, 3)).double().numpy(),
        at.numpy(),
        depth.expand(len(which), -1).numpy(),
        valid.numpy(),
    )
