"""A calibrated fingertip: colours, background and what is known of them, in one file."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from sensors.calibration.files import write_beside
from sensors.errors import DataError, SpecError
from sensors.tactile.calibration.inverse import STEEPEST_RAD
from sensors.tactile.calibration.reader import GelReader, Way
from sensors.tactile.deform import Softness
from sensors.tactile.gel import Gel
from sensors.tactile.optics import GelOptics
from sensors.tactile.presets import preset
from sensors.tactile.table import ColourTable, Lookup, TableColour

FORMAT = 1
_BEYOND_RAD = math.radians(8.0)


@final
@dataclass(frozen=True, eq=False)
class TouchCalibration:
    """What a calibration found of one fingertip.

    The file of :meth:`save` is also one of :meth:`sensors.tactile.table.ColourTable.load`, so that whatever takes a
    table takes it.

    Attributes:
        model: "digit" or "gelsight_mini".
        gel: size, and the pixels of the pictures.
        table: colours of slopes, with the gain in them.
        background: the untouched gel, float32 [h, w, 3], grey values.
        stray: grey values [3] that are none of the fingertip's lights'.
        gain: factor [3] of the lights against the fingertip that was pressed; 1 unless taken over to another one.
        noise: of a pixel, standard deviation, grey values.
        dead: bool [h, w], pixels that do not work.
        details: how it came about and how far to trust it, plain JSON data.
    """

    model: str
    gel: Gel
    table: ColourTable
    background: NDArray[np.float32]
    stray: tuple[float, float, float]
    gain: tuple[float, float, float]
    noise: float
    dead: NDArray[np.bool_]
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (self.gel.rows, self.gel.columns)
        if self.background.shape != (*shape, 3) or self.dead.shape != shape:
            got = f"{list(self.background.shape)}, {list(self.dead.shape)}"
            raise SpecError("TouchCalibration", f"pictures of {shape[0]} x {shape[1]}", got, "Calibrate again.")

    def save(self, path: str | Path) -> None:
        """Write it, beside its place and then renamed; ``path`` ends in .npz. Beside it the details as .json."""
        path = Path(path)
        if path.suffix != ".npz":
            raise SpecError("TouchCalibration.save", "a path that ends in .npz", f"'{path.name}'", "Rename it.")
        numbers = {
            "size_m": [self.gel.height_m, self.gel.width_m], "thickness_m": self.gel.thickness_m,
            "stray": list(self.stray), "gain": list(self.gain), "noise": self.noise,
        }  # fmt: skip
        record = {"format": FORMAT, "model": self.model, **numbers, **self.details}
        text = json.dumps(record, indent=2, allow_nan=False)
        file = io.BytesIO()
        np.savez_compressed(
            file,
            coefficients=self.table.coefficients,
            size=np.array([self.table.rows, self.table.columns]),
            background=self.background,
            dead=self.dead,
            record=np.array(text),
        )
        write_beside(path, file.getvalue())
        write_beside(path.with_suffix(".json"), text + "\n")

    @staticmethod
    def load(path: str | Path) -> TouchCalibration:
        """Read a file of :meth:`save`.

        Raises:
            DataError: no such file, or not such a calibration.
        """
        path = Path(path)
        where, fix = f"calibration '{path.name}'", "Give the .npz that perceive calibrate touch=... wrote."
        table = ColourTable.load(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                background, dead = np.asarray(file["background"], np.float32), np.asarray(file["dead"], bool)
                record = json.loads(str(file["record"]))
            if record.pop("format") != FORMAT:
                raise DataError(where, f"format {FORMAT}", "another one", "Calibrate again, with this version.")
            height_m, width_m = record.pop("size_m")
            gel = Gel(height_m, width_m, record.pop("thickness_m"), *background.shape[:2])
            stray, gain = (_three(record.pop(name)) for name in ("stray", "gain"))
            return TouchCalibration(
                record.pop("model"), gel, table, background, stray, gain, record.pop("noise"), dead, record
            )
        except (OSError, KeyError, ValueError, TypeError) as error:  # SpecError is a ValueError
            raise DataError(where, "a calibrated fingertip", repr(error), fix) from None

    def optics(
        self, rows: int, columns: int, *, lookup: Lookup = "fine", softness: Softness | None = None
    ) -> GelOptics:
        """The fingertip for simulation, with its colours and background.

        Args:
            rows: pixels down the picture.
            columns: across.
            lookup: see :class:`sensors.tactile.table.TableColour`.
            softness: how its gel follows; None = as the model's preset. No calibration by balls tells it.
        """
        import cv2

        gel = self.gel.with_pixels(rows, columns)
        background = self.background
        if (rows, columns) != background.shape[:2]:
            smaller = rows <= background.shape[0] and columns <= background.shape[1]
            way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            background = np.asarray(cv2.resize(background, (columns, rows), interpolation=way), np.float32)
        planes = torch.tensor(np.moveaxis(background, 2, 0))
        soft = preset(self.model).softness if softness is None else softness
        return GelOptics(gel, TableColour(self.table, gel, lookup), planes, soft)

    def reader(self, way: Way = "search") -> GelReader:
        """What reads depth from its pictures; slopes up to a little beyond those of the presses."""
        seen_rad = math.radians(float(self.details.get("steepest_deg", math.inf)))
        steepest_rad = min(seen_rad + _BEYOND_RAD, STEEPEST_RAD)
        return GelReader(self.table, self.background, self.gel, self.noise, self.dead, way, steepest_rad)


def _three(values: Any) -> tuple[float, float, float]:
    one, two, three = (float(value) for value in values)
    return one, two, three
