"""What the colours of a cloud mean: its own, height, shine, classes, right and wrong; and the legend that says so."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceive.viewing.draw import BACKGROUND, FAINT, LINES, Picture, blank, write
from sensors.errors import SpecError

Colours = NDArray[np.uint8]  # [N, 3]

RIGHT, WRONG, UNKNOWN = (70, 130, 180), (255, 60, 60), FAINT
TRUTH, GUESS = (60, 200, 110), (255, 150, 30)
_STEPS, _LEAST_LIGHT = 9, 35.0  # levels of red, green and blue to choose from; lightness in Lab, 0 to 100
_ROW_PX, _LETTER_PX = 18, 8


@lru_cache(maxsize=16)
def palette(count: int) -> Colours:
    """The colours of classes, uint8 [count, 3]: those of :data:`LINES`, then each as unlike all before as there is one.

    A class has the same colour in every picture, however many classes there are. Likeness is distance in CIE Lab.
    """
    steps = np.linspace(0, 255, _STEPS).astype(np.uint8)
    chosen = np.array([UNKNOWN, BACKGROUND, *LINES], np.uint8)
    all_of_them = np.concatenate([chosen, np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)])
    lab = cv2.cvtColor((all_of_them / 255).astype(np.float32)[None], cv2.COLOR_RGB2LAB)[0]
    # Too dark to be seen on the background.
    apart = np.where(lab[:, 0] < _LEAST_LIGHT, -1.0, np.inf)
    for row in lab[: len(chosen)]:
        apart = np.minimum(apart, np.linalg.norm(lab - row, axis=1))
    rows = list(range(2, len(chosen)))
    while len(rows) < count:
        rows.append(int(np.argmax(apart)))
        apart = np.minimum(apart, np.linalg.norm(lab - lab[rows[-1]], axis=1))
    out = all_of_them[rows[:count]]
    out.flags.writeable = False  # it is kept for the next call
    return out


def class_colours(label: ArrayLike, classes: int) -> Colours:
    """Of class numbers [N]; what is not known (-1) is grey.

    Raises:
        SpecError: a number beyond the classes.
    """
    label = np.asarray(label, np.int64).reshape(-1)
    if label.size and (label.max() >= classes or label.min() < -1):
        got = f"{label.min()} to {label.max()}"
        raise SpecError("class_colours", f"numbers from -1 to {classes - 1}", got, "Give the names of all classes.")
    out: Colours = np.concatenate([palette(classes), np.array([UNKNOWN], np.uint8)])[label]
    return out


def right_colours(guess: ArrayLike, truth: ArrayLike) -> Colours:
    """Right points [N] are blue and quiet, wrong ones red, and those without a truth (-1) grey."""
    guess, truth = np.asarray(guess).reshape(-1), np.asarray(truth).reshape(-1)
    out = np.where((guess == truth)[:, None], np.array(RIGHT), np.array(WRONG))
    return np.where((truth < 0)[:, None], np.array(UNKNOWN), out).astype(np.uint8)


def value_colours(value: ArrayLike) -> Colours:
    """Numbers [N] from blue to red; the scale goes from the 2nd to the 98th percentile, what is not finite is grey."""
    value = np.asarray(value, float).reshape(-1)
    there = np.isfinite(value)
    if not there.any():
        return np.tile(np.array(UNKNOWN, np.uint8), (len(value), 1))
    low, high = np.percentile(value[there], (2, 98))
    share = np.clip((np.where(there, value, low) - low) / max(high - low, 1e-9), 0, 1)
    coloured = cv2.applyColorMap((255 * share).astype(np.uint8)[None], cv2.COLORMAP_TURBO)[0, :, ::-1]
    return np.where(there[:, None], coloured, np.array(UNKNOWN)).astype(np.uint8)


def own_colours(
    xyz_m: ArrayLike, rgb: NDArray[np.uint8] | None = None, intensity: NDArray[np.floating] | None = None
) -> Colours:
    """Of a cloud as it was measured: its rgb [N, 3], without one its intensity [N], without both its height."""
    if rgb is not None:
        return np.asarray(rgb, np.uint8)
    return value_colours(np.asarray(xyz_m, float).reshape(-1, 3)[:, 2] if intensity is None else intensity)


def legend(names: Sequence[str], colours: ArrayLike, width: int) -> Picture:
    """A strip that names colours [S, 3], in as many rows as it takes."""
    rows: list[list[int]] = [[]]
    used = 0
    for number, name in enumerate(names):
        need = 22 + _LETTER_PX * len(name)
        if rows[-1] and used + need > width:
            rows.append([])
            used = 0
        rows[-1].append(number)
        used += need
    out = blank(_ROW_PX * len(rows), width)
    for row, numbers in enumerate(rows):
        left = 4
        for number in numbers:
            colour = tuple(int(v) for v in np.asarray(colours)[number])
            cv2.rectangle(out, (left, _ROW_PX * row + 4), (left + 9, _ROW_PX * row + 13), colour, cv2.FILLED)
            write(out, names[number], (left + 14, _ROW_PX * row + 13))
            left += 22 + _LETTER_PX * len(names[number])
    return out
