"""The report of a key-pose policy: every look of some episodes, with the heatmaps over the virtual views."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceive.cli.policy import env_maker, policy_maker
from perceive.report import Clip, Rate, Report, encode_gif, write_report
from perceive.results import machine, versions
from perceive.rvt.model import KeyPoseModel
from perceive.viewing.draw import Picture, write
from perceive.viewing.heatmaps import key_pose_picture
from policies.evaluation import EvaluationResult
from policies.key_pose_policy import KeyPosePolicy
from policies.rollout import EpisodeResult, rollout
from sensors.action import Action
from sensors.observation import Observation

REPORT_FILE = "report.html"
LOOKS_HZ = 0.7  # looks per second of film: people read them


def write_key_pose_report(config: Mapping[str, Any], result: EvaluationResult, folder: Path) -> Path | None:
    """Play some episodes again, failures first, and write ``report.html``; None if the policy predicts no key poses.

    Args:
        config: resolved config of ``perceive evaluate``.
        result: of the evaluation.
        folder: where to.
    """
    policy = policy_maker(config["checkpoint"], config)()
    if not isinstance(policy, KeyPosePolicy) or not isinstance(policy.model, KeyPoseModel):
        return None
    chosen = sorted(result.episodes, key=lambda episode: episode.success)[: config["films"]]
    env = env_maker(config["checkpoint"], config["env"])()
    try:
        clips = [_clip(env, policy, episode) for episode in chosen]
    finally:
        env.close()
    low, high = result.interval
    main = Rate("success", result.successes, result.count, low, high)
    planner = result.planner_failures
    own = result.count - result.successes - planner
    report = Report(
        title=config["name"],
        lead=f"{result.successes} of {result.count} episodes succeed. Of the others, in {planner} a move could not be "
        f"planned, and in {own} every move was carried out. A cross marks the key pose in each view.",
        headline=main,
        tables={},
        curve=(),
        clips=clips,
        timings_s={"CPU from observation to key pose, median": result.latency_ms(50) / 1e3},
        facts={name: str(value) for name, value in {**machine(), **versions()}.items()},
        config=config,
    )
    return write_report(folder / REPORT_FILE, report)


def _clip(env: Any, policy: KeyPosePolicy, episode: EpisodeResult) -> Clip:
    assert isinstance(policy.model, KeyPoseModel)
    faces = policy.model.faces
    frames: list[Picture] = []

    def look(observation: Observation, action: Action, info: Mapping[str, Any]) -> None:
        cameras: dict[str, Picture] = {
            name: np.asarray(stream.data["rgb"][-1], np.uint8)
            for name, stream in observation.streams.items()
            if "rgb" in stream.data and stream.data["rgb"].ndim == 4
        }
        picture = key_pose_picture(policy.last, faces, dict(list(cameras.items())[: len(faces)]))
        gripper = "open" if action.values[action.spec.part("gripper")][0] > 0 else "close"
        write(picture, f"{len(frames) + 1}: then {gripper}. {info.get('plan', '')}", (4, picture.shape[0] - 6))
        frames.append(picture)

    rollout(env, policy, episode.seed, on_step=look)
    word = "success" if episode.success else "failure"
    return Clip(f"{word}, seed {episode.seed}", episode.success, encode_gif(frames, LOOKS_HZ))
