"""What is done with the pixels of one object, and with many hypotheses of where it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perceive.pose.estimate import PoseEstimate
from perceive.pose.model import ObjectModel
from sensors.geometry import FloatArray, axis_angle_to_matrix

_SAME_RAD, _SAME_SHARE = 0.12, 0.03  # hypotheses nearer than this, the distance as a share of the diameter, are one

Index = NDArray[np.int64]


def of_one_body(row: Index, column: Index, depth_m: NDArray[np.float32], diameter_m: float) -> tuple[Index, Index]:
    """Without the pixels whose depth is more than a diameter from the others': edges of masks show what is behind."""
    value = depth_m[row, column]
    kept = np.abs(value - np.median(value)) <= diameter_m
    return row[kept], column[kept]


def thinned(
    row: Index, column: Index, depth_m: NDArray[np.float32], intrinsics_px: FloatArray, count: int, seed: int
) -> FloatArray:
    """At most ``count`` points [P, 3] in the camera frame, a draw from the pixels."""
    if len(row) > count:
        pick = np.random.default_rng(seed).choice(len(row), count, replace=False)
        row, column = row[pick], column[pick]
    fx, fy, cx, cy = (float(x) for x in intrinsics_px)
    z = depth_m[row, column].astype(np.float64)
    return np.stack([(column - cx) / fx * z, (row - cy) / fy * z, z], -1)


def different(camera_from_object: FloatArray, middle_m: FloatArray, diameter_m: float) -> Index:
    """Numbers of the poses [N, 4, 4] that are not nearly the same as an earlier one.

    Args:
        camera_from_object: best first.
        middle_m: of the object, whose place counts.
        diameter_m: of the object.
    """
    turn = camera_from_object[:, :3, :3].reshape(-1, 9)
    place = camera_from_object[:, :3, :3] @ middle_m + camera_from_object[:, :3, 3]
    near = (turn @ turn.T > 1 + 2 * np.cos(_SAME_RAD)) & (
        np.linalg.norm(place[:, None] - place[None], axis=-1) < _SAME_SHARE * diameter_m
    )
    kept: list[int] = []
    for number in range(len(near)):
        if not near[number, kept].any():
            kept.append(number)
    return np.asarray(kept, np.int64)


def apart(found: list[PoseEstimate], model: ObjectModel) -> list[PoseEstimate]:
    """Without those whose object is where a better one's is; best first."""
    middle = (model.low_m + model.high_m) / 2
    least = max(0.5 * float((model.high_m - model.low_m).min()), 0.1 * model.diameter_m)
    out: list[PoseEstimate] = []
    places: list[FloatArray] = []
    for one in found:
        place = one.camera_from_object[:3, :3] @ middle + one.camera_from_object[:3, 3]
        if all(np.linalg.norm(place - other) > least for other in places):
            out.append(one)
            places.append(place)
    return out


def rough_covariance(camera_from_object: FloatArray, diameter_m: float) -> FloatArray:
    """Covariance [6, 6] (object's frame) of a pose that no depth was seen of: 0.35 rad, and far along the sight.

    The distance comes from the size of what is seen, which is wrong by a fifth where a fifth is hidden.
    """
    out = np.zeros((6, 6))
    out[:3, :3] = np.eye(3) * 0.35**2
    place = camera_from_object[:3, 3]
    far = float(np.linalg.norm(place))
    sight = place / max(far, 1e-9)
    along = np.outer(sight, sight)
    spread = (0.2 * far) ** 2 * along + (0.15 * diameter_m) ** 2 * (np.eye(3) - along)
    turn = camera_from_object[:3, :3]
    out[3:, 3:] = turn.T @ spread @ turn
    return out


def searched(
    camera_from_object: FloatArray,
    middle_m: FloatArray,
    diameter_m: float,
    score_of: Callable[[FloatArray], FloatArray],
    rounds: int,
    kept: int,
    tried: int,
    seed: int,
) -> FloatArray:
    """The poses [N, 4, 4], the first ``kept`` of them after a random search around each: for pictures without depth.

    Each round tries some motions of every pose that is kept, half as large in each round, and keeps the best of its
    family. Turns are about the object's middle, so that they do not move it.

    Args:
        camera_from_object: [N, 4, 4], best first.
        middle_m: of the object in its own frame.
        diameter_m: of the object.
        score_of: what is to be made large, [N, 4, 4] -> [N].
        rounds: of the search.
        kept: families.
        tried: motions for each in a round.
        seed: of the motions.
    """
    rng = np.random.default_rng(seed)
    best = camera_from_object[:kept]
    for number in range(rounds):
        size = 0.5**number
        motion = rng.normal(size=(len(best), tried, 6))
        family = np.broadcast_to(best[:, None], (len(best), tried, 4, 4)).copy()
        centre = family[..., :3, :3] @ middle_m + family[..., :3, 3]
        turn = axis_angle_to_matrix(0.2 * size * motion[..., :3].reshape(-1, 3)).reshape(len(best), tried, 3, 3)
        family[..., :3, :3] = turn @ family[..., :3, :3]
        # Nearer or farther along the line of sight, and a little to the side of it.
        centre = centre * (1 + 0.06 * size * motion[..., 3:4])
        centre[..., :2] += 0.05 * size * diameter_m * motion[..., 4:]
        family[..., :3, 3] = centre - (family[..., :3, :3] @ middle_m)
        families = np.concatenate([best[:, None], family], 1)
        score = score_of(families.reshape(-1, 4, 4)).reshape(len(best), -1)
        best = families[np.arange(len(best)), score.argmax(1)]
    return np.concatenate([best, camera_from_object[kept:]])
