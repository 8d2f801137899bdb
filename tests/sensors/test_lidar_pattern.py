"""Scan patterns: angles and firing times of spinning devices, the rosette of solid-state ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from sensors.errors import SpecError
from sensors.geometry import FloatArray
from sensors.lidar_pattern import ScanPattern, SolidStatePattern, SpinningPattern, hdl_32, hdl_64, vlp_16

FOV_DEG, SWEEP_S, RAYS = 38.4, 0.1, 10_000


def _rosette(**changes: Any) -> SolidStatePattern:
    return SolidStatePattern(**({"fov_deg": FOV_DEG, "rays": RAYS, "sweep_s": SWEEP_S} | changes))


def _off_axis_rad(directions: FloatArray) -> FloatArray:
    """Angles [N, 2] to the left of and above +x, as a rotation vector."""
    angle = np.arctan2(np.hypot(directions[:, 1], directions[:, 2]), directions[:, 0])
    across = directions[:, 1:]
    return across * (angle / np.maximum(np.linalg.norm(across, axis=1), 1e-12))[:, None]


@pytest.mark.parametrize(
    "pattern",
    [vlp_16(450, 12.0), hdl_32(360, 10.0), hdl_64(360, 5.0), SpinningPattern([0.0], 7, 3.0), _rosette()],
    ids=["16", "32", "64", "1", "rosette"],
)
def test_every_pattern(pattern: ScanPattern) -> None:
    sweep = pattern.sweep(3.7)
    assert sweep.directions.shape == (pattern.rays, 3)
    assert sweep.offset_s.shape == (pattern.rays,)
    np.testing.assert_allclose(np.linalg.norm(sweep.directions, axis=1), 1.0, atol=1e-12)
    assert sweep.offset_s[0] == pytest.approx(-pattern.sweep_s, abs=1e-12)
    assert sweep.offset_s[-1] < 0
    assert (np.diff(sweep.offset_s) > 0).all()


def test_rays_of_a_spinning_device_have_their_own_angles_and_times() -> None:
    elevations, steps, rotation_hz, firing_s = (-15.0, 5.0, -3.0), 40, 8.0, 2e-4
    sweep = SpinningPattern(elevations, steps, rotation_hz, firing_s).sweep(0.0)
    for step in range(steps):
        for laser, elevation in enumerate(elevations):
            since_s = step / (rotation_hz * steps) + laser * firing_s
            azimuth = 2 * np.pi * rotation_hz * since_s
            flat, ray = np.cos(np.deg2rad(elevation)), step * len(elevations) + laser
            expected = (flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(np.deg2rad(elevation)))
            np.testing.assert_allclose(sweep.directions[ray], expected, atol=1e-12)
            assert sweep.offset_s[ray] == pytest.approx(since_s - 1 / rotation_hz, abs=1e-15)


@pytest.mark.parametrize(
    ("make", "lasers", "low_deg", "high_deg", "first_deg", "firing_s"),
    [
        (vlp_16, 16, -15.0, 15.0, (-15.0, 1.0, -13.0, 3.0), 2.304e-6),
        (hdl_32, 32, -30.67, 10.67, (-30.67, -9.33, -29.33, -8.0), 1.152e-6),
        (hdl_64, 64, -24.33, 2.0, (2.0, 1.67, 1.33, 1.0), 1 / (64 * 180 * 10)),
    ],
)
def test_presets_have_the_rings_of_their_devices(
    make: Callable[..., SpinningPattern],
    lasers: int,
    low_deg: float,
    high_deg: float,
    first_deg: tuple[float, ...],
    firing_s: float,
) -> None:
    pattern = make(azimuth_steps=180, rotation_hz=10.0)
    assert pattern.rays == lasers * 180
    sweep = pattern.sweep(0.0)
    elevations = np.rad2deg(np.arcsin(sweep.directions[:, 2])).reshape(180, lasers)
    assert np.ptp(elevations, axis=0).max() < 1e-9  # each laser keeps its elevation
    assert len(np.unique(elevations[0].round(6))) == lasers
    np.testing.assert_allclose((elevations.min(), elevations.max()), (low_deg, high_deg), atol=0.01)
    np.testing.assert_allclose(elevations[0, :4], first_deg, atol=0.01)
    np.testing.assert_allclose(np.diff(sweep.offset_s[:lasers]), firing_s, rtol=1e-6)


def test_as_many_steps_as_the_device_takes_fit_and_no_more() -> None:
    """A VLP-16 needs 36.9 us to fire and takes 55.3 us a step: 1808 steps at 10 Hz."""
    assert np.diff(vlp_16(1808, 10.0).sweep(0.0).offset_s[::16]).mean() == pytest.approx(55.3e-6, rel=1e-3)
    with pytest.raises(SpecError, match="azimuth_steps"):
        vlp_16(2800, 10.0)


def test_the_rosette_adds_up_two_turning_vectors() -> None:
    half_rad, (first_hz, second_hz) = np.deg2rad(FOV_DEG / 2), (7294 / 60, -4664 / 60)
    sweep = _rosette().sweep(12.3)
    for ray in (0, 1, 777, RAYS - 1):
        when_s = 12.3 + sweep.offset_s[ray]
        arms = np.exp(2j * np.pi * first_hz * when_s) + np.exp(2j * np.pi * second_hz * when_s)
        off = half_rad * arms / 2
        np.testing.assert_allclose(_off_axis_rad(sweep.directions)[ray], (off.real, off.imag), atol=1e-9)


def test_the_rosette_fills_its_field_of_view_and_nothing_else() -> None:
    pattern = _rosette()
    off = np.concatenate([_off_axis_rad(pattern.sweep(end * SWEEP_S).directions) for end in range(1, 31)])
    off /= np.deg2rad(FOV_DEG / 2)
    radius = np.linalg.norm(off, axis=1)
    assert 0.9999 < radius.max() <= 1 + 1e-9
    # Cells of the unit disc, 1/40 of its radius wide: after 3 s every one has been looked into.
    cells = np.stack(np.meshgrid(np.arange(-40, 40), np.arange(-40, 40)), axis=-1).reshape(-1, 2)
    inside = np.linalg.norm((cells + 0.5) / 40, axis=1) < 0.97
    counts = np.zeros((80, 80), int)
    np.add.at(counts, tuple(np.clip(np.floor(off * 40).astype(int) + 40, 0, 79).T), 1)
    seen = counts[tuple((cells[inside] + 40).T)] > 0
    assert seen.mean() > 0.999
    one = np.zeros((80, 80), bool)
    one[tuple(np.clip(np.floor(off[:RAYS] * 40).astype(int) + 40, 0, 79).T)] = True
    assert 0.3 < one[tuple((cells[inside] + 40).T)].mean() < 0.8  # one sweep leaves gaps: they are filled by others


def test_the_rosette_goes_on_and_does_not_repeat() -> None:
    pattern = _rosette()
    first, second = pattern.sweep(5.0), pattern.sweep(5.0 + SWEEP_S)
    both = _rosette(rays=2 * RAYS, sweep_s=2 * SWEEP_S).sweep(5.0 + SWEEP_S)
    np.testing.assert_allclose(both.directions, np.concatenate([first.directions, second.directions]), atol=1e-8)

    def repeated(pattern: SolidStatePattern) -> float:
        """Share of a sweep's rays that look within 0.01 degrees of one in the 20 sweeps before."""
        before = cKDTree(np.concatenate([pattern.sweep(5.0 + k * SWEEP_S).directions for k in range(20)]))
        apart, _ = before.query(pattern.sweep(5.0 + 20 * SWEEP_S).directions)
        return float((apart < np.deg2rad(0.01)).mean())

    assert repeated(pattern) < 0.2
    assert repeated(_rosette(prism_rpm=(7200.0, -4800.0))) == 1.0  # prisms that make 12 and 8 turns in a sweep
    closed = pattern.sweep(5.0 + 30.0)  # both prisms have made whole turns
    np.testing.assert_allclose(closed.directions, first.directions, atol=1e-8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"elevations_deg": ()},
        {"elevations_deg": (91.0,)},
        {"azimuth_steps": 0},
        {"rotation_hz": 0.0},
        {"firing_s": -1.0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_settings_of_a_spinning_pattern_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        SpinningPattern(**({"elevations_deg": (0.0,), "azimuth_steps": 10, "rotation_hz": 10.0} | wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"fov_deg": 0.0},
        {"fov_deg": 181.0},
        {"rays": 0},
        {"sweep_s": 0.0},
        {"prism_rpm": (100.0, -100.0)},
        {"prism_rpm": (1.0,)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_settings_of_a_rosette_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        _rosette(**wrong)
