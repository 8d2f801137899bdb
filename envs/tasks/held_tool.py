"""HeldTool: put the tip of a tool on a mark; how the tool lies in the hand can be felt and not be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.base import yaw_of
from envs.experts.held_tool import Held, HeldToolExpert
from envs.randomisation import Randomisation, draw_colour
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, attached, check_reward, goal_reward
from envs.tasks.in_hand import grasp_here
from envs.tasks.place import Area, Zone
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray

TOOL_HALF_M, TOOL_KG = (0.003, 0.005, 0.045), 0.15  # a flat bar; its second half edge is that between the fingers
MIDDLE_M = 0.02  # its middle below the tool point
ALONG_M = MIDDLE_M + TOOL_HALF_M[2]
MARK_RADIUS_M = 0.012
SLEEVE_HALF_M, SLEEVE_BELOW_M = (0.035, 0.06, 0.054), 0.017  # the sleeve, and its middle below the tool point
LOW_M = 0.006  # so near above the table, the tip is at the mark


@final
class HeldTool(Task):
    """Put the tip of the tool in the hand on a mark on the table, and keep it there.

    The tool was grasped as it came: beside the middle of the pads and leaning. A sleeve around fingers and tool hides
    it from all cameras and is felt by nothing. A tool that leans by 0.25 rad has its tip 16 mm beside the place below
    the hand. How it lies is drawn in every episode, whatever the randomisation: without it nothing is to be felt.

    Args:
        area_low_m: lowest corner [2] (x, y) of where the mark may be, base frame.
        area_high_m: highest corner [2].
        shift_m: largest distance between the tool's axis and the middle of the pads.
        lean_rad: largest angle by which the tool leans, either way, in the plane of the pads.
        near_m: how near its tip has to be to the middle of the mark.
        hold_s: for how long, without a break.
        reward: "dense" (the tip's distance, 0 to 1) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        area_low_m: Sequence[float] = (0.42, -0.12),
        area_high_m: Sequence[float] = (0.58, 0.12),
        shift_m: float = 0.0025,
        lean_rad: float = 0.25,
        near_m: float = 0.003,
        hold_s: float = 0.5,
        reward: str = "dense",
    ) -> None:
        for name, value, most in (("shift_m", shift_m, 0.004), ("lean_rad", lean_rad, 0.35)):
            if not 0 <= value <= most:
                got, fix = repr(value), "The tool would leave the pads."
                raise SpecError(f"HeldTool, {name}", f"0 <= {name} <= {most}", got, fix)
        for name, value in (("near_m", near_m), ("hold_s", hold_s)):
            if not value > 0:
                raise SpecError(f"HeldTool, {name}", "a number > 0", repr(value), "Correct the task's config.")
        self._area = Area(area_low_m, area_high_m)
        self._shift_m, self._lean_rad, self._near_m, self._hold_s = shift_m, lean_rad, near_m, hold_s
        self._dense = check_reward("HeldTool", reward)
        self._world: PyBulletWorld | None = None
        self._robot: Robot | None = None
        self._body = self._sleeve = -1
        self._zone: Zone | None = None
        self._mark_m: FloatArray = np.zeros(3)
        self._drawn = (0.0, 0.0)
        self._there_since_s: float | None = None

    @property
    def instruction(self) -> str:
        """The task in words."""
        return "put the tip of the tool on the mark"

    @property
    def has_goal(self) -> bool:
        """True: the place of the tip."""
        return True

    @property
    def body(self) -> int:
        """The tool's body id."""
        return self._body

    @property
    def drawn(self) -> tuple[float, float]:
        """How the tool was to lie in the hand: its shift in metres and its lean in radians."""
        return self._drawn

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._world, self._robot = world, robot

    def clear(self) -> None:
        """Remove tool, sleeve and mark."""
        if self._body >= 0:
            world, _ = self._around()
            # Last in, first out, so that the next episode gets the same body numbers: they order the contacts.
            world.remove(self._body)
            world.remove(self._sleeve)
            self._body = self._sleeve = -1
        if self._zone is not None:
            self._zone.remove()
            self._zone = None

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new mark, and a tool in the hand."""
        world, robot = self._around()
        place, _ = self._area.draw(rng, randomisation.place)
        shift, lean = float(rng.uniform(-self._shift_m, self._shift_m)), float(rng.uniform(-1, 1) * self._lean_rad)
        mark, sleeve, tool = (draw_colour(rng, randomisation.object_colour, hue=hue) for hue in (0.35, 0.6, 0.0))
        self._mark_m = np.array([*place, 0.0])
        self._zone = Zone(world, place, MARK_RADIUS_M, mark)
        self._sleeve = world.add_box(SLEEVE_HALF_M, (0.5, 0.0, 0.25), mass_kg=0.0, rgba=sleeve, solid=False)
        self._body = world.add_box(TOOL_HALF_M, (0.5, 0.0, 0.25), mass_kg=TOOL_KG, rgba=tool, friction=1.0)
        self._drawn, self._there_since_s = (shift, lean), None
        grasp_here(world, robot, self._body, 2 * TOOL_HALF_M[1], np.array([shift, 0.0, MIDDLE_M]), lean)

    def update(self) -> None:
        """Pull the sleeve along with the hand, and take note of since when the tip is at the mark."""
        world, robot = self._around()
        tool = robot.tool_pose()
        world.move_body(self._sleeve, tool[:3, 3] + SLEEVE_BELOW_M * tool[:3, 2], yaw_of(tool[:3, :3]))
        if not self._there():
            self._there_since_s = None
        elif self._there_since_s is None:
            self._there_since_s = world.time_s

    def tip_m(self) -> FloatArray:
        """The tool's tip [3], base frame."""
        pose = self._around()[0].body_pose(self._body)
        tip: FloatArray = pose[:3, 3] - TOOL_HALF_M[2] * pose[:3, 2]
        return tip

    def outcome(self) -> Outcome:
        """How far the tip is from the mark."""
        since = self._there_since_s
        success = since is not None and self._around()[0].time_s - since >= self._hold_s - 1e-6
        if not self._dense:
            return Outcome(0.0 if success else -1.0, success)
        away = float(np.linalg.norm(self.tip_m() - self._mark_m))
        return Outcome(1.0 if success else 0.5 * (2.0 - float(np.tanh(8.0 * away) + np.tanh(100.0 * away))), success)

    def goal(self) -> Goal:
        """The tip, and the mark."""
        return Goal(self.tip_m().astype(np.float32), self._mark_m.astype(np.float32))

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """Reward [...] of goals [..., 3]; how long the tip stays is not part of a goal."""
        return goal_reward(achieved, desired, self._near_m, self._dense)

    def expert(self, spec: ActionSpec) -> HeldToolExpert:
        """A scripted solver for this episode, which feels the tool."""
        return HeldToolExpert(*self._around(), spec, self._known())

    def blind_expert(self, spec: ActionSpec) -> HeldToolExpert:
        """The same without touch: the tool is taken as straight in the middle of the hand."""
        return HeldToolExpert(*self._around(), spec, self._known(), feels=False)

    def _known(self) -> Held:
        x, y, z = self._mark_m.tolist()
        return Held(self._body, ALONG_M, (x, y, z))

    def _there(self) -> bool:
        tip = self.tip_m()
        return bool(np.linalg.norm(tip[:2] - self._mark_m[:2]) < self._near_m and tip[2] < LOW_M)

    def _around(self) -> tuple[PyBulletWorld, Robot]:
        return attached("HeldTool", self._world, self._robot)
