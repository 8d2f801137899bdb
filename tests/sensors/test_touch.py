"""The fingertip's gel against closed forms: a box gripped flat, at an edge, turned, and not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sensors.errors import SpecError
from sensors.frames import TactileFrame
from sensors.geometry import transform_points
from sensors.timeline import Timing
from sensors.touch import FingertipTouch
from tests.contracts import CONF, load_plain
from tests.fake_world import FakeWorld

GEL_M = 0.003


def _finger(side: str = "left", **changes: Any) -> FingertipTouch:
    config = load_plain(CONF / "sensor" / f"touch_{side}.yaml")
    config = {key: value for key, value in config.items() if key not in ("_target_", "timing")}
    return FingertipTouch(timing=Timing(rate_hz=12.0), **(config | {"noise_m": 0.0} | changes))


def _feel(world: FakeWorld, side: str = "left", **changes: Any) -> TactileFrame:
    sensor = _finger(side, **changes)
    sensor.open(world)
    sensor.reset(np.random.default_rng(0))
    return sensor.read(0.0)


def _grip(gap_m: float, **changes: Any) -> FakeWorld:
    """A gripper whose pads are ``gap_m`` away from the sides of a 60 mm box."""
    return FakeWorld(**({"gripper_m": 0.06 + 2 * gap_m} | changes))


@pytest.mark.parametrize("side", ["left", "right"])
def test_pads_look_at_each_other(side: str) -> None:
    frame = _feel(_grip(0.005), side)
    toward = -1.0 if side == "right" else 1.0  # the gripper points down, so the hand's y is the base's -y
    np.testing.assert_allclose(frame.base_from_pad[:3, 2], [0.0, toward, 0.0], atol=1e-6)  # +z out of the gel
    np.testing.assert_allclose(frame.base_from_pad[:3, 1], [0.0, 0.0, -1.0], atol=1e-6)  # +y towards the fingertip
    # The tool point is the middle between the pads, 58.4 + 45 mm down the hand.
    np.testing.assert_allclose(frame.base_from_pad[:3, 3], [0.5, -toward * 0.035, 0.03], atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("gap_m", [-0.001, 0.0, 0.001, 0.0029])
def test_a_flat_side_presses_evenly_by_how_far_it_reaches_in(side: str, gap_m: float) -> None:
    frame = _feel(_grip(gap_m), side)
    np.testing.assert_allclose(frame.indentation_m, min(GEL_M - gap_m, GEL_M), atol=1e-6)
    assert frame.indentation_m.shape == (16, 12)
    np.testing.assert_array_equal(frame.size_m, [0.016, 0.016])


@pytest.mark.parametrize("gap_m", [0.0031, 0.0035, 0.02])
def test_what_does_not_reach_the_gel_is_not_felt(gap_m: float) -> None:
    assert not _feel(_grip(gap_m)).indentation_m.any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_picture_is_the_right_way_up_and_round(side: str) -> None:
    """Pressed taxels lie where the box is: their places are inside its silhouette, those of the others outside."""
    world = _grip(0.001, box_middle_m=(0.527, 0.0, 0.0), box_quaternion_xyzw=(0.0, 0.0, 0.0, 1.0))
    frame = _feel(world, side)
    rows, columns = frame.indentation_m.shape
    y, x = np.meshgrid(
        ((np.arange(rows) + 0.5) / rows - 0.5) * frame.size_m[0],
        ((np.arange(columns) + 0.5) / columns - 0.5) * frame.size_m[1],
        indexing="ij",
    )
    places = transform_points(frame.base_from_pad, np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3))
    inside = (np.abs(places[:, 0] - 0.527) < 0.03) & (places[:, 2] < 0.03)
    assert 0 < inside.sum() < inside.size
    np.testing.assert_array_equal(frame.indentation_m.ravel() > 0, inside)
    column_pressed = (frame.indentation_m > 0).any(axis=0)
    # The box lies towards the base's +x, which is the left finger's right-hand side and the right finger's left.
    assert column_pressed[-1 if side == "left" else 0]
    assert not column_pressed[0 if side == "left" else -1]


def test_a_slanted_side_presses_along_a_ramp() -> None:
    """A box turned by 0.1 rad about the vertical: the slope across the pad is tan 0.1."""
    world = FakeWorld(box_quaternion_xyzw=(0.0, 0.0, np.sin(0.05), np.cos(0.05)), gripper_m=0.0633)
    frame = _feel(world, gel_m=0.005)
    slope = np.diff(frame.indentation_m, axis=1) / (0.016 / 12)
    np.testing.assert_allclose(np.abs(slope), np.tan(0.1), rtol=1e-3)
    assert len(set(np.sign(slope).ravel())) == 1
    np.testing.assert_allclose(np.diff(frame.indentation_m, axis=0), 0.0, atol=1e-7)


def test_noise_leaves_untouched_taxels_at_zero_and_pressed_ones_in_range() -> None:
    world = _grip(0.001, box_middle_m=(0.53, 0.0, 0.03))
    clean, noisy = _feel(world).indentation_m, _feel(world, noise_m=0.0005).indentation_m
    np.testing.assert_array_equal(noisy[clean == 0], 0.0)
    assert (noisy != clean).any()
    assert noisy.min() >= 0
    assert noisy.max() <= np.float32(GEL_M)
    pressed = clean > 0
    assert (noisy - clean)[pressed].std() == pytest.approx(0.0005, rel=0.2)


def test_rays_are_cast_only_when_something_is_near() -> None:
    class _Counting(FakeWorld):
        casts = 0

        def ray_cast(self, start_m: Any, end_m: Any) -> Any:
            type(self).casts += 1
            return super().ray_cast(start_m, end_m)

    far = _Counting(gripper_m=0.08)
    _feel(far)
    assert _Counting.casts == 0
    _feel(_Counting(gripper_m=0.061))
    assert _Counting.casts == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"link": ""},
        {"position_m": (0.0, 0.0)},
        {"quaternion_xyzw": (0.0, 0.0, 1.0)},
        {"rows": 0},
        {"columns": 0},
        {"height_m": 0.0},
        {"width_m": -1.0},
        {"gel_m": 0.0},
        {"noise_m": -1.0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        _finger(**wrong)
