"""What the trained network says of one crop, and the poses that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.batch import Batch, BatchStream
from perceive.heads.object_coordinates import ObjectCoordinateHead, ObjectCoordinates
from perceive.model import PerceptionModel
from perceive.points.registration.ransac import ransac
from perceive.pose.crop import CropView, cut, cut_mask, halved
from perceive.pose.pnp import solve_pnp
from sensors.errors import SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, invert

LEAST_PIXELS = 12  # of a crop's map, below which nothing is solved for


@final
@dataclass(frozen=True, eq=False)
class Seen:
    """What the network says of one crop, at half of its resolution.

    Attributes:
        view: how the crop was cut.
        mask: float64 [h, w], how likely each pixel shows the object.
        coordinates_m: float64 [h, w, 3] in the object's frame.
        spread_m: float64 [h, w].
        points_m: float64 [h, w, 3], measured, in the camera's frame of the whole picture.
        measured: bool [h, w].
        camera_from_object: float64 [4, 4], the regressed pose.
        present: how likely the object is there at all.
    """

    view: CropView
    mask: FloatArray
    coordinates_m: FloatArray
    spread_m: FloatArray
    points_m: FloatArray
    measured: NDArray[np.bool_]
    camera_from_object: FloatArray
    present: float


@final
class CropReader:
    """Asks a trained model about crops.

    Args:
        model: with a head of object coordinates.
        head: the name of that head.
        crop: the sensor with the crop.
        asked: the sensor that says which object is asked for.

    Raises:
        WiringError: the model has no such head or sensors.
        SpecError: the head was never fitted to a data set.
    """

    def __init__(self, model: PerceptionModel, head: str, crop: str, asked: str) -> None:
        part = dict(model.heads.items()).get(head)
        if not isinstance(part, ObjectCoordinateHead):
            raise WiringError("CropReader.head", "an ObjectCoordinateHead", f"'{head}'", f"One of {model.head_names}.")
        for name in (crop, asked):
            if name not in model.sensor_names:
                raise WiringError("CropReader", f"a sensor '{name}'", f"{model.sensor_names}", "Correct the name.")
        self.numbers = tuple(int(number) for number in part.numbers)
        if min(self.numbers) < 0:
            raise SpecError("CropReader", "a head that knows its objects", "one that was never trained", "Train it.")
        self.low_m = np.asarray(part.low_m.cpu().numpy(), np.float64)
        self.high_m = np.asarray(part.high_m.cpu().numpy(), np.float64)
        self.size_px = part.size_px
        self._model, self._head, self._crop, self._asked = model.eval(), head, crop, asked
        self._device = part.numbers.device

    def read(self, frame: RgbdFrame, number: int, views: list[CropView]) -> list[Seen]:
        """What is seen of an object in some crops of one picture."""
        crops = [cut(frame, view) for view in views]
        size = len(crops)

        def stacked(name: str, kind: type) -> torch.Tensor:
            return torch.from_numpy(np.stack([np.asarray(getattr(one, name), kind) for one in crops]))[:, None]

        data = {name: stacked(name, np.float32) for name in ("depth_m", "intrinsics_px", "base_from_camera")}
        data["rgb"] = stacked("rgb", np.uint8)
        which = torch.zeros(size, 1, len(self.numbers))
        which[..., self.numbers.index(number)] = 1.0
        age, valid = torch.zeros(size, 1), torch.ones(size, 1, dtype=torch.bool)
        streams = {self._crop: BatchStream(data, age, valid), self._asked: BatchStream({"which": which}, age, valid)}
        with torch.no_grad():
            said: ObjectCoordinates = self._model(Batch(streams).to(self._device))[self._head]

        def plain(value: torch.Tensor) -> FloatArray:
            return np.asarray(value.cpu().numpy(), np.float64)

        mask, present = plain(said.mask_logits.sigmoid()), plain(said.present.sigmoid())
        coordinates, spread, points = plain(said.coordinates_m), plain(said.spread_m), plain(said.points_m)
        measured, poses = said.measured.cpu().numpy(), plain(said.frame_from_object)
        out = []
        for k, view in enumerate(views):
            back = invert(view.frame_from_camera)
            placed = points[k] @ back[:3, :3].T + back[:3, 3]
            out.append(
                Seen(view, mask[k], coordinates[k], spread[k], placed, measured[k], back @ poses[k], float(present[k]))
            )
        return out


def within(seen: Seen, frame: RgbdFrame, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """The pixels of the map [h, w] that show the object: the network's mask, and the given one where there is one."""
    if mask is None:
        return np.asarray(seen.mask > 0.5)
    given = cut_mask(mask, frame.intrinsics_px, halved(seen.view))
    # A given mask is believed; of its pixels the network only drops those that it is sure do not belong.
    return np.asarray(given & (seen.mask > 0.1))


def poses_with_depth(seen: Seen, there: NDArray[np.bool_], reach_m: float, count: int, seed: int) -> list[FloatArray]:
    """Poses of the camera's frame that measured points and their coordinates agree on, by RANSAC and Kabsch.

    The first is fitted to all pixels; further ones to the surest halves drawn with other seeds.
    """
    use = there & seen.measured
    if use.sum() < LEAST_PIXELS:
        return []
    source, target, spread = seen.coordinates_m[use], seen.points_m[use], seen.spread_m[use]
    keep = np.stack([spread <= np.quantile(spread, share) for share in np.linspace(0.9, 0.4, count)])
    found = ransac(
        torch.from_numpy(np.repeat(source[None], count, 0)),
        torch.from_numpy(np.repeat(target[None], count, 0)),
        torch.from_numpy(keep),
        inlier_m=reach_m,
        triplets=512,
        judged=96,
        seed=seed,
    )
    poses = found.target_from_source.numpy()
    return [np.asarray(pose) for pose, good in zip(poses, found.found.tolist(), strict=True) if good]


def poses_without_depth(
    seen: Seen, there: NDArray[np.bool_], reach_px: float, seed: int
) -> list[tuple[FloatArray, FloatArray | None]]:
    """The same by PnP in the crop, with its covariance."""
    if there.sum() < LEAST_PIXELS:
        return []
    view = halved(seen.view)
    rows, columns = np.nonzero(there)
    found = solve_pnp(
        seen.coordinates_m[there],
        np.stack([columns, rows], -1).astype(np.float64),
        view.intrinsics_px,
        reach_px=reach_px,
        seed=seed,
    )
    if not found.found:
        return []
    turn = np.eye(4)
    turn[:3, :3] = view.crop_from_camera.T
    return [(turn @ found.camera_from_object, found.covariance)]
