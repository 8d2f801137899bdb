"""Finding RealSense cameras, recordings of them and their streams through the SDK; every failure says what helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensors.errors import DataError, SensorError
from sensors.realsense_settings import Mode

UDEV_RULE = 'SUBSYSTEM=="usb", ATTRS{idVendor}=="8086", MODE="0666", GROUP="plugdev"'
UDEV_FILE = "/etc/udev/rules.d/99-realsense-libusb.rules"
INSTALL = 'pip install "perceive[realsense]"'


@dataclass(frozen=True)
class FoundCamera:
    """A connected camera: its name, serial number, firmware version, and USB generation (``3.2``; empty = unknown)."""

    name: str
    serial: str
    firmware: str
    usb: str


def load_sdk() -> Any:
    """The SDK's module.

    Raises:
        SensorError: it is not installed.
    """
    try:
        import pyrealsense2
    except ImportError as error:
        raise SensorError("RealSense", "the package pyrealsense2", "none", f"Install it: {INSTALL}") from error
    return pyrealsense2


def find(context: Any = None) -> tuple[FoundCamera, ...]:
    """The connected cameras; none where there is no SDK.

    Args:
        context: the SDK's ``context`` to look in; None = a new one.

    Raises:
        SensorError: a camera is there and may not be opened.
    """
    try:
        rs = load_sdk()
    except SensorError:
        return ()
    return tuple(describe(rs, device) for device in _devices(context or rs.context()))


def describe(rs: Any, device: Any) -> FoundCamera:
    """What a device of the SDK calls itself."""
    info = rs.camera_info
    keys = (info.name, info.serial_number, info.firmware_version, info.usb_type_descriptor)
    return FoundCamera(*(device.get_info(key) if device.supports(key) else "" for key in keys))


def pick(rs: Any, context: Any, serial: str | None) -> Any:
    """The SDK's device with a serial number; None = the only one there.

    Raises:
        SensorError: there is none, or there are several and none is named.
    """
    devices = [(describe(rs, device), device) for device in _devices(context)]
    chosen = [device for found, device in devices if serial in (None, found.serial)]
    if len(chosen) == 1:
        return chosen[0]
    present = ", ".join(f"{found.name} {found.serial}" for found, _ in devices) or "none"
    if chosen:
        fix = "Set 'serial' to the one that is meant."
        raise SensorError("RealSense.open", "one camera, or a serial number", present, fix)
    expected = "a RealSense" if serial is None else f"the RealSense with serial number {serial}"
    fix = (
        f"Plug it into a USB 3 port. If it is, {UDEV_FILE} may lack this line: {UDEV_RULE}  "
        "'perceive doctor' lists what is there."
    )
    raise SensorError("RealSense.open", expected, present, fix)


def load_recording(context: Any, path: str) -> Any:
    """A recording as the SDK's playback device.

    Raises:
        DataError: there is no such file, or the SDK cannot read it.
    """
    where, expected = "RealSense.open", "a recording of the SDK (.bag, .db3)"
    if not Path(path).is_file():
        raise DataError(where, expected, f"no file '{path}'", "Correct 'bag'.")
    try:
        return context.load_device(path)
    except RuntimeError as error:
        fix = "Record it again; an older SDK cannot read the files of a newer one."
        raise DataError(where, expected, f"'{path}': {error}", fix) from error


def stream(
    sensors: Sequence[Any], kind: Any, formats: Sequence[Any], mode: Mode, found: FoundCamera
) -> tuple[int, Any]:
    """Index of the sensor that has a stream in this mode, and the stream's profile.

    Args:
        sensors: the device's.
        kind: member of the SDK's ``stream``.
        formats: members of the SDK's ``format`` that will do.
        mode: what is asked for.
        found: the camera, for the error.

    Raises:
        SensorError: the camera has no such mode; lists those it has.
    """
    offered: dict[Mode, tuple[int, Any]] = {}
    for index, sensor in enumerate(sensors):
        for profile in sensor.get_stream_profiles():
            if profile.stream_type() == kind and profile.format() in formats:
                video = profile.as_video_stream_profile()
                offered.setdefault(Mode(video.width(), video.height(), video.fps()), (index, video))
    if mode in offered:
        return offered[mode]
    modes = sorted(offered, key=lambda o: (o.width, o.height, o.fps))
    raise SensorError(
        "RealSense.open", f"the {kind.name} mode {mode}", ", ".join(map(str, modes)) or "no such stream",
        f"Choose one of these. {found.name} is connected by USB {found.usb or '?'}; over USB 2 there are fewer.",
    )  # fmt: skip


def _devices(context: Any) -> list[Any]:
    try:
        return list(context.query_devices())
    except RuntimeError as error:
        fix = f"Put this line into {UDEV_FILE} and plug the camera in again: {UDEV_RULE}"
        raise SensorError("RealSense", "cameras that may be opened", str(error), fix) from error
