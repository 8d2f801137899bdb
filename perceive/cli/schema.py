"""The settings of every command as dataclasses: a misspelt key or a wrong type fails when the config is composed.

Components (``env``, ``rig``, ``model``, ``augment`` ...) are a class name plus its arguments; their schema is the
constructor they name, see :mod:`perceive.cli.targets`.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from policies.settings import TrainSettings

Component = dict[str, Any]


def mutable_twin(cls: type) -> type:
    """A dataclass with the same fields and defaults that is not frozen: Hydra refuses overrides of frozen ones.

    Only plain data may be a default.
    """
    hints = typing.get_type_hints(cls)
    fields = [(f.name, hints[f.name], field(default=f.default)) for f in dataclasses.fields(cls)]
    return dataclasses.make_dataclass(f"{cls.__name__}Schema", fields, namespace={"__doc__": cls.__doc__})


TrainSettingsSchema = mutable_twin(TrainSettings)


class Algorithm(Enum):
    """How a policy is trained."""

    imitation = "imitation"
    sac = "sac"
    ppo = "ppo"


@dataclass
class NoiseSchema:
    """Disturbance of what is executed while the expert's clean action stays the label (see perceive.cli.noise).

    Attributes:
        position_m: standard deviation of the offset of the commanded position in each axis, metres.
        rotation_rad: standard deviation of the commanded rotation about each axis, radians.
        burst_probability: that a burst starts at a step.
        burst_steps: mean length of a burst, control steps; the offset stays the same within one.
    """

    position_m: float = 0.0
    rotation_rad: float = 0.0
    burst_probability: float = 0.1
    burst_steps: float = 6.0


@dataclass
class CollectSchema:
    """Settings of ``perceive collect``.

    Attributes:
        output: folder of the episodes; finished ones in it are kept.
        episodes: how many episodes the folder shall hold.
        first_seed: seeds are taken from here upwards; the episode's number is its seed.
        workers: processes; 0 = one a core.
        keep_failures: keep episodes in which the expert failed, too.
        max_attempts: give up after so many seeds; 0 = three times ``episodes``.
        noise: disturbance of what is executed; the label stays clean.
        progress: show a progress bar.
        env: the environment.
        rig: its sensors.
    """

    output: str = MISSING
    episodes: int = 100
    first_seed: int = 0
    workers: int = 0
    keep_failures: bool = False
    max_attempts: int = 0
    noise: NoiseSchema = field(default_factory=NoiseSchema)
    progress: bool = True
    env: Component = MISSING
    rig: Component = MISSING


@dataclass
class TrainSchema:
    """Settings of ``perceive train``.

    Attributes:
        algorithm: imitation (from episodes), sac or ppo (in the environment).
        data: folder of episodes, for imitation.
        output: run folder.
        resume: run folder to go on with; its own settings hold, only a few may be changed (see perceive.cli.resume).
        skip_bad: leave out damaged episode files with a warning instead of stopping.
        episodes: use the first so many episodes; 0 = all.
        history: instants per sensor; 0 = as recorded.
        heads: action heads to train.
        progress: show a progress bar.
        train: numbers of the training loop.
        augment: changes of the scene that leave the action known; null = none.
        model: the perception model.
        env: environment, for sac and ppo.
        rig: its sensors.
        rl: arguments of the reinforcement learning algorithm.
    """

    algorithm: Algorithm = Algorithm.imitation
    data: str | None = None
    output: str = MISSING
    resume: str | None = None
    skip_bad: bool = False
    episodes: int = 0
    history: int = 0
    heads: list[str] = field(default_factory=lambda: ["action"])
    progress: bool = True
    train: TrainSettingsSchema = field(default_factory=TrainSettingsSchema)  # type: ignore[valid-type]  # made above
    augment: Component | None = None
    model: Component = MISSING
    env: Component | None = None
    rig: Component | None = None
    rl: Component | None = None


@dataclass
class EvaluateSchema:
    """Settings of ``perceive evaluate``.

    Attributes:
        checkpoint: checkpoint folder, or a run folder (its newest whole checkpoint is taken).
        output: folder of the result and the films.
        result: file of the result; by default ``result.json`` in the output folder.
        name: title of the result.
        episodes: how many seeds.
        first_seed: the first of them; training seeds start at 0, so this is far off.
        disabled: sensors to act without, as if unplugged.
        films: of how many episodes, failures first, a film is written.
        use_ema: use the averaged weights.
        device: torch device.
        head: the action head to obey.
        replan_s: predict anew when the last chunk is this old, seconds; 0 = at every step.
        ensemble: average what all recent chunks say about a moment.
        workers: processes, each with one torch thread; 0 = one a core.
        progress: show a progress bar.
        env: the environment.
        rig: its sensors.
    """

    checkpoint: str = MISSING
    output: str = MISSING
    result: str | None = None
    name: str = "evaluation"
    episodes: int = 50
    first_seed: int = 1_000_000
    disabled: list[str] = field(default_factory=list)
    films: int = 0
    use_ema: bool = True
    device: str = "cpu"
    head: str = "action"
    replan_s: float = 0.0
    ensemble: bool = False
    workers: int = 0
    progress: bool = True
    env: Component = MISSING
    rig: Component = MISSING


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
        output: folder of the summary.
        result: file of the summary; by default ``run.json`` in the output folder.
        duration_s: how long at most, seconds.
        until_success: end when the robot's driver says that the task is done.
        seed: of a simulated robot's episode.
        disabled: sensors of a simulated robot that are unplugged.
        use_ema: use the averaged weights.
        device: torch device.
        threads: torch's threads; one leaves the other cores to the robot.
        head: the action head to obey.
        replan_s: predict anew when the last chunk is this old, seconds; 0 = at every step.
        ensemble: average what all recent chunks say about a moment.
        loop: the control loop.
        robot: the link to the robot.
        safety: limits of what is sent to it.
        env: the environment of a simulated robot; null for a real one.
        rig: its sensors.
    """

    policy: str = MISSING
    output: str = MISSING
    result: str | None = None
    duration_s: float = 10.0
    until_success: bool = True
    seed: int = 1_000_000
    disabled: list[str] = field(default_factory=list)
    use_ema: bool = True
    device: str = "cpu"
    threads: int = 1
    head: str = "action"
    replan_s: float = 0.0
    ensemble: bool = False
    loop: LoopSchema = field(default_factory=LoopSchema)
    robot: Component = MISSING
    safety: Component = MISSING
    env: Component | None = None
    rig: Component | None = None


class ViewTo(Enum):
    """Where ``perceive view`` shows."""

    mp4 = "mp4"
    png = "png"
    rrd = "rrd"
    rerun = "rerun"


@dataclass
class ViewSchema:
    """Settings of ``perceive view``.

    Attributes:
        episode: an episode file; without it, the scripted expert acts in the environment.
        to: mp4, png (a sheet of moments), rrd (a Rerun recording) or rerun (its window); the last two need the extra
            'viewer'.
        output: folder of what is written.
        seed: of the environment.
        steps: at most so many steps.
        moments: pictures on a sheet.
        env: the environment.
        rig: its sensors.
    """

    episode: str | None = None
    to: ViewTo = ViewTo.mp4
    output: str = MISSING
    seed: int = 0
    steps: int = 400
    moments: int = 9
    env: Component = MISSING
    rig: Component = MISSING


@dataclass
class DemoCollectSchema:
    """Demonstrations of ``perceive demo``.

    Attributes:
        output: folder of the episodes; by default ``episodes`` in the demo's folder.
        episodes: how many.
        first_seed: seeds are taken from here upwards.
        workers: processes; 0 = one a core.
        noise: disturbance of what is executed; the label stays clean.
    """

    output: str | None = None
    episodes: int = 300
    first_seed: int = 0
    workers: int = 0
    noise: NoiseSchema = field(default_factory=NoiseSchema)


@dataclass
class ConditionSchema:
    """A condition under which the policy is evaluated.

    Attributes:
        label: in words.
        episodes: how many held-out seeds.
        disabled: sensors that are unplugged.
        moved: whether the cameras are moved (see ``moved``).
    """

    label: str = MISSING
    episodes: int = 50
    disabled: list[str] = field(default_factory=list)
    moved: bool = False


@dataclass
class DemoEvaluateSchema:
    """Evaluation of ``perceive demo``.

    Attributes:
        first_seed: first held-out seed.
        replan_s: predict anew when the last chunk is this old, seconds.
        workers: processes; 0 = one a core.
        conditions: name -> condition; the first is the main one.
    """

    first_seed: int = 1_000_000
    replan_s: float = 0.25
    workers: int = 0
    conditions: dict[str, ConditionSchema] = field(default_factory=dict)


@dataclass
class DemoSchema:
    """Settings of ``perceive demo``.

    Attributes:
        output: folder of everything; a demo in it goes on where it was.
        result: a further file for the result.
        name: title of report and result.
        about: what is measured.
        command: the command that makes the result again.
        progress: show progress bars.
        films: films of so many successes and failures.
        collect: demonstrations.
        augment: changes of the scene that leave the action known; null = none.
        train: numbers of the training loop.
        evaluate: held-out seeds and conditions.
        moved: camera -> how far its mount is moved at test time.
        model: the perception model.
        env: the environment.
        rig: its sensors.
    """

    output: str = MISSING
    result: str | None = None
    name: str = MISSING
    about: str = ""
    command: str = ""
    progress: bool = True
    films: int = 3
    collect: DemoCollectSchema = field(default_factory=DemoCollectSchema)
    augment: Component | None = None
    train: TrainSettingsSchema = field(default_factory=TrainSettingsSchema)  # type: ignore[valid-type]  # made above
    evaluate: DemoEvaluateSchema = field(default_factory=DemoEvaluateSchema)
    moved: dict[str, dict[str, float]] = field(default_factory=dict)
    model: Component = MISSING
    env: Component = MISSING
    rig: Component = MISSING


SCHEMAS: dict[str, type] = {
    "demo": DemoSchema,
    "collect": CollectSchema,
    "train": TrainSchema,
    "evaluate": EvaluateSchema,
    "run": RunSchema,
    "view": ViewSchema,
}


def register_schemas() -> None:
    """Make the schemas known to Hydra, as ``<command>_schema``. May be called again."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
