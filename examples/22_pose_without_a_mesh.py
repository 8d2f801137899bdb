"""The 6D pose of an object of which there are four pictures and no mesh: nothing is trained.

    python examples/22_pose_without_a_mesh.py [--object duck] [--pictures 4] [--picture FILE]

The object stands on a turntable before a depth camera, so its pose in those pictures is known: on a robot, from the
turntable's or the arm's joints, or from a marker. Then it is seen from elsewhere, half behind a box.
"""

from __future__ import annotations

import argparse

import numpy as np

from envs.pose_scenes.library import objects
from perceive.pose.estimators.few_shot import FewShotEstimator
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.references import Reference
from perceive.viewing.film import write_png
from perceive.viewing.pose_picture import pose_picture
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix

CAMERA_PX = np.array([600.0, 600.0, 319.5, 239.5])
WALL_M, BOX_M = 0.9, 0.4


def pose_at(turn_rad: float, tilt_rad: float, far_m: float, aside_m: float = 0.0) -> FloatArray:
    """camera_from_object of what stands upright on a table that has turned, seen from above by some angle."""
    out = np.eye(4)
    out[:3, :3] = axis_angle_to_matrix([np.pi / 2 + tilt_rad, 0, 0]) @ axis_angle_to_matrix([0, 0, turn_rad])
    out[:3, 3] = (aside_m, 0.03, far_m)
    return out


def photograph(model: ObjectModel, pose: FloatArray, hidden: float = 0.0) -> Reference:
    """A picture before a wall with a millimetre of noise, the pixels that show the object, and its pose."""
    drawn = MeshRenderer(model).render(pose, CAMERA_PX, (0, 0, 640, 480))
    there = drawn.depth_m[0] > 0
    edge = np.quantile(np.nonzero(there)[1], hidden)
    box = (np.arange(640) < edge) & (hidden > 0) & np.ones((480, 1), bool)
    depth = np.where(box, BOX_M, np.where(there, drawn.depth_m[0], WALL_M))
    depth = (depth + np.random.default_rng(0).normal(0, 0.001, depth.shape)).astype(np.float32)
    rgb = np.where(box[..., None], (150, 110, 60), np.where(there[..., None], drawn.rgb[0], (120, 110, 100)))
    frame = RgbdFrame(
        stamp_s=0.0, rgb=rgb.astype(np.uint8), depth_m=depth, intrinsics_px=CAMERA_PX, base_from_camera=np.eye(4)
    )
    return Reference.make(frame, there & ~box, pose)


def main() -> None:
    """Show the object, look for it, draw where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--object", default="duck")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--picture", default="pose_without_a_mesh.png")
    asked = parser.parse_args()
    (shape,) = objects([asked.object])
    model = ObjectModel.make(1, shape.name, shape.vertices_m, shape.faces, shape.rgb)
    turns = 2 * np.pi * np.arange(asked.pictures) / asked.pictures
    shown = [photograph(model, pose_at(turn, 0.6, 0.6)) for turn in turns]
    query = photograph(model, pose_at(0.8, 0.3, 0.7, 0.05), hidden=0.4)
    estimator = FewShotEstimator({1: shown})
    (found,) = estimator.estimate(query.frame, 1, query.mask)
    pose, truth = found.camera_from_object, query.camera_from_object
    turn_rad = np.arccos(np.clip((np.trace(pose[:3, :3].T @ truth[:3, :3]) - 1) / 2, -1, 1))
    off_mm = 1000 * np.linalg.norm(pose[:3, 3] - truth[:3, 3])
    print(f"{shape.name}: score {found.score:.2f}, {off_mm:.1f} mm and {np.degrees(turn_rad):.1f} degrees off")
    drawn = {1: MeshRenderer(estimator.models[1])}  # the surface that the pictures show together
    picture = pose_picture(query.frame.rgb, CAMERA_PX, drawn, [(1, pose)], [(1, truth)])
    print("picture:", write_png(asked.picture, picture))


if __name__ == "__main__":
    main()
