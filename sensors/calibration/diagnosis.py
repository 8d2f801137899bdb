"""Why the hand's poses do not explain the pictures: the usual mistakes, each tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sensors.calibration.board import Board
from sensors.calibration.lens import Lens
from sensors.calibration.views import View
from sensors.errors import DataError
from sensors.geometry import FloatArray, invert, matrix_to_quaternion, quaternion_to_matrix

if TYPE_CHECKING:
    from sensors.calibration.hand_eye import Mounting


def explain(
    views: Sequence[View],
    boards: Sequence[FloatArray],
    base_from_hand: FloatArray,
    board: Board,
    lens: Lens,
    mounting: Mounting,
    rms_px: float,
    used: int,
    max_rms_px: float,
) -> DataError:
    """The error that says what would make the pictures fit, if one of the usual mistakes does.

    Args:
        views: one a pose.
        boards: per view the poses of the board that its corners allow.
        base_from_hand: [N, 4, 4], as given.
        board: the board.
        lens: of the camera.
        mounting: as given.
        rms_px: how badly they fit.
        used: views that were not left out.
        max_rms_px: what would be good enough.
    """
    from sensors.calibration.hand_eye import Mounting, make_problem, solve_hand_eye

    in_hand = mounting is Mounting.EYE_IN_HAND
    carriers = invert(base_from_hand) if in_hand else base_from_hand
    reordered = base_from_hand.copy()
    reordered[:, :3, :3] = quaternion_to_matrix(np.roll(matrix_to_quaternion(base_from_hand[:, :3, :3]), -1, axis=-1))
    other = "eye_to_hand" if in_hand else "eye_in_hand"
    whole, step = slice(None), "pictures and poses are out of step"
    tried = {
        f"with the poses inverted: they are hand_from_base, or the mode should be {other}": (whole, invert(carriers)),
        "with quaternions read as w x y z: write x y z w": (whole, invert(reordered) if in_hand else reordered),
        f"with each picture paired with the next pose: {step}": (slice(None, -1), carriers[1:]),
        f"with each picture paired with the pose before: {step}": (slice(1, None), carriers[:-1]),
    }
    for hint, (some, poses) in tried.items():
        try:
            fit_px = solve_hand_eye(views[some], boards[some], poses, board, lens)[0].rms_px
        except DataError:
            continue
        if fit_px < min(max_rms_px, 0.3 * rms_px):
            return _error(rms_px, used, len(views), f"They fit ({fit_px:.1f} px) {hint}.")
    start, _ = solve_hand_eye(views, boards, carriers, board, lens)
    sized = make_problem(views, carriers, board, lens).solve(start.x, start.w, True)
    if sized.rms_px < min(max_rms_px, 0.3 * rms_px):
        square = f"{1000 * sized.scale * board.square_m:.2f} mm"
        return _error(
            rms_px, used, len(views), f"They fit ({sized.rms_px:.1f} px) with squares of {square}: measure one."
        )
    return _error(
        rms_px, used, len(views),
        "Check that every picture has its own pose, taken at rest, that board and camera did not slip, and that the "
        "intrinsics are of this camera.",
    )  # fmt: skip


def _error(rms_px: float, used: int, views: int, fix: str) -> DataError:
    got = f"{rms_px:.1f} px in {used} of {views} views that agree best"
    return DataError("hand-eye calibration", "poses that explain the pictures to a few pixels", got, fix)
