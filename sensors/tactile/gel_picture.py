"""SimulatedGelCamera: the picture of a DIGIT or GelSight Mini whose gel is pressed in by simulated objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sensors.base import Sensor, World
from sensors.errors import DataError
from sensors.frames import GelImageFrame
from sensors.gel_camera import NEUTRAL
from sensors.geometry import pose, transform_points
from sensors.simulated import check_settings, not_ready, positive, require_world
from sensors.spec import box
from sensors.tactile.gel import Gel
from sensors.tactile.optics import GelOptics
from sensors.tactile.picture import to_uint8
from sensors.tactile.presets import preset
from sensors.tactile.shadow import Shadow
from sensors.tactile.smooth_light import SmoothLight
from sensors.tactile.table import ColourTable, TableColour
from sensors.tactile.vary import Ranges, Variation, draw
from sensors.timeline import Timing

_BEHIND_M = 0.004  # rays start this far inside the finger: an object that sinks in a little is still met from outside
_SLACK_M = 0.001  # rays are cast a little earlier than needed: collision shapes are rounder than the mesh


@final
class SimulatedGelCamera(Sensor):
    """A fingertip that films its gel, in simulation: the frames of :class:`sensors.gel_camera.GelCamera`.

    Rays out of the hard pad measure how far objects stand in the gel, as :class:`sensors.touch.FingertipTouch` does;
    the gel then follows smoothly and is lit (:class:`sensors.tactile.optics.GelOptics`). A policy that was trained on
    these pictures reads those of the device; ``ranges`` vary lights, gel, background and noise in every episode, for
    no two devices look alike.

    Args:
        timing: rate, delay, dropout, history.
        link: finger link that carries the pad.
        position_m: middle [3] of the hard pad in the link frame, metres.
        quaternion_xyzw: ``link_from_pad`` rotation [4]: +x right and +y down in the picture, +z out of the gel.
        model: "gelsight_mini" or "digit": the size of its gel, and its lights unless there is a table.
        width: pixels of the upright picture.
        height: likewise.
        gel_m: thickness of the gel, metres; also the greatest indentation.
        ray_rows: rays down the gel; the height map between them is interpolated.
        ray_columns: rays across.
        difference: give what changed against the untouched gel, about grey 128, instead of the picture itself.
        shadow: with shadows.
        table_path: a calibrated table (see :class:`sensors.tactile.table.ColourTable`) instead of the model's lights.
        background_path: a picture of the untouched gel (PNG, ``height`` x ``width``) instead of the model's.
        ranges: what is drawn anew in every episode.

    Raises:
        SpecError: an argument is out of its range.
        DataError: a table or picture cannot be read.
    """

    def __init__(
        self,
        *,
        timing: Timing,
        link: str,
        position_m: Sequence[float],
        quaternion_xyzw: Sequence[float],
        model: str,
        width: int,
        height: int,
        gel_m: float = 0.003,
        ray_rows: int = 60,
        ray_columns: int = 60,
        difference: bool = False,
        shadow: bool = False,
        table_path: str | None = None,
        background_path: str | None = None,
        ranges: Ranges | None = None,
    ) -> None:
        check_settings(
            "SimulatedGelCamera",
            {
                "link": (bool(link), link, "the name of a finger link"),
                "position_m": (len(position_m) == 3, position_m, "3 numbers"),
                "quaternion_xyzw": (len(quaternion_xyzw) == 4, quaternion_xyzw, "4 numbers, x y z w"),
                "width": (width >= 3, width, "at least 3"),
                "height": (height >= 3, height, "at least 3"),
                "ray_rows": (ray_rows >= 3, ray_rows, "at least 3"),
                "ray_columns": (ray_columns >= 3, ray_columns, "at least 3"),
                **positive({"gel_m": gel_m}),
            },
        )
        kind = preset(model)
        gel = Gel(*kind.size_m, gel_m, height, width)
        light = SmoothLight(gel, kind.lamps)
        colour = light if table_path is None else TableColour(ColourTable.load(table_path), gel, "fine")
        background = light.flat(kind.ambient).detach() if background_path is None else _load(background_path, gel)
        self._optics = GelOptics(gel, colour, background, kind.softness, Shadow(gel, kind.lamps) if shadow else None)
        self._gel = gel
        self._ranges = ranges or Ranges()
        self._difference = difference
        self._timing = timing
        self._link = link
        self._link_from_pad = pose(position_m, quaternion_xyzw)
        self._size_m = np.array(kind.size_m)
        self._rays = gel.with_pixels(ray_rows, ray_columns)
        # Where the rays begin and end [rays, 3] in the pad frame.
        y, x = (part.numpy() for part in self._rays.centres(torch.float64))
        across, down = (part.ravel() for part in np.broadcast_arrays(x, y))
        self._starts_m = np.stack([across, down, np.full(across.size, -_BEHIND_M)], axis=-1)
        self._ends_m = self._starts_m + np.array([0.0, 0.0, _BEHIND_M + gel_m])
        self._world: World | None = None
        self._rng: np.random.Generator | None = None
        self._variation: Variation | None = None
        self._untouched: Tensor | None = None

    @property
    def space(self) -> spaces.Dict:
        """rgb, base_from_pad, size_m; see :class:`sensors.frames.GelImageFrame`."""
        return spaces.Dict(
            {
                "rgb": box(0, 255, (self._gel.rows, self._gel.columns, 3), np.uint8),
                "base_from_pad": box(-1000.0, 1000.0, (4, 4)),
                "size_m": box(0.0, 1.0, (2,)),
            }
        )

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Take the world whose objects are felt.

        Raises:
            SensorError: there is none.
        """
        self._world = require_world("SimulatedGelCamera", world)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw this episode's fingertip, and take the generator of its noise."""
        self._rng = rng
        self._variation = draw(self._ranges, self._gel, rng)
        self._untouched = self._planes(torch.zeros(1, self._gel.rows, self._gel.columns))

    def read(self, now_s: float) -> GelImageFrame:
        """Take a picture.

        Raises:
            SensorError: not open, or not reset.
        """
        if self._world is None or self._rng is None or self._variation is None or self._untouched is None:
            raise not_ready("SimulatedGelCamera")
        base_from_pad = self._world.link_pose(self._link) @ self._link_from_pad
        shape = (1, 3, self._gel.rows, self._gel.columns)
        noise = torch.from_numpy(self._rng.standard_normal(shape, dtype=np.float32))  # always: frame k has its own
        planes = self._untouched
        if self._world.touches(self._link, self._gel.thickness_m + _SLACK_M):
            starts = transform_points(base_from_pad, self._starts_m)
            ends = transform_points(base_from_pad, self._ends_m)
            met_m = self._world.ray_cast(starts, ends).reshape(self._rays.rows, self._rays.columns)
            overlap = np.clip(_BEHIND_M + self._gel.thickness_m - met_m, 0.0, self._gel.thickness_m)
            if overlap.any():
                planes = self._planes(self._enlarged(torch.from_numpy(overlap.astype(np.float32))[None]))
        planes = planes + noise * self._variation.noise[0]
        if self._difference:
            planes = to_uint8(planes).permute(0, 3, 1, 2) - self._untouched + NEUTRAL
        rgb: NDArray[np.uint8] = to_uint8(planes)[0].numpy()
        return GelImageFrame(stamp_s=now_s, rgb=rgb, base_from_pad=base_from_pad, size_m=self._size_m.copy())

    def close(self) -> None:
        """Let go of the world."""
        self._world = None

    @torch.no_grad()
    def _planes(self, overlap_m: Tensor) -> Tensor:
        picture: Tensor = self._optics(overlap_m, self._variation)
        return picture.permute(0, 3, 1, 2)

    def _enlarged(self, overlap_m: Tensor) -> Tensor:
        """The height map [1, rays down, rays across] at every pixel [1, h, w]."""
        size = (self._gel.rows, self._gel.columns)
        if tuple(overlap_m.shape[1:]) == size:
            return overlap_m
        return functional.interpolate(overlap_m[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _load(path: str, gel: Gel) -> Tensor:
    import cv2

    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None or image.shape != (gel.rows, gel.columns, 3):
        got = "none that can be read" if image is None else f"{image.shape[1]} x {image.shape[0]}"
        expected = f"a picture of {gel.columns} x {gel.rows} at '{path}'"
        raise DataError("SimulatedGelCamera", expected, got, "Correct background_path, or set it to null.")
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1).float()
