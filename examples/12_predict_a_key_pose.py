"""Three RGB-D cameras and a sentence become one key pose, which the robot then moves to; saves the heatmaps behind it.
Run: python examples/12_predict_a_key_pose.py [run folder of: perceive train experiment=rvt_stack_blocks]"""

import sys

import cv2
import gymnasium
import torch

import envs  # noqa: F401  (makes the ids known)
from perceive import collate
from perceive.cli.compose import compose_config
from perceive.loading import build_model
from perceive.viewing.heatmaps import key_pose_picture
from policies.learned import trained_model
from sensors.observation import Observation

env = gymnasium.make("perceive/StackBlocks-v0", action_mode="key_pose")
values, info = env.reset(seed=7)
robot, plan = env.unwrapped, compose_config("train", ["experiment=rvt_stack_blocks"])["model"]
model = build_model(plan, robot.rig.sensor_spaces, robot.rig.history, robot.action_spec).eval()  # knows nothing yet
model = trained_model(sys.argv[1]) if len(sys.argv) > 1 else model
with torch.inference_mode():
    pose = model(collate([Observation.from_dict(values, info["now_s"])]))["action"]
print(robot.task.instruction, "-> tool to", pose.values[0, 0, :3].tolist(), "m; gripper", pose.values[0, 0, 9].item())
cv2.imwrite("key_pose.png", key_pose_picture(pose, model.faces)[..., ::-1])
action = pose.values[0, 0].numpy().clip(env.action_space.low, env.action_space.high)
print("the move:", env.step(action)[-1]["plan"] or "done")
