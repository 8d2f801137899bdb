"""The tasks as Gymnasium ids, ready to be made without a config file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

from sensors.errors import SpecError, nearest

RATE_HZ = 12.0
# The same numbers as conf/sensor/*.yaml, which a test compares; a preset cannot read the config tree.
FRONT_CAMERA: dict[str, Any] = {
    "width": 84,
    "height": 84,
    "fov_y_deg": 50.0,
    "position_m": (1.02, 0.3, 0.72),
    "quaternion_xyzw": (-0.462041, -0.799983, 0.331494, 0.191459),
    "near_m": 0.05,
    "far_m": 3.0,
}
WRIST_CAMERA: dict[str, Any] = {
    "width": 84,
    "height": 84,
    "fov_y_deg": 75.0,
    "link": "panda_hand",
    "position_m": (0.07, 0.0, 0.035),
    "quaternion_xyzw": (-0.122788, -0.122788, 0.696364, 0.696364),
    "near_m": 0.02,
    "far_m": 2.0,
}
# The three views of the tasks that are solved by key poses.
KEYFRAME_CAMERAS: dict[str, dict[str, Any]] = {
    "front": {
        "width": 128,
        "height": 128,
        "fov_y_deg": 36.0,
        "position_m": (1.25, 0.0, 0.95),
        "quaternion_xyzw": (-0.657559, -0.657559, 0.26003, 0.26003),
        "near_m": 0.05,
        "far_m": 3.0,
    },
    "left": {
        "width": 128,
        "height": 128,
        "fov_y_deg": 36.0,
        "position_m": (0.66, 0.9, 0.8),
        "quaternion_xyzw": (-0.078076, -0.885243, 0.456756, 0.040285),
        "near_m": 0.05,
        "far_m": 3.0,
    },
    "right": {
        "width": 128,
        "height": 128,
        "fov_y_deg": 36.0,
        "position_m": (0.66, -0.9, 0.8),
        "quaternion_xyzw": (-0.885243, -0.078076, 0.040285, 0.456756),
        "near_m": 0.05,
        "far_m": 3.0,
    },
}
WORDS_MAX_AGE_S = 1e6  # an instruction does not grow stale
MAX_STEPS = {
    "reach": 40, "push": 80, "lift": 60, "pick_place": 80,
    "stack_blocks": 72, "put_in": 90, "drawer": 140, "press_buttons": 100,
}  # fmt: skip
MAX_KEY_POSES = {"stack_blocks": 12, "put_in": 12, "drawer": 20, "press_buttons": 15}
IDS = {
    "Reach": "reach",
    "Push": "push",
    "Lift": "lift",
    "PickPlace": "pick_place",
    "StackBlocks": "stack_blocks",
    "PutIn": "put_in",
    "OpenDrawerPut": "drawer",
    "PressButtons": "press_buttons",
}


def register() -> None:
    """Make the ids of :data:`IDS`, e.g. ``perceive/Reach-v0``, known to Gymnasium. May be called twice."""
    register_ids(IDS, "envs.presets:make")


def register_ids(ids: Mapping[str, str], entry_point: str) -> None:
    """Make ``perceive/<name>-v0`` known to Gymnasium for each name -> task that the function ``entry_point`` makes."""
    for name, task in ids.items():
        env_id = f"perceive/{name}-v0"
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point, kwargs={"task": task})


def make(
    task: str,
    cameras: bool = True,
    action_mode: str = "ee_pose",
    rotation: bool = True,
    gripper: bool = True,
    reward: str = "dense",
    goal_keys: bool = False,
    max_steps: int | None = None,
    renderer: str = "auto",
    render_mode: str | None = None,
) -> gymnasium.Env[Any, Any]:
    """A Panda at one task, with joints, wrench and (if ``cameras``) a front and a wrist RGB-D camera.

    The tasks that are solved by key poses have joints, the task in words, and (if ``cameras``) three RGB-D cameras.

    Args:
        task: "reach", "push", "lift" or "pick_place"; "stack_blocks", "put_in", "drawer" or "press_buttons".
        cameras: False is much faster.
        action_mode: a value of :class:`sensors.action.ActionMode`.
        rotation: whether actions turn the tool.
        gripper: whether actions move the gripper.
        reward: "dense" or "sparse".
        goal_keys: whether observations carry the goal.
        max_steps: actions per episode; None = what suits the task.
        renderer: "tiny", "egl" or "auto".
        render_mode: "rgb_array" or None.

    Raises:
        SpecError: an argument is none of these.
    """
    # Here, not at the top: registering the ids must not start the simulator or its libraries.
    from envs.base import RobotEnv
    from envs.robots.panda import Panda
    from envs.tasks.base import Task
    from envs.tasks.drawer import OpenDrawerPut
    from envs.tasks.lift import Lift
    from envs.tasks.pick_place import PickPlace
    from envs.tasks.press_buttons import PressButtons
    from envs.tasks.push import Push
    from envs.tasks.put_in import PutIn
    from envs.tasks.reach import Reach
    from envs.tasks.stack_blocks import StackBlocks
    from sensors.base import Sensor
    from sensors.camera import RgbdCamera
    from sensors.instruction import InstructionSensor
    from sensors.joints import JointSensor
    from sensors.rig import SensorRig
    from sensors.timeline import Timing
    from sensors.wrench import WristWrench

    if task not in MAX_STEPS:
        raise SpecError("envs.presets.make, task", f"one of {sorted(MAX_STEPS)}", repr(task), nearest(task, MAX_STEPS))
    tasks: dict[str, Callable[[], Task]] = {
        "reach": lambda: Reach(reward=reward),
        "push": lambda: Push(reward=reward),
        "lift": lambda: Lift(reward=reward),
        "pick_place": lambda: PickPlace(reward=reward),
        "stack_blocks": lambda: StackBlocks(reward=reward),
        "put_in": lambda: PutIn(reward=reward),
        "drawer": lambda: OpenDrawerPut(reward=reward),
        "press_buttons": lambda: PressButtons(reward=reward),
    }
    timing = Timing(rate_hz=RATE_HZ)
    sensors: dict[str, Sensor] = {}
    by_words = task in MAX_KEY_POSES
    if cameras:
        views = KEYFRAME_CAMERAS if by_words else {"front": FRONT_CAMERA, "wrist": WRIST_CAMERA}
        sensors |= {name: RgbdCamera(**view, timing=timing) for name, view in views.items()}
    sensors["joints"] = JointSensor(timing=timing)
    if by_words:
        sensors["task"] = InstructionSensor(timing=Timing(rate_hz=RATE_HZ, max_age_s=WORDS_MAX_AGE_S))
    else:
        sensors["wrench"] = WristWrench(timing=timing)
    return RobotEnv(
        tasks[task](),
        Panda(rotation=rotation, gripper=gripper),
        SensorRig(sensors),
        action_mode=action_mode,
        max_steps=max_steps or MAX_STEPS[task],
        max_key_poses=MAX_KEY_POSES.get(task, 25),
        goal_keys=goal_keys,
        renderer=renderer,
        render_mode=render_mode,
    )
