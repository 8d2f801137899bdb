"""Settings of ``perceive score``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING


class Turn(Enum):
    """How clouds are turned before they are read."""

    none = "none"
    z = "z"
    so3 = "so3"


@dataclass
class ScoreSchema:
    """Settings of ``perceive score``.

    Attributes:
        checkpoint: checkpoint folder, or a run folder (its newest whole checkpoint is taken).
        data: folder (or file) of labelled clouds that the model has not seen.
        layout: of that folder; null = as in training.
        split: of that folder ("testing", "test", "08" ...); null = as in training.
        output: folder of the result and the report.
        result: file of the result; by default ``result.json`` in the output folder.
        name: title of the result.
        limit: the first so many clouds; 0 = all.
        batch_size: clouds at once.
        rotate: turn each cloud at random before it is read: none, z (about the vertical) or so3 (any way).
        drop_points: leave out this share of the points, at random.
        jitter_m: standard deviation of noise on each coordinate, metres.
        seed: of all three.
        distances_m: centre distances within which a box counts as found, metres; nuScenes takes these four.
        overlaps: share of common volume (IoU) from which on a box counts as found.
        box_points: boxes with fewer measured points than this are left out of account.
        pictures: clouds in the report, worst first.
        latency_clouds: time the model on so many clouds one by one, on one thread; 0 = not at all.
        use_ema: use the averaged weights.
        device: torch device.
        progress: show a progress bar.
    """

    checkpoint: str = MISSING
    data: str | None = None
    layout: str | None = None
    split: str | None = None
    output: str = MISSING
    result: str | None = None
    name: str = "score"
    limit: int = 0
    batch_size: int = 16
    rotate: Turn = Turn.none
    drop_points: float = 0.0
    jitter_m: float = 0.0
    seed: int = 0
    distances_m: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0, 4.0])
    overlaps: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.7])
    box_points: int = 1
    pictures: int = 12
    latency_clouds: int = 20
    use_ema: bool = True
    device: str = "cpu"
    progress: bool = True
