"""perceive collect: demonstrations of a scripted expert into a folder, several at a time, resumable.

The folder ends with the first so many successful seeds whatever the number of workers, and whether or not it was
interrupted: seeds are tried in waves, each as large as what is missing.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from perceive.cli.app import App
from perceive.cli.changes import changes
from perceive.cli.workers import Attempt, attempts
from perceive.results import write_json
from policies.episode_file import Episode
from policies.episodes import list_episodes, remove_leftovers
from sensors.errors import DataError, SpecError

LOG = logging.getLogger(__name__)
SETTINGS_FILE = "collect.json"
ATTEMPTS_FILE = "attempts.jsonl"


@dataclass(frozen=True)
class Summary:
    """What a folder of demonstrations came to.

    Attributes:
        folder: where they are.
        episodes: how many it holds.
        were_there: how many of them were there before.
        attempts: episodes played, over all sittings.
        failures: attempts in which the expert did not solve the task.
        steps: control steps recorded in this sitting.
        wall_s: seconds of this sitting.
    """

    folder: str
    episodes: int
    were_there: int
    attempts: int
    failures: int
    steps: int
    wall_s: float

    def __str__(self) -> str:
        rate = 100 * (1 - self.failures / self.attempts) if self.attempts else 100.0
        return (
            f"{self.episodes} episodes in {self.folder} ({self.were_there} were there before); the expert solved "
            f"{self.attempts - self.failures} of {self.attempts} attempts ({rate:.1f} %); "
            f"{self.steps} steps in {self.wall_s:.0f} s"
        )


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "collect",
        "Record demonstrations of the task's scripted expert. Started again, it goes on where it was.",
        (
            "perceive collect env=lift episodes=120 output=runs/lift/episodes",
            "perceive collect env=reach rig=state episodes=20",
            "perceive collect env=lift noise.position_m=0.02 noise.rotation_rad=0.1",
        ),
        lambda config: print(collect(config)),
    )


def collect(config: Mapping[str, Any]) -> Summary:
    """Fill a folder with demonstrations.

    Args:
        config: resolved config of ``perceive collect`` (see perceive.cli.schema.CollectSchema).

    Raises:
        DataError: the folder holds episodes of other settings, the disk is full, or the expert fails too often.
        SpecError: a number out of range.
    """
    wanted = int(config["episodes"])
    most = int(config["max_attempts"]) or 3 * wanted
    if wanted < 1 or most < wanted:
        raise SpecError(
            "collect", "1 <= episodes <= max_attempts", f"episodes={wanted}, max_attempts={most}", "Correct it."
        )
    folder = Path(config["output"])
    started = time.perf_counter()
    _claim(folder, config)
    remove_leftovers(folder)
    done = _valid_seeds(folder)
    failed = _failed_seeds(folder) - done
    were_there, steps = len(done), 0
    kept_all = bool(config["keep_failures"])
    with tqdm(
        total=wanted, initial=min(len(done), wanted), desc="collect", unit="episode", disable=not config["progress"]
    ) as bar:
        while len(done) < wanted:
            wave = _next_seeds(int(config["first_seed"]), done | failed, wanted - len(done), most)
            if not wave:
                raise DataError(
                    "perceive collect",
                    f"{wanted} successes in {most} attempts",
                    f"{len(done)}, and {len(failed)} failures",
                    "Lower the noise, check the task with `perceive view`, or raise max_attempts.",
                )
            for attempt in attempts(config, wave, _workers(config, len(wave))):
                _note(folder, attempt)
                steps += attempt.steps
                if attempt.success or kept_all:
                    done.add(attempt.seed)
                    bar.update()
                else:
                    failed.add(attempt.seed)
                bar.set_postfix(failed=len(failed), refresh=False)
    tried, lost = _tally(folder, done)
    return Summary(str(folder), len(done), were_there, tried, lost, steps, time.perf_counter() - started)


def _next_seeds(first: int, used: set[int], count: int, most: int) -> list[int]:
    """The next ``count`` unused seeds out of the first ``most``."""
    free: Iterator[int] = (seed for seed in range(first, first + most) if seed not in used)
    return [seed for seed, _ in zip(free, range(count), strict=False)]


def _workers(config: Mapping[str, Any], jobs: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(config["workers"]) or cores, jobs))


def _claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Make the folder this job's own, or make sure that it was before."""
    mine = {key: config[key] for key in ("env", "noise", "keep_failures")}
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
                f"episodes in '{folder}'",
                "the settings that they were collected with",
                differing[0],
                "Use another output folder, or collect with the same settings.",
            )
    elif list_episodes(folder):
        raise DataError(
            f"'{folder}'", "an empty folder or one of perceive collect", "other episodes", "Use another output folder."
        )
    else:
        write_json(path, mine)


def _valid_seeds(folder: Path) -> set[int]:
    """Seeds of the whole episodes; damaged files are named and deleted, to be collected again."""
    found = set()
    for path in list_episodes(folder):
        try:
            found.add(Episode(path).header.seed)
        except DataError as error:
            LOG.warning("collected again, since the file is damaged: %s", error)
            path.unlink()
    return found


def _note(folder: Path, attempt: Attempt) -> None:
    with (folder / ATTEMPTS_FILE).open("a") as file:
        file.write(json.dumps(asdict(attempt)) + "\n")


def _read_attempts(folder: Path) -> dict[int, bool]:
    """Seed -> success, of every attempt noted; a line that was cut off by a crash is passed over."""
    path, found = folder / ATTEMPTS_FILE, {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[int(row["seed"])] = bool(row["success"])
    return found


def _failed_seeds(folder: Path) -> set[int]:
    return {seed for seed, success in _read_attempts(folder).items() if not success}


def _tally(folder: Path, done: set[int]) -> tuple[int, int]:
    noted = dict.fromkeys(done, True) | _read_attempts(folder)
    return len(noted), sum(not success for success in noted.values())
