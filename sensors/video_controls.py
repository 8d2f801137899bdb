"""What can be asked of a camera's electronics, by Linux' V4L2: exposure, gain, white balance, focus, zoom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sensors.errors import SensorError, SpecError

if TYPE_CHECKING:
    import cv2

AUTO = "auto"
UVC_DRIVER = Path("/sys/module/uvcvideo/parameters")
_SHARE = 0.1  # cameras round what they are asked for
_AUTO_EXPOSURE, _MANUAL_EXPOSURE = 3, 1  # V4L2_EXPOSURE_APERTURE_PRIORITY, V4L2_EXPOSURE_MANUAL
_EXPOSURES_PER_S = 10_000  # V4L2_CID_EXPOSURE_ABSOLUTE counts units of 100 us

Setting = float | str | None


@dataclass(frozen=True)
class Controls:
    """What is asked of a camera's electronics; None = leave it as it is, "auto" = let the camera choose.

    Attributes:
        exposure_s: exposure time, seconds.
        gain: in the camera's own unit.
        white_balance_k: colour temperature of the light, kelvin.
        focus: in the camera's own unit, 0 = far.
        zoom: in the camera's own unit.
    """

    exposure_s: Setting = None
    gain: float | None = None
    white_balance_k: Setting = None
    focus: Setting = None
    zoom: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            chosen = isinstance(value, str) and value == AUTO and name in ("exposure_s", "white_balance_k", "focus")
            number = isinstance(value, int | float) and math.isfinite(value) and value >= 0
            if not (value is None or chosen or (number and (name != "exposure_s" or value))):
                expected = "a number (exposure: > 0), null, or for exposure, white balance and focus 'auto'"
                raise SpecError(f"camera, {name}", expected, repr(value), "Correct the sensor's config.")

    @property
    def asked(self) -> list[str]:
        """The names of what is not left as it is."""
        return [name for name, value in vars(self).items() if value is not None]


def apply_controls(capture: cv2.VideoCapture, asked: Controls, where: str, path: str) -> float:
    """Set what is asked of an open V4L2 camera, and read back what it made of that.

    Returns:
        Seconds from the driver's stamp of a picture to the middle of its exposure; 0 where that is not known.

    Raises:
        SensorError: the camera does not have the control, or does not take the value; says what it gave.
    """
    import cv2

    def put(key: int, name: str, value: float) -> float:
        if not capture.set(key, value):
            fix = f"Set it to null, or see what there is: v4l2-ctl -L -d {path}"
            raise SensorError(where, f"a camera that takes {name} = {value:g}", "one that does not", fix)
        got = capture.get(key)
        if abs(got - value) > max(_SHARE * abs(value), 0.5):
            fix = f"See what it can do: v4l2-ctl -L -d {path}"
            raise SensorError(where, f"{name} = {value:g}", f"{got:g} from the camera", fix)
        return got

    shift_s = 0.0
    if asked.exposure_s is not None:
        mode = _AUTO_EXPOSURE if asked.exposure_s == AUTO else _MANUAL_EXPOSURE
        put(cv2.CAP_PROP_AUTO_EXPOSURE, "automatic exposure", mode)
    if isinstance(asked.exposure_s, int | float):
        units = put(cv2.CAP_PROP_EXPOSURE, "exposure (100 us)", max(round(asked.exposure_s * _EXPOSURES_PER_S), 1))
        shift_s = exposure_shift_s(units / _EXPOSURES_PER_S)
    if asked.gain is not None:
        put(cv2.CAP_PROP_GAIN, "gain", asked.gain)
    if asked.white_balance_k is not None:
        put(cv2.CAP_PROP_AUTO_WB, "automatic white balance", int(asked.white_balance_k == AUTO))
    if isinstance(asked.white_balance_k, int | float):
        put(cv2.CAP_PROP_WB_TEMPERATURE, "white balance (K)", asked.white_balance_k)
    if asked.focus is not None:
        put(cv2.CAP_PROP_AUTOFOCUS, "automatic focus", int(asked.focus == AUTO))
    if isinstance(asked.focus, int | float):
        put(cv2.CAP_PROP_FOCUS, "focus", asked.focus)
    if asked.zoom is not None:
        put(cv2.CAP_PROP_ZOOM, "zoom", asked.zoom)
    return shift_s


def exposure_shift_s(exposure_s: float, driver: Path = UVC_DRIVER) -> float:
    """From the stamp of Linux' UVC driver to the middle of an exposure of known length, seconds.

    With ``hwtimestamps`` the stamp is when the camera began to capture. Without, which is the default, it is when the
    first bytes of the picture came, which is when the exposure has just ended.
    """
    try:
        begun = (driver / "hwtimestamps").read_text(encoding="ascii").strip() in ("1", "Y")
    except OSError:
        begun = False
    return exposure_s / 2 if begun else -exposure_s / 2
