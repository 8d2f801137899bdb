"""Calibrate a camera on a robot's hand: intrinsics first, then where it is fixed, from pictures and hand poses.

    python examples/11_calibrate_a_camera.py [picture.png]

The pictures are rendered here, so that the truth is known; yours come from a folder (`read_pictures`) or a live sensor
(`capture_views`). The same as a command: `perceive calibrate mode=eye_in_hand simulate=true`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sensors.calibration.board import Board
from sensors.calibration.drawing import draw_reprojection
from sensors.calibration.files import write_mount
from sensors.calibration.hand_eye import Mounting, calibrate_hand_eye
from sensors.calibration.intrinsics import calibrate_intrinsics
from sensors.calibration.simulation import simulate_session, simulated_lens
from sensors.calibration.summary import hand_eye_summary, intrinsics_summary
from sensors.calibration.views import find_view
from sensors.geometry import rotation_angle_rad

BOARD = Board(squares_x=8, squares_y=6, square_m=0.03, marker_m=0.022)  # print it: perceive calibrate mode=board

if __name__ == "__main__":
    picture = Path(sys.argv[1] if len(sys.argv) > 1 else "reprojection.png")

    # 15 pictures with the board on the table, and what the robot said of its hand at each of them.
    session = simulate_session(BOARD, simulated_lens(640, 480), Mounting.EYE_IN_HAND, count=15, seed=0)
    views = [find_view(image, BOARD, f"{number:04d}.png") for number, image in enumerate(session.pictures)]

    camera = calibrate_intrinsics(views, BOARD)
    print(intrinsics_summary(camera, BOARD, without={}))

    mount = calibrate_hand_eye(
        views, session.base_from_hand, BOARD, camera.lens, Mounting.EYE_IN_HAND, lens_covariance=camera.covariance
    )
    print(hand_eye_summary(mount, BOARD, without={}))
    write_mount("wrist_mount.yaml", mount, BOARD, link="panda_hand")  # paste it under `mount:` of the camera's YAML
    print(Path("wrist_mount.yaml").read_text())

    off_m = mount.carrier_from_camera[:3, 3] - session.carrier_from_camera[:3, 3]
    turned_rad = rotation_angle_rad(mount.carrier_from_camera[:3, :3], session.carrier_from_camera[:3, :3])
    print(f"off the truth by {1000 * np.linalg.norm(off_m):.2f} mm and {np.rad2deg(turned_rad):.3f} degrees")

    plt.imsave(picture, draw_reprojection(views, mount.residuals_px, mount.fits))
    print(f"picture: {picture}")
