"""A simulated robot in a process of its own, in real time: what a hardware driver would be, for `perceive run`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from policies.runtime.remote import RemoteRobot
from policies.runtime.wire import Disconnected, send
from sensors.errors import SafetyStop


def launch(
    env: Mapping[str, Any],
    seed: int,
    disabled: Sequence[str] = (),
    start_timeout_s: float = 120.0,
    reply_timeout_s: float = 1.0,
    silence_s: float = 0.5,
) -> RemoteRobot:
    """Start the process and connect to it.

    The process gets one end of a socket pair, so there is no port that anybody else could connect to.

    Args:
        env: config of an ``envs.base.RobotEnv``; built in the process, not here.
        seed: of its episode.
        disabled: sensors that are unplugged.
        start_timeout_s: how long it may take to load the robot; the first time, its meshes are made.
        reply_timeout_s: how long it may take to answer.
        silence_s: without a command for so long, the robot halts by itself.

    Raises:
        SafetyStop: it does not start.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "perceive.cli.sim_process", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # A session of its own: Ctrl-C must reach the loop, which stops the robot, and not the robot.
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    setup = {"env": dict(env), "seed": int(seed), "disabled": list(disabled), "silence_s": float(silence_s)}
    try:
        send(ours, setup)
    except Disconnected as error:
        process.wait()
        raise SafetyStop("sim_robot.launch", "a process that starts", str(error), "See what it printed.") from error
    return RemoteRobot("sim", ours, start_timeout_s, reply_timeout_s, process)
