"""The wire between a control loop and a robot's process: length-prefixed msgpack messages over a stream socket.

Nothing that is received is executed: arrays travel as dtype, shape and bytes, and only plain numbers are accepted.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError
from sensors.observation import Observation, Stream

VERSION = 1
MAX_BYTES = 1 << 28
_ARRAY = "__array__"
_KINDS = "biuf"
_LENGTH = struct.Struct("!I")
Message = dict[str, Any]


class Disconnected(Exception):
    """The other side is gone, or said nothing in time."""


def send(line: socket.socket, message: Message) -> None:
    """Send one message.

    Raises:
        Disconnected: the other side is gone.
    """
    body = msgpack.packb(message, default=_pack)
    try:
        line.sendall(_LENGTH.pack(len(body)) + body)
    except OSError as error:
        raise Disconnected(f"the line is closed ({error})") from error


def receive(line: socket.socket, timeout_s: float) -> Message:
    """The next message, whole.

    Raises:
        Disconnected: the other side is gone, or did not send a whole message within ``timeout_s``.
        DataError: what came is not a message of this protocol.
    """
    give_up_s = time.monotonic() + timeout_s
    (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size, give_up_s))
    if length > MAX_BYTES:
        raise DataError(
            "robot line", f"a message of at most {MAX_BYTES} bytes", f"{length}", "Check what is connected."
        )
    body = _exactly(line, length, give_up_s)
    try:
        message = msgpack.unpackb(body, object_hook=_unpack)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DataError(
            "robot line", "a msgpack message", f"{type(error).__name__}: {error}", "Check what is connected."
        ) from error
    if not isinstance(message, dict):
        raise DataError("robot line", "a message with named parts", type(message).__name__, "Check what is connected.")
    return message


def pack_observation(observation: Observation) -> Message:
    """An observation as a message part."""
    streams = {n: {"data": dict(s.data), "age_s": s.age_s, "valid": s.valid} for n, s in observation.streams.items()}
    return {"now_s": observation.now_s, "streams": streams}


def unpack_observation(part: Mapping[str, Any]) -> Observation:
    """The inverse of :func:`pack_observation`.

    Raises:
        DataError: a part is missing.
    """
    try:
        streams = {n: Stream(s["data"], s["age_s"], s["valid"]) for n, s in part["streams"].items()}
        return Observation(float(part["now_s"]), streams)
    except (KeyError, TypeError, AttributeError) as error:
        fix = "Run the same version on both sides."
        raise DataError("robot line", "an observation", f"{type(error).__name__}: {error}", fix) from error


def _exactly(line: socket.socket, count: int, give_up_s: float) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        left_s = give_up_s - time.monotonic()
        if left_s <= 0:
            raise Disconnected("no answer in time")
        try:
            line.settimeout(left_s)
            part = line.recv(min(count - len(parts), 1 << 20))
            line.settimeout(None)
        except TimeoutError:
            raise Disconnected("no answer in time") from None
        except OSError as error:  # closed by the other side, or by another thread here
            raise Disconnected(f"the line is closed ({error})") from error
        if not part:
            raise Disconnected("the line is closed")
        parts += part
    return bytes(parts)


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        return {_ARRAY: [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]}
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot travel")


def _unpack(value: Message) -> Any:
    if _ARRAY not in value:
        return value
    kind, shape, data = value[_ARRAY]
    dtype = np.dtype(kind)
    if dtype.kind not in _KINDS:
        raise ValueError(f"array of dtype {dtype}")
    array: NDArray[Any] = np.frombuffer(data, dtype).reshape(shape).copy()  # the buffer is read-only
    return array
