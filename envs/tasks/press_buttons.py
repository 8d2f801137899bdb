"""PressButtons: press coloured buttons in the order that was said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from envs import models
from envs.experts.base import CLOSED, OPEN, down
from envs.experts.waypoints import AVOID, TOUCH, KeyPose
from envs.randomisation import Randomisation, uniform
from envs.tasks.keyframe import KeyframeTask
from envs.tasks.objects import HUES, Spot, colours, scatter, shade
from envs.tasks.place import Area
from sensors.errors import SpecError
from sensors.geometry import FloatArray

BASE_RGBA = (0.3, 0.3, 0.32, 1.0)
LIT_RGBA = (1.0, 1.0, 1.0, 1.0)
PRESSED_M = 0.005  # a cap is pressed when it is this far down
PRESS_M = 0.009  # how far the expert pushes it
TIP_M = 0.0088  # from the tool point down to the fingertips
STIFFNESS_N_M, DAMPING_N_S_M = 300.0, 3.0
PRELOAD_M = 0.004  # how far the spring would push an unpressed cap out, were there no stop
ABOVE_M = 0.08


@final
class PressButtons(KeyframeTask):
    """Coloured buttons: "press the red button, then the green button".

    A pressed button lights up white and stays lit, so what is left to do can be seen. A button out of turn spoils the
    episode: there is no success any more.

    Args:
        area_low_m: lowest corner [2] (x, y) of where the buttons may be, base frame.
        area_high_m: highest corner [2].
        buttons: how many there are, 1 to 4, each of another colour.
        presses: the most that are to be pressed; how many is drawn for each episode.
        reward: "dense" (share of presses, and nearness to the next, 0 to 1) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        area_low_m: Sequence[float] = (0.38, -0.22),
        area_high_m: Sequence[float] = (0.62, 0.22),
        buttons: int = 3,
        presses: int = 3,
        reward: str = "sparse",
    ) -> None:
        super().__init__("PressButtons", reward)
        if not 1 <= presses <= buttons <= len(HUES):
            raise SpecError(
                "PressButtons, presses and buttons",
                f"1 <= presses <= buttons <= {len(HUES)}",
                f"{presses}, {buttons}",
                "Each button needs its own colour.",
            )
        self._area = Area(area_low_m, area_high_m)
        self._count, self._most = buttons, presses
        self._named: dict[str, int] = {}
        self._wanted: list[str] = []
        self._pressed: list[str] = []

    @property
    def buttons(self) -> dict[str, int]:
        """Colour -> body id; joint "press" tells how far link "cap" is down, metres."""
        return dict(self._named)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The colours to press, in order."""
        return tuple(self._wanted)

    @property
    def pressed(self) -> tuple[str, ...]:
        """The colours of the lit buttons, in the order in which they were pressed."""
        return tuple(self._pressed)

    def arrange(self, rng: np.random.Generator, randomisation: Randomisation) -> str:
        """Put up the buttons and say which to press."""
        world, _ = self.around()
        names = colours(rng, self._count)
        spots = [Spot(math.sqrt(2) * models.BUTTON_HALF_M, graspable=False)] * self._count
        places = scatter("PressButtons", rng, randomisation.place, self._area, spots)
        self._named, self._pressed = {}, []
        for name, spot in zip(names, places, strict=True):
            yaw = uniform(rng, -math.pi / 4, math.pi / 4, randomisation.place)
            body = self.hold(world.add_articulated(models.button_urdf(), (*spot, 0.0), yaw))
            spring = {"stiffness": STIFFNESS_N_M, "damping": DAMPING_N_S_M}
            world.drive_body_joint(body, "press", target=-PRELOAD_M, **spring)
            world.recolour(body, BASE_RGBA, "body")
            world.recolour(body, shade(rng, name, randomisation.object_colour), "cap")
            self._named[name] = body
        # The names are in random order already.
        self._wanted = names[: int(rng.integers(1, self._most + 1))]
        return "press " + ", then ".join(f"the {name} button" for name in self._wanted)

    def update(self) -> None:
        """Let the caps that are down light up."""
        world, _ = self.around()
        for name, body in self._named.items():
            if name not in self._pressed and world.body_joint(body, "press") >= PRESSED_M:
                self._pressed.append(name)
                world.recolour(body, LIT_RGBA, "cap")

    def done(self) -> bool:
        """Whether exactly the right buttons were pressed, in the right order."""
        return self._pressed == self._wanted

    def progress(self) -> float:
        """The share that was pressed; up to half a press more for being near the next button. 0 once spoilt."""
        left = self._left()
        if not left:
            return 0.0
        _, robot = self.around()
        near = 1.0 - math.tanh(8.0 * math.dist(robot.tool_pose()[:3, 3], self._press_m(left[0])))
        return (len(self._pressed) + 0.5 * near) / len(self._wanted)

    def key_poses(self) -> list[KeyPose]:
        """Above the first button, close; for each button above (the first: already there), down, and up but at the end.

        Once the episode is spoilt: where the tool is now.
        """
        _, robot = self.around()
        tool, left = robot.tool_pose(), self._left()
        closed = robot.gripper_m() < 0.5 * robot.description.gripper_open_m
        if not left:
            return [KeyPose(tool[:3, 3], tool[:3, :3], CLOSED if closed else OPEN, TOUCH)]
        turn, up = down(0.0), np.array([0.0, 0.0, ABOVE_M])
        out: list[KeyPose] = []
        if not closed:
            out.append(KeyPose(self._press_m(left[0]) + up, turn, OPEN, AVOID))
        for number, name in enumerate(left):
            press = self._press_m(name)
            out.append(KeyPose(press + up, turn, CLOSED, TOUCH if number == 0 and not closed else AVOID))
            out.append(KeyPose(press, turn, CLOSED, TOUCH))
            out.append(KeyPose(press + up, turn, CLOSED, TOUCH))
        return out[:-1]

    def _left(self) -> list[str]:
        """The buttons that are left to press, in order; none once one was pressed out of turn."""
        count = len(self._pressed)
        return self._wanted[count:] if self._pressed == self._wanted[:count] else []

    def _press_m(self, name: str) -> FloatArray:
        """Tool point [3] where the button of this colour is pressed."""
        world, _ = self.around()
        top = world.body_link_pose(self._named[name], "body")[:3, 3]
        return np.asarray(top + np.array([0.0, 0.0, models.BUTTON_BASE_M + models.CAP_M - PRESS_M + TIP_M]))
