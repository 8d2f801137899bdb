"""perceive evaluate skill=...: policies that nobody trained, told the robot's actions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perceive.cli import evaluate, main
from perceive.cli.compose import compose_config
from perceive.cli.policy import skill_maker
from perceive.cli.scenes_poses import known_models
from perceive.pose.files.writer import PoseWriter
from sensors.errors import SpecError, WiringError
from tests.policies.goal_env import SPEC

QUICK = ["skill.estimator.views=42", "skill.estimator.turns=12", "skill.estimator.hypotheses=24"]


def test_a_named_object_is_picked_by_its_pose(tmp_path: Path) -> None:
    words = ["skill=pick_by_pose", "env=pick_named", *QUICK, "episodes=1", "first_seed=500", "workers=1"]
    assert main(["evaluate", *words, f"output={tmp_path}", "progress=false"]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["figures"]["success"]["value"] == 1.0
    assert result["about"] == "A skill in PickNamed."
    assert main(["evaluate", *words, f"output={tmp_path}", "progress=false", "disabled=[front]"]) == 0
    assert json.loads((tmp_path / "result.json").read_text())["figures"]["success"]["value"] == 0.0


@pytest.mark.parametrize("words", [[], ["skill=pick_by_pose", "checkpoint=somewhere"]])
def test_it_is_either_a_checkpoint_or_a_skill(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a checkpoint or a skill"):
        evaluate.job(compose_config("evaluate", [*words, f"output={tmp_path}"]))


def test_sensors_of_a_skill_are_not_shuffled(tmp_path: Path) -> None:
    words = ["skill=pick_by_pose", "env=pick_named", "shuffled=[front]", "shuffled_from=x", f"output={tmp_path}"]
    with pytest.raises(SpecError, match="shuffled"):
        evaluate.job(compose_config("evaluate", words))


def test_a_skill_is_a_policy() -> None:
    with pytest.raises(WiringError, match="conf/skill"):
        skill_maker({"_target_": "perceive.rvt.tint.Tint", "proprio": 1, "language_width": 1, "width": 1}).make(SPEC)


def test_models_are_of_simulated_scenes_or_of_a_folder(tmp_path: Path) -> None:
    every = known_models()
    assert {model.name for model in every.values()} >= {"cube", "star", "hammer"}
    assert all(number == model.number for number, model in every.items())
    two = known_models(names=["cube", "star"])
    PoseWriter(tmp_path).models(two)
    assert {m.name for m in known_models(str(tmp_path / "models")).values()} == {"cube", "star"}
    assert [m.name for m in known_models(str(tmp_path / "models"), ["star"]).values()] == ["star"]
    with pytest.raises(SpecError, match="'cube'"):
        known_models(str(tmp_path / "models"), ["cub"])
