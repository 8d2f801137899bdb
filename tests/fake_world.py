"""A world by closed forms: a table, a box and a gripper that is nothing but frames; a `sensors.base.World`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensors.base import JointState, Picture, Touching
from sensors.geometry import FloatArray, invert, pose, transform_points

TABLE_RGB, BOX_RGB, SKY_RGB = (150, 120, 90), (200, 30, 30), (30, 40, 60)
TABLE_BODY, BOX_BODY = 0, 1
FINGERS = {"panda_leftfinger": 1.0, "panda_rightfinger": -1.0}  # the side along the hand's y on which each finger is


class FakeWorld:
    """A table (the plane z = 0, seen from above), a box that may be turned, and the frames of a Panda gripper.

    Args:
        box_middle_m: middle [3] of the box in the base frame, metres.
        box_size_m: edge lengths [3], metres.
        box_quaternion_xyzw: rotation [4] of the box.
        tool_m: tool point [3]; the gripper points straight down, at rest.
        gripper_m: opening between the fingers, metres.
        joints: number of joints.

    ``time_s`` and the other public fields may be set by a test between two readings.
    """

    def __init__(
        self,
        box_middle_m: Sequence[float] = (0.5, 0.0, 0.03),
        box_size_m: Sequence[float] = (0.06, 0.06, 0.06),
        box_quaternion_xyzw: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
        tool_m: Sequence[float] = (0.5, 0.0, 0.03),
        gripper_m: float = 0.08,
        joints: int = 7,
    ) -> None:
        self.now_s = 0.0
        self.base_from_box = pose(box_middle_m, box_quaternion_xyzw)
        self.box_size_m = np.array(box_size_m, dtype=float)
        self.base_from_tool = pose(tool_m, (1.0, 0.0, 0.0, 0.0))
        self.tool_m_s, self.tool_rad_s = np.zeros(3), np.zeros(3)  # velocity and angular velocity, base frame
        self.gripper_m = gripper_m
        self.position_rad = np.linspace(-1.0, 1.0, joints)
        self.velocity_rad_s = np.linspace(0.5, -0.5, joints)
        self.force = np.array([1.0, -2.0, 9.81])
        self.torque = np.array([0.1, 0.2, -0.3])
        self.renders = 0  # pictures taken so far
        self.said = "lift the box"

    @property
    def time_s(self) -> float:
        return self.now_s

    @property
    def instruction(self) -> str:
        return self.said

    def render(
        self,
        base_from_camera: FloatArray,
        intrinsics_px: FloatArray,
        width: int,
        height: int,
        near_m: float,
        far_m: float,
    ) -> Picture:
        self.renders += 1
        fx, fy, cx, cy = intrinsics_px
        v, u = np.mgrid[0:height, 0:width]
        # Directions with z = 1 in the camera frame, so that the distance along a ray is the depth.
        rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(u.shape)], axis=-1).reshape(-1, 3)
        directions = rays @ base_from_camera[:3, :3].T
        starts = np.broadcast_to(base_from_camera[:3, 3], directions.shape)
        table, box = self._hit_table(starts, directions), self._hit_box(starts, directions)
        depth = np.minimum(table, box)
        body = np.where(box < table, BOX_BODY, TABLE_BODY)
        body[~((depth >= near_m) & (depth <= far_m))] = -1
        rgb = np.array([TABLE_RGB, BOX_RGB, SKY_RGB], np.uint8)[body]
        depth = np.where(body >= 0, depth, 0.0).astype(np.float32)
        return Picture(rgb.reshape(height, width, 3), depth.reshape(height, width), body.reshape(height, width))

    def link_pose(self, link: str) -> FloatArray:
        if link == "tool":
            return self.base_from_tool.copy()
        base_from_hand = self.base_from_tool @ pose((0.0, 0.0, -0.1034))
        if link == "panda_hand":
            return base_from_hand
        if link in FINGERS:
            return base_from_hand @ pose((0.0, FINGERS[link] * self.gripper_m / 2, 0.0584))
        raise KeyError(link)

    def link_velocity(self, link: str) -> tuple[FloatArray, FloatArray]:
        # The gripper is rigid: its fingers do not move in it.
        arm = self.link_pose(link)[:3, 3] - self.base_from_tool[:3, 3]
        return self.tool_m_s + np.cross(self.tool_rad_s, arm), self.tool_rad_s.copy()

    def joint_state(self) -> JointState:
        return JointState(self.position_rad.copy(), self.velocity_rad_s.copy(), self.gripper_m)

    def wrench(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return self.force.copy(), self.torque.copy(), self.link_pose("panda_hand")

    def ray_cast(
        self,
        start_m: FloatArray,
        end_m: FloatArray,
        *,
        robot: bool = False,
        cosines: FloatArray | None = None,
        bodies: Sequence[int] | None = None,
    ) -> FloatArray:
        along = end_m - start_m
        table, box = self._hit_table(start_m, along), self._hit_box(start_m, along)
        if bodies is not None:
            table = table if TABLE_BODY in bodies else np.full_like(table, np.inf)
            box = box if BOX_BODY in bodies else np.full_like(box, np.inf)
        part = np.minimum(table, box)
        length = np.linalg.norm(along, axis=-1)
        if cosines is not None:  # along the normal of what is hit: the table's, or that of the box's side
            local = transform_points(
                invert(self.base_from_box), start_m + np.where(part <= 1.0, part, 0.0)[:, None] * along
            )
            side = np.argmax(np.abs(local) / self.box_size_m, axis=-1)
            across = np.where(
                box < table, (along @ self.base_from_box[:3, :3])[np.arange(len(side)), side], along[:, 2]
            )
            cosines[:] = np.where(part <= 1.0, np.abs(across) / length, 0.0)
        return np.where(part <= 1.0, part * length, np.inf)

    def touches(self, link: str, margin_m: float) -> bool:
        # The pad of a finger is a 16 mm square around (0, 0, 45 mm) of its link; its corners stand for it.
        corners = np.array([(x, 0.0, 0.045 + z) for x in (-0.008, 0.0, 0.008) for z in (-0.008, 0.0, 0.008)])
        corners = transform_points(self.link_pose(link), corners)
        local = transform_points(invert(self.base_from_box), corners)
        to_box = np.linalg.norm(np.maximum(np.abs(local) - self.box_size_m / 2, 0.0), axis=-1)
        return bool(min(to_box.min(), corners[:, 2].min()) <= margin_m)

    def touching(self, link: str, margin_m: float) -> list[Touching]:
        # Nothing here has weight, so nothing carries a force.
        if not self.touches(link, margin_m):
            return []
        none = np.zeros((0, 3))
        return [Touching(BOX_BODY, self.base_from_box.copy(), 0.8, np.zeros(0, np.int64), none, none, none)]

    def _hit_table(self, starts: FloatArray, directions: FloatArray) -> FloatArray:
        """Multiples [N] of the directions [N, 3] at which rays meet the table from above; inf = never."""
        down = (directions[:, 2] < 0) & (starts[:, 2] >= 0)
        return np.where(down, starts[:, 2] / np.where(down, -directions[:, 2], 1.0), np.inf)

    def _hit_box(self, starts: FloatArray, directions: FloatArray) -> FloatArray:
        """The same for the box, by slabs; a ray from inside meets the far side."""
        box_from_base = invert(self.base_from_box)
        local = transform_points(box_from_base, starts)
        along = directions @ box_from_base[:3, :3].T
        along = np.where(np.abs(along) < 1e-12, 1e-12, along)
        first = (-self.box_size_m / 2 - local) / along
        second = (self.box_size_m / 2 - local) / along
        enter = np.minimum(first, second).max(axis=-1)
        leave = np.maximum(first, second).min(axis=-1)
        hit = (enter <= leave) & (leave >= 0)
        return np.where(hit, np.where(enter >= 0, enter, leave), np.inf)
