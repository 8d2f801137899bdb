"""Depth images by closed forms, and a stereo camera's noise of which all is off but what a test asks for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sensors.depth_noise import StereoDepthNoise
from sensors.geometry import FloatArray

OFF = StereoDepthNoise(
    axial_m=0.0,
    axial_floor_m=0.0,
    lateral_px=0.0,
    edge_dropout=0.0,
    grazing_from_deg=90.0,
    grazing_to_deg=90.0,
    dropout=0.0,
    min_range_m=0.0,
    max_range_m=100.0,
)
NEAR_M, FAR_M = 0.01, 50.0


def only(**settings: Any) -> StereoDepthNoise:
    """One cause, all others off."""
    return dataclasses.replace(OFF, **settings)


def lens(shape: tuple[int, int], focal_px: float = 300.0) -> FloatArray:
    return np.array([focal_px, focal_px, (shape[1] - 1) / 2, (shape[0] - 1) / 2])


def measure(noise: StereoDepthNoise, depth_m: FloatArray, seed: int = 0, focal_px: float = 300.0) -> FloatArray:
    rng = np.random.default_rng(seed)
    depth = np.asarray(depth_m, np.float32)
    return noise.apply(depth, lens(depth.shape, focal_px), NEAR_M, FAR_M, rng)


def plane(shape: tuple[int, int], normal: FloatArray, distance_m: float) -> tuple[FloatArray, FloatArray]:
    """Depth [H, W] of the plane normal . X = distance, and the angle [H, W] at which each ray meets it, degrees."""
    fx, fy, cx, cy = lens(shape)
    v, u = np.mgrid[0 : shape[0], 0 : shape[1]]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(shape)], -1)
    unit = np.asarray(normal) / np.linalg.norm(normal)
    towards = rays @ unit
    assert (towards > 0).all()
    return distance_m / towards, np.rad2deg(np.arccos(towards / np.linalg.norm(rays, axis=-1)))


def tilted(shape: tuple[int, int], tilt_deg: float, azimuth_deg: float = 30.0) -> tuple[FloatArray, FloatArray]:
    """A plane 1 m away in the middle of the picture, whose normal is tilted so far from the line of sight."""
    tilt, turn = np.deg2rad([tilt_deg, azimuth_deg])
    normal = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)])
    return plane(shape, normal, float(normal[2]))


def two_walls(shape: tuple[int, int], column: int, near_m: float = 1.0, far_m: float = 2.0) -> FloatArray:
    """A wall in the columns before ``column``, and one farther away in the others."""
    out = np.full(shape, near_m)
    out[:, column:] = far_m
    return out
