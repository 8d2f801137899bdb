"""Spaces as data: checking an array against its declared space, and spaces to and from JSON for file headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.errors import SpecError, nearest

Json = dict[str, Any]


def box(low: float, high: float, shape: tuple[int, ...], dtype: Any = np.float32) -> spaces.Box:
    """A Box with scalar bounds."""
    return spaces.Box(low=low, high=high, shape=shape, dtype=dtype)


def check_array(where: str, value: NDArray[Any], space: spaces.Box) -> None:
    """Raise SpecError unless ``value`` has the shape and kind of dtype that ``space`` declares.

    Bounds and finiteness are not checked here: a NaN or an outlier is a fact of a sensor, masked and counted by the
    rig; a wrong shape is a fault of the wiring.
    """
    if value.shape != space.shape:
        raise SpecError(
            where,
            f"shape {space.shape}",
            f"shape {value.shape}",
            "Make the sensor's settings (image size, number of joints) match what it delivers.",
        )
    if not np.can_cast(value.dtype, np.dtype(space.dtype), casting="same_kind"):
        raise SpecError(where, f"dtype {space.dtype}", f"dtype {value.dtype}", "Convert it in the sensor's read().")


def check_keys(where: str, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise SpecError unless both mappings have the same keys; names the nearest valid one."""
    for name in got:
        if name not in expected:
            raise SpecError(where, f"the keys {sorted(expected)}", f"unknown key '{name}'", nearest(name, expected))
    for name in expected:
        if name not in got:
            raise SpecError(where, f"the keys {sorted(expected)}", f"no '{name}'", f"Provide '{name}'.")


def space_to_json(space: spaces.Space[Any]) -> Json:
    """A Dict or Box space as plain JSON data; per-element bounds are kept exactly.

    Raises:
        SpecError: the space is neither a Dict nor a Box.
    """
    if isinstance(space, spaces.Dict):
        return {"type": "dict", "spaces": {name: space_to_json(part) for name, part in space.spaces.items()}}
    if isinstance(space, spaces.Box):
        return {
            "type": "box",
            "shape": list(space.shape),
            "dtype": np.dtype(space.dtype).name,
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
        }
    raise SpecError("space_to_json", "a Dict or Box space", type(space).__name__, "Describe the data with Box spaces.")


def space_from_json(data: Json) -> spaces.Space[Any]:
    """The inverse of :func:`space_to_json`.

    Raises:
        SpecError: the data were not written by :func:`space_to_json`.
    """
    if data.get("type") == "dict":
        return spaces.Dict({name: space_from_json(part) for name, part in data["spaces"].items()})
    if data.get("type") == "box":
        shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
        low = np.broadcast_to(np.asarray(data["low"], dtype=dtype), shape)
        high = np.broadcast_to(np.asarray(data["high"], dtype=dtype), shape)
        return spaces.Box(low=low.copy(), high=high.copy(), dtype=dtype.type)
    raise SpecError("space_from_json", "type 'dict' or 'box'", repr(data.get("type")), "The file header is damaged.")


def _bound_to_json(bound: NDArray[Any]) -> Any:
    if not bound.size:
        return 0  # an empty array has no bounds to keep
    first = bound.flat[0]
    return first.item() if bool(np.all(bound == first)) else bound.tolist()
