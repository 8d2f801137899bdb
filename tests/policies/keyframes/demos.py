"""Demonstrations made by hand: a script of moves, rests and grips as a trace, or as an episode with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policies.episodes import EpisodeHeader, EpisodeWriter
from policies.keyframes.discovery import DiscoverySettings, discover
from sensors.action import ActionMode, ActionSpec
from sensors.geometry import FloatArray, axis_angle_to_matrix, matrix_to_rotation_6d
from sensors.observation import Observation, Stream
from sensors.spec import box

OPEN, CLOSED = 1.0, -1.0
WIDTH_M, SPEED_M = 0.08, 0.02  # opening of the hand; how far the fingers come in a frame
SIZE = 24
SPEC = ActionSpec(
    ActionMode.EE_POSE,
    spaces.Box(-2.0, 2.0, (10,), np.float32),
    {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)},
    1 / 12,
)


@dataclass
class Demo:
    """One demonstration, frame by frame.

    Attributes:
        position_m: of the tool [3].
        turn_rad: rotation vector of the tool [3].
        goal_m: where it is told to go [3].
        moving: whether the joints move.
        command: of the gripper.
        opening_m: of the fingers, measured.
    """

    position_m: list[FloatArray]
    turn_rad: list[FloatArray]
    goal_m: list[FloatArray]
    moving: list[bool]
    command: list[float]
    opening_m: list[float]

    @staticmethod
    def at(position_m: Sequence[float], rest: int = 1, command: float = OPEN, opening_m: float = WIDTH_M) -> Demo:
        """Begins at rest there."""
        demo = Demo([], [], [], [], [], [])
        here = np.array(position_m, float)
        for _ in range(rest):
            demo._add(here, np.zeros(3), here, False, command, opening_m)
        return demo

    def __len__(self) -> int:
        return len(self.command)

    def move(self, to: Sequence[float], frames: int, turn: Sequence[float] | None = None) -> Demo:
        """Go to a place in a straight line at constant speed; the last of the frames is there."""
        start, end = self.position_m[-1], np.array(to, float)
        spin = self.turn_rad[-1]
        until = spin if turn is None else np.array(turn, float)
        for t in range(1, frames + 1):
            share = t / frames
            self._add(start + share * (end - start), spin + share * (until - spin), end, True, self.command[-1], None)
        return self

    def rest(self, frames: int) -> Demo:
        """Stand still."""
        for _ in range(frames):
            self._add(self.position_m[-1], self.turn_rad[-1], self.position_m[-1], False, self.command[-1], None)
        return self

    def grip(self, command: float, frames: int, late: int = 0) -> Demo:
        """Tell the gripper something else and stand still; the fingers react ``late`` frames after they could."""
        for t in range(frames):
            here, held = self.position_m[-1], self.opening_m[-1] if t <= late else None
            self._add(here, self.turn_rad[-1], here, False, command, held)
        return self

    def _add(
        self, place: FloatArray, turn: FloatArray, goal: FloatArray, moving: bool, command: float, opening: float | None
    ) -> None:
        if opening is None:  # the fingers follow what was commanded a frame ago
            wanted = WIDTH_M if self.command[-1] > 0 else 0.0
            opening = self.opening_m[-1] + float(np.clip(wanted - self.opening_m[-1], -SPEED_M, SPEED_M))
        self.position_m.append(place)
        self.turn_rad.append(turn)
        self.goal_m.append(goal)
        self.moving.append(moving)
        self.command.append(command)
        self.opening_m.append(opening)

    def poses(self) -> FloatArray:
        """base_from_tool [T, 4, 4]."""
        out = np.tile(np.eye(4), (len(self), 1, 1))
        out[:, :3, :3] = axis_angle_to_matrix(np.array(self.turn_rad))
        out[:, :3, 3] = self.position_m
        return out

    def velocity(self) -> FloatArray:
        """Of three joints, rad/s [T, 3], with the noise of encoders."""
        noise = 1e-3 * np.random.default_rng(len(self)).standard_normal((len(self), 3))
        return noise + 0.5 * np.array(self.moving)[:, None]

    def keyframes(self, rate_hz: float = 12.0, settings: DiscoverySettings | None = None) -> list[int]:
        """What is found in it."""
        noise = 1e-4 * np.random.default_rng(len(self)).standard_normal(len(self))
        opening = np.array(self.opening_m) + noise
        found = discover(self.velocity(), self.poses(), opening, np.array(self.command), rate_hz, settings)
        return [int(t) for t in found]


def pick(place: Sequence[float] = (0.4, 0.1, 0.02)) -> Demo:
    """Above a thing, down, close, up."""
    above = [place[0], place[1], 0.15]
    demo = Demo.at((0.5, 0.0, 0.3), 2).move(above, 4).rest(3).move(place, 3).rest(1)
    return demo.grip(CLOSED, 6).move(above, 4).rest(4)


def camera_space(size: int = SIZE) -> spaces.Dict:
    """Of a small RGB-D camera."""
    return spaces.Dict(
        {
            "rgb": box(0, 255, (size, size, 3), np.uint8),
            "depth_m": box(0.0, 4.0, (size, size)),
            "intrinsics_px": box(-np.inf, np.inf, (4,)),
            "base_from_camera": box(-np.inf, np.inf, (4, 4)),
        }
    )


JOINTS = spaces.Dict(
    {
        "position_rad": box(-4, 4, (3,)),
        "velocity_rad_s": box(-4, 4, (3,)),
        "gripper_m": box(0, 1, (1,)),
        "base_from_tool": box(-np.inf, np.inf, (4, 4)),
    }
)


def write(
    folder: Path,
    number: int,
    demo: Demo,
    history: int = 1,
    delay: int = 0,
    lost: Sequence[int] = (),
    cameras: Sequence[str] = ("front",),
    size: int = SIZE,
) -> Path:
    """An episode of it: random pictures with every thing a depth picture may hold, joints ``delay`` frames late.

    Pictures of the frames ``lost`` never came.
    """
    rng = np.random.default_rng(number)
    sensors = dict.fromkeys(cameras, camera_space(size)) | {"joints": JOINTS}
    count, joints = len(demo), JOINTS.spaces
    depth = rng.uniform(0.1, 4.0, (count, size, size)).astype(np.float32)
    depth[:, 0, :3] = (0.0, 7.0, np.inf)
    frames: dict[str, dict[str, NDArray[Any]]] = {
        name: {
            "rgb": rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8),
            "depth_m": depth + np.float32(0.01 * place),
            "intrinsics_px": rng.normal(size=(count, 4)).astype(np.float32),
            "base_from_camera": rng.normal(size=(count, 4, 4)).astype(np.float32),
        }
        for place, name in enumerate(cameras)
    }
    frames["joints"] = {
        "position_rad": np.zeros((count, 3), np.float32),
        "velocity_rad_s": demo.velocity().astype(joints["velocity_rad_s"].dtype),
        "gripper_m": np.array(demo.opening_m, np.float32)[:, None],
        "base_from_tool": demo.poses().astype(np.float32),
    }
    header = EpisodeHeader(
        sensors, dict.fromkeys(sensors, history), dict.fromkeys(sensors, 12.0), SPEC, number, {"_target_": "by hand"}
    )
    writer = EpisodeWriter(folder, number, header)
    turns = matrix_to_rotation_6d(demo.poses()[:, :3, :3])
    for t in range(count):
        streams = {}
        for name in sensors:
            late = delay if name == "joints" else 0
            shown = np.arange(t - late - history + 1, t - late + 1)
            there = (shown >= 0) & ~(np.isin(shown, lost) & (name != "joints"))
            data = {}
            for field, values in frames[name].items():
                value = values[np.maximum(shown, 0)].copy()
                value[~there] = 0
                data[field] = value
            age = np.where(shown >= 0, (t - shown) / 12.0, 1e6).astype(np.float32)
            streams[name] = Stream(data, age, there)
        action = np.array([*demo.goal_m[t], *turns[t], demo.command[t]], np.float32)
        writer.add(Observation(t / 12.0, streams), action, action)
    return writer.finish(True)
