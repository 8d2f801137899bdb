"""Recordings: what is written comes back, is what Foxglove publishes, and is bounded in memory."""

from __future__ import annotations

import json
import resource
import threading
import time
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.JointStates_pb2 import JointStates
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mcap.reader import make_reader

from sensors.errors import DataError, SensorLost, SpecError
from sensors.frames import Frame, JointFrame, LidarFrame, PointFrame, RgbdFrame, TactileFrame, WrenchFrame
from sensors.geometry import FloatArray, matrix_to_quaternion
from sensors.live import LiveSensor
from sensors.recording.codecs import MM_ROUNDED, code_depth, decode_depth
from sensors.recording.encoder import Coding, FrameEncoder, frame_class
from sensors.recording.layout import Layout, layout_of
from sensors.recording.reader import Recording
from sensors.recording.writer import Recorder, free_path
from sensors.rig import SensorRig
from sensors.timeline import Timing
from tests.sensors.recorded_frames import EXACT, HEIGHT, WIDTH, Listed, assert_same, frame_kinds, make_frame, write
from tests.sensors.test_live import LIVE, PlayedDevice, eventually

RNG = np.random.default_rng(0)
BEGINNING = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = BEGINNING


# ------------------------------------------------------------------------------------------------------- round trips


def test_frames_of_every_kind_come_back_bit_by_bit(tmp_path: Path) -> None:
    kinds = frame_kinds()
    assert {RgbdFrame, PointFrame, LidarFrame, TactileFrame, WrenchFrame, JointFrame} <= set(kinds)
    given = {
        kind.__name__: [(k * 0.1, make_frame(kind, RNG, k * 0.1 - 0.003)) for k in range(5)] for kind in kinds
    }  # fmt: skip
    write(tmp_path / "a.mcap", given)
    recording = Recording(tmp_path / "a.mcap")
    assert recording.complete
    assert recording.counts == {kind.__name__: 5 for kind in kinds}
    assert recording.names == tuple(given)
    for kind in kinds:
        back = list(recording.frames([kind.__name__]))
        assert [item.sequence for item in back] == list(range(5))
        for (read_s, frame), item in zip(given[kind.__name__], back, strict=True):
            assert type(item.frame) is kind
            assert item.read_s == pytest.approx(read_s, abs=1e-9)
            assert_same(frame, item.frame)


def test_all_come_back_in_the_order_of_reading_and_a_span_of_them(tmp_path: Path) -> None:
    given = {
        "slow": [(k * 0.7, make_frame(RgbdFrame, RNG, k * 0.7)) for k in range(10)],
        "fast": [(k * 0.01, make_frame(JointFrame, RNG, k * 0.01)) for k in range(600)],
    }
    write(tmp_path / "a.mcap", given)
    recording = Recording(tmp_path / "a.mcap")
    times = [item.read_s for item in recording.frames()]
    assert len(times) == 610
    assert times == sorted(times)
    assert (recording.start_s, recording.end_s) == pytest.approx((0.0, 6.3), abs=1e-9)
    span = [(item.name, item.sequence) for item in recording.frames(start_s=1.405, end_s=2.095)]
    assert span == [("fast", k) for k in range(141, 210)]
    assert [i.sequence for i in recording.frames(["slow"], 1.4, 2.1)] == [2]  # from here on, and before there
    with pytest.raises(SpecError, match="Did you mean 'slow'"):
        recording.frames(["slov"])


def test_a_span_is_read_without_the_chunks_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = [(k * 0.1, make_frame(WrenchFrame, RNG)) for k in range(200)]
    write(tmp_path / "a.mcap", {"a": often, "rare": [(7.0, make_frame(RgbdFrame, RNG))]})
    recording = Recording(tmp_path / "a.mcap")
    chunks = recording._index.chunks
    assert len(chunks) > 30
    assert all(chunk.end_ns - chunk.start_ns <= 0.5e9 + 1 for chunk in chunks)
    loaded: list[int] = []
    load = type(recording._index).load
    monkeypatch.setattr(
        type(recording._index), "load", lambda self, file, ref: loaded.append(ref.offset) or load(self, file, ref)
    )
    assert len(list(recording.frames(start_s=10.0, end_s=11.0))) == 10
    assert 1 <= len(loaded) <= 4
    loaded.clear()
    assert len(list(recording.frames(["rare"]))) == 1
    assert len(loaded) == 1


NAMES = [
    "rgb", "hand_rgb", "depth_m", "xyz_m", "count", "intensity", "intrinsics_px", "position_rad", "velocity_rad_s",
    "gripper_m", "base_from_it", "base_from_that", "force_N", "force_n", "coding", "red", "x", "größe", "klasse",
]  # fmt: skip
DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", ">f4", ">i8"]
SHAPES = [(), (0,), (1,), (4,), (7,), (4, 4), (9, 3), (9,), (8, 9), (9, 10, 3), (3, 0), (2, 3, 4, 5)]


@st.composite
def any_arrays(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    return {
        name: draw(
            hnp.arrays(
                np.dtype(draw(st.sampled_from(DTYPES))), draw(st.sampled_from(SHAPES)),
                elements=None, fill=st.nothing() if draw(st.booleans()) else None,
            )
        )
        for name in names
    }  # fmt: skip


@given(
    arrays=any_arrays(),
    stamp_s=st.floats(allow_nan=False, allow_infinity=False),
    colour=st.sampled_from(["png", "raw"]),
)
@settings(max_examples=150)
def test_frames_of_any_fields_come_back(arrays: dict[str, Any], stamp_s: float, colour: str) -> None:
    kind = make_dataclass("AnyFrame", [(n, Any) for n in arrays], bases=(Frame,), frozen=True, eq=False, kw_only=True)
    frame = kind(stamp_s=stamp_s, **arrays)
    layout = Layout.from_json(layout_of(kind, frame.arrays()).to_json())
    encoder = FrameEncoder("it", layout, Coding(colour=colour))
    parts = {part.topic: part for part in encoder.encode(frame.arrays(), stamp_s, 10**18)}
    back = encoder.decode(
        frame_class(layout), parts["/it"].data, [parts[topic].data for topic in encoder.carrier_topics]
    )
    native = {name: value.astype(value.dtype.newbyteorder("=")) for name, value in arrays.items()}
    if any(value.dtype == np.float16 and np.isnan(value).any() for value in native.values()):
        return  # the bits of a NaN are not those of a number; a wider float may not keep them
    assert_same(kind(stamp_s=stamp_s, **native), back)
    # A reader that knows nothing but the schema sees the same numbers.
    message = _described(encoder.message.schema(), encoder.message.name).FromString(parts["/it"].data)
    assert np.float64(message.stamp_s) == stamp_s
    for number, spec in enumerate(encoder.message.arrays, start=3):
        value = getattr(message, type(message).DESCRIPTOR.fields_by_number[number].name)
        flat = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.array(value, native[spec.name].dtype)
        np.testing.assert_array_equal(flat, native[spec.name].ravel())


def _described(schema: bytes, name: str) -> Any:
    """The message class of a schema, made by the protobuf package alone."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(schema).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@dataclass(frozen=True, eq=False, kw_only=True)
class RangeFrame(Frame):
    """range_m float [1]."""

    range_m: FloatArray


def test_frame_classes_of_the_user_are_used_if_given_and_made_if_not(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", {"a": [(0.0, RangeFrame(stamp_s=0.5, range_m=np.array([1.5])))]})
    (known,) = Recording(tmp_path / "a.mcap", frame_types=[RangeFrame]).frames()
    assert type(known.frame) is RangeFrame
    (made,) = Recording(tmp_path / "a.mcap").frames()
    assert type(made.frame) is not RangeFrame
    assert type(made.frame).__name__ == "RangeFrame"
    assert_same(known.frame, made.frame)
    # A file may name any module; only this project's are imported.
    layout = Layout("os.path.join", layout_of(RangeFrame, known.frame.arrays()).fields, ())
    assert frame_class(layout).__module__ != "os.path"


def test_jpeg_is_near_and_depth_in_millimetres_is_within_half_of_one(tmp_path: Path) -> None:
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rgb = np.stack([6 * column, 8 * row, np.full_like(row, 40)], -1).astype(
        np.uint8
    )  # smooth, and no two channels alike
    depth = RNG.uniform(0.3, 60.0, (HEIGHT, WIDTH)).astype(np.float32)
    depth[0, :4] = np.nan, np.inf, -1.0, 70.0
    frame = RgbdFrame(
        stamp_s=0.0, rgb=rgb, depth_m=depth, intrinsics_px=np.ones(4), base_from_camera=np.eye(4)
    )  # fmt: skip
    write(tmp_path / "a.mcap", {"a": [(0.0, frame)]}, Coding(colour="jpeg", depth="mm"))
    (item,) = Recording(tmp_path / "a.mcap").frames()
    back = item.frame.arrays()
    assert 0 < np.abs(back["rgb"].astype(int) - rgb).mean() < 3
    assert np.abs(back["rgb"].astype(int) - rgb[..., ::-1]).mean() > 20, "channels keep their order"
    np.testing.assert_array_equal(back["depth_m"][0, :4], 0)
    assert np.abs(back["depth_m"] - depth)[1:].max() <= 0.0005001


@pytest.mark.parametrize("form", ["times", "over"])
def test_whole_millimetres_are_kept_exactly_in_16_bits(form: str) -> None:
    whole = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    depth = whole.astype(np.float32) * np.float32(0.001) if form == "times" else (whole / 1000).astype(np.float32)
    coding, picture = code_depth(depth, exact=True)
    assert picture.dtype == np.uint16
    assert decode_depth(coding, picture.tobytes(), depth.shape).tobytes() == depth.tobytes()
    depth[200, 3] = np.nextafter(depth[200, 3], np.float32(np.inf))  # where no sample is taken
    coding, picture = code_depth(depth, exact=True)
    assert picture.dtype == np.float32
    assert decode_depth(coding, picture.tobytes(), depth.shape).tobytes() == depth.tobytes()
    assert code_depth(depth, exact=False)[0] == MM_ROUNDED


def test_padding_is_left_out_unless_it_is_none(tmp_path: Path) -> None:
    clean: LidarFrame = make_frame(LidarFrame, RNG)
    dirty: LidarFrame = make_frame(LidarFrame, RNG)
    dirty.xyz_m[39, 2] = -0.0
    write(tmp_path / "a.mcap", {"a": [(0.0, clean), (0.1, dirty)]})
    for frame, item in zip((clean, dirty), Recording(tmp_path / "a.mcap").frames(), strict=True):
        assert_same(frame, item.frame)
    clouds = [PointCloud.FromString(data) for data, *_ in _messages(tmp_path / "a.mcap", "/a/xyz_m")]
    assert [len(cloud.data) // cloud.point_stride for cloud in clouds] == [33, 40]


# --------------------------------------------------------------------------------------- what others see in the file


def _messages(path: Path, topic: str) -> list[tuple[bytes, int, int, int, str]]:
    """By the package mcap alone: data, log and publish time, sequence and schema name."""
    with path.open("rb") as file:
        return [
            (message.data, message.log_time, message.publish_time, message.sequence, schema.name if schema else "")
            for schema, _, message in make_reader(file, validate_crcs=True).iter_messages(topics=[topic])
        ]


def test_messages_are_those_that_foxglove_publishes(tmp_path: Path) -> None:
    camera, lidar = make_frame(RgbdFrame, RNG, 1.25), make_frame(LidarFrame, RNG, 1.25)
    points, joints, touch = make_frame(PointFrame, RNG), make_frame(JointFrame, RNG), make_frame(TactileFrame, RNG)
    path = tmp_path / "a.mcap"
    named = {"cam": camera, "lidar": lidar, "points": points, "joints": joints, "touch": touch}
    write(path, {name: [(1.26, frame)] for name, frame in named.items()})
    offset_ns = round(Recording(path).utc_offset_s * 1e9)

    def only(topic: str, kind: Any) -> Any:
        ((data, log_ns, publish_ns, sequence, schema),) = _messages(path, topic)
        assert schema == f"foxglove.{kind.DESCRIPTOR.name}"
        assert abs(log_ns - offset_ns - 1_260_000_000) < 1000
        assert abs(publish_ns - offset_ns - 1_250_000_000) < 1000
        assert abs(log_ns - time.time_ns()) < 600e9, "times are UTC"
        assert sequence == 0
        message = kind.FromString(data)
        assert message.timestamp.ToNanoseconds() == publish_ns
        return message

    picture = only("/cam/rgb", CompressedImage)
    assert (picture.format, picture.frame_id) == ("png", "cam/camera")
    seen = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    assert seen is not None
    np.testing.assert_array_equal(seen[..., ::-1], camera.rgb)
    depth = only("/cam/depth_m", RawImage)
    assert (depth.encoding, depth.width, depth.height, depth.step) == ("16UC1", WIDTH, HEIGHT, 2 * WIDTH)
    np.testing.assert_array_equal(
        np.frombuffer(depth.data, "<u2").reshape(HEIGHT, WIDTH), np.rint(camera.depth_m * 1000)
    )
    calibration = only("/cam/intrinsics_px", CameraCalibration)
    fx, fy, cx, cy = camera.intrinsics_px
    assert list(calibration.K) == [fx, 0, cx, 0, fy, cy, 0, 0, 1]
    assert (calibration.width, calibration.height, calibration.frame_id) == (WIDTH, HEIGHT, "cam/camera")
    place = only("/cam/base_from_camera", FrameTransform)
    assert (place.parent_frame_id, place.child_frame_id) == ("base", "cam/camera")
    np.testing.assert_allclose(
        [place.translation.x, place.translation.y, place.translation.z], camera.base_from_camera[:3, 3]
    )
    turn = place.rotation
    expected = matrix_to_quaternion(camera.base_from_camera[:3, :3])
    np.testing.assert_allclose(np.array([turn.x, turn.y, turn.z, turn.w]) * np.sign(turn.w), expected, atol=1e-12)

    cloud = only("/lidar/xyz_m", PointCloud)
    assert cloud.frame_id == "lidar/lidar"
    assert cloud.pose.orientation.w == 1
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "intensity", "offset_s"]
    column = {field.name: field.offset for field in cloud.fields}
    rows = np.frombuffer(cloud.data, np.uint8).reshape(33, cloud.point_stride)
    for name, value in (("y", lidar.xyz_m[:33, 1]), ("offset_s", lidar.offset_s[:33])):
        np.testing.assert_array_equal(rows[:, column[name] : column[name] + 4].copy().view("<f4")[:, 0], value)
    coloured = only("/points/xyz_m", PointCloud)
    assert coloured.frame_id == "base"
    assert [field.name for field in coloured.fields] == ["x", "y", "z", "red", "green", "blue"]
    assert {field.type for field in coloured.fields} == {1, 7}

    states = only("/joints/position_rad", JointStates)
    assert [joint.position for joint in states.joints] == [*joints.position_rad, 0.04]
    assert [joint.velocity for joint in states.joints][:7] == list(joints.velocity_rad_s)
    felt = only("/touch/indentation_m", RawImage)
    assert felt.encoding == "32FC1"
    np.testing.assert_array_equal(np.frombuffer(felt.data, "<f4").reshape(HEIGHT, WIDTH), touch.indentation_m)


def test_what_has_no_published_schema_brings_its_own(tmp_path: Path) -> None:
    frame = make_frame(WrenchFrame, RNG, 1.25)
    write(tmp_path / "a.mcap", {"wrist": [(1.26, frame)]})
    with (tmp_path / "a.mcap").open("rb") as file:
        ((schema, channel, message),) = make_reader(file).iter_messages(topics=["/wrist"])
    assert schema is not None
    assert (schema.name, schema.encoding, channel.message_encoding) == ("perceive.WrenchFrame", "protobuf", "protobuf")
    seen = _described(schema.data, schema.name).FromString(message.data)
    assert seen.stamp_s == 1.25
    assert list(seen.force_N) == list(frame.force_N)
    assert list(seen.base_from_sensor) == list(frame.base_from_sensor.ravel())


def test_every_schema_of_the_file_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", {kind.__name__: [(0.0, make_frame(kind, RNG))] for kind in frame_kinds()})
    with (tmp_path / "a.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == sum(Recording(tmp_path / "a.mcap").topics.values())
    assert {"foxglove.RawImage", "foxglove.PointCloud", "foxglove.FrameTransform"} <= {
        schema.name for schema in summary.schemas.values()
    }
    for schema in summary.schemas.values():
        _described(schema.data, schema.name)


def test_the_file_says_what_was_recorded_before_its_first_frame(tmp_path: Path) -> None:
    sensor = Listed([make_frame(WrenchFrame, RNG)], Timing(rate_hz=50.0, delay_s=0.02, history=3, max_age_s=0.4))
    with Recorder(tmp_path / "a.mcap", about={"robot": "panda"}) as recorder:
        tapped = recorder.tap({"wrist": sensor})["wrist"]
        assert (tapped.space, tapped.timing) == (sensor.space, sensor.timing)
        # The recorder is still open and nothing was given: even so a reader can prepare.
        early = Recording(tmp_path / "a.mcap")
        assert not early.complete
        assert early.sensors["wrist"].space == sensor.space
        assert early.sensors["wrist"].timing == sensor.timing
        assert list(early.frames()) == []
        with pytest.raises(SpecError, match="new names"):
            recorder.tap({"wrist": sensor})
    recording = Recording(tmp_path / "a.mcap")
    assert recording.header["about"] == {"robot": "panda"}
    assert recording.closing["counts"] == {"wrist": {"written": 0, "dropped": 0, "unwritable": 0, "bytes": 0}}


# ------------------------------------------------------------------------------------------------- taps and the queue


def test_a_tapped_rig_shows_what_an_untapped_one_shows(tmp_path: Path) -> None:
    given = [make_frame(WrenchFrame, RNG, k * 0.01) for k in range(20)]
    plain = SensorRig({"wrist": Listed(given)})
    with Recorder(tmp_path / "a.mcap", rig_now_s=lambda: 0.0) as recorder:
        rig = SensorRig(recorder.tap({"wrist": Listed(given)}))
        for each in (plain, rig):
            each.open(None)
            each.reset(0.0, 1)
        for k in range(20):
            shown = []
            for each in (plain, rig):
                each.tick(k * 0.01)
                shown.append(each.observe(k * 0.01).to_dict())
            for key, value in shown[0].items():
                np.testing.assert_array_equal(value, shown[1][key])
    assert recorder.counts["wrist"].written == 20


def test_counts_and_clock_of_a_live_sensor_are_kept(tmp_path: Path) -> None:
    device = PlayedDevice()
    live = LiveSensor(device=device, timing=LIVE, retry_s=0.01)
    with Recorder(tmp_path / "a.mcap") as recorder:
        tap = recorder.tap({"it": live})["it"]
        tap.open(None)
        for k in range(3):
            device.give(k, 5000.0 + 0.01 * k, device_clock=True)
        eventually(lambda: tap.read(0.0) is None and recorder.counts["it"].written == 3)
        device.unplug()

        def is_lost() -> bool:
            try:
                tap.read(0.0)
            except SensorLost:
                return True
            return False

        eventually(is_lost)
        tap.close()
    told = Recording(tmp_path / "a.mcap").closing["sensors"]["it"]
    assert told["lost_readings"] == 1
    assert told["counts"] == live.counts
    assert told["clock"]["readings"] == 3


def test_a_full_queue_drops_counts_and_leaves_gaps_in_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    frame = make_frame(RgbdFrame, RNG)
    size = sum(value.nbytes for value in frame.arrays().values())
    recorder = Recorder(tmp_path / "a.mcap", coding=EXACT, rig_now_s=lambda: 0.0, queue_bytes=10 * (size + 2000))
    add = recorder._file.add
    monkeypatch.setattr(recorder._file, "add", lambda *given: gate.wait(60) and add(*given))
    recorder.tap({"cam": Listed([frame])})
    kept = [recorder.put("cam", frame, k * 0.1) for k in range(30)]
    gate.set()
    assert 10 <= sum(kept) <= 11
    assert recorder.most_queued_bytes <= 10 * (size + 2000)
    recorder.catch_up()
    eventually(lambda: recorder.pending == 0)
    assert recorder.put("cam", frame, 4.0)
    recorder.close()
    counts = recorder.counts["cam"]
    assert (counts.written, counts.dropped) == (sum(kept) + 1, 30 - sum(kept))
    recording = Recording(tmp_path / "a.mcap")
    assert [item.sequence for item in recording.frames()] == [*np.flatnonzero(kept), 30]
    assert recording.closing["counts"]["cam"]["dropped"] == counts.dropped


def test_a_frame_that_has_no_form_is_counted_and_the_others_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = RangeFrame(stamp_s=0.0, range_m=np.array([1.5]))
    bad = [
        RangeFrame(stamp_s=0.0, range_m=np.array([1j])),
        RangeFrame(stamp_s=0.0, range_m=np.array([object()])),
        RangeFrame(stamp_s=float("nan"), range_m=np.array([1.5])),
    ]
    recorder = write(tmp_path / "a.mcap", {"a": [(0.1 * k, frame) for k, frame in enumerate([good, *bad, good])]})
    assert (recorder.counts["a"].written, recorder.counts["a"].unwritable) == (2, 3)
    assert [item.sequence for item in Recording(tmp_path / "a.mcap").frames()] == [0, 4]
    assert len(caplog.records) == 1


def test_a_full_disk_is_told_and_what_was_written_can_be_read(tmp_path: Path) -> None:
    frame = make_frame(RgbdFrame, RNG)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = Recorder(tmp_path / "a.mcap", coding=Coding(colour="raw"), rig_now_s=lambda: 0.0)
    recorder.tap({"cam": Listed([frame])})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        for k in range(200):
            recorder.put("cam", frame, 0.1 * k)
        eventually(lambda: recorder.failure is not None)
        assert not recorder.put("cam", frame, 30.0)
        with pytest.raises(DataError, match=r"a file that can be written.*Free space"):
            recorder.close()
        recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    counts, recording = recorder.counts["cam"], Recording(tmp_path / "a.mcap")
    assert counts.dropped > 0
    assert not recording.complete
    back = list(recording.frames())
    assert [item.sequence for item in back] == list(range(len(back)))
    assert 5 < len(back) <= counts.written
    assert_same(frame, back[-1].frame)


def test_episodes_follow_each_other_on_one_clock(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.mcap", rig_now_s=lambda: 0.0) as recorder:
        recorder.tap({"a": Listed([make_frame(WrenchFrame, RNG)])})
        for _ in range(3):
            recorder.restart_clock(gap_s=2.0)
            for k in range(4):
                recorder.put("a", make_frame(WrenchFrame, RNG, 0.5 * k - 0.125), 0.5 * k)
    back = list(Recording(tmp_path / "a.mcap").frames())
    starts = np.repeat([0.0, 3.5, 7.0], 4) + np.tile(0.5 * np.arange(4), 3)
    np.testing.assert_allclose([item.read_s for item in back], starts, atol=1e-8)
    np.testing.assert_allclose([item.frame.stamp_s for item in back], starts - 0.125)


def test_files_are_never_written_over(tmp_path: Path) -> None:
    path = free_path(tmp_path / "new")
    write(path, {"a": [(0.0, make_frame(WrenchFrame, RNG))]})
    with pytest.raises(DataError, match="a new file"):
        Recorder(path)
    assert free_path(path.parent).name == "recording_1.mcap"
    with pytest.raises(DataError, match="a file that can be made"):
        Recorder(path / "below.mcap")


def test_bad_settings_are_told(tmp_path: Path) -> None:
    for wrong in ({"colour": "gif"}, {"jpeg_quality": 0}, {"depth": "cm"}):
        with pytest.raises(SpecError, match=f"Coding.{next(iter(wrong))}"):
            Coding(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="chunk_s > 0"):
        Recorder(tmp_path / "a.mcap", chunk_s=0.0)
    assert not list(tmp_path.iterdir())


def test_metadata_is_json(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", {"a": [(0.0, make_frame(WrenchFrame, RNG))]}, about={"seed": 3})
    with (tmp_path / "a.mcap").open("rb") as file:
        records = {record.name: dict(record.metadata) for record in make_reader(file).iter_metadata()}
    assert json.loads(records["perceive.recording"]["about"]) == {"seed": 3}
    assert json.loads(records["perceive.sensor"]["space"])["type"] == "dict"
