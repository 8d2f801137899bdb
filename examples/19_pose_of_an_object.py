"""The 6D pose of an object in one RealSense frame, from its mesh alone: nothing is trained.

    python examples/19_pose_of_an_object.py [--mesh FILE.ply] [--picture FILE]

Without a camera it reads a twin made of software that looks at a mug on a table, through the same SDK. The camera's
package comes with: pip install "perceive[realsense]"
"""

from __future__ import annotations

import argparse
import threading
import time

import numpy as np

from envs.pose_scenes.library import objects
from perceive.pose.estimators.templates import TemplateEstimator
from perceive.pose.files.mesh_file import load_model
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.viewing.film import write_png
from perceive.viewing.pose_picture import pose_picture
from sensors.clock import host_now_s
from sensors.frames import RgbdFrame
from sensors.geometry import axis_angle_to_matrix
from sensors.live import LiveSensor
from sensors.realsense import RealSense, find
from sensors.realsense_settings import Mode
from sensors.realsense_twin import Twin, TwinCamera, TwinLens, TwinPort
from sensors.timeline import Timing

LENS = TwinLens(Mode(640, 480, 30), intrinsics_px=(600.0, 600.0, 319.5, 239.5))
TRUE_POSE = np.eye(4)
TRUE_POSE[:3, :3] = axis_angle_to_matrix([2.2, 0.5, -0.4])
TRUE_POSE[:3, 3] = (0.03, 0.0, 0.6)


def play_twin(twin: Twin, model: ObjectModel) -> None:
    """The object before a wall, 30 pictures a second."""
    camera = LENS.intrinsics_px
    drawn = MeshRenderer(model).render(TRUE_POSE, camera, (0, 0, 640, 480))
    there = drawn.depth_m[0] > 0
    raw = np.where(there, np.rint(drawn.depth_m[0] * 1000), 900).astype(np.uint16)
    rgb = np.where(there[..., None], drawn.rgb[0], (120, 110, 100)).astype(np.uint8)
    for number in range(10**6):
        stamp_s = host_now_s()
        twin.give_depth(raw, number=number, stamp_s=stamp_s)
        twin.give_colour(rgb, number=number, stamp_s=stamp_s)
        time.sleep(1 / 30)


def one_frame(camera: RealSense) -> RgbdFrame:
    """The first frame that has colour and depth."""
    sensor = LiveSensor(device=camera, timing=Timing(rate_hz=30.0, live=True))
    sensor.open(None)
    frame = None
    while not isinstance(frame, RgbdFrame):
        time.sleep(0.005)
        frame = sensor.read(host_now_s())
    sensor.close()
    return frame


def main() -> None:
    """Read a frame, find the object, draw it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mesh")
    parser.add_argument("--picture", default="pose.png")
    asked = parser.parse_args()
    (mug,) = objects(["mug"])
    model = (
        load_model(asked.mesh, 1) if asked.mesh else ObjectModel.make(1, mug.name, mug.vertices_m, mug.faces, mug.rgb)
    )
    camera = RealSense(colour=LENS.mode, depth=LENS.mode)
    if not find():
        port = TwinPort()
        twin = port.plug(TwinCamera(depth=LENS, colour=LENS))
        camera = RealSense(colour=LENS.mode, depth=LENS.mode, context=port.context)
        threading.Thread(target=play_twin, args=(twin, model), daemon=True).start()
    frame = one_frame(camera)
    found = TemplateEstimator({1: model}).estimate(frame, 1, mask=None)
    if not found:
        raise SystemExit(f"{model.name} is not in view")
    pose = found[0].camera_from_object
    place_m = np.round(pose[:3, 3], 4)
    print(f"{model.name} at {place_m} m in the camera, score {found[0].score:.2f}, turned by\n{pose[:3, :3]}")
    if not find():
        print(f"{1000 * np.linalg.norm(pose[:3, 3] - TRUE_POSE[:3, 3]):.1f} mm from where the twin shows it")
    picture = pose_picture(frame.rgb, frame.intrinsics_px, {1: MeshRenderer(model)}, [(1, pose)])
    print("picture:", write_png(asked.picture, picture))


if __name__ == "__main__":
    main()
