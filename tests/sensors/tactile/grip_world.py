"""A gripper around a box, with contacts as a test wants them; a `sensors.base.World`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sensors.base import Touching
from sensors.geometry import FloatArray
from tests.fake_world import BOX_BODY, FakeWorld

LEFT, RIGHT = "panda_leftfinger", "panda_rightfinger"


@dataclass(frozen=True)
class Contact:
    """One contact of the box: the finger's name, point_m [3], and force_N [3] on the finger, base frame.

    Its normal runs along the base's y, towards the finger.
    """

    link: str
    point_m: Sequence[float]
    force_N: Sequence[float]  # noqa: N815  (units keep their own capital letter)


class GripWorld(FakeWorld):
    """The fake world's box of 60 mm, held so that both pads stand 1 mm from it: 2 mm deep in a gel of 3 mm."""

    def __init__(self, gap_m: float = 0.001, friction: float = 0.8) -> None:
        super().__init__(gripper_m=0.06 + 2 * gap_m)
        self.contacts: list[Contact] = []
        self.friction = friction

    def touching(self, link: str, margin_m: float) -> list[Touching]:
        if not self.touches(link, margin_m):
            return []
        held = self.contacts
        return [
            Touching(
                body=BOX_BODY,
                base_from_body=self.base_from_box.copy(),
                friction=self.friction,
                links=np.array([0 if contact.link == link else 1 for contact in held], dtype=np.int64),
                points_m=np.array([contact.point_m for contact in held], dtype=float).reshape(-1, 3),
                normals=np.array([(0.0, self._side(contact.link), 0.0) for contact in held]).reshape(-1, 3),
                force_N=np.array([contact.force_N for contact in held], dtype=float).reshape(-1, 3),
            )
        ]

    def pinch(self, squeeze_N: float, left_N: Sequence[float], right_N: Sequence[float]) -> None:  # noqa: N803
        """Hold the box by four contacts at each finger, which together carry ``*_N`` [3] besides the squeeze."""
        self.contacts = []
        for link, force in ((LEFT, left_N), (RIGHT, right_N)):
            side = self._side(link)
            whole = np.add(force, (0.0, side * squeeze_N, 0.0))
            for x in (0.49, 0.51):
                for z in (0.02, 0.04):
                    self.contacts.append(Contact(link, (x, side * 0.03, z), (whole / 4).tolist()))

    def move_box(self, x_m: float = 0.0, z_m: float = 0.0) -> None:
        """Move the box along the pads."""
        moved: FloatArray = self.base_from_box.copy()
        moved[0, 3] += x_m
        moved[2, 3] += z_m
        self.base_from_box = moved

    def _side(self, link: str) -> float:
        """The side of the box on which a finger is, along the base's y."""
        return float(np.sign(self.link_pose(link)[1, 3]))
