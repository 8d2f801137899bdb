"""The pictures of one calibration: a folder of them, read and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.calibration.files import write_beside
from sensors.calibration.views import PICTURE_ENDINGS
from sensors.errors import DataError
from sensors.tactile.calibration.contact import Rgb, check_picture, noise_of
from sensors.tactile.calibration.settings import TouchSettings

BACKGROUND, PRESS, DARK = "background", "press", "dark"
_STUCK = 40.0  # grey values by which a pixel of the untouched gel differs from those around it if it does not work


@final
@dataclass(frozen=True, eq=False)
class Session:
    """Pictures of one fingertip.

    Attributes:
        background: the untouched gel, float32 [h, w, 3], grey values, the mean of however many pictures there were.
        presses: of the ball pressed in, uint8 [h, w, 3] each.
        names: of the presses.
        stray: grey values [3] that are there with the fingertip's lights off; 0 where that is not known.
        noise: standard deviation of a pixel in one picture, grey values.
    """

    background: NDArray[np.float32]
    presses: tuple[Rgb, ...] = ()
    names: tuple[str, ...] = ()
    stray: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise: float = field(default=1.5)

    def dead(self) -> NDArray[np.bool_]:
        """Pixels that do not work, bool [h, w]: far from those around them with nothing there, or always the same."""
        import cv2

        around = np.stack([cv2.medianBlur(np.ascontiguousarray(p), 5) for p in np.moveaxis(self.background, 2, 0)], -1)
        out: NDArray[np.bool_] = (np.abs(self.background - around) > _STUCK).any(axis=2)
        if len(self.presses) >= 8 and self.noise > 0.5:
            low, high = self.presses[0], self.presses[0]
            for press in self.presses[1:]:
                low, high = np.minimum(low, press), np.maximum(high, press)
            out |= (low == high).all(axis=2) & (low < 255).any(axis=2)
        return out


def mean_picture(pictures: Sequence[Rgb]) -> tuple[NDArray[np.float32], float]:
    """The mean of pictures of the same, float32 [h, w, 3], and the noise of one of them."""
    mean = np.asarray(np.mean(np.stack(pictures), axis=0, dtype=np.float64), np.float64)
    if len(pictures) == 1:
        return np.asarray(mean, np.float32), noise_of(mean)
    noises = [noise_of(picture - mean) for picture in pictures]
    # Of n pictures the mean holds 1 / n of each one's noise.
    return np.asarray(mean, np.float32), float(np.median(noises)) / (1 - 1 / len(pictures)) ** 0.5


def read_folder(folder: str | Path, settings: TouchSettings) -> Session:
    """Read background.png, press_*.png and, if it is there, dark.png (the fingertip's lights off).

    Of backgrounds (background_00.png ...) and of dark pictures there may be several: their mean counts. Other picture
    formats will do as well.

    Raises:
        DataError: no such folder, no background, or a picture that cannot be decoded or is of another size.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("pictures", "a folder", f"'{folder}', which is none", "Check the path.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_ENDINGS)
    kinds = {kind: [path for path in files if path.stem.startswith(kind)] for kind in (BACKGROUND, PRESS, DARK)}
    if not kinds[BACKGROUND]:
        expected = f"{BACKGROUND}.png in '{folder.name}'"
        got = ", ".join(path.name for path in files[:4]) or "no pictures"
        raise DataError("pictures", expected, got, "Take a picture of the gel while nothing touches it.")
    background, noise = mean_picture([_read(path, settings) for path in kinds[BACKGROUND]])
    stray = (0.0, 0.0, 0.0)
    if kinds[DARK]:
        red, green, blue = mean_picture([_read(path, settings) for path in kinds[DARK]])[0].mean(axis=(0, 1)).tolist()
        stray = (red, green, blue)
    presses = tuple(_read(path, settings) for path in kinds[PRESS])
    if presses and len(kinds[BACKGROUND]) == 1:  # the difference of two pictures holds the noise of both, no texture
        noise = float(np.median([noise_of(press.astype(np.float64) - background) for press in presses])) / 2**0.5
    return Session(background, presses, tuple(path.name for path in kinds[PRESS]), stray, noise)


def write_folder(folder: str | Path, session: Session) -> None:
    """Write a session as :func:`read_folder` reads it; the background in whole grey values."""
    folder = Path(folder)
    write_beside(folder / f"{BACKGROUND}.png", png(np.clip(np.rint(session.background), 0, 255).astype(np.uint8)))
    for name, press in zip(session.names, session.presses, strict=True):
        write_beside(folder / name, png(press))
    if any(session.stray):
        dark = np.broadcast_to(np.rint(session.stray).astype(np.uint8), session.background.shape)
        write_beside(folder / f"{DARK}.png", png(dark))


def png(picture: Rgb) -> bytes:
    """An RGB picture as a PNG file."""
    import cv2

    return bytes(cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1])


def _read(path: Path, settings: TouchSettings) -> Rgb:
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError(f"picture '{path.name}'", "a picture", "a file that cannot be decoded", "Remove or replace it.")
    return check_picture(np.ascontiguousarray(picture[..., ::-1]), settings.gel, f"picture '{path.name}'")
