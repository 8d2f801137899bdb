"""PoseDataset: a folder in BOP's layout, real or made, as views, instances, pictures and models."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.files.layout import Layout, MaskKind, find_layout
from perceive.pose.files.model_folder import ModelFolder
from perceive.pose.files.pictures import read_depth, read_rgb, read_size
from perceive.pose.files.records import SceneTruth, ViewCamera, camera_of, truth_of
from perceive.pose.files.targets import BOP19, BOP24, read_target_views, read_targets, targets_path
from perceive.pose.files.view import Instance, Target, ViewKey
from perceive.pose.model import ObjectModel
from sensors.errors import DataError, SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

_LOG = logging.getLogger(__name__)


@final
class PoseDataset:
    """One split of a data set in BOP's scenewise or imagewise layout (Hodan et al., BOP), read when it is asked for.

    Lengths are metres; the files' millimetres end here. Cameras are read at once, poses of a scene when one of its
    views is asked for, pictures every time. May be pickled.

    Args:
        folder: of the data set.
        split: "test", "train_pbr", "test_primesense" ...: a folder in it.
        models: the folder of meshes: "models" for what is rendered, "models_eval" for the errors of the challenges.
        sensor: where a scene was seen by several ("rgb_photoneo"): which; "" = there is one only.

    Attributes:
        folder: as the argument.
        split: as the argument.
        views: all views with a camera, in order.

    Raises:
        DataError: there is no such folder, it is in no known layout, or cameras are missing or damaged.
    """

    def __init__(self, folder: str | Path, split: str = "test", models: str = "models", sensor: str = "") -> None:
        self.folder, self.split, self._models = Path(folder), split, models
        self._root = self.folder / split
        self._layout: Layout = find_layout(self._root, f"_{sensor}" if sensor else "")
        self._cameras: dict[ViewKey, ViewCamera] = {}
        for scene in self._layout.scenes:
            for image, record in self._layout.cameras(scene).items():
                key = ViewKey(scene, image)
                self._cameras[key] = camera_of(record, f"{self._root}, {key}")
        if not self._cameras:
            raise DataError(str(self._root), "at least one view", "none", "Check the path; is the download complete?")
        self.views: tuple[ViewKey, ...] = tuple(sorted(self._cameras))
        self._truth: dict[int, SceneTruth] = {}
        self._sizes: dict[ViewKey, tuple[int, int]] = {}

    @cached_property
    def models(self) -> Mapping[int, ObjectModel]:
        """Object's number -> its model, loaded when it is asked for.

        Raises:
            DataError: there is no such folder, or no mesh in it.
        """
        return ModelFolder(self.folder / self._models)

    @property
    def has_truth(self) -> bool:
        """Whether every scene has poses; test sets may withhold them."""
        return all(self._layout.has_truth(scene) for scene in self._layout.scenes)

    def truth(self, key: ViewKey) -> tuple[Instance, ...]:
        """The instances of a view, in the order that masks are named by. No picture is read.

        Raises:
            DataError: the truth is withheld, or the file is damaged.
            SpecError: there is no such view.
        """
        self._camera(key)
        return tuple(self._scene(key.scene).of(key.image))

    def intrinsics_px(self, key: ViewKey) -> FloatArray:
        """float64 [4], fx fy cx cy.

        Raises:
            SpecError: there is no such view.
        """
        return self._camera(key).intrinsics_px.copy()

    def world_from_camera(self, key: ViewKey) -> FloatArray | None:
        """float64 [4, 4], metres; None = the data set does not say.

        Raises:
            SpecError: there is no such view.
        """
        world = self._camera(key).world_from_camera
        return None if world is None else world.copy()

    def size_px(self, key: ViewKey) -> tuple[int, int]:
        """Height and width, of the colour picture or, without one, of the depth.

        Raises:
            DataError: there is no picture, or it is damaged.
            SpecError: there is no such view.
        """
        if key not in self._sizes:
            path = self._colour(key) or self._layout.picture(key, "depth")
            if path is None:
                raise DataError(f"{self._root}, {key}", "a picture", "none", "Get the pictures of the data set.")
            self._sizes[key] = read_size(path)
        return self._sizes[key]

    def depth_m(self, key: ViewKey) -> NDArray[np.float32]:
        """float32 [H, W], z in the camera frame; 0 = no measurement, everywhere if the scene has no depth.

        Raises:
            DataError: the picture is missing among others, damaged, or its scale is not known.
            SpecError: there is no such view.
        """
        camera = self._camera(key)
        path = self._layout.picture(key, "depth")
        if path is None:
            return np.zeros(self.size_px(key), np.float32)
        if camera.depth_scale_mm is None:
            raise DataError(
                f"{self._root}, {key}", "depth_scale in the camera file", "none", "State it, millimetres per unit."
            )
        return read_depth(path, camera.depth_scale_mm / 1000.0)

    def frame(self, key: ViewKey) -> RgbdFrame:
        """The picture with its depth; a grey one has three equal channels.

        ``base_from_camera`` is world_from_camera, the identity where that is not known; ``stamp_s`` is 0, since the
        files know no time.

        Raises:
            DataError: a picture is missing or damaged, or colour and depth differ in size.
            SpecError: there is no such view.
        """
        camera = self._camera(key)
        path = self._colour(key)
        if path is None:
            raise DataError(f"{self._root}, {key}", "a picture in rgb or gray", "neither", "Get the pictures.")
        rgb = read_rgb(path)
        height, width = rgb.shape[:2]
        self._sizes[key] = (height, width)
        depth = self.depth_m(key)
        if depth.shape != (height, width):
            raise DataError(
                f"{self._root}, {key}", f"depth [{height}, {width}] like the colours", f"{depth.shape}",
                "Register depth to colour; or copy the data set again.",
            )  # fmt: skip
        world = camera.world_from_camera
        return RgbdFrame(
            stamp_s=0.0,
            rgb=rgb,
            depth_m=depth,
            intrinsics_px=camera.intrinsics_px.copy(),
            base_from_camera=np.eye(4) if world is None else world.copy(),
        )

    def visible_mask(self, key: ViewKey, index: int) -> NDArray[np.bool_]:
        """bool [H, W], what can be seen of an instance.

        Raises:
            DataError: there are no masks, or one is damaged.
            SpecError: there is no such view.
        """
        return self._mask(key, index, "mask_visib")

    def whole_mask(self, key: ViewKey, index: int) -> NDArray[np.bool_]:
        """bool [H, W], the silhouette of an instance, with what hides it taken away.

        Raises:
            DataError: there are no masks, or one is damaged.
            SpecError: there is no such view.
        """
        return self._mask(key, index, "mask")

    def targets(self, kind: Literal["auto", "bop19", "truth"] = "auto") -> tuple[Target, ...]:
        """What is to be found, in order.

        Args:
            kind: "bop19" = as the data set's file says; "truth" = all instances that are visible by at least 10 % (or
                of which that is not known), in the views of a bop24 file if there is one, else in all; "auto" = as the
                file says, if there is one.

        Raises:
            DataError: there is no such file, it is damaged or names views that are not here; or the truth is withheld.
            SpecError: an unknown kind.
        """
        if kind not in ("auto", "bop19", "truth"):
            raise SpecError("PoseDataset.targets", "'auto', 'bop19' or 'truth'", repr(kind), "Correct it.")
        path = targets_path(self.folder, self.split, BOP19)
        if path is not None and kind != "truth":
            found = read_targets(path)
            self._check_views(path, {one.key for one in found})
            return found
        if kind == "bop19":
            raise DataError(
                str(self.folder),
                f"{self.split}_targets_bop19.json",
                "none",
                "Get it; or take the targets from the truth.",
            )
        counts: Counter[tuple[ViewKey, int]] = Counter()
        for key in self.detection_views():
            counts.update((key, one.number) for one in self.truth(key) if one.counts)
        return tuple(sorted(Target(key, number, count) for (key, number), count in counts.items()))

    def detection_views(self) -> tuple[ViewKey, ...]:
        """The views in which all objects are to be found: those of a bop24 file, else of a bop19 file, else all.

        Raises:
            DataError: the file is damaged or names views that are not here.
        """
        for kind in (BOP24, BOP19):
            path = targets_path(self.folder, self.split, kind)
            if path is not None:
                found = read_target_views(path)
                self._check_views(path, set(found))
                return found
        return self.views

    def _camera(self, key: ViewKey) -> ViewCamera:
        camera = self._cameras.get(key)
        if camera is None:
            raise SpecError(f"{self._root}", f"one of its {len(self.views)} views", str(key), "Take keys from `views`.")
        return camera

    def _scene(self, scene: int) -> SceneTruth:
        if scene not in self._truth:
            where = f"{self._root}, scene {scene}"
            found = self._layout.truths(scene)
            if found is None:
                raise DataError(
                    where, "poses of the objects (scene_gt.json)", "none: the truth of this split is withheld",
                    "Estimate and submit; or take a split with truth, such as 'val' or 'train_pbr'.",
                )  # fmt: skip
            here = {key.image for key in self.views if key.scene == scene}
            missing = here - found.keys()
            if missing:
                _LOG.warning(
                    "%s: %d images without an entry count as empty, e.g. %d", where, len(missing), min(missing)
                )
            self._truth[scene] = truth_of(found, self._layout.infos(scene), where)
        return self._truth[scene]

    def _colour(self, key: ViewKey) -> Path | None:
        self._camera(key)
        return self._layout.picture(key, "rgb") or self._layout.picture(key, "gray")

    def _mask(self, key: ViewKey, index: int, kind: MaskKind) -> NDArray[np.bool_]:
        self._camera(key)
        return self._layout.mask(key, index, kind)

    def _check_views(self, path: Path, asked: set[ViewKey]) -> None:
        missing = sorted(asked - self._cameras.keys())
        if missing:
            raise DataError(
                str(path), f"views of the split '{self.split}'", f"{len(missing)} that are not here, e.g. {missing[0]}",
                "Get the rest of the split; or is the file of another one?",
            )  # fmt: skip
