"""ArrayMessage: the arrays of a frame as one protobuf message whose schema travels in the file.

Foxglove publishes no schema for a wrench, a fingertip or a frame type of your own. Here every array field is a packed
repeated field under its own name, so any protobuf reader can decode and plot it. Packed fixed-width values on the wire
are the array's own little-endian bytes, so writing is a copy and what comes back is equal bit by bit.

Encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError, SpecError

PACKAGE = "perceive"
STAMP, CODING = "stamp_s", "coding"
FIRST_ARRAY = 3  # field number of the first array; 1 is the stamp, 2 the coding
LENGTH_DELIMITED, FIXED64 = 2, 1  # wire types
# dtype -> its form on the wire and the name of its protobuf type. Narrow numbers are widened, which is exact.
WIRE = {
    "float64": ("<f8", "DOUBLE"),
    "float32": ("<f4", "FLOAT"),
    "float16": ("<f4", "FLOAT"),
    "int64": ("<i8", "SFIXED64"),
    "uint64": ("<u8", "FIXED64"),
    "int32": ("<i4", "SFIXED32"),
    "int16": ("<i4", "SFIXED32"),
    "int8": ("<i4", "SFIXED32"),
    "uint32": ("<u4", "FIXED32"),
    "uint16": ("<u4", "FIXED32"),
    "uint8": ("|u1", "BYTES"),
    "bool": ("|b1", "BOOL"),
}


@dataclass(frozen=True)
class ArraySpec:
    """Name, numpy dtype name and shape of one array field of a frame."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@final
class ArrayMessage:
    """Writes and reads the message of one set of array fields.

    Args:
        name: name of the message, without package.
        arrays: its array fields, in order.

    Raises:
        SpecError: a dtype that no protobuf type holds.
    """

    def __init__(self, name: str, arrays: Sequence[ArraySpec]) -> None:
        for spec in arrays:
            if spec.dtype not in WIRE:
                raise SpecError(
                    f"recording, field '{spec.name}'", f"a dtype of {sorted(WIRE)}", spec.dtype, "Convert it in read()."
                )
        self._name = name
        self._arrays = tuple(arrays)
        self._wire = [np.dtype(WIRE[spec.dtype][0]) for spec in arrays]
        self._keys = [_varint((FIRST_ARRAY + i) << 3 | LENGTH_DELIMITED) for i in range(len(arrays))]

    @property
    def name(self) -> str:
        """Full name of the message."""
        return f"{PACKAGE}.{self._name}"

    @property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """The fields, in order."""
        return self._arrays

    def schema(self) -> bytes:
        """The serialised ``google.protobuf.FileDescriptorSet`` that describes the message."""
        from google.protobuf import descriptor_pb2

        types = descriptor_pb2.FieldDescriptorProto
        files = descriptor_pb2.FileDescriptorSet()
        file = files.file.add(name=f"{PACKAGE}/{self._name}.proto", package=PACKAGE, syntax="proto2")
        message = file.message_type.add(name=self._name)
        optional, repeated = types.LABEL_OPTIONAL, types.LABEL_REPEATED
        message.field.add(name=STAMP, number=1, type=types.TYPE_DOUBLE, label=optional)
        coding = message.field.add(name=CODING, number=2, type=types.TYPE_FIXED32, label=repeated)
        coding.options.packed = True
        taken = {STAMP, CODING}
        for i, spec in enumerate(self._arrays):
            kind = WIRE[spec.dtype][1]
            # Protobuf knows ASCII only.
            plain = spec.name.isascii() and spec.name.isidentifier() and spec.name not in taken
            field = message.field.add(
                name=spec.name if plain else f"field_{i}",
                number=FIRST_ARRAY + i,
                type=getattr(types, f"TYPE_{kind}"),
                label=optional if kind == "BYTES" else repeated,
            )
            if kind != "BYTES":
                field.options.packed = True
        for field in message.field:  # by default `force_N` and `force_n` would share one, which is refused
            field.json_name = field.name
        data: bytes = files.SerializeToString()
        return data

    def encode(self, stamp_s: float, coding: Sequence[int], arrays: Mapping[str, NDArray[Any]]) -> bytes:
        """The message.

        Args:
            stamp_s: capture time on the rig's clock, seconds.
            coding: how each of the frame's other messages was made (see :mod:`sensors.recording.layout`).
            arrays: every array field of the message, of the declared dtype and shape.
        """
        parts = [b"\x09", struct.pack("<d", stamp_s)]
        if coding:
            parts += [b"\x12", _varint(4 * len(coding)), struct.pack(f"<{len(coding)}I", *coding)]
        for spec, wire, key in zip(self._arrays, self._wire, self._keys, strict=True):
            raw = np.ascontiguousarray(arrays[spec.name], wire).tobytes()
            parts += [key, _varint(len(raw)), raw]
        return b"".join(parts)

    def decode(self, data: bytes) -> tuple[float, tuple[int, ...], dict[str, NDArray[Any]]]:
        """The inverse of :meth:`encode`; the arrays own their memory.

        Raises:
            DataError: the bytes are no such message.
        """
        stamp_s, coding, at = 0.0, (), 0
        found: dict[int, bytes] = {}
        try:
            while at < len(data):
                key, at = _read_varint(data, at)
                if key & 7 == FIXED64:
                    if key >> 3 == 1:
                        (stamp_s,) = struct.unpack_from("<d", data, at)
                    at += 8
                elif key & 7 == LENGTH_DELIMITED:
                    size, at = _read_varint(data, at)
                    found[key >> 3] = data[at : at + size]
                    at += size
                else:
                    raise ValueError(f"wire type {key & 7}")
            if 2 in found:
                coding = struct.unpack(f"<{len(found[2]) // 4}I", found[2])
            arrays = {
                spec.name: np.frombuffer(found.get(FIRST_ARRAY + i, b""), wire).astype(spec.dtype).reshape(spec.shape)
                for i, (spec, wire) in enumerate(zip(self._arrays, self._wire, strict=True))
            }
        except (ValueError, IndexError, struct.error) as error:
            raise DataError(f"message {self.name}", "a whole message", str(error), "The file is damaged.") from None
        return stamp_s, coding, arrays


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
