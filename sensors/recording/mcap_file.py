"""McapFile: frames into an MCAP file; finds or makes the schema and channel of each message."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from sensors.frames import Frame
from sensors.recording import foxglove
from sensors.recording.encoder import Coding, FrameEncoder
from sensors.recording.format import NS
from sensors.recording.layout import layout_of
from sensors.recording.mcap_writer import McapWriter

CHUNK_BYTES = 8_000_000  # before compression; players load whole chunks
LAYOUT_KEY = "perceive.layout"


@final
class McapFile:
    """A new recording.

    A chunk ends between two frames, never within one, so the readable part of a file whose writer died holds whole
    frames.

    Args:
        path: must not exist.
        coding: how pictures are written.

    Raises:
        DataError: the file exists or cannot be made.
    """

    def __init__(self, path: Path, coding: Coding) -> None:
        self._writer = McapWriter(path)
        self._coding = coding
        self._schemas: dict[bytes, int] = {}
        self._channels: dict[tuple[str, str, FrameEncoder | None], int] = {}  # topic, schema; whose own message
        self._encoders: dict[tuple[Any, ...], FrameEncoder] = {}  # by sensor, class, dtypes and shapes
        self._lock = threading.Lock()  # sensors may be added while frames are written
        self._first_ns = self._span_ns = 0

    @property
    def size_bytes(self) -> int:
        """Of the file so far."""
        return self._writer.size_bytes

    def is_chunk_full(self, most_s: float) -> bool:
        """Whether the chunk that is being filled is large, or spans ``most_s`` of the frames' time."""
        size = self._writer.chunk_bytes
        return size >= CHUNK_BYTES or (size > 0 and self._span_ns >= most_s * NS)

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Write a metadata record and hand it to the system."""
        self._writer.add_metadata(name, values)

    def add(self, name: str, frame: Frame, sequence: int, stamp_s: float, capture_ns: int, read_ns: int) -> int:
        """Write a frame; returns the bytes of its messages.

        Args:
            name: of the sensor.
            frame: the frame.
            sequence: its number.
            stamp_s: its stamp on the recording's clock.
            capture_ns: the same since 1970 (UTC).
            read_ns: when the rig read it.

        Raises:
            SpecError: it has no form in the file.
            OSError: the disk failed.
        """
        arrays = frame.arrays()
        key = (name, type(frame), *((value.dtype, value.shape) for value in arrays.values()))
        encoder = self._encoders.get(key)
        if encoder is None:
            encoder = self._encoders[key] = FrameEncoder(name, layout_of(type(frame), arrays), self._coding)
        parts = encoder.encode(arrays, stamp_s, capture_ns)
        with self._lock:
            if not self._writer.chunk_bytes:
                self._first_ns = read_ns
            self._span_ns = abs(read_ns - self._first_ns)
            for part in parts:
                channel = self._channel(part.topic, part.schema, encoder if part.topic == encoder.topic else None)
                self._writer.add_message(channel, sequence & 0xFFFFFFFF, read_ns, capture_ns, part.data)
        return sum(len(part.data) for part in parts)

    def flush(self) -> None:
        """End the chunk and hand it to the thread that writes it.

        Raises:
            OSError: the disk failed.
        """
        with self._lock:
            self._writer.flush()

    def finish(self) -> None:
        """Write what is left and the index. Nothing can be added afterwards.

        Raises:
            OSError: the disk failed.
        """
        with self._lock:
            self._writer.finish()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _channel(self, topic: str, schema: str, own: FrameEncoder | None) -> int:
        key = (topic, schema, own)
        if key not in self._channels:
            data = foxglove.schema_bytes(schema) if own is None else own.message.schema()
            if data not in self._schemas:
                self._schemas[data] = self._writer.add_schema(schema, foxglove.SCHEMA_ENCODING, data)
            metadata = {} if own is None else {LAYOUT_KEY: own.layout.to_json()}
            encoding = foxglove.MESSAGE_ENCODING
            self._channels[key] = self._writer.add_channel(topic, encoding, self._schemas[data], metadata)
        return self._channels[key]
