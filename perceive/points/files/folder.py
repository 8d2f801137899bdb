"""CloudFolder: a torch data set of labelled clouds out of a folder in any of the layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

from torch.utils.data import Dataset

from perceive.points.files.cloud import LabelledCloud
from perceive.points.files.kitti import KittiFolder
from perceive.points.files.modelnet import ModelNetFolder
from perceive.points.files.nuscenes import NuScenesFolder
from perceive.points.files.scanobjectnn import ScanObjectNNFile
from perceive.points.files.semantic_kitti import SemanticKittiFolder
from perceive.points.files.source import CloudSource
from perceive.points.files.standard import READERS, CloudFiles
from sensors.errors import DataError, SpecError, nearest

LAYOUTS = ("files", "kitti", "semantic_kitti", "nuscenes", "modelnet", "scanobjectnn")
AUTO = "auto"


@final
class CloudFolder(Dataset[LabelledCloud]):
    """The clouds of a folder, read one by one; may be copied to other processes.

    Args:
        path: the data set's root, or a single file.
        layout: one of :data:`LAYOUTS`, or "auto" to find out by what is there.
        split: KITTI's "training" or "testing", ModelNet's "train" or "test", SemanticKITTI's sequences ("00,01"),
            nuScenes' version; None = "training", "train", all, the only one.
        learning_map: SemanticKITTI's YAML file; None = the classes of the files.
        sweeps: nuScenes' sweeps per cloud.
        points: ModelNet's points per cloud.

    Raises:
        DataError: the folder is in none of the layouts, or not in the one that was named.
        SpecError: there is no such layout.
    """

    def __init__(
        self,
        path: str | Path,
        layout: str = AUTO,
        split: str | None = None,
        learning_map: str | Path | None = None,
        sweeps: int = 1,
        points: int = 1024,
    ) -> None:
        if layout not in (AUTO, *LAYOUTS):
            raise SpecError(
                "CloudFolder.layout", f"'{AUTO}' or one of {LAYOUTS}", repr(layout), nearest(layout, LAYOUTS)
            )
        path = Path(path)
        self.layout: str = layout_of(path) if layout == AUTO else layout
        sequences = None if split is None else [name.strip() for name in split.split(",")]
        build: dict[str, Callable[[], CloudSource]] = {
            "files": lambda: CloudFiles(path),
            "kitti": lambda: KittiFolder(path, split or "training"),
            "semantic_kitti": lambda: SemanticKittiFolder(path, sequences, learning_map),
            "nuscenes": lambda: NuScenesFolder(path, split, sweeps),
            "modelnet": lambda: ModelNetFolder(path, split or "train", points),
            "scanobjectnn": lambda: ScanObjectNNFile(path),
        }
        self.source: CloudSource = build[self.layout]()

    def __len__(self) -> int:
        """How many clouds there are."""
        return len(self.source.names)

    def __getitem__(self, number: int) -> LabelledCloud:
        """Cloud ``number``; negative ones count from the end.

        Raises:
            IndexError: there is none of this number, which is how iteration ends.
            DataError: its file is missing or damaged.
        """
        count = len(self)
        if not -count <= number < count:
            raise IndexError(number)
        return self.source.read(number % count)


def layout_of(path: Path) -> str:
    """Which layout a folder is in.

    Raises:
        DataError: none of them.
    """
    if path.is_file():
        return "scanobjectnn" if path.suffix in (".h5", ".hdf5") else "files"
    signs = {
        "semantic_kitti": "sequences/*/velodyne",
        "kitti": "t*ing/velodyne",
        "nuscenes": "*/sample_data.json",
        "modelnet": "*/*/*.off",
    }
    for layout, sign in signs.items():
        if next(path.glob(sign), None) is not None:
            return layout
    if any(each.suffix in READERS for each in path.glob("*")):
        return "files"
    got = "nothing known" if path.is_dir() else "no such folder"
    expected = f"{', '.join(signs.values())} or files ending in {', '.join(READERS)}"
    raise DataError(str(path), expected, got, "Point to the data set's root, or name the layout.")
