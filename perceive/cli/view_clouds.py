"""Clouds of files for ``perceive view cloud=``: as a sheet, a film around them, or in Rerun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceive.build import build
from perceive.points.files.cloud import LabelledCloud
from perceive.points.files.folder import CloudFolder
from perceive.points.preprocess.pipeline import Pipeline
from perceive.viewing.cloud_board import (
    Tile,
    class_names,
    cloud_tiles,
    point_cloud,
    processed_tiles,
    sheet,
    turning,
)
from perceive.viewing.cloud_colours import legend
from perceive.viewing.draw import Picture
from perceive.viewing.film import write_mp4, write_png
from perceive.viewing.rerun_log import show_clouds_in_rerun
from sensors.errors import DataError

TILE_PX = (300, 400)  # height and width
TURN_FRAMES, FILM_HZ = 72, 24.0


def view_clouds(config: Mapping[str, Any]) -> str:
    """Show the first clouds of a file or folder as the config of ``perceive view`` says.

    Returns:
        Where they are shown.

    Raises:
        DataError: no cloud there.
        SensorError: Rerun is asked for and not installed.
    """
    folder = CloudFolder(config["cloud"], config["layout"])
    if not len(folder):
        raise DataError(str(config["cloud"]), "at least one cloud", "none", "Choose another folder.")
    pipeline = None if config["points"] is None else build(config["points"], where="points")
    count = min(len(folder), config["moments"])
    clouds = (shown(folder[number], pipeline) for number in range(count))
    stem = Path(config["output"]) / Path(config["cloud"]).stem
    to = config["to"]
    if to in ("rrd", "rerun"):
        file = stem.with_name(f"{stem.name}.rrd") if to == "rrd" else None
        return show_clouds_in_rerun(((cloud.name, tiles) for cloud, tiles in clouds), stem.name, file)
    height, width = TILE_PX
    if to == "mp4":
        frames = _even(frame for _, tiles in clouds for frame in turning(tiles, TURN_FRAMES, height, width))
        return str(write_mp4(stem.with_name(f"{stem.name}.mp4"), frames, FILM_HZ))
    rows = [_row(cloud, tiles) for cloud, tiles in clouds]
    wide = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0))) for row in rows]
    return str(write_png(stem.with_name(f"{stem.name}.png"), np.concatenate(padded)))


def shown(cloud: LabelledCloud, pipeline: Pipeline | None) -> tuple[LabelledCloud, list[Tile]]:
    """A cloud with the tiles to show of it; says what preprocessing did, if there is one."""
    tiles = cloud_tiles(cloud)
    if pipeline is not None:
        done = pipeline(point_cloud(cloud))
        print(f"{Path(cloud.name).name}: {len(cloud)} points\n{done.table()}")
        tiles += processed_tiles(cloud, done)
    return cloud, tiles


def _row(cloud: LabelledCloud, tiles: list[Tile]) -> Picture:
    named = [Tile(f"{Path(cloud.name).name} {tiles[0].title}", tiles[0].xyz_m, tiles[0].colours, tiles[0].boxes)]
    picture = sheet([*named, *tiles[1:]], len(tiles), *TILE_PX)
    names, colours = class_names(cloud)
    return np.concatenate([picture, legend(names, colours, picture.shape[1])]) if names else picture


def _even(frames: Iterator[Picture]) -> Iterator[Picture]:
    """Frames of the size of the first: clouds of one folder may have more or fewer tiles."""
    shape: tuple[int, ...] | None = None
    for frame in frames:
        shape = shape or frame.shape
        out = np.zeros(shape, np.uint8)
        part = frame[: shape[0], : shape[1]]
        out[: part.shape[0], : part.shape[1]] = part
        yield out
