"""The errors of many pairs of poses of one object: equal to the definitions, in a fraction of the time.

- The distance of a vertex between two poses is an affine function of the vertex, so the greatest is that of a corner
  of the convex hull; most vertices need not be looked at for MSSD. (This does not hold for projections.)
- The least over the symmetries of the greatest over the vertices is found from lower bounds: the greatest over a few
  vertices bounds each symmetry from below. The most promising symmetry is evaluated in full, its worst vertex joins
  the few, and so on until no bound is below the best value. A cylinder of 630 symmetries needs a handful in full.
- The tree for nearest vertices is built once in the object's frame, and the other cloud is moved into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError, cKDTree

from perceive.metrics.pose_errors import checked_points
from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import BOP_STEP
from sensors.errors import SpecError
from sensors.geometry import FloatArray, invert, transform_points

_ALL_AT_ONCE = 1 << 14  # symmetries x vertices below which bounds do not pay
_CHUNK = 1 << 20  # vertices of all pairs worked on at a time
_DIRECTIONS = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)], np.float64)
_QUERIES = 500_000  # points that are asked about at once


@final
class PoseErrors:
    """Errors of poses of one object.

    Example:
        >>> import numpy as np
        >>> from perceive.pose.model import ObjectModel
        >>> corners = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])
        >>> model = ObjectModel.make(1, "corner", corners, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
        >>> truth = np.eye(4)[None]
        >>> estimate = truth.copy()
        >>> estimate[0, :3, 3] = (0.003, 0.0, 0.004)
        >>> PoseErrors(model).mssd(estimate, truth).round(6)
        array([0.005])

    Args:
        model: the object; its symmetries count for MSSD and MSPD.
        step: of axes of revolution, see :meth:`perceive.pose.symmetry.Symmetries.transforms`.

    Attributes:
        model: as given.
        corners_m: [C, 3], corners of its convex hull.
    """

    def __init__(self, model: ObjectModel, step: float = BOP_STEP) -> None:
        self.model = model
        vertices = checked_points(model.vertices_m)
        self._symmetries = model.symmetries.transforms(step)
        self._vertices = vertices
        different = np.unique(vertices, axis=0)
        self._places = _homogeneous(different)
        self.corners_m = hull_corners(different)
        self._corners = _homogeneous(self.corners_m)
        self._first_corners = _extremes(self._corners)
        self._first_places = _extremes(self._places)
        self._tree = cKDTree(vertices, leafsize=32, balanced_tree=False)  # quicker to ask than the usual tree

    def far(self, estimate: ArrayLike, truth: ArrayLike) -> NDArray[np.bool_]:
        """Pairs [N] whose origins are a diameter or more apart: BOP sets their MSSD, ADD and ADI to infinity."""
        found, true = self._pairs(estimate, truth)
        return np.asarray(np.linalg.norm(found[:, :3, 3] - true[:, :3, 3], axis=1) >= self.model.diameter_m)

    def mssd(self, estimate: ArrayLike, truth: ArrayLike) -> FloatArray:
        """Metres [N], as :func:`perceive.metrics.pose_errors.mssd`, of pairs of poses [N, 4, 4].

        Raises:
            SpecError: not two stacks [N, 4, 4] of finite numbers.
        """
        found, true = self._pairs(estimate, truth)
        count, corners = len(self._symmetries), self._corners
        out = np.empty(len(found))
        if count * corners.shape[1] <= _ALL_AT_ONCE:
            size = max(1, _CHUNK // (count * corners.shape[1]))
            for start in range(0, len(found), size):
                part = slice(start, start + size)
                apart = (found[part, None] - true[part, None] @ self._symmetries)[..., :3, :]
                out[part] = _squares(apart @ corners).max(-1).min(-1)
            return np.sqrt(out)
        for number in range(len(found)):
            apart = (found[number] - true[number] @ self._symmetries)[:, :3, :]

            def some(chosen: FloatArray, apart: FloatArray = apart) -> FloatArray:
                return _squares(apart @ chosen)

            def whole(symmetry: int, apart: FloatArray = apart) -> FloatArray:
                return _squares(apart[symmetry] @ corners)

            out[number] = _least_of_greatest(corners, self._first_corners, some, whole)
        return np.sqrt(out)

    def mspd(self, estimate: ArrayLike, truth: ArrayLike, intrinsics_px: ArrayLike) -> FloatArray:
        """Pixels [N], as :func:`perceive.metrics.pose_errors.mspd`.

        Args:
            estimate: [N, 4, 4].
            truth: [N, 4, 4].
            intrinsics_px: fx fy cx cy, one [4] or one per pair [N, 4].

        Raises:
            SpecError: shapes that do not fit, or numbers that are not finite.
        """
        found, true = self._pairs(estimate, truth)
        focal = _focal(intrinsics_px, len(found))
        count, places = len(self._symmetries), self._places
        out = np.empty(len(found))
        if count * places.shape[1] <= _ALL_AT_ONCE:
            size = max(1, _CHUNK // (count * places.shape[1]))
            for start in range(0, len(found), size):
                part = slice(start, start + size)
                seen = _project(found[part, None, :3] @ places, focal[part, None])
                turned = _project((true[part, None] @ self._symmetries)[..., :3, :] @ places, focal[part, None])
                out[part] = _greatest(_squares(seen - turned)).min(-1)
            return np.sqrt(out)
        for number in range(len(found)):
            turned = (true[number] @ self._symmetries)[:, :3, :]
            there, lens = found[number, :3], focal[number]
            seen = _project(there @ places, lens)

            def some(
                chosen: FloatArray, turned: FloatArray = turned, there: FloatArray = there, lens: FloatArray = lens
            ) -> FloatArray:
                return _squares(_project(there @ chosen, lens) - _project(turned @ chosen, lens))

            def whole(
                symmetry: int, turned: FloatArray = turned, seen: FloatArray = seen, lens: FloatArray = lens
            ) -> FloatArray:
                return _squares(seen - _project(turned[symmetry] @ places, lens))

            out[number] = _least_of_greatest(places, self._first_places, some, whole)
        return np.sqrt(out)

    def add(self, estimate: ArrayLike, truth: ArrayLike) -> FloatArray:
        """Metres [N], as :func:`perceive.metrics.pose_errors.add`."""
        found, true = self._pairs(estimate, truth)
        vertices = _homogeneous(self._vertices)
        return np.array([np.sqrt(_squares(one @ vertices)).mean() for one in (found - true)[:, :3]])

    def adi(self, estimate: ArrayLike, truth: ArrayLike) -> FloatArray:
        """Metres [N], as :func:`perceive.metrics.pose_errors.adi`."""
        found, true = self._pairs(estimate, truth)
        out = np.empty(len(found))
        turn = found[:, :3, :3]
        rigid = np.isclose(turn @ turn.transpose(0, 2, 1), np.eye(3), rtol=0.0, atol=1e-9).all((1, 2))
        whole, block = np.flatnonzero(rigid), max(1, _QUERIES // len(self._vertices))
        for start in range(0, len(whole), block):  # one query for many pairs, on all cores
            some = whole[start : start + block]
            local = [transform_points(invert(found[k]) @ true[k], self._vertices) for k in some]
            nearest, _ = self._tree.query(np.concatenate(local), workers=-1)
            out[some] = nearest.reshape(len(some), -1).mean(1)
        for k in np.flatnonzero(~rigid):  # rounded in a file: distances are not the same in both frames
            tree = cKDTree(transform_points(found[k], self._vertices))
            out[k] = tree.query(transform_points(true[k], self._vertices))[0].mean()
        return out

    def add_or_adi(self, estimate: ArrayLike, truth: ArrayLike) -> FloatArray:
        """Metres [N]: ADI for an object with symmetries, ADD for one without: "ADD(-S)"."""
        return self.adi(estimate, truth) if self.model.symmetries else self.add(estimate, truth)

    def _pairs(self, estimate: ArrayLike, truth: ArrayLike) -> tuple[FloatArray, FloatArray]:
        found, true = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
        fine = found.ndim == 3 and found.shape[1:] == (4, 4) and found.shape == true.shape
        if not fine or not (np.isfinite(found).all() and np.isfinite(true).all()):
            raise SpecError(
                f"errors of '{self.model.name}'",
                "estimate and truth [N, 4, 4] of finite numbers",
                f"{found.shape} and {true.shape}",
                "Stack one pair of poses per row.",
            )
        return found, true


def hull_corners(points: FloatArray) -> FloatArray:
    """The points [C, 3] of a set [P, 3] at which every convex function is greatest; all of a flat or thin set."""
    if len(points) > 16:
        try:
            return np.asarray(points[ConvexHull(points).vertices])
        except QhullError:  # flat or thin: it has no volume and so no hull
            pass
    return points


def _least_of_greatest(
    places: FloatArray,
    first: FloatArray,
    some: Callable[[FloatArray], FloatArray],
    whole: Callable[[int], FloatArray],
) -> float:
    """The least over symmetries of the greatest over vertices.

    Args:
        places: [4, V], all vertices.
        first: [4, K], those to begin with.
        some: vertices [4, K] -> values [S, K] of all symmetries.
        whole: a symmetry -> values [V] of all vertices.
    """
    bound = _greatest(some(first))
    best = float("inf")
    while True:
        here = int(np.argmin(bound))
        if bound[here] >= best:
            return best
        values = whole(here)
        worst = int(np.argmax(values))  # the first NaN, if there is one
        best = min(best, float(_greatest(values)))
        bound = np.maximum(bound, _greatest(some(places[:, worst : worst + 1])))
        bound[here] = np.inf


def _homogeneous(points: FloatArray) -> FloatArray:
    """[V, 3] -> [4, V]."""
    return np.concatenate([points, np.ones((len(points), 1))], 1).T.copy()


def _extremes(places: FloatArray) -> FloatArray:
    """The vertices [4, K] farthest along 26 directions."""
    return places[:, np.unique((_DIRECTIONS @ places[:3]).argmax(1))]


def _squares(difference: FloatArray) -> FloatArray:
    """Squared lengths [..., V] of [..., C, V]."""
    return np.asarray(np.einsum("...cv,...cv->...v", difference, difference))


def _greatest(squares: FloatArray) -> FloatArray:
    """The maximum over the last axis, infinite where something has no projection."""
    greatest = squares.max(-1)
    return np.where(np.isnan(greatest), np.inf, greatest)


def _project(points: FloatArray, focal: FloatArray) -> FloatArray:
    """[..., 3, V] -> pixels [..., 2, V] from the principal point."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(points[..., :2, :] * (focal[..., :, None] / points[..., 2:, :]))


def _focal(intrinsics_px: ArrayLike, count: int) -> FloatArray:
    """Focal lengths [N, 2]: the principal point cancels in differences."""
    given = np.asarray(intrinsics_px, np.float64)
    if given.shape not in ((4,), (count, 4)) or not np.isfinite(given).all() or (given[..., :2] <= 0.0).any():
        raise SpecError(
            "intrinsics_px",
            f"fx fy cx cy, [4] or [{count}, 4], with positive focal lengths",
            f"{given.shape}",
            "From a matrix K pass (K[0, 0], K[1, 1], K[0, 2], K[1, 2]).",
        )
    return np.broadcast_to(given[..., :2], (count, 2))
