"""Folders in the layout of nuScenes: tables as JSON, sweeps of a roof LiDAR, boxes of everything around.

Paper: H. Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020, and its published schema.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.points.files.cloud import UNLABELLED, Boxes, LabelledCloud, cloud_of
from perceive.points.files.source import CloudSource, found, read_rows, read_text
from sensors.errors import DataError, PerceiveError
from sensors.geometry import FloatArray, invert, pose, transform_points

CHANNEL = "LIDAR_TOP"
_TABLES = (
    "sample",
    "sample_data",
    "calibrated_sensor",
    "sensor",
    "ego_pose",
    "sample_annotation",
    "instance",
    "category",
)
_FIX = "Unpack the metadata again; all tables of a version belong together."
_US = 1e-6  # time stamps count microseconds
_FULL_INTENSITY = 255.0
_LONGEST_S = 1.5  # a box's velocity is taken between its neighbours in time if they are no farther apart, each

Row = dict[str, Any]


@final
class NuScenesFolder(CloudSource):
    """The key frames of ``<root>/<version>``, one cloud for each sample.

    Clouds and boxes are in the frame "base", the car's at the key frame's moment: x forwards, y left, z up, the origin
    on the ground under the rear axle. Velocities are over the ground, along those axes. With ``sweeps`` > 1 the sweeps
    before are brought there by the car's own motion; ``time_s`` tells them apart, and only the key frame's points carry
    classes, where the data has them (``lidarseg.json``).

    Args:
        root: the folder that holds "samples", "sweeps" and the version.
        version: the folder of the tables, e.g. "v1.0-mini"; None = the only one that is there.
        sweeps: how many sweeps make a cloud.

    Raises:
        DataError: a table is missing or damaged, or there is no sample with a sweep.
    """

    def __init__(self, root: str | Path, version: str | None = None, sweeps: int = 1) -> None:
        self._root = Path(root)
        versions = sorted(path.parent.name for path in self._root.glob("*/sample.json"))
        if version is None and len(versions) != 1:
            fix = "Name the version." if versions else "Check the path."
            raise DataError(str(self._root), "one folder of tables, such as v1.0-mini", f"{versions}", fix)
        self._tables = self._root / (version or versions[0])
        self._sweeps = sweeps
        self._rows = {name: _table(self._tables / f"{name}.json") for name in _TABLES}
        seg = self._tables / "lidarseg.json"
        try:
            self._classes_of = {row["sample_data_token"]: row for row in _table(seg).values()} if seg.is_file() else {}
            self._categories = _categories(self._rows["category"])
            self._key_frames = self._find_key_frames()
            self._boxes_of = _by_sample(self._rows["sample_annotation"])
            self._samples = sorted(
                (token for token in self._rows["sample"] if token in self._key_frames),
                key=lambda token: (self._rows["sample"][token]["timestamp"], token),
            )
        except (KeyError, TypeError) as error:
            raise self._strange(error) from error
        self._instances = {token: number for number, token in enumerate(sorted(self._rows["instance"]))}
        found(self._tables, f"samples with a key frame of {CHANNEL}", self._samples)

    @property
    def names(self) -> Sequence[str]:
        """The samples' tokens, in order of time."""
        return self._samples

    def read(self, number: int) -> LabelledCloud:
        try:
            return self._read(number)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, PerceiveError):
                raise
            raise self._strange(error) from error

    def _read(self, number: int) -> LabelledCloud:
        sample = self._samples[number]
        key = self._key_frames[sample]
        base_from_world = invert(self._pose("ego_pose", key["ego_pose_token"]))
        rows, when, semantic = [], [], []
        at: Row | None = key
        for _ in range(self._sweeps):
            if at is None:
                break
            read = read_rows(self._root / at["filename"], "<f4", 5)
            world_from_lidar = self._pose("ego_pose", at["ego_pose_token"]) @ self._pose(
                "calibrated_sensor", at["calibrated_sensor_token"]
            )
            xyz = transform_points(base_from_world @ world_from_lidar, read[:, :3])
            rows.append(np.concatenate([xyz, read[:, 3:4]], axis=1))
            when.append(np.full(len(xyz), (at["timestamp"] - key["timestamp"]) * _US))
            semantic.append(self._classes(at, len(xyz)) if at is key else np.full(len(xyz), UNLABELLED))
            at = self._row("sample_data", at["prev"]) if at["prev"] else None
        points = np.concatenate(rows)
        return cloud_of(
            points[:, :3],
            "base",
            intensity=np.clip(points[:, 3] / _FULL_INTENSITY, 0.0, 1.0),
            time_s=np.concatenate(when),
            semantic=np.concatenate(semantic) if self._classes_of else None,
            boxes=self._boxes(sample, base_from_world),
            classes=self._categories if self._classes_of else (),
            box_classes=self._categories,
            name=str(self._root / key["filename"]),
            stamp_s=key["timestamp"] * _US,
        )

    def _find_key_frames(self) -> dict[str, Row]:
        """Sample -> its LiDAR's key frame."""
        lidars = {
            token
            for token, row in self._rows["calibrated_sensor"].items()
            if self._row("sensor", row["sensor_token"])["channel"] == CHANNEL
        }
        return {
            row["sample_token"]: row
            for row in self._rows["sample_data"].values()
            if row["is_key_frame"] and row["calibrated_sensor_token"] in lidars
        }

    def _boxes(self, sample: str, base_from_world: FloatArray) -> Boxes:
        rows = self._boxes_of.get(sample, [])
        if not rows:
            return Boxes.none()
        turned = [base_from_world @ _pose_of(self._tables, row) for row in rows]
        yaw = [np.arctan2(matrix[1, 0], matrix[0, 0]) for matrix in turned]
        names = [self._row("instance", row["instance_token"])["category_token"] for row in rows]
        width, length, height = np.array([row["size"] for row in rows], dtype=float).T
        return Boxes(
            centre_m=np.array([matrix[:3, 3] for matrix in turned]),
            size_m=np.stack([length, width, height], axis=-1),
            yaw_rad=np.array(yaw),
            label=np.array([self._categories.index(self._row("category", name)["name"]) for name in names], np.int64),
            velocity_m_s=np.array([self._velocity(row) for row in rows]) @ base_from_world[:3, :3].T,
            instance=np.array([self._instances[row["instance_token"]] for row in rows], np.int64),
            points=np.array([int(row["num_lidar_pts"]) for row in rows], np.int64),
        )

    def _velocity(self, row: Row) -> FloatArray:
        """Of a box [3], between its neighbours in time, in the world's frame; NaN = it has none near enough."""
        first = self._row("sample_annotation", row["prev"]) if row["prev"] else row
        last = self._row("sample_annotation", row["next"]) if row["next"] else row
        when = [self._row("sample", each["sample_token"])["timestamp"] * _US for each in (first, last)]
        apart = when[1] - when[0]
        steps = (first is not row) + (last is not row)
        if not steps or not 0 < apart <= steps * _LONGEST_S:
            return np.full(3, np.nan)
        return np.asarray((np.array(last["translation"]) - np.array(first["translation"])) / apart)

    def _classes(self, key: Row, count: int) -> NDArray[np.int64]:
        if key["token"] not in self._classes_of:
            return np.full(count, UNLABELLED)
        path = self._root / self._classes_of[key["token"]]["filename"]
        numbers: NDArray[np.int64] = read_rows(path, "<u1", 1)[:, 0].astype(np.int64)
        if len(numbers) != count or numbers.max() >= len(self._categories):
            expected = f"{count} classes below {len(self._categories)}"
            raise DataError(str(path), expected, f"{len(numbers)} up to {numbers.max()}", _FIX)
        return numbers

    def _strange(self, error: Exception) -> DataError:
        return DataError(str(self._tables), "rows as in the published schema", f"{type(error).__name__}: {error}", _FIX)

    def _pose(self, table: str, token: str) -> FloatArray:
        return _pose_of(self._tables / f"{table}.json", self._row(table, token))

    def _row(self, table: str, token: str) -> Row:
        row = self._rows[table].get(token)
        if row is None:
            raise DataError(str(self._tables / f"{table}.json"), f"the token '{token}'", "no such row", _FIX)
        return row


def _table(path: Path) -> dict[str, Row]:
    """Token -> row."""
    text = read_text(path)
    try:
        return {row["token"]: row for row in json.loads(text)}
    except (ValueError, TypeError, KeyError) as error:
        got = f"{type(error).__name__}: {error}"
        raise DataError(str(path), "a JSON list of rows with tokens", got, _FIX) from error


def _by_sample(annotations: dict[str, Row]) -> dict[str, list[Row]]:
    """Sample -> its boxes, in the order of the table."""
    out: dict[str, list[Row]] = {}
    for row in annotations.values():
        out.setdefault(row["sample_token"], []).append(row)
    return out


def _categories(rows: dict[str, Row]) -> tuple[str, ...]:
    """Names of the categories: by their index where the tables have one, which is what point labels count along."""
    ordered = sorted(rows.values(), key=lambda row: (row.get("index", 0), row["name"]))
    numbers = [row["index"] for row in ordered if "index" in row]
    if numbers and numbers != list(range(len(ordered))):
        raise DataError("category.json", f"indices 0 to {len(ordered) - 1}", f"{numbers}", _FIX)
    return tuple(str(row["name"]) for row in ordered)


def _pose_of(path: Path, row: Row) -> FloatArray:
    """[4, 4] of a row with a translation and a quaternion, which stands w x y z in these files."""
    try:
        w, x, y, z = row["rotation"]
        return pose(row["translation"], (x, y, z, w))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}, '{row.get('token')}'", "translation [3], rotation [4]", str(error), _FIX) from error
