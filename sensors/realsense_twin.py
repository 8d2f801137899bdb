"""A RealSense made of software: found, opened, streamed and unplugged like a camera, and fed by your program.

The pictures are given to a ``software_device`` of the SDK and go through all of it: sensors, syncer, filters, align.
For programs that shall run without a camera, and for tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sensors.errors import SensorError, SpecError
from sensors.geometry import FloatArray
from sensors.realsense_devices import load_sdk
from sensors.realsense_settings import Mode

_CONTROLS = {  # what a D435's stereo module offers: lowest, highest, step, as it comes
    "visual_preset": (0.0, 7.0, 1.0, 0.0),
    "emitter_enabled": (0.0, 1.0, 1.0, 1.0),
    "laser_power": (0.0, 360.0, 30.0, 150.0),
    "enable_auto_exposure": (0.0, 1.0, 1.0, 1.0),
    "exposure": (1.0, 165000.0, 1.0, 8500.0),
    "gain": (16.0, 248.0, 1.0, 16.0),
    "depth_units": (0.0, 0.01, 1e-12, 0.001),  # so fine a step that the SDK does not stumble over its own rounding
    "global_time_enabled": (0.0, 1.0, 1.0, 1.0),
}
_COLOUR_CONTROLS = {
    "enable_auto_exposure": (0.0, 1.0, 1.0, 1.0),
    "auto_exposure_priority": (0.0, 1.0, 1.0, 1.0),
    "exposure": (1.0, 10000.0, 1.0, 156.0),
    "gain": (0.0, 128.0, 1.0, 64.0),
    "global_time_enabled": (0.0, 1.0, 1.0, 1.0),
}


@dataclass(frozen=True)
class TwinLens:
    """One of a twin's two cameras.

    Attributes:
        mode: size and rate.
        intrinsics_px: fx fy cx cy [4].
        model: member of the SDK's ``distortion``.
        distortion: its coefficients [5].
    """

    mode: Mode
    intrinsics_px: tuple[float, float, float, float]
    model: str = "inverse_brown_conrady"
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class TwinCamera:
    """What a twin pretends to be.

    Attributes:
        depth: the depth camera.
        colour: the colour camera.
        colour_from_depth: float [4, 4], depth camera's coordinates to the colour camera's, metres.
        serial: serial number.
        name: of the model.
        depth_unit_m: what one step of the raw depth picture means.
        baseline_mm: between its two infrared cameras.
        colour_format: how colour is sent: ``rgb8`` or ``bgr8``.
        colour_sensor: whether colour has a sensor of its own; False as in a D405, whose stereo module gives both.
    """

    depth: TwinLens
    colour: TwinLens
    colour_from_depth: FloatArray = field(default_factory=lambda: np.eye(4))
    serial: str = "000000000001"
    name: str = "Intel RealSense D435 (twin)"
    depth_unit_m: float = 0.001
    baseline_mm: float = 50.0
    colour_format: str = "rgb8"
    colour_sensor: bool = True


@final
class Twin:
    """A plugged-in twin; made by :meth:`TwinPort.plug`.

    Attributes:
        device: the SDK's ``software_device``, e.g. for its ``recorder``.
        stereo: its depth sensor.
        colour: its colour sensor; the same one in a D405.
    """

    def __init__(self, rs: Any, camera: TwinCamera) -> None:
        self._rs = rs
        self._camera = camera
        self.device: Any = rs.software_device()
        info = rs.camera_info
        for key, text in (
            (info.name, camera.name), (info.serial_number, camera.serial), (info.firmware_version, "5.16.0.1"),
            (info.usb_type_descriptor, "3.2"), (info.product_line, "D400"),
        ):  # fmt: skip
            self.device.register_info(key, text)
        self.stereo: Any = self.device.add_sensor("Stereo Module")
        self.colour: Any = self.device.add_sensor("RGB Camera") if camera.colour_sensor else self.stereo
        self._depth_profile = self._add(self.stereo, camera.depth, rs.stream.depth, rs.format.z16, 2)
        layout = getattr(rs.format, camera.colour_format)
        self._colour_profile = self._add(self.colour, camera.colour, rs.stream.color, layout, 3)
        apart = rs.extrinsics()
        apart.rotation = camera.colour_from_depth[:3, :3].T.ravel().tolist()  # the SDK stores columns
        apart.translation = camera.colour_from_depth[:3, 3].tolist()
        self._depth_profile.register_extrinsics_to(self._colour_profile, apart)
        own = _COLOUR_CONTROLS if camera.colour_sensor else {}
        for sensor, controls in ((self.stereo, _CONTROLS), (self.colour, own)):
            for name, bounds in controls.items():
                legal = rs.option_range()
                legal.min, legal.max, legal.step, legal.default = bounds
                sensor.add_option(getattr(rs.option, name), legal, True)
        self.stereo.set_option(rs.option.depth_units, camera.depth_unit_m)
        self.stereo.add_read_only_option(rs.option.stereo_baseline, camera.baseline_mm)

    def give_depth(
        self, raw: NDArray[np.uint16], *, number: int, stamp_s: float, clock: str = "hardware_clock",
        metadata: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        """A depth picture: raw [H, W] in units of ``depth_unit_m``; 0 = no measurement. See :meth:`give_colour`."""
        self._give(self.stereo, self._depth_profile, raw, number, stamp_s, clock, metadata or {})

    def give_colour(
        self, rgb: NDArray[np.uint8], *, number: int, stamp_s: float, clock: str = "hardware_clock",
        metadata: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        """A colour picture, if the camera streams.

        Args:
            rgb: uint8 [H, W, 3].
            number: frame number.
            stamp_s: the SDK's stamp.
            clock: member of the SDK's ``timestamp_domain`` that it is on.
            metadata: members of the SDK's ``frame_metadata_value`` and their values; the SDK keeps them for the next
                pictures too.
        """
        sent = rgb if self._camera.colour_format == "rgb8" else rgb[..., ::-1]
        self._give(self.colour, self._colour_profile, sent, number, stamp_s, clock, metadata or {})

    def _add(self, sensor: Any, lens: TwinLens, kind: Any, layout: Any, bytes_per_pixel: int) -> Any:
        rs = self._rs
        optics = rs.intrinsics()
        optics.width, optics.height = lens.mode.width, lens.mode.height
        optics.fx, optics.fy, optics.ppx, optics.ppy = lens.intrinsics_px
        optics.model, optics.coeffs = getattr(rs.distortion, lens.model), list(lens.distortion)
        video = rs.video_stream()
        video.type, video.index, video.uid = kind, 0, int(kind)
        video.width, video.height, video.fps = lens.mode.width, lens.mode.height, lens.mode.fps
        video.bpp, video.fmt, video.intrinsics = bytes_per_pixel, layout, optics
        return sensor.add_video_stream(video, True).as_video_stream_profile()

    def _give(
        self, sensor: Any, profile: Any, picture: NDArray[Any], number: int, stamp_s: float, clock: str,
        metadata: Mapping[str, int],
    ) -> None:  # fmt: skip
        rs = self._rs
        shape = (profile.height(), profile.width())
        if picture.shape[:2] != shape:
            raise SpecError("Twin", f"a picture of {shape}", str(picture.shape[:2]), "Give it in the stream's mode.")
        frame = rs.software_video_frame()
        frame.pixels = np.ascontiguousarray(picture)
        frame.bpp = profile.bytes_per_pixel()
        frame.stride = shape[1] * frame.bpp
        frame.timestamp, frame.domain = stamp_s * 1e3, getattr(rs.timestamp_domain, clock)
        frame.frame_number, frame.profile = number, profile
        frame.depth_units = self.stereo.get_option(rs.option.depth_units)
        for name, value in metadata.items():
            sensor.set_metadata(getattr(rs.frame_metadata_value, name), value)
        sensor.on_video_frame(frame)


@final
class TwinPort:
    """Where twins are plugged in: a ``context`` of the SDK, to be given to ``RealSense(context=...)``.

    Raises:
        SensorError: there is no SDK.
    """

    def __init__(self) -> None:
        self._rs = load_sdk()
        self.context: Any = self._rs.context()
        # The SDK lists a software device for as long as somebody holds the event that announced it (seen in 2.59).
        self._plugged: dict[Twin, Any] = {}
        self._events: list[Any] = []
        events = self._events  # not self: the SDK holds the callback, where Python's collector cannot see it
        self.context.set_devices_changed_callback(lambda event: events.append(event.get_new_devices()))

    def plug(self, camera: TwinCamera) -> Twin:
        """A new twin, connected.

        Raises:
            SensorError: the SDK did not announce it.
        """
        twin = Twin(self._rs, camera)
        twin.device.add_to(self.context)
        if not self._events:
            raise SensorError("TwinPort.plug", "an SDK that announces it", "silence", "Use pyrealsense2 2.59 or newer.")
        self._plugged[twin] = self._events.pop()
        self._events.clear()
        return twin

    def unplug(self, twin: Twin) -> None:
        """Take it out. Whoever reads it gets no more pictures, if no more are given."""
        del self._plugged[twin]
