"""RealSense: a depth camera of the D400 family, or a recording of one, through Intel's SDK (pyrealsense2)."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from threading import Event, Thread
from typing import Any, final

import numpy as np
from gymnasium import spaces

from sensors.clock import host_now_s
from sensors.errors import PerceiveError, SensorError, SensorLost, SpecError
from sensors.frames import RgbdFrame
from sensors.live import Captured, Device
from sensors.realsense_devices import UDEV_RULE, describe, load_recording, load_sdk, pick, stream
from sensors.realsense_devices import find as find  # for 'perceive doctor'
from sensors.realsense_pairs import Pairs, Shot, Stamps, since_1970_minus_host_s
from sensors.realsense_picture import Registration, extrinsics, intrinsics_px, is_distorted
from sensors.realsense_settings import Calibration, Controls, Filters, Mode
from sensors.spec import box

START_S = 5.0  # until the first pair: firmware and automatic exposure need up to two seconds
SLICE_S = 0.05  # how often a waiting camera is asked whether it is still there
QUEUE = 4  # framesets; more would take the SDK's buffers from the camera
_MAX_INTRINSICS_PX, _MAX_POSE_ENTRY = 1e6, 1000.0  # Gymnasium wants finite bounds


@dataclass(frozen=True, eq=False)
class _Session:
    """What there is while the camera streams."""

    device: Any
    playback: Any | None
    syncer: Any
    stamps: Stamps
    pairs: Pairs
    ready: deque[tuple[Shot, Shot]]
    registration: Registration
    calibration: Calibration
    closing: ExitStack


@final
class RealSense(Device):
    """Colour and depth of the same pixels, from one instant, with stamps of the middle of the exposure.

    The camera's frame is the colour camera's: +x right, +y down, +z forward; ``base_from_camera`` is the identity until
    a mount is added. ``stamp_s`` is the colour picture's: on the device's clock (seconds, wrap-around of its 32 bits
    undone) where frames carry it, else the SDK's host time, mapped to the host clock. The SDK stamps with host time
    when ``controls.global_time`` is on, or when the kernel hands on no metadata (``counts["host_stamps"]`` then grows;
    the stamps are those of arrival).

    A camera is lost (:class:`SensorLost`) when the SDK says so or when no pair came for ``lost_after_s``. It opens
    again, by the same serial number, as soon as it is back; the SDK looks anew every time.

    A recording (``bag``) is the same camera in a file, written by the SDK's recorder or ``realsense-viewer`` (``.bag``;
    newer SDKs ``.db3``). Its stamps are on the clock that it was recorded with, whichever that was. At its end it is
    lost, and stays so: a device plays once; with ``loop`` it begins again when opened again. The camera's controls
    cannot be set in it.

    Args:
        colour: mode of the colour stream, and the size of the frames.
        depth: mode of the depth stream.
        serial: which camera; None = the only one that is connected. Put it in quotes in YAML.
        filters: depth filters; None = none.
        controls: preset, laser, exposure, ...; None = automatic exposure, all else as the camera has it.
        undistort: rectify both pictures where the colour lens bends (D405, D455). If False, ``calibration`` has the
            lens; ``intrinsics_px`` alone is then wrong by up to several pixels in the corners.
        min_distance_m: depth nearer than this is no measurement.
        max_distance_m: nor is depth farther than this.
        lost_after_s: silence after which the camera counts as lost.
        bag: path of a recording to play instead.
        real_time: play as fast as it was recorded; a slow reader then loses frames, as with a camera. If False, every
            pair comes as soon as it is asked for; the stamps then run faster than the host's clock, so that it is for
            reading the device itself, not for a LiveSensor.
        loop: a recording that ended may be opened again.
        context: the SDK's ``context`` to find cameras in, for software devices; None = a new one.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        colour: Mode,
        depth: Mode,
        serial: str | None = None,
        filters: Filters | None = None,
        controls: Controls | None = None,
        undistort: bool = True,
        min_distance_m: float = 0.0,
        max_distance_m: float = 10.0,
        lost_after_s: float = 1.0,
        bag: str | None = None,
        real_time: bool = True,
        loop: bool = False,
        context: Any = None,
    ) -> None:
        if not 0 <= min_distance_m < max_distance_m < np.inf or lost_after_s <= 0:
            got = f"{min_distance_m}, {max_distance_m}, {lost_after_s}"
            raise SpecError("RealSense", "0 <= min_distance_m < max_distance_m, lost_after_s > 0", got, "Correct them.")
        if bag is not None and controls not in (None, Controls()):
            raise SpecError("RealSense.controls", "none with a bag", str(controls), "A recording cannot be told.")
        self._colour, self._depth = colour, depth
        self._serial = None if serial is None else str(serial)
        self._filters = filters or Filters()
        self._controls = controls or Controls()
        self._undistort = undistort
        self._limits_m = min_distance_m, max_distance_m
        self._lost_after_s = lost_after_s
        self._bag, self._real_time, self._loop = bag, real_time, loop
        self._context = context
        self._session: _Session | None = None
        self._letting_go: Callable[[], object] = ExitStack().close
        self._ended = False  # the recording
        self._patience_s = START_S  # silence that is left before the camera counts as lost
        self._host_stamps = 0
        self._pair_counts = dict.fromkeys(Pairs(1).counts, 0)  # of the sessions before

    @property
    def space(self) -> spaces.Dict:
        """rgb [H, W, 3], depth_m [H, W], intrinsics_px [4], base_from_camera [4, 4]."""
        size = (self._colour.height, self._colour.width)
        return spaces.Dict(
            {
                "rgb": box(0, 255, (*size, 3), np.uint8),
                "depth_m": box(0.0, self._limits_m[1], size),
                "intrinsics_px": box(0.0, _MAX_INTRINSICS_PX, (4,)),
                "base_from_camera": box(-_MAX_POSE_ENTRY, _MAX_POSE_ENTRY, (4, 4)),
            }
        )

    @property
    def counts(self) -> dict[str, int]:
        """Pictures without a partner, frame numbers that never came, and pairs stamped by the host; since built."""
        session = self._session
        now = session.pairs.counts if session is not None else {}
        pairs = {name: count + now.get(name, 0) for name, count in self._pair_counts.items()}
        return {**pairs, "host_stamps": self._host_stamps}

    @property
    def calibration(self) -> Calibration:
        """Lenses, their distance, serial number and firmware of the open camera.

        Raises:
            SensorError: not open.
        """
        return self._opened("calibration").calibration

    def open(self) -> None:
        rs = load_sdk()
        if self._ended and not self._loop:
            fix = "Build it anew to play it again, or set loop: true."
            raise SensorError("RealSense.open", "a recording that goes on", f"'{self._bag}', played to its end", fix)
        self.close()
        with ExitStack() as closing:
            try:
                self._session = self._start(rs, closing)
            except RuntimeError as error:
                if isinstance(error, PerceiveError):
                    raise
                fix = f"Close other programs that use it; udev rule: {UDEV_RULE}. 'perceive doctor' lists the cameras."
                raise SensorError("RealSense.open", "a camera that streams", str(error), fix) from error
        self._ended = False
        self._patience_s = START_S
        # A program that fails, or ends without closing, must not hang in the SDK's destructors.
        self._letting_go = weakref.finalize(self, self._session.closing.close)

    def wait(self, timeout_s: float) -> Captured | None:
        session = self._opened("wait")
        end_s = host_now_s() + timeout_s
        while True:
            try:
                pair = self._next_pair(session, min(max(end_s - host_now_s(), 0.0), SLICE_S))
                if pair is not None:
                    self._patience_s = self._lost_after_s
                    return self._captured(session, *pair)
            except RuntimeError as error:  # what the SDK raises when the cable is out
                if isinstance(error, PerceiveError):
                    raise
                raise self._lost(str(error)) from error
            if host_now_s() >= end_s:
                return None

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            for name, count in session.pairs.counts.items():
                self._pair_counts[name] += count
            self._letting_go()

    # -- opening ----------------------------------------------------------------------------------------------------

    def _start(self, rs: Any, closing: ExitStack) -> _Session:
        playback = None
        if self._bag is None:
            self._context = self._context or rs.context()  # kept: it sees cameras come and go
            device = pick(rs, self._context, self._serial)
        else:
            context = rs.context()  # of its own: in one context a file can be loaded once
            device = playback = load_recording(context, self._bag)
            closing.callback(_quietly, partial(context.unload_device, self._bag))
        found = describe(rs, device)
        if self._serial not in (None, found.serial):
            fix = "Correct the serial number, or leave it out."
            raise SensorError("RealSense.open", f"a recording of camera {self._serial}", f"one of {found.serial}", fix)
        sensors = device.query_sensors()
        depth_at, depth = stream(sensors, rs.stream.depth, (rs.format.z16,), self._depth, found)
        colours = (rs.format.rgb8, rs.format.bgr8)
        colour_at, colour = stream(sensors, rs.stream.color, colours, self._colour, found)
        if playback is None:
            self._controls.apply(rs, sensors[depth_at], sensors[colour_at] if colour_at != depth_at else None)
        registration = Registration(rs, self._filters.build(rs), depth, colour, self._undistort, *self._limits_m)
        syncer = rs.syncer(QUEUE)
        chosen: dict[int, list[Any]] = {}
        for index, profile in ((depth_at, depth), (colour_at, colour)):
            chosen.setdefault(index, []).append(profile)
        if playback is not None:
            playback.set_real_time(self._real_time)
            playback.pause()  # until both streams listen
        for index, profiles in chosen.items():
            sensors[index].open(profiles)
            closing.callback(_quietly, sensors[index].close)
        for index in chosen:
            sensors[index].start(syncer)
            closing.callback(_quietly, sensors[index].stop)
        if playback is not None:
            closing.callback(_pauser(playback, syncer))
            playback.resume()
        lens = colour.get_intrinsics()
        calibration = Calibration(
            name=found.name, serial=found.serial, firmware=found.firmware, usb=found.usb,
            intrinsics_px=intrinsics_px(colour), distortion_model=lens.model.name,
            distortion=np.array(lens.coeffs), undistorted=self._undistort or not is_distorted(colour),
            depth_intrinsics_px=intrinsics_px(depth), depth_from_colour=extrinsics(colour, depth),
            depth_unit_m=sensors[depth_at].get_option(rs.option.depth_units),
        )  # fmt: skip
        pairs = Pairs(max(self._depth.fps, self._colour.fps))
        return _Session(
            device, playback, syncer, Stamps(rs), pairs, deque(), registration, calibration, closing.pop_all()
        )

    # -- reading ----------------------------------------------------------------------------------------------------

    def _opened(self, what: str) -> _Session:
        if self._session is None:
            raise SensorError(f"RealSense.{what}", "an open camera", "a closed one", "Call open() first.")
        return self._session

    def _next_pair(self, session: _Session, slice_s: float) -> tuple[Shot, Shot] | None:
        """The next pair within a short time, or None.

        Raises:
            SensorLost: the camera is gone or silent, or the recording ended.
        """
        if session.ready:
            return session.ready.popleft()
        began_s = host_now_s()
        came, frames = session.syncer.try_wait_for_frames(round(slice_s * 1000))
        arrived_s = host_now_s()
        for frame in frames if came else ():
            shot = session.stamps.read(frame, arrived_s)
            pair = session.pairs.add("depth" if frame.is_depth_frame() else "colour", shot)
            if pair is not None:
                session.ready.append(pair)
        if session.ready:
            return session.ready.popleft()
        if session.playback is None:
            # No more than was asked for: a process that was stopped for a while has not listened for so long.
            self._check_alive(session, min(arrived_s - began_s, slice_s))
        elif not came and session.playback.current_status().name == "stopped":
            self._ended = True
            fix = "Build it anew to play it again, or set loop: true."
            raise SensorLost(
                "RealSense.wait", "a recording that goes on", f"the end of the recording '{self._bag}'", fix
            )
        return None

    def _check_alive(self, session: _Session, silent_s: float) -> None:
        # The SDK marks a device that it saw leave. Its devices-changed callback would say the same a little earlier,
        # but calls Python from the SDK's thread, which can deadlock with the destructor of its context.
        if not session.device.is_connected():
            raise self._lost("one that was unplugged")
        self._patience_s -= silent_s
        if self._patience_s <= 0:
            raise self._lost(f"no pair of pictures for {self._lost_after_s:g} s")

    def _captured(self, session: _Session, depth: Shot, colour: Shot) -> Captured:
        rgb, depth_m = session.registration.apply(depth.frame, colour.frame)
        # A recording's clocks are all in the past, so they are a device's.
        device_clock = colour.on_device or session.playback is not None
        stamp_s = colour.middle_s
        if not device_clock:
            stamp_s -= since_1970_minus_host_s()
            self._host_stamps += 1
        frame = RgbdFrame(
            stamp_s=stamp_s,
            rgb=rgb,
            depth_m=depth_m,
            intrinsics_px=session.calibration.intrinsics_px.copy(),
            base_from_camera=np.eye(4),
        )
        return Captured(frame, colour.arrived_s, device_clock)

    def _lost(self, got: str) -> SensorLost:
        name = self._opened("wait").calibration.name
        return SensorLost(f"RealSense {name}", "a camera that streams", got, "Check its cable and its USB port.")


def _pauser(playback: Any, syncer: Any) -> Callable[[], None]:
    """What holds a recording, so that its sensors can be stopped.

    When it does not play in real time, its threads wait for a place in the syncer; the SDK's ``pause`` waits for them,
    and its ``stop`` even with Python's lock in its hand. So one thread pauses and another one makes place. It is made
    beforehand, since none can be when Python ends.
    """
    asked = Event()

    def pause() -> None:
        asked.wait()
        _quietly(playback.pause)

    thread = Thread(target=pause, name="RealSense pause", daemon=True)
    thread.start()

    def hold() -> None:
        asked.set()
        came = True
        while came or thread.is_alive():
            came, _ = syncer.try_wait_for_frames(20)

    return hold


def _quietly(step: Callable[[], None]) -> None:
    """What fails while a camera is let go of that may have been pulled out has failed already."""
    with suppress(RuntimeError):
        step()
