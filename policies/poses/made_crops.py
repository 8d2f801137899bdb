"""Wide crops of random solids that lie about on tables, drawn by casting rays, made once and kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from policies.poses.crops import CropPlan, WideCrops, keep_crops, wide_crop
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix

_LOG = logging.getLogger(__name__)
FORMAT = 1
_CAMERA_PX = np.array([460.0, 460.0, 239.5, 179.5])
_HEIGHT, _WIDTH = 360, 480
_TOGETHER = 6  # objects on a table
_NOISE_M = 0.0015  # of depth at 1 m


def made_crops(
    models: Sequence[ObjectModel], views: int, plan: CropPlan, seed: int
) -> tuple[WideCrops, NDArray[np.float32]]:
    """Crops of each object, about ``views`` of them, and which share of it is visible in each.

    Args:
        models: the objects.
        views: how often each lies on a table.
        plan: how crops are made.
        seed: of all that is random.
    """
    rng = np.random.default_rng(seed)
    renderers = [MeshRenderer(model, threads=1) for model in models]
    together = min(_TOGETHER, len(models))
    queue: list[int] = []
    rows: list[dict[str, Any]] = []
    shares: list[float] = []
    for picture in range(math.ceil(len(models) * views / together)):
        if len(queue) < together:
            queue += [int(k) for k in rng.permutation(len(models))]
        chosen = list(dict.fromkeys(queue[:together]))  # no object twice
        queue = queue[together:]
        frame, poses, masks, whole = _picture(rng, [renderers[k] for k in chosen])
        nowhere = np.zeros(1, bool)
        for k, pose, mask, full in zip(chosen, poses, masks, whole, strict=True):
            share = float(mask.sum() / max(full, 1))
            row = wide_crop(frame, mask, pose, renderers[k], plan) if share >= plan.least_visible else None
            if row is not None:
                rows.append(row | {"which": k, "view": np.array([picture, 0]), "nowhere": nowhere})
                shares.append(share)
        if picture % 100 == 99:
            _LOG.info("%d pictures, %d crops", picture + 1, len(rows))
    return WideCrops({name: np.stack([row[name] for row in rows]) for name in rows[0]}), np.array(shares, np.float32)


def kept_crops(
    folder: Path, name: str, make: Callable[[], tuple[WideCrops, NDArray[np.float32]]]
) -> tuple[WideCrops, NDArray[np.float32]]:
    """Crops out of a folder; made, and kept there for the next time, if they are not.

    Args:
        folder: where all are kept.
        name: of these ones.
        make: called without arguments if they are not there.
    """
    place = folder / name
    if not (place / "whole.json").exists():
        crops, shares = make()
        keep_crops(place, crops.fields | {"visible": shares})
        if not (place / "whole.json").exists():  # cannot be written to
            return crops, shares
    fields = {path.stem: np.load(path, mmap_mode="r") for path in sorted(place.glob("*.npy"))}
    visible = np.asarray(fields.pop("visible"))
    return WideCrops(fields), visible


def _picture(
    rng: np.random.Generator, renderers: Sequence[MeshRenderer]
) -> tuple[RgbdFrame, list[FloatArray], list[NDArray[np.bool_]], list[int]]:
    """A table from above with objects on it, their poses, visible masks and whole sizes in pixels."""
    tilt = rng.uniform(0.35, 1.2)  # of the camera below the horizon
    away = rng.uniform(0.55, 0.95)
    v, u = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float64)
    ray = np.stack([(u - _CAMERA_PX[2]) / _CAMERA_PX[0], (v - _CAMERA_PX[3]) / _CAMERA_PX[1], np.ones_like(u)], -1)
    up = np.array([0.0, -math.cos(tilt), -math.sin(tilt)])  # of the table, in the camera's frame
    centre = np.array([0.0, 0.0, away])
    slope = ray @ up
    depth = np.where(slope < -1e-3, (centre @ up) / np.minimum(slope, -1e-3), 0.0)
    depth = np.where(depth < 3.0, depth, 0.0)
    right, ahead = np.array([1.0, 0.0, 0.0]), np.cross(up, np.array([1.0, 0.0, 0.0]))
    place = ray * depth[..., None] - centre
    check = (np.floor(place @ right / 0.07) + np.floor(place @ ahead / 0.07)) % 2
    colours = rng.integers(30, 230, (2, 3)).astype(np.float64)
    if rng.random() < 0.6:
        colours[1] = colours[0]
    rgb = np.where(check[..., None] > 0, colours[0], colours[1])
    owner = np.full(depth.shape, -1)
    light = np.array([rng.normal(), -abs(rng.normal()) - 0.3, -abs(rng.normal()) - 0.3])
    light /= np.linalg.norm(light)
    ambient = rng.uniform(0.35, 0.7)
    poses: list[FloatArray] = []
    whole: list[int] = []
    spots = rng.permutation(9)[: len(renderers)]
    pitch = rng.uniform(0.09, 0.15)
    for index, (renderer, spot) in enumerate(zip(renderers, spots, strict=True)):
        turn = axis_angle_to_matrix(_random_turn(rng))
        model = renderer.model
        across = (np.array([spot % 3, spot // 3]) - 1 + rng.uniform(-0.3, 0.3, 2)) * pitch
        corner = np.array([model.low_m, model.high_m])
        box = np.stack(np.meshgrid(*corner.T), -1).reshape(-1, 3) @ turn.T @ up
        pose = np.eye(4)
        pose[:3, :3] = turn
        # Not quite on its lowest corner: many bodies are rounder than their box.
        pose[:3, 3] = centre + across[0] * right + across[1] * ahead - up * box.min() * rng.uniform(0.75, 1.0)
        poses.append(pose)
        found = renderer.box(pose, _CAMERA_PX, _HEIGHT, _WIDTH)
        if found is None:
            whole.append(0)
            continue
        drawn = renderer.render(pose, _CAMERA_PX, found)
        area = (slice(found[1], found[3]), slice(found[0], found[2]))
        there = drawn.depth_m[0] > 0
        whole.append(int(there.sum()))
        nearer = there & ((drawn.depth_m[0] < depth[area]) | (depth[area] == 0))
        shade = ambient + (1 - ambient) * np.maximum(drawn.normal[0] @ light, 0.0)
        depth[area] = np.where(nearer, drawn.depth_m[0], depth[area])
        owner[area] = np.where(nearer, index, owner[area])
        rgb[area] = np.where(nearer[..., None], drawn.rgb[0] * shade[..., None], rgb[area])
    rgb = (rgb * rng.uniform(0.7, 1.1) + rng.normal(size=rgb.shape) * rng.uniform(0, 4)).clip(0, 255)
    noisy = depth + rng.normal(size=depth.shape).clip(-3, 3) * _NOISE_M * depth**2
    step = np.abs(np.diff(depth, axis=1, prepend=depth[:, :1])) > 0.02
    gone = (step & (rng.random(depth.shape) < 0.5)) | (rng.random(depth.shape) < 0.002)
    frame = RgbdFrame(
        stamp_s=0.0,
        rgb=rgb.astype(np.uint8),
        depth_m=np.where((depth > 0) & ~gone, noisy, 0.0).astype(np.float32),
        intrinsics_px=_CAMERA_PX.copy(),
        base_from_camera=np.eye(4),
    )
    return frame, poses, [owner == index for index in range(len(poses))], whole


def _random_turn(rng: np.random.Generator) -> FloatArray:
    """A rotation vector of a random rotation: that of a random unit quaternion."""
    x, y, z, w = (quaternion := rng.normal(size=4)) / np.linalg.norm(quaternion)
    axis = np.array([x, y, z])
    length = max(float(np.linalg.norm(axis)), 1e-12)
    return np.asarray(axis / length * 2 * math.atan2(length, w))
