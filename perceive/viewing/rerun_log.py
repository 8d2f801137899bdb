"""Observations in Rerun: cameras in their places, depth, touch, points and curves. Needs the extra ``viewer``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.viewing.draw import force_picture, touch_picture
from sensors.errors import SensorError
from sensors.observation import Observation

TOUCH_FULL_M = 0.003
PRESSURE_FULL_N, FORCE_FULL_N = 1.0, 0.05  # of a cell and of a piece of gel
TIMELINE = "time"


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
    if find_spec("rerun") is None:
        raise SensorError(
            "perceive view to=rerun",
            "the extra 'viewer'",
            "no rerun-sdk",
            "pip install 'perceive[viewer]', or use to=mp4.",
        )
    import rerun  # an extra: loaded only when it is asked for

    recording = rerun.RecordingStream(f"perceive {name}")
    if file is None:
        recording.spawn()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        recording.save(str(file))
    recording.log("base", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for observation in observations:
        recording.set_time(TIMELINE, duration=observation.now_s)
        for sensor, stream in observation.streams.items():
            if stream.valid[-1]:
                fields = {field: value[-1] for field, value in stream.data.items()}
                log_sensor(rerun, recording, sensor, fields)
    recording.flush()
    return "Rerun's window" if file is None else str(file)


def log_sensor(rerun: ModuleType, recording: Any, sensor: str, fields: dict[str, NDArray[Any]]) -> None:
    """Log one frame of one sensor; fields without a picture become curves."""
    left = dict(fields)
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
    if "xyz_m" in left:
        count = int(left.pop("count")[0]) if "count" in left else None
        recording.log(f"base/{sensor}/points", rerun.Points3D(left.pop("xyz_m")[:count]))
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
