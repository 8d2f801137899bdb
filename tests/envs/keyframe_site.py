"""What the tests of the keyframe tasks share: the environments, and where a preset camera sees a point."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.base import RobotEnv
from envs.presets import MAX_KEY_POSES, make
from envs.tasks.keyframe import KeyframeTask
from sensors.geometry import FloatArray, intrinsics_from_fov, invert, pose, project, transform_points

TASKS = sorted(MAX_KEY_POSES)


def built(task: str, **settings: Any) -> tuple[RobotEnv, KeyframeTask]:
    env = make(task, **{"cameras": False, "renderer": "tiny", "reward": "sparse"} | settings)
    assert isinstance(env, RobotEnv)
    assert isinstance(env.task, KeyframeTask)
    return env, env.task


def seen(camera: dict[str, Any], points_m: FloatArray) -> FloatArray:
    """Pixels [N, 2] of points in a preset camera."""
    from_base = invert(pose(camera["position_m"], camera["quaternion_xyzw"]))
    intrinsics = intrinsics_from_fov(camera["width"], camera["height"], camera["fov_y_deg"])
    return np.asarray(project(transform_points(from_base, points_m), intrinsics)[0])
