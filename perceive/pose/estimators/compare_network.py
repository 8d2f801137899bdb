"""HypothesisReader: what a trained network says of hypotheses in a picture."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.heads.pose_change import PoseChangeHead, PoseChanges
from perceive.model import PerceptionModel
from perceive.pose.compare import changed, pairs_of, view_of
from perceive.pose.raster import MeshRenderer
from sensors.errors import DataError, SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

_AT_ONCE = 32  # hypotheses in one pass of the network


@final
class HypothesisReader:
    """Asks a trained model about hypotheses of any object.

    Args:
        model: with a head of pose changes.
        head: the name of that head.
        seen: the sensor with what was seen.
        drawn: the sensor with the drawing.
        extent: width of a crop, in diameters; as in training.

    Raises:
        SpecError: the extent is not above 0.
        WiringError: the model has no such head or sensors.
    """

    def __init__(
        self,
        model: PerceptionModel,
        head: str = "change",
        seen: str = "seen",
        drawn: str = "drawn",
        extent: float = 1.4,
    ) -> None:
        part = dict(model.heads.items()).get(head)
        if not isinstance(part, PoseChangeHead):
            raise WiringError("HypothesisReader.head", "a PoseChangeHead", f"'{head}'", f"One of {model.head_names}.")
        for name in (seen, drawn):
            if name not in model.sensor_names:
                raise WiringError("HypothesisReader", f"a sensor '{name}'", f"{model.sensor_names}", "Correct it.")
        if not 0.2 <= extent < np.inf:
            raise SpecError("HypothesisReader.extent", "0.2 or more diameters", repr(extent), "As in training.")
        self._model, self._head, self._seen, self._drawn = model.eval(), head, seen, drawn
        self._size, self._extent = part.size_px, extent

    def read(
        self, frame: RgbdFrame, renderer: MeshRenderer, camera_from_object: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Changed poses float64 [N, 4, 4], and how likely the poses were right before, float64 [N].

        A pose that is not in front of the camera is as it was, and not likely at all.

        Args:
            frame: the whole picture; depth all zero = there is none.
            renderer: of the object.
            camera_from_object: [N, 4, 4].

        Raises:
            DataError: the poses are not [N, 4, 4].
        """
        poses = np.array(camera_from_object, np.float64)
        if poses.ndim != 3 or poses.shape[1:] != (4, 4):
            raise DataError("HypothesisReader", "poses [N, 4, 4]", f"{poses.shape}", "Stack them.")
        scores = np.zeros(len(poses))
        model, camera = renderer.model, frame.intrinsics_px
        views = [view_of(pose, model, camera, self._size, self._extent) for pose in poses]
        rows: NDArray[np.int64] = np.array([k for k, view in enumerate(views) if view is not None], np.int64)
        middle = torch.from_numpy((model.low_m + model.high_m) / 2)
        device = self._model.fallback_origin_m.device
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            looks = [view for k in part if (view := views[k]) is not None]
            pairs = pairs_of(frame, renderer, [poses[k] for k in part], looks)
            with torch.no_grad():
                said: PoseChanges = self._model(pairs.batch(self._seen, self._drawn).to(device))[self._head]
            turns = np.tile(np.eye(4), (len(part), 1, 1))
            turns[:, :3, :3] = np.stack([view.crop_from_camera for view in looks])
            change = type(said.change)(*(value.cpu().double() for value in (said.turn, said.shift, said.depth)))
            old = torch.from_numpy(turns @ poses[part])
            new = changed(old, change, middle.expand(len(part), 3), pairs.intrinsics_px, self._size).numpy()
            u, _, v = np.linalg.svd(new[:, :3, :3])  # single precision is not quite a rotation
            new[:, :3, :3] = u @ v
            poses[part] = turns.transpose(0, 2, 1) @ new
            scores[part] = said.score.sigmoid().cpu().double().numpy()
        return poses, scores
