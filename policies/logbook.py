"""Logbook: training figures as JSON lines and for TensorBoard; cut back to a checkpoint when a run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from sensors.spec import Json

METRICS_FILE = "metrics.jsonl"


class Logbook:
    """Writes ``metrics.jsonl`` and ``tensorboard/`` in a run folder.

    A row of ``metrics.jsonl`` holds no wall time, so that a run that was interrupted writes the very same file as one
    that was not. Timings go to TensorBoard and to the checkpoint's state.

    Args:
        run_dir: made if it is missing.
        from_step: rows after this step were written by a run that was killed after its last checkpoint; they are cut.
        tensorboard: also write TensorBoard files.
    """

    def __init__(self, run_dir: str | Path, from_step: int = 0, tensorboard: bool = True) -> None:
        folder = Path(run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS_FILE
        kept = [row for row in read_metrics(folder) if row["step"] <= from_step]
        beside = self._path.with_name(f".{METRICS_FILE}.part")
        beside.write_text("".join(json.dumps(row) + "\n" for row in kept))
        beside.replace(self._path)
        self._file = self._path.open("a")
        self._board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only training needs it

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)

    def write(self, row: Mapping[str, float | int], timings: Mapping[str, float]) -> None:
        """One row; ``row["step"]`` is the number of steps done."""
        self._file.write(json.dumps(dict(row)) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in {**row, **timings}.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))

    def sync(self) -> None:
        """Put everything on the disk; called before a checkpoint, whose step the log must reach."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(run_dir: str | Path) -> list[Json]:
    """The rows of a run's ``metrics.jsonl``; a last line that was cut short by a kill is left out."""
    path = Path(run_dir) / METRICS_FILE
    rows: list[Json] = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows
