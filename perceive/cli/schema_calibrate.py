"""The settings of ``perceive calibrate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from perceive.cli.schema_parts import Component


class CalibrateMode(Enum):
    """What ``perceive calibrate`` does."""

    board = "board"
    intrinsics = "intrinsics"
    eye_in_hand = "eye_in_hand"
    eye_to_hand = "eye_to_hand"


@dataclass
class SimulatedSchema:
    """The camera and robot of a dry run (simulate=true).

    Attributes:
        width: of the pictures, px.
        height: of the pictures, px.
        picture_noise: standard deviation of each pixel, grey values.
        robot_mm: standard deviation of what the robot says of its hand's position, millimetres.
        robot_deg: the same of its rotation, degrees.
    """

    width: int = 640
    height: int = 480
    picture_noise: float = 2.0
    robot_mm: float = 0.1
    robot_deg: float = 0.01


@dataclass
class CalibrateSchema:
    """Settings of ``perceive calibrate``.

    Attributes:
        mode: board (print one), intrinsics, eye_in_hand (camera on the hand, board fixed) or eye_to_hand (camera fixed,
            board on the hand).
        touch: a fingertip that films its gel, touch=digit or touch=gelsight_mini; calibrates it by presses of a ball,
            whatever the mode.
        refit: for touch: file of another fingertip of the kind; only background and gain are found, no presses needed.
        pictures: folder of pictures of the board; for touch, of background.png and press_*.png, or a film.
        poses: file of the hand's pose in every picture; by default poses.json among the pictures.
        camera: a camera sensor to take the pictures with, for mode=intrinsics and touch; +sensor@camera=<name>.
        simulate: render pictures instead, to try the command without a camera.
        intrinsics: file of mode=intrinsics; by default they are found from the same pictures.
        link: the robot's link whose poses are given, for mode=eye_in_hand (the URDF's name, or tool).
        output: folder of what is written.
        count: pictures to take or render.
        timeout_s: the longest wait for a new view or press of a live camera, seconds.
        seed: of the dry run.
        coefficients: of the distortion, 0, 2, 4 or 5 (k1 k2 p1 p2 k3).
        least_views: intrinsics need so many.
        least_coverage: share of the picture that corners should cover, else a warning.
        max_rms_px: a hand-eye calibration that fits worse is an error.
        paper: of the board to print, a4, a3, letter or tabloid.
        dpi: of the board to print.
        board: the ChArUco board; measure square_m on the print.
        simulated: the camera and robot of a dry run.
    """

    mode: CalibrateMode = CalibrateMode.board
    touch: Component | None = None
    refit: str | None = None
    pictures: str | None = None
    poses: str | None = None
    camera: Component | None = None
    simulate: bool = False
    intrinsics: str | None = None
    link: str | None = None
    output: str = MISSING
    count: int = 20
    timeout_s: float = 60.0
    seed: int = 0
    coefficients: int = 5
    least_views: int = 6
    least_coverage: float = 0.6
    max_rms_px: float = 5.0
    paper: str = "a4"
    dpi: float = 600.0
    board: Component = MISSING
    simulated: SimulatedSchema = field(default_factory=SimulatedSchema)
