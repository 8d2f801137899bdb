"""Packets over loopback UDP, and out of capture files that are written here byte by byte."""

from __future__ import annotations

import io
import itertools
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.clock import host_now_s
from sensors.errors import SensorError, SpecError
from sensors.packets import JumpGuard, PcapSource, UdpSource
from sensors.pcap import Datagram, read_datagrams
from tests.sensors.packet_scene import ethernet, ip_fragments, ip_packet, pcap, pcapng, udp_frame

HERE = "127.0.0.1"
BEGIN_S = 1_700_000_000.25


@pytest.fixture
def source() -> Iterator[UdpSource]:
    built = UdpSource(port=0, host=HERE)
    built.open()
    yield built
    built.close()


def send(payload: bytes, port: int, *, sender: str = HERE) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.bind((sender, 0))
        sending.sendto(payload, (HERE, port))


# ------------------------------------------------------------------------------------------------------------------ UDP


def test_what_is_sent_comes_once_and_in_order(source: UdpSource) -> None:
    payloads = [bytes([number]) * (1 + 700 * number) for number in range(20)]
    for payload in payloads:
        send(payload, source.port)
    got = [source.receive(5.0) for _ in payloads]
    assert [packet.payload for packet in got if packet] == payloads
    assert source.receive(0.0) is None
    assert source.receive(0.01) is None
    assert set(source.counts.values()) == {0}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps packets for everybody")
def wait_for_stamps(source: UdpSource) -> None:
    """Linux begins to stamp packets on arrival a moment after the first socket asks for it; on a busy machine later."""
    for _ in range(200):
        sent_s = time.time()
        send(b"?", source.port)
        time.sleep(0.02)
        packet = source.receive(5.0)
        assert packet is not None
        if packet.kernel_s is not None and packet.kernel_s < sent_s + 0.015:
            return
    pytest.fail("packets are stamped when they are read")


def test_a_packet_arrives_when_the_kernel_gets_it_not_when_it_is_read(source: UdpSource) -> None:
    wait_for_stamps(source)
    before_s, before_wall_s = host_now_s(), time.time()
    for number in range(10):
        send(bytes([number]), source.port)
    after_s, after_wall_s = host_now_s(), time.time()
    time.sleep(0.2)
    packets = [packet for _ in range(10) if (packet := source.receive(5.0)) is not None]
    for packet in packets:
        assert packet.kernel_s is not None
        assert before_wall_s - 0.001 < packet.kernel_s < after_wall_s + 0.001
    # A thread that is held up between reading the two clocks makes a packet late, never early; not ten times in a row.
    assert before_s - 0.001 < min(packet.arrived_s for packet in packets) < after_s + 0.001


def test_others_are_not_listened_to() -> None:
    source = UdpSource(port=0, host=HERE, sender="127.0.0.2")
    source.open()
    for number, sender in enumerate((HERE, "127.0.0.2", HERE, "127.0.0.2")):
        send(bytes([number]), source.port, sender=sender)
    got = [source.receive(5.0) for _ in range(2)]
    assert [packet.payload for packet in got if packet] == [b"\x01", b"\x03"]
    assert source.counts["foreign"] == 2
    source.close()


def test_a_group_reaches_all_its_listeners() -> None:
    first = UdpSource(port=0, multicast="239.255.61.3", interface=HERE)
    first.open()
    second = UdpSource(port=first.port, multicast="239.255.61.3", interface=HERE)
    second.open()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HERE))
        sending.sendto(b"to all", ("239.255.61.3", first.port))
    for source in (first, second):
        packet = source.receive(5.0)
        assert packet is not None
        assert packet.payload == b"to all"
        source.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_full_buffer_is_told() -> None:
    source = UdpSource(port=0, host=HERE, receive_buffer_bytes=4096)
    source.open()
    for _ in range(200):
        send(bytes(1000), source.port)
    while source.receive(0.0) is not None:
        pass
    send(b"the next one tells", source.port)
    assert source.receive(5.0) is not None
    assert 0 < source.counts["dropped"] < 200
    source.close()


def test_a_port_that_is_taken_is_said(source: UdpSource) -> None:
    with pytest.raises(SensorError, match=r"a free port.*Close the other program"):
        UdpSource(port=source.port, host=HERE).open()
    with pytest.raises(SensorError, match="a free port"):
        UdpSource(port=0, host="192.0.2.1").open()  # no address of this host
    with pytest.raises(SpecError, match=r"port 0\.\.65535"):
        UdpSource(port=65536)
    source.close()
    source.close()
    with pytest.raises(SensorError, match="an open port"):
        source.receive(0.0)
    source.open()  # and again
    send(b"back", source.port)
    assert source.receive(5.0) is not None


# ---------------------------------------------------------------------------------------------------------- the guard


def test_three_that_follow_each_other_are_believed() -> None:
    guard = JumpGuard(reach=10)
    assert [guard.believes(number) for number in (500, 9000, 9005, 9005)] == [False, False, False, True]
    guard = JumpGuard(reach=10)
    assert [guard.believes(number) for number in (100, 109, 50, 70, 75, 80)] == [False] * 5 + [True]
    guard.settle()
    assert guard.believes(81) is False


# ------------------------------------------------------------------------------------------------------------ captures


def read(data: bytes) -> tuple[list[Datagram], dict[str, int]]:
    counts: Counter[str] = Counter()
    return list(read_datagrams(io.BytesIO(data), counts)), {kind: n for kind, n in counts.items() if n}


PAYLOADS = [b"one", b"", b"three" * 250]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("vlan", [None, 42])
def test_a_classic_capture(order: str, nano: bool, vlan: int | None) -> None:
    frames = [(BEGIN_S + k * 0.001234567, udp_frame(p, 2368, vlan=vlan)) for k, p in enumerate(PAYLOADS)]
    got, counts = read(pcap(frames, order=order, nano=nano))
    assert [one.payload for one in got] == PAYLOADS  # the padding of short frames is gone
    assert {(one.sender, one.port) for one in got} == {("192.168.1.201", 2368)}
    for one, (time_s, _) in zip(got, frames, strict=True):
        assert one.time_s == pytest.approx(time_s, abs=3e-7 if nano else 1e-6)
    assert counts == {}


def test_the_first_bytes_of_a_capture_are_these() -> None:
    """One packet, written out by hand: an Ethernet frame of 60 bytes, padded, with 4 bytes for port 7502."""
    written = bytes.fromhex(
        "d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000"  # header: microseconds, little-endian, Ethernet
        "00f15365 90d00300 3c000000 3c000000"  # 1700000000 s, 250000 us, 60 bytes of 60
        "020000000001 607688000001 0800"  # to, from, IPv4
        "4500 0020 0001 0000 40 11 0000 c0a801c9 c0a8014d"  # 32 bytes, UDP, from 192.168.1.201 to 192.168.1.77
        "01bb 1d4e 000c 0000 deadbeef"  # from port 443 to 7502, 12 bytes
        "0000000000000000000000000000"  # padding
    )
    assert read(written) == ([Datagram(BEGIN_S, "192.168.1.201", 7502, b"\xde\xad\xbe\xef")], {})
    assert pcap([(BEGIN_S, udp_frame(b"\xde\xad\xbe\xef", 7502))]) == written


@pytest.mark.parametrize(
    ("link", "head"),
    [
        (1, b"\2" * 12 + b"\x08\x00"),
        (113, b"\0" * 14 + b"\x08\x00"),
        (276, b"\x08\x00" + b"\0" * 18),
        (101, b""),
        (228, b""),
        (0, b"\2\0\0\0"),
        (108, b"\0\0\0\2"),
    ],
)
def test_every_kind_of_link(link: int, head: bytes) -> None:
    body = struct.pack(">HHHH", 1, 2368, 8 + 5, 0) + b"hello"
    got, counts = read(pcap([(BEGIN_S, head + ip_packet(body))], link=link))
    assert [one.payload for one in got] == [b"hello"]
    assert counts == {}
    got, counts = read(pcap([(BEGIN_S, head + b"\x60" + bytes(60))], link=link))  # IPv6
    assert (got, counts) == ([], {"other": 1})


@pytest.mark.parametrize("order", "<>")
def test_a_pcapng_with_two_cards(order: str) -> None:
    body = struct.pack(">HHHH", 1, 2368, 8 + 3, 0) + b"raw"
    frames = [(BEGIN_S, udp_frame(b"wired", 2368), 0), (BEGIN_S + 1e-6, ip_packet(body), 1)]
    once = pcapng(frames, links=(1, 101), order=order, offset_s=1_600_000_000)
    got, counts = read(once)
    assert [one.payload for one in got] == [b"wired", b"raw"]
    assert [one.time_s for one in got] == pytest.approx([BEGIN_S, BEGIN_S + 1e-6], abs=3e-7)
    assert counts == {}
    other = pcapng([(BEGIN_S, udp_frame(b"again", 1), 0)], order="<" if order == ">" else ">")
    assert [one.payload for one in read(once + other)[0]] == [b"wired", b"raw", b"again"]  # two sections


def test_fragments_are_put_together_in_any_order() -> None:
    payloads = [random.Random(n).randbytes(12_608) for n in range(3)]
    pieces = [ip_fragments(payload, 7502, number=7 + n) for n, payload in enumerate(payloads)]
    assert len(pieces[0]) == 9
    mixed = list(itertools.chain(*zip(*pieces, strict=True)))  # three datagrams at once
    random.Random(1).shuffle(mixed)
    got, counts = read(pcap([(BEGIN_S + k, ethernet(piece)) for k, piece in enumerate(mixed)]))
    assert sorted(one.payload for one in got) == sorted(payloads)
    assert {one.port for one in got} == {7502}
    assert counts == {"fragments": 27}
    got, counts = read(pcap([(BEGIN_S, ethernet(piece)) for piece in mixed[1:] + mixed[5:6]]))
    assert len(got) == 2
    assert counts["incomplete"] >= 1


def test_what_else_is_in_a_capture_is_counted() -> None:
    tcp = bytearray(udp_frame(b"x", 2368))
    tcp[14 + 9] = 6
    lying = bytearray(udp_frame(b"y" * 30, 2368))
    lying[14 + 20 + 4 : 14 + 20 + 6] = struct.pack(">H", 5000)  # UDP length beyond the packet
    good = bytearray(udp_frame(b"good, and more", 2368))
    good[14 + 20 + 4 : 14 + 20 + 6] = struct.pack(">H", 8 + 4)  # UDP length short of the packet
    data = pcap([(BEGIN_S, bytes(frame)) for frame in (tcp, lying, b"", b"\0" * 13, good)])
    cut = struct.pack("<IIII", 1_700_000_001, 0, 40, 60) + good[:40]  # tcpdump -s 40
    got, counts = read(data + cut + struct.pack("<IIII", 1_700_000_002, 0, 60, 60) + good[:17])
    assert [one.payload for one in got] == [b"good"]
    assert counts == {"other": 4, "cut": 1, "damaged": 1}


@settings(max_examples=150)
@given(
    st.integers(0, 1), st.lists(st.tuples(st.integers(0, 999), st.integers(0, 255)), max_size=6), st.integers(1, 1000)
)
def test_a_damaged_capture_is_read_as_far_as_it_goes(kind: int, changes: list[tuple[int, int]], length: int) -> None:
    frames = [(BEGIN_S, udp_frame(bytes([k]) * 20, 2368)) for k in range(8)]
    data = bytearray(pcap(frames) if kind == 0 else pcapng([(*frame, 0) for frame in frames]))
    for at, value in changes:
        if 24 < at < len(data):
            data[at] = value
    got, _ = read(bytes(data[: max(length, 24)]))
    assert all(isinstance(one.payload, bytes) for one in got)


def test_a_capture_plays_in_its_own_time(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    moments_s = [BEGIN_S + after_s for after_s in (0.0, 0.05, 0.1, 0.15, 0.2, 3600.0)]
    path.write_bytes(pcap((time_s, udp_frame(bytes([k]), 2368 + k % 2)) for k, time_s in enumerate(moments_s)))
    source = PcapSource(path=str(path), port=2368)
    assert not source.ended
    source.open()
    begun_s = host_now_s()
    got = [source.receive(20.0) for _ in range(3)]
    assert host_now_s() - begun_s >= 0.2
    packets = [packet for packet in got if packet is not None]
    assert [packet.payload for packet in packets] == [b"\0", b"\2", b"\4"]
    assert [packet.arrived_s - packets[0].arrived_s for packet in packets] == pytest.approx([0.0, 0.1, 0.2], abs=1e-5)
    assert packets[2].kernel_s == pytest.approx(BEGIN_S + 0.2, abs=1e-6)
    assert source.ended
    assert source.receive(0.001) is None
    assert source.counts["foreign"] == 3
    source.close()
    later = PcapSource(path=str(path), port=2369)
    later.open()
    assert [later.receive(20.0) is None for _ in range(2)] == [False, False]
    assert later.receive(0.01) is None  # the next one comes in an hour
    assert not later.ended
    later.close()
    fast = PcapSource(path=str(path), sender="192.168.1.201", real_time=False)
    fast.open()
    got = [fast.receive(0.0) for _ in range(7)]
    assert [packet.arrived_s for packet in got if packet] == pytest.approx(moments_s, abs=1e-6)
    fast.close()
    stranger = PcapSource(path=str(path), sender="10.0.0.1", real_time=False)
    stranger.open()
    assert stranger.ended
    stranger.close()


def test_a_file_that_is_no_capture_is_said(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match=r"a file.*Give the path"):
        PcapSource(path=str(tmp_path / "none.pcap")).open()
    path = tmp_path / "notes.pcap"
    path.write_bytes(b"dear diary")
    with pytest.raises(SensorError, match="a pcap or pcapng file"):
        PcapSource(path=str(path)).open()
    with pytest.raises(SensorError, match="an open file"):
        PcapSource(path=str(path)).receive(0.0)
