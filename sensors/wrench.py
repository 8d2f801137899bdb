"""Simulated force and torque sensor at the wrist."""

from __future__ import annotations

from typing import final

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.frames import WrenchFrame
from sensors.geometry import FloatArray
from sensors.simulated import check_settings, not_negative, not_ready, positive, require_world
from sensors.spec import box
from sensors.timeline import Timing


@final
class WristWrench(Sensor):
    """Force and torque between the arm and its hand, with noise, a bias drawn per episode, and saturation.

    Args:
        timing: rate, delay, dropout, history.
        force_noise_N: standard deviation per axis, newton.
        torque_noise_Nm: standard deviation per axis, newton metres.
        force_bias_N: standard deviation of the bias drawn per episode and axis, newton.
        torque_bias_Nm: standard deviation of the bias drawn per episode and axis, newton metres.
        max_force_N: greater forces are reported as this, newton.
        max_torque_Nm: greater torques are reported as this, newton metres.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        timing: Timing,
        force_noise_N: float = 0.05,  # noqa: N803  (units keep their own capital letter)
        torque_noise_Nm: float = 0.005,  # noqa: N803
        force_bias_N: float = 0.2,  # noqa: N803
        torque_bias_Nm: float = 0.02,  # noqa: N803
        max_force_N: float = 300.0,  # noqa: N803
        max_torque_Nm: float = 30.0,  # noqa: N803
    ) -> None:
        noise = {
            "force_noise_N": force_noise_N,
            "torque_noise_Nm": torque_noise_Nm,
            "force_bias_N": force_bias_N,
            "torque_bias_Nm": torque_bias_Nm,
        }
        ranges = {"max_force_N": max_force_N, "max_torque_Nm": max_torque_Nm}
        check_settings("WristWrench", {**not_negative(noise), **positive(ranges)})
        self._timing = timing
        self._noise = np.repeat([force_noise_N, torque_noise_Nm], 3)
        self._bias_sigma = np.repeat([force_bias_N, torque_bias_Nm], 3)
        self._range = np.repeat([max_force_N, max_torque_Nm], 3)
        self._world: World | None = None
        self._rng: np.random.Generator | None = None
        self._bias: FloatArray = np.zeros(6)

    @property
    def space(self) -> spaces.Dict:
        """force_N, torque_Nm, base_from_sensor; see :class:`sensors.frames.WrenchFrame`."""
        force, torque = float(self._range[0]), float(self._range[3])
        return spaces.Dict(
            {
                "force_N": box(-force, force, (3,)),
                "torque_Nm": box(-torque, torque, (3,)),
                "base_from_sensor": box(-1000.0, 1000.0, (4, 4)),
            }
        )

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Take the world whose robot is measured.

        Raises:
            SensorError: there is none.
        """
        self._world = require_world("WristWrench", world)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw this episode's bias and take the generator of its noise."""
        self._rng = rng
        self._bias = self._bias_sigma * rng.standard_normal(6)

    def read(self, now_s: float) -> WrenchFrame:
        """Measure.

        Raises:
            SensorError: not open, or not reset.
        """
        if self._world is None or self._rng is None:
            raise not_ready("WristWrench")
        force, torque, base_from_sensor = self._world.wrench()
        value = np.concatenate([force, torque]) + self._bias + self._noise * self._rng.standard_normal(6)
        value = np.clip(value, -self._range, self._range)
        return WrenchFrame(
            stamp_s=now_s,
            force_N=value[:3].copy(),
            torque_Nm=value[3:].copy(),
            base_from_sensor=np.array(base_from_sensor, dtype=float),
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None
