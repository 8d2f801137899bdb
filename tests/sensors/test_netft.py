"""A force and torque sensor on loopback that speaks RDT byte by byte: values, commands, gaps, units."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import WrenchFrame
from sensors.geometry import FloatArray
from sensors.live import Captured, LiveSensor, Mount, wait_for
from sensors.netft import NetFT, read_scale
from sensors.rig import SensorRig
from sensors.timeline import Timing

LOAD = (1.5, -2.25, 30.0, 0.125, -0.5, 0.0625)  # N, Nm
PER_N, PER_NM = 1_000_000.0, 1_000_000.0


def record(rdt: int, ft: int, load: Sequence[float] = LOAD, status: int = 0) -> bytes:
    counts = [round(value * 1_000_000) for value in load]
    return struct.pack(">III6i", rdt % 2**32, ft % 2**32, status, *counts)


@dataclass
class Box:
    """The Net F/T box: answers a start command with records at its RDT rate, until it is told to stop."""

    port: int = 0
    commands: list[tuple[int, int, int]] = field(default_factory=list)
    rate_hz: float = 1000.0  # RDT output rate; ft_sequence counts at 7000 Hz
    mute: bool = False
    ending: bool = False

    def run(self, service: socket.socket) -> None:
        target: Any = None
        rdt, begun_s = 0, 0.0
        while not self.ending:
            service.settimeout(0.0005)
            with contextlib.suppress(TimeoutError):
                request, sender = service.recvfrom(100)
                self.commands.append(struct.unpack(">HHI", request))
                command = self.commands[-1][1]
                if command == 2:
                    target, rdt, begun_s = sender, 0, host_now_s()
                elif command == 0:
                    target = None
            while target is not None and not self.mute and (host_now_s() - begun_s) * self.rate_hz > rdt:
                rdt += 1
                service.sendto(record(rdt, round(123_456 + rdt * 7000 / self.rate_hz)), target)


@pytest.fixture
def box() -> Iterator[Box]:
    built = Box()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        built.port = service.getsockname()[1]
        thread = threading.Thread(target=built.run, args=(service,), daemon=True)
        thread.start()
        yield built
        built.ending = True
        thread.join()


def device(port: int, **changes: Any) -> NetFT:
    settings: dict[str, Any] = {"counts_per_N": PER_N, "counts_per_Nm": PER_NM, "silence_s": 5.0, **changes}
    return NetFT(host="127.0.0.1", port=port, **settings)


def load(captured: Captured | None) -> FloatArray:
    assert captured is not None
    assert isinstance(captured.frame, WrenchFrame)
    return np.concatenate([captured.frame.force_N, captured.frame.torque_Nm])


# -------------------------------------------------------------------------------------------------------- over the wire


def test_values_commands_and_clock_as_a_live_sensor(box: Box) -> None:
    built = device(box.port)
    timing = Timing(rate_hz=1000.0, live=True)
    sensor = LiveSensor(device=built, timing=timing, mount=Mount(position_m=(0.0, 0.0, 0.1)))
    begun_s = host_now_s()
    sensor.open(None)
    frames = [wait_for(sensor, 20.0) for _ in range(50)]
    ended_s = host_now_s()
    sensor.close()
    assert box.commands[0] == (0x1234, 2, 0)
    deadline_s = time.monotonic() + 20.0
    while box.commands[-1] != (0x1234, 0, 0):
        assert time.monotonic() < deadline_s, box.commands
        time.sleep(0.001)
    for frame in frames:
        assert isinstance(frame, WrenchFrame)
        np.testing.assert_allclose([*frame.force_N, *frame.torque_Nm], LOAD, atol=1e-9)
        np.testing.assert_array_equal(frame.base_from_sensor[:3, 3], [0.0, 0.0, 0.1])
        assert built.space.contains(frame.arrays())
        assert begun_s - 0.01 < frame.stamp_s < ended_s
    assert set(built.counts.values()) == {0}


def test_stamps_count_the_sensors_own_measurements(box: Box) -> None:
    built = device(box.port)
    built.open()
    got = [built.wait(20.0) for _ in range(50)]
    built.close()
    stamps_s = [one.frame.stamp_s for one in got if one is not None]
    assert stamps_s == pytest.approx([123_456 / 7000 + 0.001 * k for k in range(1, 51)])


def test_a_silent_sensor_is_lost_masked_and_found_again(box: Box) -> None:
    sensor = LiveSensor(
        device=device(box.port, silence_s=0.2), timing=Timing(rate_hz=1000.0, live=True, max_age_s=5.0), retry_s=0.01
    )
    rig = SensorRig({"wrench": sensor})
    rig.open(None)
    rig.reset(host_now_s(), 0)
    for mute in (False, True, False):
        box.mute = mute
        deadline_s = time.monotonic() + 20.0
        while _shown(rig) is mute:
            assert time.monotonic() < deadline_s
            time.sleep(0.002)
    assert sensor.counts["reconnects"] >= 1
    rig.close()


def _shown(rig: SensorRig) -> bool:
    now_s = host_now_s()
    rig.tick(now_s)
    return bool(rig.observe(now_s).streams["wrench"].valid[-1])


def test_the_other_way_round(box: Box) -> None:
    built = device(box.port, flip=True)
    built.open()
    got = built.wait(20.0)
    built.close()
    assert load(got) == pytest.approx(np.negative(LOAD))


def test_zero_is_taken_at_the_first_start_only(box: Box) -> None:
    built = device(box.port, bias=True)
    for _ in range(2):
        built.open()
        assert built.wait(20.0) is not None
        built.close()
        built.close()
    biases = [command for _, command, _ in box.commands if command == 0x42]
    assert len(biases) == 1
    assert box.commands[0] == (0x1234, 0x42, 0)


def test_what_cannot_work_is_said(box: Box) -> None:
    box.mute = True
    with pytest.raises(SensorError, match=r"a record within 0.3 s.*RDT enabled"):
        device(box.port, silence_s=0.3).open()
    assert box.commands.count((0x1234, 2, 0)) >= 2  # asked again: UDP may lose it
    with pytest.raises(SensorError, match=r"the address of the sensor.*Correct host"):
        NetFT(host="no such host", counts_per_N=1.0, counts_per_Nm=1.0).open()
    with pytest.raises(SensorError, match="an open sensor"):
        device(1).wait(0.0)
    for name, value in (("average", 0), ("counts_per_N", -1.0), ("internal_hz", float("nan"))):
        with pytest.raises(SpecError, match=f"NetFT.{name}"):
            device(1, **{name: value})
    box.mute = False
    built = device(box.port, silence_s=0.1)
    built.open()
    box.mute = True
    with pytest.raises(SensorLost, match="silence"):
        _drain(built)
    built.close()


def _drain(built: NetFT) -> None:
    while built.wait(20.0) is not None:
        pass


# --------------------------------------------------------------------------------------------------------- calibration


def page(force: str = "N", torque: str = "N-m", **changes: Any) -> bytes:
    fields = {
        "cfgcpf": 1_000_000,
        "cfgcpt": 1_000_000,
        "scfgfu": force,
        "scfgtu": torque,
        "comrdte": "Enabled",
        **changes,
    }
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items() if value is not None)
    return f'<?xml version="1.0" encoding="utf-8"?><netftapi><setserial>FT12345</setserial>{inner}</netftapi>'.encode()


@pytest.mark.parametrize(
    ("force", "torque", "newtons", "newton_metres"),
    [
        ("N", "Nm", 1.0, 1.0),
        ("N", "N-mm", 1.0, 0.001),
        ("lbf", "lbf-in", 4.4482216152605, 4.4482216152605 * 0.0254),
        ("lbf", "lbf-ft", 4.4482216152605, 4.4482216152605 * 0.3048),
        ("klbf", "kNm", 4448.2216152605, 1000.0),
        ("kN", "kgf-cm", 1000.0, 9.80665 * 0.01),
    ],
)
def test_counts_are_told_in_any_unit(force: str, torque: str, newtons: float, newton_metres: float) -> None:
    scale = read_scale(page(force, torque, cfgcpf=2000, cfgcpt=50_000), "test")
    assert scale.per_N * newtons == pytest.approx(2000)
    assert scale.per_Nm * newton_metres == pytest.approx(50_000)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (page(comrdte="Disabled"), "Enable RDT"),
        (page(cfgcpf=None), "KeyError: 'cfgcpf'.*set counts_per_N"),
        (page(force="stone"), "KeyError: 'stone'"),
        (page(cfgcpt="many"), "could not convert"),
        (page(cfgcpt=0), "cfgcpt 0"),
        (b"<html><body>", "ParseError"),
        (b"", "ParseError"),
    ],
)
def test_a_page_without_them_is_said(answer: bytes, says: str) -> None:
    with pytest.raises(SensorError, match=says):
        read_scale(answer, "test")


def test_the_page_is_asked_where_nothing_is_told(box: Box) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page("lbf", "lbf-in", cfgcpf=4_448_222))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    built = device(box.port, counts_per_N=None, http_port=server.server_address[1])
    built.open()
    got = built.wait(20.0)
    built.close()
    server.shutdown()
    server.server_close()
    assert asked == ["/netftapi2.xml"]
    assert load(got) == pytest.approx(LOAD, rel=1e-6)  # force by the page, torque as told
