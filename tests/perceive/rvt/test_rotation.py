"""Bins of Euler angles: the convention (against scipy), exactness at the centres, the gimbal rule, the error bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from perceive.rvt.rotation import RotationBins, euler_of, matrix_of
from sensors.errors import SpecError

UP, DOWN, ZERO = 54, 18, 36  # bins of +90, -90 and 0 degrees


def degrees(*angles: float) -> Tensor:
    """The rotation of roll, pitch, yaw about fixed axes, by scipy."""
    return torch.from_numpy(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())


def turned_deg(one: Tensor, other: Tensor) -> Tensor:
    """Angle between rotations [..., 3, 3]; well-conditioned at 0."""
    chord = (one.double() - other.double()).flatten(-2).norm(dim=-1)  # 2 sqrt(2) sin(angle / 2)
    return torch.rad2deg(2 * (chord / math.sqrt(8)).clamp_max(1).asin())


def every_bin() -> Tensor:
    return torch.cartesian_prod(*[torch.arange(72)] * 3)


def test_decode_is_scipys_extrinsic_xyz() -> None:
    bins = torch.randint(0, 72, (10_000, 3), generator=torch.Generator().manual_seed(0))
    expected = Rotation.from_euler("xyz", bins.numpy() * 5.0 - 180, degrees=True).as_matrix()
    np.testing.assert_allclose(RotationBins().decode(bins).numpy(), expected, atol=3e-7)
    intrinsic = Rotation.from_euler("XYZ", bins.numpy() * 5.0 - 180, degrees=True).as_matrix()
    assert np.abs(RotationBins().decode(bins).numpy() - intrinsic).max() > 1  # the two conventions do differ


def test_euler_angles_are_scipys() -> None:
    turns = Rotation.random(10_000, rng=np.random.default_rng(0))
    ours = torch.rad2deg(euler_of(torch.from_numpy(turns.as_matrix())))
    np.testing.assert_allclose(ours.numpy(), turns.as_euler("xyz", degrees=True), atol=1e-6)
    torch.testing.assert_close(matrix_of(torch.deg2rad(ours)), torch.from_numpy(turns.as_matrix()), atol=1e-12, rtol=0)


def test_every_bin_centre_comes_back_as_the_same_rotation() -> None:
    coder, bins = RotationBins(), every_bin()
    rotation = coder.decode(bins)
    again = coder.encode(rotation)
    torch.testing.assert_close(coder.decode(again), rotation, atol=5e-7, rtol=0)
    pitch = bins[:, 1]
    usual = (pitch > DOWN) & (pitch < UP)  # the pitches that Euler angles are written with
    assert torch.equal(again[usual], bins[usual])
    assert bool(((again[:, 1] >= DOWN) & (again[:, 1] <= UP)).all())


@pytest.mark.parametrize(("pitch", "sign"), [(UP, -1), (DOWN, 1)])
def test_gimbal_cases_give_yaw_zero_and_one_set_of_bins_per_rotation(pitch: int, sign: int) -> None:
    coder = RotationBins()
    roll, yaw = torch.cartesian_prod(torch.arange(72), torch.arange(72)).unbind(1)
    rotation = coder.decode(torch.stack([roll, torch.full_like(roll, pitch), yaw], 1))
    bins = coder.encode(rotation)
    assert bool((bins[:, 1] == pitch).all())
    assert bool((bins[:, 2] == ZERO).all())
    assert torch.equal(bins[:, 0], (roll + sign * (yaw - ZERO)) % 72)  # up: roll - yaw; down: roll + yaw
    torch.testing.assert_close(coder.decode(bins), rotation, atol=5e-7, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("short_deg", "locked"), [(0.0, True), (0.9, True), (1.1, False), (2.0, False)])
def test_pitch_snaps_within_one_degree_only(sign: int, short_deg: float, locked: bool) -> None:
    bins = RotationBins().encode(degrees(35, sign * (90 - short_deg), 100)[None])[0]
    assert int(bins[1]) == (UP if sign > 0 else DOWN)
    assert int(bins[2]) == (ZERO if locked else (100 + 180) // 5)
    assert int(bins[0]) == (((35 - sign * 100) if locked else 35) + 180) // 5 % 72


@pytest.mark.parametrize("axis", [0, 2])
def test_angles_wrap_to_bin_zero(axis: int) -> None:
    for angle, expected in ((180.0, 0), (-180.0, 0), (177.6, 0), (177.4, 71), (-177.6, 0), (-177.4, 1), (0.0, ZERO)):
        angles = [0.0, 0.0, 0.0]
        angles[axis] = angle
        bins = RotationBins().encode(degrees(*angles)[None])[0].tolist()
        assert bins[axis] == expected, angle
        assert bins[1] == ZERO


# Roll and yaw anywhere; pitch anywhere, and again where the angles lock.
ANGLE = st.floats(-180, 180)
PITCH = st.one_of(st.floats(-90, 90), st.floats(88, 90), st.floats(-90, -88))


@given(roll=ANGLE, pitch=PITCH, yaw=ANGLE)
@example(roll=2.5, pitch=2.5, yaw=2.5)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_error_is_at_most_half_a_bin_per_axis(roll: float, pitch: float, yaw: float) -> None:
    coder = RotationBins()
    rotation = degrees(roll, pitch, yaw)[None]
    bins = coder.encode(rotation)
    if abs(pitch) > 89:
        # roll and yaw are one turn, off by half a bin; the pitch by less than the degree that it snaps over
        assert float(turned_deg(coder.decode(bins), rotation)) <= 2.5 + 1 + 1e-3
        return
    centre = bins[0].double() * 5 - 180
    off = (centre - torch.tensor([roll, pitch, yaw], dtype=torch.float64) + 180) % 360 - 180
    assert float(off.abs().max()) <= 2.5 + 1e-6
    assert float(turned_deg(coder.decode(bins), rotation)) <= 7.5 + 1e-3


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_any_rotation_is_within_the_bound_and_stable(seed: int) -> None:
    coder = RotationBins()
    rotation = torch.from_numpy(Rotation.random(64, rng=np.random.default_rng(seed)).as_matrix()).float()
    bins = coder.encode(rotation)
    centre = coder.decode(bins)
    assert float(turned_deg(centre, rotation).max()) <= 7.5 + 1e-3
    torch.testing.assert_close(coder.decode(coder.encode(centre)), centre, atol=5e-7, rtol=0)
    torch.testing.assert_close(centre @ centre.transpose(1, 2), torch.eye(3).expand(64, 3, 3), atol=1e-6, rtol=0)


def test_leading_axes_are_kept_and_bins_are_integers() -> None:
    rotation = matrix_of(torch.zeros(2, 5, 3))
    bins = RotationBins().encode(rotation)
    assert (bins.shape, bins.dtype) == ((2, 5, 3), torch.int64)
    assert bool((bins == ZERO).all())
    assert RotationBins().decode(bins).shape == (2, 5, 3, 3)


def test_coarser_bins() -> None:
    coder = RotationBins(bins=8)
    assert coder.encode(degrees(0, 44, -91)[None])[0].tolist() == [4, 5, 2]


@pytest.mark.parametrize("arguments", [{"bins": 0}, {"bins": 70}, {"gimbal_deg": -0.1}, {"gimbal_deg": 2.6}])
def test_wrong_arguments_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=f"RotationBins.{next(iter(arguments))}"):
        RotationBins(**arguments)
