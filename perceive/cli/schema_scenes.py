"""Settings of ``perceive scenes``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from perceive.cli.schema_parts import Component


@dataclass
class ScenesSchema:
    """Settings of ``perceive scenes``.

    Attributes:
        output: folder of the clouds, or of pictures in BOP's layout; scenes that are in it are kept.
        count: how many scenes.
        first: number of the first of them; a scene is a function of ``scenes.seed`` and its number, so scenes that are
            held back are those of other numbers, or of another seed.
        workers: processes, each with one thread; 0 = one a core.
        progress: show a progress bar.
        scenes: the generator.
    """

    output: str = MISSING
    count: int = 1000
    first: int = 0
    workers: int = 0
    progress: bool = True
    scenes: Component = MISSING
