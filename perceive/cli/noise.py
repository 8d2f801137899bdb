"""Disturbed demonstrations: the robot is pushed off the expert's path and the expert shows the way back.

Paper: M. Laskey, J. Lee, R. Fox, A. Dragan, K. Goldberg, "DART: Noise Injection for Robust Imitation Learning",
CoRL 2017. There the noise is white and fitted to the learner's error; here it comes in bursts of constant offset, since
a pose controller filters white noise out, and its size is a setting.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sensors.action import Action, ActionMode
from sensors.errors import SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix, matrix_to_rotation_6d, rotation_6d_to_matrix


class BurstNoise:
    """Adds bursts of a constant offset to poses that are sent; the label is not its business.

    Args:
        position_m: standard deviation of the position's offset in each axis, metres.
        rotation_rad: standard deviation of the rotation's offset about each axis, radians.
        burst_probability: that a burst starts at a step outside of one.
        burst_steps: mean length of a burst, control steps; lengths are geometric.
        seed: of the episode.
        only_open: no bursts while the gripper is told to close, for things that must not be shaken in the hand.

    Raises:
        SpecError: a value out of its range.
    """

    def __init__(
        self,
        position_m: float,
        rotation_rad: float,
        burst_probability: float,
        burst_steps: float,
        seed: int,
        only_open: bool = False,
    ) -> None:
        legal = {
            "position_m": position_m >= 0,
            "rotation_rad": rotation_rad >= 0,
            "burst_probability": 0 <= burst_probability <= 1,
            "burst_steps": burst_steps >= 1,
        }
        for name, good in legal.items():
            if not good:
                raise SpecError(f"noise.{name}", "a legal value (see --help)", "one out of range", "Correct it.")
        self._position_m = position_m
        self._rotation_rad = rotation_rad
        self._start = burst_probability
        self._end = 1.0 / burst_steps
        self._only_open = only_open
        # A key of its own, so that the noise is not the numbers from which the environment draws its scene.
        self._rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0xDA27,)))
        self._bursting = False
        self._shift_m: FloatArray = np.zeros(3)
        self._turn: FloatArray = np.eye(3)

    def __call__(self, action: Action) -> Action:
        """The action to send for the expert's: the same outside of bursts; kept within the bounds of its space.

        Raises:
            SpecError: the action is not an end-effector pose.
        """
        if action.spec.mode is not ActionMode.EE_POSE:
            raise SpecError(
                "BurstNoise", "actions of mode ee_pose", action.spec.mode.value, "Use action_mode: ee_pose."
            )
        self._advance()
        spec, values = action.spec, action.values.astype(float)
        shut = self._only_open and "gripper" in spec.parts and values[spec.part("gripper")][0] < 0
        if shut or not self._bursting:
            return action
        values[spec.part("position_m")] += self._shift_m
        if "rotation_6d" in spec.parts:
            part = spec.part("rotation_6d")
            values[part] = matrix_to_rotation_6d(self._turn @ rotation_6d_to_matrix(values[part]))
        return replace(action, values=np.clip(values, spec.space.low, spec.space.high).astype(np.float32))

    def _advance(self) -> None:
        # All numbers are drawn at every step, so that the expert's path does not decide what the noise will be.
        change, size = self._rng.random(), self._rng.random()
        shift, turn = self._rng.normal(size=3), self._rng.normal(size=3)
        if self._bursting:
            self._bursting = change >= self._end
        elif change < self._start:
            self._bursting = True
            # Bursts of all sizes, so that the way back is shown from near as well as from far; the mean square stays.
            size *= math.sqrt(3.0)
            self._shift_m = shift * size * self._position_m
            self._turn = axis_angle_to_matrix(turn * size * self._rotation_rad)
