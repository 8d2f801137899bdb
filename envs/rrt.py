"""Paths through joint space: RRT-Connect and shortcuts.

Kuffner and LaValle, RRT-Connect: an efficient approach to single-query path planning, ICRA 2000; Geraerts and Overmars,
Creating high-quality paths for motion planning, IJRR 2007 (shortcuts).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from sensors.geometry import FloatArray

STEP_RAD = 0.3  # length of one extension
UNIFORM = 0.2  # share of the samples that comes from all of the joint space
SPREAD_RAD = 0.8  # the others come from the box around the roots, this much larger
SHORTCUTS = 40

EdgeFree = Callable[[FloatArray, FloatArray], bool]


@final
class Tree:
    """Joint positions that can be reached from its roots.

    Args:
        roots: float [R, J]; the same index says later which root a path came from.
    """

    def __init__(self, roots: FloatArray) -> None:
        self._points = np.array(roots, dtype=float)
        self._parents = [-1] * len(roots)

    def nearest(self, point: FloatArray) -> int:
        """Index of the nearest node."""
        return int(np.square(self._points - point).sum(axis=1).argmin())

    def add(self, point: FloatArray, parent: int) -> int:
        """Add a node and return its index."""
        self._points = np.concatenate([self._points, point[None]])
        self._parents.append(parent)
        return len(self._parents) - 1

    def at(self, index: int) -> FloatArray:
        """A node's joint positions [J]."""
        point: FloatArray = self._points[index]
        return point

    def branch(self, index: int) -> list[int]:
        """Node indices from a root to ``index``."""
        found = [index]
        while self._parents[found[-1]] >= 0:
            found.append(self._parents[found[-1]])
        return found[::-1]


def connect(
    starts: FloatArray,
    goals: FloatArray,
    free: EdgeFree,
    low: FloatArray,
    high: FloatArray,
    rng: np.random.Generator,
    tries: int,
) -> tuple[list[FloatArray], int, int] | None:
    """A chain of joint positions from one of ``starts`` [S, J] to one of ``goals`` [G, J], and which of both.

    Args:
        starts: roots of the one tree.
        goals: roots of the other.
        free: whether the straight line between two joint positions may be driven, in this direction or back.
        low: lowest joint positions [J].
        high: highest.
        rng: where the samples come from.
        tries: how many samples are drawn before giving up.
    """
    trees, flipped = (Tree(starts), Tree(goals)), False
    roots = np.concatenate([starts, goals])
    inner_low = np.maximum(roots.min(axis=0) - SPREAD_RAD, low)
    inner_high = np.minimum(roots.max(axis=0) + SPREAD_RAD, high)
    for _ in range(tries):
        bounds = (low, high) if rng.random() < UNIFORM else (inner_low, inner_high)
        sample = rng.uniform(*bounds)
        here, there = (trees[1], trees[0]) if flipped else trees
        new = _extend(here, here.nearest(sample), sample, free)
        if new is not None:
            met = _reach(there, here.at(new), free)
            if met is not None:
                first, second = (met, new) if flipped else (new, met)
                out, back = trees[0].branch(first), trees[1].branch(second)
                chain = [trees[0].at(i) for i in out] + [trees[1].at(i) for i in reversed(back[:-1])]
                return chain, out[0], back[0]
        flipped = not flipped
    return None


def _extend(tree: Tree, index: int, target: FloatArray, free: EdgeFree) -> int | None:
    """One step from a node towards ``target``; the new node, or None if the way is blocked."""
    start = tree.at(index)
    way = target - start
    length = float(np.sqrt(way @ way))
    if length < 1e-9:
        return None
    end = target if length <= STEP_RAD else start + way * (STEP_RAD / length)
    return tree.add(end, index) if free(start, end) else None


def _reach(tree: Tree, target: FloatArray, free: EdgeFree) -> int | None:
    """Steps towards ``target`` until it is reached (its node) or the way is blocked (None)."""
    index: int | None = tree.nearest(target)
    while index is not None:
        if np.array_equal(tree.at(index), target):
            return index
        index = _extend(tree, index, target, free)
    return None


def shortened(chain: Sequence[FloatArray], free: EdgeFree, rng: np.random.Generator) -> list[FloatArray]:
    """The chain with detours cut off where the straight line between two of its points may be driven."""
    points = list(chain)
    for _ in range(SHORTCUTS):
        if len(points) < 3:
            break
        first, second = sorted(rng.integers(0, len(points), 2).tolist())
        if second - first >= 2 and free(points[first], points[second]):
            points = points[: first + 1] + points[second:]
    return points
