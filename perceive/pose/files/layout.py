"""Where a BOP data set keeps what belongs to a view: one folder per scene, or one set of files per picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.files.json_file import read_list, read_numbered, read_object, whole
from perceive.pose.files.pictures import read_mask
from perceive.pose.files.view import ViewKey
from sensors.errors import DataError

MaskKind = Literal["mask", "mask_visib"]
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


class Layout(ABC):
    """How the files of one split are found."""

    @property
    @abstractmethod
    def scenes(self) -> tuple[int, ...]:
        """Numbers of the scenes, in their order."""

    @abstractmethod
    def cameras(self, scene: int) -> dict[int, Any]:
        """Image -> its entry of ``scene_camera.json``.

        Raises:
            DataError: a file is missing or damaged.
        """

    @abstractmethod
    def has_truth(self, scene: int) -> bool:
        """Whether :meth:`truths` would return something."""

    @abstractmethod
    def truths(self, scene: int) -> dict[int, Any] | None:
        """Image -> its entry of ``scene_gt.json``; None = there is no truth.

        Raises:
            DataError: a file is damaged.
        """

    @abstractmethod
    def infos(self, scene: int) -> dict[int, Any] | None:
        """Image -> its entry of ``scene_gt_info.json``; None = there is none.

        Raises:
            DataError: a file is damaged.
        """

    @abstractmethod
    def picture(self, key: ViewKey, kind: str) -> Path | None:
        """The file of a picture; None = there is none of this kind in the whole scene.

        Raises:
            DataError: other pictures of the scene have one.
        """

    @abstractmethod
    def mask(self, key: ViewKey, index: int, kind: MaskKind) -> NDArray[np.bool_]:
        """The mask of an instance, bool [H, W].

        Raises:
            DataError: there is none, or it is damaged.
        """


@final
class Scenewise(Layout):
    """``SSSSSS/`` with ``scene_camera.json``, ``scene_gt.json`` and folders of pictures ``rgb/IIIIII.png``.

    Args:
        folder: of the split.
        suffix: of the names where one scene was seen by several sensors (``rgb_photoneo``): "_photoneo"; else "".
    """

    def __init__(self, folder: Path, suffix: str = "") -> None:
        self._folder, self._suffix = folder, suffix
        self._found = {
            int(each.name): each for each in sorted(folder.iterdir()) if each.is_dir() and each.name.isdigit()
        }
        self._pictures: dict[tuple[int, str], dict[int, Path] | None] = {}

    @property
    def scenes(self) -> tuple[int, ...]:
        return tuple(sorted(self._found))

    def cameras(self, scene: int) -> dict[int, Any]:
        return read_numbered(self._found[scene] / f"scene_camera{self._suffix}.json")

    def has_truth(self, scene: int) -> bool:
        return (self._found[scene] / f"scene_gt{self._suffix}.json").is_file()

    def truths(self, scene: int) -> dict[int, Any] | None:
        return self._if_there(scene, "scene_gt")

    def infos(self, scene: int) -> dict[int, Any] | None:
        return self._if_there(scene, "scene_gt_info")

    def picture(self, key: ViewKey, kind: str) -> Path | None:
        known = self._listed(key.scene, kind)
        if known is None:
            return None
        if key.image not in known:
            folder = self._found[key.scene] / f"{kind}{self._suffix}"
            raise DataError(
                str(folder), f"a picture {key.image:06d}", f"{len(known)} others", "Copy the data set again."
            )
        return known[key.image]

    def mask(self, key: ViewKey, index: int, kind: MaskKind) -> NDArray[np.bool_]:
        folder = self._found[key.scene] / f"{kind}{self._suffix}"
        path = folder / f"{key.image:06d}_{index:06d}.png"
        if not path.is_file():
            got = "no such file" if folder.is_dir() else f"no folder '{folder.name}'"
            raise DataError(str(path), f"the mask of instance {index}", got, "Get the masks; or render the model.")
        return read_mask(path)

    def _if_there(self, scene: int, name: str) -> dict[int, Any] | None:
        path = self._found[scene] / f"{name}{self._suffix}.json"
        return read_numbered(path) if path.is_file() else None

    def _listed(self, scene: int, kind: str) -> dict[int, Path] | None:
        """Image -> file. One look at the folder instead of one for every picture and ending."""
        if (scene, kind) not in self._pictures:
            folder = self._found[scene] / f"{kind}{self._suffix}"
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            known = {int(each.stem): each for each in files if each.suffix in ENDINGS and each.stem.isdigit()}
            self._pictures[scene, kind] = known or None
        return self._pictures[scene, kind]


@final
class Imagewise(Layout):
    """``SSSSSS_IIIIII.rgb.png`` or ``SSSSSS/IIIIII.rgb.png``, beside it ``.depth.png``, ``.camera.json``, ``.gt.json``.

    Args:
        folder: of the split.
    """

    def __init__(self, folder: Path) -> None:
        self._stems: dict[int, dict[int, Path]] = {}
        for path in sorted(folder.glob("*.camera.json")) + sorted(folder.glob("*/*.camera.json")):
            name = path.name.removesuffix(".camera.json")
            scene, _, image = name.partition("_") if "_" in name else (path.parent.name, "", name)
            if not (scene.isdigit() and image.isdigit()):
                raise DataError(str(path), "SSSSSS_IIIIII.camera.json", path.name, "Rename the files as BOP does.")
            self._stems.setdefault(int(scene), {})[int(image)] = path.with_name(name)

    @property
    def scenes(self) -> tuple[int, ...]:
        return tuple(sorted(self._stems))

    def cameras(self, scene: int) -> dict[int, Any]:
        return {image: read_object(_beside(stem, ".camera.json")) for image, stem in sorted(self._stems[scene].items())}

    def has_truth(self, scene: int) -> bool:
        return any(_beside(stem, ".gt.json").is_file() for stem in self._stems[scene].values())

    def truths(self, scene: int) -> dict[int, Any] | None:
        return self._lists(scene, ".gt.json")

    def infos(self, scene: int) -> dict[int, Any] | None:
        return self._lists(scene, ".gt_info.json")

    def picture(self, key: ViewKey, kind: str) -> Path | None:
        stem = self._stems[key.scene][key.image]
        found = (_beside(stem, f".{kind}{ending}") for ending in ENDINGS)
        return next((path for path in found if path.is_file()), None)

    def mask(self, key: ViewKey, index: int, kind: MaskKind) -> NDArray[np.bool_]:
        path = _beside(self._stems[key.scene][key.image], f".{kind}.json")
        record = read_numbered(path).get(index)
        if not isinstance(record, dict) or not isinstance(record.get("counts"), list):
            raise DataError(
                str(path), f"instance {index} as uncompressed runs (counts, size)", repr(record)[:80],
                "Write the masks uncompressed; or render the model.",
            )  # fmt: skip
        size, runs = record.get("size"), np.array([whole(run, str(path), "a run") for run in record["counts"]], int)
        if not isinstance(size, list) or len(size) != 2 or runs.sum() != int(np.prod(size)):
            raise DataError(str(path), "runs that fill the picture", f"size {size}, sum {runs.sum()}", "Copy it again.")
        # Runs of COCO go down the columns and begin with what is not of the object.
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return np.ascontiguousarray(flat.reshape(int(size[1]), int(size[0])).T)

    def _lists(self, scene: int, ending: str) -> dict[int, Any] | None:
        found = {
            image: path
            for image, stem in sorted(self._stems[scene].items())
            if (path := _beside(stem, ending)).is_file()
        }
        return {image: read_list(path) for image, path in found.items()} or None


def find_layout(folder: Path, suffix: str = "") -> Layout:
    """The layout of a split's folder.

    Raises:
        DataError: there is no such folder, or it is in no layout that is known.
    """
    if not folder.is_dir():
        root = folder.parent
        known = sorted(e.name for e in root.iterdir() if e.is_dir()) if root.is_dir() else []
        raise DataError(str(folder), "the folder of a split", "none", f"There are: {', '.join(known) or 'none'}.")
    scenewise = Scenewise(folder, suffix)
    name = f"scene_camera{suffix}.json"
    if any(folder.glob(f"*/{name}")):
        return scenewise
    imagewise = Imagewise(folder)
    if imagewise.scenes:
        return imagewise
    if any(folder.glob("*.tar")) or any(folder.glob("*/*.tar")):
        raise DataError(
            str(folder), "BOP's scenewise or imagewise layout", "tar files (webdataset)", "Unpack them here."
        )
    if any(folder.glob("*/scene_camera_*.json")):
        names = {each.stem.removeprefix("scene_camera_") for each in folder.glob("*/scene_camera_*.json")}
        raise DataError(str(folder), name, f"those of the sensors {sorted(names)}", "Name one of them as the sensor.")
    raise DataError(
        str(folder), "scenes SSSSSS with scene_camera.json, or files SSSSSS_IIIIII.camera.json", "neither",
        "Is it the folder of a split, such as 'test' or 'train_pbr'?",
    )  # fmt: skip


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)
