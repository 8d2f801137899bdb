"""The settings of ``perceive record``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from perceive.cli.schema_parts import Component
from perceive.cli.schema_run import LiveTo


class Colour(Enum):
    """How colour pictures are written."""

    jpeg = "jpeg"
    png = "png"
    raw = "raw"


class Depth(Enum):
    """How depth pictures are written."""

    exact = "exact"
    mm = "mm"


class Actor(Enum):
    """Who moves a simulated robot while it is recorded."""

    expert = "expert"
    nobody = "nobody"


@dataclass
class CodingSchema:
    """How pictures are written (see sensors.recording.encoder.Coding).

    Attributes:
        colour: jpeg (lossy), png or raw (exact).
        jpeg_quality: 1 to 100.
        depth: exact (millimetres where those are exact, else metres) or mm (rounded to millimetres).
    """

    colour: Colour = Colour.jpeg
    jpeg_quality: int = 95
    depth: Depth = Depth.exact


@dataclass
class RecordSchema:
    """Settings of ``perceive record``.

    Attributes:
        output: folder of the recording; a new file each time.
        duration_s: how long, seconds; 0 = until Ctrl-C.
        seed: of the environment's first episode.
        actor: who moves a simulated robot: its scripted expert, or nobody (it stays where it is).
        tick_s: pause between two readings of a real rig, seconds.
        queue_mb: the most memory for frames that wait to be written; beyond, they are dropped and counted.
        coding: how pictures are written.
        view: show what the sensors see: rerun (its window), rrd (a recording for it, live.rrd in the output folder) or
            png (live.png there, rewritten every second); the first two need the extra 'viewer'. null = not at all.
        progress: show a progress bar.
        env: the environment of a simulated robot; '~env' leaves it out, for the sensors of a real one.
        rig: the sensors.
    """

    output: str = MISSING
    duration_s: float = 10.0
    seed: int = 0
    actor: Actor = Actor.expert
    tick_s: float = 0.002
    queue_mb: int = 256
    coding: CodingSchema = field(default_factory=CodingSchema)
    view: LiveTo | None = None
    progress: bool = True
    env: Component | None = None
    rig: Component = MISSING
