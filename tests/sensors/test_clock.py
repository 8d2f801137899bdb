"""ClockMap against clocks whose truth is known: drift, long delays, wild stamps, restarts, steps, slow networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.alignment import Alignment
from sensors.clock import ClockMap
from sensors.errors import SensorError, SpecError
from sensors.geometry import FloatArray
from tests.benchmarks.bench_skew import SOURCES, captures, make_rig, play

KINDS = ("exponential", "lognormal", "pareto", "half_normal", "batches")


def delays(kind: str, n: int, scale_s: float, rng: np.random.Generator) -> FloatArray:
    """Seconds [n] beyond the shortest delay. Pareto with exponent 1.5 has no variance; batches come ten at once."""
    drawn = {
        "exponential": lambda: rng.exponential(1.0, n),
        "lognormal": lambda: np.exp(rng.normal(size=n)),
        "pareto": lambda: rng.pareto(1.5, n),
        "half_normal": lambda: np.abs(rng.normal(size=n)),
        "batches": lambda: (np.arange(n)[::-1] % 10) / 5.0,
    }
    return np.asarray(scale_s * drawn[kind]())


@dataclass(frozen=True, eq=False)
class Run:
    """What arrives of a device: true capture, device's stamp as it should be, stamp as it came, arrival."""

    true_s: FloatArray
    device_s: FloatArray
    stamp_s: FloatArray
    arrived_s: FloatArray
    median_delay_s: float

    def feed(self, clock: ClockMap, start: int = 0, stop: int | None = None) -> None:
        for stamp_s, arrived_s in self.pairs(start, stop):
            clock.update(stamp_s, arrived_s)

    def pairs(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[float, float]]:
        return zip(self.stamp_s[start:stop].tolist(), self.arrived_s[start:stop].tolist(), strict=True)

    def error_s(self, clock: ClockMap, at: int = -1) -> float:
        return clock.host_s(float(self.device_s[at])) - float(self.true_s[at])


def run(kind: str, rate_hz: float, seconds: float, scale_s: float, drift: float, seed: int, wild: float = 0.05) -> Run:
    """A sensor's readings; of its stamps a share ``wild`` is wrong, half of these by up to 0.4 s and half by 30 s."""
    rng = np.random.default_rng(seed)
    n = round(rate_hz * seconds)
    true_s = 100.0 + np.arange(n) / rate_hz
    device_s = 7000.0 + (true_s - 100.0) / (1.0 + drift)
    late_s = delays(kind, n, scale_s, rng)
    off_s = np.where(rng.random(n) < 0.5, rng.uniform(-0.4, 0.4, n), rng.uniform(-30.0, 30.0, n))
    stamp_s = device_s + np.where(rng.random(n) < wild, off_s, 0.0)
    return Run(true_s, device_s, stamp_s, true_s + late_s, float(np.median(late_s)))


@given(
    kind=st.sampled_from(KINDS),
    rate_hz=st.sampled_from([30.0, 60.0, 200.0]),
    scale_s=st.floats(1e-4, 1e-2),
    drift=st.floats(-5e-4, 5e-4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40)
def test_after_ten_seconds_the_error_is_below_its_bound(
    kind: str, rate_hz: float, scale_s: float, drift: float, seed: int
) -> None:
    made, clock = run(kind, rate_hz, 30.0, scale_s, drift, seed), ClockMap()
    fed = 0
    for moment_s in (10.0, 13.7, 20.0, 30.0):
        made.feed(clock, fed, fed := round(moment_s * rate_hz))
        assert abs(made.error_s(clock, fed - 1)) < 1e-4 + 0.5 * made.median_delay_s, moment_s
    assert abs(clock.drift - drift) < 2e-5 + 0.1 * made.median_delay_s


@pytest.mark.parametrize("rate_hz", [10.0, 30.0, 1000.0])
def test_two_uncertainties_hold_the_error_in_ninety_five_percent(rate_hz: float) -> None:
    """At every age of the map, from a third of a second on; and it says more than "somewhere"."""
    held, width = [], []
    for seed, kind in itertools.product(range(8 if rate_hz < 100 else 2), KINDS):
        rng = np.random.default_rng([seed, 9])
        made = run(kind, rate_hz, 20.0, 10 ** rng.uniform(-4, -2), rng.uniform(-5e-4, 5e-4), seed)
        clock, fed = ClockMap(), 0
        for moment_s in (0.4, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 20.0):
            made.feed(clock, fed, fed := round(moment_s * rate_hz))
            held.append(abs(made.error_s(clock, fed - 1)) <= 2 * clock.uncertainty_s)
        width.append(clock.uncertainty_s / made.median_delay_s)
    assert np.mean(held) >= 0.95
    assert np.median(width) < 0.7
    assert max(width) < 1.5


@given(drift=st.floats(-5e-4, 5e-4), delay_s=st.floats(0.0, 0.2), seed=st.integers(0, 2**31))
@settings(max_examples=20)
def test_a_constant_delay_is_mapped_exactly_whatever_the_wild_stamps(drift: float, delay_s: float, seed: int) -> None:
    made, clock = run("exponential", 100.0, 20.0, 0.0, drift, seed), ClockMap()
    for stamp_s, arrived_s in made.pairs():
        clock.update(stamp_s, arrived_s + delay_s)
    # The first cells are smeared by the drift, which was not known yet; without a drift nothing is left.
    assert made.error_s(clock) == pytest.approx(delay_s, abs=1e-9 + 0.3 * abs(drift))
    assert clock.drift == pytest.approx(drift, abs=1e-11 + 0.1 * abs(drift))
    assert clock.offset_s == pytest.approx(100.0 - 7000.0 + delay_s + 20.0 * drift / (1 + drift), abs=5e-4)


def test_wild_stamps_alone_are_no_restart() -> None:
    made, clock = run("exponential", 1000.0, 20.0, 0.002, 1e-4, 3), ClockMap()
    made.feed(clock, 0, 100)
    before = clock.restarts  # the very first stamp may have been a wild one
    made.feed(clock, 100)
    assert clock.restarts == before
    assert clock.count > 18_000


@given(
    jump_s=st.one_of(st.floats(0.6, 1e5), st.floats(-6900.0, -0.6)),
    rate_hz=st.sampled_from([10.0, 30.0, 400.0]),
    drift=st.floats(-5e-4, 5e-4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25)
def test_a_device_that_restarts_is_mapped_again_within_a_second(
    jump_s: float, rate_hz: float, drift: float, seed: int
) -> None:
    made, clock = run("exponential", rate_hz, 31.0, 0.003, drift, seed), ClockMap()
    half, more = round(15 * rate_hz), round(16 * rate_hz)
    made.feed(clock, 0, half)
    restarts, learned = clock.restarts, clock.drift
    for stamp_s, arrived_s in made.pairs(half, more):
        clock.update(stamp_s + jump_s, arrived_s)
    assert clock.restarts >= restarts + 1
    assert clock.drift == learned, "the crystal is still the same"
    error_s = clock.host_s(float(made.device_s[more - 1]) + jump_s) - made.true_s[more - 1]
    assert abs(error_s) < 0.02
    for stamp_s, arrived_s in made.pairs(more):
        clock.update(stamp_s + jump_s, arrived_s)
    assert abs(clock.host_s(float(made.device_s[-1]) + jump_s) - made.true_s[-1]) < 1e-4 + 0.5 * made.median_delay_s


@pytest.mark.parametrize(("step_s", "cells"), [(0.05, 3), (0.3, 3), (-0.05, 6), (-0.3, 6)])
def test_a_small_step_of_the_devices_clock_is_followed(step_s: float, cells: int) -> None:
    """Forward within three cells (6 s), since nothing arrives before it was sent; back within six."""
    made, clock = run("exponential", 100.0, 60.0, 0.002, 2e-4, 1), ClockMap()
    half, after = 3000, 3000 + 200 * (cells + 1)
    made.feed(clock, 0, half)
    for stamp_s, arrived_s in made.pairs(half, after):
        clock.update(stamp_s + step_s, arrived_s)
    assert clock.restarts == 1
    assert abs(clock.host_s(float(made.device_s[after]) + step_s) - made.true_s[after]) < 1e-3


def test_a_network_that_is_slow_for_eight_seconds_moves_nothing() -> None:
    made, clock = run("exponential", 100.0, 60.0, 0.002, 2e-4, 2), ClockMap()
    made.feed(clock, 0, 3000)
    worst_s = 0.0
    for index, (stamp_s, arrived_s) in enumerate(made.pairs(3000), start=3000):
        clock.update(stamp_s, arrived_s + (0.03 if 3400 <= index < 4200 else 0.0))
        worst_s = max(worst_s, abs(made.error_s(clock, index)))
    assert clock.restarts == 0
    assert worst_s < 2e-3


def test_a_burst_that_was_held_up_is_no_restart() -> None:
    """Three seconds of frames arrive at once, each later than the next by a period."""
    for rate_hz in (10.0, 30.0, 1000.0):
        made, clock = run("exponential", rate_hz, 20.0, 0.002, 0.0, 4, wild=0.0), ClockMap()
        start, stop = round(10 * rate_hz), round(13 * rate_hz)
        made.feed(clock, 0, start)
        for index, (stamp_s, _) in enumerate(made.pairs(start, stop)):
            assert clock.update(stamp_s, float(made.true_s[stop]) + 1e-4 * index), "late, yet its stamp is right"
        assert clock.restarts == 0
        assert abs(made.error_s(clock, stop - 1)) < 2e-3
        made.feed(clock, stop)
        assert abs(made.error_s(clock)) < 1e-3


def test_update_says_whether_a_stamp_can_be_right() -> None:
    clock = ClockMap()
    for k in range(100):
        assert clock.update(k * 0.01, 50.0 + k * 0.01 + 0.004 * (k % 3))
    assert clock.update(1.0, 51.3), "late"
    assert clock.update(1.0, 60.0), "very late"
    assert not clock.update(1.1, 51.0), "0.1 s after its own arrival"
    assert not clock.update(9.0, 51.0), "8 s after it"
    assert not clock.update(math.nan, 51.0)
    assert not clock.update(1.0, math.inf)
    assert clock.host_s(1.01) == pytest.approx(51.01, abs=1e-6)


def test_mapped_stamps_of_a_fast_sensor_stay_in_order() -> None:
    made, clock = run("exponential", 1000.0, 15.0, 0.003, 3e-4, 5, wild=0.0), ClockMap()
    mapped = []
    for stamp_s, arrived_s in made.pairs():
        clock.update(stamp_s, arrived_s)
        mapped.append(clock.host_s(stamp_s))
    assert (np.diff(mapped[5000:]) > 0).all()


def test_late_and_disordered_readings_do_no_harm() -> None:
    made, clock = run("exponential", 60.0, 20.0, 0.004, 4e-4, 6), ClockMap()
    order = np.argsort(np.arange(len(made.true_s)) + np.random.default_rng(0).uniform(0, 30, len(made.true_s)))
    for index in order:
        clock.update(float(made.stamp_s[index]), float(made.arrived_s[index]))
    assert abs(made.error_s(clock)) < 1e-4 + 0.5 * made.median_delay_s


def test_the_drift_that_is_believed_is_bounded() -> None:
    clock = ClockMap(max_drift=1e-4)
    for k in range(1000):
        clock.update(k * 0.02, k * 0.02 * 1.0005)
    assert clock.drift == 1e-4


def test_the_first_readings_and_none() -> None:
    clock = ClockMap()
    assert math.isnan(clock.offset_s)
    assert clock.uncertainty_s == math.inf
    assert (clock.drift, clock.count, clock.restarts) == (0.0, 0, 0)
    with pytest.raises(SensorError, match="at least one reading"):
        clock.host_s(1.0)
    clock.update(5.0, 105.5)
    assert clock.host_s(6.0) == 106.5
    assert clock.uncertainty_s == math.inf, "one reading says nothing of its own delay"
    clock.update(5.1, 105.4)
    assert clock.host_s(6.0) == pytest.approx(106.3)
    assert 0.2 <= clock.uncertainty_s < 1.0
    clock.restart()
    assert (clock.count, clock.restarts) == (0, 1)
    assert math.isnan(clock.offset_s)
    assert clock.uncertainty_s == math.inf
    with pytest.raises(SensorError):
        clock.host_s(1.0)


@pytest.mark.parametrize("wrong", [{"window_s": 0.0}, {"cells": 2}, {"max_drift": 1.0}, {"max_drift": -1e-9}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="ClockMap"):
        ClockMap(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["triggered", "free-running"])
def test_what_an_aligned_rig_shows_is_true_to_within_the_maps_uncertainty(way: str) -> None:
    """Three devices with clocks of their own, known from noisy arrivals only, show the true time of their captures."""
    played = {}
    for key, (name, source) in enumerate(SOURCES.items()):
        rng = np.random.default_rng([4, key])
        played[name] = play(source, captures(way, source, 25.0, rng), rng)
    rig = make_rig(played, SOURCES, Alignment())
    rig.open(None)
    rig.reset(0.0, 0)
    checked = 0
    for now_s in np.arange(0.0, 25.0, 1 / 31).tolist():
        rig.tick(now_s)
        streams = rig.observe(now_s).streams
        for name, stream in streams.items():
            if now_s > 10.0 and stream.valid[0]:
                checked += 1
                error_s = now_s - float(stream.age_s[0]) - float(stream.data["time_s"][0, 0])
                known_s = played[name].uncertainty_s[np.searchsorted(played[name].arrived_s, now_s) - 1]
                assert abs(error_s) <= 2 * known_s + 3 * 0.0005, name  # and of the latencies, which are measured
        if now_s > 10.0:
            assert streams["state_1000"].valid[0]
    assert checked > 0.95 * 3 * 15 * 31
