"""A calibration in words: what was found, how far to trust it, what is wanting."""

from __future__ import annotations

import numpy as np

from sensors.tactile.calibration.calibrate import Calibrated
from sensors.tactile.calibration.result import TouchCalibration

_MOST_NAMED = 8


def touch_summary(found: Calibrated) -> str:
    """Lines about a calibration from presses."""
    calibration = found.calibration
    gel, details = calibration.gel, calibration.details
    errors = [press.left_out for press in found.used]
    circles = [press.contact for press in found.used if press.contact is not None]
    radii = [1000 * contact.circle.radius_m for contact in circles]
    off = [1000 * contact.rms_m for contact in circles]
    lines = [
        f"{calibration.model}, {gel.columns} x {gel.rows} px, {1000 * gel.width_m:.1f} x {1000 * gel.height_m:.1f} mm",
        f"  {len(found.used)} of {len(found.presses)} presses, ball of {1000 * details['ball_radius_m']:.2f} mm radius",
        f"  circles of {min(radii):.2f} to {max(radii):.2f} mm, their crests {np.mean(off):.3f} mm off",
        f"  each press by the fit to the others: {np.mean(errors):.2f} grey values off (worst {np.max(errors):.2f})",
        f"  noise {calibration.noise:.2f} grey values",
        f"  slopes up to {details['steepest_deg']:.0f} degrees; {int(calibration.dead.sum())} dead pixels",
    ]
    refused = [press for press in found.presses if press.refusal is not None]
    lines += [f"  not used, '{press.name}': {press.refusal}" for press in refused[:_MOST_NAMED]]
    if len(refused) > _MOST_NAMED:
        lines.append(f"  not used: {len(refused) - _MOST_NAMED} more, see the file")
    return "\n".join([*lines, *(f"  warning: {line}" for line in found.warnings)])


def refit_summary(before: TouchCalibration, after: TouchCalibration) -> str:
    """Lines about a calibration that was taken over to another fingertip."""
    gains = ", ".join(f"{new / old:.3f}" for old, new in zip(before.gain, after.gain, strict=True))
    changed = np.abs(after.background - before.background).mean()
    return "\n".join(
        [
            f"{after.model}, {after.gel.columns} x {after.gel.rows} px, refitted by its untouched gel",
            f"  lights {gains} times as strong (red, green, blue); background changed by {changed:.1f} grey values",
            f"  noise {after.noise:.2f} grey values; {int(after.dead.sum())} dead pixels",
        ]
    )
