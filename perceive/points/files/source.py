"""CloudSource: clouds that lie in a folder in some layout, by number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.points.files.cloud import LabelledCloud
from sensors.errors import DataError

_FIX = "Download or copy the file again."


class CloudSource(ABC):
    """Clouds by number, in the order of :attr:`names`. Nothing is read before it is asked for."""

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """What each cloud is called, in order."""

    @abstractmethod
    def read(self, number: int) -> LabelledCloud:
        """Cloud ``number``, from 0 to ``len(names) - 1``.

        Raises:
            DataError: a file is missing, truncated or damaged.
        """


def read_rows(path: Path, dtype: str, columns: int) -> NDArray[Any]:
    """Rows [N, columns] of a file of plain little-endian numbers.

    Raises:
        DataError: there is no such file, it is empty, or its last row is cut off.
    """
    data = _bytes(path)
    size = len(data)
    row = np.dtype(dtype).itemsize * columns
    if size == 0 or size % row:
        raise DataError(str(path), f"one or more rows of {row} bytes", f"{size} bytes", _FIX)
    return np.frombuffer(data, dtype).reshape(-1, columns)


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        DataError: it is missing or no text.
    """
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(str(path), "a text file", str(error), _FIX) from error


def found(folder: Path, what: str, names: Sequence[str]) -> None:
    """Complain if a folder holds no file of a kind.

    Raises:
        DataError: ``names`` is empty.
    """
    if not names:
        got = "none" if folder.is_dir() else "no such folder"
        raise DataError(str(folder), what, got, "Check the path; the folder that is asked for is the data set's root.")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(str(path), "a readable file", error.strerror or str(error), "Check the path.") from error
