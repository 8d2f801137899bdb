"""Stage: puts things into a world, and knows which body belongs to which thing, part and class."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from envs.cloud_scenes.labels import UNLABELLED, lookup, names, numbers
from envs.cloud_scenes.scene import SceneBoxes
from envs.cloud_scenes.things import Piece, Thing, write_urdf
from envs.world import PyBulletWorld
from sensors.geometry import FloatArray, invert, pose

SLACK_M = 1e-4  # a point on a surface is inside of the box around it by at least this much


@dataclass(frozen=True, eq=False)
class Body:
    """One body of the simulator: a piece of a thing.

    Attributes:
        number: the simulator's.
        semantic: its class.
        part: its part, counted over all classes.
        instance: the thing that it belongs to; -1 = ground.
        middle_m: where its frame is [3] in the thing's.
        yaw_rad: how that is turned.
        low_m: lowest corner [3] of the box around it, thing's frame, with some slack.
        high_m: highest corner [3].
        owner: index of the thing among all that were put, ground included.
    """

    number: int
    semantic: int
    part: int
    instance: int
    middle_m: FloatArray
    yaw_rad: float
    low_m: FloatArray
    high_m: FloatArray
    owner: int


@dataclass(frozen=True, eq=False)
class Put:
    """A thing that was put somewhere: where its frame is at 0 s, and how it moves (without turning)."""

    thing: Thing
    place_m: FloatArray
    yaw_rad: float
    velocity_m_s: FloatArray
    instance: int


@final
class Stage:
    """The things of one scene.

    Args:
        world: where they are put.
        of: the classes and their parts.
    """

    def __init__(self, world: PyBulletWorld, of: dict[str, tuple[str, ...]]) -> None:
        self._world = world
        self._of = of
        self.classes, self.parts = names(of)
        self.bodies: list[Body] = []
        self.put_so_far: list[Put] = []
        self._instances = 0
        self._folder = tempfile.TemporaryDirectory(prefix="perceive-scene-")

    @property
    def count(self) -> int:
        """How many things there are, ground not counted."""
        return self._instances

    def put(
        self,
        thing: Thing,
        place_m: Sequence[float] | FloatArray,
        yaw_rad: float = 0.0,
        velocity_m_s: Sequence[float] | FloatArray = (0.0, 0.0, 0.0),
        ground: bool = False,
    ) -> None:
        """Put a thing's frame there; ``ground`` is no thing, and gets no box and no instance."""
        instance = UNLABELLED if ground else self._instances
        self._instances += not ground
        place, velocity = np.asarray(place_m, dtype=float), np.asarray(velocity_m_s, dtype=float)
        self.put_so_far.append(Put(thing, place, yaw_rad, velocity, instance))
        for piece in thing.pieces:
            self._add(thing.label, piece, place, yaw_rad, instance)

    def note(self, body: int, label: str, part: str) -> None:
        """A body that stands there already, as ground."""
        semantic, number = numbers(self._of, label, part)
        nowhere = np.zeros(3)
        self.bodies.append(Body(body, semantic, number, UNLABELLED, nowhere, 0.0, nowhere, nowhere, UNLABELLED))

    def move(self, now_s: float) -> None:
        """Put all that moves where it is at this moment."""
        for body in self.bodies:
            put = self.put_so_far[body.owner] if body.owner >= 0 else None
            if put is not None and put.velocity_m_s.any():
                place = put.place_m + now_s * put.velocity_m_s
                self._world.move_body(
                    body.number, place + pose_of(put.yaw_rad)[:3, :3] @ body.middle_m, put.yaw_rad + body.yaw_rad
                )

    def clear(self) -> None:
        """Take away what was put. Nothing may be put after that."""
        for body in self.bodies:
            if body.owner >= 0:
                self._world.remove(body.number)
        self.bodies, self.put_so_far, self._instances = [], [], 0
        self._folder.cleanup()

    def truth(self, body: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Class, instance and part [N] of body numbers [N]; -1 = no body."""
        tables = [
            lookup({each.number: value for each, value in zip(self.bodies, values, strict=True)})
            for values in (
                [each.semantic for each in self.bodies],
                [each.instance for each in self.bodies],
                [each.part for each in self.bodies],
            )
        ]
        return tables[0][body], tables[1][body], tables[2][body]

    def boxes(self, instance: NDArray[np.int64], world_from_base: FloatArray, now_s: float) -> SceneBoxes:
        """The boxes of all things in the base frame, with how many of the points' ``instance`` [N] are theirs."""
        things = [put for put in self.put_so_far if put.instance >= 0]
        base_from_world = invert(world_from_base)
        turned = float(np.arctan2(base_from_world[1, 0], base_from_world[0, 0]))
        bounds = [put.thing.bounds_m for put in things]
        centre = [
            pose_of(put.yaw_rad, put.place_m + now_s * put.velocity_m_s) @ [*(low + high) / 2, 1.0]
            for put, (low, high) in zip(things, bounds, strict=True)
        ]
        yaw = np.array([put.yaw_rad for put in things]) + turned
        velocity = np.array([put.velocity_m_s for put in things]).reshape(-1, 3)
        return SceneBoxes(
            centre_m=(np.array(centre).reshape(-1, 4) @ base_from_world.T)[:, :3],
            size_m=np.array([high - low for low, high in bounds]).reshape(-1, 3),
            yaw_rad=(yaw + np.pi) % (2 * np.pi) - np.pi,
            label=np.array([self.classes.index(put.thing.label) for put in things], np.int64),
            velocity_m_s=velocity @ base_from_world[:3, :3].T,
            instance=np.array([put.instance for put in things], np.int64),
            points=np.bincount(instance[instance >= 0], minlength=len(things)).astype(np.int64),
        )

    def _add(self, label: str, piece: Piece, place: FloatArray, yaw_rad: float, instance: int) -> None:
        semantic, part = numbers(self._of, label, piece.part)
        world_from_thing = pose_of(yaw_rad, place)
        low = np.min([np.asarray(solid.middle_m) - solid.reach_m for solid in piece.solids], axis=0)
        high = np.max([np.asarray(solid.middle_m) + solid.reach_m for solid in piece.solids], axis=0)
        first = piece.solids[0]
        upright = len(piece.solids) == 1 and len(first.size_m) > 1 and first.rpy_rad[:2] == (0.0, 0.0)
        middle, turn = np.zeros(3), 0.0
        if upright:  # the simulator's own shapes are put up in a tenth of the time, and its rays meet round cylinders
            middle = np.asarray(first.middle_m)
            at = world_from_thing[:3, :3] @ middle + place
            if len(first.size_m) == 3:
                turn = first.rpy_rad[2]
                half = [edge / 2 for edge in first.size_m]
                number = self._world.add_box(half, at, yaw_rad + turn, mass_kg=0.0, rgba=piece.rgba)
            else:
                radius, height = first.size_m
                number = self._world.add_cylinder(radius, height, at, mass_kg=0.0, rgba=piece.rgba)
        else:
            path = Path(self._folder.name) / f"piece_{len(self.bodies)}.urdf"
            write_urdf(path, piece)
            number = self._world.add_articulated(path, place, yaw_rad)
        self.bodies.append(
            Body(
                number, semantic, part, instance, middle, turn, low - SLACK_M, high + SLACK_M, len(self.put_so_far) - 1
            )
        )


def pose_of(yaw_rad: float, place_m: FloatArray | None = None) -> FloatArray:
    """A transform [4, 4]: a turn about z, then a shift."""
    half = yaw_rad / 2
    return pose((0.0, 0.0, 0.0) if place_m is None else place_m, (0.0, 0.0, float(np.sin(half)), float(np.cos(half))))
