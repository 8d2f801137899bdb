"""Starting an episode with something in the hand."""

from __future__ import annotations

import numpy as np

from envs.experts.base import CLOSED
from envs.robots.base import Robot
from envs.world import PyBulletWorld
from sensors.action import ActionMode, ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray, matrix_to_rotation_6d

PERIOD_S, SUBSTEPS = 1 / 12, 20
GAP_M = 0.0001  # between the fingers and what they are about to grasp
GRASP_PERIODS = 4  # in which the fingers close and come to rest
TURN_PERIODS = 8  # in which the hand turns back


def grasp_here(
    world: PyBulletWorld, robot: Robot, body: int, wide_m: float, in_tool_m: FloatArray, tilt: float
) -> None:
    """Put an upright body into the hand, so that it leans by ``tilt`` when the hand points down as it does now.

    The hand leans the other way, grasps the upright body, and turns back: what holds the body in the end is friction,
    as if the hand had picked it up.

    Args:
        world: where both are.
        robot: at rest, its hand pointing down. It ends in the same pose, its fingers closed.
        body: it stands upright, and looks alike from both fingers.
        wide_m: its width between the fingers.
        in_tool_m: where its middle would be [3] if it did not lean, tool frame.
        tilt: the lean, a turn about the tool point around the tool's y axis, along which the fingers close, radians.

    Raises:
        SpecError: the robot's actions lack rotation or gripper.
    """
    spec = robot.action_spec(ActionMode.EE_POSE, PERIOD_S)
    if not {"rotation_6d", "gripper"} <= set(spec.parts):
        fix = "Set rotation: true and gripper: true of the robot."
        raise SpecError("a thing in the hand", "actions with rotation and gripper", f"{sorted(spec.parts)}", fix)
    home = robot.tool_pose()
    leaning = home.copy()
    c, s = np.cos(tilt), np.sin(tilt)
    leaning[:3, :3] = home[:3, :3] @ np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    robot.reset(leaning)
    world.place_joints(world.joint_state().position_rad, wide_m + 2 * GAP_M)
    yaw = float(np.arctan2(home[1, 0], home[0, 0]))
    world.move_body(body, home[:3, 3] + home[:3, :3] @ in_tool_m, yaw)
    _hold(world, robot, spec, leaning, GRASP_PERIODS)
    _hold(world, robot, spec, home, TURN_PERIODS if tilt else 0)


def _hold(world: PyBulletWorld, robot: Robot, spec: ActionSpec, base_from_tool: FloatArray, periods: int) -> None:
    values = np.array(spec.space.high, np.float32)
    values[spec.part("position_m")] = base_from_tool[:3, 3]
    values[spec.part("rotation_6d")] = matrix_to_rotation_6d(base_from_tool[:3, :3])
    values[spec.part("gripper")] = CLOSED
    for _ in range(periods):
        robot.command(values, spec)
        world.step(SUBSTEPS)
