"""The tasks that need touch as Gymnasium ids, ready to be made without a config file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium

from envs.presets import FRONT_CAMERA, RATE_HZ, WRIST_CAMERA, register_ids
from sensors.errors import SpecError, nearest

if TYPE_CHECKING:
    from sensors.base import Sensor

MAX_STEPS = {"grasp_force": 90, "insert_peg": 80, "held_tool": 40}
IDS = {"GraspForce": "grasp_force", "InsertPeg": "insert_peg", "HeldTool": "held_tool"}
LIGHT_GRIP_N = 10.0  # of the tasks that start with a light thing in the hand
# The pads of the Panda's fingers, as in conf/sensor/touch_*.yaml, which a test compares.
PADS: dict[str, dict[str, Any]] = {
    "touch_left": {
        "link": "panda_leftfinger",
        "position_m": (0.0, 0.0, 0.045),
        "quaternion_xyzw": (0.7071068, 0.0, 0.0, 0.7071068),
    },
    "touch_right": {
        "link": "panda_rightfinger",
        "position_m": (0.0, 0.0, 0.045),
        "quaternion_xyzw": (0.0, 0.7071068, 0.7071068, 0.0),
    },
}


def register() -> None:
    """Make the ids of :data:`IDS`, e.g. ``perceive/GraspForce-v0``, known to Gymnasium. May be called twice."""
    register_ids(IDS, "envs.touch_presets:make")


def make(
    task: str,
    cameras: bool = True,
    touch: Mapping[str, Sensor] | None = None,
    action_mode: str = "ee_pose",
    reward: str = "dense",
    goal_keys: bool = False,
    max_steps: int | None = None,
    renderer: str = "auto",
    render_mode: str | None = None,
) -> gymnasium.Env[Any, Any]:
    """A Panda at one task, with joints, wrench, touch, and (if ``cameras``) two RGB-D cameras.

    The fingertips show the dent in their gel. Fields of forces, as the configs of these tasks have, need torch, which
    nothing here may import: build them and pass them in.

    Args:
        task: "grasp_force", "insert_peg" or "held_tool".
        cameras: False is much faster.
        touch: what the fingertips feel with, by name; None = the gel of both, {} = nothing, while the wrench stays.
        action_mode: a value of :class:`sensors.action.ActionMode`; "key_pose" is none of "grasp_force".
        reward: "dense" or "sparse".
        goal_keys: whether observations carry the goal; "held_tool" has one.
        max_steps: actions per episode; None = what suits the task.
        renderer: "tiny", "egl" or "auto".
        render_mode: "rgb_array" or None.

    Raises:
        SpecError: an argument is none of these.
    """
    # Here, not at the top: registering the ids must not start the simulator or its libraries.
    from envs.base import RobotEnv
    from envs.robots.base import Robot
    from envs.robots.force_panda import ForcePanda
    from envs.robots.panda import Panda
    from envs.tasks.base import Task
    from envs.tasks.grasp_force import GraspForce
    from envs.tasks.held_tool import HeldTool
    from envs.tasks.insert_peg import InsertPeg
    from sensors.camera import RgbdCamera
    from sensors.joints import JointSensor
    from sensors.rig import SensorRig
    from sensors.timeline import Timing
    from sensors.touch import FingertipTouch
    from sensors.wrench import WristWrench

    tasks: dict[str, Callable[[], Task]] = {
        "grasp_force": lambda: GraspForce(reward=reward),
        "insert_peg": lambda: InsertPeg(reward=reward),
        "held_tool": lambda: HeldTool(reward=reward),
    }
    if task not in tasks:
        raise SpecError("envs.touch_presets.make, task", f"one of {sorted(tasks)}", repr(task), nearest(task, tasks))
    robot: Robot = ForcePanda() if task == "grasp_force" else Panda(gripper_force_N=LIGHT_GRIP_N)
    timing = Timing(rate_hz=RATE_HZ)
    sensors: dict[str, Sensor] = {}
    if cameras:
        views = {"front": FRONT_CAMERA, "wrist": WRIST_CAMERA}
        sensors |= {name: RgbdCamera(**view, timing=timing) for name, view in views.items()}
    sensors |= {"joints": JointSensor(timing=timing), "wrench": WristWrench(timing=timing)}
    if touch is None:
        touch = {name: FingertipTouch(**pad, timing=timing) for name, pad in PADS.items()}
    sensors |= touch
    return RobotEnv(
        tasks[task](),
        robot,
        SensorRig(sensors),
        action_mode=action_mode,
        max_steps=max_steps or MAX_STEPS[task],
        goal_keys=goal_keys,
        renderer=renderer,
        render_mode=render_mode,
    )
