"""Scenes of known objects as a BOP folder: pictures, masks, poses, models and what is to be found."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from envs.pose_scenes.library import NUMBERS, objects
from envs.pose_scenes.scene import ObjectScene
from envs.pose_scenes.shape import ObjectShape
from perceive.cli.scenes_folder import SceneFolder
from perceive.pose.files.json_file import read_numbered
from perceive.pose.files.model_folder import ModelFolder
from perceive.pose.files.view import ViewKey
from perceive.pose.files.writer import PoseWriter, WrittenInstance
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.errors import DataError, SpecError, nearest
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

LOG = logging.getLogger(__name__)
SPLIT = "test"  # of every folder, whatever it is used for, so that `PoseDataset(folder)` reads it
_RECORDS = ("scene_camera", "scene_gt", "scene_gt_info")


@runtime_checkable
class PosedScenes(Protocol):
    """A generator of pictures of known objects, such as :class:`envs.pose_scenes.scenes.ObjectScenes`."""

    shapes: tuple[ObjectShape, ...]
    numbers: tuple[int, ...]

    def scene(self, number: int) -> ObjectScene:
        """Scene ``number``, 0 or more: a function of the generator's arguments and the number."""

    def close(self) -> None:
        """Let go of what it holds."""


@final
class PoseFolder(SceneFolder):
    """A BOP folder with the one split "test"; a scene's number is that of its folder.

    Args:
        scenes: the generator.
        folder: where.
    """

    unit = "objects in view"

    def __init__(self, scenes: PosedScenes, folder: Path) -> None:
        self._scenes, self._folder = scenes, folder
        self._models = {
            shape.name: object_model(shape, number) for shape, number in zip(scenes.shapes, scenes.numbers, strict=True)
        }
        self._renderers: dict[str, MeshRenderer] = {}

    def foreign(self) -> str:
        found = [each.name for each in self._folder.glob("*") if each.is_dir() and not each.name.startswith(".")]
        return f"the folders {', '.join(sorted(found))}" if found else ""

    def begin(self) -> None:
        PoseWriter(self._folder, SPLIT).models(self._models.values())

    def there(self, numbers: range) -> set[int]:
        found = set()
        for number in numbers:
            path = self._folder / SPLIT / f"{number:06d}"
            if not path.is_dir():
                continue
            try:
                _check(path)
            except DataError as error:
                LOG.warning("made again, since it is damaged: %s", error)
                shutil.rmtree(path)
            else:
                found.add(number)
        return found

    def add(self, number: int) -> int:
        scene = self._scenes.scene(number)
        writer = PoseWriter(self._folder, SPLIT)
        seen = 0
        for image, view in enumerate(scene.views):
            frame = RgbdFrame(
                stamp_s=0.0,
                rgb=view.rgb,
                depth_m=view.depth_m,
                intrinsics_px=view.intrinsics_px,
                base_from_camera=view.world_from_camera,
            )
            poses = scene.camera_from_object(image)
            visible = [view.instance == row for row in range(len(scene.names))]
            silhouettes = [
                silhouette(self._renderer(name), pose, view.intrinsics_px, view.depth_m.shape[:2])
                for name, pose in zip(scene.names, poses, strict=True)
            ]
            instances = [
                WrittenInstance(self._models[name].number, pose, count)
                for name, pose, (_, count) in zip(scene.names, poses, silhouettes, strict=True)
            ]
            # Two renderers may differ by a pixel of the rim; what is seen belongs to the object.
            whole = [mask | shown for (mask, _), shown in zip(silhouettes, visible, strict=True)]
            writer.view(ViewKey(number, image), frame, instances, visible, whole)
            seen += sum(bool(mask.any()) for mask in visible)
        writer.finish(targets=False)
        return seen

    def finish(self) -> None:
        PoseWriter(self._folder, SPLIT).finish(targets=True)

    def close(self) -> None:
        self._scenes.close()

    def _renderer(self, name: str) -> MeshRenderer:
        if name not in self._renderers:
            self._renderers[name] = MeshRenderer(self._models[name], threads=1)
        return self._renderers[name]


def object_model(shape: ObjectShape, number: int) -> ObjectModel:
    """The model of a simulated object."""
    axes = [ContinuousSymmetry.make(axis, offset) for axis, offset in zip(shape.axes, shape.offsets_m, strict=True)]
    symmetries = Symmetries.make(list(shape.discrete), axes)
    return ObjectModel.make(number, shape.name, shape.vertices_m, shape.faces, shape.rgb, symmetries)


def known_models(folder: str | None = None, names: Sequence[str] | None = None) -> dict[int, ObjectModel]:
    """Number -> model of objects with meshes.

    Args:
        folder: of meshes in BOP's format, with ``models_info.json``; None = the objects of simulated scenes.
        names: of the objects that are wanted; None = all.

    Raises:
        DataError: no such folder, or it is damaged.
        SpecError: an unknown name, or one twice.
    """
    if folder is not None:
        found = dict(ModelFolder(folder))
        there = [model.name for model in found.values()]
        for name in names or ():
            if name not in there:
                raise SpecError("known_models", f"objects of {there}", repr(name), nearest(name, there))
        return {number: model for number, model in found.items() if names is None or model.name in names}
    return {NUMBERS[shape.name]: object_model(shape, NUMBERS[shape.name]) for shape in objects(names or list(NUMBERS))}


def silhouette(
    renderer: MeshRenderer, camera_from_object: FloatArray, intrinsics_px: FloatArray, size_px: tuple[int, ...]
) -> tuple[NDArray[np.bool_], int]:
    """The object as if nothing stood before it.

    Args:
        renderer: of the object.
        camera_from_object: [4, 4].
        intrinsics_px: fx fy cx cy.
        size_px: height and width of the picture.

    Returns:
        Its silhouette in the picture, bool [H, W], and how many pixels it has, up to a picture's size beyond the edges.
    """
    height, width = size_px
    out = np.zeros((height, width), bool)
    wide = np.asarray(intrinsics_px) + np.array([0.0, 0.0, width, height])
    box = renderer.box(camera_from_object, wide, 3 * height, 3 * width)
    if box is None:
        return out, 0
    left, top, right, bottom = box[0] - width, box[1] - height, box[2] - width, box[3] - height
    there = renderer.depth(camera_from_object, intrinsics_px, (left, top, right, bottom))[0] > 0
    rows = slice(max(top, 0), max(min(bottom, height), 0))
    columns = slice(max(left, 0), max(min(right, width), 0))
    if rows.start < rows.stop and columns.start < columns.stop:
        out[rows, columns] = there[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return out, int(there.sum())


def _check(scene: Path) -> None:
    """Whether a scene's records are readable and have their pictures.

    Raises:
        DataError: they have not.
    """
    camera, truth, info = (read_numbered(scene / f"{name}.json") for name in _RECORDS)
    for image, instances in truth.items():
        if image not in camera or len(info.get(image, [])) != len(instances):
            raise DataError(str(scene), f"all records of image {image}", "some", "Make it again.")
        masks = [f"{kind}/{image:06d}_{k:06d}.png" for kind in ("mask", "mask_visib") for k in range(len(instances))]
        for name in (f"rgb/{image:06d}.png", f"depth/{image:06d}.png", *masks):
            if not (scene / name).is_file() or not (scene / name).stat().st_size:
                raise DataError(str(scene / name), "a picture", "none", "Make it again.")
