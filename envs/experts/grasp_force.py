"""The expert of GraspForce: it feels how much friction is used up; or it presses always alike, as if blind."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import final

import numpy as np

from envs.experts.base import CLOSED, OPEN, Expert, check_spec, down, pose_action, yaw_of
from envs.experts.feel import Felt, feel
from envs.robots.base import Robot
from envs.robots.force_panda import ForcePanda
from envs.touch_models import SCALE_N_M
from envs.world import PyBulletWorld
from sensors.action import Action, ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray

HOVER_M = 0.1  # tool point above the grasp while it is far beside
CENTRED_M, SLOPE = 0.006, 3.0  # so near beside the grasp, down to it; farther off, this much higher per metre
THERE_M = 0.002  # so near to the grasp, the fingers may close
TOUCHED_N = 0.4  # what a finger has to feel to count as touching; less than the grip that it starts with
CENTRE_M = 0.0005  # way of the hand per step towards the only finger that touches
STRONGER = 1.12  # growth of the force in one step of feeling
# Way up in one step of feeling: some, and what the scale's spring gives way when the force grows and mu is 0.7.
RISE_M, RISE_M_N = 1e-4, 2 * 0.7 * (STRONGER - 1.0) / SCALE_N_M
USED = 0.15  # a smaller ratio of shear and normal force says nothing of friction
SPARE, SURE = 1.2, 2  # the ratio has to fall by so much, in so many readings: a single one may be wrong
# Way of one step of lifting at most, and its growth per step: the arm stops between its steps, and fast ones jerk.
LIFT_M, ACCELERATE_M = 0.0022, 0.0004


def check_grip(name: str, robot: Robot, spec: ActionSpec) -> ForcePanda:
    """The robot, if its actions are end-effector poses with rotation, gripper and growth of the grip.

    Raises:
        SpecError: they are not.
    """
    check_spec(name, spec)
    if not isinstance(robot, ForcePanda) or "grip_growth_1_s" not in spec.parts:
        fix = "Use envs.robots.force_panda.ForcePanda."
        raise SpecError(name, "a robot with a grip force (grip_growth_1_s)", f"{sorted(spec.parts)}", fix)
    return robot


class Can:
    """The way of the hand to an upright can and up with it; how hard to press is someone else's business.

    Args:
        world: where the can is.
        robot: whose hand it is.
        body: the can.
        radius_m: its radius.
        lift_m: how far the tool is to rise from the grasp.
    """

    def __init__(self, world: PyBulletWorld, robot: Robot, body: int, radius_m: float, lift_m: float) -> None:
        self._world, self._robot, self._body = world, robot, body
        self._radius_m, self._lift_m = radius_m, lift_m
        self._rotation = down(yaw_of(robot.tool_pose()[:3, :3]))
        self._grasp_m: FloatArray = world.body_position(body)
        self._step_m = 0.0
        self._closing = False

    @property
    def closing(self) -> bool:
        """Whether the hand stands around the can and the fingers may close."""
        return self._closing

    @property
    def rotation(self) -> FloatArray:
        """Of the hand [3, 3]."""
        return self._rotation

    @property
    def target_m(self) -> FloatArray:
        """Where the tool is to be [3]."""
        return self._grasp_m

    def approach(self) -> None:
        """One step on the way to the can; a funnel that ends around it."""
        tool, can = self._robot.tool_pose()[:3, 3], self._world.body_position(self._body)
        beside = math.hypot(tool[0] - can[0], tool[1] - can[1])
        self._closing = beside < THERE_M and abs(tool[2] - can[2]) < THERE_M
        high = min(max(SLOPE * (beside - CENTRED_M), 0.0), HOVER_M)
        self._grasp_m = can + np.array([0.0, 0.0, 0.0 if self._closing else high])

    def centre(self, felt: Felt) -> bool:
        """Whether both fingers touch; if only one does, the hand is moved towards it by one step."""
        left, right = felt.normal_N > TOUCHED_N
        if left != right:
            # The fingers open along the tool's y; the left one is on its positive side.
            towards = self._world.link_pose("panda_leftfinger" if left else "panda_rightfinger")[:3, 3]
            way = towards - self._robot.tool_pose()[:3, 3]
            axis = self._rotation[:, 1]
            self._grasp_m = self._grasp_m + CENTRE_M * math.copysign(1.0, float(way @ axis)) * axis
        return bool(left and right)

    def rise(self, way_m: float) -> None:
        """Up by a little."""
        self._grasp_m = self._grasp_m + np.array([0.0, 0.0, way_m])

    def lift(self, from_m: float) -> None:
        """One step up, faster than the last, until the tool has risen from the height ``from_m`` as far as it is to."""
        left = from_m + self._lift_m - float(self._grasp_m[2])
        # Braking, not only starting, is gradual: the weight is felt again when the hand stops.
        self._step_m = min(self._step_m + ACCELERATE_M, LIFT_M, max(left / 4, 0.0))
        self.rise(self._step_m)


@final
class GraspForceExpert(Expert):
    """Presses lightly, feels for what friction can hold while it presses harder and harder, and lifts.

    It knows where the can is and how thick, as a camera shows, and the sums of the forces on its two pads, as a force
    field or taxels and a wrench show; not the can's weight, its friction or what crushes it. While a finger slides up
    along the can, shear over normal force *is* the coefficient of friction. The force grows until it holds the weight:
    then the shear stays and the ratio falls, and when it has fallen by the spare factor the force stays as it is.

    Args:
        world: where the can is.
        robot: which lifts it.
        spec: its end-effector-pose actions with a growth of the grip.
        body: the can.
        radius_m: its radius, metres.
        lift_m: how far the tool is to rise from the grasp.
        feels: what its fingers feel now, of sensors for example; None = the simulator's contacts.
        grip_N: press with this force from the beginning, and lift: what can be done without touch. None = as felt.

    Raises:
        SpecError: actions without a grip force.
    """

    def __init__(
        self,
        world: PyBulletWorld,
        robot: Robot,
        spec: ActionSpec,
        body: int,
        radius_m: float,
        lift_m: float,
        feels: Callable[[], Felt] | None = None,
        grip_N: float | None = None,  # noqa: N803  (units keep their own capital letter)
    ) -> None:
        self._robot = check_grip("GraspForceExpert", robot, spec)
        self._spec, self._feels = spec, feels or partial(feel, world, body)
        self._can = Can(world, robot, body, radius_m, lift_m)
        self._most_used = 0.0  # the greatest ratio that was felt: the coefficient of friction, once it has slid
        self._grasped_m: float | None = None
        self._fallen = 0  # readings in which the ratio was low
        self._grip = grip_N

    def act(self) -> Action:
        """The next action."""
        can, growth = self._can, 0.0
        if self._grip is not None:
            growth = math.log(self._grip / self._robot.grip_N) / self._spec.period_s
        if not can.closing:
            can.approach()
            if not can.closing:
                return pose_action(self._spec, can.target_m, can.rotation, OPEN, growth)
        felt = self._feels()
        if self._grasped_m is None:
            if can.centre(felt):
                self._grasped_m = float(can.target_m[2])
        elif self._grip is None and self._fallen < SURE:
            growth = self._feel(felt)
        else:
            can.lift(self._grasped_m)
        return pose_action(self._spec, can.target_m, can.rotation, CLOSED, growth)

    def _feel(self, felt: Felt) -> float:
        """One step of feeling; returns how the grip is to grow."""
        self._most_used = max(self._most_used, felt.used)
        low = self._most_used > USED and felt.used < self._most_used / SPARE
        self._fallen = self._fallen + 1 if low else 0
        if self._fallen >= SURE:
            return 0.0
        self._can.rise(RISE_M + RISE_M_N * self._robot.grip_N)
        return math.log(STRONGER) / self._spec.period_s
