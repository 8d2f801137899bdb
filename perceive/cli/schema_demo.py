"""The settings of ``perceive demo``."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from perceive.cli.schema_parts import Component, NoiseSchema, TrainSettingsSchema


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
        shuffled: sensors that say what they said in one of the demonstrations (see policies.shuffled).
        moved: whether the cameras are moved (see ``moved``).
        keeps: goal, the part of the main condition's success that is to be kept; null = none.
    """

    label: str = MISSING
    episodes: int = 50
    disabled: list[str] = field(default_factory=list)
    shuffled: list[str] = field(default_factory=list)
    moved: bool = False
    keeps: float | None = None


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
    replan_s: float = 0.0
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
