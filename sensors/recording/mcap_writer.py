"""McapWriter: an MCAP file, written chunk by chunk, compressed and written by a thread of its own.

Format: https://mcap.dev/spec. The writer of the package mcap compresses at one fixed level in the caller's thread and
copies each message five times; for the data of a whole robot that is half of the CPU time. Its records are used here.
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

from sensors.errors import DataError
from sensors.recording.format import CHUNK, CHUNK_OP, FOOTER, FOOTER_OP, HEADER, INDEX_OP, MAGIC, MESSAGE, MESSAGE_OP

LEVEL = 1  # of zstd: level 3 shrinks depth by a tenth more and takes a fifth longer


@final
class McapWriter:
    """A new MCAP file.

    Messages gather in memory until :meth:`flush` hands them, as one chunk, to a thread that compresses and writes it.
    At most one chunk is under way there. What was written is with the system, so it survives the end of this process.

    Args:
        path: must not exist.

    Raises:
        DataError: the file exists or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        from mcap.records import Header

        if path.exists():
            raise DataError(f"recording '{path}'", "a new file", "one that exists", "Choose another name.")
        start = _record(
            Header(profile="", library="perceive").write
        )  # made before the file, which is empty for an instant
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = io.BufferedWriter(io.FileIO(path, "xb"), buffer_size=1 << 16)
        except OSError as error:
            raise DataError(f"recording '{path}'", "a file that can be made", str(error), "Check the folder.") from None
        self._lock = threading.Lock()  # of the stream and what is known of it
        self._size = 0
        self._schemas: list[Any] = []
        self._channels: list[Any] = []
        self._chunks: list[Any] = []
        self._metadata: list[Any] = []
        self._counts: Counter[int] = Counter()
        self._span_ns: tuple[int, int] | None = None
        self._parts: list[bytes] = []
        self._chunk_bytes = 0
        self._entries: dict[int, list[int]] = {}  # channel -> log time, offset, log time, offset ...
        self._chunk_span_ns: tuple[int, int] | None = None
        self._thread = ThreadPoolExecutor(1, "recording chunks")
        self._under_way: Future[None] | None = None
        with self._lock:
            self._put(MAGIC, start)
            self._stream.flush()

    @property
    def size_bytes(self) -> int:
        """Of the file so far."""
        return self._size

    @property
    def chunk_bytes(self) -> int:
        """Of the chunk that is being filled, before compression."""
        return self._chunk_bytes

    def add_schema(self, name: str, encoding: str, data: bytes) -> int:
        """Describe a kind of message; returns its number."""
        from mcap.records import Schema

        schema = Schema(id=len(self._schemas) + 1, name=name, encoding=encoding, data=data)
        self._schemas.append(schema)
        self._gather(_record(schema.write))
        return len(self._schemas)

    def add_channel(self, topic: str, encoding: str, schema: int, metadata: Mapping[str, str]) -> int:
        """Open a stream of messages; returns its number."""
        from mcap.records import Channel

        number = len(self._channels) + 1
        channel = Channel(
            id=number, topic=topic, message_encoding=encoding, schema_id=schema, metadata=dict(metadata)
        )  # fmt: skip
        self._channels.append(channel)
        self._gather(_record(channel.write))
        return number

    def add_message(self, channel: int, sequence: int, log_ns: int, publish_ns: int, data: bytes) -> None:
        """Add a message to the chunk that is being filled."""
        self._entries.setdefault(channel, []).extend((log_ns, self._chunk_bytes))
        first, last = self._chunk_span_ns or (log_ns, log_ns)
        self._chunk_span_ns = min(first, log_ns), max(last, log_ns)
        head = HEADER.pack(MESSAGE_OP, MESSAGE.size + len(data)) + MESSAGE.pack(channel, sequence, log_ns, publish_ns)
        self._gather(head)
        self._gather(data)

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Write a metadata record at once."""
        from mcap.records import Metadata, MetadataIndex

        record = _record(Metadata(name=name, metadata=dict(values)).write)
        with self._lock:
            self._metadata.append(MetadataIndex(offset=self._size, length=len(record), name=name))
            self._put(record)
            self._stream.flush()

    def flush(self) -> None:
        """Hand the chunk to the thread, after the one before it was written.

        Raises:
            OSError: the disk failed.
        """
        parts, entries, span = self._parts, self._entries, self._chunk_span_ns
        if span is None:
            return
        self._parts, self._entries, self._chunk_bytes, self._chunk_span_ns = [], {}, 0, None
        self.wait()
        self._under_way = self._thread.submit(self._write_chunk, parts, entries, span)

    def wait(self) -> None:
        """Wait until all that was flushed is written.

        Raises:
            OSError: the disk failed.
        """
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def finish(self) -> None:
        """Write what is left and the index, by which players open the file fast. Nothing can be added afterwards."""
        self.flush()
        self.wait()
        with self._lock:
            self._put(*self._ending())
            self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._thread.shutdown()
        try:
            self._stream.close()
        except OSError:  # a full disk was told before; the descriptor is to be closed all the same
            self._stream.raw.close()

    def _gather(self, part: bytes) -> None:
        self._parts.append(part)
        self._chunk_bytes += len(part)

    def _put(self, *parts: bytes) -> None:
        for part in parts:
            self._stream.write(part)
            self._size += len(part)

    def _write_chunk(self, parts: list[bytes], entries: dict[int, list[int]], span: tuple[int, int]) -> None:
        import zstandard
        from mcap.records import ChunkIndex

        data = b"".join(parts)
        parts.clear()
        packed = zstandard.ZstdCompressor(level=LEVEL).compress(data)
        method = b"zstd"
        head = CHUNK.pack(*span, len(data), zlib.crc32(data)) + struct.pack("<I", len(method)) + method
        head += struct.pack("<Q", len(packed))
        indexes = {}
        for channel, numbers in entries.items():
            content = struct.pack("<HI", channel, 8 * len(numbers)) + struct.pack(f"<{len(numbers)}Q", *numbers)
            indexes[channel] = HEADER.pack(INDEX_OP, len(content)) + content
        with self._lock:
            offset = self._size
            self._put(HEADER.pack(CHUNK_OP, len(head) + len(packed)), head, packed)
            length, places = self._size - offset, {}
            for channel, index in indexes.items():
                places[channel] = self._size
                self._put(index)
            self._stream.flush()
            self._chunks.append(
                ChunkIndex(
                    message_start_time=span[0], message_end_time=span[1], chunk_start_offset=offset,
                    chunk_length=length, message_index_offsets=places,
                    message_index_length=self._size - offset - length, compression=method.decode(),
                    compressed_size=len(packed), uncompressed_size=len(data),
                )
            )  # fmt: skip
        self._counts.update({channel: len(numbers) // 2 for channel, numbers in entries.items()})
        first, last = self._span_ns or span
        self._span_ns = min(first, span[0]), max(last, span[1])

    def _ending(self) -> list[bytes]:
        """The summary section and what is around it."""
        from mcap.opcode import Opcode
        from mcap.records import DataEnd, Statistics, SummaryOffset

        first, last = self._span_ns or (0, 0)
        statistics = Statistics(
            message_count=self._counts.total(), schema_count=len(self._schemas), channel_count=len(self._channels),
            attachment_count=0, metadata_count=len(self._metadata), chunk_count=len(self._chunks),
            message_start_time=first, message_end_time=last, channel_message_counts=dict(self._counts),
        )  # fmt: skip
        groups = [
            (Opcode.SCHEMA, self._schemas), (Opcode.CHANNEL, self._channels), (Opcode.STATISTICS, [statistics]),
            (Opcode.CHUNK_INDEX, self._chunks), (Opcode.METADATA_INDEX, self._metadata),
        ]  # fmt: skip
        data_end = _record(DataEnd(data_section_crc=0).write)
        start = self._size + len(data_end)
        summary, offsets = b"", b""
        for opcode, records in groups:
            content = b"".join(_record(record.write) for record in records)
            if content:
                place = SummaryOffset(
                    group_opcode=opcode, group_start=start + len(summary), group_length=len(content)
                )  # fmt: skip
                offsets += _record(place.write)
            summary += content
        head = HEADER.pack(FOOTER_OP, FOOTER.size) + struct.pack("<QQ", start, start + len(summary))
        crc = zlib.crc32(summary + offsets + head)
        return [data_end, summary, offsets, head, struct.pack("<I", crc), MAGIC]


def _record(write: Callable[[Any], object]) -> bytes:
    from mcap.data_stream import RecordBuilder

    builder: Any = RecordBuilder()
    write(builder)
    data: bytes = builder.end()
    return data
