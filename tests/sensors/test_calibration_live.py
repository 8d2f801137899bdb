"""Views of a board taken live: at rest, where the board was not before, and with a reason where none come."""

from __future__ import annotations

import math
import time
from typing import final

import numpy as np
import pytest
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.calibration.board import Board, Grey
from sensors.calibration.rendering import BoardRenderer
from sensors.calibration.simulation import simulated_lens
from sensors.calibration.views import capture_views
from sensors.clock import host_now_s
from sensors.errors import SensorError, SpecError
from sensors.frames import RgbFrame
from sensors.geometry import pose
from sensors.joints import JointSensor
from sensors.live import Captured, Device, LiveSensor
from sensors.spec import box
from sensors.timeline import Timing

BOARD = Board()
LENS = simulated_lens(320, 240)
CAMERA_SPACE = spaces.Dict(
    {
        "rgb": box(0, 255, (240, 320, 3), np.uint8),
        "intrinsics_px": box(-np.inf, np.inf, (4,)),
        "base_from_camera": box(-np.inf, np.inf, (4, 4)),
    }
)


def frame(grey: Grey) -> RgbFrame:
    rgb = np.repeat(grey[..., None], 3, axis=2)
    return RgbFrame(stamp_s=host_now_s(), rgb=rgb, intrinsics_px=LENS.intrinsics_px, base_from_camera=np.eye(4))


@final
class ScriptedSensor(Sensor):
    """A camera that shows a script of pictures, the last one for ever; None = it has nothing to give."""

    def __init__(self, *script: tuple[Grey | None, int]) -> None:
        self._pictures = [picture for picture, count in script for _ in range(count)]
        self._next = 0
        self.is_open = False

    @property
    def space(self) -> spaces.Dict:
        return CAMERA_SPACE

    @property
    def timing(self) -> Timing:
        return Timing(rate_hz=1000.0)

    def open(self, world: World | None) -> None:
        self.is_open = True

    def reset(self, rng: np.random.Generator) -> None:
        self._next = 0

    def read(self, now_s: float) -> RgbFrame | None:
        assert self.is_open
        grey = self._pictures[min(self._next, len(self._pictures) - 1)]
        self._next += 1
        return None if grey is None else frame(grey)

    def close(self) -> None:
        self.is_open = False


@final
class AlternatingCamera(Device):
    """A device that shows one picture for a while and then the other, by the host's clock."""

    def __init__(self, first: Grey, second: Grey, each_s: float) -> None:
        self._pictures, self._each_s = (first, second), each_s

    @property
    def space(self) -> spaces.Dict:
        return CAMERA_SPACE

    @property
    def counts(self) -> dict[str, int]:
        return {}

    def open(self) -> None:
        pass

    def wait(self, timeout_s: float) -> Captured | None:
        time.sleep(0.01)
        now_s = host_now_s()
        return Captured(frame(self._pictures[int(now_s / self._each_s) % 2]), now_s, device_clock=False)

    def close(self) -> None:
        pass


def test_live_views_are_taken_at_rest_and_where_the_board_was_not() -> None:
    renderer = BoardRenderer(BOARD, LENS)
    places = [renderer.render(pose((-0.12 + x, -0.09, 0.5))) for x in (-0.04, -0.02, 0.01, 0.06)]
    empty = np.full((240, 320), 90, np.uint8)
    sensor = ScriptedSensor(
        (empty, 2),
        (places[0], 4),  # rests: a view, and no second one of the same
        (places[1], 1),  # moves, also to where a view would be new
        (None, 2),
        (places[2], 1),
        (places[3], 1),
        (empty, 1),
        (places[3], 1),  # one frame is not yet rest
        (places[0], 2),  # rests where it was
        (places[3], 3),  # rests elsewhere
    )
    said: list[str] = []
    views = capture_views(sensor, BOARD, 2, 20.0, report=said.append)
    lefts = [float(view.corners.pixels[:, 0].mean()) for view in views]
    expected = [BOARD.detect(places[n]).pixels[:, 0].mean() for n in (0, 3)]
    np.testing.assert_allclose(lefts, expected, atol=1e-6)
    counts = [len(BOARD.detect(places[n])) for n in (0, 3)]
    assert said == [f"view {n} of 2: {count} corners" for n, count in enumerate(counts, start=1)]
    assert not sensor.is_open
    moving = ScriptedSensor((places[0], 1), (places[3], 1))
    assert len(capture_views(moving, BOARD, 2, 20.0, still_px=math.inf)) == 2


def test_live_views_come_from_a_device() -> None:
    renderer = BoardRenderer(BOARD, LENS)
    pictures = [renderer.render(pose((-0.12 + x, -0.09, 0.5))) for x in (-0.04, 0.06)]
    camera = LiveSensor(device=AlternatingCamera(*pictures, each_s=1.0), timing=Timing(rate_hz=100.0, live=True))
    views = capture_views(camera, BOARD, 2, 20.0)
    lefts = sorted(float(view.corners.pixels[:, 0].mean()) for view in views)
    np.testing.assert_allclose(lefts, [BOARD.detect(grey).pixels[:, 0].mean() for grey in pictures], atol=1e-6)


def test_live_waiting_ends_with_the_reason() -> None:
    empty = np.full((240, 320), 90, np.uint8)
    with pytest.raises(SensorError, match=r"no marker at all \(0 of 3\)"):
        capture_views(ScriptedSensor((empty, 1)), BOARD, 3, 0.3)
    still = BoardRenderer(BOARD, LENS).render(pose((-0.12, -0.09, 0.5)))
    with pytest.raises(SensorError, match=r"where it was before \(1 of 3\)"):
        capture_views(ScriptedSensor((still, 1)), BOARD, 3, 1.0)


def test_a_sensor_without_pictures_is_refused() -> None:
    with pytest.raises(SpecError, match="rgb"):
        capture_views(JointSensor(timing=Timing(rate_hz=10.0)), BOARD, 1, 1.0)
