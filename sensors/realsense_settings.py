"""What a RealSense can be told: stream modes, controls and depth filters; and what it tells about itself.

Frozen values, so that they can be checked before a camera is there; each is applied to the SDK's objects by a function
that gets the SDK's module, because importing this file must not import the SDK.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sensors.errors import SensorError, SpecError, nearest
from sensors.geometry import FloatArray

PRESETS = (
    "custom", "default", "hand", "high_accuracy", "high_density", "medium_density", "remove_ir_pattern",
    "edge_enhancement",
)  # fmt: skip  # the members of the SDK's rs400_visual_preset
HOLE_FILLINGS = ("fill_from_left", "farthest_from_around", "nearest_from_around")  # the SDK's modes 0, 1, 2
COLOUR_EXPOSURE_UNIT_US = 100.0  # a UVC colour sensor counts its exposure in 100 us; the stereo module in 1 us


@dataclass(frozen=True)
class Mode:
    """Size and rate of one stream. The camera must offer it exactly; if not, ``open`` lists what it offers.

    Attributes:
        width: pixels.
        height: pixels.
        fps: pictures per second.
    """

    width: int = 640
    height: int = 480
    fps: int = 30

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.fps) < 1:
            raise SpecError("RealSense, Mode", "width, height, fps >= 1", str(self), "Correct it.")

    def __str__(self) -> str:
        return f"{self.width}x{self.height} at {self.fps} fps"


@dataclass(frozen=True)
class Filters:
    """The SDK's depth filters, run on the depth picture before it is aligned, in the order that Intel recommends.

    Decimation is not among them: depth is aligned to the colour picture, which would undo it. For less data, ask for
    a smaller mode.

    Attributes:
        spatial: smooth within surfaces, keep edges.
        temporal: smooth over time. What moves leaves a trail; for cameras and scenes that rest.
        disparity: run these two on 1/z, where the noise is even. Needs a stereo camera, which every D400 is.
        hole_filling: None = holes stay 0; else one of ``fill_from_left``, ``farthest_from_around``,
            ``nearest_from_around``, which invent depth that was not measured.
    """

    spatial: bool = False
    temporal: bool = False
    disparity: bool = True
    hole_filling: str | None = None

    def __post_init__(self) -> None:
        if self.hole_filling is not None and self.hole_filling not in HOLE_FILLINGS:
            raise SpecError(
                "RealSense, Filters.hole_filling", f"null or one of {', '.join(HOLE_FILLINGS)}",
                f"'{self.hole_filling}'", nearest(self.hole_filling, HOLE_FILLINGS),
            )  # fmt: skip

    def build(self, rs: Any) -> list[Any]:
        """New filters of the SDK, in order; the temporal one begins with nothing remembered."""
        smooth = [rs.spatial_filter()] * self.spatial + [rs.temporal_filter()] * self.temporal
        if smooth and self.disparity:
            smooth = [rs.disparity_transform(True), *smooth, rs.disparity_transform(False)]
        if self.hole_filling is not None:
            smooth.append(rs.hole_filling_filter(HOLE_FILLINGS.index(self.hole_filling)))
        return smooth


@dataclass(frozen=True)
class Controls:
    """Settings of the camera itself. None leaves a control as the camera has it.

    Attributes:
        preset: visual preset of the stereo module, by the SDK's name: ``high_accuracy``, ``high_density``, ...; set
            first, as it changes other controls.
        emitter: infrared projector on or off.
        laser_power_mW: its power.
        exposure_us: exposure of the stereo module; None = automatic.
        gain: its gain, in the camera's own unit; only together with an exposure (a fixed gain ends the automatic one).
        colour_exposure_us: exposure of the colour sensor; None = automatic. A camera whose colour comes from the
            stereo module (D405) has none of its own.
        colour_gain: its gain; only together with an exposure.
        constant_rate: in the dark, automatic exposure may not lower the colour sensor's rate.
        depth_unit_m: what one step of the raw depth picture means.
        global_time: the SDK maps the camera's clock to the host's; off = frames carry the camera's own clock, which
            LiveSensor maps as it does for every device.
    """

    preset: str | None = None
    emitter: bool | None = None
    laser_power_mW: float | None = None  # noqa: N815  (units keep their own capital letter, design convention 4)
    exposure_us: float | None = None
    gain: float | None = None
    colour_exposure_us: float | None = None
    colour_gain: float | None = None
    constant_rate: bool = True
    depth_unit_m: float | None = None
    global_time: bool = False

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            raise SpecError(
                "RealSense, Controls.preset", "a visual preset of the D400 family", f"'{self.preset}'",
                nearest(self.preset, PRESETS),
            )  # fmt: skip
        for name in ("laser_power_mW", "exposure_us", "gain", "colour_exposure_us", "colour_gain", "depth_unit_m"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and np.isfinite(value)):
                raise SpecError(f"RealSense, Controls.{name}", "a finite number >= 0", repr(value), "Correct it.")
        for exposure, gain in (("exposure_us", "gain"), ("colour_exposure_us", "colour_gain")):
            if getattr(self, gain) is not None and getattr(self, exposure) is None:
                raise SpecError(
                    f"RealSense, Controls.{gain}", f"a fixed {exposure} beside it", "automatic exposure",
                    f"Set {exposure} too: a camera with a fixed gain exposes by hand.",
                )  # fmt: skip

    def apply(self, rs: Any, stereo: Any, colour: Any | None) -> None:
        """Set everything on the SDK's sensors; ``colour`` is None where the stereo module gives the colour too.

        Raises:
            SensorError: the camera lacks a control that was asked for, or refuses its value.
        """
        option = rs.option
        if self.preset is not None:
            _set(stereo, option.visual_preset, int(getattr(rs.rs400_visual_preset, self.preset)), "preset")
        if self.depth_unit_m is not None:
            _set(stereo, option.depth_units, self.depth_unit_m, "depth_unit_m")
        if self.emitter is not None:
            _set(stereo, option.emitter_enabled, float(self.emitter), "emitter")
        if self.laser_power_mW is not None:
            _set(stereo, option.laser_power, self.laser_power_mW, "laser_power_mW")
        _expose(rs, stereo, self.exposure_us, self.gain, "")
        if colour is not None:
            exposure = None if self.colour_exposure_us is None else self.colour_exposure_us / COLOUR_EXPOSURE_UNIT_US
            _expose(rs, colour, exposure, self.colour_gain, "colour_")
            if colour.supports(option.auto_exposure_priority):
                _set(colour, option.auto_exposure_priority, float(not self.constant_rate), "constant_rate")
        elif self.colour_exposure_us is not None:
            raise SensorError(
                "RealSense, Controls.colour_exposure_us", "a camera with a colour sensor of its own",
                "one whose colour comes from the stereo module", "Set exposure_us, which serves both pictures.",
            )  # fmt: skip
        for sensor in (stereo,) if colour is None else (stereo, colour):
            if sensor.supports(option.global_time_enabled):
                _set(sensor, option.global_time_enabled, float(self.global_time), "global_time")
            elif self.global_time:
                _refuse(sensor, "global_time", "the camera has no such control")


def _expose(rs: Any, sensor: Any, exposure: float | None, gain: float | None, prefix: str) -> None:
    """Automatic where the sensor can, or by hand; ``exposure`` is in the sensor's own unit."""
    automatic = rs.option.enable_auto_exposure
    if sensor.supports(automatic):
        _set(sensor, automatic, float(exposure is None), f"{prefix}exposure_us")
    if exposure is not None:
        _set(sensor, rs.option.exposure, exposure, f"{prefix}exposure_us")
    if gain is not None:
        _set(sensor, rs.option.gain, gain, f"{prefix}gain")


def _set(sensor: Any, option: Any, value: float, name: str) -> None:
    if not sensor.supports(option):
        _refuse(sensor, name, "the camera has no such control")
    try:
        sensor.set_option(option, value)
    except RuntimeError as error:
        legal = sensor.get_option_range(option)
        _refuse(
            sensor, name, f"{value:g} ({error}); it takes {legal.min:g} to {legal.max:g} in steps of {legal.step:g}"
        )


def _refuse(sensor: Any, name: str, got: str) -> None:
    raise SensorError(
        f"RealSense, Controls.{name}", "a value that the camera takes", got,
        f"Sensor '{sensor.name}'. Correct it, or leave it out (null).",
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Calibration:
    """What an open camera says about itself.

    Attributes:
        name: as the SDK calls it, e.g. ``Intel RealSense D435``.
        serial: serial number.
        firmware: version.
        usb: USB generation it is connected by, e.g. ``3.2``; empty in files and on cards.
        intrinsics_px: float [4], fx fy cx cy of the colour camera; of the frames too, undistorted or not.
        distortion_model: the SDK's name for the colour lens, e.g. ``inverse_brown_conrady``.
        distortion: float [5], its coefficients.
        undistorted: whether frames are rectified with them. True also where all of them are zero.
        depth_intrinsics_px: float [4] of the depth camera, as streamed.
        depth_from_colour: float [4, 4], colour camera's coordinates to the depth camera's, metres.
        depth_unit_m: what one step of the raw depth picture means.
    """

    name: str
    serial: str
    firmware: str
    usb: str
    intrinsics_px: FloatArray
    distortion_model: str
    distortion: FloatArray
    undistorted: bool
    depth_intrinsics_px: FloatArray
    depth_from_colour: FloatArray
    depth_unit_m: float

    def __str__(self) -> str:
        return "\n".join(f"{field.name}: {getattr(self, field.name)}" for field in fields(self))
