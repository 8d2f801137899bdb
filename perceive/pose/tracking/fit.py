"""Gauss-Newton from a rendered side of an object to a depth picture, many hypotheses at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.tracking.side import Side
from sensors.geometry import FloatArray, axis_angle_to_matrix

_DAMPING = 2e-3  # per unit of weight: directions that nothing fixes stay where the prediction put them
_WIDEST_PX = 16  # how far along its normal an outline is looked for
_ASIDE_PX = 2  # unknown pixels that may lie between an object and what is behind it (edges have holes)


@final
@dataclass(frozen=True, eq=False)
class DepthView:
    """A depth picture to fit to.

    Attributes:
        depth_m: float32 [H, W]; 0 = unknown.
        intrinsics_px: fx fy cx cy.
    """

    depth_m: NDArray[np.float32]
    intrinsics_px: FloatArray

    def at(self, u: FloatArray, v: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
        """Nearest pixels of places in the picture, and the depth there (0 outside)."""
        height, width = self.depth_m.shape
        # Clipped before the cast: a point beside the camera projects to infinity.
        column = np.rint(np.clip(u, -2, width + 1)).astype(np.int64)
        row = np.rint(np.clip(v, -2, height + 1)).astype(np.int64)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        seen = self.depth_m[np.where(inside, row, 0), np.where(inside, column, 0)].astype(np.float64)
        return column, row, np.where(inside, seen, 0.0)

    def project(self, camera_m: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """u, v and z [...] of points [..., 3]; what is not in front of the camera lands outside."""
        fx, fy, cx, cy = self.intrinsics_px
        z = camera_m[..., 2]
        ahead = np.where(z > 1e-3, z, np.nan)
        u = np.nan_to_num(fx * camera_m[..., 0] / ahead + cx, nan=-9.0)
        v = np.nan_to_num(fy * camera_m[..., 1] / ahead + cy, nan=-9.0)
        return u, v, z


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """H fitted poses.

    Attributes:
        camera_from_object: float64 [H, 4, 4].
        covariance: float64 [H, 6, 6] as ``PoseEstimate.covariance``.
        cost: float64 [H], mean robust cost of all points between 0 (all on the surface) and 1 (none near it).
    """

    camera_from_object: FloatArray
    covariance: FloatArray
    cost: FloatArray


@final
@dataclass(frozen=True, eq=False)
class Classes:
    """What was seen where points of a surface should be, bool [H, N] each; unknown where none is true."""

    agrees: NDArray[np.bool_]
    in_front: NDArray[np.bool_]
    behind: NDArray[np.bool_]


def place(camera_from_object: FloatArray, xyz_m: FloatArray) -> FloatArray:
    """Points [H or 1, N, 3] in the camera frames of poses [H, 4, 4]."""
    moved: FloatArray = xyz_m @ camera_from_object[:, :3, :3].transpose(0, 2, 1) + camera_from_object[:, None, :3, 3]
    return moved


def classify(view: DepthView, side: Side, camera_from_object: FloatArray, band_m: float) -> Classes:
    """Which points of the side agree with the picture to a band, and which are covered or violated."""
    u, v, z = view.project(place(camera_from_object, side.xyz_m))
    _, _, seen = view.at(u, v)
    known = seen > 0
    return Classes(known & (np.abs(seen - z) <= band_m), known & (seen < z - band_m), known & (seen > z + band_m))


def outline(view: DepthView, side: Side, camera_from_object: FloatArray, reach_px: int, band_m: float) -> Outline:
    """Look along the normals of the outline for the jump from the object to what is behind it.

    A jump towards the camera is an occluder's edge, no jump says that something touches the object there: both say
    nothing about the object's outline.
    """
    camera = place(camera_from_object, side.rim_m)
    u, v, z = view.project(camera)
    steps = np.arange(-reach_px, reach_px + 2 + _ASIDE_PX)
    direction = np.broadcast_to(side.rim_px, (*u.shape, 2))
    _, _, seen = view.at(u[..., None] + steps * direction[..., :1], v[..., None] + steps * direction[..., 1:])
    unknown = seen <= 0
    behind = seen > z[..., None] + band_m
    inside = ~unknown & (np.abs(seen - z[..., None]) <= band_m)
    count = 2 * reach_px + 1
    found = np.full((*u.shape, count), np.inf)
    bridge = np.ones_like(inside[..., :count])
    for gap in range(_ASIDE_PX + 1):  # the jump lies in the middle of the gap
        jump = inside[..., :count] & bridge & behind[..., 1 + gap : 1 + gap + count]
        found = np.where(jump & np.isinf(found), steps[:count] + 0.5 * (1 + gap), found)
        bridge = bridge & unknown[..., 1 + gap : 1 + gap + count]
    nearest = np.take_along_axis(found, np.abs(found).argmin(-1)[..., None], -1)[..., 0]
    middle = seen[..., reach_px]
    covered = (middle > 0) & (middle < z - band_m)
    return Outline(camera, z, nearest, (middle > 0) & ~covered)


@final
@dataclass(frozen=True, eq=False)
class Outline:
    """Where the jumps are.

    Attributes:
        camera_m: float64 [H, M, 3], the points of the rim.
        z_m: float64 [H, M].
        jump_px: float64 [H, M], from the point outwards to the jump; infinite = there is none.
        seen: bool [H, M], not behind an occluder, not unknown.
    """

    camera_m: FloatArray
    z_m: FloatArray
    jump_px: FloatArray
    seen: NDArray[np.bool_]


def fit(
    view: DepthView,
    side: Side,
    camera_from_object: FloatArray,
    reaches_m: Sequence[float],
    noise_m: float,
    size_m: float,
    occlusion_test: bool = True,
) -> Fitted:
    """Move poses until the side lies on the depth picture and its outline on the jumps of depth.

    Each point of the side is projected into the picture and compared, along its normal, with what was measured there
    (projective association, Blais and Levine, TPAMI 1995; point to plane, Chen and Medioni, IVC 1992). Points with
    nothing near them are left out, so that an occluder in front and a background behind do not pull. The outline says
    what a flat or round side does not; as in RAPID (Harris and Stennett, BMVC 1990), but of depth.

    Args:
        view: the picture.
        side: the object as drawn near these poses; 1 for all or one for each.
        camera_from_object: starts [H, 4, 4].
        reaches_m: one for each step, how far off a measurement may be and still count.
        noise_m: standard deviation of a depth measurement.
        size_m: half the object's extent, unit of the rotations.
        occlusion_test: False = what is in front counts as well, however far (the ablation).
    """
    pose = camera_from_object.copy()
    fx = float(view.intrinsics_px[0])
    centre = side.xyz_m.mean((0, 1))
    rows = np.concatenate([np.cross(side.xyz_m - centre, side.normal) / size_m, side.normal], -1)
    matrix, variance, cost = np.zeros((len(pose), 6, 6)), np.ones(len(pose)), np.ones(len(pose))
    for reach_m in reaches_m:
        camera = place(pose, side.xyz_m)
        u, v, z = view.project(camera)
        column, row, seen = view.at(u, v)
        near = (seen > 0) & (seen - z < reach_m)
        if occlusion_test:
            near &= z - seen < reach_m
        ray = np.stack(
            [(column - view.intrinsics_px[2]) / fx, (row - view.intrinsics_px[3]) / view.intrinsics_px[1]], -1
        )
        measured = np.concatenate([ray * seen[..., None], seen[..., None]], -1)
        normal = side.normal @ pose[:, :3, :3].transpose(0, 2, 1)
        residual = np.where(near, ((camera - measured) * normal).sum(-1), 0.0)
        weight, _ = _robust(residual, near, noise_m)
        jacobian = np.broadcast_to(rows, (*residual.shape, 6))
        far = (2.0 * reach_m) ** 2 if not occlusion_test else reach_m**2
        cost = np.where(near, np.minimum(residual**2 / far, 1.0), 1.0).mean(-1)
        if side.rim_m.shape[1]:
            more, residual_rim, weight_rim = _rim_rows(view, side, pose, reach_m, centre, size_m, noise_m)
            jacobian = np.concatenate([jacobian, more], 1)
            residual = np.concatenate([residual, residual_rim], 1)
            weight = np.concatenate([weight, weight_rim], 1)
        weighted = jacobian * weight[..., None]
        matrix = weighted.transpose(0, 2, 1) @ jacobian
        total = weight.sum(-1)
        damped = matrix + (_DAMPING * total + 1e-9)[:, None, None] * np.eye(6)
        step = -np.linalg.solve(damped, (weighted * residual[..., None]).sum(1)[..., None])[..., 0]
        freedom = np.maximum(total - 6.0, 1.0)
        variance = np.maximum((weight * residual**2).sum(-1) / freedom, 0.25 * noise_m**2)
        pose = pose @ _motion(step, centre, size_m)
    return Fitted(pose, _covariance(matrix, variance, centre, size_m), cost)


def _robust(residual: FloatArray, used: NDArray[np.bool_], noise_m: float) -> tuple[FloatArray, FloatArray]:
    """Geman-McClure weights [H, N] and their scale [H]."""
    count = np.maximum(used.sum(-1), 1)
    scale = np.maximum(2.0 * np.abs(residual).sum(-1) / count, 2.0 * noise_m)
    weight = np.where(used, 1.0 / (1.0 + (residual / scale[..., None]) ** 2) ** 2, 0.0)
    return weight, scale


def _rim_rows(
    view: DepthView,
    side: Side,
    pose: FloatArray,
    reach_m: float,
    centre: FloatArray,
    size_m: float,
    noise_m: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Jacobian [H, M, 6], residual [H, M] in metres and weight [H, M] of the outline."""
    fx = float(view.intrinsics_px[0])
    away_m = max(float(np.median(pose[:, 2, 3])), 0.05)
    reach_px = int(np.clip(round(reach_m * fx / away_m), 3, _WIDEST_PX))
    found = outline(view, side, pose, reach_px, max(reach_m, 6.0 * noise_m))
    used = np.isfinite(found.jump_px) & (found.z_m > 1e-3)
    z = np.where(used, found.z_m, 1.0)
    residual = np.where(used, (side.inside_px - np.where(used, found.jump_px, 0.0)) * z / fx, 0.0)
    direction = np.broadcast_to(side.rim_px, (*z.shape, 2))
    # d(n . pixel) / d(point) * z / fx, turned into the object's frame
    slope = (direction[..., 0] * found.camera_m[..., 0] + direction[..., 1] * found.camera_m[..., 1]) / z
    along = np.concatenate([direction, -slope[..., None]], -1) @ pose[:, :3, :3]
    rim = np.broadcast_to(side.rim_m, along.shape)
    weight, _ = _robust(residual, used, noise_m)
    return np.concatenate([np.cross(rim - centre, along) / size_m, along], -1), residual, weight


def _motion(step: FloatArray, centre: FloatArray, size_m: float) -> FloatArray:
    """Rigid motions [H, 4, 4] in the object's frame of twists about its middle."""
    turn = axis_angle_to_matrix(step[:, :3] / size_m)
    motion = np.tile(np.eye(4), (len(step), 1, 1))
    motion[:, :3, :3] = turn
    motion[:, :3, 3] = step[:, 3:] + centre - turn @ centre
    return motion


def _covariance(matrix: FloatArray, variance: FloatArray, centre: FloatArray, size_m: float) -> FloatArray:
    """Of a motion (rad, m) at the object's origin; what nothing fixes has the extent of the object, not infinity."""
    known = matrix / variance[:, None, None] + np.eye(6) / size_m**2
    change = np.zeros((6, 6))
    change[:3, :3] = np.eye(3) / size_m
    change[3:, 3:] = np.eye(3)
    x, y, z = centre
    change[3:, :3] = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / size_m  # v at the origin = v - w x c
    covariance: FloatArray = change @ np.linalg.inv(known) @ change.T
    return covariance
