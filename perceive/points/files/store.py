"""A labelled cloud as one .npz file: plain arrays by name, checked by the zip format's own sums."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from perceive.points.files.cloud import LabelledCloud, from_arrays
from sensors.errors import DataError, SpecError

FORMAT = 1
ENDING = ".npz"


def write_cloud(path: str | Path, cloud: LabelledCloud) -> Path:
    """Write a cloud beside its place and rename it there, so that a reader never sees half a file.

    Args:
        path: the file, ending in ".npz"; its folder is made.
        cloud: what to write.

    Returns:
        The path.

    Raises:
        SpecError: another ending.
        DataError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != ENDING:
        raise SpecError("write_cloud, path", f"a name ending in {ENDING}", path.name, "Rename it.")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                np.savez(file, allow_pickle=False, format=np.array(FORMAT), **cloud.arrays())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(str(path), "a writable file", str(error), "Free space, or write elsewhere.") from error
    return path


def read_cloud(path: str | Path) -> LabelledCloud:
    """Read a file of :func:`write_cloud`.

    Raises:
        DataError: there is no such file, or it is truncated, damaged or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(str(path), "a cloud file", "no such file", "Check the path.")
    try:
        # Opened here: numpy forgets to close a file that turns out to be no archive.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(str(path), "a whole .npz file", f"a damaged one ({error})", "Write it again.") from error
    found = arrays.pop("format", None)
    if found is None or found.shape != () or int(found) != FORMAT:
        raise DataError(
            str(path), f"a cloud of format {FORMAT}", f"format {found}", "Write it again with write_cloud()."
        )
    try:
        return from_arrays(arrays)
    except (SpecError, TypeError, ValueError) as error:
        raise DataError(str(path), "the arrays of a cloud", str(error), "Write it again with write_cloud().") from error
