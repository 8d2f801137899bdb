"""The settings of every command as dataclasses: a misspelt key or a wrong type fails when the config is composed.

Components (``env``, ``rig``, ``model``, ``augment`` ...) are a class name plus its arguments; their schema is the
constructor they name, see :mod:`perceive.cli.targets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from perceive.cli.schema_calibrate import CalibrateSchema
from perceive.cli.schema_demo import DemoSchema
from perceive.cli.schema_export import ExportSchema
from perceive.cli.schema_parts import Component, NoiseSchema, TrainSettingsSchema
from perceive.cli.schema_poses import PosesSchema
from perceive.cli.schema_record import RecordSchema
from perceive.cli.schema_run import RunSchema
from perceive.cli.schema_scenes import ScenesSchema
from perceive.cli.schema_score import ScoreSchema


class Algorithm(Enum):
    """How a policy is trained."""

    imitation = "imitation"
    supervised = "supervised"
    sac = "sac"
    ppo = "ppo"


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
        algorithm: imitation (from episodes), supervised (from labelled samples), sac or ppo (in the environment).
        data: folder of episodes, for imitation, or of labelled samples.
        output: run folder.
        resume: run folder to go on with; its own settings hold, only a few may be changed (see perceive.cli.resume).
        skip_bad: leave out damaged episode files with a warning instead of stopping.
        episodes: use the first so many episodes or samples; 0 = all.
        history: instants per sensor; 0 = as recorded.
        heads: heads to train.
        progress: show a progress bar.
        train: numbers of the training loop.
        augment: changes of the scene that leave the action known; null = none.
        model: the perception model.
        dataset: what a sample is: control steps, keyframes, or labelled clouds; null = control steps.
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
    dataset: Component | None = None
    env: Component | None = None
    rig: Component | None = None
    rl: Component | None = None


@dataclass
class EvaluateSchema:
    """Settings of ``perceive evaluate``.

    Attributes:
        checkpoint: checkpoint folder, or a run folder (its newest whole checkpoint is taken).
        skill: a policy that nobody trained (conf/skill), instead of a checkpoint.
        output: folder of the result and the films.
        result: file of the result; by default ``result.json`` in the output folder.
        name: title of the result.
        episodes: how many seeds.
        first_seed: the first of them; training seeds start at 0, so this is far off.
        disabled: sensors to act without, as if unplugged.
        faults: sensor -> what goes wrong with it (a fault of conf/fault, or a list): +fault@faults.front=freeze.
        shuffled: sensors that say what they said in another episode: whether the policy listens to them.
        shuffled_from: folder of recorded episodes that ``shuffled`` takes them from.
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

    checkpoint: str | None = None
    skill: Component | None = None
    output: str = MISSING
    result: str | None = None
    name: str = "evaluation"
    episodes: int = 50
    first_seed: int = 1_000_000
    disabled: list[str] = field(default_factory=list)
    faults: dict[str, Any] = field(default_factory=dict)
    shuffled: list[str] = field(default_factory=list)
    shuffled_from: str | None = None
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
        episode: an episode file; without it and without a cloud, the scripted expert acts in the environment.
        cloud: a file with a point cloud, or a folder of them in a layout that is known, to show instead.
        layout: of that folder; auto = found out by what is there.
        points: preprocessing that clouds go through before they are shown; null = as they are.
        to: mp4, png (a sheet of moments or clouds), rrd (a Rerun recording) or rerun (its window); the last two need
            the extra 'viewer'.
        output: folder of what is written.
        seed: of the environment.
        steps: at most so many steps.
        moments: pictures on a sheet.
        env: the environment.
        rig: its sensors.
    """

    episode: str | None = None
    cloud: str | None = None
    layout: str = "auto"
    points: Component | None = None
    to: ViewTo = ViewTo.mp4
    output: str = MISSING
    seed: int = 0
    steps: int = 400
    moments: int = 9
    env: Component = MISSING
    rig: Component = MISSING


SCHEMAS: dict[str, type] = {
    "demo": DemoSchema,
    "collect": CollectSchema,
    "scenes": ScenesSchema,
    "train": TrainSchema,
    "evaluate": EvaluateSchema,
    "run": RunSchema,
    "record": RecordSchema,
    "view": ViewSchema,
    "score": ScoreSchema,
    "poses": PosesSchema,
    "export": ExportSchema,
    "calibrate": CalibrateSchema,
}


def register_schemas() -> None:
    """Make the schemas known to Hydra, as ``<command>_schema``. May be called again."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
