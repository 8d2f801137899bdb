"""What the tests of the RealSense adapter share: a small twin, pictures that carry their number, recordings."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.clock import host_now_s
from sensors.errors import SensorLost
from sensors.frames import RgbdFrame
from sensors.geometry import pose
from sensors.live import Captured, LiveSensor
from sensors.realsense import RealSense
from sensors.realsense_devices import load_sdk
from sensors.realsense_settings import Mode
from sensors.realsense_twin import Twin, TwinCamera, TwinLens, TwinPort

SMALL = Mode(64, 48, 30)
LENS = TwinLens(SMALL, (60.0, 60.0, 31.5, 23.5))
CAMERA = TwinCamera(depth=LENS, colour=LENS)
NOISY = replace(CAMERA, colour_from_depth=pose((0.015, 0.0, 0.0)))
PERIOD_S = 1 / 30


def camera_at(port: TwinPort, *, colour: Mode = SMALL, depth: Mode = SMALL, **settings: Any) -> RealSense:
    return RealSense(colour=colour, depth=depth, context=port.context, lost_after_s=60.0, **settings)


def give(twin: Twin, number: int, stamp_s: float, **more: Any) -> None:
    """Both pictures of an instant, with its number in every pixel."""
    give_depth(twin, number, stamp_s, **more)
    give_colour(twin, number, stamp_s, **more)


def give_depth(twin: Twin, number: int, stamp_s: float, **more: Any) -> None:
    twin.give_depth(np.full((48, 64), 1000 + number, np.uint16), number=number, stamp_s=stamp_s, **more)


def give_colour(twin: Twin, number: int, stamp_s: float, **more: Any) -> None:
    twin.give_colour(np.full((48, 64, 3), number, np.uint8), number=number, stamp_s=stamp_s, **more)


def taken(device: RealSense, timeout_s: float = 20.0) -> tuple[Captured, RgbdFrame]:
    captured = device.wait(timeout_s)
    assert captured is not None, "no pair came"
    assert isinstance(captured.frame, RgbdFrame)
    return captured, captured.frame


def numbers(frame: RgbdFrame) -> tuple[int, int]:
    """The numbers in the depth and in the colour picture."""
    assert np.unique(frame.rgb).size == 1
    return round(float(frame.depth_m[24, 32]) * 1000) - 1000, int(frame.rgb[24, 32, 0])


def give_noise(twin: Twin, number: int, clock: str) -> None:
    rgb, raw = noise(number)
    stamp_s = 50.0 + number * PERIOD_S
    metadata = {"frame_timestamp": round(stamp_s * 1e6), "sensor_timestamp": round(stamp_s * 1e6) - 4321}
    twin.give_depth(raw, number=number, stamp_s=stamp_s, clock=clock, metadata=metadata)
    if number != 7:
        twin.give_colour(rgb, number=number, stamp_s=stamp_s, clock=clock, metadata=metadata)


def record(path: str, pictures: int, clock: str) -> None:
    """Pairs of noise, recorded by the SDK; number 7 has no colour picture."""
    rs = load_sdk()
    port = TwinPort()
    twin = port.plug(NOISY)
    recorder = rs.recorder(path, twin.device)
    syncer = rs.syncer(4)
    sensors = recorder.query_sensors()
    for sensor in sensors:
        sensor.open(sensor.get_stream_profiles())
        sensor.start(syncer)
    for n in range(pictures):
        give_noise(twin, n, clock)
        time.sleep(0.01)  # the file's own times are those of the recording
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    del recorder, sensors, sensor  # the file is whole when nobody holds the recorder
    gc.collect()


def noise(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (48, 64, 3), np.uint8), rng.integers(500, 2000, (48, 64), np.uint16)


def eventually(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it never happened"
        time.sleep(0.005)


def is_lost(sensor: LiveSensor) -> bool:
    try:
        while sensor.read(host_now_s()) is not None:
            pass
    except SensorLost:
        return True
    return False
