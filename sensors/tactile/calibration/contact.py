"""The circle in which a ball touches the gel, found in a picture by what changed against the untouched gel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError
from sensors.geometry import FloatArray
from sensors.tactile.calibration.circle import Circle, fit_circle
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.gel import Gel

Rgb = NDArray[np.uint8]

_RAYS = 180
_BLACK = 8.0  # a picture with a brighter mean is not black, grey values
_NOISES = 8.0  # a contact changes the smoothed picture by so many standard deviations of its noise at least
_BLOB = 0.4  # share of the greatest change that makes out the contact
_SECOND = 0.1  # share of the largest blob's area that a second contact has at least
_FAINT = 0.35  # share of the usual crest below which a ray's crest is none
_LEAST_PX = 5.0  # radius of the smallest circle
_AGREE = 0.6  # share of all rays whose crests must lie on the circle
_SMOOTH_PX = 1.5


class Reason(str, Enum):
    """Why a picture is of no use."""

    NO_CONTACT = "no contact"
    CUT = "cut by the border"
    SEVERAL = "several contacts"
    NOT_ROUND = "not a circle"
    TOO_SMALL = "too small"
    TOO_DEEP = "deeper than half of the ball"
    SATURATED = "saturated"
    BLACK = "black"


@final
@dataclass(frozen=True)
class Refusal:
    """A picture of no use.

    Attributes:
        reason: why.
        said: what was found, in words.
    """

    reason: Reason
    said: str


@final
@dataclass(frozen=True, eq=False)
class Contact:
    """A ball's contact.

    Attributes:
        circle: where the gel begins to leave the ball.
        points_m: [N, 2] of its crest that the circle was fitted to, metres.
        rms_m: how far they lie from it.
        noise: of the picture, standard deviation of a pixel, grey values.
    """

    circle: Circle
    points_m: FloatArray
    rms_m: float
    noise: float


def check_picture(picture: NDArray[np.generic], gel: Gel, where: str) -> Rgb:
    """The picture as it came.

    Raises:
        DataError: not uint8 [h, w, 3] of the gel's pixels.
    """
    shape = (gel.rows, gel.columns, 3)
    if picture.dtype != np.uint8 or picture.shape != shape:
        fix = "Calibrate with upright pictures of one size; set width and height to it."
        raise DataError(where, f"uint8 {list(shape)}", f"{picture.dtype} {list(picture.shape)}", fix)
    return np.asarray(picture, np.uint8)


def noise_of(change: FloatArray) -> float:
    """Standard deviation of a pixel's noise [h, w, 3], by the median of a mask that what is smooth does not pass.

    Paper: J. Immerkaer, "Fast Noise Variance Estimation", Computer Vision and Image Understanding 64(2), 1996.
    """
    across = change[:, :-2] - 2 * change[:, 1:-1] + change[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]
    # The mask has the norm 6; rounding to whole grey values leaves no less than 1 / sqrt(12).
    return max(float(np.median(np.abs(both))) / 0.6745 / 6, 12**-0.5)


def find_contact(
    picture: Rgb, background: NDArray[np.floating], settings: TouchSettings, where: str = "picture"
) -> Contact | Refusal:
    """Find the circle of a ball's contact.

    What changed is smoothed and its largest blob taken; from its middle, rays look for the crest of the change: the gel
    is steepest where it leaves the ball. A circle is fitted to the crests (see :func:`fit_circle`), in metres, since
    pixels need not be square; and again from its middle.

    Args:
        picture: uint8 [h, w, 3].
        background: the untouched gel, [h, w, 3], grey values.
        settings: fingertip and ball.
        where: of errors.

    Returns:
        The contact, or why there is none to be used.

    Raises:
        DataError: picture or background is not of the settings' size.
    """
    import cv2

    gel = settings.gel
    check_picture(picture, gel, where)
    if background.shape != picture.shape:
        fix = "Give the background of the same camera and size."
        raise DataError(f"{where}, background", str(list(picture.shape)), str(list(background.shape)), fix)
    if picture.mean() < _BLACK:
        return Refusal(Reason.BLACK, f"a mean of {picture.mean():.1f} grey values")
    for name, bad, before in (("255", picture == 255, background >= 254.5), ("0", picture == 0, background <= 0.5)):
        share = float((bad & ~before).mean(axis=(0, 1)).max())
        if share > settings.saturated_share:
            return Refusal(Reason.SATURATED, f"{100 * share:.0f} % of the pixels of a colour at {name}")
    change: FloatArray = picture.astype(np.float64) - background
    noise = noise_of(change)
    smooth = cv2.GaussianBlur(change, (0, 0), _SMOOTH_PX)
    size = np.sqrt((smooth**2).sum(axis=2))
    peak = float(np.quantile(size, 0.999))
    if peak < max(settings.least_change, _NOISES * noise / _SMOOTH_PX):
        return Refusal(Reason.NO_CONTACT, f"changes of {peak:.1f} grey values, noise of {noise:.1f}")
    found = _blob(size, peak, gel)
    if isinstance(found, Refusal):
        return found
    start, cut = found
    rng = np.random.default_rng(0)  # the same picture gives the same circle
    circle = start
    on: FloatArray = np.zeros((0, 2))
    for _ in range(3):
        crests = _crests(size, circle, gel)
        fit = fit_circle(crests, max(0.06 * circle.radius_m, 1.5 * max(gel.pitch_m)), rng)
        if fit is None or fit[1].sum() < _AGREE * _RAYS:
            if cut:
                return Refusal(Reason.CUT, "it reaches over the border")
            agree = 0 if fit is None else int(fit[1].sum())
            return Refusal(Reason.NOT_ROUND, f"{agree} of {_RAYS} rays agree on a circle")
        circle, on = fit[0], crests[fit[1]]
    refused = _judged(circle, gel, settings)
    if refused is not None:
        return refused
    return Contact(circle, on, float(np.sqrt((circle.distances_m(on) ** 2).mean())), noise)


def _blob(size: FloatArray, peak: float, gel: Gel) -> tuple[Circle, bool] | Refusal:
    """The circle about the outline of the largest blob, and whether it touches the border."""
    import cv2

    outlines, _ = cv2.findContours((size > _BLOB * peak).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Areas with what they enclose: in the middle of a ball the gel is flat and nothing changed.
    areas = [cv2.contourArea(outline) for outline in outlines]
    order = np.argsort(areas)[::-1]
    if len(order) > 1 and areas[order[1]] > _SECOND * areas[order[0]]:
        count = int((np.array(areas) > _SECOND * areas[order[0]]).sum())
        return Refusal(Reason.SEVERAL, f"{count} separate changes")
    pixels = np.asarray(outlines[order[0]], np.float64).reshape(-1, 2)
    inside = (pixels > 0).all(axis=1) & (pixels < [gel.columns - 1, gel.rows - 1]).all(axis=1)
    cut = bool(not inside.all())
    fit = fit_circle(_to_m(pixels[inside], gel), 0.0005, np.random.default_rng(0))
    if fit is None:
        return Refusal(Reason.CUT, "it reaches over the border") if cut else Refusal(Reason.TOO_SMALL, "a few pixels")
    return fit[0], cut


def _crests(size: FloatArray, circle: Circle, gel: Gel) -> FloatArray:
    """Where the change is greatest along rays out of a circle's middle, [N, 2] metres; between the samples."""
    import cv2

    step_m = 0.5 * min(gel.pitch_m)
    radii = np.arange(0.3 * circle.radius_m, 1.7 * circle.radius_m, step_m)
    angles = np.arange(_RAYS) * (2 * np.pi / _RAYS)
    x = circle.x_m + radii * np.cos(angles)[:, None]
    y = circle.y_m + radii * np.sin(angles)[:, None]
    at = _to_px(np.stack([x, y], axis=-1), gel).astype(np.float32)
    seen = cv2.remap(
        size.astype(np.float32), at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    best = seen[:, 1:-1].argmax(axis=1) + 1
    rows = np.arange(_RAYS)
    before, top, after = (seen[rows, best + shift].astype(np.float64) for shift in (-1, 0, 1))
    bend = before - 2 * top + after
    # A crest has lower ground on both sides; at the end of a ray it is none.
    good = (bend < 0) & (top >= before) & (top >= after) & (top > _FAINT * np.median(top))
    part = np.where(good, 0.5 * (before - after) / np.where(good, bend, 1.0), 0.0)
    radius = radii[best] + part * step_m
    crest = np.stack([circle.x_m + radius * np.cos(angles), circle.y_m + radius * np.sin(angles)], axis=1)
    # On the outermost pixels the smoothing saw a mirror.
    px = _to_px(crest, gel)
    good &= (px > 1).all(axis=1) & (px < [gel.columns - 2, gel.rows - 2]).all(axis=1)
    out: FloatArray = crest[good]
    return out


def _judged(circle: Circle, gel: Gel, settings: TouchSettings) -> Refusal | None:
    """What makes a circle useless."""
    if circle.radius_m < _LEAST_PX * max(gel.pitch_m):
        return Refusal(Reason.TOO_SMALL, f"a radius of {1000 * circle.radius_m:.2f} mm")
    if circle.radius_m > 0.97 * settings.ball_radius_m:
        got = f"a circle of {1000 * circle.radius_m:.2f} mm with a ball of {1000 * settings.ball_radius_m:.2f} mm"
        return Refusal(Reason.TOO_DEEP, got)
    half_h, half_w = gel.height_m / 2, gel.width_m / 2
    if abs(circle.x_m) + circle.radius_m > half_w or abs(circle.y_m) + circle.radius_m > half_h:
        return Refusal(Reason.CUT, "its circle reaches over the border")
    return None


def _to_m(pixels: FloatArray, gel: Gel) -> FloatArray:
    """Columns and rows [..., 2] (0 = middle of the first pixel) -> metres."""
    dy, dx = gel.pitch_m
    out: FloatArray = (pixels + 0.5 - np.array([gel.columns / 2, gel.rows / 2])) * np.array([dx, dy])
    return out


def _to_px(points_m: FloatArray, gel: Gel) -> FloatArray:
    dy, dx = gel.pitch_m
    out: FloatArray = points_m / np.array([dx, dy]) + np.array([gel.columns / 2 - 0.5, gel.rows / 2 - 0.5])
    return out
