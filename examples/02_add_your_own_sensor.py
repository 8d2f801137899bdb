"""Add a sensor of your own: a range finder at the tool point that measures the way to the next surface below.

    python examples/02_add_your_own_sensor.py

A sensor is one class: a space that says what it measures, `open`, `reset`, `read`, `close`. It asks the world a
question (here: `ray_cast`). The rig adds the rest: rate, delay, dropout, seeds, age and validity. In a module of yours
it is used from a config as  _target_: my_robot.range_finder.RangeFinder  without an edit anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.base import RobotEnv
from envs.robots.panda import Panda
from envs.tasks.lift import Lift
from sensors.base import Sensor, World
from sensors.frames import Frame
from sensors.joints import JointSensor
from sensors.observation import Observation
from sensors.rig import SensorRig
from sensors.simulated import not_ready, require_world
from sensors.spec import box
from sensors.timeline import Timing


@dataclass(frozen=True, eq=False, kw_only=True)
class RangeFrame(Frame):
    """range_m: float32 [1], distance along the tool's approach direction; 0 = nothing within reach."""

    range_m: NDArray[np.float32]


@final
class RangeFinder(Sensor):
    """Measures up to ``max_range_m`` with a standard deviation of ``noise_m``."""

    def __init__(self, *, timing: Timing, max_range_m: float = 0.5, noise_m: float = 0.001) -> None:
        self._timing, self._max_range_m, self._noise_m = timing, max_range_m, noise_m
        self._world: World | None = None
        self._rng: np.random.Generator | None = None

    @property
    def space(self) -> spaces.Dict:
        """One number."""
        return spaces.Dict({"range_m": box(0.0, self._max_range_m, (1,))})

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Take the world to measure in."""
        self._world = require_world("RangeFinder", world)

    def reset(self, rng: np.random.Generator) -> None:
        """All noise comes from the rig's generator, so the same seed gives the same episode."""
        self._rng = rng

    def read(self, now_s: float) -> RangeFrame:
        """Cast one ray from the tool point along its +z."""
        if self._world is None or self._rng is None:
            raise not_ready("RangeFinder")
        tool = self._world.link_pose("tool")
        start, end = tool[:3, 3], tool[:3, 3] + self._max_range_m * tool[:3, 2]
        distance = self._world.ray_cast(start[None], end[None]) + self._noise_m * self._rng.standard_normal(1)
        distance = np.where(np.isfinite(distance), np.clip(distance, 0.0, self._max_range_m), 0.0)
        return RangeFrame(stamp_s=now_s, range_m=distance.astype(np.float32))

    def close(self) -> None:
        """Let go of the world."""
        self._world = None


if __name__ == "__main__":
    # 24 measurements per second, each visible 50 ms later, one in five lost.
    finder = RangeFinder(timing=Timing(rate_hz=24.0, delay_s=0.05, dropout=0.2))
    env = RobotEnv(Lift(), Panda(), SensorRig({"joints": JointSensor(timing=Timing(rate_hz=12.0)), "range": finder}))
    values, info = env.reset(seed=0)
    expert = env.expert()
    print("time   tool height   measured below it   age     valid")
    done = False
    while not done:
        streams = Observation.from_dict(values, info["now_s"]).streams
        height, measured = streams["joints"].data["base_from_tool"][-1, 2, 3], streams["range"]
        shown = f"{measured.data['range_m'][-1, 0]:.3f} m" if measured.valid[-1] else "  -    "
        age = f"{measured.age_s[-1]:.3f}" if measured.age_s[-1] < 1 else "never"
        print(f"{info['now_s']:.3f}  {height:.3f} m       {shown}             {age}   {bool(measured.valid[-1])}")
        values, _, terminated, truncated, info = env.step(expert.act().values)
        done = terminated or truncated
    env.close()
