"""The fused cloud: known surfaces through random cameras come out where they are; what is not measured is not valid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.points.cloud import FIELDS, Cloud, fuse
from sensors.errors import WiringError
from sensors.geometry import look_at

Array = NDArray[np.float64]
HEIGHT, WIDTH = 9, 12
SEEDS = st.integers(0, 2**31 - 1)


def camera(rng: np.random.Generator) -> tuple[Array, Array]:
    """Random intrinsics [4] and a pose [4, 4] that looks at the origin from 0.3 to 0.6 m."""
    eye = rng.normal(size=3)
    eye *= rng.uniform(0.3, 0.6) / np.linalg.norm(eye)
    pose = np.asarray(look_at(eye, rng.uniform(-0.02, 0.02, 3), up=rng.normal(size=3)), np.float64)
    middle = [(WIDTH - 1) / 2 + rng.uniform(-1, 1), (HEIGHT - 1) / 2 + rng.uniform(-1, 1)]
    # What the batch will hold, so that the truth is computed from the same numbers.
    return np.float64(np.float32([*rng.uniform(15, 30, 2), *middle])), np.float64(np.float32(pose))


def rays(intrinsics: Array, pose: Array) -> Array:
    """Directions [H, W, 3] in the base frame, one metre deep, of the pixels' centres."""
    out = np.empty((HEIGHT, WIDTH, 3))
    for v in range(HEIGHT):
        for u in range(WIDTH):
            out[v, u] = pose[:3, :3] @ [(u - intrinsics[2]) / intrinsics[0], (v - intrinsics[3]) / intrinsics[1], 1.0]
    return out


def plane(seed: int, pose: Array, way: Array) -> Array:
    """Depth [H, W] of a plane through the origin that faces the camera more or less; 0 where it is not hit."""
    normal = pose[:3, 2] + np.random.default_rng(seed).uniform(-0.3, 0.3, 3)
    depth = -(normal @ pose[:3, 3]) / (way @ normal)
    return np.where((depth > 0) & (depth < 2), depth, 0.0)


def sphere(seed: int, pose: Array, way: Array) -> Array:
    """Depth [H, W] of a sphere of 0.1 m about the origin; 0 beside it."""
    a, b, c = (way**2).sum(-1), way @ pose[:3, 3], pose[:3, 3] @ pose[:3, 3] - 0.01
    root = b**2 - a * c
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, 0.0)


def stream(intrinsics: Array, pose: Array, depth: Array, rgb: Array | None = None) -> BatchStream:
    """One sample, one instant."""
    picture = np.zeros((HEIGHT, WIDTH, 3)) if rgb is None else rgb
    data = {
        "rgb": torch.from_numpy(picture.astype(np.uint8))[None, None],
        "depth_m": torch.from_numpy(depth).float()[None, None],
        "intrinsics_px": torch.from_numpy(intrinsics).float()[None, None],
        "base_from_camera": torch.from_numpy(pose).float()[None, None],
    }
    return BatchStream(data, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))


def changed(given_stream: BatchStream, **fields: Tensor) -> BatchStream:
    return BatchStream({**given_stream.data, **fields}, given_stream.age_s, given_stream.valid)


def seen(seed: int) -> BatchStream:
    """A sphere with random colours."""
    rng = np.random.default_rng(seed)
    intrinsics, pose = camera(rng)
    colours = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.float64)
    return stream(intrinsics, pose, sphere(seed, pose, rays(intrinsics, pose)), colours)


@pytest.mark.parametrize("surface", [plane, sphere])
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_a_known_surface_comes_out_where_it_is(surface: Callable[[int, Array, Array], Array], seed: int) -> None:
    intrinsics, pose = camera(np.random.default_rng(seed))
    way = rays(intrinsics, pose)
    depth = surface(seed, pose, way)
    cloud = fuse(Batch({"it": stream(intrinsics, pose, depth)}), ["it"])
    hit = depth.reshape(-1) > 0
    assert hit.any()
    assert torch.equal(cloud.valid[0], torch.from_numpy(hit))
    truth = (way * depth[..., None] + pose[:3, 3]).reshape(-1, 3)[hit]
    found = cloud.xyz_m[0].double().numpy()[hit]
    np.testing.assert_allclose(found, truth, atol=1e-5)
    if surface is sphere:
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 0.1, atol=1e-5)
    # And back: every point is seen at the centre of its own pixel.
    local = (found - pose[:3, 3]) @ pose[:3, :3]
    pixel = local[:, :2] / local[:, 2:] * intrinsics[:2] + intrinsics[2:]
    v, u = np.divmod(np.flatnonzero(hit), WIDTH)
    np.testing.assert_allclose(pixel, np.stack([u, v], 1), atol=1e-4)


def test_cameras_follow_one_another_and_agree_on_a_sphere() -> None:
    batch = Batch({"a": seen(1), "b": seen(2)})
    both = fuse(batch, ["b", "a"])
    one, other = fuse(batch, ["b"]), fuse(batch, ["a"])
    for name in ("xyz_m", "rgb", "valid"):
        assert torch.equal(getattr(both, name), torch.cat([getattr(one, name), getattr(other, name)], 1))
    distance = both.xyz_m[both.valid].norm(dim=-1)
    torch.testing.assert_close(distance, torch.full_like(distance, 0.1), rtol=0, atol=1e-5)
    assert not torch.equal(one.xyz_m, other.xyz_m)


@pytest.mark.parametrize("bad", [float("nan"), 0.0, -0.3, float("inf"), 3.5])
def test_what_is_not_measured_is_not_valid_and_harms_nothing_else(bad: float) -> None:
    whole = seen(3)
    depth = whole.data["depth_m"].clone()
    hit = (depth[0, 0] > 0).flatten().nonzero()[:, 0]
    depth.view(-1)[hit[::2]] = bad
    before = fuse(Batch({"it": whole}), ["it"])
    after = fuse(Batch({"it": changed(whole, depth_m=depth)}), ["it"], max_depth_m=3.0)
    expected = before.valid.clone()
    expected[0, hit[::2]] = False
    assert torch.equal(after.valid, expected)
    assert after.xyz_m.isfinite().all()
    assert torch.equal(after.xyz_m[expected], before.xyz_m[expected])


def test_a_farther_limit_lets_farther_points_in() -> None:
    whole = seen(3)
    far = changed(whole, depth_m=torch.full((1, 1, HEIGHT, WIDTH), 3.5))
    assert not fuse(Batch({"it": far}), ["it"]).valid.any()
    assert fuse(Batch({"it": far}), ["it"], max_depth_m=4.0).valid.all()


def test_an_absent_camera_has_no_valid_point_and_the_others_all_theirs() -> None:
    here, gone = seen(4), seen(5)
    nothing = {name: torch.full_like(value.float(), float("nan")) for name, value in gone.data.items()}
    batch = Batch({"here": here, "gone": BatchStream(nothing, gone.age_s, torch.zeros(1, 1, dtype=torch.bool))})
    cloud, alone = fuse(batch, ["here", "gone"]), fuse(batch, ["here"])
    count = HEIGHT * WIDTH
    assert not cloud.valid[:, count:].any()
    assert torch.equal(cloud.valid[:, :count], alone.valid)
    assert torch.equal(cloud.xyz_m[:, :count], alone.xyz_m)


def test_bytes_and_floats_are_the_same_colours() -> None:
    whole = seen(6)
    floats = changed(whole, rgb=whole.data["rgb"].float())
    one, other = fuse(Batch({"it": whole}), ["it"]), fuse(Batch({"it": floats}), ["it"])
    assert one.rgb.dtype == torch.float32
    assert torch.equal(one.rgb, other.rgb)
    torch.testing.assert_close(one.rgb.view(HEIGHT, WIDTH, 3) * 255, floats.data["rgb"][0, 0])


def test_the_newest_frame_counts() -> None:
    old, new = seen(7), seen(8)
    data = {name: torch.cat([old.data[name], new.data[name]], 1) for name in FIELDS}
    both = BatchStream(data, torch.zeros(1, 2), torch.tensor([[False, True]]))
    one, other = fuse(Batch({"it": both}), ["it"]), fuse(Batch({"it": new}), ["it"])
    assert torch.equal(one.xyz_m, other.xyz_m)
    assert torch.equal(one.valid, other.valid)
    assert not fuse(Batch({"it": BatchStream(data, both.age_s, ~both.valid)}), ["it"]).valid.any()


def test_the_box_holds_its_corners_and_neither_nan_nor_invalid_points() -> None:
    nan = float("nan")
    places = torch.tensor([[[0, 0, 0], [1, 2, 3], [0.5, 2.1, 1], [nan, 1, 1], [0.5, 1, 1], [-0.1, 1, 1]]])
    valid = torch.tensor([[True, True, True, True, False, True]])
    inside = Cloud(places, places, valid).within(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
    assert inside.tolist() == [[True, True, False, False, False, False]]


def test_what_is_no_rgbd_camera_is_refused() -> None:
    whole = seen(9)
    blind = BatchStream({"rgb": whole.data["rgb"]}, whole.age_s, whole.valid)
    with pytest.raises(WiringError, match="depth_m"):
        fuse(Batch({"it": blind}), ["it"])
    with pytest.raises(WiringError, match="'that'"):
        fuse(Batch({"it": whole}), ["that"])
