"""What ``perceive poses`` shows: figures, a table of objects, and pictures with the models drawn in, worst first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.cli.poses_changes import PictureChange
from perceive.metrics.pose_fast import PoseErrors
from perceive.metrics.pose_scores import PoseScores
from perceive.pose.files.dataset import PoseDataset
from perceive.pose.files.results_file import PoseRow
from perceive.pose.files.view import Instance, Target, ViewKey
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.results import Figure
from perceive.viewing.cloud_report import Panel, Table
from perceive.viewing.draw import mosaic
from perceive.viewing.pose_picture import pose_picture
from sensors.geometry import FloatArray

TILE_PX = (330, 440)  # height and width of a picture in the report
RIGHT = 0.1  # an MSSD below this share of the diameter is called right in the captions


@final
class ChosenPictures:
    """A data set with some of its targets only, for the scores.

    Args:
        dataset: all of it.
        targets: those that are asked for.
    """

    def __init__(self, dataset: PoseDataset, targets: Sequence[Target]) -> None:
        self._dataset = dataset
        self._targets = tuple(targets)

    @property
    def models(self) -> Mapping[int, ObjectModel]:
        return self._dataset.models

    def truth(self, key: ViewKey) -> Sequence[Instance]:
        return self._dataset.truth(key)

    def depth_m(self, key: ViewKey) -> NDArray[np.float32]:
        return self._dataset.depth_m(key)

    def intrinsics_px(self, key: ViewKey) -> FloatArray:
        return self._dataset.intrinsics_px(key)

    def size_px(self, key: ViewKey) -> tuple[int, int]:
        return self._dataset.size_px(key)

    def targets(self) -> Sequence[Target]:
        return self._targets

    def detection_views(self) -> Sequence[ViewKey]:
        return sorted({target.key for target in self._targets})


def pose_figures(scores: PoseScores) -> dict[str, Figure]:
    """The headline figures."""
    shares = {
        "AR": scores.ar,
        "AR of VSD": scores.ar_vsd,
        "AR of MSSD": scores.ar_mssd,
        "AR of MSPD": scores.ar_mspd,
        "ADD(-S) below a tenth of the diameter": scores.add_recall,
        "ADD(-S) AUC to 10 cm": scores.add_auc,
    }
    return {name: Figure(value, "fraction", n=scores.targets) for name, value in shares.items()}


def pose_tables(scores: PoseScores, models: Mapping[int, ObjectModel]) -> list[Table]:
    """A row for every object."""
    rows: list[tuple[str, Sequence[float | str]]] = [
        (
            f"{one.name} ({one.number})",
            [str(one.targets), _kind(models[one.number]), one.ar, one.ar_vsd, one.ar_mssd, one.ar_mspd, one.add_recall],
        )
        for one in scores.objects.values()
    ]
    about = "Average recalls as the BOP challenge of 2019 defines them, and the share of ADD(-S) below 0.1 diameters."
    columns = ["object", "targets", "symmetries", "AR", "VSD", "MSSD", "MSPD", "ADD(-S)"]
    return [Table("Objects", about, columns, rows)]


def pose_panels(
    dataset: PoseDataset,
    targets: Sequence[Target],
    rows: Sequence[PoseRow],
    change: PictureChange,
    count: int,
) -> list[Panel]:
    """Pictures of which the poses are worst: as measured, and with what was estimated and what is true."""
    if not count:
        return []
    wanted: dict[ViewKey, list[Target]] = defaultdict(list)
    for target in targets:
        wanted[target.key].append(target)
    found: dict[ViewKey, list[PoseRow]] = defaultdict(list)
    for row in rows:
        found[row.key].append(row)
    errors = {number: PoseErrors(dataset.models[number]) for number in sorted({target.number for target in targets})}
    judged = {key: _judged(dataset, wanted[key], found[key], errors) for key in sorted(wanted)}
    worst = sorted(judged, key=lambda key: -float(np.mean(np.minimum(list(judged[key].values()), 1.0))))[:count]
    drawn = {row.number for key in worst for row in found[key]} | set(errors)
    renderers = {number: MeshRenderer(dataset.models[number]) for number in sorted(drawn & set(dataset.models))}
    return [_panel(dataset, key, found[key], judged[key], renderers, change) for key in worst]


def _panel(
    dataset: PoseDataset,
    key: ViewKey,
    rows: Sequence[PoseRow],
    judged: Mapping[int, float],
    renderers: Mapping[int, MeshRenderer],
    change: PictureChange,
) -> Panel:
    frame = change.frame(dataset.frame(key), key)
    truth = [(dataset.truth(key)[index].number, dataset.truth(key)[index].camera_from_object) for index in judged]
    poses = [(row.number, row.camera_from_object) for row in rows if row.number in renderers]
    over = pose_picture(frame.rgb, np.asarray(frame.intrinsics_px), renderers, poses, truth)
    height, width = TILE_PX
    right = sum(error < RIGHT for error in judged.values())
    picture = mosaic({"picture": frame.rgb, "estimates (green: true outline)": over}, 2, height, width)
    parts = [f"{dataset.models[dataset.truth(key)[i].number].name} {_said(e)}" for i, e in judged.items()]
    return Panel(f"{key}: {right} of {len(judged)} right; MSSD in diameters: {', '.join(parts)}", picture)


def _judged(
    dataset: PoseDataset, targets: Sequence[Target], rows: Sequence[PoseRow], errors: Mapping[int, PoseErrors]
) -> dict[int, float]:
    """Instance that is asked for -> the least MSSD of the estimates of its object, in diameters."""
    out: dict[int, float] = {}
    for target in targets:
        mine = [one for one in dataset.truth(target.key) if one.number == target.number]
        guesses = [row.camera_from_object for row in rows if row.number == target.number]
        for instance in sorted(mine, key=lambda one: -one.visible_share)[: target.count]:
            out[instance.index] = np.inf
            if guesses:
                error = errors[target.number].mssd(
                    np.stack(guesses), np.stack([instance.camera_from_object] * len(guesses))
                )
                out[instance.index] = float(np.min(error)) / dataset.models[target.number].diameter_m
    return out


def _kind(model: ObjectModel) -> str:
    parts: list[Any] = []
    if len(model.symmetries.discrete):
        parts.append(f"{len(model.symmetries.discrete)} discrete")
    if model.symmetries.continuous:
        parts.append(f"{len(model.symmetries.continuous)} continuous")
    return ", ".join(parts) or "none"


def _said(error: float) -> str:
    return "not found" if not np.isfinite(error) else f"{error:.2f}"
