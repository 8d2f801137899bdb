"""Typed errors. Each one says where it happened, what was expected, what came, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PerceiveError(Exception):
    """Base of all errors meant for users.

    Args:
        where: the object or file that complains, e.g. ``"sensor 'front'"``.
        expected: what it needed.
        got: what it was given.
        fix: what the reader can do about it.
    """

    def __init__(self, where: str, expected: str, got: str, fix: str) -> None:
        self.where = where
        self.expected = expected
        self.got = got
        self.fix = fix
        super().__init__(f"{where}: expected {expected}; got {got}. {fix}")

    def __reduce__(self) -> tuple[type[PerceiveError], tuple[str, str, str, str]]:
        # Exceptions cross process boundaries in vector environments; the default reduce would pass one argument.
        return type(self), (self.where, self.expected, self.got, self.fix)


class SpecError(PerceiveError, ValueError):
    """A value, array or config does not satisfy the space that was declared for it."""


class SensorError(PerceiveError, RuntimeError):
    """A sensor could not be opened or read."""


class SensorLost(SensorError):
    """A sensor that worked went away: unplugged, switched off or silent. It may come back."""


class WiringError(PerceiveError, ValueError):
    """Parts that were put together do not fit: unknown sensor, encoder, head or missing key."""


class DataError(PerceiveError, RuntimeError):
    """A file on disk is missing, truncated, corrupt or was recorded for something else."""


class SafetyStop(PerceiveError, RuntimeError):
    """The robot was stopped because going on would not be safe."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence that names the known name nearest to a misspelt one, or lists what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(names) if names else 'none'}."
