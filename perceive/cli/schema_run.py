"""The settings of ``perceive run``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from perceive.cli.schema_parts import Component


class LiveTo(Enum):
    """Where the sensors are shown while a robot runs."""

    rerun = "rerun"
    rrd = "rrd"
    png = "png"


@dataclass
class LoopSchema:
    """The control loop of ``perceive run``.

    Attributes:
        rate_hz: commands per second; null = as fast as the action spec says.
        watchdog_s: a tick that takes longer stops the robot.
        ready_s: how long to wait for the first whole observation.
        phase_sensor: start right after a new frame of this sensor; null = at once.
        phase_s: how long after it.
    """

    rate_hz: float | None = None
    watchdog_s: float = 0.5
    ready_s: float = 5.0
    phase_sensor: str | None = "joints"
    phase_s: float = 0.01


@dataclass
class RunSchema:
    """Settings of ``perceive run``.

    Attributes:
        policy: checkpoint folder, run folder, folder of a saved model, or "hold" to stay where the robot is.
        skill: a policy that nobody trained (conf/skill), instead.
        output: folder of the summary.
        result: file of the summary; by default ``run.json`` in the output folder.
        duration_s: how long at most, seconds.
        until_success: end when the robot's driver says that the task is done.
        seed: of a simulated robot's episode.
        disabled: sensors of a simulated robot that are unplugged.
        use_ema: use the averaged weights.
        device: torch device.
        threads: torch's threads; one leaves the other cores to the robot.
        view: show what the sensors see: rerun (its window), rrd (a recording for it, live.rrd in the output folder) or
            png (live.png there, rewritten every second); the first two need the extra 'viewer'. null = not at all.
        head: the action head to obey.
        replan_s: predict anew when the last chunk is this old, seconds; 0 = at every step.
        ensemble: average what all recent chunks say about a moment.
        loop: the control loop.
        robot: the link to the robot.
        safety: limits of what is sent to it.
        env: the environment of a simulated robot; null for a real one.
        rig: its sensors.
    """

    policy: str | None = None
    skill: Component | None = None
    output: str = MISSING
    result: str | None = None
    duration_s: float = 10.0
    until_success: bool = True
    seed: int = 1_000_000
    disabled: list[str] = field(default_factory=list)
    use_ema: bool = True
    device: str = "cpu"
    threads: int = 1
    view: LiveTo | None = None
    head: str = "action"
    replan_s: float = 0.0
    ensemble: bool = False
    loop: LoopSchema = field(default_factory=LoopSchema)
    robot: Component = MISSING
    safety: Component = MISSING
    env: Component | None = None
    rig: Component | None = None
