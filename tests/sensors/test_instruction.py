"""The instruction as a sensor: what was said is what is shown, stored, recorded and replayed, to the letter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foxglove_schemas_protobuf.Log_pb2 import Log
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader

from perceive.build import build
from policies.episode_file import Episode
from policies.episodes import EpisodeHeader, EpisodeWriter
from sensors.errors import SensorError, SpecError
from sensors.frames import TextFrame
from sensors.instruction import InstructionSensor, to_bytes, to_text
from sensors.observation import Observation
from sensors.recording.reader import Recording
from sensors.recording.replay import stepped_rig
from sensors.rig import SensorRig
from sensors.spec import space_from_json, space_to_json
from sensors.timeline import Timing
from tests.contracts import CONF, build_sensor, check_sensor, load_env, load_plain
from tests.fake_world import FakeWorld
from tests.policies.point_env import SPEC
from tests.sensors.recorded_frames import assert_same, write

LONG = Timing(rate_hz=12.0, max_age_s=1e6)
TEXTS = ["lift the box", "Schiebe die grüne Tür zu", "把红色方块放到蓝色方块上", "🟥 → 🟦", ""]
said = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


# ------------------------------------------------------------------------------------------------------------- bytes


@given(said, st.integers(0, 20))
def test_every_text_comes_back(text: str, spare: int) -> None:
    length = len(text.encode()) + spare
    array = to_bytes(text, length)
    assert (array.dtype, array.shape) == (np.uint8, (length,))
    assert to_text(array) == text


@given(said.filter(bool))
def test_what_does_not_fit_is_refused_and_the_length_named(text: str) -> None:
    needed = len(text.encode())
    with pytest.raises(SpecError, match=f"Set length: {needed} or more"):
        to_bytes(text, needed - 1)


@pytest.mark.parametrize("text", ["put\0the", "\ud800"])
def test_what_no_frame_can_hold_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="text of an instruction"):
        to_bytes(text, 96)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_text(data: bytes) -> None:
    text = to_text(np.frombuffer(data, np.uint8))
    assert "\0" not in text
    assert text.encode().decode() == text  # no surrogates: it may go into JSON, files and messages


def test_damaged_bytes_cost_their_character_only() -> None:
    array = to_bytes("grüne Tür", 16)
    array[3] = 0xFF  # the second byte of the first ü
    assert to_text(array) == "gr\ufffd\ufffdne Tür"


# ------------------------------------------------------------------------------------------------------------ sensor


def test_it_says_what_the_world_says_now() -> None:
    world, sensor = FakeWorld(), build_sensor(CONF / "sensor" / "instruction.yaml")
    sensor.open(world)
    sensor.reset(np.random.default_rng(0))
    for text in TEXTS:
        world.said = text
        frame = sensor.read(1.5)
        assert isinstance(frame, TextFrame)
        assert frame.stamp_s == 1.5
        assert to_text(frame.text) == text


def test_with_a_text_of_its_own_it_needs_no_world() -> None:
    sensor = InstructionSensor(timing=LONG, text="open the drawer")
    check_sensor(sensor, FakeWorld(), simulated=False)
    sensor.open(None)
    sensor.reset(np.random.default_rng(0))
    frame = sensor.read(0.0)
    assert to_text(frame.text) == "open the drawer"
    sensor.close()
    with pytest.raises(SensorError, match="open sensor"):
        sensor.read(0.0)


def test_without_a_text_and_a_world_it_does_not_open() -> None:
    with pytest.raises(SensorError, match="World"):
        InstructionSensor(timing=LONG).open(None)


def test_too_long_a_text_is_said_as_early_as_it_is_known() -> None:
    with pytest.raises(SpecError, match="Set length: 15"):
        InstructionSensor(timing=LONG, length=14, text="open the drawer")
    world, sensor = FakeWorld(), InstructionSensor(timing=LONG, length=14)
    sensor.open(world)
    sensor.reset(np.random.default_rng(0))
    world.said = "open the drawer"
    with pytest.raises(SpecError, match="Set length: 15"):
        sensor.read(0.0)
    with pytest.raises(SpecError, match="length"):
        InstructionSensor(timing=LONG, length=0)


def test_an_instruction_does_not_grow_stale() -> None:
    timing = build_sensor(CONF / "sensor" / "instruction.yaml").timing
    rig = SensorRig(
        {"task": InstructionSensor(timing=timing), "old": InstructionSensor(timing=Timing(rate_hz=12.0))}
    )  # fmt: skip
    rig.open(FakeWorld())
    rig.reset(0.0, seed=0)
    rig.tick(0.0)
    later = rig.observe(9e5).streams
    assert later["task"].valid.all()
    assert not later["old"].valid.any()


def test_an_environment_tells_its_task() -> None:
    config = load_env("lift", rig="state")
    config["rig"]["sensors"]["task"] = load_plain(CONF / "sensor" / "instruction.yaml")
    env = build(config)
    for _ in range(2):
        values, _ = env.reset(seed=0)
        assert to_text(values["task/text"][0]) == env.unwrapped.task.instruction != ""
    assert env.observation_space.contains(values)
    env.close()


# ------------------------------------------------------------------------------------------- episodes and recordings


def observations() -> tuple[SensorRig, list[Observation]]:
    """One of each text, at 12 Hz."""
    world, rig = FakeWorld(), SensorRig({"task": InstructionSensor(timing=LONG)})
    rig.open(world)
    rig.reset(0.0, seed=0)
    seen = []
    for step, text in enumerate(TEXTS):
        world.said = text
        rig.tick(step / 12)
        seen.append(rig.observe(step / 12))
    return rig, seen


def test_episodes_hold_the_text(tmp_path: Path) -> None:
    rig, seen = observations()
    space = InstructionSensor(timing=LONG).space
    header = EpisodeHeader({"task": space}, {"task": 1}, rig.rates_hz, SPEC, seed=0, env={})
    writer = EpisodeWriter(tmp_path, 0, header)
    for observation in seen:
        writer.add(observation, np.zeros(10), np.zeros(10))
    episode = Episode(writer.finish(True))
    assert episode.header.sensor_spaces["task"] == space == space_from_json(space_to_json(space))
    for row, text in enumerate(TEXTS):
        stream = episode.observation(row).streams["task"]
        assert stream.data["text"].dtype == np.uint8
        assert to_text(stream.data["text"][0]) == text
        assert stream.valid.all()


def frames() -> list[tuple[float, Any]]:
    return [(0.1 * k, TextFrame(stamp_s=0.1 * k, text=to_bytes(text, 96))) for k, text in enumerate(TEXTS)]


def test_recordings_hold_the_text_and_replay_it(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", {"task": frames()})
    back = list(Recording(tmp_path / "a.mcap").frames())
    for (_, frame), item in zip(frames(), back, strict=True):
        assert type(item.frame) is TextFrame
        assert_same(frame, item.frame)
    rig = stepped_rig(tmp_path / "a.mcap")
    rig.open(None)
    start_s = Recording(tmp_path / "a.mcap").start_s
    rig.reset(start_s, seed=0)
    for k, text in enumerate(TEXTS):
        rig.tick(start_s + 0.1 * k)
        shown = rig.observe(start_s + 0.1 * k).streams["task"]
        assert shown.valid.all()
        assert to_text(shown.data["text"][0]) == text
    rig.close()


def test_foxglove_shows_the_words(tmp_path: Path) -> None:
    items = frames()
    items[1][1].text[2:4] = 0xFF, 0xFE  # no UTF-8, which Foxglove's message could not hold
    write(tmp_path / "a.mcap", {"task": items})
    with (tmp_path / "a.mcap").open("rb") as file:
        found = [
            (schema.name if schema else "", Log.FromString(message.data))
            for schema, _, message in make_reader(file).iter_messages(topics=["/task/text"])
        ]
    assert {schema for schema, _ in found} == {"foxglove.Log"}
    assert [log.message for _, log in found] == [TEXTS[0], "Sc\ufffd\ufffdebe die grüne Tür zu", *TEXTS[2:]]
    assert {(log.name, log.level) for _, log in found} == {("task", Log.Level.INFO)}
    gaps_s = np.diff([log.timestamp.ToNanoseconds() for _, log in found]) * 1e-9
    np.testing.assert_allclose(gaps_s, 0.1, atol=1e-6)


def test_errors_show_the_text() -> None:
    with pytest.raises(SpecError, match=re.escape(repr("open the drawer"))):
        to_bytes("open the drawer", 3)
