"""Which objects are to be found in which pictures: BOP's files of targets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from perceive.pose.files.json_file import read_list, whole
from perceive.pose.files.view import Target, ViewKey
from sensors.calibration.files import write_beside
from sensors.errors import DataError

BOP19, BOP24 = "bop19", "bop24"


def targets_path(folder: Path, split: str, kind: str) -> Path | None:
    """The file of targets of a split; None = there is none.

    ``test_targets_bop19.json`` also serves ``test_primesense``, as data sets with several sensors have it; no such
    thing is done for training.
    """
    names = [split, *(base for base in ("test", "val") if split.startswith(f"{base}_"))]
    paths = (folder / f"{name}_targets_{kind}.json" for name in names)
    return next((path for path in paths if path.is_file()), None)


def read_targets(path: Path) -> tuple[Target, ...]:
    """What ``*_targets_bop19.json`` asks for, in order.

    Raises:
        DataError: the file is missing or damaged, or asks for the same twice.
    """
    out: dict[tuple[ViewKey, int], Target] = {}
    for row, record in enumerate(read_list(path)):
        where = f"{path}, entry {row}"
        number, count = (_field(record, name, where) for name in ("obj_id", "inst_count"))
        key = _key(record, where)
        if (key, number) in out:
            raise DataError(where, "every object of a view once", f"{key}, object {number} again", "Add the counts.")
        out[key, number] = Target(key, number, count)
    return tuple(sorted(out.values()))


def read_target_views(path: Path) -> tuple[ViewKey, ...]:
    """The views that a file of targets names, of either kind, in order.

    Raises:
        DataError: the file is missing or damaged.
    """
    return tuple(sorted({_key(record, f"{path}, entry {row}") for row, record in enumerate(read_list(path))}))


def write_targets(folder: Path, split: str, targets: Sequence[Target], views: Iterable[ViewKey]) -> None:
    """Write the targets for localisation (bop19) and the views for detection (bop24)."""
    localise = [
        {"im_id": one.key.image, "inst_count": one.count, "obj_id": one.number, "scene_id": one.key.scene}
        for one in sorted(targets)
    ]
    detect = [{"im_id": key.image, "scene_id": key.scene} for key in sorted(views)]
    for kind, rows in ((BOP19, localise), (BOP24, detect)):
        text = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n"
        write_beside(folder / f"{split}_targets_{kind}.json", text)


def _key(record: Any, where: str) -> ViewKey:
    return ViewKey(_field(record, "scene_id", where), _field(record, "im_id", where))


def _field(record: Any, name: str, where: str) -> int:
    if not isinstance(record, dict) or name not in record:
        raise DataError(where, f"an entry with {name}", repr(record)[:120], "Is it a file of targets of this kind?")
    return whole(record[name], where, name)
