"""The instruction: what the robot is to do, in words, as a sensor."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.base import Sensor, World
from sensors.errors import SpecError
from sensors.frames import TextFrame
from sensors.simulated import check_settings, not_ready, require_world
from sensors.spec import box
from sensors.timeline import Timing


@final
class InstructionSensor(Sensor):
    """The words of the task: the world's, or a text of its own.

    An instruction does not grow stale, so give its timing a ``max_age_s`` that no episode reaches.

    Args:
        timing: rate, delay, dropout, history.
        length: L, bytes of the text in UTF-8; shorter ones are padded with zeros.
        text: what to say always, on hardware, say; no world is needed then. None = what the world says.

    Raises:
        SpecError: an argument is out of its range, or ``text`` does not fit.
    """

    def __init__(self, *, timing: Timing, length: int = 96, text: str | None = None) -> None:
        check_settings("InstructionSensor", {"length": (length >= 1, length, "at least 1")})
        if text is not None:
            to_bytes(text, length)
        self._timing = timing
        self._length = length
        self._text = text
        self._world: World | None = None
        self._open = False
        self._begun = False

    @property
    def space(self) -> spaces.Dict:
        """text; see :class:`sensors.frames.TextFrame`."""
        return spaces.Dict({"text": box(0, 255, (self._length,), np.uint8)})

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Take the world whose instruction is shown; without one if there is a text.

        Raises:
            SensorError: there is neither.
        """
        self._world = require_world("InstructionSensor", world) if self._text is None else None
        self._open = True

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode; there is no noise."""
        self._begun = True

    def read(self, now_s: float) -> TextFrame:
        """The instruction as it is now.

        Raises:
            SensorError: not open, or not reset.
            SpecError: it does not fit into ``length``.
        """
        if not (self._open and self._begun):
            raise not_ready("InstructionSensor")
        if self._text is not None:
            text = self._text
        else:
            assert self._world is not None, "open() takes one"
            text = self._world.instruction
        return TextFrame(stamp_s=now_s, text=to_bytes(text, self._length))

    def close(self) -> None:
        """Let go of the world."""
        self._world, self._open = None, False


def to_bytes(text: str, length: int) -> NDArray[np.uint8]:
    """A text as uint8 [length]: UTF-8, then zeros.

    Nothing is cut off: what is missing from an instruction would be missed only when the robot does the wrong thing.

    Raises:
        SpecError: it is longer, or holds what no UTF-8 text can (a lone surrogate) or what means its end (NUL).
    """
    where = "text of an instruction"
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SpecError(where, "characters of Unicode", f"{text!r}: {error.reason}", "Correct the text.") from None
    if b"\0" in data:
        raise SpecError(where, "no NUL character, which marks its end", repr(text), "Remove it.")
    if len(data) > length:
        got = f"{len(data)} bytes: {text!r}"
        raise SpecError(
            where, f"at most {length} bytes", got, f"Set length: {len(data)} or more in its sensor's config."
        )
    out = np.zeros(length, np.uint8)
    out[: len(data)] = np.frombuffer(data, np.uint8)
    return out


def to_text(array: NDArray[Any]) -> str:
    """The inverse of :func:`to_bytes`: the text in uint8 [L] up to the first zero.

    Bytes that are no UTF-8 become replacement characters (U+FFFD): one damaged frame must not end a training.
    """
    return array.astype(np.uint8, copy=False).tobytes().partition(b"\0")[0].decode("utf-8", "replace")
