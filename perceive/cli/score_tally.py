"""What ``perceive score`` counts for each kind of result: labels of points, classes of clouds, boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.heads.box_peaks import BoxGuess
from perceive.heads.classification import ClassGuess
from perceive.heads.point_labels import PointLabels
from perceive.metrics.boxes import GuessedBoxes, TrueBoxes, average_precision, true_positive_errors
from perceive.metrics.segmentation import Segmentation, confusion
from perceive.points.files.collate import CloudBatch
from perceive.results import Figure, success_figure
from perceive.viewing.cloud_board import Tile
from perceive.viewing.cloud_colours import GUESS, TRUTH, Colours, class_colours, right_colours
from perceive.viewing.cloud_picture import BoxLayer
from perceive.viewing.cloud_report import Table, confusion_table
from sensors.errors import DataError

RESAMPLED = 1000  # times that clouds are drawn anew for an interval
DRAWN_SCORE = 0.3  # guessed boxes below it are not drawn
_FIX = "Score on clouds that are labelled for it."


class Tally(ABC):
    """Counts the results of one head over all clouds.

    Args:
        head: its name.
        classes: names of its classes.
        lead: what figures and tables begin with: nothing, or the head's name where a model has several of a kind.
    """

    def __init__(self, head: str, classes: Sequence[str], lead: str) -> None:
        self.head = head
        self.classes = tuple(classes)
        self.lead = lead

    @abstractmethod
    def add(self, guess: Any, target: CloudBatch) -> list[float]:
        """Count a batch; how badly each cloud was read, from 0 to 1."""

    @abstractmethod
    def figures(self) -> dict[str, Figure]:
        """The headline figures.

        Raises:
            DataError: there was nothing to be right or wrong about.
        """

    @abstractmethod
    def tables(self) -> list[Table]:
        """For the report."""

    @abstractmethod
    def tiles(self, guess: Any, target: CloudBatch, row: int, colours: Colours) -> tuple[list[Tile], str]:
        """Looks at one cloud of a batch, and what to say of it; ``colours`` [P, 3] are those that it was seen in."""

    def _need(self, value: Any, name: str) -> None:
        if value is None:
            raise DataError(f"head '{self.head}'", f"clouds with '{name}'", "clouds without", _FIX)


@final
class PointTally(Tally):
    """Labels of points."""

    def __init__(self, head: str, classes: Sequence[str], lead: str) -> None:
        super().__init__(head, classes, lead)
        self._clouds: list[NDArray[np.int64]] = []

    def add(self, guess: PointLabels, target: CloudBatch) -> list[float]:
        said, true = self._both(guess, target)
        own = [confusion(a, b, len(self.classes)) for a, b in zip(said, true, strict=True)]
        self._clouds += own
        return [float(np.nan_to_num(1.0 - Segmentation(each).mean_iou)) for each in own]

    def figures(self) -> dict[str, Figure]:
        whole = Segmentation.of(self._clouds)
        if not whole.points:
            raise DataError(f"head '{self.head}'", "points with a class", "none of them has one", _FIX)
        low, high = self._intervals()
        out = {
            f"{self.lead}mean IoU": Figure(whole.mean_iou, "fraction", low[0], high[0], len(self._clouds)),
            f"{self.lead}point accuracy": Figure(whole.accuracy, "fraction", low[1], high[1], len(self._clouds)),
            f"{self.lead}mean accuracy of classes": Figure(whole.mean_accuracy, "fraction", n=len(self._clouds)),
        }
        for name, iou in zip(self.classes, whole.iou, strict=True):
            if np.isfinite(iou):
                out[f"{self.lead}IoU of {name}"] = Figure(float(iou), "fraction")
        return out

    def tables(self) -> list[Table]:
        whole = Segmentation.of(self._clouds)
        counts = whole.confusion.sum(axis=1)
        rows: list[tuple[str, Sequence[float | str]]] = [
            (name, [f"{int(count):,}", float(iou), float(precision), float(recall)])
            for name, count, iou, precision, recall in zip(
                self.classes, counts, whole.iou, whole.precision, whole.recall, strict=True
            )
        ]
        about = "Over the points of all clouds. IoU = right / (right + wrongly called so + missed)."
        columns = ["class", "points", "IoU", "precision", "recall"]
        return [
            Table(f"{self.lead}Points, by class", about, columns, rows),
            confusion_table(f"{self.lead}What points were taken for", self.classes, whole.confusion, "points"),
        ]

    def tiles(self, guess: PointLabels, target: CloudBatch, row: int, colours: Colours) -> tuple[list[Tile], str]:
        said, true = (part[row] for part in self._both(guess, target))
        there = target.valid[row].numpy()
        xyz_m, said, true = target.xyz_m[row].numpy()[there], said[there], true[there]
        own = Segmentation(confusion(said, true, len(self.classes)))
        wrong = int(((said != true) & (true >= 0)).sum())
        tiles = [
            Tile(f"{self.lead}truth", xyz_m, class_colours(true, len(self.classes))),
            Tile(f"{self.lead}guess", xyz_m, class_colours(said, len(self.classes))),
            Tile(f"{self.lead}wrong: {wrong} (red)", xyz_m, right_colours(said, true)),
        ]
        return tiles, f"{self.lead}mean IoU {own.mean_iou:.2f}, {wrong} of {own.points} points wrong"

    def _both(self, guess: PointLabels, target: CloudBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        self._need(target.semantic, "semantic")
        assert target.semantic is not None
        true = torch.where(target.valid, target.semantic, -1).numpy()
        return guess.logits.argmax(dim=-1).cpu().numpy(), true

    def _intervals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends [2] of the intervals of mean IoU and accuracy: clouds are drawn anew, since points of one are alike."""
        clouds = np.stack(self._clouds)
        rng = np.random.default_rng(0)
        count = len(clouds)
        found = []
        for _ in range(RESAMPLED):
            often = np.bincount(rng.integers(count, size=count), minlength=count)
            drawn = Segmentation(np.tensordot(often, clouds, axes=1))
            found.append((drawn.mean_iou, drawn.accuracy))
        low, high = np.nanpercentile(np.array(found), (2.5, 97.5), axis=0)
        return low, high


@final
class ClassTally(Tally):
    """Classes of whole clouds."""

    def __init__(self, head: str, classes: Sequence[str], lead: str) -> None:
        super().__init__(head, classes, lead)
        self._matrix = np.zeros((len(self.classes),) * 2, np.int64)

    def add(self, guess: ClassGuess, target: CloudBatch) -> list[float]:
        self._need(target.label, "label")
        assert target.label is not None
        logits, true = guess.logits.cpu().float(), target.label
        self._matrix += confusion(logits.argmax(dim=-1).numpy(), true.numpy(), len(self.classes))
        share = logits.softmax(dim=-1).gather(1, true.clamp_min(0)[:, None])[:, 0]
        return [float(value) for value in torch.where(true >= 0, 1.0 - share, 0.0)]

    def figures(self) -> dict[str, Figure]:
        whole = Segmentation(self._matrix)
        if not whole.points:
            raise DataError(f"head '{self.head}'", "clouds with a class", "none of them has one", _FIX)
        right = int(np.trace(self._matrix))
        return {
            f"{self.lead}accuracy": success_figure(right, whole.points),
            f"{self.lead}mean accuracy of classes": Figure(whole.mean_accuracy, "fraction", n=whole.points),
        }

    def tables(self) -> list[Table]:
        return [confusion_table(f"{self.lead}What clouds were taken for", self.classes, self._matrix, "clouds")]

    def tiles(self, guess: ClassGuess, target: CloudBatch, row: int, colours: Colours) -> tuple[list[Tile], str]:
        assert target.label is not None
        share = guess.logits[row].cpu().float().softmax(dim=-1)
        best, true = int(share.argmax()), int(target.label[row])
        truth = self.classes[true] if true >= 0 else "not known"
        return [], f"{self.lead}truth: {truth}; guess: {self.classes[best]} ({100 * float(share[best]):.0f} %)"


@final
class BoxTally(Tally):
    """Boxes.

    Args:
        head: as of :class:`Tally`.
        classes: as above.
        lead: as above.
        frontless: names of classes whose boxes look the same from behind.
        distances_m: of the centres, within which a box counts as found.
        overlaps: IoU of volumes from which on it does.
        least_points: boxes with fewer measured points need not be found.
    """

    def __init__(
        self,
        head: str,
        classes: Sequence[str],
        lead: str,
        frontless: Sequence[str],
        distances_m: Sequence[float],
        overlaps: Sequence[float],
        least_points: int,
    ) -> None:
        super().__init__(head, classes, lead)
        self._period_rad = [np.pi if name in frontless else 2 * np.pi for name in classes]
        self._distances_m, self._overlaps, self._least = list(distances_m), list(overlaps), least_points
        self._within_m = sorted(distances_m)[len(distances_m) // 2]
        self._guesses: list[GuessedBoxes] = []
        self._truths: list[TrueBoxes] = []

    def add(self, guess: BoxGuess, target: CloudBatch) -> list[float]:
        pairs = [self._scene(guess, target, row) for row in range(len(target.valid))]
        self._guesses += [said for said, _ in pairs]
        self._truths += [true for _, true in pairs]
        return [self._badness(said, true) for said, true in pairs]

    def figures(self) -> dict[str, Figure]:
        by_distance, by_overlap, errors = self._measured()
        count = int(by_distance.truths.sum())
        if not count:
            raise DataError(f"head '{self.head}'", "boxes to be found", "none", _FIX)
        out = {
            f"{self.lead}mean AP by centre distance": Figure(by_distance.mean, "fraction", n=count),
            f"{self.lead}mean AP by IoU": Figure(by_overlap.mean, "fraction", n=count),
        }
        for name, values, unit in (
            ("translation error", errors.translation_m, "m"),
            ("scale error", errors.scale, ""),
            ("orientation error", errors.orientation_rad, "rad"),
            ("velocity error", errors.velocity_m_s, "m/s"),
        ):
            known = values[np.isfinite(values)]
            if len(known):
                out[f"{self.lead}{name} within {self._within_m:g} m"] = Figure(float(known.mean()), unit)
        there = by_distance.truths > 0
        for name, average in zip(np.array(self.classes)[there], by_distance.average[there].mean(axis=1), strict=True):
            out[f"{self.lead}AP of {name}"] = Figure(float(average), "fraction")
        return out

    def tables(self) -> list[Table]:
        by_distance, by_overlap, errors = self._measured()
        columns = ["class", "boxes", *(f"AP {limit:g} m" for limit in self._distances_m)]
        columns += [f"AP IoU {limit:g}" for limit in self._overlaps]
        columns += ["recall", "translation m", "scale", "orientation rad", "velocity m/s"]
        rows: list[tuple[str, Sequence[float | str]]] = []
        for number, name in enumerate(self.classes):
            found = [*by_distance.average[number], *by_overlap.average[number], by_distance.recall[number].max()]
            wrong = [part[number] for part in (errors.translation_m, errors.scale, errors.orientation_rad)]
            cells = [float(value) for value in (*found, *wrong, errors.velocity_m_s[number])]
            rows.append((name, [f"{int(by_distance.truths[number]):,}", *cells]))
        about = (
            "Average precision by distance of centres (as nuScenes) and by overlap of volumes (as KITTI and Waymo, at "
            f"all recalls); recall at the widest distance; errors of boxes that were found within {self._within_m:g} m."
        )
        return [Table(f"{self.lead}Boxes, by class", about, columns, rows)]

    def tiles(self, guess: BoxGuess, target: CloudBatch, row: int, colours: Colours) -> tuple[list[Tile], str]:
        said, true = self._scene(guess, target, row)
        there = target.valid[row].numpy()
        shown = said.score >= DRAWN_SCORE
        texts = [
            f"{self.classes[label]} {score:.2f}"
            for label, score in zip(said.label[shown], said.score[shown], strict=True)
        ]
        layers = [BoxLayer(true.boxes, TRUTH), BoxLayer(said.boxes[shown], GUESS, texts)]
        title = f"{self.lead}boxes: truth green, guess orange"
        about = f"{self.lead}{len(true.boxes)} boxes there, {int(shown.sum())} guessed with a score from {DRAWN_SCORE}"
        return [Tile(title, target.xyz_m[row].numpy()[there], colours[there], layers)], about

    def _measured(self) -> Any:
        count = len(self.classes)
        return (
            average_precision(self._guesses, self._truths, count, "distance", self._distances_m),
            average_precision(self._guesses, self._truths, count, "iou_3d", self._overlaps),
            true_positive_errors(self._guesses, self._truths, count, self._within_m, self._period_rad),
        )

    def _badness(self, said: GuessedBoxes, true: TrueBoxes) -> float:
        mean = average_precision([said], [true], len(self.classes), "distance", [self._within_m]).mean
        # Where there is nothing to find, what was surely found is wrong.
        return 1.0 - mean if np.isfinite(mean) else float(said.score.max(initial=0.0))

    def _scene(self, guess: BoxGuess, target: CloudBatch, row: int) -> tuple[GuessedBoxes, TrueBoxes]:
        self._need(target.boxes, "boxes")
        assert target.boxes is not None
        assert target.box_label is not None
        assert target.box_valid is not None
        assert target.box_points is not None
        held = guess.valid[row].cpu()
        parts = (guess.boxes[row].cpu()[held], guess.score[row].cpu()[held], guess.label[row].cpu()[held])
        there = target.box_valid[row]
        points = target.box_points[row][there]
        few = (points >= 0) & (points < self._least)
        said = GuessedBoxes(*(part.numpy() for part in parts))
        return said, TrueBoxes(target.boxes[row][there].numpy(), target.box_label[row][there].numpy(), few.numpy())
