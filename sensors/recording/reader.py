"""Recording: the sensors, spans and frames of a file that a Recorder wrote, whether or not it was closed.

recording = Recording("drive.mcap")
recording.names, recording.start_s, recording.end_s
for recorded in recording.frames(["front"], start_s=recording.start_s + 10):
    recorded.frame.rgb
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, final

from gymnasium import spaces

from sensors.errors import DataError, SpecError, nearest
from sensors.frames import Frame
from sensors.recording.chunks import McapIndex, RawMessage
from sensors.recording.clock import RecordingClock
from sensors.recording.encoder import Coding, FrameEncoder, frame_class
from sensors.recording.layout import Layout
from sensors.recording.mcap_file import LAYOUT_KEY
from sensors.recording.writer import CLOSING, FORMAT, HEADER, SENSOR
from sensors.spec import space_from_json
from sensors.timeline import Timing


@dataclass(frozen=True, eq=False)
class SensorInfo:
    """What a recording knows of a sensor before its first frame: the space of its frames, and its timing."""

    name: str
    space: spaces.Dict
    timing: Timing


@dataclass(frozen=True, eq=False)
class RecordedFrame:
    """One frame of a recording.

    Attributes:
        name: of the sensor.
        sequence: its number among the sensor's frames; numbers that are missing were dropped.
        read_s: when the rig read it, on the recording's clock (that of ``frame.stamp_s``), seconds.
        frame: equal to the one recorded, bit by bit, save colour coded as JPEG and depth rounded to millimetres.
    """

    name: str
    sequence: int
    read_s: float
    frame: Frame


@final
class Recording:
    """A recording, read without loading more than the chunks that are asked for.

    A file whose writer died is read up to its last whole chunk: ``complete`` is False then and ``lost_bytes`` says how
    much of a chunk was left over.

    Args:
        path: the file.
        frame_types: frame classes that are not of this project, so that frames come back as instances of them;
            otherwise they get a class made for them.

    Raises:
        DataError: no such file, not a recording of this project, or damaged where it should not be.
    """

    def __init__(self, path: str | Path, frame_types: Sequence[type[Frame]] = ()) -> None:
        self.path = Path(path)
        self._index = McapIndex.read(path)
        header = self._records(HEADER)
        if not header:
            self._fail(f"a metadata record '{HEADER}'", "none", "It is an MCAP file, but of another program.")
        self.header = header[0]
        if self.header.get("format") != FORMAT:
            self._fail(f"format {FORMAT}", repr(self.header.get("format")), "Read it with the version that wrote it.")
        self._clock = RecordingClock(int(self.header["utc_offset_ns"]))
        self.sensors = {sensor.name: sensor for sensor in map(self._sensor, self._records(SENSOR, raw=("name",)))}
        self._own: dict[int, tuple[str, FrameEncoder, type[Frame]]] = {}
        self._carried: dict[int, str] = {}  # channel -> sensor
        carriers: dict[str, str] = {}
        for number, channel in self._index.channels.items():
            if LAYOUT_KEY in channel.metadata:
                name, layout = channel.topic.removeprefix("/"), Layout.from_json(channel.metadata[LAYOUT_KEY])
                encoder = FrameEncoder(name, layout, Coding())
                self._own[number] = name, encoder, frame_class(layout, frame_types)
                carriers |= dict.fromkeys(encoder.carrier_topics, name)
        for number, channel in self._index.channels.items():
            if channel.topic in carriers:
                self._carried[number] = carriers[channel.topic]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sensors, in the rig's order; some may have given no frame."""
        return tuple(self.sensors)

    @property
    def complete(self) -> bool:
        """Whether the file was closed."""
        return self._index.complete

    @property
    def lost_bytes(self) -> int:
        """Bytes at the end that are no whole chunk."""
        return self._index.lost_bytes

    @property
    def counts(self) -> dict[str, int]:
        """Sensor -> frames in the file."""
        found = dict.fromkeys(self.sensors, 0)
        for number, (name, _, _) in self._own.items():
            found[name] += self._index.counts[number]
        return found

    @property
    def topics(self) -> dict[str, int]:
        """Topic -> messages, of all topics in the file, those that only viewers read included."""
        found: dict[str, int] = {}
        for number, channel in self._index.channels.items():
            found[channel.topic] = found.get(channel.topic, 0) + self._index.counts[number]
        return dict(sorted(found.items()))

    @property
    def start_s(self) -> float:
        """When the first frame was read, on the recording's clock, seconds; 0 without frames."""
        return self._clock.to_s(min((c.start_ns for c in self._index.chunks), default=self._clock.utc_offset_ns))

    @property
    def end_s(self) -> float:
        """When the last frame was read."""
        return self._clock.to_s(max((c.end_ns for c in self._index.chunks), default=self._clock.utc_offset_ns))

    @property
    def utc_offset_s(self) -> float:
        """Seconds since 1970 (UTC) minus the recording's clock."""
        return self._clock.utc_offset_ns / 1e9

    @property
    def closing(self) -> dict[str, Any]:
        """What the recorder told when it was closed: frames written and dropped, counts and clocks of live sensors."""
        found = self._records(CLOSING)
        return found[0] if found else {}

    def frames(
        self, names: Collection[str] | None = None, start_s: float | None = None, end_s: float | None = None
    ) -> Iterator[RecordedFrame]:
        """The frames in the order in which the rig read them.

        Args:
            names: of these sensors; None = of all.
            start_s: read at this time on the recording's clock or later.
            end_s: read before this time.

        Raises:
            SpecError: a name is not in the recording.
            DataError: the file is damaged at a place that is needed.
        """
        wanted = set(self.sensors if names is None else names)
        for name in wanted:
            if name not in self.sensors:
                known = nearest(name, self.sensors)
                raise SpecError(f"recording '{self.path}'", "one of its sensors", f"'{name}'", known)
        channels = {number for number, (name, _, _) in self._own.items() if name in wanted}
        channels |= {number for number, name in self._carried.items() if name in wanted}
        start_ns = 0 if start_s is None else self._clock.to_ns(start_s)
        end_ns = 2**64 if end_s is None else self._clock.to_ns(end_s)
        return self._assemble(self._messages(channels, start_ns, end_ns))

    def _messages(self, channels: set[int], start_ns: int, end_ns: int) -> Iterator[RawMessage]:
        """Messages by log time, those of one time in the order of the file."""
        chunks = [
            chunk for chunk in self._index.chunks
            if chunk.start_ns < end_ns and chunk.end_ns >= start_ns
            and (chunk.channels is None or chunk.channels & channels)
        ]  # fmt: skip
        chunks.sort(key=lambda chunk: (chunk.start_ns, chunk.offset))
        waiting: list[tuple[int, int, int, RawMessage]] = []
        with self.path.open("rb") as file:
            for chunk in [*chunks, None]:
                while waiting and (chunk is None or waiting[0][0] < chunk.start_ns):
                    yield heapq.heappop(waiting)[-1]
                if chunk is None:
                    return
                for place, message in enumerate(self._index.load(file, chunk)):
                    if message.channel in channels and start_ns <= message.log_ns < end_ns:
                        heapq.heappush(waiting, (message.log_ns, chunk.offset, place, message))

    def _assemble(self, messages: Iterator[RawMessage]) -> Iterator[RecordedFrame]:
        """Put the messages of each frame together. Its own is the last of them."""
        parts: dict[tuple[str, int], dict[str, bytes]] = {}
        for message in messages:
            if message.channel in self._carried:
                topic = self._index.channels[message.channel].topic
                parts.setdefault((self._carried[message.channel], message.sequence), {})[topic] = message.data
                continue
            name, encoder, kind = self._own[message.channel]
            found = parts.pop((name, message.sequence), {})
            if found.keys() != set(encoder.carrier_topics):
                got = f"{sorted(found)} at sequence number {message.sequence}"
                self._fail(f"the messages {sorted(encoder.carrier_topics)}", got, "The file was cut or edited.")
            frame = encoder.decode(kind, message.data, [found[topic] for topic in encoder.carrier_topics])
            yield RecordedFrame(name, message.sequence, self._clock.to_s(message.log_ns), frame)

    def _records(self, name: str, raw: Collection[str] = ()) -> list[dict[str, Any]]:
        try:
            return [
                {key: value if key in raw else json.loads(value) for key, value in values.items()}
                for kind, values in self._index.metadata
                if kind == name
            ]
        except ValueError as error:
            self._fail(f"JSON in its metadata '{name}'", str(error), "The file is damaged.")

    def _sensor(self, record: dict[str, Any]) -> SensorInfo:
        try:
            space = space_from_json(record["space"])
            assert isinstance(space, spaces.Dict)
            known = {field.name for field in fields(Timing)}
            return SensorInfo(
                record["name"], space, Timing(**{k: v for k, v in record["timing"].items() if k in known})
            )
        except (KeyError, TypeError, SpecError) as error:
            self._fail("the space and timing of a sensor", repr(error), "The file is damaged.")

    def _fail(self, expected: str, got: str, fix: str) -> NoReturn:
        raise DataError(f"recording '{self.path}'", expected, got, fix)
