"""The wire carries observations exactly, and what is not a message is an error and never code."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.runtime.remote import RemoteRobot
from policies.runtime.wire import (
    VERSION,
    Disconnected,
    Message,
    pack_observation,
    receive,
    send,
    unpack_observation,
)
from sensors.action import Action, ActionMode
from sensors.errors import DataError, SafetyStop
from sensors.observation import Observation, Stream
from tests.policies.runtime.scene import make_observation, make_spec

SPEC = make_spec(ActionMode.EE_POSE)


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.float32, np.float64, np.int32, np.bool_]))
def test_arrays_arrive_bit_for_bit(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(0, 4, rng.integers(0, 4)))
    data = {"picture": (rng.random((1, *shape)) * 300).astype(dtype)}
    sent = Observation(float(rng.normal()), {"a": Stream(data, np.array([0.5], np.float32), np.array([True]))})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, {"observation": pack_observation(sent)})
        got = unpack_observation(receive(theirs, 5.0)["observation"])
    assert got.now_s == sent.now_s
    value = got.streams["a"].data["picture"]
    assert (value.dtype, value.shape) == (data["picture"].dtype, data["picture"].shape)
    np.testing.assert_array_equal(value, data["picture"])
    assert value.flags.writeable
    assert got.streams["a"].valid.dtype == bool


def test_a_large_message_arrives_whole(line) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (4, 480, 640, 3), np.uint8)
    sender = threading.Thread(target=send, args=(line[0], {"picture": picture}))
    sender.start()
    np.testing.assert_array_equal(receive(line[1], 20.0)["picture"], picture)
    sender.join()


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        msgpack.packb([1, 2]),
        msgpack.packb({"a": {"__array__": ["|O", [1], b"12345678"]}}),
        msgpack.packb({"a": {"__array__": ["<f4", [3], b"1234"]}}),
        msgpack.packb({"a": {"__array__": ["|S4", [1], b"1234"]}}),
        msgpack.packb({"a": {"__array__": 3}}),
        b"",
    ],
)
def test_what_is_no_message_is_a_data_error(line, body: bytes) -> None:
    line[0].sendall(struct.pack("!I", len(body)) + body)
    with pytest.raises(DataError, match="robot line"):
        receive(line[1], 1.0)


def test_a_length_without_bound_is_refused(line) -> None:
    line[0].sendall(b"\xff\xff\xff\xff")
    with pytest.raises(DataError, match="at most"):
        receive(line[1], 1.0)


def test_only_plain_numbers_travel(line) -> None:
    with pytest.raises(TypeError, match="cannot travel"):
        send(line[0], {"a": object()})
    with pytest.raises(TypeError, match="cannot travel"):
        send(line[0], {"a": np.array([object()])})
    send(line[0], {"a": np.float32(1.5), "b": np.bool_(True)})
    assert receive(line[1], 1.0) == {"a": 1.5, "b": True}


def test_silence_and_hanging_up_are_told_apart_from_messages(line) -> None:
    with pytest.raises(Disconnected, match="in time"):
        receive(line[1], 0.01)
    line[0].sendall(b"\0\0")  # half a length
    with pytest.raises(Disconnected, match="in time"):
        receive(line[1], 0.01)
    line[0].close()
    with pytest.raises(Disconnected, match="closed"):
        receive(line[1], 5.0)


def test_an_observation_with_parts_missing_is_a_data_error() -> None:
    for part in ({}, {"now_s": 1.0, "streams": {"a": {"data": {}}}}, {"now_s": 1.0, "streams": [1]}):
        with pytest.raises(DataError, match="observation"):
            unpack_observation(part)


class Driver:
    """The robot's end of the line, in a thread: answers as it is told to."""

    def __init__(self, line: socket.socket, **odd: object) -> None:
        self._line = line
        self._odd = odd
        self.heard: list[str] = []
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            send(self._line, self._odd.get("hello", {"version": VERSION, "action": SPEC.to_json()}))  # type: ignore[arg-type]
            while True:
                message = receive(self._line, 30.0)
                self.heard.append(message["do"])
                if message["do"] == "stop":
                    self.stopped.set()
                elif message["do"] == self._odd.get("silent_on"):
                    continue
                elif message["do"] == self._odd.get("dies_on"):
                    self._line.close()
                    return
                else:
                    send(self._line, self._answer(message))
        except Disconnected:
            return

    def _answer(self, message: Message) -> Message:
        number = message["number"] + self._odd.get("off_by", 0)  # type: ignore[operator]
        if message["do"] == "observe":
            return {"number": number, "observation": pack_observation(make_observation(1.0))}
        if message["do"] == "command":
            if np.isnan(message["values"]).any():
                return {"number": number, "error": "not finite"}
            return {"number": number, "values": message["values"] * np.float32(0.5)}
        return {"number": number, "report": {"is_success": True}}


def test_a_remote_robot_is_a_robot(line) -> None:
    driver = Driver(line[1])
    robot = RemoteRobot("it", line[0], 5.0, 5.0)
    assert robot.action_spec.to_json() == SPEC.to_json()
    np.testing.assert_array_equal(
        robot.observe().streams["joints"].data["base_from_tool"],
        make_observation(1.0).streams["joints"].data["base_from_tool"],
    )
    sent = robot.command(Action(np.ones(10, np.float32), SPEC))
    np.testing.assert_array_equal(sent.values, np.full(10, 0.5))
    assert robot.report() == {"is_success": True}
    with pytest.raises(SafetyStop, match="not finite"):
        robot.command(Action(np.full(10, np.nan, np.float32), SPEC))
    robot.stop()
    assert driver.stopped.wait(10)
    robot.close()
    robot.close()
    robot.stop()  # harmless
    with pytest.raises(SafetyStop, match="closed here"):
        robot.observe()


@pytest.mark.parametrize(
    ("odd", "match"),
    [
        ({"silent_on": "observe"}, "in time"),
        ({"dies_on": "observe"}, "closed"),
        ({"off_by": -1}, "answer to question"),
    ],
)
def test_a_robot_that_does_not_answer_is_a_safety_stop(line, odd, match: str) -> None:
    Driver(line[1], **odd)
    robot = RemoteRobot("it", line[0], 5.0, 0.1 if "silent_on" in odd else 5.0)
    with pytest.raises(SafetyStop, match=match):
        robot.observe()
    robot.close()


@pytest.mark.parametrize(
    ("hello", "match"),
    [({"version": 99, "action": SPEC.to_json()}, "version"), ({"error": "no such mesh"}, "no such mesh")],
)
def test_a_driver_that_cannot_start_says_why(line, hello, match: str) -> None:
    Driver(line[1], hello=hello)
    with pytest.raises(SafetyStop, match=match):
        RemoteRobot("it", line[0], 5.0, 5.0)


def test_stop_does_not_wait_for_an_answer(line) -> None:
    driver = Driver(line[1], silent_on="observe")
    robot = RemoteRobot("it", line[0], 5.0, 20.0)
    found: list[SafetyStop] = []

    def ask() -> None:
        try:
            robot.observe()
        except SafetyStop as error:
            found.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while "observe" not in driver.heard:
        pass
    robot.stop()  # while the other thread waits for its answer
    assert driver.stopped.wait(10)
    line[1].shutdown(socket.SHUT_RDWR)
    asking.join(10)
    assert "closed" in str(found[0])
