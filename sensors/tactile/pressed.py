"""What presses a fingertip: shapes from rays, forces from the contacts of the simulator.

Simulators with rigid bodies give the right *sum* of the forces on a body, but how two fingers share it is not
determined by rigid mechanics, and a solver may let one of them carry all of the weight. Gels on the fingers do
determine it: they give way, so the body shifts and turns until each carries its part (:func:`shared_shear`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sensors.base import Touching, World
from sensors.geometry import FloatArray, invert
from sensors.pad import SLACK_M, PadGrid

_FACING = 0.5  # cosine of the angle between a contact and the pad, above which the contact is on the pad's side
_ARM_M = 0.01  # turns are counted by the way at this distance, so that ways and turns are of one size


@dataclass(frozen=True, eq=False)
class Pressed:
    """A body that stands in the gel.

    Attributes:
        touching: what the world says of it.
        overlap_m: float [h, w] >= 0, how far it stands in the undeformed gel, metres.
        normal_N: what the simulator's contacts press the pad with, newton; 0 = it stands in the gel, but does not yet
            touch the hard finger that the simulator knows.
        on_pad: bool [N], which of its contacts are on the pad.
    """

    touching: Touching
    overlap_m: FloatArray
    normal_N: float  # noqa: N815  (units keep their own capital letter, design convention 4)
    on_pad: NDArray[np.bool_]


def pressed_bodies(world: World, link: str, grid: PadGrid, base_from_pad: FloatArray) -> list[Pressed]:
    """The bodies that stand in the gel of a link.

    The gel stands out from the finger, so it carries all that presses the finger's face, also beside the area that the
    sensor shows: every contact of the link counts whose normal is within 60 degrees of the pad's.
    """
    near = world.touching(link, grid.gel_m + SLACK_M)
    found = []
    for touching in near:
        # One body is the usual case; rays need not be told to pass through others that are not there.
        bodies = None if len(near) == 1 else [touching.body]
        overlap = np.clip(grid.reach_m(world, base_from_pad, bodies), 0.0, grid.gel_m)
        if not (overlap <= 0).all():
            on_pad = (touching.links == 0) & (touching.normals @ base_from_pad[:3, 2] < -_FACING)
            normal = -touching.force_N[on_pad] @ base_from_pad[:3, 2]
            found.append(Pressed(touching, overlap, max(float(normal.sum()), 0.0), on_pad))
    return found


def shared_shear(pressed: Pressed, base_from_pad: FloatArray, shear_to_normal: float) -> tuple[FloatArray, float]:
    """What the pad carries sideways of the load that all of the robot's links put on a body.

    As if each link held the body by springs of equal stiffness at its contact points: the body shifts and turns until
    they carry what the simulator's contacts carry in sum. Internal forces along the surfaces, which rigid contacts have
    kept from an earlier moment, are left out, as nothing says that a soft gel would have kept them. Held by one link
    only, the load is what the simulator says; so is the share of whatever else holds the body, as a table under it.

    Args:
        pressed: the body.
        base_from_pad: [4, 4].
        shear_to_normal: stiffness of the springs along the surface, as a share of that across it.

    Returns:
        Force [2] on the pad along its x and y, newton, and torque about its +z through the middle, newton metres.
    """
    touching, on_pad = pressed.touching, pressed.on_pad
    force = touching.force_N
    holders = _holders(touching.links, on_pad)
    if len(holders) > 1:
        force = _settled(touching, holders, shear_to_normal)
    pad_from_base = invert(base_from_pad)
    local = force[on_pad] @ pad_from_base[:3, :3].T
    points = touching.points_m[on_pad] @ pad_from_base[:3, :3].T + pad_from_base[:3, 3]
    twist = points[:, 0] * local[:, 1] - points[:, 1] * local[:, 0]
    return local[:, :2].sum(axis=0), float(twist.sum())


def _holders(links: NDArray[np.int64], on_pad: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Contacts bool [N] of each thing that holds the body: the pad, the rest of its link, every other link."""
    groups: Iterable[NDArray[np.bool_]] = [on_pad, *((links == link) & ~on_pad for link in np.unique(links))]
    return [group for group in groups if group.any()]


def _settled(touching: Touching, holders: list[NDArray[np.bool_]], shear_to_normal: float) -> FloatArray:
    """Forces [N, 3] on the robot at the contacts, as soft springs would share them."""
    normals, count = touching.normals, len(touching.links)
    soft = np.zeros(count)
    for group in holders:
        soft[group] = 1.0 / group.sum()  # a link is as stiff however many points its contact was given
    middle = touching.points_m.mean(axis=0)
    along = np.eye(3) - normals[:, :, None] * normals[:, None, :]
    stiffness = soft[:, None, None] * (np.eye(3) - (1.0 - shear_to_normal) * along)
    # Ways [N, 3, 6] of the points for a unit of (shift, turn * arm) of the body.
    x, y, z = ((touching.points_m - middle) / _ARM_M).T
    zero = np.zeros(count)
    turned = np.array([[zero, z, -y], [-z, zero, x], [y, -x, zero]]).transpose(2, 0, 1)
    ways = np.concatenate([np.broadcast_to(np.eye(3), (count, 3, 3)), turned], axis=2)
    load = np.einsum("nik,ni->k", ways, touching.force_N)
    whole = np.einsum("nik,nij,njl->kl", ways, stiffness, ways)
    # Points in one line leave a turn about it free: the least motion is taken.
    motion = np.linalg.lstsq(whole, load, rcond=1e-9)[0]
    settled: FloatArray = np.einsum("nij,njk,k->ni", stiffness, ways, motion)
    return settled
