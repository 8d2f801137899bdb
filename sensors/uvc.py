"""UvcCamera: a USB webcam, a video file or a network stream as a colour camera with known optics."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.errors import DataError, SpecError
from sensors.frames import RgbFrame
from sensors.geometry import FloatArray, intrinsics_from_fov
from sensors.live import Captured, Device
from sensors.spec import box
from sensors.video_controls import Controls, Setting
from sensors.video_source import VideoSource

# Gymnasium wants finite bounds; they are those of the simulated cameras, so that the spaces are the same.
_MAX_INTRINSICS_PX, _MAX_POSE_ENTRY = 1e6, 1000.0


@dataclass(frozen=True)
class Lens:
    """How a camera maps the world to pixels.

    Attributes:
        width: pixels of the picture that the numbers are of.
        height: likewise.
        intrinsics_px: fx fy cx cy [4].
        distortion: [0, 4, 5 or 8] k1 k2 p1 p2 k3 k4 k5 k6 in OpenCV's order: radial and tangential distortion after
            D. C. Brown, "Decentering Distortion of Lenses", Photogrammetric Engineering 32, 1966; with 8, rational.

    Raises:
        SpecError: an entry is of another size, not finite, or a focal length is not positive.
    """

    width: int
    height: int
    intrinsics_px: tuple[float, ...]
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (*self.intrinsics_px, *self.distortion)
        good = len(self.intrinsics_px) == 4 and min(self.intrinsics_px[:2]) > 0 and all(map(math.isfinite, numbers))
        if not good or len(self.distortion) not in (0, 4, 5, 8):
            expected = "fx fy cx cy with fx, fy > 0, and 0, 4, 5 or 8 coefficients of distortion, all finite"
            got = f"{self.intrinsics_px}, {self.distortion}"
            raise SpecError("camera's lens", expected, got, "Run 'perceive calibrate', or correct the numbers.")

    def undistortion(self) -> tuple[tuple[NDArray[Any], NDArray[Any]] | None, FloatArray]:
        """Maps for ``cv2.remap`` that straighten a picture, and the intrinsics [4] of what they give.

        All of the new picture is seen by the lens (no black corners): OpenCV's ``getOptimalNewCameraMatrix`` with
        ``alpha = 0``. None instead of maps: nothing is bent.
        """
        fx, fy, cx, cy = self.intrinsics_px
        if not any(self.distortion):
            return None, np.array([fx, fy, cx, cy])
        import cv2

        size = (self.width, self.height)
        matrix, bend = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), np.array(self.distortion)
        straight, _ = cv2.getOptimalNewCameraMatrix(matrix, bend, size, 0)
        first, second = cv2.initUndistortRectifyMap(matrix, bend, np.eye(3), straight, size, cv2.CV_16SC2)
        return (first, second), np.array([straight[0, 0], straight[1, 1], straight[0, 2], straight[1, 2]])


def read_calibration(path: str | Path) -> Lens:
    """The lens of a file that ``perceive calibrate`` wrote.

    JSON: ``{"width": 640, "height": 480, "intrinsics_px": [fx, fy, cx, cy], "distortion": [k1, k2, p1, p2, k3, ...]}``;
    further entries are left alone.

    Raises:
        DataError: the file is missing, or not such a file.
    """
    fix = "Run 'perceive calibrate' for this camera, or correct 'calibration_path'."
    where = f"calibration '{path}'"
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        lens = Lens(
            int(data["width"]),
            int(data["height"]),
            tuple(float(number) for number in data["intrinsics_px"]),
            tuple(float(number) for number in data.get("distortion", ())),
        )
    except OSError as error:
        raise DataError(where, "a file", f"{type(error).__name__}", fix) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "JSON with width, height, intrinsics_px [4] and distortion [0, 4, 5 or 8]"
        raise DataError(where, expected, f"{type(error).__name__}: {error}", fix) from error
    return lens


@final
class UvcCamera(Device):
    """A colour camera by its USB port, serial number, path or index; a video file or a network stream plays as one.

    Pictures come as RGB and, where the lens is known to bend, straightened; ``intrinsics_px`` are those of what is
    shown. Exactly one of ``intrinsics_px``, ``calibration_path`` and ``fov_y_deg`` says how the camera sees.

    Stamps: Linux' driver stamps every picture on the host's clock; where the exposure time is known (set by hand), the
    stamp is moved to the exposure's middle. Elsewhere, and for network streams, it is the time of arrival. A file's
    pictures are shown, and stamped, as far apart as they were taken, divided by ``speed``; at its end it is lost, as if
    unplugged, and a :class:`sensors.live.LiveSensor` plays it again.

    Args:
        device: index (2), path (``/dev/video2``), USB serial number, USB port (``"1-2.4"``), the beginning of a name,
            a file, or a URL. Indices and paths of two equal cameras may swap at every start of the machine; serial
            numbers and ports do not.
        width: pixels; the camera must really give them.
        height: likewise.
        fps: pictures per second, likewise; None = whatever it gives.
        pixel_format: ``"MJPG"`` (compressed: fits slow USB), ``"YUYV"`` (no loss), likewise; None = whatever it gives.
        exposure_s: exposure time, seconds; "auto"; None = as the camera has it. So for the next three; Linux only.
        gain: in the camera's own unit.
        white_balance_k: colour temperature of the light, kelvin, or "auto".
        focus: in the camera's own unit, or "auto".
        buffer_size: pictures that the driver keeps; more than 1 if the camera gives only half of its rate.
        lost_after_s: silence after which the camera counts as lost.
        speed: how many times faster than it was taken a file plays.
        intrinsics_px: fx fy cx cy [4].
        distortion: [4, 5 or 8] coefficients in OpenCV's order, with ``intrinsics_px``; None = a straight lens.
        calibration_path: a file that ``perceive calibrate`` wrote.
        fov_y_deg: vertical field of view, degrees, from a data sheet: a straight lens in the picture's middle.

    Raises:
        SpecError: an argument is out of its range, or how the camera sees is not said once.
        DataError: the calibration is missing, damaged or of another picture size.
    """

    def __init__(
        self,
        *,
        device: int | str,
        width: int = 640,
        height: int = 480,
        fps: float | None = 30.0,
        pixel_format: str | None = "MJPG",
        exposure_s: Setting = None,
        gain: float | None = None,
        white_balance_k: Setting = None,
        focus: Setting = None,
        buffer_size: int = 1,
        lost_after_s: float = 2.0,
        speed: float = 1.0,
        intrinsics_px: Sequence[float] | None = None,
        distortion: Sequence[float] | None = None,
        calibration_path: str | None = None,
        fov_y_deg: float | None = None,
    ) -> None:
        controls = Controls(exposure_s=exposure_s, gain=gain, white_balance_k=white_balance_k, focus=focus)
        self._source = VideoSource(
            device=device, width=width, height=height, fps=fps, pixel_format=pixel_format, controls=controls,
            buffer_size=buffer_size, lost_after_s=lost_after_s, speed=speed,
        )  # fmt: skip
        self._lens = _choose_lens(device, width, height, intrinsics_px, distortion, calibration_path, fov_y_deg)
        self._maps: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._intrinsics_px: FloatArray = np.zeros(4)

    @property
    def space(self) -> spaces.Dict:
        """rgb, intrinsics_px, base_from_camera; see :class:`sensors.frames.RgbFrame`."""
        return spaces.Dict(
            {
                "rgb": box(0, 255, (self._lens.height, self._lens.width, 3), np.uint8),
                "intrinsics_px": box(0.0, _MAX_INTRINSICS_PX, (4,)),
                "base_from_camera": box(-_MAX_POSE_ENTRY, _MAX_POSE_ENTRY, (4, 4)),
            }
        )

    @property
    def counts(self) -> dict[str, int]:
        """``corrupt`` pictures, which were left out, and files that were ``truncated``."""
        return self._source.counts

    def open(self) -> None:
        """Connect, and check the format.

        Raises:
            SensorError: no such camera, in use, not allowed, or it gives another format, which the error names.
        """
        self._source.open()
        self._maps, self._intrinsics_px = self._lens.undistortion()

    def wait(self, timeout_s: float) -> Captured | None:
        shot = self._source.wait(timeout_s)
        if shot is None:
            return None
        rgb = shot.rgb
        if self._maps is not None:
            import cv2

            rgb = np.asarray(cv2.remap(rgb, *self._maps, cv2.INTER_LINEAR), np.uint8)
        frame = RgbFrame(
            stamp_s=shot.stamp_s, rgb=rgb, intrinsics_px=self._intrinsics_px.copy(), base_from_camera=np.eye(4)
        )
        return Captured(frame, shot.arrived_s, shot.device_clock)

    def close(self) -> None:
        self._source.close()


def _choose_lens(
    device: int | str,
    width: int,
    height: int,
    intrinsics_px: Sequence[float] | None,
    distortion: Sequence[float] | None,
    calibration_path: str | None,
    fov_y_deg: float | None,
) -> Lens:
    where = f"UvcCamera '{device}'"
    given = [intrinsics_px is not None, calibration_path is not None, fov_y_deg is not None]
    if sum(given) != 1:
        fix = "Run 'perceive calibrate' for the camera; or state fov_y_deg from its data sheet, if some 10 % will do."
        got = f"{sum(given)} of them"
        raise SpecError(where, "exactly one of intrinsics_px, calibration_path and fov_y_deg", got, fix)
    if distortion is not None and intrinsics_px is None:
        raise SpecError(where, "distortion together with intrinsics_px", "it alone", "Give both, or neither.")
    if calibration_path is not None:
        lens = read_calibration(calibration_path)
        if (lens.width, lens.height) != (width, height):
            # Cameras crop for some sizes and scale for others, so one calibration cannot be turned into another.
            got = f"a calibration of {lens.width} x {lens.height}"
            fix = "Run 'perceive calibrate' at this size, or use the camera at that one."
            raise DataError(where, f"a calibration of {width} x {height}", got, fix)
        return lens
    if intrinsics_px is not None:
        return Lens(width, height, tuple(intrinsics_px), tuple(distortion or ()))
    assert fov_y_deg is not None
    if not 0 < fov_y_deg < 180:
        raise SpecError(where, "fov_y_deg between 0 and 180", repr(fov_y_deg), "Correct the sensor's config.")
    return Lens(width, height, tuple(intrinsics_from_fov(width, height, fov_y_deg).tolist()))
