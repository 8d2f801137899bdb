"""Calibrations in words: what was found, how sure it is, what is wanting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sensors.calibration.board import Board
from sensors.calibration.hand_eye import HandEye
from sensors.calibration.intrinsics import Intrinsics, ViewFit


def intrinsics_summary(found: Intrinsics, board: Board, without: Mapping[str, str]) -> str:
    """Lines about intrinsics; ``without`` names the pictures without a board and why."""
    lens = found.lens
    lines = [
        f"intrinsics of {lens.width} x {lens.height} px, {board.describe()}",
        _views(found.fits, without, found.rms_px),
    ]
    for name, value, std in zip(("fx", "fy", "cx", "cy"), lens.intrinsics_px, found.intrinsics_std_px, strict=True):
        lines.append(f"  {name}  {value:10.3f} +- {std:.3f} px")
    for name, value, std in zip(("k1", "k2", "p1", "p2", "k3"), lens.distortion, found.distortion_std, strict=True):
        lines.append(f"  {name}  {value:10.5f} +- {std:.5f}")
    lines.append(
        f"  corners cover {100 * found.coverage:.0f} % of the picture; tilts differ by {found.tilt_span_deg:.0f} deg"
    )
    return "\n".join([*lines, *_warnings(found.warnings)])


def hand_eye_summary(found: HandEye, board: Board, without: Mapping[str, str]) -> str:
    """Lines about a mount; ``without`` names the pictures without a board and why."""
    name = f"{found.mounting.carrier}_from_camera"
    place = [f"{1000 * value:.2f}" for value in found.position_m]
    place_std = [f"{value:.2f}" for value in 1000 * found.position_std_m]
    turn_std = [f"{value:.3f}" for value in np.rad2deg(found.rotation_std_rad)]
    lines = [
        f"{name} ({found.mounting.value}), {board.describe()}",
        _views(found.fits, without, found.rms_px),
        f"  position      {', '.join(place)} mm +- {', '.join(place_std)}",
        f"  quaternion    {', '.join(f'{value:.6f}' for value in found.quaternion_xyzw)} (x y z w)",
        f"  rotation      +- {', '.join(turn_std)} degrees about the camera's axes",
        f"  board's size  {100 * found.scale:.2f} % of the stated one +- {100 * found.scale_std:.2f}",
        f"  the hand turned by {found.motion.turn_deg:.0f} degrees, {found.motion.across_deg:.0f} across the main axis",
        f"  started from  {found.start}",
    ]
    return "\n".join([*lines, *_warnings(found.warnings)])


def _views(fits: Sequence[ViewFit], without: Mapping[str, str], rms_px: float) -> str:
    used = [fit for fit in fits if fit.used]
    best, worst = min(fit.rms_px for fit in used), max(fit.rms_px for fit in used)
    lines = [f"  {rms_px:.3f} px over {len(used)} of {len(fits)} views ({best:.3f} to {worst:.3f})"]
    lines += [f"  no board in '{name}': {why}" for name, why in without.items()]
    return "\n".join(lines)


def _warnings(warnings: Sequence[str]) -> list[str]:
    return [f"  warning: {line}" for line in warnings]
