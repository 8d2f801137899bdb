"""Force cells and beads: sums by closed forms, and each fault of the sensors by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perceive.build import build
from sensors.errors import SpecError
from sensors.frames import PressureFrame
from sensors.tactile.beads import BeadArray
from sensors.tactile.taxels import TaxelArray
from tests.contracts import CONF, load_plain
from tests.sensors.tactile.grip_world import GripWorld

CLEAN_TAXELS = {"noise_N": 0.0, "hysteresis": 0.0}
CLEAN_BEADS = {"noise_N": 0.0, "noise": 0.0, "gain_spread": 0.0, "levels": 100001}


def _taxels(**changes: Any) -> TaxelArray:
    sensor = build(load_plain(CONF / "sensor" / "taxels_left.yaml") | CLEAN_TAXELS | changes)
    assert isinstance(sensor, TaxelArray)
    return sensor


def _beads(**changes: Any) -> BeadArray:
    sensor = build(load_plain(CONF / "sensor" / "beads_left.yaml") | CLEAN_BEADS | changes)
    assert isinstance(sensor, BeadArray)
    return sensor


def _feel(sensor: TaxelArray | BeadArray, world: GripWorld, seed: int = 0) -> PressureFrame:
    sensor.open(world)
    sensor.reset(np.random.default_rng(seed))
    return sensor.read(0.0)


def _squeezed(force_N: float, x_m: float = 0.0) -> GripWorld:  # noqa: N803  (units keep their own capital letter)
    world = GripWorld()
    world.pinch(force_N, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    world.move_box(x_m=x_m)
    return world


@pytest.mark.parametrize("sensor", [_taxels(), _beads()], ids=["taxels", "beads"])
def test_readings_add_up_to_the_force(sensor: TaxelArray | BeadArray) -> None:
    frame = _feel(sensor, _squeezed(9.0))
    assert float(frame.normal_N.sum()) == pytest.approx(9.0, rel=1e-3)
    assert frame.normal_N.dtype == np.float32
    np.testing.assert_array_equal(frame.size_m, [0.016, 0.016])
    assert not _feel(sensor, GripWorld(gap_m=0.01)).normal_N.any()


def test_a_flat_side_presses_all_cells_alike() -> None:
    np.testing.assert_allclose(_feel(_taxels(), _squeezed(9.0)).normal_N, 9.0 / 24, rtol=1e-5)


def test_the_gel_may_bear_the_load_itself() -> None:
    frame = _feel(_taxels(load="gel", max_N=50.0), GripWorld(gap_m=0.001))
    np.testing.assert_allclose(frame.normal_N, 6e7 * 0.002 * 0.016**2 / 24, rtol=1e-4)


def test_cells_beside_the_object_read_nothing() -> None:
    """The box covers half of the pad: the side towards it presses, the other does not."""
    frame = _feel(_taxels(), _squeezed(9.0, x_m=0.03))
    pressed = frame.normal_N.sum(axis=0)
    assert sorted(pressed.tolist()) == pytest.approx([0.0, 0.0, 4.5, 4.5], abs=1e-4)
    place = frame.base_from_pad @ [0.004, 0.0, 0.0, 1.0]
    assert (pressed[-1] > 0) == (place[0] > 0.5)


def test_a_cell_saturates() -> None:
    np.testing.assert_allclose(_feel(_taxels(max_N=0.2), _squeezed(9.0)).normal_N, 0.2)


def test_dead_cells_read_nothing_and_others_as_before() -> None:
    whole = _feel(_taxels(noise_N=0.01), _squeezed(9.0)).normal_N
    some = _feel(_taxels(noise_N=0.01, dead=[[0, 1], [5, 3]]), _squeezed(9.0)).normal_N
    dead = np.zeros((6, 4), bool)
    dead[[0, 5], [1, 3]] = True
    assert not some[dead].any()
    np.testing.assert_array_equal(some[~dead], whole[~dead])


def test_cells_lag_behind_their_load() -> None:
    """Up and down again: below the load on the way up, above it on the way down, at rest in between, and 0 at 0."""
    world, sensor = _squeezed(0.0), _taxels(hysteresis=0.1)
    _feel(sensor, world)
    told = []
    for force in (2.4, 4.8, 7.2, 7.0, 4.8, 2.4, 0.0):
        world.pinch(force, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
        told.append(float(sensor.read(0.0).normal_N.sum()))
    assert told == pytest.approx([2.16, 4.32, 6.48, 6.48, 5.28, 2.64, 0.0], rel=1e-4, abs=1e-6)
    sensor.reset(np.random.default_rng(0))
    world.pinch(4.8, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    assert float(sensor.read(0.0).normal_N.sum()) == pytest.approx(4.32, rel=1e-4)


def test_noise_of_cells_and_beads() -> None:
    world, cells, beads = _squeezed(12.0), _taxels(noise_N=0.05), _beads(noise=0.2)
    _feel(cells, world)
    _feel(beads, world)
    read = np.stack([cells.read(float(k)).normal_N for k in range(60)])
    assert read.std() == pytest.approx(0.05, rel=0.1)
    bead = np.stack([beads.read(float(k)).normal_N[1, 1] for k in range(150)])
    assert bead.std() / bead.mean() == pytest.approx(0.2, rel=0.2)


def test_beads_feel_what_presses_beside_them() -> None:
    """Half a pad is pressed: a sharp array reads nothing on the other side, a blurred one does."""
    world = _squeezed(9.0, x_m=0.033)  # covers less than a third of the pad
    sharp, blurred = _feel(_beads(blur_m=1e-5), world).normal_N, _feel(_beads(blur_m=0.004), world).normal_N
    free = sharp.sum(axis=0) == 0
    assert free.sum() == 2
    assert (blurred[:, free].sum(axis=0) > 0.05 * 9.0 / 3).any()
    assert float(blurred.sum()) == pytest.approx(9.0, rel=1e-3)


def test_beads_read_in_steps() -> None:
    sensor = _beads(levels=5, max_N=4.0, noise_N=0.3)
    world = _squeezed(12.0)
    read = np.stack([_feel(sensor, world, seed).normal_N for seed in range(20)])
    assert set(np.unique(read).tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert len(np.unique(read)) >= 3


def test_no_two_beads_are_alike_and_an_episode_keeps_its_own() -> None:
    world, sensor = _squeezed(12.0), _beads(gain_spread=0.15)
    first = _feel(sensor, world, 1).normal_N
    np.testing.assert_array_equal(first, sensor.read(0.1).normal_N)
    second = _feel(sensor, world, 2).normal_N
    assert (first != second).all()
    gains = np.stack([_feel(sensor, world, seed).normal_N for seed in range(60)]) / _feel(_beads(), world).normal_N
    assert gains.std() == pytest.approx(0.15, rel=0.15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dead": [[6, 0]]}, {"dead": [[0, -1]]}, {"dead": [[0]]}, {"hysteresis": 1.0}, {"hysteresis": -0.1},
        {"points": 0}, {"max_N": 0.0}, {"load": "none"}, {"stiffness_N_m3": float("nan")}, {"noise_N": -1.0},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_of_taxels_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        _taxels(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"levels": 1}, {"blur_m": 0.0}, {"gain_spread": -1.0}, {"noise": float("inf")}, {"points": 0}, {"link": ""}],
    ids=str,
)
def test_wrong_settings_of_beads_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        _beads(**wrong)
