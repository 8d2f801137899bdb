"""GraspForce: lift a can of unknown weight, friction and strength, neither slipping nor crushed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.feel import feel
from envs.experts.grasp_force import GraspForceExpert
from envs.randomisation import Randomisation, draw_colour, uniform
from envs.robot_model import FINGER_FRICTION
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, attached, check_reward, no_goal
from envs.tasks.place import Area
from envs.touch_models import SCALE_DAMPING_N_S_M, SCALE_N_M, SCALE_PLATE_KG, SCALE_TOP_M, scale_urdf
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray, invert

G_M_S2 = 9.81
YIELD_S = 0.05  # a can yields to what presses it for so long, and not to a knock
ABOVE_M = 0.01  # the expert lifts it this much higher than is asked


@dataclass(frozen=True)
class Hidden:
    """What cannot be seen of a can.

    Attributes:
        friction: Coulomb's coefficient between the can and a finger.
        mass_kg: its mass.
        need_N: force of each finger below which it slides.
        crush_N: force on a finger above which it is crushed.
    """

    friction: float
    mass_kg: float
    need_N: float  # noqa: N815  (units keep their own capital letter)
    crush_N: float  # noqa: N815


@final
class GraspForce(Task):
    """Lift a can that slips if it is held too loosely and is crushed if it is held too tightly, and hold it still.

    All cans look alike. Two fingers of force F hold a can of mass m by friction mu if F >= m g / (2 mu), its need; it
    is crushed by more than its need times a spare factor. Needs are drawn so that each factor is equally likely, so a
    fixed force succeeds with about log(spare) / log(need_high / need_low) of the cans: 1 in 3. Weight alone does not
    tell the need either, since friction differs by a factor of its own. What is hidden is drawn in every episode,
    whatever the randomisation: without it there is nothing to be felt.

    Args:
        area_low_m: lowest corner [2] (x, y) of where the can may stand, base frame.
        area_high_m: highest corner [2].
        radius_low_m: smallest radius of the can.
        radius_high_m: largest radius.
        tall_m: height of the can.
        need_low_N: smallest force of each finger that holds a can.
        need_high_N: largest.
        friction_low: smallest coefficient of friction between can and finger.
        friction_high: largest.
        spare_low: smallest ratio of the force that crushes a can to the force that it needs.
        spare_high: largest.
        height_m: how high its lower side has to be above the table.
        hold_s: for how long it has to be there without a break.
        slip_m: how far it may slip in the hand, from the moment at which both fingers touch it.
        reward: "dense" (reach, grasp and height, 0 to 1; 0 for a crushed can) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        area_low_m: Sequence[float] = (0.42, -0.12),
        area_high_m: Sequence[float] = (0.58, 0.12),
        radius_low_m: float = 0.02,
        radius_high_m: float = 0.028,
        tall_m: float = 0.06,
        need_low_N: float = 1.5,  # noqa: N803  (units keep their own capital letter)
        need_high_N: float = 12.0,  # noqa: N803
        friction_low: float = 0.3,
        friction_high: float = 0.7,
        spare_low: float = 1.7,
        spare_high: float = 2.2,
        height_m: float = 0.03,
        hold_s: float = 1.0,
        slip_m: float = 0.006,
        reward: str = "dense",
    ) -> None:
        for name, low, high, most in (
            ("radius", radius_low_m, radius_high_m, 0.035),
            ("need", need_low_N, need_high_N, math.inf),
            ("friction", friction_low, friction_high, FINGER_FRICTION),
        ):
            if not 0 < low <= high <= most:
                got = f"{low}, {high}"
                raise SpecError(
                    f"GraspForce, {name}", f"0 < low <= high <= {most:g}", got, "Correct the task's config."
                )
        if not 1 < spare_low <= spare_high:
            got = f"{spare_low}, {spare_high}"
            raise SpecError("GraspForce, spare", "1 < low <= high", got, "A can has to withstand what holds it.")
        for name, value in (("tall_m", tall_m), ("height_m", height_m), ("hold_s", hold_s), ("slip_m", slip_m)):
            if not value > 0:
                raise SpecError(f"GraspForce, {name}", "a number > 0", repr(value), "Correct the task's config.")
        self._area = Area(area_low_m, area_high_m)
        self._radius = (radius_low_m, radius_high_m)
        self._need, self._friction, self._spare = (
            (math.log(low), math.log(high))
            for low, high in ((need_low_N, need_high_N), (friction_low, friction_high), (spare_low, spare_high))
        )
        self._tall_m, self._height_m, self._hold_s, self._slip_m = tall_m, height_m, hold_s, slip_m
        self._dense = check_reward("GraspForce", reward)
        self._world: PyBulletWorld | None = None
        self._robot: Robot | None = None
        self._body = self._scale = -1
        self._radius_m = radius_low_m
        self._hidden = Hidden(1.0, 1.0, 1.0, 1.0)
        self._crushed = False
        self._pressed_N = np.zeros(2)
        self._grasp: FloatArray | None = None  # where the can was in the hand when both fingers touched it
        self._slipped_m = 0.0
        self._high_since_s: float | None = None
        self._seen_s = 0.0

    @property
    def instruction(self) -> str:
        """The task in words."""
        return "lift the can without crushing it"

    @property
    def has_goal(self) -> bool:
        """False."""
        return False

    @property
    def body(self) -> int:
        """The can's body id."""
        return self._body

    @property
    def radius_m(self) -> float:
        """The can's radius in this episode, metres."""
        return self._radius_m

    @property
    def hidden(self) -> Hidden:
        """What cannot be seen of this episode's can."""
        return self._hidden

    @property
    def crushed(self) -> bool:
        """Whether the can was crushed in this episode."""
        return self._crushed

    @property
    def slipped_m(self) -> float:
        """How far the can has slipped in the hand since it was grasped, metres."""
        return self._slipped_m

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._world, self._robot = world, robot

    def clear(self) -> None:
        """Remove can and scale."""
        if self._body >= 0:
            world, _ = self._around()
            # Last in, first out, so that the next episode gets the same body numbers: they order the contacts.
            world.remove(self._body)
            world.remove(self._scale)
            self._body = self._scale = -1

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new can."""
        world, _ = self._around()
        place, _ = self._area.draw(rng, randomisation.place)
        self._radius_m = uniform(rng, *self._radius, randomisation.size)
        colour = draw_colour(rng, randomisation.object_colour, hue=0.0)
        need, friction, spare = (
            math.exp(uniform(rng, *each, True)) for each in (self._need, self._friction, self._spare)
        )
        self._hidden = Hidden(friction, 2 * friction * need / G_M_S2, need, need * spare)
        self._scale = world.add_articulated(scale_urdf(), (*place, 0.0), friction=0.8)
        # The spring is set so that the plate stands level under any can.
        level = (self._hidden.mass_kg + SCALE_PLATE_KG) * G_M_S2 / SCALE_N_M
        spring = {"target": level, "stiffness": SCALE_N_M, "damping": SCALE_DAMPING_N_S_M}
        world.drive_body_joint(self._scale, "plate_up", **spring)
        self._body = world.add_cylinder(
            self._radius_m,
            self._tall_m,
            (*place, SCALE_TOP_M + self._tall_m / 2),
            mass_kg=self._hidden.mass_kg,
            rgba=colour,
            friction=friction / FINGER_FRICTION,
        )
        self._crushed, self._grasp, self._slipped_m, self._high_since_s = False, None, 0.0, None
        self._pressed_N, self._seen_s = np.zeros(2), world.time_s

    def update(self) -> None:
        """Take note of what presses the can, how far it has slipped and since when it is high."""
        world, robot = self._around()
        now_s, felt = world.time_s, feel(world, self._body)
        # Reset starts the clock anew after the scene has settled; no finger is near then.
        share = 1.0 - math.exp(-max(now_s - self._seen_s, 0.0) / YIELD_S)
        self._pressed_N = self._pressed_N + share * (felt.normal_N - self._pressed_N)
        self._crushed = self._crushed or float(self._pressed_N.max()) > self._hidden.crush_N
        self._seen_s = now_s
        middle = world.body_position(self._body)
        raised = self._raised_m(middle)
        in_hand = (invert(robot.tool_pose()) @ np.append(middle, 1.0))[[0, 2]]
        if (felt.normal_N > 0).all() and self._grasp is None:
            self._grasp = in_hand
        elif not felt.normal_N.any() and raised < self._slip_m:
            self._grasp, self._slipped_m = None, 0.0  # it stands there and may be grasped anew
        if self._grasp is not None:
            self._slipped_m = max(self._slipped_m, float(np.linalg.norm(in_hand - self._grasp)))
        if raised < self._height_m or not self._kept():
            self._high_since_s = None
        elif self._high_since_s is None:
            self._high_since_s = now_s

    def outcome(self) -> Outcome:
        """How high the can is, and how it came there."""
        world, robot = self._around()
        since = self._high_since_s
        success = since is not None and world.time_s - since >= self._hold_s - 1e-6
        if not self._dense:
            return Outcome(0.0 if success else -1.0, success)
        if self._crushed:
            return Outcome(0.0, False)
        middle = world.body_position(self._body)
        near = 1.0 - float(np.tanh(8.0 * np.linalg.norm(robot.tool_pose()[:3, 3] - middle)))
        held = world.fingers_touching(self._body) == 2
        height = min(max(self._raised_m(middle) / self._height_m, 0.0), 1.0)
        return Outcome(1.0 if success else 0.2 * near + 0.2 * held + 0.5 * height * (held and self._kept()), success)

    def goal(self) -> Goal | None:
        """None: any place above the table will do."""
        return None

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """GraspForce has no goal in space.

        Raises:
            SpecError: always.
        """
        raise no_goal("GraspForce")

    def expert(self, spec: ActionSpec) -> GraspForceExpert:
        """A scripted solver for this episode, which feels its way."""
        world, robot = self._around()
        return GraspForceExpert(world, robot, spec, self._body, self._radius_m, self._height_m + ABOVE_M)

    def blind_expert(self, spec: ActionSpec, grip_N: float) -> GraspForceExpert:  # noqa: N803
        """The same without touch: always the force ``grip_N``."""
        world, robot = self._around()
        high = self._height_m + ABOVE_M
        return GraspForceExpert(world, robot, spec, self._body, self._radius_m, high, grip_N=grip_N)

    def _kept(self) -> bool:
        """Whether the can was neither crushed nor slipped, and is in the hand."""
        return self._grasp is not None and not self._crushed and self._slipped_m <= self._slip_m

    def _raised_m(self, middle_m: FloatArray) -> float:
        """How high the can's lower side is above where it stood; its middle is at [3]."""
        return float(middle_m[2]) - self._tall_m / 2 - SCALE_TOP_M

    def _around(self) -> tuple[PyBulletWorld, Robot]:
        return attached("GraspForce", self._world, self._robot)
