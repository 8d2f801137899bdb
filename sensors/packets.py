"""Packets of devices on the network: from a UDP socket, or out of a file that their traffic was captured into."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, final

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.pcap import Datagram, is_capture, read_datagrams

LONGEST_DATAGRAM = 65535
STAMP_OPTION, DROPS_OPTION = 35, 40  # SO_TIMESTAMPNS and SO_RXQ_OVFL of Linux, which Python's socket does not name
LONGEST_WAIT_IN_BUFFER_S = 1.0  # a kernel stamp older than this comes from a wall clock that was set meanwhile


@dataclass(frozen=True)
class Packet:
    """One datagram.

    Attributes:
        payload: its bytes.
        arrived_s: host clock when it came in: when the kernel took it from the network, where the system tells.
        kernel_s: the kernel's (or the capture's) own stamp, seconds since 1970; None if there is none.
    """

    payload: bytes
    arrived_s: float
    kernel_s: float | None


class PacketSource(ABC):
    """Where packets come from. Used by one thread at a time; may be opened again after ``close``."""

    @property
    @abstractmethod
    def where(self) -> str:
        """What it is, for messages."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether no packet will come any more: the file is at its end. A socket never is."""

    @property
    @abstractmethod
    def counts(self) -> dict[str, int]:
        """What was lost or passed over since ``open``, by kind."""

    @abstractmethod
    def open(self) -> None:
        """Begin to receive.

        Raises:
            SensorError: the port or the file cannot be opened.
        """

    @abstractmethod
    def receive(self, timeout_s: float) -> Packet | None:
        """The next packet; None if none came within the timeout.

        Raises:
            SensorLost: the network went away.
            SensorError: not open.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop receiving. May be called twice."""


@final
class UdpSource(PacketSource):
    """A UDP port of this host.

    Args:
        port: local port; 0 = any free one, readable after ``open``.
        host: local address to listen on; "0.0.0.0" = all of them.
        sender: IPv4 address of the device; packets of others are dropped and counted. None = anybody's.
        multicast: group to join; None = the packets are sent to this host.
        interface: local address of the network card that joins the group; None = the system chooses.
        receive_buffer_bytes: what the kernel may keep until it is read. The system's limit (net.core.rmem_max) holds.

    Raises:
        SpecError: a port or a size that cannot be.
    """

    def __init__(
        self,
        *,
        port: int,
        host: str = "0.0.0.0",
        sender: str | None = None,
        multicast: str | None = None,
        interface: str | None = None,
        receive_buffer_bytes: int = 8 << 20,
    ) -> None:
        if not 0 <= port <= 65535 or receive_buffer_bytes < 1:
            raise SpecError("UdpSource", "port 0..65535, a buffer", f"{port}, {receive_buffer_bytes}", "Correct them.")
        self._address = (host, port)
        self._sender = sender
        self._multicast = multicast
        self._interface = interface
        self._buffer_bytes = receive_buffer_bytes
        self._socket: socket.socket | None = None
        self._foreign = self._cut = self._dropped = 0

    @property
    def where(self) -> str:
        """The port."""
        return f"UDP port {self.port} of {self._address[0]}"

    @property
    def port(self) -> int:
        """The local port, the real one once it is open."""
        listening = self._socket
        return self._address[1] if listening is None else int(listening.getsockname()[1])

    @property
    def ended(self) -> bool:
        """Never."""
        return False

    @property
    def counts(self) -> dict[str, int]:
        """``foreign``: sent by others; ``cut``: longer than can be; ``dropped``: the kernel's buffer was full."""
        return {"foreign": self._foreign, "cut": self._cut, "dropped": self._dropped}

    def open(self) -> None:
        self.close()
        self._foreign = self._cut = self._dropped = 0
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
            if sys.platform == "linux":
                for option in (STAMP_OPTION, DROPS_OPTION):
                    with contextlib.suppress(OSError):  # without them, packets are stamped when they are read
                        made.setsockopt(socket.SOL_SOCKET, option, 1)
            if self._multicast is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a group may have several listeners
            made.bind(self._address)
            if self._multicast is not None:
                card = socket.inet_aton(self._interface or "0.0.0.0")
                made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(self._multicast) + card)
        except OSError as error:
            made.close()
            raise SensorError(
                self.where, "a free port on an address of this host", str(error),
                "Close the other program that listens there, or correct port, host, multicast and interface.",
            ) from error  # fmt: skip
        self._socket = made

    def receive(self, timeout_s: float) -> Packet | None:
        listening = self._opened()
        end_s = host_now_s() + timeout_s
        while True:
            listening.settimeout(max(end_s - host_now_s(), 0.0))
            try:
                payload, ancillary, flags, address = listening.recvmsg(LONGEST_DATAGRAM, 256)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError as error:
                raise SensorLost(self.where, "a network", str(error), "Check cable and network card.") from error
            # In this order: if the thread is held up between the two, the packet seems late, as many are, never early.
            wall_s, now_s = time.time(), host_now_s()
            kernel_s = None
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == STAMP_OPTION and len(data) >= struct.calcsize("@ll"):
                    seconds, nanoseconds = struct.unpack_from("@ll", data)
                    kernel_s = seconds + nanoseconds * 1e-9
                elif level == socket.SOL_SOCKET and kind == DROPS_OPTION:
                    (self._dropped,) = struct.unpack("@I", data[:4])
            if flags & socket.MSG_TRUNC:
                self._cut += 1
            elif self._sender is not None and address[0] != self._sender:
                self._foreign += 1
            else:
                waited_s = 0.0 if kernel_s is None else wall_s - kernel_s
                known = 0.0 <= waited_s < LONGEST_WAIT_IN_BUFFER_S
                return Packet(payload, now_s - waited_s if known else now_s, kernel_s)
            if host_now_s() >= end_s:
                return None

    def send(self, payload: bytes, host: str, port: int) -> None:
        """Send a datagram from this port.

        Raises:
            SensorLost: the network does not take it.
            SensorError: not open.
        """
        try:
            self._opened().sendto(payload, (host, port))
        except OSError as error:
            raise SensorLost(self.where, f"a way to {host}:{port}", str(error), "Check address and cable.") from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _opened(self) -> socket.socket:
        if self._socket is None:
            raise SensorError(self.where, "an open port", "a closed one", "Call open() first.")
        return self._socket


@final
class PcapSource(PacketSource):
    """A capture file (pcap or pcapng) that plays as the device whose packets it holds.

    Args:
        path: the file.
        port: only packets sent to this port; None = all.
        sender: only packets from this IPv4 address; None = all.
        real_time: True = at the speed of the recording, on the host's clock. False = as fast as they are read, and
            ``arrived_s`` is the capture's own time (seconds since 1970), the same in every run.
    """

    def __init__(
        self, *, path: str, port: int | None = None, sender: str | None = None, real_time: bool = True
    ) -> None:
        self._path = Path(path)
        self._port = port
        self._sender = sender
        self._real_time = real_time
        self._file: BinaryIO | None = None
        self._datagrams: Iterator[Datagram] = iter(())
        self._next: Datagram | None = None
        self._ahead_s: float | None = None  # host clock minus the capture's
        self._counts: Counter[str] = Counter()

    @property
    def where(self) -> str:
        """The file."""
        return f"capture '{self._path}'"

    @property
    def ended(self) -> bool:
        """Whether the last packet was given."""
        return self._file is not None and self._next is None

    @property
    def counts(self) -> dict[str, int]:
        """What :func:`sensors.pcap.read_datagrams` counts, and ``foreign``: for another port or from another sender."""
        return dict(self._counts)

    def open(self) -> None:
        self.close()
        self._counts = Counter(other=0, cut=0, fragments=0, incomplete=0, damaged=0, foreign=0)
        try:
            file = self._path.open("rb")
        except OSError as error:
            raise SensorError(self.where, "a file", str(error), "Give the path of a .pcap or .pcapng file.") from error
        if not is_capture(file.read(4)):
            file.close()
            raise SensorError(self.where, "a pcap or pcapng file", "another kind", "Save it as pcap in Wireshark.")
        file.seek(0)
        self._file = file
        self._ahead_s = None
        self._datagrams = read_datagrams(file, self._counts)
        self._advance()

    def receive(self, timeout_s: float) -> Packet | None:
        if self._file is None:
            raise SensorError(self.where, "an open file", "a closed one", "Call open() first.")
        datagram = self._next
        if datagram is None:
            time.sleep(max(timeout_s, 0.0))
            return None
        arrived_s = datagram.time_s
        if self._real_time:
            if self._ahead_s is None:
                self._ahead_s = host_now_s() - datagram.time_s
            arrived_s += self._ahead_s
            left_s = arrived_s - host_now_s()
            if left_s > timeout_s:
                time.sleep(max(timeout_s, 0.0))
                return None
            time.sleep(max(left_s, 0.0))
        self._advance()
        return Packet(datagram.payload, arrived_s, datagram.time_s)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._next = None

    def _advance(self) -> None:
        for datagram in self._datagrams:
            wrong_port = self._port is not None and datagram.port != self._port
            if wrong_port or (self._sender is not None and datagram.sender != self._sender):
                self._counts["foreign"] += 1
                continue
            self._next = datagram
            return
        self._next = None


@final
class JumpGuard:
    """Tells a wild number in one packet from a device that counts from somewhere else now.

    Args:
        reach: how far a number may lie beyond the one before it to count as its successor.
        agree: how many in a row have to follow each other until they are believed.
    """

    def __init__(self, reach: int, agree: int = 3) -> None:
        self._reach = reach
        self._agree = agree
        self._count = 0
        self._last = 0

    def believes(self, number: int) -> bool:
        """Note a number that is out of reach; True = it is the last one of enough that follow each other."""
        follows = self._count > 0 and 0 <= number - self._last <= self._reach
        self._count = self._count + 1 if follows else 1
        self._last = number
        return self._count >= self._agree

    def settle(self) -> None:
        """Forget them: a number within reach came, or they were believed."""
        self._count = 0
