"""Observations in Rerun: cameras in their places, depth, touch, points and curves. Needs the extra ``viewer``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.viewing.cloud_board import Tile, frame_points
from perceive.viewing.draw import force_picture, touch_picture
from sensors.errors import SensorError
from sensors.observation import Observation

TOUCH_FULL_M = 0.003
PRESSURE_FULL_N, FORCE_FULL_N = 1.0, 0.05  # of a cell and of a piece of gel
TIMELINE, CLOUDS = "time", "cloud"
POINT_FIELDS = ("xyz_m", "rgb", "intensity", "offset_s", "count")  # what a frame says of each of its points


def show_in_rerun(observations: Sequence[Observation], name: str, file: Path | None) -> str:
    """Log observations of one episode.

    Args:
        observations: in order of time.
        name: of the recording.
        file: where to save it (``.rrd``); None opens Rerun's window.

    Returns:
        Where it is shown.

    Raises:
        SensorError: rerun-sdk is not installed.
    """
    rerun, recording = open_recording(name, file)
    for observation in observations:
        log_observation(rerun, recording, observation)
    recording.flush()
    return "Rerun's window" if file is None else str(file)


def show_clouds_in_rerun(clouds: Iterable[tuple[str, Sequence[Tile]]], name: str, file: Path | None) -> str:
    """Log clouds one after another on a line of their own, each tile at a place of its own, with boxes.

    Args:
        clouds: name and tiles of each.
        name: of the recording.
        file: where to save it (``.rrd``); None opens Rerun's window.

    Returns:
        Where it is shown.

    Raises:
        SensorError: rerun-sdk is not installed.
    """
    rerun, recording = open_recording(name, file)
    for number, (title, tiles) in enumerate(clouds):
        recording.set_time(CLOUDS, sequence=number)
        recording.log("name", rerun.TextDocument(title))
        for place, tile in enumerate(tiles):
            # A title may count points, so places are numbered: a cloud then takes the place of the one before.
            log_tile(rerun, recording, f"base/{place}", tile)
    recording.flush()
    return "Rerun's window" if file is None else str(file)


def log_tile(rerun: ModuleType, recording: Any, place: str, tile: Tile) -> None:
    """Log coloured points and boxes; what was there before at the place is gone, also where there are none now."""
    recording.log(f"{place}/points", rerun.Points3D(tile.xyz_m, colors=tile.colours))
    recording.log(f"{place}/boxes", rerun.Clear(recursive=True))
    for number, layer in enumerate(tile.boxes):
        kept = np.flatnonzero(np.isfinite(layer.boxes[:, :7]).all(axis=1)).tolist()
        boxes = layer.boxes[kept]
        half = boxes[:, 6] / 2
        turns = np.stack([np.zeros_like(half), np.zeros_like(half), np.sin(half), np.cos(half)], axis=1)
        shown = rerun.Boxes3D(
            centers=boxes[:, :3],
            half_sizes=boxes[:, 3:6] / 2,
            quaternions=turns,
            colors=[layer.colour] * len(kept),
            labels=[layer.texts[i] for i in kept] if layer.texts else None,
        )
        recording.log(f"{place}/boxes/{number}", shown)


def open_recording(name: str, file: Path | None) -> tuple[ModuleType, Any]:
    """Rerun and a recording that goes to a file, or to Rerun's window (None).

    Raises:
        SensorError: rerun-sdk is not installed.
    """
    if find_spec("rerun") is None:
        raise SensorError(
            "Rerun",
            "the extra 'viewer'",
            "no rerun-sdk",
            "pip install 'perceive[viewer]', or use mp4 or png.",
        )
    import rerun  # an extra: loaded only when it is asked for

    recording = rerun.RecordingStream(f"perceive {name}")
    if file is None:
        # The viewer of this environment, which is on PATH only while the environment is activated.
        beside = Path(sys.executable).with_name("rerun")
        rerun.spawn(executable_path=str(beside) if beside.is_file() else None, recording=recording)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        recording.save(str(file))
    recording.log("base", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    return rerun, recording


def log_observation(rerun: ModuleType, recording: Any, observation: Observation) -> None:
    """Log the newest frames of all sensors, at the observation's time."""
    recording.set_time(TIMELINE, duration=observation.now_s)
    for sensor, stream in observation.streams.items():
        if stream.valid[-1]:
            log_sensor(rerun, recording, sensor, {field: value[-1] for field, value in stream.data.items()})


def log_sensor(rerun: ModuleType, recording: Any, sensor: str, fields: dict[str, NDArray[Any]]) -> None:
    """Log one frame of one sensor; fields without a picture become curves."""
    left = dict(fields)
    found = frame_points(left)
    if found is not None:
        points, colours = found
        recording.log(f"base/{sensor}/points", rerun.Points3D(points, colors=colours))
        left = {field: value for field, value in left.items() if field not in POINT_FIELDS}
    if "rgb" in left and "intrinsics_px" in left:
        _log_camera(rerun, recording, sensor, left)
    if "indentation_m" in left:
        recording.log(f"{sensor}/touch", rerun.Image(touch_picture(left.pop("indentation_m"), TOUCH_FULL_M)))
    if "rgb" in left:  # of a gel, which is no camera in the scene
        recording.log(f"{sensor}/picture", rerun.Image(left.pop("rgb")))
    if "normal_N" in left:
        recording.log(f"{sensor}/pressure", rerun.Image(touch_picture(left.pop("normal_N"), PRESSURE_FULL_N)))
    if "force_N" in left and left["force_N"].ndim == 3:
        recording.log(f"{sensor}/forces", rerun.Image(force_picture(left.pop("force_N"), FORCE_FULL_N)))
    if "base_from_tool" in left:
        _log_pose(rerun, recording, f"base/{sensor}/tool", left.pop("base_from_tool"))
    for field, value in left.items():
        if value.dtype.kind == "f" and value.size <= 16 and not field.startswith("base_from_"):
            recording.log(f"curves/{sensor}/{field}", rerun.Scalars(np.asarray(value, float).ravel()))


def _log_camera(rerun: ModuleType, recording: Any, sensor: str, fields: dict[str, NDArray[Any]]) -> None:
    rgb, (fx, fy, cx, cy) = fields.pop("rgb"), fields.pop("intrinsics_px")
    place = f"base/{sensor}"
    _log_pose(rerun, recording, place, fields.pop("base_from_camera"))
    height, width = rgb.shape[:2]
    recording.log(
        f"{place}/picture",
        rerun.Pinhole(
            image_from_camera=[[fx, 0, cx], [0, fy, cy], [0, 0, 1]], resolution=[width, height],
            camera_xyz=rerun.ViewCoordinates.RDF,
        ),
    )  # fmt: skip
    recording.log(f"{place}/picture/rgb", rerun.Image(rgb))
    if "depth_m" in fields:
        recording.log(f"{place}/picture/depth", rerun.DepthImage(fields.pop("depth_m"), meter=1.0))


def _log_pose(rerun: ModuleType, recording: Any, place: str, base_from_it: NDArray[Any]) -> None:
    recording.log(place, rerun.Transform3D(translation=base_from_it[:3, 3], mat3x3=base_from_it[:3, :3]))
