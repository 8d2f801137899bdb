"""ShapeSource: endless labelled point clouds of generated shapes, for learning without downloads.

A cloud is a pure function of seed and number: neither its batch mates nor what was drawn before changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceive.points.shape_classes import CLASSES, lots
from perceive.points.shape_surfaces import ROW, Floats, Surfaces, draw
from sensors.errors import SpecError, nearest
from sensors.geometry import quaternion_to_matrix

Rotation = Literal["none", "z", "so3"]
ROTATIONS: tuple[Rotation, ...] = ("none", "z", "so3")
OUTLIER = -1  # the part of points that belong to no surface
_CANDIDATES = 4  # times as many points are drawn of a shape that is seen from one side only
_ACROSS = 20  # cells of the picture that says what hides what: coarse enough that each holds a few points
_BEHIND = 1.5  # cells; what lies deeper behind the nearest point of its cell is hidden
_LOWEST_VIEW, _HIGHEST_VIEW = 0.1, 0.8  # sine of a viewer's elevation, for shapes that stand upright


@dataclass(frozen=True, eq=False)
class ShapeBatch:
    """B clouds of P points each; every point is there.

    Attributes:
        xyz_m: float32 [B, P, 3], centred.
        normal: float32 [B, P, 3], outward unit normals; of an outlier any direction.
        label: int64 [B], the shape's class.
        part: int64 [B, P], the part's number among the parts of *all* classes; -1 = an outlier.
    """

    xyz_m: Tensor
    normal: Tensor
    label: Tensor
    part: Tensor

    def to(self, device: torch.device | str) -> ShapeBatch:
        """The same batch on another device."""
        return ShapeBatch(*(value.to(device) for value in (self.xyz_m, self.normal, self.label, self.part)))


@final
class ShapeSource:
    """Point clouds of shapes, uniform over their surface.

    Cloud number i is of class ``i % len(classes)``, so consecutive numbers make a balanced batch. Held-out clouds are
    those of another seed.

    Args:
        seed: of everything; each cloud has a generator of its own.
        points: P.
        classes: names out of :data:`perceive.points.shape_classes.CLASSES`; None = all fifteen. Labels count along it.
        rotation: "none" (z up, always facing alike), "z" (turned about z) or "so3" (turned uniformly).
        radius_m: the farthest point lies so far from the middle of the bounding box, before noise; None = as large as
            the real thing.
        noise_m: standard deviation of each coordinate.
        outlier_share: share of points, 0 to 1, that are thrown anywhere in the bounding cube.
        one_sided: keep what a viewer in a random direction sees; of shapes that show few points, some come twice. What
            hides what is found in a picture of 20 cells across, so what lies less than a cell behind an edge, and about
            one hidden point in a hundred, shines through.

    Attributes:
        class_names: of the labels.
        part_names: "class/part" of the part numbers.

    Raises:
        SpecError: an argument is out of its range, or there is no such class.
    """

    def __init__(
        self,
        seed: int,
        points: int = 1024,
        classes: Sequence[str] | None = None,
        rotation: Rotation = "none",
        radius_m: float | None = 1.0,
        noise_m: float = 0.0,
        outlier_share: float = 0.0,
        one_sided: bool = False,
    ) -> None:
        known = {kind.name: kind for kind in CLASSES}
        names = list(known) if classes is None else list(classes)
        for name in names:
            if name not in known:
                raise SpecError("ShapeSource.classes", "a known class", repr(name), nearest(name, known))
        rules = {
            "seed": (seed >= 0, seed, "a number >= 0"),
            "points": (points >= 1, points, "at least 1"),
            "classes": (bool(names) and len(set(names)) == len(names), names, "one or more different names"),
            "rotation": (rotation in ROTATIONS, rotation, f"one of {list(ROTATIONS)}"),
            "radius_m": (radius_m is None or 0 < radius_m < np.inf, radius_m, "a finite number > 0, or None"),
            "noise_m": (0 <= noise_m < np.inf, noise_m, "a finite number >= 0"),
            "outlier_share": (0 <= outlier_share <= 1, outlier_share, "a share from 0 to 1"),
        }
        for argument, (good, got, expected) in rules.items():
            if not good:
                raise SpecError(f"ShapeSource.{argument}", expected, repr(got), "Correct it.")
        self.class_names = tuple(names)
        self.part_names = tuple(f"{name}/{part}" for name in names for part in known[name].parts)
        self._classes = [known[name] for name in names]
        counts = [len(kind.parts) for kind in self._classes]
        self._first_part = np.cumsum([0, *counts]).tolist()
        self._seed = seed
        self._points = points
        self._rotation = rotation
        self._radius_m = radius_m
        self._noise_m = noise_m
        self._outlier_share = outlier_share
        self._one_sided = one_sided

    def parts_of(self, label: int) -> tuple[int, ...]:
        """The numbers of the parts that a class has."""
        return tuple(range(self._first_part[label], self._first_part[label + 1]))

    def batch(self, numbers: Sequence[int] | NDArray[np.int64] | range) -> ShapeBatch:
        """The clouds of these numbers, in this order.

        Args:
            numbers: B numbers >= 0.

        Raises:
            SpecError: none, or a negative one.
        """
        wanted = [int(number) for number in numbers]
        if not wanted or min(wanted) < 0:
            raise SpecError("ShapeSource.batch", "one or more numbers >= 0", repr(wanted[:5]), "Correct them.")
        per = self._points * (_CANDIDATES if self._one_sided else 1)
        rngs = [np.random.default_rng([self._seed, number]) for number in wanted]
        labels = [number % len(self._classes) for number in wanted]
        rows, chosen = self._surfaces(rngs, labels, per)
        chance = np.concatenate([rng.random((per, 3)) for rng in rngs])
        flat_points, flat_normals = draw(rows, chosen, chance)
        shape = (len(wanted), per)
        points, normals = flat_points.reshape(*shape, 3), flat_normals.reshape(*shape, 3)
        part = rows[chosen, 2].astype(np.int64).reshape(shape)
        turn = self._turns(rngs)
        if turn is not None:
            points, normals = points @ turn.swapaxes(1, 2), normals @ turn.swapaxes(1, 2)
        if self._one_sided:
            seen = first_seen(points, normals, self._views(rngs), self._points)
            points, normals = (np.take_along_axis(value, seen[..., None], axis=1) for value in (points, normals))
            part = np.take_along_axis(part, seen, axis=1)
        points = self._scaled(points)
        points, normals, part = self._spoiled(rngs, points, normals, part)
        return ShapeBatch(
            torch.from_numpy(points.astype(np.float32)),
            torch.from_numpy(normals.astype(np.float32)),
            torch.tensor(labels),
            torch.from_numpy(part),
        )

    def _surfaces(
        self, rngs: Sequence[np.random.Generator], labels: Sequence[int], per: int
    ) -> tuple[Floats, NDArray[np.intp]]:
        """The surfaces [S, 19] of all shapes, parts numbered over all classes, and which each point lies on."""
        tables, chosen, before = [], [], 0
        for rng, label in zip(rngs, labels, strict=True):
            surfaces = Surfaces()
            self._classes[label].build(surfaces, lots(rng))
            table = np.array(surfaces.rows).reshape(-1, ROW)
            table[:, 2] += self._first_part[label]
            ends = np.cumsum(table[:, 1])
            at = np.searchsorted(ends, rng.random(per) * ends[-1], side="right")
            chosen.append(np.minimum(at, len(table) - 1) + before)
            tables.append(table)
            before += len(table)
        return np.concatenate(tables), np.concatenate(chosen)

    def _turns(self, rngs: Sequence[np.random.Generator]) -> Floats | None:
        """Rotations [B, 3, 3]; None = none."""
        if self._rotation == "none":
            return None
        if self._rotation == "so3":  # normal quaternions have no preferred direction
            return np.asarray(quaternion_to_matrix([rng.standard_normal(4) for rng in rngs]))
        half = np.pi * np.array([rng.random() for rng in rngs])
        zero = np.zeros_like(half)
        return np.asarray(quaternion_to_matrix(np.stack([zero, zero, np.sin(half), np.cos(half)], axis=-1)))

    def _views(self, rngs: Sequence[np.random.Generator]) -> Floats:
        """Unit vectors [B, 3] towards the viewer: from anywhere if the shape lies anyhow, else from above."""
        low, high = (-1.0, 1.0) if self._rotation == "so3" else (_LOWEST_VIEW, _HIGHEST_VIEW)
        up, around = np.array([rng.random(2) for rng in rngs]).T
        up, around = low + (high - low) * up, 2 * np.pi * around
        flat = np.sqrt(1 - up * up)
        return np.stack([flat * np.cos(around), flat * np.sin(around), up], axis=-1)

    def _scaled(self, points: Floats) -> Floats:
        points = points - (points.min(axis=1, keepdims=True) + points.max(axis=1, keepdims=True)) / 2
        if self._radius_m is None:
            return points
        # A cloud of one point has no extent; it stays where it is.
        reach = np.sqrt(np.einsum("bni,bni->bn", points, points).max(axis=1))
        return points * (self._radius_m / np.where(reach > 0, reach, 1.0))[:, None, None]

    def _spoiled(
        self, rngs: Sequence[np.random.Generator], points: Floats, normals: Floats, part: NDArray[np.int64]
    ) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """With noise and outliers."""
        shape = points.shape[1:]
        low, high = points.min(axis=(1, 2), keepdims=True), points.max(axis=(1, 2), keepdims=True)
        if self._noise_m > 0:
            points = points + self._noise_m * np.stack([rng.standard_normal(shape) for rng in rngs])
        if self._outlier_share > 0:
            wild = np.stack([rng.random(shape[0]) for rng in rngs]) < self._outlier_share
            anywhere = low + (high - low) * np.stack([rng.random(shape) for rng in rngs])
            pointing = np.stack([rng.standard_normal(shape) for rng in rngs])
            pointing /= np.linalg.norm(pointing, axis=-1, keepdims=True)
            points = np.where(wild[..., None], anywhere, points)
            normals = np.where(wild[..., None], pointing, normals)
            part = np.where(wild, OUTLIER, part)
        return points, normals, part


def first_seen(points: Floats, normals: Floats, view: Floats, count: int) -> NDArray[np.intp]:
    """The first ``count`` points of each cloud that a far viewer sees, over again where there are fewer.

    Args:
        points: float [B, N, 3].
        normals: float [B, N, 3], outward.
        view: float [B, 3], unit vectors towards the viewer.
        count: P.

    Returns:
        int [B, P], indices into the N points. If none faces the viewer, all count as seen.
    """
    size, total = points.shape[:2]
    least = np.eye(3)[np.argmin(np.abs(view), axis=1)]
    right = np.cross(view, least)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    axes = np.stack([right, np.cross(view, right), view], axis=-1)
    seen_at = points @ axes
    low, high = seen_at.min(axis=1, keepdims=True), seen_at.max(axis=1, keepdims=True)
    cell = np.maximum((high - low)[..., :2].max(axis=-1, keepdims=True) / _ACROSS, 1e-12)
    column = np.minimum((seen_at[..., :2] - low[..., :2]) / cell, _ACROSS - 1).astype(np.int64)
    key = (np.arange(size)[:, None] * _ACROSS + column[..., 0]) * _ACROSS + column[..., 1]
    facing = np.einsum("bni,bi->bn", normals, view) > 0
    nearest_at = np.full(size * _ACROSS * _ACROSS, -np.inf)
    np.maximum.at(nearest_at, key[facing], seen_at[..., 2][facing])
    seen = facing & (seen_at[..., 2] > nearest_at[key] - _BEHIND * cell[..., 0])
    seen |= ~seen.any(axis=1, keepdims=True)
    rank = np.cumsum(seen, axis=1)
    wanted = np.arange(count) % rank[:, -1:] + 1
    # Rows are searched at once, each in a range of numbers of its own.
    shift = np.arange(size)[:, None] * (total + 1)
    found = np.searchsorted((rank + shift).ravel(), (wanted + shift).ravel()).reshape(size, count)
    return np.asarray(found - np.arange(size)[:, None] * total)
