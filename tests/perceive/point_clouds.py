"""Small encoders of point clouds, and the clouds that their tests feed them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder
from perceive.encoders.point_groups import PointGroupEncoder
from perceive.encoders.point_voxels import PointVoxelEncoder
from perceive.tokens import Tokens
from sensors.geometry import axis_angle_to_matrix
from sensors.spec import box

NAN, INF = float("nan"), float("inf")
WIDTH, ROOM = 16, 300
Make = Callable[..., Encoder]


def point_space(room: int = ROOM) -> spaces.Dict:
    """As of a PointFrame."""
    rgb, count = box(0, 255, (room, 3), np.uint8), box(0, room, (1,), np.int64)
    return spaces.Dict({"xyz_m": box(-9, 9, (room, 3)), "rgb": rgb, "count": count})


def lidar_space(room: int = ROOM) -> spaces.Dict:
    """As of a LidarFrame."""
    return spaces.Dict(
        {
            "xyz_m": box(-9, 9, (room, 3)),
            "intensity": box(0, 1, (room,)),
            "offset_s": box(-0.1, 0, (room,)),
            "count": box(0, room, (1,), np.int64),
            "base_from_lidar": box(-1e3, 1e3, (4, 4)),
        }
    )


def made(cls: type[Encoder], space: spaces.Dict, small: Mapping[str, Any], **changes: Any) -> Encoder:
    torch.manual_seed(0)
    return cls(space, 1, WIDTH, **{**small, **changes}).eval()


def groups_of(space: spaces.Dict, **changes: Any) -> Encoder:
    return made(PointGroupEncoder, space, {"groups": 12, "size": 8, "candidates": 512, "hidden": 8}, **changes)


def pairs_of(space: spaces.Dict, **changes: Any) -> Encoder:
    return groups_of(space, geometry="pairs", **changes)


def voxels_of(space: spaces.Dict, **changes: Any) -> Encoder:
    small = {"tokens": 40, "edge_m": 0.25, "low_m": (-1, -1, -1), "high_m": (1.5, 1, 1), "hidden": 8}
    return made(PointVoxelEncoder, space, small, **changes)


def company_of(space: spaces.Dict, **changes: Any) -> Encoder:
    return groups_of(space, **{"lonely": 2.0, **changes})


MAKERS = [groups_of, pairs_of, company_of, voxels_of]
every = pytest.mark.parametrize("make", MAKERS, ids=["groups", "pairs", "company", "voxels"])
both = pytest.mark.parametrize("space", [point_space(), lidar_space()], ids=["points", "lidar"])


def cloud_of(space: spaces.Dict, seed: int = 0, size: int = 2, count: int = 200) -> BatchStream:
    """Noisy surfaces within (-0.5, 0.5)^3 of the sensor's frame, whose pose is near the identity; padding is NaN."""
    rng = np.random.default_rng(seed)
    room = int(space["xyz_m"].shape[0])  # type: ignore[index]  # a Box has a shape
    at = rng.uniform(-0.5, 0.5, (size, 1, room, 3))
    at[..., 2] = 0.3 * np.sin(4 * at[..., 0]) * at[..., 1] + rng.normal(0, 0.01, at.shape[:3])
    at[:, :, count:] = np.nan
    data: dict[str, Any] = {"xyz_m": at.astype(np.float32), "count": np.full((size, 1, 1), count)}
    if "rgb" in space.spaces:
        data["rgb"] = rng.integers(0, 256, (size, 1, room, 3), dtype=np.uint8)
    else:
        data["intensity"] = rng.random((size, 1, room), np.float32)
        data["offset_s"] = rng.uniform(-0.1, 0, (size, 1, room)).astype(np.float32)
        pose = np.tile(np.eye(4, dtype=np.float32), (size, 1, 1, 1))
        pose[..., :3, :3] = axis_angle_to_matrix(rng.normal(0, 0.2, (size, 1, 3)))
        pose[..., :3, 3] = (0.3, 0.1, 0.05)
        data["base_from_lidar"] = pose
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in data.items()}
    return BatchStream(tensors, torch.full((size, 1), 0.02), torch.ones(size, 1, dtype=torch.bool))


def changed(stream: BatchStream, **fields: Tensor) -> BatchStream:
    return replace(stream, data={**stream.data, **fields})


def per_point(stream: BatchStream) -> list[str]:
    return [name for name in stream.data if name not in ("count", "base_from_lidar")]


def rows(stream: BatchStream, index: Tensor) -> BatchStream:
    """The points [P'] of every frame that are asked for, in that order."""
    return changed(stream, **{name: stream.data[name][:, :, index] for name in per_point(stream)})


def same_set(ours: Tokens, theirs: Tokens, atol: float, shift: Tensor | None = None) -> None:
    """Equal tokens, in any order: each is compared with the one that sits at its place."""
    assert torch.equal(ours.valid.sum(1), theirs.valid.sum(1))
    for sample in range(len(ours.valid)):
        here, there = ours.valid[sample], theirs.valid[sample]
        place = theirs.position_m[sample][there] - (0 if shift is None else shift)
        apart = torch.cdist(ours.position_m[sample][here], place, compute_mode="donot_use_mm_for_euclid_dist")
        match = apart.argmin(1)
        assert sorted(match.tolist()) == list(range(len(match))), "tokens sit elsewhere"
        assert apart.amin(1).max() <= atol
        torch.testing.assert_close(
            theirs.features[sample][there][match], ours.features[sample][here], rtol=0, atol=atol
        )


def cloud_from(space: spaces.Dict, xyz_m: Tensor) -> BatchStream:
    """One frame with exactly these points [P, 3], all else the same of all."""
    room = int(space["xyz_m"].shape[0])  # type: ignore[index]
    stream = cloud_of(space, size=1, count=room)
    padded = torch.full((room, 3), NAN)
    padded[: len(xyz_m)] = xyz_m
    data = {name: stream.data[name][:, :, :1].expand_as(stream.data[name]).clone() for name in per_point(stream)}
    data |= {"xyz_m": padded[None, None], "count": torch.full((1, 1, 1), len(xyz_m))}
    return changed(stream, **data)
