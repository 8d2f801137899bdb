"""ATI force and torque sensors with a Net F/T box (also NETrs and Axia), over UDP.

Protocol: "RDT", ATI Network F/T Sensor System Manual 9620-05-NET FT, chapter 9; settings page: chapter 13.
"""

from __future__ import annotations

import math
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from typing import final

import numpy as np
from gymnasium import spaces

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import WrenchFrame
from sensors.live import Captured, Device
from sensors.netft_records import RecordDecoder
from sensors.packets import UdpSource
from sensors.spec import box
from sensors.web_page import http_get

REQUEST = struct.Struct(">HHI")  # header, command, number of samples
HEADER = 0x1234
STOP, START, BIAS = 0x0000, 0x0002, 0x0042  # START: one record per packet, as they come
ASK_AGAIN_S = 0.2

N_PER = {
    "n": 1.0,
    "kn": 1000.0,
    "lbf": 4.4482216152605,
    "klbf": 4448.2216152605,
    "kgf": 9.80665,
    "kg": 9.80665,
    "g": 9.80665e-3,
}
NM_PER = {
    "nm": 1.0, "knm": 1000.0, "nmm": 1e-3, "lbfin": 0.1129848290276167, "lbfft": 1.3558179483314004,
    "inlbf": 0.1129848290276167, "ftlbf": 1.3558179483314004, "lbin": 0.1129848290276167, "lbft": 1.3558179483314004,
    "kgfcm": 0.0980665, "kgcm": 0.0980665,
}  # fmt: skip


@dataclass(frozen=True)
class _Scale:
    """Counts of the records per newton and per newton metre."""

    per_N: float  # noqa: N815  (units keep their own capital letter)
    per_Nm: float  # noqa: N815


@final
class NetFT(Device):
    """An ATI force and torque sensor. Gives :class:`sensors.frames.WrenchFrame`, stamped by the sensor's own counter.

    ATI states the load that acts on the tool side, in the sensor's frame: what :class:`sensors.frames.WrenchFrame`
    says too. ``flip`` is for a sensor that is mounted the other way round (its tool side on the arm).

    Records with an error in their status, or beyond the range, are given as NaN, which a rig masks; a user's threshold
    that was passed is no error.

    Args:
        host: address of the Net F/T box.
        port: of its RDT service.
        counts_per_N: counts of a record per newton; None = ask its web page.
        counts_per_Nm: per newton metre; None = ask.
        http_port: of its web page.
        http_timeout_s: how long that may take to answer.
        internal_hz: how fast ft_sequence counts: 7000 for Net F/T, 7812 for Axia.
        average: records that are averaged to one frame, stamped in their middle. The box sends as many records a second
            as its web page says (RDT output rate).
        flip: negate force and torque.
        bias: take what is on the sensor when it is opened first as zero. Not when it is found again after it was lost:
            the load of that moment is not known.
        max_force_N: greater forces cannot be.
        max_torque_Nm: greater torques cannot be.
        silence_s: without records for so long, the sensor is away.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int = 49152,
        counts_per_N: float | None = None,  # noqa: N803  (units keep their own capital letter)
        counts_per_Nm: float | None = None,  # noqa: N803
        http_port: int = 80,
        http_timeout_s: float = 2.0,
        internal_hz: float = 7000.0,
        average: int = 1,
        flip: bool = False,
        bias: bool = False,
        max_force_N: float = 1000.0,  # noqa: N803
        max_torque_Nm: float = 100.0,  # noqa: N803
        silence_s: float = 0.5,
    ) -> None:
        positive = {
            "counts_per_N": counts_per_N, "counts_per_Nm": counts_per_Nm, "http_timeout_s": http_timeout_s,
            "internal_hz": internal_hz, "average": average, "max_force_N": max_force_N, "max_torque_Nm": max_torque_Nm,
            "silence_s": silence_s,
        }  # fmt: skip
        for name, value in positive.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SpecError(f"NetFT.{name}", "a positive number", repr(value), "Correct it.")
        self._address = (host, port)
        self._told = (counts_per_N, counts_per_Nm)
        self._http = (http_port, http_timeout_s)
        self._internal_hz = internal_hz
        self._average = average
        self._sign = -1.0 if flip else 1.0
        self._bias = bias
        self._limits = np.repeat([max_force_N, max_torque_Nm], 3)
        self._silence_s = silence_s
        self._source: UdpSource | None = None
        self._decoder: RecordDecoder | None = None
        self._before: Counter[str] = Counter()  # counted before the sensor was lost and found
        self._heard_s = -math.inf

    @property
    def space(self) -> spaces.Dict:
        """force_N, torque_Nm, base_from_sensor; see :class:`sensors.frames.WrenchFrame`."""
        force, torque = float(self._limits[0]), float(self._limits[3])
        return spaces.Dict(
            {
                "force_N": box(-force, force, (3,), np.float64),
                "torque_Nm": box(-torque, torque, (3,), np.float64),
                "base_from_sensor": box(-1000.0, 1000.0, (4, 4), np.float64),
            }
        )

    @property
    def counts(self) -> dict[str, int]:
        """See :class:`sensors.netft_records.RecordDecoder`; over all times that it was open."""
        total, decoder = Counter(self._before), self._decoder
        total.update({} if decoder is None else decoder.counts)
        return dict(total)

    @property
    def last_status(self) -> int:
        """The status of the newest record, bit by bit as in the manual; 0 = all is well."""
        decoder = self._decoder
        return 0 if decoder is None else decoder.last_status

    def open(self) -> None:
        """Ask for the calibration if it is not given, start the stream and wait for the first record.

        Raises:
            SensorError: no such host, no or unknown calibration, RDT is switched off, or no record comes.
        """
        self.close()
        host, port = self._address
        try:
            address = socket.gethostbyname(host)
        except OSError as error:
            raise SensorError("NetFT", "the address of the sensor", f"'{host}': {error}", "Correct host.") from error
        scale = self._asked_scale(address)
        per_count = self._sign / np.repeat([scale.per_N, scale.per_Nm], 3)
        decoder = RecordDecoder(per_count, self._limits, self._internal_hz, self._average)
        source = UdpSource(port=0, sender=address)
        source.open()
        self._source, self._decoder = source, decoder
        end_s = host_now_s() + self._silence_s
        heard = False
        try:
            if self._bias:
                source.send(REQUEST.pack(HEADER, BIAS, 0), address, port)
            while not heard:
                if host_now_s() >= end_s:
                    raise SensorError(
                        f"NetFT at {host}:{port}", f"a record within {self._silence_s} s", "none",
                        "Is it on, and RDT enabled on its page 'Communications'? A firewall may keep its packets away.",
                    )  # fmt: skip
                source.send(REQUEST.pack(HEADER, START, 0), address, port)  # again: UDP may lose it
                packet = source.receive(min(ASK_AGAIN_S, self._silence_s))
                heard = packet is not None and decoder.feed(packet.payload, packet.arrived_s)
        except SensorError:
            self.close()
            raise
        self._heard_s = host_now_s()
        self._bias = False

    def wait(self, timeout_s: float) -> Captured | None:
        if self._source is None or self._decoder is None:
            raise SensorError("NetFT", "an open sensor", "a closed one", "Call open() first.")
        end_s = host_now_s() + timeout_s
        while (load := self._decoder.take()) is None:
            if host_now_s() >= end_s:
                return None
            packet = self._source.receive(max(min(end_s, self._heard_s + self._silence_s) - host_now_s(), 0.0))
            if packet is not None and self._decoder.feed(packet.payload, packet.arrived_s):
                self._heard_s = host_now_s()
            elif host_now_s() - self._heard_s >= self._silence_s:
                raise SensorLost(
                    f"NetFT at {self._address[0]}", f"a record every {self._silence_s} s", "silence",
                    "Check its power and cable.",
                )  # fmt: skip
        frame = WrenchFrame(
            stamp_s=load.stamp_s, force_N=load.load[:3], torque_Nm=load.load[3:], base_from_sensor=np.eye(4)
        )
        return Captured(frame, load.arrived_s, device_clock=True)

    def close(self) -> None:
        if self._source is None:
            return
        source, self._source = self._source, None
        try:
            source.send(REQUEST.pack(HEADER, STOP, 0), *self._address)
        except SensorError:
            pass  # it is gone, so it does not send either
        finally:
            source.close()
        if self._decoder is not None:
            self._before.update(self._decoder.counts)
            self._decoder = None

    # -- calibration ------------------------------------------------------------------------------------------------

    def _asked_scale(self, address: str) -> _Scale:
        force, torque = self._told
        if force is None or torque is None:
            port, timeout_s = self._http
            asked = read_scale(http_get(address, port, "/netftapi2.xml", timeout_s), f"NetFT at {address}")
            force, torque = force or asked.per_N, torque or asked.per_Nm
        return _Scale(force, torque)


def read_scale(page: bytes, where: str) -> _Scale:
    """Counts per newton and newton metre out of netftapi2.xml, whatever units the sensor is set to.

    Raises:
        SensorError: the page lacks them, its units are unknown, or it says that RDT is switched off.
    """
    import xml.etree.ElementTree as ET

    try:
        texts = {element.tag: (element.text or "").strip() for element in ET.fromstring(page).iter()}
        if texts.get("comrdte", "").lower() in ("0", "disabled"):
            raise SensorError(where, "RDT enabled", "disabled", "Enable RDT on its page 'Communications'.")
        per_force, per_torque = float(texts["cfgcpf"]), float(texts["cfgcpt"])
        newtons, newton_metres = N_PER[_unit(texts["scfgfu"])], NM_PER[_unit(texts["scfgtu"])]
        if not (0 < per_force < math.inf and 0 < per_torque < math.inf):
            raise ValueError(f"cfgcpf {per_force}, cfgcpt {per_torque}")
    except (ET.ParseError, KeyError, ValueError) as error:
        raise SensorError(
            where, "cfgcpf, cfgcpt, scfgfu and scfgtu in netftapi2.xml", f"{type(error).__name__}: {error}",
            "Read counts per force and torque on its page 'Configurations', and set counts_per_N and counts_per_Nm.",
        ) from error  # fmt: skip
    return _Scale(per_force / newtons, per_torque / newton_metres)


def _unit(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalpha())
