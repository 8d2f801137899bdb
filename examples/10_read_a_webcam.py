"""Read a USB webcam: find it, open it as a sensor, look at stamps and ages, and save a picture.

    python examples/10_read_a_webcam.py [--device 0] [--width 640] [--height 480] [--seconds 2]

The device is an index, a path, a USB serial number, a USB port ("1-2.4"), the beginning of a name, a video file, or the
URL of a stream; serial numbers and ports stay the same when the machine starts again. Without --device: the first
camera that is plugged in; if there is none, a short film is drawn and played as if it were one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from sensors.clock import host_now_s
from sensors.errors import SensorError
from sensors.live import LiveSensor, Mount
from sensors.rig import SensorRig
from sensors.timeline import Timing
from sensors.uvc import UvcCamera
from sensors.video_devices import find_video_devices


def draw_film(path: Path, width: int, height: int) -> None:
    """Three seconds of a red ball that crosses a blue background."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (width, height))
    for step in range(90):
        bgr = np.full((height, width, 3), (160, 90, 30), np.uint8)
        cv2.circle(bgr, (width * step // 90, height // 2), height // 6, (30, 30, 220), -1)
        writer.write(bgr)
    writer.release()


def choose(asked: str | None, width: int, height: int) -> int | str:
    """What to read: what was asked for, else a camera that is plugged in, else a film."""
    if asked is not None:
        return int(asked) if asked.isdecimal() else asked
    for device in find_video_devices():
        print(device)
        if device.capture:
            return device.path
    print("no camera: playing a film instead")
    draw_film(Path("film.avi"), width, height)
    return "film.avi"


def main() -> int:
    """Read for a while, then say what came."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default=None)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()

    # Nothing is known of the lens here, so a nominal field of view stands in; 'perceive calibrate' measures it.
    camera = UvcCamera(
        device=choose(asked.device, asked.width, asked.height),
        width=asked.width, height=asked.height, fps=None, pixel_format=None, fov_y_deg=43.0,
    )  # fmt: skip
    mount = Mount(position_m=(1.0, 0.0, 0.7), quaternion_xyzw=(1.0, 0.0, 0.0, 0.0))  # looks straight down
    sensor = LiveSensor(device=camera, timing=Timing(rate_hz=30.0, live=True, history=3), mount=mount)
    rig = SensorRig({"webcam": sensor})
    try:
        rig.open(None)
    except SensorError as error:
        print(error)
        return 1
    start_s = host_now_s()
    rig.reset(start_s, seed=0)
    newest_s: list[float] = []  # when each picture was taken
    while (now_s := host_now_s()) < start_s + asked.seconds:
        rig.tick(now_s)
        stream = rig.observe(now_s).streams["webcam"]
        taken_s = now_s - float(stream.age_s[-1])
        if stream.valid[-1] and (not newest_s or taken_s > newest_s[-1] + 0.001):
            newest_s.append(taken_s)
        time.sleep(0.005)
    rate_hz = 1 / np.median(np.diff(newest_s)) if len(newest_s) > 1 else 0.0
    print(f"{len(newest_s)} pictures in {asked.seconds:g} s, {rate_hz:.1f} a second; {sensor.counts}")
    if stream.valid[-1]:
        age_ms, intrinsics_px = 1000 * float(stream.age_s[-1]), stream.data["intrinsics_px"][-1]
        print(f"the newest is {age_ms:.0f} ms old; fx fy cx cy {intrinsics_px}")
        cv2.imwrite("webcam.png", cv2.cvtColor(stream.data["rgb"][-1], cv2.COLOR_RGB2BGR))
        print("picture: webcam.png")
    rig.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
