"""perceive scenes: labelled clouds or posed pictures of generated scenes, several at a time, resumable.

A scene is a function of its generator's settings and its number, so the folder holds the same bytes whatever the number
of workers, and whether or not it was interrupted.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from perceive.build import build
from perceive.cli.app import App
from perceive.cli.changes import changes
from perceive.cli.scenes_folder import CloudFolder, SceneFolder, Scenes, scene_path
from perceive.cli.scenes_poses import PosedScenes, PoseFolder
from perceive.results import write_json
from sensors.errors import DataError, PerceiveError, SpecError

__all__ = ["SETTINGS_FILE", "Summary", "app", "main", "make_scenes", "open_scenes", "scene_path"]

SETTINGS_FILE = "scenes.json"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Summary:
    """What a folder of scenes came to.

    Attributes:
        folder: where they are.
        scenes: how many were asked for; all of them are there.
        were_there: how many of them were there before.
        points: mean number of points (of pictures: of objects in view) of those that were made now.
        wall_s: seconds of this sitting.
        unit: what ``points`` counts.
    """

    folder: str
    scenes: int
    were_there: int
    points: float
    wall_s: float
    unit: str = "points"

    def __str__(self) -> str:
        made = self.scenes - self.were_there
        points = f", {self.points:,.0f} {self.unit} each" if made else ""
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
        "Generate labelled point clouds or posed pictures. Started again, it goes on where it was.",
        (
            "perceive scenes scenes=tabletop count=1500 output=runs/scenes/tabletop",
            "perceive scenes scenes=tabletop count=200 first=100000 output=runs/scenes/tabletop_held_out",
            "perceive scenes scenes=room count=1000 scenes.sweeps=2",
            "perceive scenes scenes=shapes count=3000 scenes.rotation=so3",
            "perceive scenes scenes=objects count=400 scenes.views=3 output=runs/scenes/objects",
            "perceive scenes scenes=objects_new count=40 first=100000 output=runs/scenes/objects_new",
        ),
        lambda config: print(make_scenes(config)),
    )


def make_scenes(config: Mapping[str, Any]) -> Summary:
    """Fill a folder with clouds, or with pictures of known objects in BOP's layout.

    Args:
        config: resolved config of ``perceive scenes`` (see perceive.cli.schema_scenes.ScenesSchema).

    Raises:
        DataError: the folder holds scenes of other settings, or the disk is full.
        SpecError: a number out of range, or no generator of scenes.
    """
    count, first, workers = int(config["count"]), int(config["first"]), int(config["workers"])
    if count < 1 or first < 0 or workers < 0:
        got = f"count={count}, first={first}, workers={workers}"
        raise SpecError("scenes", "count >= 1, first >= 0 and workers >= 0", got, "Correct it.")
    folder = Path(config["output"])
    started = time.perf_counter()
    mine = open_folder(config["scenes"], folder)  # also where nothing is missing: wrong settings are refused
    try:
        _claim(folder, config["scenes"], mine)
        mine.begin()
        numbers = range(first, first + count)
        there = mine.there(numbers)
        missing = [number for number in numbers if number not in there]
        workers = max(1, min(workers or _cores(), len(missing)))
        made = map(mine.add, missing) if workers == 1 else _in_processes(config["scenes"], folder, missing, workers)
        total = 0
        with tqdm(total=count, initial=len(there), desc="scenes", unit="scene", disable=not config["progress"]) as bar:
            for size in made:
                total += size
                bar.update()
        mine.finish()
    finally:
        mine.close()
    wall_s = time.perf_counter() - started
    return Summary(str(folder), count, len(there), total / max(len(missing), 1), wall_s, mine.unit)


def open_scenes(config: Mapping[str, Any]) -> Scenes:
    """The generator of a config.

    Raises:
        SpecError: it makes no scenes, or an argument is out of its range.
    """
    scenes = build(config, where="scenes")
    if not isinstance(scenes, Scenes):
        raise SpecError("scenes", "a generator with scene(number)", type(scenes).__name__, "Choose another.")
    return scenes


def open_folder(config: Mapping[str, Any], folder: Path) -> SceneFolder:
    """The generator of a config, and how its kind of scenes lies in a folder; errors as :func:`open_scenes`."""
    scenes = open_scenes(config)
    return PoseFolder(scenes, folder) if isinstance(scenes, PosedScenes) else CloudFolder(scenes, folder)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _claim(folder: Path, mine: Mapping[str, Any], scenes: SceneFolder) -> None:
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
    elif foreign := scenes.foreign():
        raise DataError(
            f"'{folder}'", "an empty folder or one of perceive scenes", foreign, "Use another output folder."
        )
    else:
        write_json(path, dict(mine))


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
def _folder_of(config: str, folder: Path) -> SceneFolder:
    """The generator of a config in JSON and its folder, built once in a process."""
    return open_folder(json.loads(config), folder)


def _work(config: str, folder: Path, number: int) -> int | PerceiveError:
    try:
        return _folder_of(config, folder).add(number)
    except PerceiveError as error:
        return error
    except Exception as error:
        details = "".join(traceback.format_exception(error)).strip()
        return DataError("a process that makes scenes", "no crash", f"{type(error).__name__}: {error}", details)
