"""McapIndex: what an MCAP file holds and where, also of a file whose writer died before it wrote an index.

Format: https://mcap.dev/spec. The record parsers of the package mcap read whole files or fail; here the position of a
fault is wanted, and what lies before it.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from sensors.errors import DataError
from sensors.recording.format import (
    CHANNEL_OP,
    CHUNK,
    CHUNK_OP,
    CRC_BYTES,
    DATA_END_OP,
    FIRST_PRIVATE_OP,
    FOOTER,
    FOOTER_OP,
    HEADER,
    INDEX_ENTRY_BYTES,
    INDEX_OP,
    LAST_OP,
    MAGIC,
    MESSAGE,
    MESSAGE_OP,
    METADATA_OP,
)


@dataclass(frozen=True)
class ChunkRef:
    """Where a chunk is: offset of its record, bytes of its content, time span, and its channels (None = unknown)."""

    offset: int
    size: int
    start_ns: int
    end_ns: int
    channels: frozenset[int] | None


@dataclass(frozen=True)
class RawMessage:
    """One message as it stands in the file."""

    channel: int
    sequence: int
    log_ns: int
    publish_ns: int
    data: bytes


@dataclass(frozen=True)
class ChannelInfo:
    """Topic and metadata of a channel."""

    topic: str
    metadata: Mapping[str, str]


@dataclass
class McapIndex:
    """What a file holds.

    Attributes:
        path: the file.
        channels: by number.
        counts: messages by channel.
        chunks: in the order of the file.
        metadata: names and values of the metadata records, in order.
        complete: whether the file was closed, so that the index was read and not searched for.
        lost_bytes: at the end of the file, of a record that was not written whole.
    """

    path: Path
    channels: dict[int, ChannelInfo] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    chunks: list[ChunkRef] = field(default_factory=list)
    metadata: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    complete: bool = False
    lost_bytes: int = 0

    @staticmethod
    def read(path: str | Path) -> McapIndex:
        """Read a file's index; search the file for its chunks if there is none.

        Raises:
            DataError: no such file, no MCAP file, or damage anywhere but at the end of a file that was not closed.
        """
        index = McapIndex(Path(path))
        try:
            with index.path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    index._fail("the first bytes of an MCAP file", "others", "Is it a recording?")
                if not index._read_summary(file):
                    index._search(file)
        except OSError as error:
            raise DataError(f"recording '{path}'", "a file that can be read", str(error), "Check the path.") from None
        return index

    def load(self, file: BinaryIO, ref: ChunkRef) -> list[RawMessage]:
        """The messages of a chunk, in the order of the file.

        Raises:
            DataError: the chunk is damaged.
        """
        messages, _ = self._open_chunk(file, ref)
        return messages

    def _read_summary(self, file: BinaryIO) -> bool:
        from mcap.reader import SeekingReader

        if not _is_summary_whole(file):
            return False
        file.seek(0)
        summary = SeekingReader(file).get_summary()
        if summary is None or summary.statistics is None:
            return False
        self.channels = {n: ChannelInfo(c.topic, dict(c.metadata)) for n, c in summary.channels.items()}
        self.counts = Counter(summary.statistics.channel_message_counts)
        for chunk in sorted(summary.chunk_indexes, key=lambda chunk: chunk.chunk_start_offset):
            channels = frozenset(chunk.message_index_offsets)
            size = chunk.chunk_length - HEADER.size
            start_ns, end_ns = chunk.message_start_time, chunk.message_end_time
            self.chunks.append(ChunkRef(chunk.chunk_start_offset, size, start_ns, end_ns, channels))
        for place in sorted(summary.metadata_indexes, key=lambda place: place.offset):
            file.seek(place.offset + HEADER.size)
            self.metadata.append(_parse_metadata(file.read(place.length - HEADER.size)))
        self.complete = True
        return True

    def _search(self, file: BinaryIO) -> None:
        """Walk through the records. What is not whole at the end was being written when the writer died."""
        end = os.fstat(file.fileno()).st_size
        at = len(MAGIC)
        chunk: ChunkRef | None = None  # the last one seen, with the counts of the message indexes behind it
        counts: Counter[int] = Counter()
        while at + HEADER.size <= end:
            file.seek(at)
            opcode, size = HEADER.unpack(file.read(HEADER.size))
            if opcode == 0 or at + HEADER.size + size > end:
                break  # cut off, or zeros, which some file systems leave after a loss of power
            if LAST_OP < opcode < FIRST_PRIVATE_OP:
                self._fail("a record", f"opcode {opcode} at byte {at}", "The file is damaged there.")
            if chunk is not None and opcode != INDEX_OP:
                self._add_chunk(file, chunk, counts)
                chunk = None
            if opcode == CHUNK_OP and size >= CHUNK.size:
                start_ns, end_ns, _, _ = CHUNK.unpack(file.read(CHUNK.size))
                chunk, counts = ChunkRef(at, size, start_ns, end_ns, None), Counter()
            elif opcode == INDEX_OP:
                channel, entries = struct.unpack("<HI", file.read(6))
                counts[channel] += entries // INDEX_ENTRY_BYTES
            elif opcode == METADATA_OP:
                self.metadata.append(_parse_metadata(file.read(size)))
            elif opcode == DATA_END_OP:
                at = end  # closed after all; only its summary is missing or damaged
                break
            at += HEADER.size + size
        if chunk is not None:
            # The index of the last chunk may be cut off, and the chunk may be zeros: it counts if it can be read.
            try:
                messages, _ = self._open_chunk(file, chunk)
            except DataError:
                at = chunk.offset
            else:
                self._add_chunk(file, chunk, Counter(message.channel for message in messages))
        self.lost_bytes = end - at

    def _add_chunk(self, file: BinaryIO, ref: ChunkRef, counts: Counter[int]) -> None:
        if not counts.keys() <= self.channels.keys():  # a channel is described in the chunk in which it is first used
            self.channels |= self._open_chunk(file, ref)[1]
        self.counts += counts
        self.chunks.append(ChunkRef(ref.offset, ref.size, ref.start_ns, ref.end_ns, frozenset(counts)))

    def _open_chunk(self, file: BinaryIO, ref: ChunkRef) -> tuple[list[RawMessage], dict[int, ChannelInfo]]:
        import zstandard

        where = f"chunk at byte {ref.offset}"
        try:
            file.seek(ref.offset + HEADER.size)
            content = memoryview(file.read(ref.size))
            _, _, whole, crc = CHUNK.unpack_from(content)
            compression, at = _text(content, CHUNK.size)
            (size,) = struct.unpack_from("<Q", content, at)
            data = bytes(content[at + 8 : at + 8 + size])
            if compression == "zstd":
                data = zstandard.decompress(data, whole)
            elif compression:
                raise ValueError(f"compression '{compression}'")
            if len(data) != whole or (crc and zlib.crc32(data) != crc):
                raise ValueError("contents that do not match their checksum")
            return _records(data)
        except (ValueError, RuntimeError, IndexError, struct.error, zstandard.ZstdError) as error:
            self._fail(f"a whole {where}", str(error), "The file is damaged there; read up to it with end_s.")

    def _fail(self, expected: str, got: str, fix: str) -> NoReturn:
        raise DataError(f"recording '{self.path}'", expected, got, fix)


def _is_summary_whole(file: BinaryIO) -> bool:
    """Whether the file ends as a closed one does, and its summary matches its checksum."""
    end = os.fstat(file.fileno()).st_size
    tail = HEADER.size + FOOTER.size + len(MAGIC)
    if end < len(MAGIC) + tail:
        return False
    file.seek(end - tail)
    last = file.read(tail)
    opcode, size = HEADER.unpack_from(last)
    if last[-len(MAGIC) :] != MAGIC or (opcode, size) != (FOOTER_OP, FOOTER.size):
        return False
    start, _, crc = FOOTER.unpack_from(last, HEADER.size)
    if not 0 < start <= end - tail:
        return False
    file.seek(start)
    summed = file.read(end - len(MAGIC) - CRC_BYTES - start)
    return bool(crc in (0, zlib.crc32(summed)))


def _records(data: bytes) -> tuple[list[RawMessage], dict[int, ChannelInfo]]:
    messages: list[RawMessage] = []
    channels: dict[int, ChannelInfo] = {}
    at = 0
    while at < len(data):
        opcode, size = HEADER.unpack_from(data, at)
        at += HEADER.size
        if opcode == MESSAGE_OP:
            channel, sequence, log_ns, publish_ns = MESSAGE.unpack_from(data, at)
            content = data[at + MESSAGE.size : at + size]
            messages.append(RawMessage(channel, sequence, log_ns, publish_ns, content))
        elif opcode == CHANNEL_OP:
            number, info = _parse_channel(data[at : at + size])
            channels[number] = info
        at += size
    return messages, channels


def _parse_channel(content: bytes) -> tuple[int, ChannelInfo]:
    from mcap.data_stream import ReadDataStream
    from mcap.records import Channel

    channel: Any = Channel.read(ReadDataStream(io.BytesIO(content)))
    return channel.id, ChannelInfo(channel.topic, dict(channel.metadata))


def _parse_metadata(content: bytes) -> tuple[str, dict[str, str]]:
    from mcap.data_stream import ReadDataStream
    from mcap.records import Metadata

    record: Any = Metadata.read(ReadDataStream(io.BytesIO(content)))
    return record.name, dict(record.metadata)


def _text(content: memoryview, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<I", content, at)
    return str(content[at + 4 : at + 4 + size], "utf-8"), at + 4 + size
