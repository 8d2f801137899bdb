"""A calibration taken over to another fingertip of the same kind, by one picture of its untouched gel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sensors.errors import DataError
from sensors.tactile.calibration.result import TouchCalibration
from sensors.tactile.calibration.session import Session
from sensors.tactile.table import ColourTable

_LEAST = 5.0  # grey values of light that a pixel of either background has at least
_GAINS = (0.2, 5.0)


def refit(calibration: TouchCalibration, session: Session) -> TouchCalibration:
    """The calibration of a fingertip with other lights and another background.

    The gain of each colour is the median over the picture of what the lights add to the untouched gel, here and there:
    ``(background - stray) / (background - stray)``. Grey that does not come from the lights (``stray``, known from a
    picture with the lights off) would pull it to 1. Lights at other places and gels of another softness cannot be told
    from one picture.

    Args:
        calibration: of the other fingertip.
        session: of this one; its presses, if any, are not looked at.

    Raises:
        DataError: pictures of another size, or ones in which there is too little light, or too different light.
    """
    if session.background.shape != calibration.background.shape:
        expected = f"a background {list(calibration.background.shape)}"
        fix = "Take it with the same kind of camera and settings."
        raise DataError("refit", expected, str(list(session.background.shape)), fix)
    dead = session.dead()
    gains = []
    for channel, name in enumerate(("red", "green", "blue")):
        before = calibration.background[..., channel] - calibration.stray[channel]
        after = session.background[..., channel] - session.stray[channel]
        lit = (before > _LEAST) & (after > _LEAST) & (session.background[..., channel] < 253) & ~dead
        if lit.mean() < 0.25:
            got = f"light in {100 * lit.mean():.0f} % of the pixels of {name}"
            raise DataError("refit", "a lit, not saturated gel", got, "Check its lights, exposure and dark.png.")
        gains.append(float(np.median(after[lit] / before[lit])))
        if not _GAINS[0] < gains[-1] < _GAINS[1]:
            got = f"{name} at {gains[-1]:.2f} times"
            fix = "Is it the same kind of fingertip, and was it calibrated at the same exposure?"
            raise DataError("refit", f"lights between {_GAINS[0]} and {_GAINS[1]} times as strong", got, fix)
    red, green, blue = gains
    table = ColourTable(
        calibration.table.coefficients * np.array(gains)[:, None], calibration.table.rows, calibration.table.columns
    )
    total = tuple(old * new for old, new in zip(calibration.gain, (red, green, blue), strict=True))
    return replace(
        calibration, table=table, background=session.background, stray=session.stray,
        gain=(total[0], total[1], total[2]), noise=session.noise, dead=dead,
        details={**calibration.details, "refit_gain": gains},
    )  # fmt: skip
