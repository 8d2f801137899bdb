"""The models of a data set, loaded when they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

from perceive.pose.files.mesh_file import load_model
from perceive.pose.files.models_info import ModelInfo, read_models_info
from perceive.pose.model import ObjectModel
from sensors.errors import DataError

_LOG = logging.getLogger(__name__)


@final
class ModelFolder(Mapping[int, ObjectModel]):
    """``obj_000001.ply`` and so on, in millimetres, with ``models_info.json``.

    Args:
        folder: such as "models" or "models_eval".

    Raises:
        DataError: there is none, there is no mesh in it, or what is known of the models is damaged or incomplete.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        root = self._folder.parent
        found = sorted(self._folder.glob("obj_*.ply")) if self._folder.is_dir() else []
        self._paths = {int(n): path for path in found if (n := path.stem.removeprefix("obj_")).isdigit()}
        if not self._paths:
            got = "no obj_000001.ply or the like" if self._folder.is_dir() else "no such folder"
            known = sorted(e.name for e in root.iterdir() if e.is_dir()) if root.is_dir() else []
            others = [name for name in known if name.startswith("models") and name != self._folder.name]
            raise DataError(
                str(self._folder), "a folder of models", got, f"There are others: {', '.join(others) or 'none'}."
            )
        self._infos = self._read_infos()
        self._models: dict[int, ObjectModel] = {}

    def __getitem__(self, number: int) -> ObjectModel:
        """The model.

        Raises:
            KeyError: there is none.
            DataError: its mesh is damaged, or in another unit than millimetres.
        """
        if number not in self._models:
            path, info = self._paths[number], self._infos[number]
            symmetries, diameter_m = (None, None) if info is None else (info.symmetries, info.diameter_m)
            name = path.stem if info is None or info.name is None else info.name
            self._models[number] = load_model(path, number, name, symmetries, "mm", diameter_m)
        return self._models[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def _read_infos(self) -> dict[int, ModelInfo | None]:
        path = self._folder / "models_info.json"
        if not path.is_file():
            _LOG.warning("%s: not there; diameters are computed, and no object counts as symmetric", path)
            return dict.fromkeys(self._paths)
        known = read_models_info(path)
        missing = sorted(self._paths.keys() - known.keys())
        if missing:
            raise DataError(
                str(path), "an entry for every mesh", f"none for {missing}", "Add it, or take away the mesh."
            )
        return {number: known[number] for number in self._paths}
