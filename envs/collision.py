"""CollisionScene: how near the robot would come to what stands around it, if its joints were elsewhere.

A second physics server holds a copy of every shape, in which the robot is put wherever a planner asks. Nothing that is
asked here touches the simulation itself: not its contacts, not its bits.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, final

import numpy as np

from envs.opengl import matrix
from envs.physics import disconnect
from envs.robot_model import RobotModel
from envs.solids import centre_of_mass
from sensors.errors import SpecError
from sensors.geometry import FloatArray, invert, matrix_to_quaternion

GRIPPED_M = 0.002  # a body that both fingers are this near to is in the hand
APART = 4  # links this many joints apart may hit each other; nearer ones are kept apart by the joint limits
ITSELF = -1  # stands for the robot in the place of a body


class Part(Enum):
    """What of the robot comes near something: its arm, its hand with the fingers, or a body in the hand."""

    ARM = 0
    HAND = 1
    HELD = 2


@dataclass(frozen=True)
class Nearness:
    """A part of the robot that is near a body (``ITSELF`` = its own arm); negative = that deep inside, metres."""

    part: Part
    body: int
    distance_m: float


@dataclass(eq=False)
class _Copy:
    """One shape of a body: its body in the second server, its link, and ``com_from_shape``."""

    number: int
    link: int
    com_from_shape: FloatArray


@dataclass(eq=False)
class _Held:
    body: int
    shapes: list[tuple[int, FloatArray]] = field(default_factory=list)  # in the second server, tool_from_shape


@final
class CollisionScene:
    """A copy of a world's shapes.

    Args:
        bullet: the module pybullet.
        client: the physics server of the world.
        robot: the robot in it.
    """

    def __init__(self, bullet: Any, client: int, robot: RobotModel) -> None:
        self._bullet, self._client, self._robot = bullet, client, robot
        description = robot.description
        self._own = bullet.connect(bullet.DIRECT)
        self._finalizer = weakref.finalize(self, disconnect, bullet, self._own)
        self._twin = RobotModel(bullet, self._own, description)
        links = self._twin.links
        self._tool_link = links[description.tool_link]
        self._feet = {links[name] for name in description.foot_links}
        self._hand = {self._tool_link, *self._twin.fingers}
        self._self_pairs = self._own_pairs()
        self._copies: dict[int, list[_Copy]] = {}
        self._held: list[_Held] = []
        self._handles: frozenset[int] = frozenset()
        self._gripper_m = 0.0

    @property
    def held(self) -> frozenset[int]:
        """The free bodies that were in the hand at the last :meth:`update`."""
        return frozenset(held.body for held in self._held)

    @property
    def handles(self) -> frozenset[int]:
        """The articulated bodies that were gripped at the last :meth:`update`."""
        return self._handles

    def forget(self, body: int) -> None:
        """The body was removed from the world."""
        for copy in self._copies.pop(body, []):
            self._bullet.removeBody(copy.number, physicsClientId=self._own)
        self._held = [held for held in self._held if held.body != body]

    def update(self, bodies: Iterable[int]) -> None:
        """Copy where the robot and these bodies are now; free bodies between the fingers move with the hand.

        Raises:
            SpecError: a body has a shape that cannot be copied.
        """
        for body in bodies:
            if body not in self._copies:
                self._copies[body] = self._copied(body)
            for copy in self._copies[body]:
                base_from_com = centre_of_mass(self._bullet, self._client, body, copy.link)
                self._place(copy.number, base_from_com @ copy.com_from_shape)
        state = self._robot.joint_state()
        self._gripper_m = state.gripper_m
        self._twin.place_joints(state.position_rad, state.gripper_m)
        tool_from_base = invert(self._twin.link_pose("tool"))
        self._held = []
        gripped = [body for body in self._copies if self._gripped(body)]
        self._handles = frozenset(body for body in gripped if self._joints(body))
        for body, copies in self._copies.items():
            if body in gripped and self._free(body):
                held = _Held(body)
                for copy in copies:
                    place = centre_of_mass(self._bullet, self._client, body, copy.link) @ copy.com_from_shape
                    held.shapes.append((copy.number, tool_from_base @ place))
                self._held.append(held)

    def _gripped(self, body: int) -> bool:
        """Whether both fingers are at a body, with the robot as it was put last."""
        return all(
            any(self._closest(self._twin.body, copy.number, GRIPPED_M, finger) for copy in self._copies[body])
            for finger in self._twin.fingers
        )

    def near(self, position_rad: FloatArray, within_m: float) -> Iterator[Nearness]:
        """What the robot, put there with the gripper and the held bodies as they are, is within ``within_m`` of.

        A pair of a part and a body may come several times. What most often ends a search comes first. Do not ask
        anything else before the last one has come.
        """
        self._twin.place_joints(position_rad, self._gripper_m)
        held, hand = self.held, self._hand
        others = [(body, copy.number) for body, copies in self._copies.items() if body not in held for copy in copies]
        for body, number in others:
            for point in self._closest(self._twin.body, number, within_m):
                if point[3] not in self._feet:
                    yield Nearness(Part.HAND if point[3] in hand else Part.ARM, body, point[8])
        yield from self._near_held(others, within_m)
        for first, second in self._self_pairs:
            for point in self._closest(self._twin.body, self._twin.body, within_m, first, second):
                yield Nearness(Part.ARM, ITSELF, point[8])

    def close(self) -> None:
        """Let go of the second server. May be called twice."""
        self._finalizer()

    def _near_held(self, others: Sequence[tuple[int, int]], within_m: float) -> Iterator[Nearness]:
        if not self._held:
            return
        base_from_tool = self._twin.link_pose("tool")
        for body in self._held:
            for number, tool_from_shape in body.shapes:
                self._place(number, base_from_tool @ tool_from_shape)
                for other, copy in others:
                    for point in self._closest(number, copy, within_m):
                        yield Nearness(Part.HELD, other, point[8])
                for point in self._closest(self._twin.body, number, within_m):
                    if point[3] not in self._hand and self._tool_link - point[3] > 1:
                        yield Nearness(Part.HELD, ITSELF, point[8])

    def _closest(self, first: int, second: int, within_m: float, *links: int) -> tuple[Any, ...]:
        found = self._bullet.getClosestPoints(first, second, within_m, *links, physicsClientId=self._own)
        return tuple(found)

    def _place(self, number: int, base_from_shape: FloatArray) -> None:
        turn = matrix_to_quaternion(base_from_shape[:3, :3]).tolist()
        self._bullet.resetBasePositionAndOrientation(
            number, base_from_shape[:3, 3].tolist(), turn, physicsClientId=self._own
        )

    def _free(self, body: int) -> bool:
        mass_kg = self._bullet.getDynamicsInfo(body, -1, physicsClientId=self._client)[0]
        return self._joints(body) == 0 and mass_kg > 0

    def _joints(self, body: int) -> int:
        return int(self._bullet.getNumJoints(body, physicsClientId=self._client))

    def _copied(self, body: int) -> list[_Copy]:
        bullet, found = self._bullet, []
        for link in range(-1, self._joints(body)):
            for index, shape in enumerate(bullet.getCollisionShapeData(body, link, physicsClientId=self._client)):
                kind, size, com_from_shape = shape[2], shape[3], matrix(shape[5], shape[6])
                made: dict[str, Any]
                if kind == bullet.GEOM_BOX:
                    made = {"halfExtents": [edge / 2 for edge in size]}
                elif kind == bullet.GEOM_CYLINDER:
                    made = {"radius": size[1], "height": size[0]}
                elif kind == bullet.GEOM_SPHERE:
                    made = {"radius": size[0]}
                elif kind == bullet.GEOM_MESH and index == 0:
                    # The points come scaled and placed, of a link's first mesh only.
                    points = bullet.getMeshData(body, link, physicsClientId=self._client)[1]
                    made, com_from_shape = {"vertices": points}, np.eye(4)
                else:
                    raise SpecError(
                        "CollisionScene", "boxes, cylinders, spheres and at most one mesh per link",
                        f"collision geometry {kind} of body {body}, link {link}", "Model it with these.",
                    )  # fmt: skip
                shape_number = bullet.createCollisionShape(kind, physicsClientId=self._own, **made)
                number = int(bullet.createMultiBody(0.0, shape_number, physicsClientId=self._own))
                found.append(_Copy(number, link, com_from_shape))
        return found

    def _own_pairs(self) -> list[tuple[int, int]]:
        """Links of the robot that may hit each other."""
        links = sorted(set(self._twin.links.values()))
        # Both fingers hang on the hand: as far from the base as each other.
        depth = {link: min(link, self._tool_link + 1) for link in links}
        return [(a, b) for a, b in itertools.combinations(links, 2) if depth[b] - depth[a] >= APART]
