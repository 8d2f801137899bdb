"""SceneFolder: how generated scenes of one kind lie in a folder; and that of clouds, one file for each scene."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

from numpy.typing import NDArray

from perceive.points.files.cloud import from_arrays
from perceive.points.files.standard import READERS
from perceive.points.files.store import ENDING, read_cloud, write_cloud
from sensors.errors import DataError

LOG = logging.getLogger(__name__)
_NAME = re.compile(r"scene_(\d{6,})" + re.escape(ENDING))
_LEFTOVER = re.compile(r"\.scene_\d{6,}" + re.escape(ENDING) + r"\.\d+\.tmp")


@runtime_checkable
class Scenes(Protocol):
    """A generator of scenes, such as :class:`envs.cloud_scenes.tabletop.TabletopScenes`."""

    def scene(self, number: int) -> Any:
        """Scene ``number``, 0 or more: a function of the generator's arguments and the number."""

    def close(self) -> None:
        """Let go of what it holds."""


class Scene(Protocol):
    """What is known of one scene of points."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """By the names of :func:`perceive.points.files.cloud.from_arrays`."""


class SceneFolder(ABC):
    """Writes scenes of one generator into a folder; several processes may do so at once, each other scenes.

    Attributes:
        unit: what the scenes hold, in words.
    """

    unit: str

    @abstractmethod
    def foreign(self) -> str:
        """What lies in the folder that no such generator wrote, in words; empty = nothing."""

    @abstractmethod
    def begin(self) -> None:
        """Once, before the first scene: take away what a killed process left, write what all scenes share."""

    @abstractmethod
    def there(self, numbers: range) -> set[int]:
        """Which of the scenes are there; damaged ones are named and deleted, to be made again."""

    @abstractmethod
    def add(self, number: int) -> int:
        """Make and write one scene; how many of :attr:`unit` it holds."""

    @abstractmethod
    def finish(self) -> None:
        """Once, after the last scene."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the generator."""


@final
class CloudFolder(SceneFolder):
    """Labelled clouds as ``scene_NNNNNN.npz``.

    Args:
        scenes: the generator.
        folder: where.
    """

    unit = "points"

    def __init__(self, scenes: Scenes, folder: Path) -> None:
        self._scenes, self._folder = scenes, folder

    def foreign(self) -> str:
        return "other clouds" if any(each.suffix in READERS for each in self._folder.glob("*")) else ""

    def begin(self) -> None:
        for path in self._folder.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def there(self, numbers: range) -> set[int]:
        found = set()
        for path in self._folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is None or int(match[1]) not in numbers:
                continue
            try:
                read_cloud(path)
            except DataError as error:
                LOG.warning("made again, since the file is damaged: %s", error)
                path.unlink()
            else:
                found.add(int(match[1]))
        return found

    def add(self, number: int) -> int:
        scene: Scene = self._scenes.scene(number)
        cloud = from_arrays(dict(scene.arrays()))
        write_cloud(scene_path(self._folder, number), cloud)
        return len(cloud)

    def finish(self) -> None:
        """Each cloud is whole by itself."""

    def close(self) -> None:
        self._scenes.close()


def scene_path(folder: str | Path, number: int) -> Path:
    """The file of a scene of points."""
    return Path(folder) / f"scene_{number:06d}{ENDING}"
