"""Simulated joint encoders of the arm and the gripper."""

from __future__ import annotations

from typing import final

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.errors import SpecError
from sensors.frames import JointFrame
from sensors.simulated import check_settings, not_negative, not_ready, require_world
from sensors.spec import box
from sensors.timeline import Timing

# Values beyond these are reported at the bound, so that frames always lie in their space.
_MAX_POSITION_RAD, _MAX_VELOCITY_RAD_S, _MAX_GRIPPER_M = 4 * np.pi, 100.0, 0.5


@final
class JointSensor(Sensor):
    """Joint positions and velocities, gripper opening and the pose of the tool point.

    ``base_from_tool`` is the true pose: encoder noise of 1e-4 rad would move it by less than 0.1 mm.

    Args:
        timing: rate, delay, dropout, history.
        joints: J, number of joints of the arm.
        position_noise_rad: standard deviation, radians.
        velocity_noise_rad_s: standard deviation, radians per second.
        gripper_noise_m: standard deviation of the opening, metres.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        timing: Timing,
        joints: int = 7,
        position_noise_rad: float = 1e-4,
        velocity_noise_rad_s: float = 1e-3,
        gripper_noise_m: float = 1e-4,
    ) -> None:
        noise = {
            "position_noise_rad": position_noise_rad,
            "velocity_noise_rad_s": velocity_noise_rad_s,
            "gripper_noise_m": gripper_noise_m,
        }
        check_settings("JointSensor", {"joints": (joints >= 1, joints, "at least 1"), **not_negative(noise)})
        self._timing = timing
        self._joints = joints
        self._position_noise_rad = position_noise_rad
        self._velocity_noise_rad_s = velocity_noise_rad_s
        self._gripper_noise_m = gripper_noise_m
        self._world: World | None = None
        self._rng: np.random.Generator | None = None

    @property
    def space(self) -> spaces.Dict:
        """position_rad, velocity_rad_s, gripper_m, base_from_tool; see :class:`sensors.frames.JointFrame`."""
        return spaces.Dict(
            {
                "position_rad": box(-_MAX_POSITION_RAD, _MAX_POSITION_RAD, (self._joints,)),
                "velocity_rad_s": box(-_MAX_VELOCITY_RAD_S, _MAX_VELOCITY_RAD_S, (self._joints,)),
                "gripper_m": box(0.0, _MAX_GRIPPER_M, (1,)),
                "base_from_tool": box(-1000.0, 1000.0, (4, 4)),
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
            SpecError: its robot has another number of joints.
        """
        world = require_world("JointSensor", world)
        found = len(world.joint_state().position_rad)
        if found != self._joints:
            expected = f"a robot with {self._joints} joints"
            raise SpecError("JointSensor.open", expected, f"{found} joints", f"Set joints: {found} in its config.")
        self._world = world

    def reset(self, rng: np.random.Generator) -> None:
        """Take the generator of this episode's noise."""
        self._rng = rng

    def read(self, now_s: float) -> JointFrame:
        """Measure.

        Raises:
            SensorError: not open, or not reset.
        """
        if self._world is None or self._rng is None:
            raise not_ready("JointSensor")
        state = self._world.joint_state()
        noise = self._rng.standard_normal(2 * self._joints + 1)
        position = state.position_rad + self._position_noise_rad * noise[: self._joints]
        velocity = state.velocity_rad_s + self._velocity_noise_rad_s * noise[self._joints : -1]
        gripper = state.gripper_m + self._gripper_noise_m * noise[-1:]
        return JointFrame(
            stamp_s=now_s,
            position_rad=np.clip(position, -_MAX_POSITION_RAD, _MAX_POSITION_RAD),
            velocity_rad_s=np.clip(velocity, -_MAX_VELOCITY_RAD_S, _MAX_VELOCITY_RAD_S),
            gripper_m=np.clip(gripper, 0.0, _MAX_GRIPPER_M),
            base_from_tool=np.array(self._world.link_pose("tool"), dtype=float),
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None
