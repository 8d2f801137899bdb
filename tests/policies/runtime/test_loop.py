from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import numpy as np
import pytest

from policies.base import Policy
from policies.runtime.clock import Pacer
from policies.runtime.hold import HoldPolicy
from policies.runtime.limits import SafetyLimits
from policies.runtime.loop import ControlLoop
from policies.runtime.safety import SafetyLimiter
from policies.runtime.watchdog import Watchdog
from sensors.action import Action, ActionMode, ActionSpec
from sensors.errors import SpecError, WiringError
from sensors.observation import Observation
from tests.policies.runtime.scene import HIGH_M, LOW_M, PERIOD_S, FakeClock, FakeRobot, make_observation, make_spec

LIMITS = SafetyLimits(workspace_low_m=LOW_M, workspace_high_m=HIGH_M)


class Scripted(Policy):
    """Holds, and does something at each tick (the warm-up call is tick 0)."""

    def __init__(self, spec: ActionSpec, at_tick: Callable[[int, np.ndarray], None]) -> None:
        self._hold = HoldPolicy(spec)
        self._at_tick = at_tick
        self.calls = 0

    def reset(self) -> None:
        self._hold.reset()

    def act(self, observation: Observation) -> Action:
        action = self._hold.act(observation)
        values = action.values.copy()
        self._at_tick(self.calls, values)
        self.calls += 1
        return Action(values, action.spec)


def make_loop(at_tick, mode=ActionMode.EE_POSE, **settings):
    clock, spec = FakeClock(), make_spec(mode)
    robot = FakeRobot(clock, spec)
    policy = Scripted(spec, lambda tick, values: at_tick(clock, robot, tick, values))
    return ControlLoop(robot, policy, SafetyLimiter(spec, LIMITS), clock, **settings), robot, clock


def nothing(clock, robot, tick, values) -> None:
    pass


def test_commands_leave_on_an_absolute_grid_whatever_a_tick_takes() -> None:
    def work(clock, robot, tick, values) -> None:
        clock.time_s += 0.01 + 0.05 * (tick % 2)  # every tick is late in another way, none longer than a period

    loop, robot, _ = make_loop(work)
    summary = loop.run(100.0)
    times = np.array([t for t, _ in robot.sent]) - np.array([0.01 + 0.05 * (k % 2) for k in range(1, 1201)])
    np.testing.assert_allclose(times, times[0] + np.arange(1200) * PERIOD_S, atol=1e-6)  # 1200 ticks without drift
    assert (summary.ended, summary.ticks, summary.missed) == ("duration", 1200, 0)
    assert summary.achieved_hz == pytest.approx(12.0, rel=1e-6)
    assert summary.to_json()["policy_ms"]["max"] == pytest.approx(60.0)
    assert robot.stopped.is_set()


def test_a_long_tick_is_missed_not_made_up_for() -> None:
    def work(clock, robot, tick, values) -> None:
        clock.time_s += 3.5 * PERIOD_S if tick == 5 else 0.001

    loop, _robot, _ = make_loop(work)
    summary = loop.run(20 * PERIOD_S)
    assert summary.missed == 2  # due 1 and 2 periods after the long one began; the third is half a period late
    assert summary.ticks == 18
    late = np.array(summary.started_late_s)
    assert late.max() == pytest.approx(0.5 * PERIOD_S, abs=0.002)
    assert (late > 0.001).sum() == 1  # and the one after that is on the grid again


def test_pacer_counts_every_tick_once() -> None:
    clock = FakeClock()
    pacer = Pacer(clock, 0.1)
    pacer.start(clock.now_s())
    rng, done = np.random.default_rng(0), 0
    deadline_s = 0.0
    for _ in range(500):
        deadline_s = pacer.next()
        done += 1
        clock.time_s += rng.exponential(0.08)
    assert done + pacer.missed == round((deadline_s - 100.0) / 0.1) + 1
    assert pacer.missed > 50


def test_success_ends_the_run() -> None:
    loop, robot, _ = make_loop(nothing)
    assert loop.run(10.0, done=lambda: len(robot.sent) == 7).ended == "success"
    assert len(robot.sent) == 7


def test_nan_is_held_then_stops_the_robot() -> None:
    def work(clock, robot, tick, values) -> None:
        if tick >= 10:
            values[0] = np.nan

    loop, robot, _ = make_loop(work)
    summary = loop.run(100.0)
    assert summary.ended == "safety"
    assert "not_finite" in summary.reason
    assert summary.held == 12  # one second
    assert summary.flags["not_finite"] == 13
    assert robot.stopped.is_set()
    assert np.isfinite([values for _, values in robot.sent]).all()


@pytest.mark.parametrize("how", ["blind", "frozen"])
def test_a_robot_that_sees_no_more_is_held_then_stopped(how: str) -> None:
    def work(clock, robot, tick, values) -> None:
        if tick == 0:
            setattr(robot, f"{how}_after_s", 2.0)

    loop, _robot, _ = make_loop(work)
    summary = loop.run(100.0)
    assert summary.ended == "safety"
    assert "stale:joints" in summary.reason
    assert 2.0 + 0.3 + 1.0 <= summary.duration_s <= 2.0 + 0.3 + 1.0 + 4 * PERIOD_S


def test_a_robot_that_dies_ends_the_run() -> None:
    def dies(clock, robot, tick, values) -> None:
        robot.dead = tick >= 8

    loop, robot, _ = make_loop(dies)
    summary = loop.run(100.0)
    assert (summary.ended, summary.ticks) == ("safety", 8)
    assert summary.reason == "robot 'fake': none"
    assert summary.robot == {"error": "robot 'fake': none"}
    assert robot.stopped.is_set()


def test_a_policy_that_raises_leaves_a_stopped_robot() -> None:
    def work(clock, robot, tick, values) -> None:
        if tick == 4:
            raise ZeroDivisionError

    loop, robot, _ = make_loop(work)
    with pytest.raises(ZeroDivisionError):
        loop.run(100.0)
    assert robot.stopped.is_set()


def test_sigint_ends_the_run_in_order() -> None:
    def work(clock, robot, tick, values) -> None:
        if tick == 5:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    loop, robot, _ = make_loop(work)
    summary = loop.run(100.0)
    assert (summary.ended, summary.ticks) == ("interrupt", 5)
    assert robot.stopped.is_set()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_sigint_ends_it_at_once_and_still_stops_the_robot() -> None:
    def work(clock, robot, tick, values) -> None:
        if tick == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    loop, robot, _ = make_loop(work)
    with pytest.raises(KeyboardInterrupt):
        loop.run(100.0)
    assert robot.stopped.is_set()


def test_a_hanging_policy_is_stopped_by_the_watchdog() -> None:
    def work(clock, robot, tick, values) -> None:
        if tick == 3:
            clock.time_s += 1.0
            assert robot.stopped.wait(30)  # only the watchdog's thread can end this

    loop, _robot, _ = make_loop(work, watchdog_s=0.2)
    summary = loop.run(100.0)
    assert summary.ended == "safety"
    assert "watchdog" in summary.reason
    assert summary.ticks == 2


def test_watchdog_bites_once_and_only_when_hungry() -> None:
    clock, bites = FakeClock(), []
    dog = Watchdog(0.1, lambda: bites.append(1), clock)
    for _ in range(20):
        clock.time_s += 0.09
        assert not dog.check()
        dog.feed()
    clock.time_s += 0.11
    assert dog.check()
    assert dog.check()
    assert bites == [1]


def test_a_run_in_another_thread_leaves_signals_alone() -> None:
    loop, _robot, _ = make_loop(nothing)
    found = []
    thread = threading.Thread(target=lambda: found.append(loop.run(1.0)))
    thread.start()
    thread.join(30)
    assert found[0].ticks == 12


def test_the_first_command_waits_for_sensors_and_warms_the_policy_up() -> None:
    loop, robot, clock = make_loop(nothing)
    plain, seen = robot.observe, []

    def late() -> Observation:
        seen.append(clock.now_s())
        return plain() if clock.now_s() > 100.5 else make_observation(clock.now_s() - 100.0, valid=False)

    robot.observe = late  # type: ignore[method-assign]
    summary = loop.run(1.0)
    assert (summary.ended, summary.ticks) == ("duration", 12)
    assert robot.sent[0][0] > 100.5
    assert loop._policy.calls == 13


def test_blind_from_the_start_never_commands() -> None:
    loop, robot, clock = make_loop(nothing, ready_s=1.0)
    robot.observe = lambda: make_observation(clock.now_s() - 100.0, valid=False)  # type: ignore[method-assign]
    summary = loop.run(1.0)
    assert (summary.ended, summary.ticks, robot.sent) == ("safety", 0, [])


def test_losing_patience_with_blind_sensors_is_an_interrupt() -> None:
    loop, robot, clock = make_loop(nothing, ready_s=1e6)

    def blind() -> Observation:
        if clock.now_s() > 101.0:
            os.kill(os.getpid(), signal.SIGINT)
        return make_observation(clock.now_s() - 100.0, valid=False)

    robot.observe = blind  # type: ignore[method-assign]
    summary = loop.run(1.0)
    assert (summary.ended, summary.reason, robot.sent) == ("interrupt", "", [])


def test_starts_in_phase_with_a_sensor() -> None:
    loop, robot, clock = make_loop(nothing, phase_sensor="joints", phase_s=0.01)

    def at_twelve_hz() -> Observation:
        now_s = clock.now_s() - 99.96
        return make_observation(now_s, age_s=now_s % PERIOD_S)

    robot.observe = at_twelve_hz  # type: ignore[method-assign]
    summary = loop.run(5.0)
    assert max(summary.age_s) < 0.015


def test_wiring_is_checked_before_anything_moves() -> None:
    clock = FakeClock()
    pose, delta = make_spec(ActionMode.EE_POSE), make_spec(ActionMode.EE_DELTA)
    limiter = SafetyLimiter(pose, LIMITS)
    with pytest.raises(WiringError, match="limiter"):
        ControlLoop(FakeRobot(clock, delta), HoldPolicy(delta), limiter, clock)
    robot = FakeRobot(clock, pose)
    with pytest.raises(WiringError, match="trained with"):
        ControlLoop(robot, HoldPolicy(delta), limiter, clock).run(1.0)
    with pytest.raises(SpecError, match="rate_hz"):
        ControlLoop(robot, HoldPolicy(pose), limiter, clock, rate_hz=24.0)
    with pytest.raises(WiringError, match="phase_sensor"):
        ControlLoop(robot, HoldPolicy(pose), limiter, clock, phase_sensor="front").run(1.0)
    assert robot.sent == []


def test_summary_reads_well() -> None:
    loop, _, _ = make_loop(nothing)
    text = str(loop.run(2.0))
    assert "24 commands at 12.00 of 12 Hz" in text
    assert "p95" in text
