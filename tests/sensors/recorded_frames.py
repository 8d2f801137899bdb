"""Frames of every kind with contents that tell, for the tests of recordings."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors import frames
from sensors.base import Sensor, World
from sensors.frames import Frame
from sensors.geometry import pose
from sensors.instruction import to_bytes
from sensors.recording.encoder import Coding
from sensors.recording.writer import Recorder
from sensors.spec import box
from sensors.timeline import Timing

Array = NDArray[Any]
EXACT = Coding(colour="png")
HEIGHT, WIDTH = 24, 32


@final
class Listed(Sensor):
    """Gives the frames of a list, one at each reading."""

    def __init__(self, items: list[Frame], timing: Timing | None = None) -> None:
        self._items = list(items)
        self._timing = timing or Timing(rate_hz=100.0)
        self._space = spaces.Dict(
            {name: box(-1e9, 1e9, value.shape, value.dtype) if value.dtype.kind == "f" else _whole(value)
             for name, value in items[0].arrays().items()}
        )  # fmt: skip

    @property
    def space(self) -> spaces.Dict:
        return self._space

    @property
    def timing(self) -> Timing:
        return self._timing

    def open(self, world: World | None) -> None:
        pass

    def reset(self, rng: np.random.Generator) -> None:
        pass

    def read(self, now_s: float) -> Frame | None:
        return self._items.pop(0) if self._items else None

    def close(self) -> None:
        pass


def _whole(value: Array) -> spaces.Box:
    if value.dtype == bool:
        return box(0, 1, value.shape, np.bool_)
    info = np.iinfo(value.dtype)
    return box(info.min, info.max, value.shape, value.dtype)


def frame_kinds() -> list[type[Frame]]:
    """Every frame class of the vocabulary."""
    found = [kind for kind in vars(frames).values() if isinstance(kind, type) and issubclass(kind, Frame)]
    return [kind for kind in found if kind is not Frame]


def make_frame(kind: type[Frame], rng: np.random.Generator, stamp_s: float = 1.25) -> Any:
    """A frame of a class; fields of unknown names get five numbers."""
    shapes: dict[str, Array] = {
        "rgb": rng.integers(0, 256, (40, 3) if kind is frames.PointFrame else (HEIGHT, WIDTH, 3), dtype=np.uint8),
        "depth_m": rng.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.float32) * np.float32(0.001),
        "intrinsics_px": np.array([30.0, 31.0, 15.5, 11.5]),
        "xyz_m": _padded(rng.normal(size=(40, 3)).astype(np.float32)),
        "intensity": _padded(rng.random(40, np.float32)),
        "offset_s": _padded(rng.random(40, np.float32)),
        "count": np.array([33]),
        "indentation_m": rng.random((HEIGHT, WIDTH)).astype(np.float32) * 1e-3,
        "size_m": np.array([0.02, 0.03]),
        "position_rad": rng.normal(size=7),
        "velocity_rad_s": rng.normal(size=7),
        "gripper_m": np.array([0.04]),
        "text": to_bytes("put the blue box into the grüne Schale", 96),
    }
    if kind is frames.PointFrame:
        shapes["rgb"][33:] = 0
    quaternion = rng.normal(size=4)
    values = {
        field.name: pose(rng.normal(size=3), quaternion)
        if field.name.startswith("base_from_")
        else shapes.get(field.name, rng.normal(size=3))
        for field in fields(kind)
        if field.name != "stamp_s"
    }
    return kind(stamp_s=stamp_s, **values)


def _padded(value: Array) -> Array:
    value[33:] = 0
    return value


def write(path: Path, items: dict[str, list[tuple[float, Frame]]], coding: Coding = EXACT, **settings: Any) -> Recorder:
    """Record frames: sensor -> when each was read, and the frame; the rig's clock begins at 0."""
    recorder = Recorder(path, coding=coding, rig_now_s=lambda: 0.0, **settings)
    with recorder:
        recorder.tap({name: Listed([frame for _, frame in given]) for name, given in items.items()})
        moments = sorted((read_s, name, i) for name, given in items.items() for i, (read_s, _) in enumerate(given))
        for read_s, name, i in moments:
            recorder.put(name, items[name][i][1], read_s)
            recorder.catch_up()
    return recorder


def assert_same(ours: Frame, theirs: Frame) -> None:
    """Stamps and every array equal, bit by bit."""
    assert np.float64(ours.stamp_s).tobytes() == np.float64(theirs.stamp_s).tobytes()
    assert list(ours.arrays()) == list(theirs.arrays())
    for name, value in ours.arrays().items():
        other = theirs.arrays()[name]
        assert (value.dtype, value.shape) == (other.dtype, other.shape), name
        assert value.tobytes() == other.tobytes(), f"'{name}' differs"
