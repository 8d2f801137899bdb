"""Pairs of partial scans of one generated scene with their true transform, for learning and judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from perceive.points.neighbours import nearest
from perceive.points.registration.rigid import invert_rigid, rigid
from perceive.points.shape_surfaces import Floats
from perceive.points.shapes import ShapeSource, first_seen
from sensors.errors import SpecError
from sensors.geometry import quaternion_to_matrix

_SPREAD_M, _SMALLEST_M, _LARGEST_M = 0.3, 0.12, 0.25  # where shapes of a scene lie, and how large they are
_PER_SHAPE = 3000
_TRIES = 12  # views per pair, of which the first with a wanted overlap is taken
_VIEW_M = 3.0  # sensors stand this far from the middle


@dataclass(frozen=True, eq=False)
class ScanPairs:
    """B pairs of scans, each in the frame of its sensor's choice.

    Attributes:
        source_m: float32 [B, P, 3].
        target_m: float32 [B, P, 3].
        source_view_m: float32 [B, 3], where the sensor stood.
        target_view_m: float32 [B, 3].
        target_from_source: float64 [B, 4, 4].
        overlap: float [B], the share of the source's points that have a point of the target near them.
    """

    source_m: Tensor
    target_m: Tensor
    source_view_m: Tensor
    target_view_m: Tensor
    target_from_source: Tensor
    overlap: Tensor


@final
class ScanPairSource:
    """Heaps of shapes of all classes in random poses, each seen from two sides. A pair hangs on seed and number only.

    The two scans share no point: each is drawn from samples of its own. A heap has no symmetry, so the transform is
    the only one. What is hidden is found in a picture of 20 cells across (see
    :class:`~perceive.points.shapes.ShapeSource`).

    Args:
        seed: of everything; held-out pairs are those of another seed.
        points: P.
        shapes: of a heap, which measures about a metre.
        noise_m: standard deviation of each coordinate.
        least_overlap: wanted; the nearest that was found is taken where no view has it.
        most_overlap: wanted.
        near_m: points that near count as the same place.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        seed: int,
        points: int = 2048,
        shapes: int = 6,
        noise_m: float = 0.003,
        least_overlap: float = 0.3,
        most_overlap: float = 0.8,
        near_m: float = 0.04,
    ) -> None:
        good = seed >= 0 and points >= 3 and shapes >= 1 and 0 <= noise_m < np.inf and 0 < near_m < np.inf
        if not good or not 0 <= least_overlap <= most_overlap <= 1:
            got = f"{seed}, {points}, {shapes}, {noise_m}, {least_overlap}, {most_overlap}, {near_m}"
            raise SpecError("ScanPairSource", "seed >= 0, points >= 3, shapes >= 1, shares in order", got, "Correct.")
        self._shapes = ShapeSource(seed, points=2 * _PER_SHAPE, rotation="so3")
        self._seed, self._points, self._count, self._noise_m = seed, points, shapes, noise_m
        self._wanted = (least_overlap, most_overlap)
        self._near_m = near_m

    def batch(self, numbers: Sequence[int] | range) -> ScanPairs:
        """The pairs of these numbers.

        Raises:
            SpecError: none, or a negative one.
        """
        if not len(numbers) or min(numbers) < 0:
            raise SpecError("ScanPairSource.batch", "one or more numbers >= 0", repr(list(numbers)[:5]), "Correct.")
        parts = [self._pair(int(number)) for number in numbers]
        return ScanPairs(*(torch.stack(values) for values in zip(*parts, strict=True)))

    def _pair(self, number: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng([self._seed, number, 1])
        chosen = rng.integers(0, 1 << 31, self._count)
        drawn = self._shapes.batch(chosen)
        size = rng.uniform(_SMALLEST_M, _LARGEST_M, (self._count, 1, 1))
        middle = rng.uniform(-_SPREAD_M, _SPREAD_M, (self._count, 1, 3))
        xyz = (drawn.xyz_m.double().numpy() * size + middle).reshape(self._count, 2, _PER_SHAPE, 3)
        normal = drawn.normal.double().numpy().reshape(self._count, 2, _PER_SHAPE, 3)
        # Points per shape were alike: keep of each as many as its area is worth.
        kept = rng.random((self._count, 2, _PER_SHAPE)) < (size / _LARGEST_M) ** 2
        clouds = [(xyz[:, half][kept[:, half]], normal[:, half][kept[:, half]]) for half in (0, 1)]
        best, scans = np.inf, None
        for _ in range(_TRIES):
            views = _unit(rng.standard_normal((2, 3)))
            seen = [self._seen(*cloud, view) for cloud, view in zip(clouds, views, strict=True)]
            share = _overlap(seen[0], seen[1], self._near_m)
            off = max(self._wanted[0] - share, share - self._wanted[1], 0.0)
            if off < best:
                best, scans, result = off, (seen, views), share
            if not off:
                break
        assert scans is not None
        seen, views = scans
        turns = np.asarray(quaternion_to_matrix(rng.standard_normal((2, 4))))
        shifts = rng.uniform(-1, 1, (2, 3))
        out = []
        frames = [
            rigid(torch.from_numpy(turn), torch.from_numpy(shift)) for turn, shift in zip(turns, shifts, strict=True)
        ]
        for cloud, frame in zip(seen, frames, strict=True):
            noisy = cloud + self._noise_m * rng.standard_normal(cloud.shape)
            out.append((noisy @ frame[:3, :3].numpy().T + frame[:3, 3].numpy()).astype(np.float32))
        at = [
            _VIEW_M * view @ frame[:3, :3].numpy().T + frame[:3, 3].numpy()
            for view, frame in zip(views, frames, strict=True)
        ]
        tensors = [torch.from_numpy(np.asarray(value, dtype=np.float32)) for value in (*out, *at)]
        return (*tensors, frames[1] @ invert_rigid(frames[0]), torch.tensor(result))

    def _seen(self, xyz: Floats, normal: Floats, view: Floats) -> Floats:
        return np.asarray(xyz[first_seen(xyz[None], normal[None], view[None], self._points)[0]])


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _overlap(source: Floats, target: Floats, near_m: float) -> float:
    found = nearest(torch.from_numpy(source)[None], torch.from_numpy(target)[None], 1)
    return float((found.distance_m <= near_m).double().mean())
