"""Read a RealSense: its rate, the distance in the middle of its picture, its clock on the host's, and a picture.

    python examples/07_read_a_realsense.py [--serial 0123] [--bag FILE] [--software] [--seconds 2] [--picture FILE]

Without a camera it reads a twin made of software (so does --software), which goes through the same SDK; --bag plays a
recording. The camera's package comes with: pip install "perceive[realsense]"
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from sensors.clock import host_now_s
from sensors.errors import SensorLost
from sensors.frames import RgbdFrame
from sensors.live import LiveSensor
from sensors.realsense import RealSense, find
from sensors.realsense_settings import Mode
from sensors.realsense_twin import Twin, TwinCamera, TwinLens, TwinPort
from sensors.timeline import Timing

LENS = TwinLens(Mode(640, 480, 30), intrinsics_px=(600.0, 600.0, 319.5, 239.5))


def play_twin(twin: Twin) -> None:
    """A wall at 0.8 m, and a ball before it that comes and goes; 30 pictures a second."""
    v, u = np.mgrid[0:480, 0:640]
    began_s, number = host_now_s(), 0
    while True:
        time.sleep(max(began_s + number / 30 - host_now_s(), 0.0))
        number, stamp_s = number + 1, host_now_s() - 100.0  # its clock began 100 s later than the host's
        ball = (u - 320) ** 2 + (v - 240) ** 2 < 80**2
        raw = np.where(ball, 500 + 100 * np.sin(number / 10), 800).astype(np.uint16)
        rgb = np.where(ball[..., None], (220, 60, 40), (90, 120, 150)).astype(np.uint8)
        twin.give_depth(raw, number=number, stamp_s=stamp_s)
        twin.give_colour(rgb, number=number, stamp_s=stamp_s)


def read(sensor: LiveSensor, seconds: float) -> list[RgbdFrame]:
    """The frames of some time, or until a recording ends."""
    frames: list[RgbdFrame] = []
    end_s = np.inf  # the time counts from the first frame; a camera takes a second or two to start
    while host_now_s() < end_s:
        try:
            frame = sensor.read(host_now_s())
        except SensorLost as lost:
            print(lost)
            break
        if isinstance(frame, RgbdFrame):
            frames.append(frame)
            end_s = min(end_s, host_now_s() + seconds)
        time.sleep(0.002)
    return frames


def main() -> None:
    """Open what was asked for, read it, and say what came."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serial")
    parser.add_argument("--bag")
    parser.add_argument("--software", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--picture", default="realsense.png")
    asked = parser.parse_args()
    camera = RealSense(colour=Mode(640, 480, 30), depth=Mode(640, 480, 30), serial=asked.serial, bag=asked.bag)
    print("connected:", *(find() or ["no camera"]))
    if asked.software or not (asked.bag or asked.serial or find()):
        port = TwinPort()
        twin = port.plug(TwinCamera(depth=LENS, colour=replace(LENS, intrinsics_px=(610.0, 610.0, 318.0, 241.0))))
        camera = RealSense(colour=LENS.mode, depth=LENS.mode, context=port.context)
        threading.Thread(target=play_twin, args=(twin,), daemon=True).start()
    sensor = LiveSensor(device=camera, timing=Timing(rate_hz=30.0, live=True))
    sensor.open(None)
    print(camera.calibration)
    frames = read(sensor, asked.seconds)
    if len(frames) < 2:
        raise SystemExit("no pictures came")
    stamps_s = np.array([frame.stamp_s for frame in frames])
    middle_m = [float(np.median(frame.depth_m[230:251, 310:331])) for frame in frames]
    print(f"{len(frames)} frames, {(len(frames) - 1) / np.ptp(stamps_s):.1f} fps; {sensor.counts}")
    print(f"in the middle: {middle_m[-1]:.3f} m now, {min(middle_m):.3f} to {max(middle_m):.3f} m in this time")
    print(f"last stamp: {stamps_s[-1]:.4f} s on the host, {stamps_s[-1] - sensor.clock.offset_s:.4f} s on the device")
    sensor.close()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.imshow(frames[-1].rgb)
    shown = right.imshow(np.where(frames[-1].depth_m > 0, frames[-1].depth_m, np.nan), cmap="viridis_r")
    figure.colorbar(shown, ax=right, label="metres")
    figure.savefig(asked.picture)
    print(f"picture: {asked.picture}")


if __name__ == "__main__":
    main()
