"""Presses taken one after the other from a camera or a film, while somebody moves the ball."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.gel_camera import GelCamera
from sensors.live import Device
from sensors.tactile.calibration.circle import Circle
from sensors.tactile.calibration.contact import Reason, Refusal, Rgb, find_contact
from sensors.tactile.calibration.session import Session, mean_picture
from sensors.tactile.calibration.settings import TouchSettings

_WAIT_S = 0.2
_BACKGROUND = 12  # pictures of the untouched gel
_STILL = 8.0  # greatest mean change from one picture of the untouched gel to the next, grey values
_REST = 0.04  # share of its radius by which the circle of a ball at rest moves or grows between pictures
_NEW = 0.3  # share of its radius by which a press is away from all others
_FASTEST = 1000.0  # times as fast as it was taken a film is gone through


def device_pictures(device: Device) -> Generator[Rgb | None, None, None]:
    """The pictures of a device; None while none comes. Ends when it is lost: a film does. Closing it closes the device.

    Raises:
        SpecError: it gives no pictures.
        SensorError: it cannot be opened.
    """
    if "rgb" not in device.space.spaces:
        fields = f"fields {sorted(device.space.spaces)}"
        raise SpecError("touch calibration", "a device with 'rgb'", fields, "Take a gel camera.")
    device.open()
    try:
        while True:
            try:
                captured = device.wait(_WAIT_S)
            except SensorLost:
                return
            yield None if captured is None else np.asarray(captured.frame.arrays()["rgb"], np.uint8)
    finally:
        device.close()


def film(path: str | Path, settings: TouchSettings) -> GelCamera:
    """A film of the bare camera (not cut, not turned) as the device that it was taken with.

    Raises:
        SensorError: it cannot be opened.
    """
    import cv2

    capture = cv2.VideoCapture(str(path))
    size = [int(capture.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    capture.release()
    if min(size) < 1:
        raise SensorError("touch calibration", "a film", f"'{path}', which cannot be opened", "Check the path.")
    return GelCamera(
        model=settings.model, device=str(path), capture_width=size[0], capture_height=size[1], fps=None,
        width=settings.width, height=settings.height, reference_frames=0, size_m=settings.size_m, speed=_FASTEST,
    )  # fmt: skip


def capture_presses(
    pictures: Iterator[Rgb | None],
    settings: TouchSettings,
    count: int,
    timeout_s: float = math.inf,
    report: Callable[[str], None] | None = None,
) -> Session:
    """Take the untouched gel first, then presses: each when the ball rests, and where none was before.

    Args:
        pictures: one after the other; None = none came for a while. Their end ends the session.
        settings: fingertip and ball.
        count: presses to take; 0 = the untouched gel only.
        timeout_s: how long at most between one press and the next.
        report: told what to do and what happened, line by line.

    Raises:
        DataError: pictures of another size.
        SensorError: the gel was touched at first, no press came in time, or the pictures ended before there were
            ``settings.least_presses``.
    """
    say = report or _silent
    say("touch nothing: the background is taken")
    background, noise = mean_picture(_untouched(pictures, timeout_s))
    taken: list[Rgb] = []
    circles: list[Circle] = []
    seen: Counter[str] = Counter()
    last: Circle | None = None
    if count:
        say(f"press the ball, {count} times, all over the gel: rest, lift, go elsewhere")
    end_s = host_now_s() + timeout_s
    while len(taken) < count:
        picture = next(pictures, _ENDED)
        if isinstance(picture, _Ended):
            if len(taken) >= settings.least_presses:
                say(f"the pictures ended after {len(taken)} presses")
                break
            raise _too_few("the pictures ended", taken, settings, seen)
        if host_now_s() > end_s:
            raise _too_few(f"no new press within {timeout_s:g} s", taken, settings, seen)
        if picture is None:
            continue
        found = find_contact(picture, background, settings)
        if isinstance(found, Refusal):
            last = None
            if found.reason is not Reason.NO_CONTACT:
                seen[found.reason.value] += 1
            continue
        circle, before = found.circle, last
        last = circle
        if before is None or _apart(circle, before) > _REST or abs(circle.radius_m / before.radius_m - 1) > _REST:
            continue
        if any(_apart(circle, other) < _NEW for other in circles):
            seen["where one was before"] += _apart(circle, circles[-1]) >= _NEW  # the ball may rest where it was taken
            continue
        taken.append(picture)
        circles.append(circle)
        end_s = host_now_s() + timeout_s
        say(f"press {len(taken)} of {count}: a circle of {1000 * circle.radius_m:.2f} mm")
    return Session(background, tuple(taken), tuple(f"press_{n:04d}.png" for n in range(len(taken))), noise=noise)


def _silent(_line: str) -> None:
    """Nobody listens."""


class _Ended:
    """There are no more pictures."""


_ENDED = _Ended()


def _untouched(pictures: Iterator[Rgb | None], timeout_s: float) -> list[Rgb]:
    found: list[Rgb] = []
    end_s = host_now_s() + timeout_s
    for picture in pictures:
        if host_now_s() > end_s:
            break
        if picture is None:
            continue
        if found and float(np.abs(picture.astype(np.int16) - found[-1]).mean()) > _STILL:
            raise SensorError("touch calibration", "an untouched gel", "one that changed", "Touch nothing at first.")
        found.append(picture)
        if len(found) == _BACKGROUND:
            return found
    got = f"{len(found)}"
    raise SensorError("touch calibration", f"{_BACKGROUND} pictures of the untouched gel", got, "Does it stream?")


def _apart(one: Circle, other: Circle) -> float:
    return math.hypot(one.x_m - other.x_m, one.y_m - other.y_m) / max(one.radius_m, other.radius_m)


def _too_few(what: str, taken: list[Rgb], settings: TouchSettings, seen: Counter[str]) -> SensorError:
    counted = ", ".join(f"{number} pictures {kind}" for kind, number in seen.items())
    got = f"{len(taken)} when {what}" + (f" ({counted})" if counted else "")
    fix = "Press the ball, whole within the picture, rest, lift it, and go elsewhere."
    return SensorError("touch calibration", f"{settings.least_presses} presses or more", got, fix)
