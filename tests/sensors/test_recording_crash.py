"""Recordings whose writer was killed or whose file is damaged: all that was written can be read, faults are told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mcap.exceptions import EndOfFile
from mcap.records import Message
from mcap.stream_reader import StreamReader

from sensors.errors import DataError
from sensors.frames import JointFrame, RgbdFrame, WrenchFrame
from sensors.recording.chunks import McapIndex
from sensors.recording.format import MAGIC
from sensors.recording.reader import Recording
from sensors.recording.writer import Recorder
from tests.sensors.recorded_frames import Listed, assert_same, make_frame, write
from tests.sensors.recording_child import RATE_HZ, frame_number

ROOT = Path(__file__).resolve().parents[2]


def kill_while_recording(path: Path, seed: int, frames: int) -> tuple[int, Recording]:
    """Kill a recording process once it has put so many frames; how many it had put, and what can be read."""
    command = [sys.executable, "-m", "tests.sensors.recording_child", str(path), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0) as child:
        assert child.stdout is not None
        told = b""
        while told.count(b"\n") < frames:
            some = os.read(child.stdout.fileno(), 65536)
            assert some, "the child ended by itself"
            told += some
        child.send_signal(signal.SIGKILL)
        told += child.stdout.read()
    return told.count(b"\n"), Recording(path)


def check_prefix(recording: Recording, seed: int, put: int) -> int:
    """What can be read is what was put, without gaps, up to some frame; how many were lost."""
    back = list(recording.frames())
    for number, item in enumerate(back):
        name, frame = frame_number(seed, number)
        assert item.name == name
        assert_same(frame, item.frame)
    assert sum(recording.counts.values()) == len(back)
    assert not recording.complete
    return put - len(back)


def kill_often(folder: Path, times: int) -> None:
    rng = np.random.default_rng(0)
    for k in range(times):
        put, recording = kill_while_recording(folder / f"{k}.mcap", k, int(rng.integers(1, 400)))
        lost = check_prefix(recording, k, put)
        assert lost <= RATE_HZ * 1.0, f"{lost / RATE_HZ} s were lost of {put / RATE_HZ} s"


def test_a_killed_recording_loses_its_last_second_at_most(tmp_path: Path) -> None:
    kill_often(tmp_path, 8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_recording_killed_at_a_hundred_moments(tmp_path: Path) -> None:
    kill_often(tmp_path, 100)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed recording of 3 s."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("whole") / "a.mcap"
    given = {
        "cam": [(k / 10, make_frame(RgbdFrame, rng, k / 10)) for k in range(30)],
        "joints": [(k / 50 + 0.001, make_frame(JointFrame, rng, k / 50)) for k in range(150)],
    }
    write(path, given)
    return path


def test_a_file_cut_at_any_byte_is_read_up_to_there(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    every = list(Recording(whole).frames())
    chunks = McapIndex.read(whole).chunks
    rng = np.random.default_rng(1)
    edges = [edge + d for c in chunks for edge in (c.offset, c.offset + 9 + c.size) for d in (0, 1)]
    last = -1
    for size in sorted({*rng.integers(chunks[0].offset, len(content), 60).tolist(), *edges, len(content) - 1}):
        cut = tmp_path / "cut.mcap"
        cut.write_bytes(content[:size])
        recording = Recording(cut)
        back = list(recording.frames())
        assert not recording.complete
        assert len(back) >= last, "more bytes, fewer frames"
        assert recording.counts == {name: sum(item.name == name for item in back) for name in ("cam", "joints")}
        for ours, theirs in zip(back, every, strict=False):
            assert (ours.name, ours.sequence) == (theirs.name, theirs.sequence)
        whole_chunks = sum(c.offset + 9 + c.size <= size for c in chunks)
        end_s = Recording(whole)._clock.to_s(chunks[whole_chunks - 1].end_ns) if whole_chunks else -1.0
        assert len(back) == sum(item.read_s <= end_s for item in every)
        assert recording.lost_bytes < max(c.size for c in chunks) + 20_000
        last = len(back)
    assert last == len(every)


def test_zeros_at_the_end_are_no_frames(whole: Path, tmp_path: Path) -> None:
    content, chunks = whole.read_bytes(), McapIndex.read(whole).chunks
    before = tmp_path / "before.mcap"
    before.write_bytes(content[: chunks[2].offset])
    expected = len(list(Recording(before).frames()))
    for start in (chunks[2].offset, chunks[2].offset + 60):  # between chunks, and within one
        zeros = tmp_path / f"{start}.mcap"
        zeros.write_bytes(content[:start] + bytes(100_000))
        recording = Recording(zeros)
        assert len(list(recording.frames())) == expected
        assert recording.lost_bytes == 100_000 + start - chunks[2].offset


def test_damage_within_is_told_with_its_place_and_the_rest_can_be_read(whole: Path, tmp_path: Path) -> None:
    content, chunk = bytearray(whole.read_bytes()), McapIndex.read(whole).chunks[2]
    middle = chunk.offset + chunk.size // 2
    content[middle : middle + 4] = bytes(255 - byte for byte in content[middle : middle + 4])
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(content)
    recording = Recording(damaged)
    with pytest.raises(DataError, match=rf"damaged.mcap.*chunk at byte {chunk.offset}"):
        list(recording.frames())
    start_s = recording._clock.to_s(chunk.start_ns)
    end_s = recording._clock.to_s(chunk.end_ns)
    whole_frames = list(Recording(whole).frames())
    before = sum(item.read_s < start_s for item in whole_frames)
    assert len(list(recording.frames(end_s=start_s))) == before > 0
    assert len(list(recording.frames(start_s=end_s + 0.001))) == sum(item.read_s > end_s for item in whole_frames) > 0


def test_a_damaged_index_is_searched_for(whole: Path, tmp_path: Path) -> None:
    content = bytearray(whole.read_bytes())
    content[-60] ^= 0xFF
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(content)
    recording = Recording(damaged)
    assert not recording.complete
    assert recording.lost_bytes == 0
    assert recording.closing == Recording(whole).closing
    assert len(list(recording.frames())) == 180


def test_other_readers_read_the_file_without_its_index(whole: Path, tmp_path: Path) -> None:
    """The package mcap reads what lies before the cut, as Foxglove does."""
    chunks = McapIndex.read(whole).chunks
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole.read_bytes()[: chunks[3].offset])
    count = 0
    with cut.open("rb") as file, contextlib.suppress(EndOfFile):  # which is how it tells a cut
        for record in StreamReader(file, validate_crcs=True).records:
            count += isinstance(record, Message)
    assert count == sum(Recording(cut).topics.values()) > 0


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a file that can be read"):
        Recording(tmp_path / "none.mcap")
    other = tmp_path / "other.mcap"
    for content in (b"", b"no such thing", MAGIC):
        other.write_bytes(content)
        with pytest.raises(DataError, match=r"other\.mcap"):
            Recording(other)
    from mcap.writer import Writer

    with other.open("wb") as file:
        writer = Writer(file)
        writer.start()
        writer.finish()
    with pytest.raises(DataError, match="of another program"):
        Recording(other)


def test_an_opcode_that_is_none_is_told_with_its_place(whole: Path, tmp_path: Path) -> None:
    content, chunks = bytearray(whole.read_bytes()), McapIndex.read(whole).chunks
    content[chunks[1].offset] = 99
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(content[:-1])  # not closed, so that its chunks are searched for
    with pytest.raises(DataError, match=f"opcode 99 at byte {chunks[1].offset}"):
        Recording(damaged)


def test_a_recording_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with Recorder(tmp_path / "a.mcap", rig_now_s=lambda: 0.0) as recorder:
        recorder.tap({"a": Listed([make_frame(WrenchFrame, rng)])})
        seen = 0
        for k in range(2000):
            recorder.put("a", make_frame(WrenchFrame, rng, k * 0.01), k * 0.01)
            recorder.catch_up()
            if k % 500 == 499:
                back = list(Recording(tmp_path / "a.mcap").frames())
                assert [item.sequence for item in back] == list(range(len(back)))
                assert len(back) >= seen
                seen = len(back)
    assert len(list(Recording(tmp_path / "a.mcap").frames())) == 2000
