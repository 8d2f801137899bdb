"""VSD of a whole file of estimates: poses of one object are drawn together, and each of them once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perceive.metrics.pose_fast import PoseErrors
from perceive.metrics.pose_groups import Group, ScoredDataset
from perceive.metrics.pose_outlines import outlines
from perceive.metrics.pose_vsd import TAUS, Drawn, VisibleSurface
from perceive.pose.raster import MeshRenderer
from sensors.geometry import FloatArray

_TOGETHER = 32  # pictures that are in memory at once


def surface_errors(
    dataset: ScoredDataset,
    groups: Sequence[Group],
    errors: Mapping[int, PoseErrors],
    threads: int,
    delta_m: float,
) -> list[FloatArray]:
    """VSD [T, E, G] of each group; the depth of a picture is read once.

    Args:
        dataset: gives depth and intrinsics.
        groups: estimates beside the truth; instances that are not valid are infinitely far.
        errors: of each object, for the corners of its hull.
        threads: of the ray caster; 0 = all cores.
        delta_m: tolerance of visibility.

    Raises:
        SensorError: depth that is no picture, or negative.
    """
    out: list[FloatArray] = [np.zeros((len(TAUS), *group.shape)) for group in groups]
    pictures: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        if min(group.shape):
            pictures.setdefault(group.key, []).append(i)
    renderers = {number: MeshRenderer(dataset.models[number], threads) for number in errors}
    keys = list(pictures)
    for start in range(0, len(keys), _TOGETHER):
        surfaces: dict[int, VisibleSurface] = {}
        lenses: dict[int, FloatArray] = {}
        sizes: dict[int, tuple[int, int]] = {}
        for key in keys[start : start + _TOGETHER]:
            depth, lens = dataset.depth_m(key), np.asarray(dataset.intrinsics_px(key), np.float64)
            for i in pictures[key]:
                surfaces[i] = VisibleSurface(renderers[groups[i].number], depth, lens, delta_m=delta_m)
                lenses[i], sizes[i] = lens, (depth.shape[0], depth.shape[1])
        drawn: dict[tuple[int, int], Drawn] = {}
        for number, renderer in renderers.items():
            mine = [i for i in surfaces if groups[i].number == number]
            drawn.update(_drawn(renderer, errors[number].corners_m, groups, mine, lenses, sizes))
        for i, surface in surfaces.items():
            group = groups[i]
            for there, pose in enumerate(group.truth):
                if not group.valid[there]:
                    out[i][:, :, there] = np.inf  # may not be found
                    continue
                truth = surface.truth(pose, drawn[i, len(group.estimate) + there])
                for here, estimate in enumerate(group.estimate):
                    out[i][:, here, there] = surface.vsd(estimate, truth, drawn[i, here])
    return out


def _drawn(
    renderer: MeshRenderer,
    corners_m: FloatArray,
    groups: Sequence[Group],
    mine: Sequence[int],
    lenses: Mapping[int, FloatArray],
    sizes: Mapping[int, tuple[int, int]],
) -> dict[tuple[int, int], Drawn]:
    """(group, which of its estimates and then of its truths) -> its picture, of the groups of one object."""
    names, poses = [], []
    for i in mine:
        group = groups[i]
        asked = [*range(len(group.estimate)), *(len(group.estimate) + np.flatnonzero(group.valid))]
        names += [(i, int(which)) for which in asked]
        poses += [*group.estimate, *group.truth[group.valid]]
    if not names:
        return {}
    pose, lens = np.stack(poses), np.stack([lenses[i] for i, _ in names])
    found = outlines(renderer, corners_m, pose, lens, [sizes[i] for i, _ in names])
    out: dict[tuple[int, int], Drawn] = {name: (None, np.zeros((0, 0))) for name in names}
    seen = [(k, one) for k, one in enumerate(found) if one is not None]
    if seen:
        some, boxes, runs = [k for k, _ in seen], [one.box for _, one in seen], [one.runs for _, one in seen]
        depths = renderer.depths(pose[some], lens[some], boxes, runs)
        out.update({names[k]: (box, depth) for k, box, depth in zip(some, boxes, depths, strict=True)})
    return out
