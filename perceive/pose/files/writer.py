"""PoseWriter: pictures with known poses as a BOP folder, scene by scene, each there as a whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.files.json_file import is_rotation, read_numbered
from perceive.pose.files.mesh_file import save_model
from perceive.pose.files.models_info import write_models_info
from perceive.pose.files.pictures import write_depth, write_mask, write_rgb
from perceive.pose.files.records import ViewCamera, camera_record, pose_record, truth_of
from perceive.pose.files.targets import write_targets
from perceive.pose.files.view import UNKNOWN_BOX, PixelBox, Target, ViewKey
from perceive.pose.model import ObjectModel
from sensors.calibration.files import write_beside
from sensors.errors import DataError, SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

_MOST_UNITS = 65535  # of 16 bits
_TOLERANCE = 1e-5  # of a rotation; poses may come in single precision


@final
@dataclass(frozen=True, eq=False)
class WrittenInstance:
    """One object in a view that is to be written.

    Attributes:
        number: which object.
        camera_from_object: float64 [4, 4], metres, OpenCV camera.
        whole_px: how many pixels its silhouette has, with those that lie beyond the edges of the picture, so that an
            object cut off by the edge counts as hidden in part (BOP); None = it lies within the picture.
    """

    number: int
    camera_from_object: FloatArray
    whole_px: int | None = None


@final
class PoseWriter:
    """Writes one split. A scene gets its name when it is complete, so a job that was killed goes on with the next one.

    Views of a scene follow each other; the first view of another scene, or :meth:`finish`, completes it. Several
    writers may write different scenes of a split at the same time; one of them finishes.

    Args:
        folder: of the data set; it is made.
        split: such as "train" or "test".
        depth_scale_mm: millimetres per unit of the depth pictures; 0.1 reaches 6.5 m.
        picture: "png", or "jpg" for a tenth of the size.

    Raises:
        SpecError: an argument out of its range.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "test",
        depth_scale_mm: float = 0.1,
        picture: Literal["png", "jpg"] = "png",
    ) -> None:
        if picture not in ("png", "jpg") or not 0 < depth_scale_mm < float("inf"):
            raise SpecError(
                "PoseWriter", "'png' or 'jpg', and a scale > 0", f"{picture!r}, {depth_scale_mm}", "Correct it."
            )
        if not split or Path(split).name != split or split.startswith("."):
            raise SpecError("PoseWriter.split", "the name of a folder", repr(split), "Such as 'test' or 'train'.")
        self._folder, self._split = Path(folder), split
        self._root = self._folder / split
        self._root.mkdir(parents=True, exist_ok=True)
        self._scale_mm, self._ending = float(depth_scale_mm), f".{picture}"
        self._scene: int | None = None
        self._records: dict[str, dict[int, Any]] = {}

    def models(self, models: Iterable[ObjectModel] | Mapping[int, ObjectModel]) -> None:
        """Write the meshes and what is known of them, as "models" and, since they are the same, as "models_eval"."""
        every = list(models.values() if isinstance(models, Mapping) else models)
        for name in ("models", "models_eval"):
            for model in every:
                save_model(self._folder / name / f"obj_{model.number:06d}.ply", model)
            write_models_info(self._folder / name / "models_info.json", every)

    def done(self, scene: int) -> bool:
        """Whether a scene is complete on disk, from this writer or one before it."""
        return (self._root / f"{scene:06d}").is_dir()

    def view(
        self,
        key: ViewKey,
        frame: RgbdFrame,
        instances: Sequence[WrittenInstance],
        visible_masks: Sequence[NDArray[np.bool_]],
        whole_masks: Sequence[NDArray[np.bool_]],
    ) -> None:
        """Write one view.

        Args:
            key: its scene and number.
            frame: picture, depth, intrinsics, and ``base_from_camera`` as world_from_camera.
            instances: the objects in it, in any order, which becomes that of the truth.
            visible_masks: for each, bool [H, W]: what can be seen of it.
            whole_masks: for each, bool [H, W]: its silhouette.

        Raises:
            SpecError: sizes or numbers do not belong together, a pose is not rigid, depth is beyond the reach of 16
                bits, or the view or its scene is there already.
        """
        where = f"PoseWriter.view, {key}"
        _check(where, frame, instances, visible_masks, whole_masks)
        units = self._units(where, frame.depth_m)
        self._open(key, where)
        part = self._part(key.scene)
        write_rgb(part / "rgb" / f"{key.image:06d}{self._ending}", frame.rgb)
        write_depth(part / "depth" / f"{key.image:06d}.png", units)
        for index, (visible, whole) in enumerate(zip(visible_masks, whole_masks, strict=True)):
            write_mask(part / "mask_visib" / f"{key.image:06d}_{index:06d}.png", visible)
            write_mask(part / "mask" / f"{key.image:06d}_{index:06d}.png", whole)
        camera = ViewCamera(frame.intrinsics_px, self._scale_mm, np.asarray(frame.base_from_camera, np.float64))
        self._records["scene_camera"][key.image] = camera_record(camera)
        self._records["scene_gt"][key.image] = [
            {**pose_record(one.camera_from_object, "cam_R_m2c", "cam_t_m2c"), "obj_id": int(one.number)}
            for one in instances
        ]
        self._records["scene_gt_info"][key.image] = [
            _info(one, visible, whole, units > 0)
            for one, visible, whole in zip(instances, visible_masks, whole_masks, strict=True)
        ]
        sensor = self._folder / "camera.json"
        if not sensor.is_file():
            height, width = frame.depth_m.shape
            fx, fy, cx, cy = (float(x) for x in frame.intrinsics_px)
            about = {"cx": cx, "cy": cy, "depth_scale": self._scale_mm, "fx": fx, "fy": fy}
            write_beside(sensor, json.dumps({**about, "height": height, "width": width}, indent=2) + "\n")

    def finish(self, targets: bool = True) -> None:
        """Complete the scene that is open.

        Args:
            targets: write what is to be found, of all complete scenes on disk: every object visible by at least 10 %.

        Raises:
            DataError: a scene on disk is damaged.
        """
        self._close()
        if not targets:
            return
        counts: Counter[tuple[ViewKey, int]] = Counter()
        views: list[ViewKey] = []
        for folder in sorted(self._root.iterdir()):
            if not (folder.is_dir() and folder.name.isdigit()):
                continue
            found, infos = (read_numbered(folder / f"{name}.json") for name in ("scene_gt", "scene_gt_info"))
            truth = truth_of(found, infos, str(folder))
            for image in truth.first:
                key = ViewKey(int(folder.name), image)
                views.append(key)
                counts.update((key, one.number) for one in truth.of(image) if one.counts)
        write_targets(self._folder, self._split, [Target(k, n, count) for (k, n), count in counts.items()], views)

    def _part(self, scene: int) -> Path:
        return self._root / f".{scene:06d}.part"

    def _open(self, key: ViewKey, where: str) -> None:
        if self._scene == key.scene:
            if key.image in self._records["scene_camera"]:
                raise SpecError(where, "every view once", "one that is written", "Number the views of a scene.")
            return
        if self.done(key.scene):
            raise SpecError(
                where, "a scene that is not there", "a complete one", "Ask `done`, and leave out what is there."
            )
        self._close()
        part = self._part(key.scene)
        if part.exists():  # of a job that was killed in the middle of this scene
            shutil.rmtree(part)
        for name in ("rgb", "depth", "mask", "mask_visib"):
            (part / name).mkdir(parents=True)
        self._scene = key.scene
        self._records = {name: {} for name in ("scene_camera", "scene_gt", "scene_gt_info")}

    def _close(self) -> None:
        if self._scene is None:
            return
        part, place = self._part(self._scene), self._root / f"{self._scene:06d}"
        for name, records in self._records.items():
            rows = (f'  "{image}": {json.dumps(records[image])}' for image in sorted(records))
            write_beside(part / f"{name}.json", "{\n" + ",\n".join(rows) + "\n}\n")
        try:
            part.rename(place)
        except OSError as error:
            raise DataError(str(place), "no such scene yet", str(error), "Did two writers write it?") from error
        self._scene = None

    def _units(self, where: str, depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
        depth = np.asarray(depth_m, np.float64)
        if not np.isfinite(depth).all() or (depth < 0).any():
            raise SpecError(where, "finite depth of 0 or more", "other", "Put 0 where nothing was measured.")
        units = np.rint(depth * (1000.0 / self._scale_mm))
        if units.max(initial=0) > _MOST_UNITS:
            reach = _MOST_UNITS * self._scale_mm / 1000.0
            raise SpecError(
                where, f"depth up to {reach:g} m at {self._scale_mm:g} mm per unit", f"{depth.max():g} m",
                "Put 0 where it is too far, or take a larger depth_scale_mm.",
            )  # fmt: skip
        return units.astype(np.uint16)


def _info(one: WrittenInstance, visible: NDArray[np.bool_], whole: NDArray[np.bool_], valid: NDArray[np.bool_]) -> Any:
    inside, seen = int(whole.sum()), int(visible.sum())
    every = max(inside, seen) if one.whole_px is None else max(one.whole_px, inside, seen)
    return {
        "bbox_obj": list(_box(whole)),
        "bbox_visib": list(_box(visible)),
        "px_count_all": every,
        "px_count_valid": int((whole & valid).sum()),
        "px_count_visib": seen,
        "visib_fract": seen / every if every else 0.0,
    }


def _box(mask: NDArray[np.bool_]) -> PixelBox:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return UNKNOWN_BOX
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def _check(
    where: str,
    frame: RgbdFrame,
    instances: Sequence[WrittenInstance],
    visible_masks: Sequence[NDArray[np.bool_]],
    whole_masks: Sequence[NDArray[np.bool_]],
) -> None:
    size = frame.depth_m.shape
    if frame.rgb.shape != (*size, 3) or frame.rgb.dtype != np.uint8:
        raise SpecError(where, f"uint8 {(*size, 3)} like the depth", f"{frame.rgb.dtype} {frame.rgb.shape}", "Align.")
    if not len(instances) == len(visible_masks) == len(whole_masks):
        got = f"{len(instances)} instances, {len(visible_masks)} and {len(whole_masks)} masks"
        raise SpecError(where, "a visible and a whole mask for every instance", got, "Pass one each.")
    for mask in (*visible_masks, *whole_masks):
        if mask.shape != size or mask.dtype != np.bool_:
            raise SpecError(where, f"masks of bool {size}", f"{mask.dtype} {mask.shape}", "Use those of this picture.")
    for transform in (frame.base_from_camera, *(one.camera_from_object for one in instances)):
        matrix = np.asarray(transform, np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not is_rotation(matrix[:3, :3], _TOLERANCE):
            raise SpecError(where, "rigid transforms [4, 4]", f"{matrix.tolist()}", "Pass poses in metres.")
    if np.shape(frame.intrinsics_px) != (4,):
        raise SpecError(where, "intrinsics [4], fx fy cx cy", f"{np.shape(frame.intrinsics_px)}", "Not the matrix K.")
