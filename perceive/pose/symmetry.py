"""Symmetries of an object: which motions of it nobody can see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from sensors.errors import SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix

BOP_STEP = 0.01  # how far a point may move between two steps of a continuous symmetry, as a share of the diameter


@final
@dataclass(frozen=True, eq=False)
class ContinuousSymmetry:
    """A body of revolution: it may be turned by any angle about an axis.

    Attributes:
        axis: float64 [3], in the object's frame, of unit length.
        offset_m: float64 [3], a point on the axis.
    """

    axis: FloatArray
    offset_m: FloatArray

    @staticmethod
    def make(axis: ArrayLike, offset_m: ArrayLike = (0.0, 0.0, 0.0)) -> ContinuousSymmetry:
        """A symmetry about an axis of any length.

        Raises:
            SpecError: the axis has no direction, or something is not three finite numbers.
        """
        direction, offset = np.asarray(axis, np.float64), np.asarray(offset_m, np.float64)
        fine = direction.shape == offset.shape == (3,) and bool(
            np.isfinite(direction).all() and np.isfinite(offset).all()
        )
        length = float(np.linalg.norm(direction)) if fine else 0.0
        if length < 1e-12:
            raise SpecError(
                "ContinuousSymmetry",
                "an axis and an offset of 3 finite numbers",
                f"{axis!r}, {offset_m!r}",
                "Correct the model's description.",
            )
        return ContinuousSymmetry(direction / length, offset)

    def at(self, angle_rad: float) -> FloatArray:
        """The symmetry transform [4, 4] that turns by an angle: ``t = o - R o``, so the axis stays where it is."""
        out = np.eye(4)
        out[:3, :3] = axis_angle_to_matrix(self.axis * angle_rad)
        out[:3, 3] = self.offset_m - out[:3, :3] @ self.offset_m
        return out


@final
@dataclass(frozen=True, eq=False)
class Symmetries:
    """All symmetries of one object (Hodan et al., BOP).

    Attributes:
        discrete: float64 [S, 4, 4], object-from-object transforms in metres, without the identity.
        continuous: axes of revolution.
    """

    discrete: FloatArray
    continuous: tuple[ContinuousSymmetry, ...] = ()

    @staticmethod
    def none() -> Symmetries:
        """An object that looks different from everywhere."""
        return Symmetries(np.zeros((0, 4, 4)))

    @staticmethod
    def make(discrete: Sequence[ArrayLike] = (), continuous: Sequence[ContinuousSymmetry] = ()) -> Symmetries:
        """Checked symmetries.

        Raises:
            SpecError: a transform is not rigid.
        """
        stack = np.asarray([np.asarray(one, np.float64) for one in discrete], np.float64).reshape(len(discrete), 4, 4)
        turn = stack[:, :3, :3]
        rigid = np.allclose(turn @ turn.transpose(0, 2, 1), np.eye(3), atol=1e-4) and (np.linalg.det(turn) > 0).all()
        if not (np.isfinite(stack).all() and rigid and np.allclose(stack[:, 3], (0, 0, 0, 1))):
            raise SpecError(
                "Symmetries.discrete", "rigid transforms [S, 4, 4]", "others", "Correct the model's description."
            )
        return Symmetries(stack, tuple(continuous))

    def __bool__(self) -> bool:
        """Whether there is any besides the identity."""
        return bool(len(self.discrete) or self.continuous)

    def transforms(self, step: float = BOP_STEP) -> FloatArray:
        """All of them with the identity first, [S, 4, 4]; axes of revolution in steps.

        As the BOP toolkit makes them: an axis is cut into ``ceil(pi / step)`` angles with 0 among them (315 for 0.01),
        and every discrete symmetry (with the identity) is combined with every such turn.

        Args:
            step: how far the farthest point moves at most between two angles, as a share of the object's diameter.
        """
        discrete = np.concatenate([np.eye(4)[None], self.discrete])
        if not self.continuous:
            return discrete
        count = math.ceil(math.pi / step)
        turns = np.stack([one.at(2.0 * math.pi * k / count) for one in self.continuous for k in range(count)])
        return np.concatenate([turns @ one for one in discrete])


def symmetry_nearest(camera_from_object: FloatArray, reference: FloatArray, transforms: FloatArray) -> FloatArray:
    """The pose [4, 4] among ``camera_from_object @ transforms`` whose rotation is nearest to that of ``reference``."""
    candidates = camera_from_object @ transforms
    agreement = np.einsum("sij,ij->s", candidates[:, :3, :3], reference[:3, :3])  # the trace of R^T R_ref
    return np.asarray(candidates[int(np.argmax(agreement))])
