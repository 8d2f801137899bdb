"""Read every sensor of a simulated robot once: print what each one says, and save a picture of it.

    python examples/01_read_a_sensor.py [picture.png]

Each sensor is one YAML of conf/sensor: a class and its arguments. A rig puts them on one clock. An observation holds,
for every sensor, its last T frames, the age of each frame and whether it is there at all.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import yaml

import conf
from envs.base import RobotEnv
from envs.robots.panda import Panda
from envs.tasks.lift import Lift
from perceive.build import build
from sensors.observation import Observation
from sensors.rig import SensorRig

SENSORS = {  # name in the rig -> file in conf/sensor
    "front": "front_camera",
    "wrist": "wrist_camera",
    "joints": "joints",
    "wrench": "wrench",
    "touch_left": "touch_left",
    "touch_right": "touch_right",
}


def make_rig() -> SensorRig:
    """The sensors, built from their files."""
    folder = Path(conf.__file__).parent / "sensor"
    return SensorRig(
        {name: build(yaml.safe_load((folder / f"{file}.yaml").read_text())) for name, file in SENSORS.items()}
    )


def grasp_something(env: RobotEnv) -> Observation:
    """Let the scripted expert grasp the box, so that there is something to feel; what the rig shows then."""
    values, info = env.reset(seed=3)
    expert = env.expert()
    while not values["touch_left/indentation_m"].any():
        values, _, _, _, info = env.step(expert.act().values)
    return Observation.from_dict(values, info["now_s"])


def print_table(observation: Observation) -> None:
    """One line per field of every sensor."""
    print(f"at {observation.now_s:.3f} s")
    print(f"{'sensor':12} {'field':18} {'shape':16} {'dtype':8} {'min':>9} {'max':>9}   age     valid")
    for name, stream in observation.streams.items():
        for field, value in stream.data.items():
            newest = value[-1]
            print(
                f"{name:12} {field:18} {newest.shape!s:16} {newest.dtype!s:8} {newest.min():9.3f} {newest.max():9.3f}"
                f"   {stream.age_s[-1]:.3f}   {bool(stream.valid[-1])}"
            )


def save_picture(observation: Observation, path: Path) -> None:
    """Colour and depth of both cameras, and what both fingertips feel."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 6), layout="constrained")
    for row, camera, finger in ((0, "front", "touch_left"), (1, "wrist", "touch_right")):
        seen, felt = observation.streams[camera].data, observation.streams[finger].data
        depth = seen["depth_m"][-1]
        axes[row, 0].imshow(seen["rgb"][-1])
        axes[row, 0].set_title(f"{camera}: colour")
        shown = axes[row, 1].imshow(np.where(depth > 0, depth, np.nan), cmap="viridis_r")  # 0 = no measurement
        axes[row, 1].set_title(f"{camera}: depth, m")
        figure.colorbar(shown, ax=axes[row, 1], shrink=0.7)
        shown = axes[row, 2].imshow(1000 * felt["indentation_m"][-1], vmin=0, vmax=3, cmap="magma")
        axes[row, 2].set_title(f"{finger}: pressed in, mm")
        figure.colorbar(shown, ax=axes[row, 2], shrink=0.7)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    picture = Path(sys.argv[1] if len(sys.argv) > 1 else "sensors.png")
    env = RobotEnv(Lift(), Panda(), make_rig())
    reading = grasp_something(env)
    env.close()
    print_table(reading)
    save_picture(reading, picture)
    print(f"picture: {picture}")
