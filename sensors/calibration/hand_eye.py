"""Where a camera is on a robot's hand, or beside the robot: from pictures of a board and the hand's poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import final

import numpy as np

from sensors.calibration.board import Board
from sensors.calibration.closed_form import daniilidis, mean_pose, park_martin, relative_poses, useful_pairs
from sensors.calibration.intrinsics import ViewFit
from sensors.calibration.lens import Lens
from sensors.calibration.motion import LEAST_POSES, Motion, check_motion, motion_warnings
from sensors.calibration.pnp import board_poses
from sensors.calibration.refine import Reprojection, Solution, rms
from sensors.calibration.views import View
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray, invert, matrix_to_quaternion

_OUTLIER = 3.0  # a view is left out if its error is so many times the median ...
_OUTLIER_PX = 2.0  # ... and more than this, which a robot that is a millimetre off may reach
_MOST_LEFT_OUT = 1 / 3
_SCALE_PERCENT = 0.5  # a board whose size is off by less is as good as rulers are


class Mounting(str, Enum):
    """Where the camera is; the board is at the other place."""

    EYE_IN_HAND = "eye_in_hand"
    EYE_TO_HAND = "eye_to_hand"

    @property
    def carrier(self) -> str:
        """The frame that the camera is fixed in."""
        return "hand" if self is Mounting.EYE_IN_HAND else "base"

    @property
    def board_carrier(self) -> str:
        """The frame that the board is fixed in."""
        return "base" if self is Mounting.EYE_IN_HAND else "hand"


@final
@dataclass(frozen=True, eq=False)
class HandEye:
    """The result.

    Attributes:
        mounting: where the camera is.
        carrier_from_camera: [4, 4], hand_from_camera or base_from_camera.
        carrier_from_board: [4, 4], of the board: base_from_board or hand_from_board.
        position_std_m: [3], standard deviations of the camera's position along its carrier's axes, metres.
        rotation_std_rad: [3], standard deviations of its rotation about its own axes, radians.
        rms_px: root mean square distance of all used corners from where they should be.
        fits: of every view, in the order given.
        residuals_px: per view [K, 2], detected minus expected, of views left out as well.
        start: the closed form that the refinement began at.
        motion: how the hand turned.
        scale: size of the board that fits best, over the stated one.
        scale_std: its standard deviation.
        warnings: what is wanting.
    """

    mounting: Mounting
    carrier_from_camera: FloatArray
    carrier_from_board: FloatArray
    position_std_m: FloatArray
    rotation_std_rad: FloatArray
    rms_px: float
    fits: tuple[ViewFit, ...]
    residuals_px: tuple[FloatArray, ...]
    start: str
    motion: Motion
    scale: float
    scale_std: float
    warnings: tuple[str, ...]

    @property
    def position_m(self) -> list[float]:
        """Position [3] of the camera in its carrier's frame, for :class:`sensors.live.Mount`."""
        return [float(value) for value in self.carrier_from_camera[:3, 3]]

    @property
    def quaternion_xyzw(self) -> list[float]:
        """Rotation [4] of the camera in its carrier's frame, for :class:`sensors.live.Mount`."""
        return [float(value) for value in matrix_to_quaternion(self.carrier_from_camera[:3, :3])]


def calibrate_hand_eye(
    views: Sequence[View],
    base_from_hand: FloatArray,
    board: Board,
    lens: Lens,
    mounting: Mounting,
    *,
    lens_covariance: FloatArray | None = None,
    max_rms_px: float = 5.0,
) -> HandEye:
    """Calibrate.

    Args:
        views: of the board, one a pose.
        base_from_hand: [N, 4, 4], the hand's pose in each view.
        board: fixed in the base frame for a camera in the hand, and in the hand for a camera beside the robot.
        lens: of the camera.
        mounting: which of both.
        lens_covariance: [9, 9] of :class:`Intrinsics`, to be part of the standard deviations; None = the lens is exact.
        max_rms_px: a worse agreement than this is an error.

    Raises:
        SpecError: not as many poses as views, or the pictures are not of the lens' size.
        DataError: too few poses, a motion that leaves the answer open, or poses that do not explain the pictures.
    """
    poses = np.asarray(base_from_hand, float)
    if poses.shape != (len(views), 4, 4):
        raise SpecError(
            "calibrate_hand_eye", f"base_from_hand [{len(views)}, 4, 4]", str(poses.shape), "Give one pose a view."
        )
    for view in views:
        if (view.width, view.height) != (lens.width, lens.height):
            raise SpecError(
                f"picture '{view.name}'", f"{lens.width} x {lens.height} px, as the intrinsics",
                f"{view.width} x {view.height} px", "Calibrate the intrinsics at this resolution.",
            )  # fmt: skip
    carriers = invert(poses) if mounting is Mounting.EYE_IN_HAND else poses
    check_motion(carriers, mounting.carrier)
    boards = [board_poses(lens, board, view) for view in views]
    solution, start, used = _solve_robustly(views, boards, carriers, board, lens)
    # A bad view may have been the only one that turned the hand.
    motion = check_motion(carriers[used], mounting.carrier)
    if solution.rms_px > max_rms_px or len(used) < (1 - _MOST_LEFT_OUT) * len(views):
        from sensors.calibration.diagnosis import explain

        raise explain(views, boards, poses, board, lens, mounting, solution.rms_px, len(used), max_rms_px)
    problem = make_problem(views, carriers, board, lens)
    errors = problem.errors_px(solution.x, solution.w)
    fits = tuple(ViewFit(v.name, rms([e]), i in used) for i, (v, e) in enumerate(zip(views, errors, strict=True)))
    sized = make_problem([views[i] for i in used], carriers[used], board, lens).solve(solution.x, solution.w, True)
    scale_std = float(np.sqrt(sized.covariance[12, 12]))
    said = [f"view '{fit.name}' was left out: {fit.rms_px:.1f} px off" for fit in fits if not fit.used]
    said += motion_warnings(motion, len(used)) + _scale_warnings(board, sized.scale, scale_std)
    covariance = solution.covariance
    if lens_covariance is not None:
        moved = make_problem([views[i] for i in used], carriers[used], board, lens).by_lens(solution)
        covariance = covariance + moved @ lens_covariance @ moved.T
    deviations = np.sqrt(np.diag(covariance))
    return HandEye(
        mounting, solution.x, solution.w, deviations[3:6], deviations[:3], solution.rms_px, fits, tuple(errors), start,
        motion, sized.scale, scale_std, tuple(said),
    )  # fmt: skip


def solve_hand_eye(
    views: Sequence[View], boards: Sequence[FloatArray], carriers: FloatArray, board: Board, lens: Lens
) -> tuple[Solution, str]:
    """The refined solution and the name of the closed form it began at; no view is left out.

    Args:
        views: one a pose.
        boards: per view the poses that :func:`sensors.calibration.pnp.board_poses` found.
        carriers: G [N, 4, 4], see :mod:`sensors.calibration.refine`.
        board: the board.
        lens: of the camera.

    Raises:
        DataError: no two poses differ by a turn.
    """
    problem = make_problem(views, carriers, board, lens)
    chosen = np.stack([poses[0] for poses in boards])
    starts: list[tuple[float, str, FloatArray, FloatArray]] = []
    for name, method in _METHODS.items():
        # A board that is hardly tilted may lean to either side; the other views tell which.
        for _ in range(2):
            found = _start(method, carriers, chosen)
            if found is None:
                break
            x, w = found
            starts.append((_median_error(problem, x, w), name, x, w))
            expected = invert(x) @ carriers @ w
            chosen = np.stack([_nearest(poses, goal) for poses, goal in zip(boards, expected, strict=True)])
    if not starts:
        raise DataError(
            "hand-eye calibration", "pairs of poses with turns of 3 to 170 degrees", "none",
            "Turn the hand by 20 to 40 degrees between the pictures.",
        )  # fmt: skip
    _, name, x, w = min(starts, key=lambda item: item[0])
    return problem.solve(x, w), name


def make_problem(views: Sequence[View], carriers: FloatArray, board: Board, lens: Lens) -> Reprojection:
    """The reprojection errors of views."""
    corners_m = board.corners_m
    points = [corners_m[view.corners.ids] for view in views]
    return Reprojection(lens, carriers, points, [view.corners.pixels for view in views])


def _solve_robustly(
    views: Sequence[View], boards: Sequence[FloatArray], carriers: FloatArray, board: Board, lens: Lens
) -> tuple[Solution, str, list[int]]:
    """The solution without views that do not fit, and the numbers of those that were used."""
    used = list(range(len(views)))
    while True:
        some = [views[i] for i in used]
        solution, start = solve_hand_eye(some, [boards[i] for i in used], carriers[used], board, lens)
        errors = np.array([rms([part]) for part in solution.residuals_px])
        worst = int(np.argmax(errors))
        fits = errors[worst] <= max(_OUTLIER * float(np.median(errors)), _OUTLIER_PX)
        if fits or len(used) <= max(LEAST_POSES + 1, round((1 - _MOST_LEFT_OUT) * len(views)) - 1):
            return solution, start, used
        used.pop(worst)


_Method = Callable[[FloatArray, FloatArray], FloatArray]
_METHODS: dict[str, _Method] = {"Park-Martin": park_martin, "Daniilidis": daniilidis}


def _start(method: _Method, carriers: FloatArray, boards: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """X and W in closed form from ``camera_from_board`` [N, 4, 4]; None if no pair of views is of use."""
    a, b = useful_pairs(relative_poses(carriers), relative_poses(boards))
    if len(a) < 2:
        return None
    x = method(a, b)
    return x, mean_pose(invert(carriers) @ x @ boards)


def _median_error(problem: Reprojection, x: FloatArray, w: FloatArray) -> float:
    """Median over all corners; a corner behind the camera is infinitely wrong."""
    lengths = np.linalg.norm(np.concatenate(problem.errors_px(x, w)), axis=1)
    return float(np.median(np.where(np.isfinite(lengths), lengths, np.inf)))


def _nearest(poses: FloatArray, goal: FloatArray) -> FloatArray:
    """The pose whose rotation is nearest to another's."""
    likeness = np.einsum("nij,ij->n", poses[:, :3, :3], goal[:3, :3])
    out: FloatArray = poses[int(np.argmax(likeness))]
    return out


def _scale_warnings(board: Board, scale: float, scale_std: float) -> list[str]:
    percent = 100 * abs(scale - 1)
    if percent < _SCALE_PERCENT or percent < 400 * scale_std:
        return []
    fits = f"the robot's motion fits a board of {100 * scale:.1f} % of the stated size (+- {100 * scale_std:.1f} %)"
    square = f"measure a square, it would be {1000 * scale * board.square_m:.2f} mm"
    return [f"{fits}: {square}; printers shrink pages that are to be fitted"]
