"""Reads the UDP datagrams out of a capture file: pcap or pcapng, as tcpdump and Wireshark write them.

LiDAR packets are longer than an Ethernet frame can be, so a capture holds them in IP fragments; these are put together
here as a receiving host would (RFC 791). Damage is counted and passed over; the rest of the file is read as far as it
can be.

Formats: draft-ietf-opsawg-pcap (classic), draft-ietf-opsawg-pcapng, tcpdump.org/linktypes.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

CLASSIC = {  # first four bytes -> byte order, seconds per tick of the fraction
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
SECTION_HEAD = b"\n\r\r\n"  # how each section of a pcapng file begins, in either byte order
INTERFACE, OLD_PACKET, SIMPLE_PACKET, PACKET = 1, 2, 3, 6  # kinds of blocks of a pcapng file
LONGEST = 1 << 24  # bytes of one record; beyond, the length itself is damaged
VLAN_TAGS = (0x8100, 0x88A8, 0x9100)
IPV4, UDP = 0x0800, 17
PENDING = 64  # datagrams that wait for fragments at the same time


@dataclass(frozen=True)
class Datagram:
    """One UDP datagram: when it was captured (seconds since 1970), from whom, to which port, and what it carries."""

    time_s: float
    sender: str
    port: int
    payload: bytes


class _DamagedError(Exception):
    """The file ends within a record, or a length in it cannot be true."""


def is_capture(head: bytes) -> bool:
    """Whether a file that begins with these (at least four) bytes is a capture."""
    return head[:4] in CLASSIC or head[:4] == SECTION_HEAD


def read_datagrams(file: BinaryIO, counts: Counter[str]) -> Iterator[Datagram]:
    """The UDP datagrams of an open capture file, in the order of the file.

    Args:
        file: positioned at its beginning.
        counts: gets ``other`` (no IPv4 UDP), ``cut`` (longer than what the capture kept), ``fragments`` (IP fragments
            seen), ``incomplete`` (datagrams of which fragments are missing), ``damaged`` (1 = the file is cut off).
    """
    puzzle = _Puzzle(counts)
    try:
        for time_s, link, frame, length in _frames(file):
            packet = _ip_packet(link, frame)
            if packet is None:
                counts["other"] += 1
            elif len(frame) < length:
                counts["cut"] += 1
            else:
                whole = puzzle.add(packet)
                if whole is not None:
                    sender, transport = whole
                    port, declared = struct.unpack_from(">HH", transport, 2)
                    if 8 <= declared <= len(transport):
                        yield Datagram(time_s, sender, port, transport[8:declared])
                    else:
                        counts["other"] += 1
    except _DamagedError:
        counts["damaged"] += 1
    puzzle.give_up()


# ------------------------------------------------------------------------------------------------------------ the file


def _frames(file: BinaryIO) -> Iterator[tuple[float, int, bytes, int]]:
    """Time, kind of link, bytes that were kept and bytes that there were, of each captured frame."""
    magic = _take(file, 4)
    if magic in CLASSIC:
        order, tick_s = CLASSIC[magic]
        _, _, _, _, _, link = struct.unpack(order + "HHIIII", _take(file, 20))
        while head := file.read(16):
            if len(head) < 16:
                raise _DamagedError
            seconds, fraction, kept, length = struct.unpack(order + "IIII", head)
            yield seconds + fraction * tick_s, link & 0xFFFF, _take(file, kept), length
    else:
        yield from _blocks(file)


@dataclass(frozen=True)
class _Interface:
    link: int
    tick_s: float
    offset_s: int


def _blocks(file: BinaryIO) -> Iterator[tuple[float, int, bytes, int]]:
    head, order, time_s = SECTION_HEAD, "<", 0.0
    interfaces: list[_Interface] = []
    while True:
        head += _take(file, 8 - len(head))
        if head[:4] == SECTION_HEAD:  # a section may have the other byte order
            peek = _take(file, 4)
            order = "<" if peek == b"\x4d\x3c\x2b\x1a" else ">"
            interfaces = []
        else:
            peek = b""
        kind, length = struct.unpack(order + "II", head)
        if length < 12 + len(peek) or length % 4:
            raise _DamagedError
        body = peek + _take(file, length - 8 - len(peek))
        try:
            if kind == INTERFACE:
                interfaces.append(_interface(order, body[:-4]))
            elif kind in (PACKET, OLD_PACKET):
                number, high, low, kept, total = struct.unpack_from(order + "IIIII", body)
                if kind == OLD_PACKET:  # its first word holds two numbers: interface and drops
                    (number,) = struct.unpack_from(order + "H", body)
                source = interfaces[number]
                time_s = source.offset_s + ((high << 32) | low) * source.tick_s
                yield time_s, source.link, body[20 : 20 + min(kept, len(body) - 24)], total
            elif kind == SIMPLE_PACKET:  # has no time of its own
                (total,) = struct.unpack_from(order + "I", body)
                yield time_s, interfaces[0].link, body[4:-4][:total], total
        except (struct.error, IndexError) as error:
            raise _DamagedError from error
        head = file.read(8)
        if not head:
            return


def _interface(order: str, body: bytes) -> _Interface:
    (link,) = struct.unpack_from(order + "H", body)
    tick_s, offset_s, at = 1e-6, 0, 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == 9 and length == 1:  # if_tsresol: a power of 10, or of 2 where the top bit is set
            tick_s = 2.0 ** -(value[0] & 0x7F) if value[0] & 0x80 else 10.0 ** -value[0]
        elif code == 14 and length == 8:  # if_tsoffset
            (offset_s,) = struct.unpack(order + "q", value)
        at += 4 + (length + 3) // 4 * 4
    return _Interface(link, tick_s, offset_s)


def _take(file: BinaryIO, size: int) -> bytes:
    if not 0 <= size <= LONGEST:
        raise _DamagedError
    data = file.read(size)
    if len(data) < size:
        raise _DamagedError
    return data


# ---------------------------------------------------------------------------------------------------------- the layers


def _ip_packet(link: int, frame: bytes) -> bytes | None:
    """The IPv4 packet in a frame; None = something else."""
    if link == 1:  # Ethernet
        at = 12
    elif link == 113:  # Linux "cooked": captured on the pseudo-interface "any"
        at = 14
    elif link == 276:  # the second version of it: the protocol stands first
        return _untagged(frame[:2] + frame[20:], 0)
    elif link in (12, 14, 101, 228):  # raw IP
        return frame if frame[:1] and frame[0] >> 4 == 4 else None
    elif link in (0, 108):  # BSD loopback: four bytes of address family, in either byte order
        return frame[4:] if frame[:4] in (b"\x02\0\0\0", b"\0\0\0\x02") else None
    else:
        return None
    return _untagged(frame, at)


def _untagged(frame: bytes, at: int) -> bytes | None:
    protocol = int.from_bytes(frame[at : at + 2], "big")
    while protocol in VLAN_TAGS and at + 6 <= len(frame):
        at += 4
        protocol = int.from_bytes(frame[at : at + 2], "big")
    return frame[at + 2 :] if protocol == IPV4 else None


@dataclass
class _Pieces:
    """What came so far of one datagram: byte offset -> bytes; ``size`` is known once the last fragment came."""

    parts: dict[int, bytes] = field(default_factory=dict)
    size: int | None = None

    def whole(self) -> bytes | None:
        if self.size is None:
            return None
        data = bytearray()
        for at in sorted(self.parts):
            if at > len(data):
                return None  # a hole
            data[at:] = self.parts[at]
        return bytes(data) if len(data) == self.size else None


class _Puzzle:
    """Puts IP fragments together."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._pending: dict[bytes, _Pieces] = {}

    def add(self, packet: bytes) -> tuple[str, bytes] | None:
        """The sender and the UDP header with its data, once all of it is there."""
        if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != UDP:
            self._counts["other"] += 1
            return None
        header = (packet[0] & 0xF) * 4
        # Where the network card cuts packets, the capture is taken before and may say 0.
        total = int.from_bytes(packet[2:4], "big") or len(packet)
        flags = int.from_bytes(packet[6:8], "big")
        body, at, more = packet[header:total], (flags & 0x1FFF) * 8, bool(flags & 0x2000)
        sender = ".".join(str(number) for number in packet[12:16])
        if header < 20 or total > len(packet) or (not at and len(body) < 8):
            self._counts["other"] += 1
            return None
        if not at and not more:
            return sender, body
        self._counts["fragments"] += 1
        key = packet[4:6] + packet[12:20]
        pieces = self._pending.setdefault(key, _Pieces())
        pieces.parts[at] = body
        if not more:
            pieces.size = at + len(body)
        data = pieces.whole()
        if data is not None:
            del self._pending[key]
            return sender, data
        while len(self._pending) > PENDING:
            del self._pending[next(iter(self._pending))]
            self._counts["incomplete"] += 1
        return None

    def give_up(self) -> None:
        """Count what is still incomplete at the end."""
        self._counts["incomplete"] += len(self._pending)
        self._pending.clear()
