"""Settings of ``perceive export``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class ExportSchema:
    """Settings of ``perceive export``.

    Attributes:
        checkpoint: checkpoint folder, run folder, or folder of a saved model.
        output: folder of what is written.
        file: the graph, ends in .onnx; by default ``model.onnx`` in the output folder. What it reads and gives is
            written beside it as .json.
        sensor: whose encoder is exported; null = the only one with a Point Transformer V3.
        use_ema: use the averaged weights.
    """

    checkpoint: str = MISSING
    output: str = MISSING
    file: str | None = None
    sensor: str | None = None
    use_ema: bool = True
