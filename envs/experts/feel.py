"""Felt: what two fingertips feel of a body, as sums. What a force field on each of them adds up to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.world import PyBulletWorld
from sensors.geometry import FloatArray

FINGERS = ("panda_leftfinger", "panda_rightfinger")
LEAST_N = 1e-3  # a smaller force is none
NEAR_M = 0.004  # a gel of 3 mm, and some slack of the collision shapes


@dataclass(frozen=True, eq=False)
class Felt:
    """The contact forces between the fingers and one body.

    Attributes:
        normal_N: [2], what presses the left and the right finger's pad.
        shear_N: [3], what drags both pads together along their surfaces, base frame. How two fingers share it is not
            determined by rigid bodies, so it is a sum.
        force_N: [3], all that both pads carry of the body, base frame: its weight, and what pushes it.
        torque_Nm: [3], the same about the tool point.
    """

    normal_N: FloatArray  # noqa: N815  (units keep their own capital letter)
    shear_N: FloatArray  # noqa: N815
    force_N: FloatArray  # noqa: N815
    torque_Nm: FloatArray  # noqa: N815

    @property
    def carried_N(self) -> float:  # noqa: N802
        """The weight that hangs on the two pads."""
        return -float(self.shear_N[2])

    @property
    def used(self) -> float:
        """Weight carried over force pressed; Coulomb's coefficient where the body slides. 0 = nothing presses."""
        pressed = float(self.normal_N.sum())
        return self.carried_N / pressed if pressed > LEAST_N else 0.0


def feel(world: PyBulletWorld, body: int) -> Felt:
    """What both fingers feel of a body now."""
    normal, shear, total, torque = np.zeros(2), np.zeros(3), np.zeros(3), np.zeros(3)
    middle = world.link_pose("tool")[:3, 3]
    for index, link in enumerate(FINGERS):
        for touching in world.touching(link, NEAR_M):
            if touching.body != body:
                continue
            own = touching.links == 0
            force, out = touching.force_N[own], touching.normals[own]
            pressing = np.einsum("ni,ni->n", force, out)
            normal[index] += pressing.sum()
            shear += (force - pressing[:, None] * out).sum(axis=0)
            total += force.sum(axis=0)
            torque += np.cross(touching.points_m[own] - middle, force).sum(axis=0)
    return Felt(normal, shear, total, torque)
