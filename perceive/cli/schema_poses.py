"""Settings of ``perceive poses``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from perceive.cli.schema_parts import Component


@dataclass
class PosesSchema:
    """Settings of ``perceive poses``.

    Attributes:
        data: folder of pictures in BOP's format, with the true poses.
        split: its part ("test", "train", "train_pbr" ...).
        models: its folder of models ("models", "models_eval" ...).
        pose: the estimator.
        checkpoint: checkpoint folder or run folder of the network, for estimators that were trained.
        references: folder of posed pictures (BOP's format, its split "test") to show an estimator that has no meshes.
        reference_views: how many of each object it is shown.
        masks: whether the estimator is told which pixels are the object's; false = it has to find the object.
        estimates: a result file (BOP's CSV) to score instead of estimating anew; null = estimate.
        output: folder of the estimates, the result and the report.
        result: file of the result; by default ``result.json`` in the output folder.
        name: title of the result.
        limit: the first so many pictures; 0 = all.
        depth_noise_m: standard deviation of noise that is added to the depth.
        drop_depth: the depth is withheld whole.
        zoom: pictures are resized by this factor and the intrinsics with them.
        gain: colours are multiplied by this (light).
        tint: how much red and blue are shifted against each other (light), 0 = not at all.
        seed: of the noise and of estimators that draw at random.
        pictures: pictures in the report, worst first.
        progress: show a progress bar.
    """

    data: str | None = None
    split: str = "test"
    models: str = "models"
    pose: Component = MISSING
    checkpoint: str | None = None
    references: str | None = None
    reference_views: int = 4
    masks: bool = True
    estimates: str | None = None
    output: str = MISSING
    result: str | None = None
    name: str = "poses"
    limit: int = 0
    depth_noise_m: float = 0.0
    drop_depth: bool = False
    zoom: float = 1.0
    gain: float = 1.0
    tint: float = 0.0
    seed: int = 0
    pictures: int = 12
    progress: bool = True
