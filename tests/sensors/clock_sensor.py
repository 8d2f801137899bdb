"""A sensor that measures the time and a random number: what goes wrong with time shows as a wrong number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.base import Sensor, World
from sensors.errors import SensorError
from sensors.frames import Frame
from sensors.spec import box
from sensors.timeline import Timing

PHYSICS_HZ = 240


@dataclass(frozen=True, eq=False, kw_only=True)
class ClockFrame(Frame):
    """clock_s float64 [1], the world's time at capture; noise float64 [1]."""

    clock_s: NDArray[np.float64]
    noise: NDArray[np.float64]


@final
class ClockSensor(Sensor):
    """Reports the world's time. ``fails``: moments at which it gives nothing; ``corrupts``: at which it gives NaN."""

    def __init__(self, timing: Timing, fails: tuple[float, ...] = (), corrupts: tuple[float, ...] = ()) -> None:
        self._timing = timing
        self._fails, self._corrupts = fails, corrupts
        self._world: World | None = None
        self._rng = np.random.default_rng(0)
        self.reads = 0
        self.closed = 0

    @property
    def space(self) -> spaces.Dict:
        return spaces.Dict({"clock_s": box(0, 1e9, (1,), np.float64), "noise": box(-100, 100, (1,), np.float64)})

    @property
    def timing(self) -> Timing:
        return self._timing

    def open(self, world: World | None) -> None:
        if world is None:
            raise SensorError("ClockSensor.open", "a World", "None", "Give it one.")
        self._world = world

    def reset(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def read(self, now_s: float) -> ClockFrame | None:
        if self._world is None:
            raise SensorError("ClockSensor.read", "an open sensor", "a closed one", "Open it.")
        self.reads += 1
        if _among(now_s, self._fails):
            return None
        clock = np.nan if _among(now_s, self._corrupts) else self._world.time_s
        return ClockFrame(stamp_s=now_s, clock_s=np.array([clock]), noise=self._rng.normal(size=1))

    def close(self) -> None:
        self._world = None
        self.closed += 1


def _among(now_s: float, moments: tuple[float, ...]) -> bool:
    return any(abs(now_s - moment) < 1e-6 for moment in moments)


def ramp(rig: Any, world: Any, seconds: float, seed: int = 0) -> list[tuple[float, Any]]:
    """Run a rig on a world's clock by physics steps; (now_s, observation) after every step."""
    rig.reset(0.0, seed)
    seen = []
    for step in range(round(seconds * PHYSICS_HZ) + 1):
        world.now_s = step / PHYSICS_HZ
        rig.tick(world.now_s)
        seen.append((world.now_s, rig.observe(world.now_s)))
    return seen
