"""Crops are pictures of a turned camera: rays, depth, poses and masks stay exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.pose.crop import BLIND, aim, aim_at_mask, cut, cut_mask, halved
from perceive.pose.crop_source import DEPTH_M, CropSource, recut
from perceive.pose.raster import MeshRenderer
from sensors.errors import DataError, SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix, transform_points, unproject
from tests.perceive.pose.meshes import mesh

CAMERA = np.array([310.0, 290.0, 70.0, 66.0])
SHAPE = (120, 160)


def posed(turn: tuple[float, float, float], place: tuple[float, float, float]) -> FloatArray:
    out = np.eye(4)
    out[:3, :3] = axis_angle_to_matrix(turn)
    out[:3, 3] = place
    return out


def picture(pose: FloatArray) -> tuple[RgbdFrame, np.ndarray]:
    drawn = MeshRenderer(mesh("bracket"), 1).render(pose, CAMERA, (0, 0, SHAPE[1], SHAPE[0]))
    frame = RgbdFrame(
        stamp_s=1.0, rgb=drawn.rgb[0], depth_m=drawn.depth_m[0], intrinsics_px=CAMERA, base_from_camera=np.eye(4)
    )
    return frame, drawn.depth_m[0] > 0


@given(st.floats(5, 150), st.floats(5, 110), st.floats(0.2, 2), st.floats(0.05, 1), st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_a_view_looks_where_it_is_aimed(u: float, v: float, away: float, extent: float, turn: float) -> None:
    view = aim((u, v), CAMERA, away, extent, 48, turn)
    np.testing.assert_allclose(view.crop_from_camera @ view.crop_from_camera.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view.crop_from_camera) == pytest.approx(1)
    ray = np.array([(u - CAMERA[2]) / CAMERA[0], (v - CAMERA[3]) / CAMERA[1], 1.0])
    point = away * ray / np.linalg.norm(ray)
    np.testing.assert_allclose(transform_points(view.frame_from_camera, point[None])[0], 0, atol=1e-12)
    # The border of the outermost pixels is half the extent from the axis.
    assert (view.size_px / 2) / view.intrinsics_px[0] * away == pytest.approx(extent / 2)
    level = aim((u, v), CAMERA, away, extent, 48).crop_from_camera
    about = view.crop_from_camera @ level.T
    np.testing.assert_allclose(about, axis_angle_to_matrix([0, 0, turn]), atol=1e-9)


@pytest.mark.parametrize("turn_rad", [0.0, 0.7])
def test_points_of_a_crop_are_points_of_the_object(turn_rad: float) -> None:
    """Closed form: a crop of a rendered picture is the picture that the turned camera renders."""
    pose = posed((0.4, -0.6, 0.3), (0.12, -0.03, 0.6))
    frame, mask = picture(pose)
    rows, columns = np.nonzero(mask)
    view = aim((columns.mean(), rows.mean()), CAMERA, 0.6, 0.16, 96, turn_rad)
    crop = cut(frame, view)
    turned = np.eye(4)
    turned[:3, :3] = view.crop_from_camera
    drawn = MeshRenderer(mesh("bracket"), 1).render(turned @ pose, view.intrinsics_px, (0, 0, 96, 96))
    both = (crop.depth_m > 0) & (drawn.depth_m[0] > 0)
    assert both.sum() > 0.95 * (drawn.depth_m[0] > 0).sum()
    # A pixel of the picture is 2 mm wide, and the nearest one counts: half of that, times the slope of the face.
    off = np.abs(crop.depth_m - drawn.depth_m[0])[both]
    assert np.median(off) < 8e-4
    assert np.quantile(off, 0.95) < 3e-3
    points = transform_points(view.frame_from_crop, unproject(crop.depth_m, view.intrinsics_px)[both])
    wanted = transform_points(view.frame_from_camera @ pose, drawn.coordinates_m[0][both])
    assert np.median(np.linalg.norm(points - wanted, axis=-1)) < 9e-4
    seen = cut_mask(mask, CAMERA, view)
    assert (seen == (drawn.depth_m[0] > 0)).mean() > 0.98
    np.testing.assert_array_equal(seen, crop.depth_m > 0)


def test_halving_keeps_the_view() -> None:
    view = aim((60, 40), CAMERA, 0.5, 0.2, 96)
    small = halved(view)
    corner = (-0.5 - view.intrinsics_px[2]) / view.intrinsics_px[0]
    assert (-0.5 - small.intrinsics_px[2]) / small.intrinsics_px[0] == pytest.approx(corner)
    assert small.size_px == 48


def test_aim_at_a_mask_with_and_without_depth() -> None:
    pose = posed((0.0, 0.0, 0.0), (-0.02, 0.02, 0.5))
    frame, mask = picture(pose)
    view = aim_at_mask(frame, mask, 0.1, 96, 1.4)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    middle = np.array([(columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2])
    ray = np.array([*((middle - CAMERA[2:]) / CAMERA[:2]), 1.0])
    assert view.distance_m == pytest.approx(np.median(frame.depth_m[mask]) * np.linalg.norm(ray))
    np.testing.assert_allclose(view.crop_from_camera[2], ray / np.linalg.norm(ray), atol=1e-12)
    dark = replace(frame, depth_m=np.zeros(SHAPE, np.float32))
    blind = aim_at_mask(dark, mask, 0.1, 96, 1.4)
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    assert blind.distance_m == pytest.approx(300.0 * 0.1 * BLIND / longest * np.linalg.norm(ray))
    holes = frame.depth_m.copy()
    holes[mask & (np.arange(160) % 2 == 0)] = np.nan  # no measurement, as 0
    rough = replace(frame, depth_m=holes)
    assert abs(aim_at_mask(rough, mask, 0.1, 96, 1.4).distance_m - view.distance_m) < 2e-3
    assert np.isfinite(cut(rough, view).depth_m).all()
    with pytest.raises(DataError, match="empty"):
        aim_at_mask(frame, np.zeros(SHAPE, bool), 0.1, 96, 1.4)
    with pytest.raises(SpecError, match="lengths above 0"):
        aim((1, 1), CAMERA, 0.0, 0.1, 96)


def test_fine_pictures_are_averaged() -> None:
    """Stripes of one pixel come out grey where a pixel of the crop covers several of them."""
    rgb = np.zeros((240, 240, 3), np.uint8)
    rgb[:, ::2] = 200
    depth = np.ones((240, 240), np.float32)
    camera = np.array([200.0, 200.0, 119.5, 119.5])
    frame = RgbdFrame(stamp_s=0.0, rgb=rgb, depth_m=depth, intrinsics_px=camera, base_from_camera=np.eye(4))
    coarse = cut(frame, aim((119.5, 119.5), camera, 1.0, 1.2, 60)).rgb  # 4 pixels for each of the crop
    assert coarse[5:-5, 5:-5].std() < 3
    assert abs(coarse[5:-5, 5:-5].mean() - 100) < 3
    fine = cut(frame, aim((119.5, 119.5), camera, 1.0, 0.3, 60)).rgb
    assert fine.std() > 50


def test_recut_is_a_cut_of_the_turned_camera() -> None:
    """A crop out of a wide crop is what would have been rendered, pose and coordinates included."""
    model = mesh("bracket")
    draw = MeshRenderer(model, 1)
    wide, small, focal = 128, 64, 500.0
    pose = posed((0.3, 0.5, -0.2), (0.0, 0.0, 0.6))
    pose[:3, 3] -= pose[:3, :3] @ ((model.low_m + model.high_m) / 2)
    big = draw.render(pose, [focal, focal, 63.5, 63.5], (0, 0, wide, wide))
    part = draw.render(pose, [focal / 2, focal / 2, 31.5, 31.5], (0, 0, small, small))
    share = (part.coordinates_m[0] - model.low_m) / (model.high_m - model.low_m)
    there = part.depth_m[0] > 0
    source = CropSource(
        torch.from_numpy(big.rgb),
        torch.from_numpy(np.rint(big.depth_m / DEPTH_M).astype(np.uint16)),
        torch.from_numpy(there)[None],
        torch.from_numpy(np.where(there[..., None], np.rint(share * 65535), 0).astype(np.uint16))[None],
        torch.tensor([focal]),
        torch.from_numpy(pose).float()[None],
        torch.tensor([[66.0, 60.0]]),
        torch.tensor([0.58]),
        torch.tensor([0.6]),
        torch.from_numpy(model.low_m).float()[None],
        torch.from_numpy(model.high_m).float()[None],
        torch.tensor([model.diameter_m]).float(),
        torch.zeros(1, 1, dtype=torch.bool),
    )
    new = recut(source, 96, source.middle_px, torch.tensor([0.6]), torch.tensor([0.14]), torch.tensor([0.5]))
    view = aim((66.0, 60.0), [focal, focal, 63.5, 63.5], 0.6, 0.14, 96, 0.5)
    np.testing.assert_allclose(new.intrinsics_px[0], view.intrinsics_px, rtol=1e-5)
    np.testing.assert_allclose(new.frame_from_object[0], view.frame_from_camera @ pose, atol=1e-5)
    turned = np.eye(4)
    turned[:3, :3] = view.crop_from_camera
    wanted = draw.render(turned @ pose, view.intrinsics_px, (0, 0, 96, 96))
    both = (new.depth_m[0].numpy() > 0) & (wanted.depth_m[0] > 0)
    assert both.sum() > 0.95 * (wanted.depth_m[0] > 0).sum()
    assert np.median(np.abs(new.depth_m[0].numpy() - wanted.depth_m[0])[both]) < 3e-4
    half = draw.render(turned @ pose, halved(view).intrinsics_px, (0, 0, 48, 48))
    mask = new.mask[0].numpy()
    assert (mask == (half.depth_m[0] > 0)).mean() > 0.97
    both = mask & (half.depth_m[0] > 0)
    off = np.linalg.norm(new.coordinates_m[0].numpy() - half.coordinates_m[0], axis=-1)[both]
    assert np.median(off) < 1.2e-3  # half a pixel is about a millimetre
    # And what the crop measures lies on those coordinates.
    points = transform_points(view.frame_from_crop, unproject(new.depth_m[0].numpy(), view.intrinsics_px))[::2, ::2]
    placed = transform_points(
        new.frame_from_object[0].double().numpy(), new.coordinates_m[0].double().numpy().reshape(-1, 3)
    )
    gap = np.linalg.norm(points - placed.reshape(48, 48, 3), axis=-1)[both & (new.depth_m[0, ::2, ::2].numpy() > 0)]
    assert np.median(gap) < 2e-3
