"""ControlLoop: observe, decide, limit, command - at a fixed rate, with a defined end in every case."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final

from policies.base import Policy
from policies.runtime.clock import Clock, Pacer
from policies.runtime.robot import RobotLink
from policies.runtime.safety import SafetyLimiter
from policies.runtime.summary import RunSummary
from policies.runtime.watchdog import Watchdog
from sensors.action import Action
from sensors.errors import SafetyStop, SpecError, WiringError
from sensors.observation import Observation

POLL_S = 0.002


@final
class ControlLoop:
    """Drives a robot by a policy.

    Whatever happens - time is up, SIGINT, a hanging or raising policy, a dead robot, the limiter's wish - the robot is
    told to stop before :meth:`run` ends.

    Args:
        robot: connected.
        policy: what to do.
        limiter: made for the robot's action spec.
        clock: the loop's clock.
        rate_hz: ticks per second; None = one per period of the action spec.
        watchdog_s: a tick that takes longer stops the robot.
        ready_s: how long to wait for the first whole observation.
        phase_sensor: start right after a new frame of this sensor has come, so that ticks see fresh frames; None = at
            once.
        phase_s: how long after it.
        observer: told what was seen at every tick, after the command; it must return at once and not raise.

    Raises:
        WiringError: robot and limiter disagree about actions.
        SpecError: a number that makes no sense.
    """

    def __init__(
        self,
        robot: RobotLink,
        policy: Policy,
        limiter: SafetyLimiter,
        clock: Clock,
        rate_hz: float | None = None,
        watchdog_s: float = 0.5,
        ready_s: float = 5.0,
        phase_sensor: str | None = None,
        phase_s: float = 0.01,
        observer: Callable[[Observation], None] | None = None,
    ) -> None:
        spec = limiter.spec
        if robot.action_spec.to_json() != spec.to_json():
            raise WiringError(
                "ControlLoop", "a limiter for the robot's actions", "one for others", "Make it with robot.action_spec."
            )
        for name, value in {"rate_hz": rate_hz or 1.0, "watchdog_s": watchdog_s, "ready_s": ready_s}.items():
            if not value > 0:
                raise SpecError(f"ControlLoop.{name}", "a number > 0", repr(value), "Correct it.")
        if rate_hz is not None and rate_hz > 1.001 / spec.period_s:
            # The limiter's speeds count one command a period.
            raise SpecError(
                "ControlLoop.rate_hz",
                f"at most {1 / spec.period_s:g}, the action spec's rate",
                f"{rate_hz:g}",
                "Lower it.",
            )
        self._robot = robot
        self._policy = policy
        self._limiter = limiter
        self._clock = clock
        self._period_s = spec.period_s if rate_hz is None else 1.0 / rate_hz
        self._watchdog_s = watchdog_s
        self._ready_s = ready_s
        self._phase_sensor = phase_sensor
        self._phase_s = phase_s
        self._observer = observer
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        """Let :meth:`run` end after the present tick. May be called from a signal handler or another thread."""
        self._interrupted.set()

    def run(self, duration_s: float, done: Callable[[], bool] | None = None) -> RunSummary:
        """Drive the robot; returns in every case but a programming error, with the robot stopped.

        Args:
            duration_s: how long at most.
            done: asked after every tick; True ends the run with ``"success"``.
        """
        tally = _Tally()
        self._interrupted.clear()
        pacer = Pacer(self._clock, self._period_s)
        ended, reason, start_s = "duration", "", self._clock.now_s()
        try:
            with _sigint(self.interrupt):
                observation = self._first_observation()
                self._warm_up(observation)
                self._wait_for_phase()
                start_s = self._clock.now_s() + (self._phase_s if self._phase_sensor else 0.0)
                self._clock.wait_until(start_s)
                self._limiter.reset(self._robot.observe(), self._clock.now_s())
                pacer.start(start_s)
                with Watchdog(self._watchdog_s, self._robot.stop, self._clock) as watchdog:
                    ended = self._ticks(pacer, watchdog, tally, start_s + duration_s, done)
        except SafetyStop as error:
            # Who loses patience while the sensors are still awaited has not seen an accident.
            waiting = self._interrupted.is_set() and not tally.busy_s
            ended, reason = ("interrupt", "") if waiting else ("safety", f"{error.where}: {error.got}")
        finally:
            self._robot.stop()
        return RunSummary(
            ended=ended,
            reason=reason,
            rate_hz=1.0 / self._period_s,
            duration_s=max(self._clock.now_s() - start_s, 0.0),
            ticks=len(tally.busy_s),
            missed=pacer.missed,
            started_late_s=tally.late_s,
            busy_s=tally.busy_s,
            policy_s=tally.policy_s,
            age_s=tally.age_s,
            held=tally.held,
            flags=dict(self._limiter.counts),
            robot=self._last_words(),
        )

    def _ticks(
        self, pacer: Pacer, watchdog: Watchdog, tally: _Tally, end_s: float, done: Callable[[], bool] | None
    ) -> str:
        while True:
            deadline_s = pacer.next()
            if deadline_s >= end_s - 1e-9:
                return "duration"
            if self._interrupted.is_set():
                return "interrupt"
            watchdog.feed()
            began_s = self._clock.now_s()
            observation = self._robot.observe()
            seen_s = self._clock.now_s()
            action = self._policy.act(observation)
            decided_s = self._clock.now_s()
            limited = self._limiter.limit(action, observation, decided_s)
            if watchdog.check():
                raise SafetyStop(
                    "ControlLoop", f"a tick within {self._watchdog_s:g} s", "a longer one; the watchdog stopped it",
                    "Use a smaller or faster policy, or a free core.",
                )  # fmt: skip
            if limited.stop is not None:
                raise SafetyStop("SafetyLimiter", "a policy and sensors that work", limited.stop, "See the flags.")
            self._robot.command(limited.action)
            if self._observer is not None:
                self._observer(observation)
            tally.add(
                began_s - deadline_s, self._clock.now_s() - began_s, decided_s - seen_s, _age(observation), limited.hold
            )
            if done is not None and done():
                return "success"

    def _first_observation(self) -> Observation:
        """The first observation in which the limiter finds all that it needs."""
        give_up_s = self._clock.now_s() + self._ready_s
        while True:
            observation = self._robot.observe()
            try:
                self._limiter.reset(observation, self._clock.now_s())
            except SafetyStop:
                if self._clock.now_s() >= give_up_s or self._interrupted.is_set():
                    raise
                self._clock.wait_until(self._clock.now_s() + POLL_S)
            else:
                return observation

    def _wait_for_phase(self) -> None:
        """Until a frame of the phase sensor comes that was not there before."""
        name = self._phase_sensor
        if name is None:
            return
        observation = self._robot.observe()
        if name not in observation.streams:
            raise WiringError(
                "ControlLoop.phase_sensor", f"one of {sorted(observation.streams)}", f"'{name}'", "Correct it."
            )
        seen_s = _stamp(observation, name)
        give_up_s = self._clock.now_s() + self._ready_s
        while _stamp(observation, name) <= seen_s + 1e-6:
            if self._clock.now_s() >= give_up_s:
                raise SafetyStop(
                    "ControlLoop", f"new frames of '{name}'", f"none in {self._ready_s:g} s", "Check the sensor."
                )
            self._clock.wait_until(self._clock.now_s() + POLL_S)
            observation = self._robot.observe()

    def _warm_up(self, observation: Observation) -> None:
        """The policy's first call, many times slower than the later ones, while the robot does not move yet."""
        self._policy.reset()
        action: Action = self._policy.act(observation)
        self._policy.reset()
        if action.spec.to_json() != self._limiter.spec.to_json():
            mine, its = self._limiter.spec, action.spec
            raise WiringError(
                "ControlLoop",
                f"actions of the robot: {mine.mode.value} [{mine.size}] every {mine.period_s:.4f} s",
                f"{its.mode.value} [{its.size}] every {its.period_s:.4f} s, or other bounds, from the policy",
                "Set up the robot with the action mode and rate that the policy was trained with.",
            )

    def _last_words(self) -> dict[str, float | bool | str]:
        try:
            return dict(self._robot.report())
        except SafetyStop as error:  # a dead robot cannot report; the summary must come all the same
            return {"error": f"{error.where}: {error.got}"}


class _Tally:
    """What is noted of every tick."""

    def __init__(self) -> None:
        self.late_s: list[float] = []
        self.busy_s: list[float] = []
        self.policy_s: list[float] = []
        self.age_s: list[float] = []
        self.held = 0

    def add(self, late_s: float, busy_s: float, policy_s: float, age_s: float, held: bool) -> None:
        """Note one tick."""
        self.late_s.append(late_s)
        self.busy_s.append(busy_s)
        self.policy_s.append(policy_s)
        self.age_s.append(age_s)
        self.held += held


def _age(observation: Observation) -> float:
    """Age of the newest frame of the sensor that is furthest behind, of those that answer at all."""
    return max((float(s.age_s[-1]) for s in observation.streams.values() if s.valid[-1]), default=0.0)


def _stamp(observation: Observation, name: str) -> float:
    stream = observation.streams[name]
    return observation.now_s - float(stream.age_s[-1]) if stream.valid[-1] else float("-inf")


@contextmanager
def _sigint(handler: Callable[[], None]) -> Iterator[None]:
    """Call ``handler`` at the first SIGINT inside the block; a second one acts as before it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return

    def first(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        handler()

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
