"""VideoSource: pictures with stamps out of a USB camera, a video file that plays as one, or a network stream.

The part that cameras and gel fingertips have in common: finding the device, setting its format and checking what it
made of that, decoding, stamps, and noticing that it is gone. It speaks to devices through OpenCV.
"""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost
from sensors.jpeg import decode_jpeg
from sensors.simulated import check_settings
from sensors.video_controls import Controls, apply_controls
from sensors.video_devices import choose_video_device, find_video_devices

if TYPE_CHECKING:
    import cv2

FORMATS = ("MJPG", "YUYV")
SUFFIXES = (".avi", ".mkv", ".mp4", ".mov", ".webm", ".mjpg", ".mjpeg", ".m4v")
_HOST_CLOCK_S = 5.0  # a driver's stamp that is younger than this on arrival is of the host's own clock
_RATE_SHARE = 0.02  # 29.97 Hz is 30 Hz


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture.

    Attributes:
        rgb: uint8 [H, W, 3], of its own memory.
        stamp_s: when it was taken, as exactly as is known, on the clock that ``device_clock`` says.
        arrived_s: host clock when it came in.
        device_clock: whether the stamp is on the device's clock, not on the host's.
    """

    rgb: NDArray[np.uint8]
    stamp_s: float
    arrived_s: float
    device_clock: bool


class _Kind(Enum):
    V4L2 = "camera on Linux"
    CAMERA = "camera on another system"
    FILE = "file"
    URL = "network stream"


@final
class VideoSource:
    """Where pictures come from. The arguments are those of :class:`sensors.uvc.UvcCamera`.

    Args:
        device: which one.
        width: pixels.
        height: pixels.
        fps: pictures per second; None = whatever it gives.
        pixel_format: ``"MJPG"``, ``"YUYV"``; None = whatever it gives. Not asked of files and network streams.
        controls: exposure and the like; only cameras on Linux have them.
        buffer_size: pictures that the driver keeps.
        lost_after_s: silence after which the device counts as lost.
        speed: how many times faster than it was taken a file plays.
        shrink: 2, 4 or 8: compressed pictures come that many times smaller, which is decoded faster; others stay whole.
        help_line: what to do, besides plugging it in, if it is missing.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        device: int | str,
        width: int,
        height: int,
        fps: float | None,
        pixel_format: str | None,
        controls: Controls,
        buffer_size: int = 1,
        lost_after_s: float = 2.0,
        speed: float = 1.0,
        shrink: int = 1,
        help_line: str = "",
    ) -> None:
        rate = fps is None or (math.isfinite(fps) and fps > 0)
        rules = {
            "device": (device != "" and device is not True, device, "an index, path, serial number, port, name or URL"),
            "width": (width >= 1, width, "at least 1 pixel"),
            "height": (height >= 1, height, "at least 1 pixel"),
            "fps": (rate, fps, "pictures per second, or null"),
            "pixel_format": (pixel_format in (None, *FORMATS), pixel_format, f"one of {FORMATS}, or null"),
            "buffer_size": (1 <= buffer_size <= 10, buffer_size, "1 to 10 pictures"),
            "lost_after_s": (0 < lost_after_s < math.inf, lost_after_s, "seconds > 0"),
            "speed": (0 < speed < math.inf, speed, "a finite number > 0"),
        }
        check_settings("camera", rules)
        self._device = device
        self._width, self._height, self._fps, self._pixel_format = width, height, fps, pixel_format
        self._controls = controls
        self._buffer_size, self._lost_after_s, self._speed = buffer_size, lost_after_s, speed
        self._shrink, self._help_line = shrink, help_line
        self._capture: cv2.VideoCapture | None = None
        self._kind = _Kind.FILE
        self._where = f"camera '{device}'"
        self._path = ""
        self._code = ""  # how the bytes have to be decoded; empty = OpenCV did it
        self._heard_s = 0.0  # when the last picture came
        self._shift_s = 0.0  # from the driver's stamp to the middle of the exposure
        self._host_clock: bool | None = None
        self._next: tuple[NDArray[np.uint8], float] | None = None  # of a file: the picture to show, and when
        self._start_s: float | None = None
        self._length_s = self._period_s = self._read_s = 0.0  # of a file: as its header says; and how far it was read
        self._corrupt = self._truncated = 0

    @property
    def counts(self) -> dict[str, int]:
        """Pictures that could not be decoded, and files that ended early."""
        return {"corrupt": self._corrupt, "truncated": self._truncated}

    def open(self) -> None:
        """Find the device, connect, and check that it gives what was asked for.

        Raises:
            SensorError: it is missing, in use or not allowed; or it gives another format, which the error names.
        """
        try:
            import cv2
        except ImportError as error:
            fix = "pip install opencv-python-headless"
            raise SensorError(self._where, "the package 'cv2'", "none", fix) from error
        self.close()
        self._kind, self._path = self._find()
        timeout_ms = max(int(1000 * self._lost_after_s), 1)
        if self._kind is _Kind.V4L2:
            capture = cv2.VideoCapture(self._path, cv2.CAP_V4L2)
        elif self._kind is _Kind.CAMERA:
            capture = cv2.VideoCapture(int(self._path))
        else:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
            capture = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            fixes = {_Kind.FILE: "Is it a whole video?", _Kind.URL: "Does its server run, and is the address right?"}
            fix = fixes.get(self._kind, "Close other programs that use it (on Linux: fuser -v /dev/video*).")
            raise SensorError(self._where, "a video source that opens", f"{self._path} does not", fix)
        self._capture = capture
        try:
            self._configure(capture)
        except SensorError:
            self.close()
            raise
        self._heard_s, self._host_clock, self._next, self._start_s, self._read_s = host_now_s(), None, None, None, 0.0

    def wait(self, timeout_s: float) -> Shot | None:
        """The next picture; None if none came in time. One that cannot be decoded is counted and left out.

        A network stream, and a camera on another system than Linux, may take ``lost_after_s`` instead of the timeout;
        a camera that is silent from the start, 10 s (OpenCV's own limit for a first picture).

        Raises:
            SensorLost: unplugged, silent, or the file's end.
            SensorError: not open.
        """
        if self._capture is None:
            raise SensorError(self._where, "an open camera", "a closed one", "Call open() first.")
        if self._kind is _Kind.FILE:
            return self._play(self._capture, timeout_s)
        data = self._grab(self._capture, timeout_s)
        if data is None:
            return None
        arrived_s = host_now_s()
        self._heard_s = arrived_s
        rgb = self._decode(data)
        if rgb is None:
            self._corrupt += 1
            return None
        return self._stamped(self._capture, rgb, arrived_s)

    def close(self) -> None:
        """Let go of the device. May be called twice."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    # -- opening ----------------------------------------------------------------------------------------------------

    def _find(self) -> tuple[_Kind, str]:
        device, linux = self._device, sys.platform == "linux"
        name = "" if isinstance(device, int) else device.removeprefix("path:")
        if "://" in name:
            return _Kind.URL, name
        node = name.startswith("/dev/")
        if not node and Path(name).is_file():
            return _Kind.FILE, name
        if not node and Path(name).suffix.lower() in SUFFIXES:
            raise SensorError(self._where, "a video file", f"no file '{name}'", "Check the path.")
        if isinstance(device, int) and not linux:
            return _Kind.CAMERA, str(device)
        if not linux:
            fix = "Cameras have names, ports and serial numbers on Linux only: give its index, a file or a URL."
            raise SensorError(self._where, "an index", repr(device), fix)
        path = f"/dev/video{device}" if isinstance(device, int) else name
        if not path.startswith("/dev/") or not os.path.exists(path):
            wanted = path if path.startswith("/dev/") else str(device)
            path = choose_video_device(wanted, find_video_devices(), help_line=self._help_line).path
        if not os.access(path, os.R_OK | os.W_OK):
            fix = f"sudo usermod -aG video $USER, then log in again. {self._help_line}".strip()
            raise SensorError(self._where, f"permission to use {path}", "none", fix)
        return _Kind.V4L2, path

    def _configure(self, capture: cv2.VideoCapture) -> None:
        import cv2

        camera = self._kind in (_Kind.V4L2, _Kind.CAMERA)
        if camera:
            if self._pixel_format is not None:
                capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._pixel_format))
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._height)
            if self._fps is not None:
                capture.set(cv2.CAP_PROP_FPS, self._fps)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, self._buffer_size)
        code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("latin1")
        self._check_format(capture, code if camera else "")
        self._code = ""
        if self._kind is _Kind.V4L2 and code in FORMATS:
            # Decoded here, in one step to RGB, and so that torn pictures are noticed.
            self._code = code if capture.set(cv2.CAP_PROP_CONVERT_RGB, 0) else ""
        elif not camera and code.upper() == "MJPG":
            self._code = "MJPG" if capture.set(cv2.CAP_PROP_FORMAT, -1) else ""
        self._period_s = 1 / max(capture.get(cv2.CAP_PROP_FPS), 1e-3)
        self._length_s = capture.get(cv2.CAP_PROP_FRAME_COUNT) * self._period_s
        self._shift_s = 0.0
        if self._kind is _Kind.V4L2:
            self._shift_s = apply_controls(capture, self._controls, self._where, self._path)
        elif self._controls.asked and self._kind is _Kind.CAMERA:
            fix = "They are supported on Linux: set them to null."
            raise SensorError(self._where, "no controls", ", ".join(self._controls.asked), fix)

    def _check_format(self, capture: cv2.VideoCapture, code: str) -> None:
        import cv2

        width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = capture.get(cv2.CAP_PROP_FPS)
        timed = self._fps is not None and self._kind is not _Kind.URL  # network streams do not tell their rate
        good = (width, height) == (self._width, self._height)
        good &= not timed or abs(fps - (self._fps or 0.0)) <= _RATE_SHARE * fps
        good &= self._pixel_format is None or code in ("", self._pixel_format)
        if not good:
            rate = f" at {self._fps:g} Hz" if timed else ""
            asked = f"{self._width} x {self._height}{f' {self._pixel_format}' if code else ''}{rate}"
            fix = f"Choose one that it has: v4l2-ctl --list-formats-ext -d {self._path}" if code else "Ask for that."
            raise SensorError(self._where, asked, f"{width} x {height} {code}".rstrip() + f" at {fps:g} Hz", fix)

    # -- streaming --------------------------------------------------------------------------------------------------

    def _grab(self, capture: cv2.VideoCapture, timeout_s: float) -> NDArray[Any] | None:
        import cv2

        if self._kind is not _Kind.V4L2:
            good, data = capture.read()
        else:
            try:
                ready, _ = cv2.VideoCapture.waitAny([capture], max(int(timeout_s * 1e9), 1_000_000))
            except cv2.error as error:
                raise self._lost("one that cannot be read") from error
            if not ready:
                if not os.path.exists(self._path):
                    raise self._lost("one that was unplugged")
                if host_now_s() - self._heard_s > self._lost_after_s:
                    raise self._lost(f"silence for {self._lost_after_s:g} s")
                return None
            good, data = capture.retrieve()
        if not good or data is None:
            raise self._lost("one that gives no more")
        return data

    def _stamped(self, capture: cv2.VideoCapture, rgb: NDArray[np.uint8], arrived_s: float) -> Shot:
        import cv2

        stamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if self._kind is _Kind.V4L2 else 0.0
        if stamp_s <= 0:
            return Shot(rgb, arrived_s, arrived_s, device_clock=False)
        if self._host_clock is None:  # once per opening, so that the stamps of a stream are all of one clock
            self._host_clock = -0.01 <= arrived_s - stamp_s < _HOST_CLOCK_S
        return Shot(rgb, stamp_s + self._shift_s, arrived_s, device_clock=not self._host_clock)

    def _decode(self, data: NDArray[Any]) -> NDArray[np.uint8] | None:
        """RGB [H, W, 3]; None = damaged."""
        import cv2

        shrink = 1
        if self._code == "YUYV":
            rgb = cv2.cvtColor(data, cv2.COLOR_YUV2RGB_YUYV)
        else:
            shrink = self._shrink if self._code == "MJPG" else 1
            image = decode_jpeg(data, shrink) if self._code == "MJPG" else data
            if image is None:
                return None
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        shape = -(-self._height // shrink), -(-self._width // shrink), 3  # rounded up
        return np.asarray(rgb, np.uint8) if rgb.shape == shape else None

    def _play(self, capture: cv2.VideoCapture, timeout_s: float) -> Shot | None:
        """The next picture of a file, not before its time."""
        import cv2

        while self._next is None:
            good, data = capture.read()
            if not good or data is None:
                self._truncated += self._read_s + 2 * self._period_s < self._length_s
                raise self._lost(f"a file that ended after {self._read_s:.3f} of {self._length_s:.3f} s")
            self._read_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            rgb = self._decode(data)
            if rgb is None:
                self._corrupt += 1
                continue
            shown_s = self._read_s / self._speed
            if self._start_s is None:
                self._start_s = host_now_s() - shown_s
            self._next = rgb, self._start_s + shown_s
        rgb, due_s = self._next
        early_s = due_s - host_now_s()
        if early_s > 0:
            time.sleep(min(early_s, timeout_s))
            if early_s > timeout_s:
                return None
        self._next = None
        return Shot(rgb, due_s, host_now_s(), device_clock=False)

    def _lost(self, got: str) -> SensorLost:
        fix = {_Kind.FILE: "It plays again.", _Kind.URL: "Is its server still running?"}
        return SensorLost(self._where, "a camera that gives pictures", got, fix.get(self._kind, "Check the cable."))
