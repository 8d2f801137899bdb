"""Grasps of a mesh by two parallel fingers: where the object may be taken, in its own frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import Symmetries
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

_CHUNK = 256  # grasps whose clearance is looked at together
_TURN_STEP = 0.13  # between two turns about an axis of revolution: 25 of them
_SAME_M, _SAME_RAD = 0.005, math.radians(14)  # two grasps that are nearer than this are one
_PAIR_M, _PAIR_RAD = 0.007, math.radians(14)  # the same of pairs of contacts
_PAIRS = 200  # pairs of contacts that are tried with every approach
_BACK_M = (0.0, 0.006)  # of the tool point behind the contacts: near a table the fingertips must not reach far beyond
_HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])  # of the hand about its approach: the fingers change places


@final
@dataclass(frozen=True)
class Gripper:
    """A hand with two parallel fingers, as boxes in the frame of the tool.

    The tool's z is the approach, the fingers close along y, and the origin is between the middles of their pads. The
    numbers are those of the Franka hand.

    Attributes:
        opening_m: between the open fingers.
        most_m: of the objects' widths that it is to take.
        least_m: an object thinner than this is not held.
        pad_half_m: half a finger's width, along x.
        finger_m: a finger's thickness, along y.
        tip_m: how far the fingers reach beyond the tool point.
        palm_m: from the tool point back to the palm.
        hand_half_m: half the hand's extent along x and y.
        hand_m: the hand's length behind the palm.
    """

    opening_m: float = 0.08
    most_m: float = 0.072
    least_m: float = 0.006
    pad_half_m: float = 0.0088
    finger_m: float = 0.0094
    tip_m: float = 0.0088
    palm_m: float = 0.037
    hand_half_m: tuple[float, float] = (0.032, 0.105)
    hand_m: float = 0.13

    def __post_init__(self) -> None:
        sizes = (self.pad_half_m, self.finger_m, self.tip_m, self.palm_m, *self.hand_half_m, self.hand_m)
        if not 0 < self.least_m < self.most_m < self.opening_m or min(sizes) <= 0:
            raise SpecError(
                "Gripper", "0 < least_m < most_m < opening_m, and sizes above 0",
                f"{self.least_m}, {self.most_m}, {self.opening_m}; {sizes}", "Give metres.",
            )  # fmt: skip

    def boxes(self, inner_m: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lower and upper corners [G, 3, 3] of two fingers and the hand, in the tool's frame.

        Args:
            inner_m: [G], from the middle to the inside of each finger; their outside is that of the open fingers, so
                the boxes hold all that the fingers pass through while they close.
        """
        count, outer = len(inner_m), self.opening_m / 2 + self.finger_m
        low, high = np.empty((count, 3, 3)), np.empty((count, 3, 3))
        low[:, 0], high[:, 1] = (-self.pad_half_m, -outer, -self.palm_m), (self.pad_half_m, outer, self.tip_m)
        high[:, 0], low[:, 1] = high[:, 1], low[:, 0]
        high[:, 0, 1], low[:, 1, 1] = -inner_m, inner_m
        x, y = self.hand_half_m
        low[:, 2], high[:, 2] = (-x, -y, -self.palm_m - self.hand_m), (x, y, -self.palm_m)
        return low, high


@final
@dataclass(frozen=True, eq=False)
class Grasps:
    """G grasps of one object, the best first.

    Attributes:
        object_from_tool: float64 [G, 4, 4].
        width_m: float64 [G], between the fingers when they hold it.
        quality: float64 [G], 0 to 1: surfaces across the closing direction, near the middle, broad, and not too wide.
    """

    object_from_tool: FloatArray
    width_m: FloatArray
    quality: FloatArray

    def __len__(self) -> int:
        """G."""
        return len(self.width_m)

    def everywhere(self, symmetries: Symmetries) -> Grasps:
        """These and all that the object's symmetries and a half turn of the hand make of them."""
        moved = symmetric(self.object_from_tool, symmetries)
        times = moved.shape[1]
        return Grasps(moved.reshape(-1, 4, 4), np.repeat(self.width_m, times), np.repeat(self.quality, times))


def symmetric(object_from_tool: FloatArray, symmetries: Symmetries) -> FloatArray:
    """[G, S, 4, 4]: grasps [G, 4, 4] that nobody can tell from these, by the object's or by the hand's symmetry."""
    own = symmetries.transforms(_TURN_STEP)
    hand = np.stack([np.eye(4), _HALF_TURN])
    moved = np.einsum("sij,gjk,hkl->gshil", own, object_from_tool, hand)
    return np.asarray(moved.reshape(len(object_from_tool), -1, 4, 4))


def grasps_of(
    model: ObjectModel,
    gripper: Gripper | None = None,
    friction: float = 0.5,
    samples: int = 1500,
    approaches: int = 20,
    clearance_m: float = 0.003,
    most: int = 400,
    seed: int = 0,
) -> Grasps:
    """Antipodal grasps, sampled from the surface.

    From points of the surface rays go inwards within the friction cone; where one leaves the object within the cone of
    the surface there, two fingers can hold it (Nguyen, "Constructing force-closure grasps", IJRR 1988). Around the line
    between the two contacts the hand may come from any side from which its boxes, fingers closing included, are clear
    of the object. What the object's symmetries or a half turn of the hand make of a grasp is the same grasp.

    Args:
        model: closed, in metres; parts may reach into each other.
        gripper: None = the Franka hand.
        friction: coefficient; contacts lie within its cone.
        samples: points of the surface, for contacts and for clearance.
        approaches: directions around each line of contact.
        clearance_m: kept between the object and fingers and hand.
        most: grasps.
        seed: of the samples; the same seed gives the same grasps.

    Raises:
        SpecError: a setting is out of its range.
        DataError: there is no grasp of this object.
    """
    if not (friction > 0 and clearance_m >= 0 and min(samples, approaches, most) >= 1):
        got = f"friction {friction}, clearance_m {clearance_m}, {samples}, {approaches}, {most}"
        raise SpecError("grasps_of", "friction > 0, clearance_m >= 0, counts of at least 1", got, "Correct it.")
    hand = gripper or Gripper()
    first, axis, width, aligned = _contacts(model, hand, friction, samples, seed)
    if not len(first):
        raise _none(model, hand)
    surface = model.surface(samples, seed + 1).xyz_m
    middle = surface.mean(0)
    centre = first + axis * width[:, None] / 2
    lever = np.linalg.norm(centre - middle, axis=1) / model.diameter_m
    # A grasp far from the middle turns under the weight; one as wide as the hand needs an exact pose.
    worth = aligned * np.exp(-3.0 * lever) * np.clip(2.0 * (hand.opening_m - width) / hand.opening_m, 0.2, 1.0)
    kept = _distinct(centre, axis, worth, model.symmetries)
    poses = _frames(centre[kept], axis[kept], approaches)
    each = len(_BACK_M) * approaches
    width, worth = np.repeat(width[kept], each), np.repeat(worth[kept], each)
    clear, support = _clear(poses, width, surface, hand, clearance_m)
    quality = (worth * (0.3 + 0.7 * support))[clear]
    poses, width = poses[clear], width[clear]
    order = np.argsort(-quality, kind="stable")
    chosen = _unlike(poses[order], model.symmetries, most)
    if not len(chosen):
        raise _none(model, hand)
    best = order[chosen]
    return Grasps(poses[best], width[best], quality[best])


def _none(model: ObjectModel, hand: Gripper) -> DataError:
    return DataError(
        f"grasps of {model.name}", f"a place of {hand.least_m} to {hand.most_m} m between clear opposite faces",
        f"none on an object of {np.round(model.high_m - model.low_m, 3).tolist()} m",
        "Is it in metres, its normals outwards?",
    )  # fmt: skip


def _contacts(
    model: ObjectModel, hand: Gripper, friction: float, samples: int, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """First contacts [C, 3], directions to the second ones [C, 3], widths [C], and the smaller cosine there [C]."""
    import open3d  # heavy; needed here only

    core: Any = open3d.core
    scene: Any = open3d.t.geometry.RaycastingScene(1)  # one thread: the order of what it finds stays the same
    scene.add_triangles(core.Tensor(model.vertices_m.astype(np.float32)), core.Tensor(model.faces.astype(np.uint32)))
    cosine = 1.0 / math.hypot(1.0, friction)
    points = model.surface(samples, seed)
    rng = np.random.default_rng([seed, 1])
    # Straight in, and anywhere within the cone: a curved or slanted side has its partner off the normal.
    slant = rng.standard_normal((samples, 3))
    slant -= (slant * points.normal).sum(1, keepdims=True) * points.normal
    slant *= (
        friction * np.sqrt(rng.random((samples, 1))) / np.maximum(np.linalg.norm(slant, axis=1, keepdims=True), 1e-9)
    )
    inwards = np.concatenate([-points.normal, -points.normal + slant])
    inwards /= np.linalg.norm(inwards, axis=1, keepdims=True)
    start, normal = np.tile(points.xyz_m, (2, 1)), np.tile(points.normal, (2, 1))
    step = 1e-4 * model.diameter_m
    outside = _crossings(scene, core, model, points.xyz_m + step * points.normal, points.normal)[0] == 0
    _, length, face = _crossings(scene, core, model, start + step * inwards, inwards)
    width = length + step
    there = -(inwards * normal).sum(1)
    beyond = (inwards * model.face_normals[face]).sum(1)
    fits = np.tile(outside, 2) & (width >= hand.least_m) & (width <= hand.most_m)
    fits &= (there >= cosine - 1e-9) & (beyond >= cosine - 1e-9)
    return start[fits], inwards[fits], width[fits], np.minimum(there, beyond)[fits]


def _crossings(
    scene: Any, core: Any, model: ObjectModel, start: FloatArray, direction: FloatArray
) -> tuple[NDArray[np.int64], FloatArray, NDArray[np.int64]]:
    """For rays [N]: how many more surfaces they leave than enter, and where they have left all that they started in.

    Parts may reach into each other: a surface inside another part is no surface, so the first crossing that counts is
    the one at which one more has been left than entered; its length is infinite where there is none.
    """
    six = np.concatenate([start, direction], 1).astype(np.float32)
    found = scene.list_intersections(core.Tensor(six))
    ray, length = found["ray_ids"].numpy().astype(np.int64), found["t_hit"].numpy().astype(np.float64)
    face = found["primitive_ids"].numpy().astype(np.int64)
    order = np.lexsort((length, ray))
    ray, length, face = ray[order], length[order], face[order]
    sign = np.where((direction[ray] * model.face_normals[face]).sum(1) > 0, 1, -1)
    total = np.bincount(ray, sign, len(start)).astype(np.int64)
    running = np.cumsum(sign)
    begin = np.searchsorted(ray, np.arange(len(start)))
    before = np.concatenate([[0], running])[begin]
    left = np.flatnonzero(running - before[ray] >= 1)
    which, place = np.unique(ray[left], return_index=True)
    out, last = np.full(len(start), np.inf), np.zeros(len(start), np.int64)
    out[which], last[which] = length[left[place]], face[left[place]]
    return total, out, last


def _frames(centre: FloatArray, axis: FloatArray, approaches: int) -> FloatArray:
    """``object_from_tool`` [C * K * approaches, 4, 4]: y along the axis, z around it; at and behind the contacts."""
    helper = np.eye(3)[np.argmin(np.abs(axis), axis=1)]
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(axis, first)
    angle = 2 * math.pi * np.arange(approaches) / approaches
    z = first[:, None] * np.cos(angle)[:, None] + second[:, None] * np.sin(angle)[:, None]
    y = np.broadcast_to(axis[:, None], z.shape)
    back = np.asarray(_BACK_M)
    out = np.zeros((len(z), len(back), approaches, 4, 4))
    turn = np.stack([np.cross(y, z), y, z], -1)
    out[..., :3, :3] = turn[:, None]
    out[..., :3, 3] = centre[:, None, None] - back[:, None, None] * z[:, None]
    out[..., 3, 3] = 1.0
    return out.reshape(-1, 4, 4)


def _clear(
    poses: FloatArray, width_m: FloatArray, surface_m: FloatArray, hand: Gripper, clearance_m: float
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Which grasps [G] touch the object at the contacts only; how broad these are, 0 to 1."""
    clear, support = np.empty(len(poses), bool), np.empty(len(poses))
    low, high = hand.boxes(width_m / 2)
    for begin in range(0, len(poses), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        turn = poses[part, :3, :3]
        local = surface_m @ turn - np.einsum("gj,gjk->gk", poses[part, :3, 3], turn)[:, None]
        grown_low, grown_high = low[part] - clearance_m, high[part] + clearance_m
        grown_high[:, 0, 1] -= 2 * clearance_m  # towards the contacts the fingers may come
        grown_low[:, 1, 1] += 2 * clearance_m
        inside = np.zeros(local.shape[:2], bool)
        for box in range(3):
            inside |= ((local > grown_low[:, None, box]) & (local < grown_high[:, None, box])).all(-1)
        clear[part] = ~inside.any(1)
        beside = (np.abs(local[..., 0]) < hand.pad_half_m) & (np.abs(local[..., 2]) < hand.tip_m)
        off = np.abs(local[..., 1]) - width_m[part, None] / 2
        pads = [(beside & (np.abs(off) < 0.002) & (local[..., 1] * side > 0)).sum(1) for side in (-1, 1)]
        support[part] = np.minimum(*pads)
    return clear, np.clip(support / max(float(np.percentile(support, 95)), 1.0), 0.0, 1.0)


def _distinct(centre: FloatArray, axis: FloatArray, worth: FloatArray, symmetries: Symmetries) -> NDArray[np.int64]:
    """Numbers of pairs of contacts that differ by more than a symmetry, the best of those that are alike."""
    own = symmetries.transforms(_TURN_STEP)
    rest = np.argsort(-worth, kind="stable")
    kept: list[int] = []
    while len(rest) and len(kept) < _PAIRS:
        best = int(rest[0])
        kept.append(best)
        places, lines = own[:, :3, :3] @ centre[best] + own[:, :3, 3], own[:, :3, :3] @ axis[best]
        near = np.linalg.norm(centre[rest, None] - places, axis=-1) < _PAIR_M
        alike = np.abs(axis[rest] @ lines.T) > math.cos(_PAIR_RAD)
        rest = rest[~(near & alike).any(1)]
    return np.asarray(kept, np.int64)


def _unlike(poses: FloatArray, symmetries: Symmetries, most: int) -> NDArray[np.int64]:
    """Numbers of grasps, in their order, that are like none before by any symmetry."""
    rest = np.arange(len(poses))
    kept: list[int] = []
    while len(rest) and len(kept) < most:
        best = int(rest[0])
        kept.append(best)
        same = symmetric(poses[best : best + 1], symmetries)[0]
        apart = np.linalg.norm(poses[rest, None, :3, 3] - same[None, :, :3, 3], axis=-1)
        trace = np.einsum("gij,sij->gs", poses[rest, :3, :3], same[:, :3, :3])
        alike = (apart < _SAME_M) & ((trace - 1) / 2 > math.cos(_SAME_RAD))
        rest = rest[~alike.any(1)]
    return np.asarray(kept, np.int64)
