"""Tiles of a cloud: as measured, its classes and boxes, what preprocessing made of it; and films around it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.points.files.cloud import Boxes, LabelledCloud
from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.pipeline import Processed
from perceive.viewing.cloud_colours import TRUTH, UNKNOWN, Colours, class_colours, own_colours, palette
from perceive.viewing.cloud_picture import BoxLayer, cloud_picture
from perceive.viewing.cloud_view import View, around
from perceive.viewing.draw import Picture, mosaic
from sensors.geometry import FloatArray, transform_points

CLUSTER_COLOURS = 24  # clusters beyond share the colours of the first


@final
@dataclass(frozen=True, eq=False)
class Tile:
    """One way to look at a cloud.

    Attributes:
        title: what is seen.
        xyz_m: [N, 3].
        colours: uint8 [N, 3].
        boxes: drawn over it.
    """

    title: str
    xyz_m: NDArray[np.floating[Any]]
    colours: Colours
    boxes: Sequence[BoxLayer] = field(default_factory=tuple)

    def picture(self, view: View) -> Picture:
        """Seen from ``view``."""
        return cloud_picture(view, self.xyz_m, self.colours, self.boxes)


def cloud_tiles(cloud: LabelledCloud) -> list[Tile]:
    """As it was measured, and its classes if it has them; its boxes over both."""
    layers = [] if cloud.boxes is None else [box_layer(cloud.boxes, cloud.box_classes)]
    tiles = [Tile("as measured", cloud.xyz_m, own_colours(cloud.xyz_m, cloud.rgb, cloud.intensity), layers)]
    if cloud.semantic is not None:
        count = max(len(cloud.classes), int(cloud.semantic.max(initial=-1)) + 1)
        tiles.append(Tile("classes", cloud.xyz_m, class_colours(cloud.semantic, count), layers))
    return tiles


def processed_tiles(cloud: LabelledCloud, done: Processed) -> list[Tile]:
    """Which points of a cloud are left after preprocessing (the others are dark), and the clusters of what is left."""
    left = done.removed_by < 0
    own = own_colours(cloud.xyz_m, cloud.rgb, cloud.intensity)
    faint = np.where(left[:, None], own, np.array(UNKNOWN, np.uint8) // 2).astype(np.uint8)
    tiles = [Tile(f"left: {done.whole.left} of {len(cloud)}", cloud.xyz_m, faint)]
    cluster = done.cloud.cluster
    if cluster is not None:
        count = int(cluster.max(initial=-1)) + 1
        wrapped = np.where(cluster < 0, -1, cluster % CLUSTER_COLOURS)
        title = f"{count} cluster{'' if count == 1 else 's'}"
        tiles.append(Tile(title, done.cloud.xyz_m, class_colours(wrapped, CLUSTER_COLOURS)))
    return tiles


def point_cloud(cloud: LabelledCloud) -> PointCloud:
    """A labelled cloud as what preprocessing takes."""
    return PointCloud(
        xyz_m=cloud.xyz_m,
        rgb=None if cloud.rgb is None else cloud.rgb.astype(np.float32) / np.float32(255),
        normal=cloud.normal,
        intensity=cloud.intensity,
        offset_s=cloud.time_s,
    )


def box_layer(boxes: Boxes, names: Sequence[str], colour: tuple[int, int, int] = TRUTH) -> BoxLayer:
    """True boxes with the names of their classes."""
    rows = np.concatenate([boxes.centre_m, boxes.size_m, boxes.yaw_rad[:, None]], axis=1)
    texts = [names[label] if 0 <= label < len(names) else "" for label in boxes.label]
    return BoxLayer(rows, colour, texts)


def sheet(tiles: Sequence[Tile], columns: int, height: int, width: int) -> Picture:
    """Tiles of one cloud side by side, all seen from where the first is seen whole."""
    view = around(tiles[0].xyz_m, height, width)
    # A space tells apart tiles of one title, which a mapping would merge.
    return mosaic({t.title + " " * i: t.picture(view) for i, t in enumerate(tiles)}, columns, height, width)


def turning(tiles: Sequence[Tile], frames: int, height: int, width: int) -> Iterator[Picture]:
    """A film once around a cloud; its last frame is followed by its first."""
    for number in range(frames):
        view = around(tiles[0].xyz_m, height, width, azimuth_rad=2 * math.pi * number / frames - 2.2)
        yield mosaic({t.title + " " * i: t.picture(view) for i, t in enumerate(tiles)}, len(tiles), height, width)


def frame_points(fields: Mapping[str, NDArray[Any]]) -> tuple[FloatArray, Colours] | None:
    """The points [N, 3] of a sensor's frame in the base frame with their colours [N, 3]; None if it measures none.

    Args:
        fields: of a PointFrame or a LidarFrame, or anything else with ``xyz_m``.
    """
    xyz_m = fields.get("xyz_m")
    if xyz_m is None or xyz_m.ndim != 2 or xyz_m.shape[1] != 3:
        return None
    count = int(np.asarray(fields["count"]).ravel()[0]) if "count" in fields else len(xyz_m)
    points = np.asarray(xyz_m[:count], float)
    if "base_from_lidar" in fields:
        points = transform_points(np.asarray(fields["base_from_lidar"], float), points)
    rgb, shine = fields.get("rgb"), fields.get("intensity")
    per_point = rgb is not None and rgb.ndim == 2
    return points, own_colours(
        points, rgb[:count] if rgb is not None and per_point else None, None if shine is None else shine[:count]
    )


def class_names(cloud: LabelledCloud) -> tuple[list[str], Colours]:
    """Names and colours of the classes that a cloud has, for a legend."""
    if cloud.semantic is None:
        return [], palette(0)
    there = [int(label) for label in np.unique(cloud.semantic) if label >= 0]
    names = [cloud.classes[label] if label < len(cloud.classes) else f"class {label}" for label in there]
    return names, palette(max(there, default=-1) + 1)[there]
