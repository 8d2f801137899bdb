"""Record every sensor of a simulated robot, then run the same perception code on the recording.

    python examples/08_record_and_replay.py [folder]

A recorder taps the sensors of a rig: whatever the rig reads goes into one MCAP file, which https://foxglove.dev opens.
The file replays as sensors again, so code that reads a rig cannot tell it from the robot.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

import conf
from envs.base import RobotEnv
from envs.robots.panda import Panda
from envs.tasks.lift import Lift
from perceive.build import build
from sensors.clock import host_now_s
from sensors.geometry import transform_points, unproject
from sensors.observation import Observation
from sensors.recording.reader import Recording
from sensors.recording.replay import replay_rig, stepped_rig
from sensors.recording.writer import Recorder, free_path
from sensors.rig import SensorRig

SENSORS = {"front": "front_camera", "joints": "joints", "touch_left": "touch_left"}  # name -> file in conf/sensor
SPEED = 4.0


def nearest_to_tool_m(observation: Observation) -> float:
    """The perception code: how near to the tool the front camera sees anything, metres."""
    front, joints = observation.streams["front"], observation.streams["joints"]
    if not (front.valid[-1] and joints.valid[-1]):
        return float("nan")
    depth = front.data["depth_m"][-1]
    points = transform_points(
        front.data["base_from_camera"][-1], unproject(depth, front.data["intrinsics_px"][-1])[depth > 0]
    )
    return float(np.linalg.norm(points - joints.data["base_from_tool"][-1][:3, 3], axis=1).min())


def record(path: Path) -> list[tuple[float, float]]:
    """Let the scripted expert act; the time and the answer of the perception code at every step."""
    folder = Path(conf.__file__).parent / "sensor"
    sensors = {name: build(yaml.safe_load((folder / f"{file}.yaml").read_text())) for name, file in SENSORS.items()}
    found = []
    with Recorder(path, rig_now_s=lambda: 0.0) as recorder:  # an episode begins at its own 0 seconds
        env = RobotEnv(Lift(), Panda(), SensorRig(recorder.tap(sensors)))
        _, info = env.reset(seed=3)
        expert = env.expert()
        over = False
        while not over:
            values, _, over, _, info = env.step(expert.act().values)
            found.append((info["now_s"], nearest_to_tool_m(Observation.from_dict(values, info["now_s"]))))
        env.close()
    for name, count in recorder.counts.items():
        print(f"recorded {name:12} {count.written:4} frames, {count.bytes / 1e3:7.0f} kB, {count.dropped} dropped")
    return found


def main(folder: Path) -> None:
    """Record, replay step by step, replay live."""
    path = free_path(folder)
    live = record(path)
    recording = Recording(path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {recording.end_s - recording.start_s:.2f} s")

    rig = stepped_rig(path)  # on the recording's own clock: the same at every run
    rig.open(None)
    rig.reset(recording.start_s, 0)
    again = []
    for now_s, _ in live:
        rig.tick(now_s)
        again.append(nearest_to_tool_m(rig.observe(now_s)))
    rig.close()
    worst_m = np.max(np.abs(np.array(again) - [distance_m for _, distance_m in live]))
    print(f"step by step: {len(again)} answers, which differ by {1000 * worst_m:.3f} mm at most")

    rig = replay_rig(path, SPEED)  # as live sensors, in real time
    rig.open(None)
    rig.reset(host_now_s(), 0)
    ends_s, seen = host_now_s() + (recording.end_s - recording.start_s) / SPEED, []
    while (now_s := host_now_s()) < ends_s:
        rig.tick(now_s)
        seen.append(nearest_to_tool_m(rig.observe(now_s)))
    rig.close()
    seen = [distance_m for distance_m in seen if not np.isnan(distance_m)]  # nothing had come yet at the beginning
    print(f"live at {SPEED:g} times the speed: {len(seen)} answers, {min(seen):.3f} to {max(seen):.3f} m")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as beside:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else beside))
