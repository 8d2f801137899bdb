"""Proposals for one object: unions of patches that have its colours and its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from perceive.pose.proposals_segments import Segments, chroma
from sensors.geometry import FloatArray

_SURFACE_POINTS = 2000
_BIN = 0.03  # of the chroma
_LEAST_SHARE = 0.015  # of the surface that has a colour of the object
_SPREAD = 0.07  # of the chroma under tinted light, and of what is printed finer than a pixel
_EXTENT_POINTS = 64  # of a patch, from which lengths are measured
_LONGER = 1.08  # than the diameter: noise, and border pixels
_OWN = 0.3  # share of the best likeness, below which a patch is not taken into a union


@final
class Palette:
    """The colours of an object, by hue and saturation.

    Args:
        model: the object.
    """

    def __init__(self, model: ObjectModel) -> None:
        tone = chroma(model.surface(_SURFACE_POINTS).rgb)
        cell, count = np.unique(np.rint(tone / _BIN).astype(np.int64), axis=0, return_counts=True)
        often = count >= _LEAST_SHARE * len(tone)
        self._tone = (cell[often if often.any() else count == count.max()] * _BIN).astype(np.float32)

    def likeness(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of each colour [..., 3] to the nearest of the object's, in 0 to 1."""
        apart = np.square(chroma(rgb)[..., None, :] - self._tone).sum(-1).min(-1)
        like: NDArray[np.float32] = np.exp(-0.5 * apart / np.float32(_SPREAD**2))
        return like


@final
@dataclass(frozen=True, eq=False)
class ObjectProposal:
    """Where an object may be.

    Attributes:
        mask: bool [H, W].
        score: how well colours and size fit, in 0 to 1.
    """

    mask: NDArray[np.bool_]
    score: float


@final
class ScenePatches:
    """The patches of one picture with their points, colours and sizes; made once for all objects.

    Args:
        rgb: [H, W, 3].
        depth_m: [H, W].
        patches: of the picture.
        intrinsics_px: fx fy cx cy.
    """

    def __init__(
        self, rgb: NDArray[np.uint8], depth_m: NDArray[np.float32], patches: Segments, intrinsics_px: FloatArray
    ) -> None:
        self.patches = patches
        fx, fy, cx, cy = (float(x) for x in intrinsics_px)
        row, column = np.nonzero(patches.label >= 0)
        self._label = patches.label[row, column].astype(np.int64)
        self._rgb = rgb[row, column]
        z = np.nan_to_num(depth_m[row, column].astype(np.float64), posinf=0.0, neginf=0.0)
        self.pixels = np.bincount(self._label, minlength=patches.count)
        self.area_m2 = np.bincount(self._label, np.maximum(z, 0) ** 2 / (fx * fy), minlength=patches.count)
        # A few points of each patch, for lengths: the same number of each, so that they stack.
        xyz = np.stack([(column - cx) / fx * z, (row - cy) / fy * z, z], -1)
        measured = np.flatnonzero(z > 0)
        order = measured[np.argsort(self._label[measured], kind="stable")]
        bounds = np.searchsorted(self._label[order], np.arange(patches.count + 1))
        size = np.maximum(bounds[1:] - bounds[:-1], 1)
        draw = (np.arange(_EXTENT_POINTS) + 0.5) / _EXTENT_POINTS
        pick = bounds[:-1, None] + np.minimum((draw * size[:, None]).astype(np.int64), size[:, None] - 1)
        self.points = xyz[order[np.minimum(pick, max(len(order) - 1, 0))]] if len(order) else np.zeros((0, 1, 3))
        # Farthest points of each pair of patches: a union is as long as its longest pair.
        count = patches.count
        self.length_m = np.zeros((count, count))
        for one in range(count if len(order) else 0):
            apart = np.linalg.norm(self.points[one][None, :, None] - self.points[one:, None], axis=-1)
            far = np.percentile(apart.reshape(count - one, -1), 99.5, axis=1)
            self.length_m[one, one:] = self.length_m[one:, one] = far
        self.beside = np.zeros((count, count), np.bool_)
        self.beside[patches.touching[:, 0], patches.touching[:, 1]] = True
        self.beside |= self.beside.T

    def likeness(self, palette: Palette) -> FloatArray:
        """Mean likeness [S] of the patches' colours to an object's."""
        like = palette.likeness(self._rgb).astype(np.float64)
        return np.bincount(self._label, like, minlength=self.patches.count) / np.maximum(self.pixels, 1)


def object_proposals(
    scene: ScenePatches,
    palette: Palette,
    diameter_m: float,
    silhouette_m2: float,
    most: int = 12,
    least_pixels: int = 80,
) -> list[ObjectProposal]:
    """Unions of patches that may be an object, the likeliest first.

    From each patch with the object's colours a union grows by the neighbour that fits best, as long as it is not longer
    than the object; every step is a proposal.

    Args:
        scene: patches.
        palette: the object's colours.
        diameter_m: the object's.
        silhouette_m2: its outline's usual area.
        most: proposals.
        least_pixels: of a proposal.
    """
    like = scene.likeness(palette)
    least = _OWN * float(like.max(initial=0.0))  # under tinted light nothing has quite its colours
    fits = scene.length_m.diagonal() <= _LONGER * diameter_m if len(like) else np.zeros(0, np.bool_)
    unions: dict[tuple[int, ...], float] = {}
    for seed in np.flatnonzero(fits & (like >= least)):
        inside = np.zeros(len(like), np.bool_)
        inside[seed] = True
        while True:
            key = tuple(np.flatnonzero(inside).tolist())
            if key in unions:
                break  # from here on it grows as another did
            unions[key] = _score(scene, like, inside, silhouette_m2)
            near = scene.beside[inside].any(0) & ~inside & (like >= least)
            near &= scene.length_m[inside].max(0) <= _LONGER * diameter_m
            if not near.any():
                break
            inside[int(np.argmax(np.where(near, like * np.sqrt(scene.area_m2), -1.0)))] = True
    ranked = sorted(unions.items(), key=lambda one: (-one[1], one[0]))
    out: list[ObjectProposal] = []
    taken: list[NDArray[np.bool_]] = []
    for key, score in ranked:
        inside = np.zeros(len(like), np.bool_)
        inside[list(key)] = True
        total = float(scene.pixels[inside].sum())
        if total < least_pixels:
            continue
        if any(scene.pixels[inside & o].sum() > 0.9 * scene.pixels[inside | o].sum() for o in taken):
            continue
        taken.append(inside)
        out.append(ObjectProposal((scene.patches.label >= 0) & inside[scene.patches.label], score))
        if len(out) == most:
            break
    return out


def _score(scene: ScenePatches, like: FloatArray, inside: NDArray[np.bool_], silhouette_m2: float) -> float:
    """Colours times size."""
    area = float(scene.area_m2[inside].sum())
    colour = float((like * scene.area_m2)[inside].sum()) / max(area, 1e-12)
    size = area / max(silhouette_m2, 1e-12)
    return float(colour * min(1.0, size) ** 0.5 * min(1.0, 1.8 / max(size, 1e-6)))
