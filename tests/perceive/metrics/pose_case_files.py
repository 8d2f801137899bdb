"""The shipped cases as our types: metres, homogeneous transforms, a data set in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries

FOLDER = Path(__file__).parent / "pose_cases"


def read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def model(name: str, record: Any) -> ObjectModel:
    discrete = np.array(record["discrete"], float).reshape(-1, 4, 4)
    discrete[:, :3, 3] /= 1e3
    turns = [ContinuousSymmetry.make(axis, np.array(offset) / 1e3) for axis, offset in record["continuous"]]
    symmetries = Symmetries.make(list(discrete), turns)
    return ObjectModel.make(
        record["number"], name, np.array(record["points"]) / 1e3, record["faces"], symmetries=symmetries
    )


def models() -> dict[str, ObjectModel]:
    return {name: model(name, record) for name, record in read("models")["models"].items()}


def pose(row: list[float]) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = np.reshape(row[:9], (3, 3)), np.array(row[9:]) / 1e3
    return out


def camera() -> tuple[np.ndarray, int, int]:
    record = read("models")["camera"]
    matrix = np.array(record["K"])
    return matrix[[0, 1, 0, 1], [0, 1, 2, 2]], record["width"], record["height"]


def depth(runs: list[list[int]], width: int) -> np.ndarray:
    values, counts = np.array(runs).T
    return np.repeat(values, counts).reshape(-1, width) / 1e4


@dataclass(frozen=True)
class Instance:
    number: int
    camera_from_object: np.ndarray
    visible_share: float


@dataclass(frozen=True)
class Target:
    key: int
    number: int
    count: int


@dataclass(frozen=True)
class Row:
    key: int
    number: int
    score: float
    camera_from_object: np.ndarray
    time_s: float = -1.0


@dataclass
class Memory:
    """A data set in memory: pictures are numbered."""

    models: dict[int, ObjectModel]
    truths: list[list[Instance]]
    depths: list[np.ndarray]
    asked: list[Target]
    lens: np.ndarray

    def truth(self, key: Any) -> list[Instance]:
        return self.truths[key]

    def depth_m(self, key: Any) -> np.ndarray:
        return self.depths[key]

    def intrinsics_px(self, key: Any) -> np.ndarray:
        return self.lens

    def size_px(self, key: Any) -> tuple[int, int]:
        return self.depths[key].shape[0], self.depths[key].shape[1]

    def targets(self) -> list[Target]:
        return self.asked

    def detection_views(self) -> list[int]:
        return list(range(len(self.truths)))


def score_case(case: Any, shapes: dict[str, ObjectModel]) -> tuple[Memory, list[Row]]:
    lens, width, _ = camera()
    truths = [
        [Instance(shapes[one["model"]].number, pose(one["pose"]), one["visible"]) for one in picture["truth"]]
        for picture in case["pictures"]
    ]
    depths = [depth(picture["depth"], width) for picture in case["pictures"]]
    targets = [Target(image, shapes[name].number, count) for image, name, count in case["targets"]]
    rows = [Row(image, shapes[name].number, score, pose(flat)) for image, name, score, flat in case["rows"]]
    return Memory({one.number: one for one in shapes.values()}, truths, depths, targets, lens), rows
