"""From the pictures of a session to a calibrated fingertip."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, final

import numpy as np

from sensors.errors import DataError
from sensors.tactile.calibration.contact import Contact, Refusal, find_contact
from sensors.tactile.calibration.result import TouchCalibration
from sensors.tactile.calibration.samples import Samples, press_samples
from sensors.tactile.calibration.session import Session
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.calibration.spline_fit import SplineFit, fit_splines

_ODD_TIMES, _ODD_MORE = 3.0, 2.0  # a press off by more than 3 times the median and 2 grey values more is left out
_MOST_ODD = 1 / 3
_WELL = 5.0  # grey values: a fit that is worse is warned about
_SHALLOW_RAD = math.radians(15.0)
_FEW = 15


@final
@dataclass(frozen=True, eq=False)
class Press:
    """One press and what became of it.

    Attributes:
        name: of the picture.
        contact: its circle; None = none was found.
        refusal: why it was not used; None = it was. A press with a circle is refused where its colours do not fit the
            others'.
        left_out: mean of the absolute error of its pixels by the fit to all the others, grey values; NaN if not used.
    """

    name: str
    contact: Contact | None
    refusal: str | None
    left_out: float


@final
@dataclass(frozen=True, eq=False)
class Calibrated:
    """A calibration and the presses that it was made from.

    Attributes:
        calibration: the result.
        presses: every picture of the session.
        warnings: what is wanting, in words.
    """

    calibration: TouchCalibration
    presses: tuple[Press, ...]
    warnings: tuple[str, ...]

    @property
    def used(self) -> tuple[Press, ...]:
        """The presses that were fitted."""
        return tuple(press for press in self.presses if press.refusal is None)

    @property
    def refused(self) -> Mapping[str, int]:
        """Why pictures were not used, and how many."""
        return Counter(press.refusal.split(":")[0] for press in self.presses if press.refusal is not None)


def calibrate_touch(session: Session, settings: TouchSettings, bins: int = 125) -> Calibrated:
    """Find the circles, fit the colours, judge each press by the others, and leave out those that do not belong.

    Args:
        session: the pictures.
        settings: fingertip and ball.
        bins: of the table, along slope and direction.

    Raises:
        DataError: too few presses that can be used; says why the others cannot.
    """
    dead = session.dead()
    contacts: dict[str, Contact] = {}
    refusals: dict[str, str] = {}
    samples: dict[str, Samples] = {}
    for name, picture in zip(session.names, session.presses, strict=True):
        found = find_contact(picture, session.background, settings, f"picture '{name}'")
        if isinstance(found, Refusal):
            refusals[name] = f"{found.reason.value}: {found.said}"
            continue
        contacts[name] = found
        samples[name] = press_samples(picture, session.background, found, settings, dead)
    _enough(len(samples), refusals, settings)
    fit, errors = _fitted(samples)
    usual = float(np.median(list(errors.values())))
    odd = [name for name, error in errors.items() if error > max(_ODD_TIMES * usual, usual + _ODD_MORE)]
    if odd and len(odd) <= _MOST_ODD * len(samples):
        for name in odd:
            refusals[name] = f"unlike the others: off by {errors[name]:.1f} grey values, {usual:.1f} is usual"
            del samples[name]
        _enough(len(samples), refusals, settings)
        fit, errors = _fitted(samples)
    presses = tuple(
        Press(name, contacts.get(name), refusals.get(name), errors.get(name, math.nan)) for name in session.names
    )
    details = _details(settings, presses, fit)
    calibration = TouchCalibration(
        settings.model, settings.gel, fit.colours.table(settings.height, settings.width, bins), session.background,
        session.stray, (1.0, 1.0, 1.0), session.noise, dead, details,
    )  # fmt: skip
    return Calibrated(calibration, presses, _warnings(settings, presses, fit))


def _fitted(samples: Mapping[str, Samples]) -> tuple[SplineFit, dict[str, float]]:
    fit = fit_splines(list(samples.values()))
    return fit, dict(zip(samples, fit.left_out.tolist(), strict=True))


def _enough(count: int, refusals: Mapping[str, str], settings: TouchSettings) -> None:
    if count >= settings.least_presses:
        return
    why = "; ".join(f"'{name}' {said}" for name, said in list(refusals.items())[:3])
    kinds = Counter(said.split(":")[0] for said in refusals.values())
    counted = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    raise DataError(
        "touch calibration", f"{settings.least_presses} presses of the ball or more",
        f"{count} of {count + len(refusals)}" + (f" ({counted}: {why})" if why else ""),
        "Press the ball firmly, alone and whole within the picture, at places all over the gel.",
    )  # fmt: skip


def _details(settings: TouchSettings, presses: tuple[Press, ...], fit: SplineFit) -> dict[str, Any]:
    used = [press for press in presses if press.refusal is None]
    return {
        "ball_radius_m": settings.ball_radius_m,
        "left_out_grey": float(np.mean([press.left_out for press in used])),
        "left_out_worst_grey": float(np.max([press.left_out for press in used])),
        "spread_grey": fit.spread,
        "steepest_deg": math.degrees(fit.colours.steepest_rad),
        "presses": {
            press.name: (
                {
                    "x_mm": round(1000 * press.contact.circle.x_m, 4),
                    "y_mm": round(1000 * press.contact.circle.y_m, 4),
                    "radius_mm": round(1000 * press.contact.circle.radius_m, 4),
                    "left_out_grey": round(press.left_out, 3),
                }
                if press.refusal is None and press.contact is not None
                else {"refused": press.refusal}
            )
            for press in presses
        },
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _warnings(settings: TouchSettings, presses: tuple[Press, ...], fit: SplineFit) -> tuple[str, ...]:
    used = [press for press in presses if press.refusal is None]
    found = []
    if len(used) < _FEW:
        found.append(f"{len(used)} presses were used; 20 to 50 tell more")
    error = float(np.mean([press.left_out for press in used]))
    if error > _WELL:
        found.append(
            f"presses are off by {error:.1f} grey values: is ball_radius_m right, the ball clean, the exposure fixed?"
        )
    if fit.colours.steepest_rad < _SHALLOW_RAD:
        found.append(
            f"slopes up to {math.degrees(fit.colours.steepest_rad):.0f} degrees only: press deeper, or a smaller ball"
        )
    gel = settings.gel
    circles = [press.contact.circle for press in used if press.contact is not None]
    for axis, size, name in (("x_m", gel.width_m, "width"), ("y_m", gel.height_m, "height")):
        places = [getattr(circle, axis) for circle in circles]
        reach = [circle.radius_m for circle in circles]
        span = max(p + r for p, r in zip(places, reach, strict=True)) - min(
            p - r for p, r in zip(places, reach, strict=True)
        )
        if span < 0.7 * size:
            found.append(f"presses cover {100 * span / size:.0f} % of the {name} of the gel")
    return tuple(found)
