"""perceive scenes: labelled point clouds of generated scenes into a folder, several at a time, resumable.

A scene is a function of its generator's settings and its number, so the folder holds the same bytes whatever the number
of workers, and whether or not it was interrupted.
"""

from __future__ import annotations

import functools
import json
import logging
import multiprocessing
import os
import re
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray
from tqdm import tqdm

from perceive.build import build
from perceive.cli.app import App
from perceive.cli.changes import changes
from perceive.points.files.cloud import from_arrays
from perceive.points.files.standard import READERS
from perceive.points.files.store import ENDING, read_cloud, write_cloud
from perceive.results import write_json
from sensors.errors import DataError, PerceiveError, SpecError

LOG = logging.getLogger(__name__)
SETTINGS_FILE = "scenes.json"
_NAME = re.compile(r"scene_(\d{6,})" + re.escape(ENDING))
_LEFTOVER = re.compile(r"\.scene_\d{6,}" + re.escape(ENDING) + r"\.\d+\.tmp")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Scene(Protocol):
    """What is known of one scene."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """By the names of :func:`perceive.points.files.cloud.from_arrays`."""


@runtime_checkable
class Scenes(Protocol):
    """A generator of scenes, such as :class:`envs.cloud_scenes.tabletop.TabletopScenes`."""

    def scene(self, number: int) -> Scene:
        """Scene ``number``, 0 or more: a function of the generator's arguments and the number."""

    def close(self) -> None:
        """Let go of what it holds."""


@dataclass(frozen=True)
class Summary:
    """What a folder of scenes came to.

    Attributes:
        folder: where they are.
        scenes: how many were asked for; all of them are there.
        were_there: how many of them were there before.
        points: mean number of points of those that were made now.
        wall_s: seconds of this sitting.
    """

    folder: str
    scenes: int
    were_there: int
    points: float
    wall_s: float

    def __str__(self) -> str:
        made = self.scenes - self.were_there
        points = f", {self.points:,.0f} points each" if made else ""
        return (
            f"{self.scenes} scenes in {self.folder} ({self.were_there} were there before); "
            f"{made} made in {self.wall_s:.0f} s{points}"
        )


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "scenes",
        "Generate labelled point clouds. Started again, it goes on where it was.",
        (
            "perceive scenes scenes=tabletop count=1500 output=runs/scenes/tabletop",
            "perceive scenes scenes=tabletop count=200 first=100000 output=runs/scenes/tabletop_held_out",
            "perceive scenes scenes=room count=1000 scenes.sweeps=2",
            "perceive scenes scenes=shapes count=3000 scenes.rotation=so3",
        ),
        lambda config: print(make_scenes(config)),
    )


def make_scenes(config: Mapping[str, Any]) -> Summary:
    """Fill a folder with clouds.

    Args:
        config: resolved config of ``perceive scenes`` (see perceive.cli.schema_scenes.ScenesSchema).

    Raises:
        DataError: the folder holds clouds of other settings, or the disk is full.
        SpecError: a number out of range, or no generator of scenes.
    """
    count, first, workers = int(config["count"]), int(config["first"]), int(config["workers"])
    if count < 1 or first < 0 or workers < 0:
        got = f"count={count}, first={first}, workers={workers}"
        raise SpecError("scenes", "count >= 1, first >= 0 and workers >= 0", got, "Correct it.")
    folder = Path(config["output"])
    started = time.perf_counter()
    _claim(folder, config["scenes"])
    _remove_leftovers(folder)
    numbers = range(first, first + count)
    there = _whole(folder, numbers)
    missing = [number for number in numbers if number not in there]
    workers = max(1, min(workers or _cores(), len(missing)))
    made = _here if workers == 1 else _in_processes
    points = 0
    with tqdm(total=count, initial=len(there), desc="scenes", unit="scene", disable=not config["progress"]) as bar:
        for size in made(config["scenes"], folder, missing, workers):
            points += size
            bar.update()
    wall_s = time.perf_counter() - started
    return Summary(str(folder), count, len(there), points / max(len(missing), 1), wall_s)


def scene_path(folder: str | Path, number: int) -> Path:
    """The file of a scene."""
    return Path(folder) / f"scene_{number:06d}{ENDING}"


def open_scenes(config: Mapping[str, Any]) -> Scenes:
    """The generator of a config.

    Raises:
        SpecError: it makes no scenes, or an argument is out of its range.
    """
    scenes = build(config, where="scenes")
    if not isinstance(scenes, Scenes):
        raise SpecError("scenes", "a generator with scene(number)", type(scenes).__name__, "Choose another.")
    return scenes


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _claim(folder: Path, mine: Mapping[str, Any]) -> None:
    """Make the folder this generator's own, or make sure that it was before."""
    path = folder / SETTINGS_FILE
    if path.is_file():
        try:
            theirs = json.loads(path.read_text())
        except ValueError as error:
            raise DataError(
                str(path), "the settings of this folder", str(error), "Use another output folder."
            ) from None
        differing = changes(theirs, mine)
        if differing:
            raise DataError(
                f"scenes in '{folder}'",
                "the settings that they were made with",
                differing[0],
                "Use another output folder, or make them with the same settings.",
            )
    elif any(each.suffix in READERS for each in folder.glob("*")):
        raise DataError(
            f"'{folder}'", "an empty folder or one of perceive scenes", "other clouds", "Use another output folder."
        )
    else:
        write_json(path, dict(mine))


def _remove_leftovers(folder: Path) -> None:
    """Of a process that was killed while it wrote."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _whole(folder: Path, numbers: range) -> set[int]:
    """Which of the scenes are there; damaged files are named and deleted, to be made again."""
    found = set()
    for path in folder.iterdir():
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


def _make(scenes: Scenes, folder: Path, number: int) -> int:
    """Make and write one scene; its number of points."""
    cloud = from_arrays(dict(scenes.scene(number).arrays()))
    write_cloud(scene_path(folder, number), cloud)
    return len(cloud)


def _here(config: Mapping[str, Any], folder: Path, numbers: Sequence[int], workers: int) -> Iterator[int]:
    del workers  # this process alone
    scenes = open_scenes(config)  # also where nothing is missing: wrong settings are refused
    try:
        for number in numbers:
            yield _make(scenes, folder, number)
    finally:
        scenes.close()


def _in_processes(config: Mapping[str, Any], folder: Path, numbers: Sequence[int], workers: int) -> Iterator[int]:
    # "spawn": a forked child would inherit the threads of torch and of the physics server in a broken state.
    context = multiprocessing.get_context("spawn")
    with (
        _one_thread(),
        ProcessPoolExecutor(workers, context, _ignore_interrupts) as pool,
    ):
        jobs = [pool.submit(_work, json.dumps(config), folder, number) for number in numbers]
        try:
            for job in as_completed(jobs):
                result = job.result()
                if isinstance(result, PerceiveError):
                    raise result
                yield result
        except BrokenProcessPool as error:
            raise DataError(
                "perceive scenes", "worker processes that live", str(error),
                "It may have run out of memory: use fewer workers. Started again, it goes on where it was.",
            ) from error  # fmt: skip
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """New processes calculate with one thread each; what they inherit is put back."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business


@functools.lru_cache(maxsize=1)
def _scenes_of(config: str) -> Scenes:
    """The generator of a config in JSON, built once in a process."""
    return open_scenes(json.loads(config))


def _work(config: str, folder: Path, number: int) -> int | PerceiveError:
    try:
        return _make(_scenes_of(config), folder, number)
    except PerceiveError as error:
        return error
    except Exception as error:
        details = "".join(traceback.format_exception(error)).strip()
        return DataError("a process that makes scenes", "no crash", f"{type(error).__name__}: {error}", details)
