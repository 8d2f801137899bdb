"""Which cameras are plugged in, and which of them is meant: Linux' sysfs names the USB port and serial of each."""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sensors.errors import SensorError, SpecError

ROOT = Path("/sys/class/video4linux")
DEV = Path("/dev")
_QUERYCAP = 0x80685600  # VIDIOC_QUERYCAP: asks a node what it can do (linux/videodev2.h)
_CAPTURE = 0x00000001 | 0x00001000  # V4L2_CAP_VIDEO_CAPTURE, V4L2_CAP_VIDEO_CAPTURE_MPLANE
_DEVICE_CAPS = 0x80000000  # V4L2_CAP_DEVICE_CAPS: the node's own abilities are told, not only those of its card
_USB_PORT = re.compile(r"\d+-\d+(\.\d+)*")
KEYS = ("path", "serial", "port", "name")


@dataclass(frozen=True)
class VideoDevice:
    """One video node.

    Attributes:
        path: its file, such as ``/dev/video2``; the number may change at every start of the machine.
        name: what the driver calls it, such as ``"HD Pro Webcam C920"``.
        serial: serial number of the USB device; empty if it has none.
        vendor: USB vendor, four hexadecimal digits; empty if it is no USB device.
        product: USB product, likewise.
        port: the USB port, such as ``"1-2.4"``: stays the same as long as the cable does; empty if it is not on USB.
        interface: the same with the interface of the device, such as ``"1-2.4:1.0"``.
        capture: whether pictures can be taken from it. A camera often has a second node that gives metadata only.
    """

    path: str
    name: str
    serial: str
    vendor: str
    product: str
    port: str
    interface: str
    capture: bool

    def __str__(self) -> str:
        usb = f", serial '{self.serial}', USB port {self.port}" if self.port else ""
        return f"{self.path} ('{self.name}'{usb})"


def find_video_devices(root: Path = ROOT, dev: Path = DEV) -> tuple[VideoDevice, ...]:
    """All video nodes of this machine, in the order of their numbers; none on other systems than Linux.

    Args:
        root: the folder in which the kernel lists them.
        dev: the folder with their files.
    """
    if not root.is_dir():
        return ()
    nodes = [node for node in root.iterdir() if re.fullmatch(r"video\d+", node.name)]
    return tuple(_describe(node, dev) for node in sorted(nodes, key=lambda node: int(node.name[5:])))


def choose_video_device(wanted: str, devices: Sequence[VideoDevice], *, help_line: str = "") -> VideoDevice:
    """The one camera that is meant.

    Args:
        wanted: a path, USB serial number, USB port (with or without interface) or name (or how it begins; upper or
            lower case). ``serial:``, ``port:``, ``name:`` or ``path:`` before it says which of these it is.
        devices: what is plugged in.
        help_line: what to do if it is missing, besides plugging it in.

    Raises:
        SensorError: there is none, or more than one; lists what there is.
        SpecError: ``wanted`` is empty.
    """
    key, colon, value = wanted.partition(":")
    if not (colon and key in KEYS):
        key, value = "", wanted
    if not value.strip():
        raise SpecError("camera", "a path, USB serial number, USB port or name", repr(wanted), "Name a camera.")
    cameras = [device for device in devices if device.capture]
    for kind in (key,) if key else KEYS:
        found = [device for device in cameras if _matches(device, kind, value)]
        if len(found) == 1:
            return found[0]
        if found:
            fix = "Choose one by 'serial:', or by 'port:' if they have none or the same."
            raise SensorError("camera", f"one camera '{wanted}'", _listed(found), fix)
    fix = "Plug it in, or name one of these." if cameras else "Plug it in; 'lsusb' shows whether the system sees it."
    got = _listed(cameras) if cameras else "no camera at all"
    raise SensorError("camera", f"a camera '{wanted}'", got, f"{fix} {help_line}".strip())


def _matches(device: VideoDevice, key: str, value: str) -> bool:
    if key == "path":
        return device.path == value or os.path.realpath(value) == device.path
    if key == "port":
        return value in (device.port, device.interface) and bool(value)
    if key == "serial":
        return device.serial == value
    return device.name.lower().startswith(value.lower())


def _listed(devices: Sequence[VideoDevice]) -> str:
    return "; ".join(str(device) for device in devices)


def _describe(node: Path, dev: Path) -> VideoDevice:
    # node/device is the USB interface (1-2:1.0), its parent the USB device (1-2), which knows vendor and serial.
    interface = (node / "device").resolve()
    usb = interface.parent
    on_usb = bool(_USB_PORT.fullmatch(usb.name)) and (usb / "idVendor").exists()
    vendor, product, serial = (_read(usb / file) if on_usb else "" for file in ("idVendor", "idProduct", "serial"))
    path = dev / node.name
    capture = _can_capture(path, _read(node / "dev"))
    return VideoDevice(
        path=str(path),
        name=_read(node / "name"),
        serial=serial,
        vendor=vendor,
        product=product,
        port=usb.name if on_usb else "",
        interface=interface.name if on_usb else "",
        # Not allowed to ask, or no such file: the first node of a device is the one with the pictures.
        capture=_read(node / "index") in ("", "0") if capture is None else capture,
    )


def _can_capture(path: Path, number: str) -> bool | None:
    """What the node itself says; None if it cannot be asked. ``number``: its major:minor as the kernel lists it."""
    try:
        found = path.stat()
        if not stat.S_ISCHR(found.st_mode) or f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" != number:
            return None
        import fcntl  # not on Windows

        file = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            return capture_capable(fcntl.ioctl(file, _QUERYCAP, bytes(104)))
        finally:
            os.close(file)
    except OSError:
        return None


def capture_capable(answer: bytes) -> bool:
    """Whether a ``struct v4l2_capability`` [104 bytes] tells of a node that gives pictures."""
    card, node = struct.unpack_from("=II", answer, 84)
    return bool((node if card & _DEVICE_CAPS else card) & _CAPTURE)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
