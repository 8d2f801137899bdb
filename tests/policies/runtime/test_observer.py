"""Who watches a control loop: told of every tick, and never in its way."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from perceive.viewing.live import LiveSink, LiveView
from policies.runtime.hold import HoldPolicy
from policies.runtime.limits import SafetyLimits
from policies.runtime.loop import ControlLoop
from policies.runtime.safety import SafetyLimiter
from sensors.action import ActionMode
from sensors.observation import Observation
from tests.policies.runtime.scene import HIGH_M, LOW_M, FakeClock, FakeRobot, make_spec


def watched(observer: Callable[[Observation], None]) -> tuple[ControlLoop, FakeRobot]:
    clock, spec = FakeClock(), make_spec(ActionMode.EE_POSE)
    robot = FakeRobot(clock, spec)
    limiter = SafetyLimiter(spec, SafetyLimits(workspace_low_m=LOW_M, workspace_high_m=HIGH_M))
    return ControlLoop(robot, HoldPolicy(spec), limiter, clock, observer=observer), robot


def test_every_tick_is_told_after_its_command() -> None:
    told: list[tuple[float, int]] = []
    loop, robot = watched(lambda observation: told.append((observation.now_s, len(robot.sent))))
    assert loop.run(10.0).ticks == 120
    assert [sent for _, sent in told] == list(range(1, 121))
    assert [when for when, _ in told] == pytest.approx([when - 100.0 for when, _ in robot.sent])


def test_a_watcher_that_raises_leaves_a_stopped_robot() -> None:
    def broken(_observation: Observation) -> None:
        raise ZeroDivisionError

    loop, robot = watched(broken)
    with pytest.raises(ZeroDivisionError):
        loop.run(10.0)
    assert robot.stopped.is_set()


class Bad(LiveSink):
    """Hangs until it is released, or raises."""

    def __init__(self, hangs: bool) -> None:
        self.release, self._hangs = threading.Event(), hangs

    @property
    def shown(self) -> int:
        return 0

    def write(self, observation: Observation) -> None:
        if self._hangs:
            assert self.release.wait(60.0)
        raise ZeroDivisionError

    def close(self) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "raises"])
def test_a_bad_viewer_stops_neither_the_loop_nor_its_end(hangs: bool) -> None:
    sink = Bad(hangs)
    with LiveView("bad", lambda: sink, patience_s=0.01 if hangs else 60.0) as view:
        loop, robot = watched(view.show)
        summary = loop.run(100.0)  # would not end if it waited for the viewer: it is released below
    counts = view.counts()
    sink.release.set()
    assert (summary.ended, summary.ticks, summary.missed) == ("duration", 1200, 0)
    assert robot.stopped.is_set()
    assert (counts["offered"], counts["shown"]) == (1200, 0)
    assert int(counts["dropped"]) + int(counts["failed"]) == (1199 if hangs else 1200)
    assert counts["error"]
