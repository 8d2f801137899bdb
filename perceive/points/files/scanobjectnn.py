"""ScanObjectNN: 2048 points of single objects out of real scans, with what the scanner saw around them.

Paper: M. A. Uy et al., "Revisiting Point Cloud Classification: A New Benchmark Dataset and Classification Model on
Real-World Data", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from perceive.points.files.cloud import UNLABELLED, LabelledCloud, cloud_of
from perceive.points.files.source import CloudSource
from sensors.errors import DataError

CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink",
    "sofa", "toilet",
)  # fmt: skip
_FIX = "Unpack the data set's h5_files again."


@final
class ScanObjectNNFile(CloudSource):
    """One .h5 file with ``data`` [M, P, 3], ``label`` [M] and, in most, ``mask`` [M, P].

    Clouds are in the frame "object", in the files' unit: centred, and for the benchmark's variants turned and scaled.
    ``instance`` is 0 on the object and -1 on what surrounds it, where the file has a mask. The points are held in
    memory.

    Args:
        path: the file, e.g. "main_split/training_objectdataset.h5".

    Raises:
        DataError: it is missing, damaged, or holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        import h5py  # half of a tenth of a second that other layouts need not wait

        self._path = Path(path)
        if not self._path.is_file():
            raise DataError(str(path), "an .h5 file", "no such file", "Check the path.")
        try:
            with h5py.File(self._path, "r") as file:
                self._data = np.asarray(file["data"][:], np.float32)
                self._label = np.asarray(file["label"][:], np.int64).reshape(-1)
                self._mask = np.asarray(file["mask"][:]) if "mask" in file else None
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise DataError(str(path), "an HDF5 file with data and label", f"{error}", _FIX) from error
        shape = self._data.shape
        if len(shape) != 3 or shape[2] != 3 or self._label.shape != shape[:1] or not shape[0]:
            got = f"data {list(shape)}, label {list(self._label.shape)}"
            raise DataError(str(path), "data [M, P, 3] and label [M]", got, _FIX)
        if self._mask is not None and self._mask.shape != shape[:2]:
            raise DataError(str(path), f"mask {list(shape[:2])}", f"{list(self._mask.shape)}", _FIX)
        if self._label.min() < 0 or self._label.max() >= len(CLASSES):
            got = f"{self._label.min()} to {self._label.max()}"
            raise DataError(str(path), f"labels from 0 to {len(CLASSES) - 1}", got, _FIX)

    @property
    def names(self) -> Sequence[str]:
        return [f"{self._path.name}[{number}]" for number in range(len(self._label))]

    def read(self, number: int) -> LabelledCloud:
        mask = None if self._mask is None else np.where(self._mask[number] < 0, UNLABELLED, 0)
        return cloud_of(
            self._data[number],
            "object",
            instance=mask,
            label=int(self._label[number]),
            classes=CLASSES,
            name=f"{self._path}[{number}]",
        )
