"""What a rig makes of a camera that fails: one that is unplugged, one that freezes, one that is late.

    python examples/09_inject_a_fault.py

A fault stands around any sensor, simulated or real. In a config:  +fault@faults.front=freeze  (see conf/fault/), as in
`perceive evaluate checkpoint=runs/demo/train +fault@faults.front=disconnect`.
"""

from __future__ import annotations

import numpy as np

from envs.base import RobotEnv
from envs.robots.panda import Panda
from envs.tasks.lift import Lift
from sensors.camera import RgbdCamera
from sensors.faults import Delay, Disconnect, Freeze
from sensors.faulty import Fault, Faulty, When
from sensors.geometry import look_at, matrix_to_quaternion
from sensors.joints import JointSensor
from sensors.observation import Observation
from sensors.rig import SensorRig
from sensors.timeline import Timing

EYE_M = (1.0, 0.3, 0.7)
FAULTS: dict[str, list[Fault]] = {
    "well": [],
    "unplugged": [Disconnect(When(start_s=0.5, stop_s=1.0))],
    "frozen": [Freeze(When(start_s=0.5, stop_s=1.0))],
    "late": [Delay(0.2)],
}


def camera() -> RgbdCamera:
    """Looks at the table from the front."""
    turn = matrix_to_quaternion(look_at(EYE_M, (0.5, 0.0, 0.1))[:3, :3])
    return RgbdCamera(timing=Timing(rate_hz=12.0), position_m=EYE_M, quaternion_xyzw=turn.tolist())


if __name__ == "__main__":
    cameras = {name: Faulty(camera(), faults) for name, faults in FAULTS.items()}
    env = RobotEnv(Lift(), Panda(), SensorRig({"joints": JointSensor(timing=Timing(rate_hz=12.0)), **cameras}))
    values, info = env.reset(seed=0)
    expert = env.expert()
    print("time    " + "".join(f"{name:<26}" for name in cameras) + "(age; whether the picture changed)")
    before: dict[str, np.ndarray] = {}
    for _ in range(16):
        streams = Observation.from_dict(values, info["now_s"]).streams
        row = f"{info['now_s']:.3f}   "
        for name in cameras:
            picture, age_s = streams[name].data["depth_m"][-1], float(streams[name].age_s[-1])
            changed = name in before and not np.array_equal(before[name], picture)
            word = ("new picture" if changed else "same picture") if streams[name].valid[-1] else "NOT VALID"
            row += f"{f'{age_s:.3f} s' if age_s < 10 else 'never':<9} {word:<16}"
            before[name] = picture
        print(row)
        values, _, terminated, truncated, info = env.step(expert.act().values)
        if terminated or truncated:
            break
    env.close()
