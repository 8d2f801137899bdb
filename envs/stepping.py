"""Stepping: physics, what the scene does by itself, and the sensors, advanced together by control periods."""

from __future__ import annotations

import math
from typing import final

from envs.tasks.base import Task
from envs.world import PyBulletWorld
from sensors.errors import SpecError
from sensors.rig import SensorRig

EPSILON, EPSILON_S = 1e-6, 1e-6
LOOK_S = 1.0  # sensors that drop frames or delay them get this much longer to show the scene anew


@final
class Stepping:
    """One environment's time.

    Args:
        world: what is stepped.
        task: told after every stretch of physics.
        rig: read exactly when its sensors are due.
        physics_hz: physics steps per second.
        control_hz: control periods per second; must divide ``physics_hz``, as must every sensor's rate.

    Raises:
        SpecError: rates that do not fit together.
    """

    def __init__(self, world: PyBulletWorld, task: Task, rig: SensorRig, physics_hz: float, control_hz: float) -> None:
        self._world, self._task, self._rig, self._physics_hz = world, task, rig, physics_hz
        self._substeps = _divided("RobotEnv, control_hz", physics_hz, control_hz)
        every = [_divided(f"sensor '{name}', rate_hz", physics_hz, rate) for name, rate in rig.rates_hz.items()]
        self._common = math.lcm(self._substeps, *every)  # physics steps between moments at which every sensor measures
        spans = [rig.history[name] / rate for name, rate in rig.rates_hz.items()]
        self._look_periods = math.ceil((max(spans, default=0.0) + LOOK_S) * control_hz)

    def period(self) -> None:
        """One control period; the rig is read in between, exactly when sensors are due."""
        left = self._substeps
        while left:
            wait_s = self._rig.next_due_s - self._world.time_s
            # At least one: what is due now has been read at the end of the last period.
            count = left if wait_s == math.inf else min(max(round(wait_s * self._physics_hz), 1), left)
            self._world.step(count)
            self._task.update()
            left -= count
            self._rig.tick(self._world.time_s)

    def blind(self) -> None:
        """One control period in which no sensor is read; :meth:`refresh` has to follow before anyone looks."""
        self._world.step(self._substeps)
        self._task.update()

    def refresh(self) -> None:
        """Control periods, at least one, until all that the rig shows was measured after this moment.

        That is the whole history of every sensor. Frames that were dropped count as shown, late ones are waited for.
        """
        since_s = self._world.time_s
        # The rig reads all that is overdue at its first tick: at a moment at which every sensor measures anyway.
        self.blind()
        while round(self._world.time_s * self._physics_hz) % self._common:
            self.blind()
        self._rig.tick(self._world.time_s)
        for _ in range(self._look_periods):
            now_s = self._world.time_s
            streams = self._rig.observe(now_s).streams.values()
            if all(float(stream.age_s.max()) <= now_s - since_s + EPSILON_S for stream in streams):
                return
            self.period()


def _divided(where: str, physics_hz: float, rate_hz: float) -> int:
    """How many physics steps one period of ``rate_hz`` takes."""
    steps = physics_hz / rate_hz if rate_hz > 0 else 0.0
    if steps < 1 or abs(steps - round(steps)) > EPSILON:
        raise SpecError(
            where,
            f"a rate that divides physics_hz = {physics_hz:g}",
            f"{rate_hz:g}",
            "Use e.g. 12, 24, 60, 120 or 240 Hz.",
        )
    return round(steps)
