"""GelCamera: fingertips that film the inside of their gel and speak UVC: DIGIT and GelSight Mini."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError, nearest
from sensors.frames import GelImageFrame
from sensors.live import Captured, Device
from sensors.simulated import check_settings
from sensors.spec import box
from sensors.video_controls import Controls, Setting
from sensors.video_source import VideoSource

NEUTRAL = 128  # grey of an untouched gel in a difference picture
_OPEN_S = 10.0  # the longest that the frames of the reference are waited for
_MAX_LED = 15


@dataclass(frozen=True)
class GelModel:
    """What is the same for every fingertip of a kind.

    Attributes:
        formats: (width, height, pictures per second) that it has; empty = not limited here.
        border: share of the picture that is cut off on each side, because it shows the housing and not the gel.
        quarter_turns: anticlockwise quarter turns from the sensor's rows and columns to the upright picture.
        size_m: height and width of the gel that the upright picture shows, metres.
        leds: whether the brightness of its lights can be set.
        help_line: what to do if it is missing.
    """

    formats: tuple[tuple[int, int, int], ...]
    border: float
    quarter_turns: int
    size_m: tuple[float, float]
    leds: bool
    help_line: str


# DIGIT: M. Lambeta et al., "DIGIT: A Novel Design for a Low-Cost Compact High-Resolution Tactile Sensor With
# Application to In-Hand Manipulation", IEEE Robotics and Automation Letters 5(3), 2020. Its sensor lies on its side in
# the housing, and the maker's software turns the picture as here; its lights hang on the UVC zoom control, four bits
# for each colour.
# GelSight Mini: the maker's data sheet (sensing field 18.6 mm x 14.3 mm, 8 MP sensor), and the share of the border that
# the maker's software cuts off.
MODELS = {
    "digit": GelModel(
        formats=((320, 240, 60), (320, 240, 30), (640, 480, 30), (640, 480, 15)),
        border=0.0,
        quarter_turns=1,
        size_m=(0.020, 0.016),
        leds=True,
        help_line=(
            "A DIGIT that lsusb lists (2833:0209) but no camera: put "
            'SUBSYSTEM=="video4linux", ATTRS{idVendor}=="2833", ATTRS{idProduct}=="0209", MODE="0666" into '
            "/etc/udev/rules.d/50-digit.rules, then sudo udevadm control --reload && sudo udevadm trigger."
        ),
    ),
    "gelsight_mini": GelModel(
        formats=(),
        border=1 / 7,
        quarter_turns=0,
        size_m=(0.0143, 0.0186),
        leds=False,
        help_line=(
            "A GelSight Mini is listed as a camera named 'GelSight Mini R0B ...' (v4l2-ctl --list-devices); without "
            'permission put SUBSYSTEM=="video4linux", ATTR{name}=="GelSight Mini*", MODE="0666" into '
            "/etc/udev/rules.d/50-gelsight.rules, then sudo udevadm control --reload && sudo udevadm trigger."
        ),
    ),
}


@final
class GelCamera(Device):
    """A fingertip that films its gel from inside.

    The camera's picture is cut to the gel, turned upright and scaled by areas, so that no detail folds into a pattern.
    The first ``reference_frames`` pictures after the first ``open`` are averaged to the look of the untouched gel; a
    fingertip that was unplugged keeps that look, as it may hold something when it comes back
    (:meth:`forget_reference` takes a new one at the next ``open``).

    Args:
        model: "digit" or "gelsight_mini".
        device: USB serial number ("D20001" stands on the DIGIT), port, beginning of the name, path, index, or a video
            file; see :class:`sensors.uvc.UvcCamera`.
        capture_width: pixels that the camera is asked for. A DIGIT has 320 x 240 at 60 or 30 Hz, 640 x 480 at 30 or 15.
        capture_height: likewise.
        fps: pictures per second, likewise; None = whatever it gives (a file's).
        pixel_format: "MJPG", "YUYV"; None = whatever it gives.
        width: pixels of the upright picture that is given on.
        height: likewise.
        difference: give what changed against the untouched gel, about grey 128, instead of the picture itself.
        reference_frames: pictures that the untouched gel is averaged from; 0 = none, without ``difference`` only.
        reference_path: a picture of the untouched gel (PNG, ``height`` x ``width``) instead of the first ones.
        reference_noise: greatest mean change from one picture of the reference to the next, grey values; more means
            that the gel was being touched.
        led_rgb: brightness [3] of the DIGIT's red, green and blue lights, 0 to 15; None = as they are.
        exposure_s: exposure time, seconds, or "auto"; None = as the camera has it.
        size_m: height and width [2] of the gel in the upright picture, metres; None = the model's.
        buffer_size: pictures that the driver keeps.
        lost_after_s: silence after which the fingertip counts as lost.
        speed: how many times faster than it was taken a file plays.

    Raises:
        SpecError: an argument is out of its range, or not for this model.
    """

    def __init__(
        self,
        *,
        model: str,
        device: int | str,
        capture_width: int,
        capture_height: int,
        fps: float | None,
        pixel_format: str | None = None,
        width: int = 240,
        height: int = 320,
        difference: bool = False,
        reference_frames: int = 10,
        reference_path: str | None = None,
        reference_noise: float = 8.0,
        led_rgb: Sequence[int] | None = None,
        exposure_s: Setting = None,
        size_m: Sequence[float] | None = None,
        buffer_size: int = 1,
        lost_after_s: float = 2.0,
        speed: float = 1.0,
    ) -> None:
        if model not in MODELS:
            raise SpecError("GelCamera, model", f"one of {sorted(MODELS)}", repr(model), nearest(model, MODELS))
        kind = MODELS[model]
        rates = [rate for w, h, rate in kind.formats if (w, h) == (capture_width, capture_height)]
        known = not kind.formats or bool(rates and fps in (None, *rates))
        leds = led_rgb is None or (
            kind.leds and len(led_rgb) == 3 and all(led in range(_MAX_LED + 1) for led in led_rgb)
        )
        noted = reference_frames >= (1 if difference and reference_path is None else 0)
        size = tuple(kind.size_m if size_m is None else size_m)
        asked = (capture_width, capture_height, fps)
        rules = {
            "capture_width, capture_height, fps": (known, asked, f"one of {kind.formats}"),
            "width": (width >= 1, width, "at least 1 pixel"),
            "height": (height >= 1, height, "at least 1 pixel"),
            "led_rgb": (leds, led_rgb, f"3 integers from 0 to {_MAX_LED} for a DIGIT, else null"),
            "reference_frames": (noted, reference_frames, "at least 0; at least 1 for a difference"),
            "reference_noise": (reference_noise > 0, reference_noise, "a number > 0"),
            "size_m": (len(size) == 2 and min(size) > 0, size, "height and width > 0, metres"),
        }
        check_settings(f"GelCamera '{model}'", rules)
        # Decode no more of a large picture than the small one shows.
        inner = 1 - 2 * kind.border
        room = min(inner * min(capture_width, capture_height) / min(width, height),
                   inner * max(capture_width, capture_height) / max(width, height))  # fmt: skip
        shrink = next((by for by in (8, 4, 2) if by <= room), 1)
        zoom = None if led_rgb is None else float(led_rgb[0] << 8 | led_rgb[1] << 4 | led_rgb[2])
        self._source = VideoSource(
            device=device, width=capture_width, height=capture_height, fps=fps, pixel_format=pixel_format,
            controls=Controls(exposure_s=exposure_s, zoom=zoom), buffer_size=buffer_size, lost_after_s=lost_after_s,
            speed=speed, shrink=shrink, help_line=kind.help_line,
        )  # fmt: skip
        self._where = f"{model} '{device}'"
        self._kind = kind
        self._width, self._height = width, height
        self._difference = difference
        self._reference_frames, self._reference_noise = reference_frames, reference_noise
        self._reference_path = reference_path
        self._reference: NDArray[np.float32] | None = None
        self._size_m = np.array(size, float)

    @property
    def space(self) -> spaces.Dict:
        """rgb, base_from_pad, size_m; see :class:`sensors.frames.GelImageFrame`."""
        return spaces.Dict(
            {
                "rgb": box(0, 255, (self._height, self._width, 3), np.uint8),
                "base_from_pad": box(-1000.0, 1000.0, (4, 4)),
                "size_m": box(0.0, 1.0, (2,)),
            }
        )

    @property
    def counts(self) -> dict[str, int]:
        """``corrupt`` pictures, which were left out, and files that were ``truncated``."""
        return self._source.counts

    @property
    def reference(self) -> NDArray[np.float32] | None:
        """The untouched gel, float32 [H, W, 3] in grey values; None before it was seen, or if none is asked for."""
        return None if self._reference is None else self._reference.copy()

    def forget_reference(self) -> None:
        """Take a new picture of the untouched gel at the next ``open``."""
        self._reference = None

    def open(self) -> None:
        """Connect, and look at the untouched gel unless that was done before.

        Raises:
            SensorError: no such fingertip (names the udev rule), another format, or the gel was touched meanwhile.
        """
        self._source.open()
        if self._reference is None and (self._reference_path is not None or self._reference_frames):
            try:
                self._reference = self._load() if self._reference_path is not None else self._average()
            except SensorError:
                self.close()
                raise

    def wait(self, timeout_s: float) -> Captured | None:
        shot = self._source.wait(timeout_s)
        if shot is None:
            return None
        rgb = self._upright(shot.rgb)
        if self._difference:
            if self._reference is None:
                raise SensorError(self._where, "an open fingertip", "a closed one", "Call open() first.")
            rgb = np.clip(np.rint(rgb - self._reference) + NEUTRAL, 0, 255).astype(np.uint8)
        frame = GelImageFrame(stamp_s=shot.stamp_s, rgb=rgb, base_from_pad=np.eye(4), size_m=self._size_m.copy())
        return Captured(frame, shot.arrived_s, shot.device_clock)

    def close(self) -> None:
        self._source.close()

    def _upright(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The camera's picture [h, w, 3] cut to the gel, turned and scaled: [H, W, 3]."""
        import cv2

        rows, columns = (int(edge * self._kind.border) for edge in rgb.shape[:2])
        gel = rgb[rows : rgb.shape[0] - rows, columns : rgb.shape[1] - columns]
        gel = np.ascontiguousarray(np.rot90(gel, self._kind.quarter_turns))
        if gel.shape[:2] == (self._height, self._width):
            return gel.copy() if np.shares_memory(gel, rgb) else gel
        return np.asarray(cv2.resize(gel, (self._width, self._height), interpolation=cv2.INTER_AREA), np.uint8)

    def _average(self) -> NDArray[np.float32]:
        end_s = host_now_s() + _OPEN_S
        pictures: list[NDArray[Any]] = []
        while len(pictures) < self._reference_frames:
            try:
                shot = self._source.wait(0.2)
            except SensorLost as error:
                raise SensorError(error.where, error.expected, error.got, error.fix) from error
            if shot is not None:
                pictures.append(self._upright(shot.rgb).astype(np.float32))
            elif host_now_s() > end_s:
                got = f"{len(pictures)} in {_OPEN_S:g} s"
                raise SensorError(self._where, f"{self._reference_frames} pictures", got, "Does it stream?")
        changes = [float(np.abs(later - earlier).mean()) for earlier, later in itertools.pairwise(pictures)]
        if changes and max(changes) > self._reference_noise:
            got = f"one that changed by {max(changes):.1f} grey values from a picture to the next"
            fix = "Touch nothing while it opens; or raise reference_noise, or give a reference_path."
            raise SensorError(self._where, "an untouched gel", got, fix)
        return np.asarray(np.stack(pictures).mean(axis=0, dtype=np.float64), np.float32)

    def _load(self) -> NDArray[np.float32]:
        import cv2

        assert self._reference_path is not None
        image = cv2.imread(self._reference_path, cv2.IMREAD_COLOR)
        shape = None if image is None else image.shape
        if image is None or shape != (self._height, self._width, 3):
            got = "none that can be read" if shape is None else f"{shape[1]} x {shape[0]}"
            expected = f"a picture of {self._width} x {self._height} at '{self._reference_path}'"
            raise SensorError(self._where, expected, got, "Correct reference_path, or set it to null.")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.float32)
