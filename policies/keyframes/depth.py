"""Depth as 16-bit integers: half the bytes of float32, at a fraction of any depth camera's noise."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

FIELD = "depth_m"
FINEST_M, COARSEST_M = 1e-4, 1e-3
_MOST = 2**16 - 1


def depth_quantum_m(field: str, space: spaces.Box) -> float | None:
    """The step in which a field of a frame is kept, metres; None if it is not a depth picture.

    0.1 mm, which reaches 6.5535 m, or what it takes to reach the field's upper bound, but at most 1 mm.
    """
    if field != FIELD or len(space.shape) < 2 or np.dtype(space.dtype).kind != "f":
        return None
    high_m = float(space.high.max())
    return float(np.clip(high_m / _MOST, FINEST_M, COARSEST_M)) if np.isfinite(high_m) else FINEST_M


def pack(depth_m: NDArray[np.floating], quantum_m: float) -> NDArray[np.uint16]:
    """Depth as multiples of the quantum, off by at most half of it.

    0 stays 0, "no measurement"; so does what is negative, not finite, or farther than 65,535 quanta. A measurement is
    never rounded to 0.
    """
    steps = np.rint(np.asarray(depth_m, np.float64) / quantum_m)
    there = (depth_m > 0) & (steps <= _MOST)  # False for NaN
    return np.where(there, np.maximum(steps, 1.0), 0.0).astype(np.uint16)


def unpack(packed: NDArray[np.uint16], quantum_m: float, out: NDArray[np.float32]) -> None:
    """The inverse of :func:`pack`, into ``out``."""
    out[...] = packed
    out *= np.float32(quantum_m)
