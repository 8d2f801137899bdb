"""Cameras and instances of a scene as BOP's JSON files describe them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.files.json_file import numbers, rigid, whole
from perceive.pose.files.view import UNKNOWN_BOX, UNKNOWN_SHARE, Instance
from sensors.errors import DataError
from sensors.geometry import FloatArray, invert

_TOLERANCE = 1e-2  # of a rotation in the annotations: some data sets print few digits
_SKEW_PX = 1e-3


@final
@dataclass(frozen=True, eq=False)
class ViewCamera:
    """The camera of one view.

    Attributes:
        intrinsics_px: float64 [4], fx fy cx cy.
        depth_scale_mm: millimetres per unit of the depth picture; None = not stated.
        world_from_camera: float64 [4, 4], metres; None = not stated.
    """

    intrinsics_px: FloatArray
    depth_scale_mm: float | None
    world_from_camera: FloatArray | None


def camera_of(record: Any, where: str) -> ViewCamera:
    """A camera from an entry of ``scene_camera.json``.

    Raises:
        DataError: it is no pinhole camera, or something is not a number.
    """
    if not isinstance(record, Mapping) or "cam_K" not in record:
        lens = isinstance(record, Mapping) and "cam_model" in record
        raise DataError(
            where, "a pinhole camera (cam_K)", "a lens model (cam_model)" if lens else "none",
            "Undistort the pictures first, with the data set's own tools." if lens else "Correct the file.",
        )  # fmt: skip
    k = numbers(record["cam_K"], 9, where, "cam_K").reshape(3, 3)
    plain = k[0, 0] > 0 and k[1, 1] > 0 and abs(k[0, 1]) <= _SKEW_PX and abs(k[1, 0]) <= _SKEW_PX
    if not plain or not np.allclose(k[2], (0, 0, 1), atol=1e-6):
        raise DataError(
            where, "cam_K row by row: fx 0 cx, 0 fy cy, 0 0 1", f"{k.tolist()}", "Is it transposed, or has it skew?"
        )
    scale = None
    if record.get("depth_scale") is not None:
        scale = float(numbers(record["depth_scale"], 1, where, "depth_scale")[0])
        if scale <= 0:
            raise DataError(where, "depth_scale > 0, millimetres per unit", str(scale), "Correct the file.")
    world = None
    if record.get("cam_R_w2c") is not None and record.get("cam_t_w2c") is not None:
        names = ("cam_R_w2c", "cam_t_w2c")
        world = invert(rigid(record[names[0]], record[names[1]], where, names, _TOLERANCE))
    return ViewCamera(np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]]), scale, world)


def camera_record(camera: ViewCamera) -> dict[str, Any]:
    """The entry of ``scene_camera.json`` that :func:`camera_of` reads."""
    fx, fy, cx, cy = (float(x) for x in camera.intrinsics_px)
    record: dict[str, Any] = {"cam_K": [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]}
    if camera.depth_scale_mm is not None:
        record["depth_scale"] = camera.depth_scale_mm
    if camera.world_from_camera is not None:
        record.update(pose_record(invert(camera.world_from_camera), "cam_R_w2c", "cam_t_w2c"))
    return record


def pose_record(transform: FloatArray, turn: str, shift: str) -> dict[str, list[float]]:
    """A rigid transform [4, 4] in metres as 9 numbers row by row and 3 in millimetres."""
    whole_transform = np.asarray(transform, np.float64)
    return {turn: whole_transform[:3, :3].reshape(-1).tolist(), shift: (1000.0 * whole_transform[:3, 3]).tolist()}


@final
@dataclass(frozen=True, eq=False)
class SceneTruth:
    """All instances of a scene, packed: a training set holds millions of them.

    Attributes:
        first: image -> rows of its instances, from, to.
        number: int32 [N].
        camera_from_object: float64 [N, 4, 4], metres.
        visible_share: float64 [N].
        box_visible_px: int32 [N, 4].
    """

    first: dict[int, tuple[int, int]]
    number: NDArray[np.int32]
    camera_from_object: FloatArray
    visible_share: FloatArray
    box_visible_px: NDArray[np.int32]

    def of(self, image: int) -> Iterator[Instance]:
        """The instances of an image; none, if the annotations do not mention it."""
        start, end = self.first.get(image, (0, 0))
        for index, row in enumerate(range(start, end)):
            x, y, width, height = (int(value) for value in self.box_visible_px[row])
            yield Instance(
                int(self.number[row]),
                self.camera_from_object[row].copy(),
                float(self.visible_share[row]),
                (x, y, width, height),
                index,
            )


def truth_of(found: Mapping[int, Any], infos: Mapping[int, Any] | None, where: str) -> SceneTruth:
    """Instances from ``scene_gt.json`` and ``scene_gt_info.json``.

    Args:
        found: image -> list of instances.
        infos: image -> list of what is known of them, in the same order; None = nothing is known.
        where: named in errors.

    Raises:
        DataError: something is not a number or no rotation, or the two files do not belong together.
    """
    first: dict[int, tuple[int, int]] = {}
    number: list[int] = []
    poses: list[FloatArray] = []
    shares: list[float] = []
    boxes: list[tuple[int, ...]] = []
    for image, records in found.items():
        place = f"{where}, image {image}"
        if not isinstance(records, list):
            raise DataError(place, "a list of instances", type(records).__name__, "Correct the file.")
        about = None if infos is None else infos.get(image)
        if infos is not None and (not isinstance(about, list) or len(about) != len(records)):
            got = f"{len(about)}" if isinstance(about, list) else "none"
            raise DataError(
                place, f"{len(records)} entries in the info file, as in the file of poses", got,
                "Take both files from one copy of the data set; or compute the info file again.",
            )  # fmt: skip
        first[image] = (len(number), len(number) + len(records))
        for index, record in enumerate(records):
            here = f"{place}, instance {index}"
            names = ("cam_R_m2c", "cam_t_m2c")
            if not isinstance(record, Mapping) or not all(name in record for name in ("obj_id", *names)):
                raise DataError(here, "obj_id, cam_R_m2c and cam_t_m2c", repr(record)[:120], "Correct the file.")
            number.append(whole(record["obj_id"], here, "obj_id"))
            poses.append(rigid(record[names[0]], record[names[1]], here, names, _TOLERANCE))
            share, box = _visibility(None if about is None else about[index], here)
            shares.append(share)
            boxes.append(box)
    return SceneTruth(
        first,
        np.asarray(number, np.int32),
        np.asarray(poses, np.float64).reshape(-1, 4, 4),
        np.asarray(shares, np.float64),
        np.asarray(boxes, np.int32).reshape(-1, 4),
    )


def _visibility(info: Any, where: str) -> tuple[float, tuple[int, ...]]:
    if not isinstance(info, Mapping):
        return UNKNOWN_SHARE, UNKNOWN_BOX
    share, box = UNKNOWN_SHARE, UNKNOWN_BOX
    if info.get("visib_fract") is not None:
        share = float(numbers(info["visib_fract"], 1, where, "visib_fract")[0])
    if info.get("bbox_visib") is not None:
        x, y, width, height = (round(value) for value in numbers(info["bbox_visib"], 4, where, "bbox_visib").tolist())
        box = (x, y, width, height)
    return share, box
