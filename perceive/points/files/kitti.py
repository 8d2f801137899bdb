"""KITTI's 3D object data: sweeps of a Velodyne HDL-64E and boxes that were labelled in front of the camera.

Layout and conventions: A. Geiger, P. Lenz and R. Urtasun, "Are we ready for Autonomous Driving? The KITTI Vision
Benchmark Suite", CVPR 2012, and the development kit that comes with the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from perceive.points.files.cloud import Boxes, LabelledCloud, cloud_of
from perceive.points.files.source import CloudSource, found, read_rows, read_text
from sensors.errors import DataError
from sensors.geometry import FloatArray, invert, transform_points

CLASSES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
IGNORED = "DontCare"  # regions of the picture, without a box in space
_FIELDS = (15, 16)  # of a line; results have a score at their end
_FIX = "Download the file again."


@final
class KittiFolder(CloudSource):
    """A split of the data: ``<root>/<split>/velodyne``, ``calib`` and, where there are labels, ``label_2``.

    Clouds are in the frame "velodyne": x forwards, y left, z up, intensity as recorded (0 to 1). Boxes are brought
    there by the calibration; they have no velocity, and their points are not counted. Only what the camera sees is
    labelled.

    Args:
        root: the folder that holds "training" and "testing".
        split: one of them.

    Raises:
        DataError: there is no sweep.
    """

    def __init__(self, root: str | Path, split: str = "training") -> None:
        self._folder = Path(root) / split
        self._names = tuple(sorted(path.stem for path in (self._folder / "velodyne").glob("*.bin")))
        found(self._folder / "velodyne", "sweeps (*.bin)", self._names)

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, number: int) -> LabelledCloud:
        name = self._names[number]
        path = self._folder / "velodyne" / f"{name}.bin"
        rows = read_rows(path, "<f4", 4)
        labels = self._folder / "label_2" / f"{name}.txt"
        boxes = None
        if labels.is_file():
            boxes = read_labels(labels, read_calibration(self._folder / "calib" / f"{name}.txt"))
        return cloud_of(rows[:, :3], "velodyne", intensity=rows[:, 3], boxes=boxes, box_classes=CLASSES, name=str(path))


def read_calibration(path: Path) -> FloatArray:
    """``velodyne_from_rectified`` [4, 4]: from the frame of the labels, x right, y down, z forwards.

    Raises:
        DataError: the file lacks a matrix, or one of the two is not as large as it should be.
    """
    found_rows: dict[str, FloatArray] = {}
    for line in read_text(path).splitlines():
        key, _, values = line.partition(":")
        if key.strip() in ("R0_rect", "Tr_velo_to_cam"):
            found_rows[key.strip()] = _numbers(path, values.split(), f"numbers after {key}")
    rectified_from_camera, camera_from_velodyne = np.eye(4), np.eye(4)
    for key, target, shape in (
        ("R0_rect", rectified_from_camera, (3, 3)),
        ("Tr_velo_to_cam", camera_from_velodyne, (3, 4)),
    ):
        values_of = found_rows.get(key, np.zeros(0))
        if values_of.size != shape[0] * shape[1]:
            raise DataError(str(path), f"{key} with {shape[0] * shape[1]} numbers", f"{values_of.size}", _FIX)
        target[: shape[0], : shape[1]] = values_of.reshape(shape)
    return invert(rectified_from_camera @ camera_from_velodyne)


def read_labels(path: Path, velodyne_from_rectified: FloatArray) -> Boxes:
    """The boxes of a label file in the Velodyne's frame; regions to be ignored are left out.

    Raises:
        DataError: a line has a wrong number of fields, an unknown class or what is no number.
    """
    labels, numbers = [], []
    for index, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words or words[0] == IGNORED:
            continue
        where = f"{path}, line {index}"
        if len(words) not in _FIELDS:
            raise DataError(where, f"{_FIELDS[0]} or {_FIELDS[1]} fields", str(len(words)), _FIX)
        if words[0] not in CLASSES:
            raise DataError(where, f"one of {list(CLASSES)}", repr(words[0]), _FIX)
        labels.append(CLASSES.index(words[0]))
        numbers.append(_numbers(path, words[8:15], f"numbers in line {index}"))
    count = len(labels)
    height, width, length, x, y, z, turn = np.array(numbers).reshape(-1, 7).T
    # A label's place is the middle of the box's foot, and its turn is about y, which points down; 0 looks along x.
    centre = transform_points(velodyne_from_rectified, np.stack([x, y - height / 2, z], axis=-1))
    ahead = np.stack([np.cos(turn), np.zeros(count), -np.sin(turn)], axis=-1) @ velodyne_from_rectified[:3, :3].T
    return Boxes(
        centre_m=np.asarray(centre, np.float64),
        size_m=np.stack([length, width, height], axis=-1),
        yaw_rad=np.arctan2(ahead[:, 1], ahead[:, 0]),
        label=np.array(labels, np.int64),
        velocity_m_s=np.full((count, 3), np.nan),
        instance=np.full(count, -1, np.int64),
        points=np.full(count, -1, np.int64),
    )


def _numbers(path: Path, words: Sequence[str], what: str) -> FloatArray:
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise DataError(str(path), what, str(error), _FIX) from error
