"""RemoteRobot: a robot whose driver runs in another process, over the wire of :mod:`policies.runtime.wire`."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Mapping
from typing import Any, final

from policies.runtime.robot import RobotLink
from policies.runtime.wire import VERSION, Disconnected, Message, receive, send, unpack_observation
from sensors.action import Action, ActionSpec
from sensors.errors import SafetyStop
from sensors.observation import Observation


@final
class RemoteRobot(RobotLink):
    """The loop's end of the line.

    Args:
        name: of the robot, for errors.
        line: connected stream socket; taken over.
        hello_timeout_s: how long the driver may take to start.
        reply_timeout_s: how long it may take to answer afterwards.
        process: the driver's process, if it was started for this; ended by :meth:`close`.

    Raises:
        SafetyStop: the driver does not say hello in time, or speaks another version.
    """

    def __init__(
        self,
        name: str,
        line: socket.socket,
        hello_timeout_s: float = 60.0,
        reply_timeout_s: float = 1.0,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._name = name
        self._line = line
        self._timeout_s = reply_timeout_s
        self._process = process
        self._asking = threading.Lock()  # one question and its answer at a time
        self._sending = threading.Lock()  # one message at a time; `stop` must not wait for an answer
        self._number = 0
        self._closed = False
        try:
            hello = receive(line, hello_timeout_s)
            if "error" in hello:
                raise SafetyStop(f"robot '{name}'", "a driver that starts", str(hello["error"]), "See what it printed.")
            if hello.get("version") != VERSION:
                got = f"version {hello.get('version')}"
                raise SafetyStop(
                    f"robot '{name}'", f"version {VERSION} of the line", got, "Run the same version on both sides."
                )
            self._spec = ActionSpec.from_json(hello["action"])
        except Disconnected as error:
            self.close()
            raise self._gone(error) from error
        except SafetyStop:
            self.close()
            raise

    @property
    def action_spec(self) -> ActionSpec:
        """What it takes for an action."""
        return self._spec

    def observe(self) -> Observation:
        """What its sensors show now."""
        return unpack_observation(self._ask({"do": "observe"})["observation"])

    def command(self, action: Action) -> Action:
        """Start to act; the action as it is obeyed."""
        answer = self._ask({"do": "command", "values": action.values})
        return Action(self._spec.check(answer["values"]), self._spec)

    def stop(self) -> None:
        """Come to a halt, whatever was commanded."""
        # A robot that is gone has stopped, or stops by itself: that is its driver's duty.
        with contextlib.suppress(Disconnected), self._sending:
            if not self._closed:
                send(self._line, {"do": "stop"})

    def report(self) -> Mapping[str, float | bool | str]:
        """What the driver says about the run."""
        report: dict[str, float | bool | str] = self._ask({"do": "report"})["report"]
        return report

    def close(self) -> None:
        """Hang up; end the driver's process if it is ours."""
        if self._closed:
            return
        self.stop()
        with self._sending:
            self._closed = True
            self._line.close()  # the driver ends when the line does
        if self._process is not None:
            try:
                self._process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _ask(self, question: Message) -> Message:
        with self._asking:
            self._number += 1
            try:
                with self._sending:
                    if self._closed:
                        raise Disconnected("the line was closed here")
                    send(self._line, {**question, "number": self._number})
                answer: dict[str, Any] = receive(self._line, self._timeout_s)
            except Disconnected as error:
                raise self._gone(error) from error
        if "error" in answer:
            raise SafetyStop(
                f"robot '{self._name}'", "a robot that obeys", str(answer["error"]), "See what it printed."
            )
        if answer.get("number") != self._number:
            # After an answer that came too late nothing fits any more.
            got = f"to question {answer.get('number')}"
            raise SafetyStop(f"robot '{self._name}'", f"an answer to question {self._number}", got, "Start again.")
        return answer

    def _gone(self, error: Exception) -> SafetyStop:
        code = None if self._process is None else self._process.poll()
        ended = "" if code is None else f"; its process ended with status {code}"
        return SafetyStop(
            f"robot '{self._name}'", "an answer", f"{error}{ended}", "See what it printed, and start again."
        )
