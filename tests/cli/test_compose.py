"""Configs: every file composes, and every mistake fails before anything runs and names the nearest valid word."""

from __future__ import annotations

from pathlib import Path

import pytest

from perceive.cli.compose import ConfigError, compose_config, groups, nearest_key, search_path_override

CONF = Path(__file__).resolve().parents[2] / "conf"

# How one file of each group is put into a command that uses it. A new group needs a line here.
USED_BY = {
    "env": ("collect", "env={name}", "rig=lift"),
    "skill": ("evaluate", "skill={name}"),
    "fault": ("evaluate", "checkpoint=x", "+fault@faults.front={name}"),
    "rig": ("collect", "env=lift", "rig={name}"),
    "sensor": ("collect", "+sensor@rig.sensors.probe={name}"),
    "model": ("train", "model={name}"),
    "dataset": ("train", "dataset={name}"),
    "encoder": ("train", "+encoder@model.encoders.probe={name}"),
    "trunk": ("train", "trunk@model.trunk={name}"),
    "head": ("train", "+head@model.heads.probe={name}"),
    "algorithm": ("train", "algorithm={name}"),
    "points": ("view", "cloud=x", "points={name}"),
    "scenes": ("scenes", "scenes={name}"),
    "pose": ("poses", "pose={name}"),
    "experiment": ("train", "experiment={name}"),
    "augment": ("train", "augment={name}"),
    "robot": ("run", "policy=hold", "robot={name}"),
    "touch": ("calibrate", "touch={name}"),
}
NEEDED = {
    "score": ["checkpoint=somewhere"],
    "export": ["checkpoint=somewhere"],
}
ROOTS = sorted(path.stem for path in CONF.glob("*.yaml"))
OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))


@pytest.mark.parametrize("command", ROOTS)
def test_every_root_composes(command: str) -> None:
    assert "output" in compose_config(command, NEEDED.get(command, []))


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_of_every_group_composes(group: str, name: str) -> None:
    command, *words = USED_BY[group]
    compose_config(command, [word.format(name=name) for word in words])


def test_groups_are_the_folders() -> None:
    assert groups() == sorted({group for group, _ in OPTIONS})


@pytest.mark.parametrize(
    ("command", "word", "hint"),
    [
        ("collect", "episode=3", "Did you mean 'episodes'?"),
        ("collect", "noise.positon_m=0.1", "Did you mean 'noise.position_m'?"),
        ("collect", "position_m=0.1", "Did you mean 'noise.position_m'?"),
        ("collect", "rig.sensors.front.mount_shft_m=0.1", "Did you mean 'rig.sensors.front.mount_shift_m'?"),
        ("collect", "env.task.heigth_m=0.1", "Did you mean 'env.task.height_m'?"),
        ("collect", "env.quite_different=1", "Known in 'env':"),
        ("train", "augment=null", "Write augment=none"),
        ("train", "model=null", "choose one of chunk_language"),
        ("collect", "env=lfit", "Did you mean 'lift'?"),
        ("collect", "rig=stat", "Did you mean 'state'?"),
        ("collect", "rigg=state", "Did you mean 'rig'?"),
        ("collect", "sensor@rig.sensors.front=front_rgbd", "Did you mean 'front_rgb'?"),
        ("train", "model=situatd", "Did you mean 'situated'?"),
        ("train", "train.stepz=3", "Did you mean 'train.steps'?"),
        ("train", "model.trunk.dept=2", "Did you mean 'model.trunk.depth'?"),
        ("train", "+model.trunk.dept=2", "Did you mean 'depth'?"),
        ("train", "+steps=2", "Did you mean 'train.steps'?"),
        ("train", "algorithm=sca", "Did you mean 'sac'?"),
        ("view", "to=mp5", "expected one of [mp4, png, rrd, rerun]"),
        ("evaluate", "chekpoint=x", "Did you mean 'checkpoint'?"),
        ("view", "episod=x", "Did you mean 'episode'?"),
    ],
)
def test_a_typo_names_the_nearest(command: str, word: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config(command, [word])
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("command", "word", "key"),
    [
        ("collect", "episodes=many", "episodes"),
        ("collect", "keep_failures=perhaps", "keep_failures"),
        ("train", "train.steps=1.5", "train.steps"),
        ("train", "heads=action", "heads"),
        ("train", "model.trunk.depth=deep", "model.trunk.depth"),
        ("evaluate", "episodes=[1]", "episodes"),
        ("collect", "rig.sensors.front.mount_shift_m=far", "rig.sensors.front.mount_shift_m"),
        ("collect", "rig.sensors.joints.timing.history=1.5", "rig.sensors.joints.timing.history"),
    ],
)
def test_a_wrong_type_is_refused(command: str, word: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config(command, [word, *NEEDED.get(command, [])])
    assert f"'{key}'" in str(caught.value)


def test_right_words_are_not_refused() -> None:
    words = ["env=lift", "rig=state", "episodes=3", "noise.position_m=1", "rig.sensors.joints.timing.history=2"]
    config = compose_config("collect", words)
    assert config["episodes"] == 3
    assert config["env"]["rig"]["sensors"]["joints"]["timing"]["history"] == 2
    assert config["output"] == "runs/episodes/lift"


def test_the_config_is_plain_data() -> None:
    def types(value: object) -> set[type]:
        if isinstance(value, dict):
            return {dict}.union(*(types(part) for part in value.values()))
        if isinstance(value, list):
            return {list}.union(*(types(part) for part in value))
        return {type(value)}

    assert types(compose_config("train", [])) <= {dict, list, int, float, str, bool, type(None)}


def test_a_required_key_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="checkpoint="):
        compose_config("score", [])


def test_a_word_that_is_no_override_is_refused() -> None:
    with pytest.raises(ConfigError, match="key=value"):
        compose_config("collect", ["episodes"])


def test_configs_of_the_reader_are_found_and_checked(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    mine = tmp_path / "env" / "mine.yaml"
    extra = search_path_override([str(tmp_path)])
    mine.write_text("defaults: [lift, _self_]\ntask: {height_m: 0.2}\n")
    assert compose_config("collect", [*extra, "env=mine", "rig=lift"])["env"]["task"]["height_m"] == 0.2
    mine.write_text("defaults: [lift, _self_]\ntask: {heigth_m: 0.2}\n")
    with pytest.raises(ConfigError, match="Did you mean 'height_m'"):
        compose_config("collect", [*extra, "env=mine", "rig=lift"])
    with pytest.raises(ConfigError, match="choose one with rig="):
        compose_config("collect", [*extra, "env=mine"])
    with pytest.raises(ConfigError, match="--config-dir"):
        search_path_override([str(tmp_path / "none")])


def test_a_class_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'RgbdCamera'"):
        compose_config("collect", ["rig.sensors.front._target_=sensors.camera.RgbdCamra"])
    with pytest.raises(ConfigError, match=r"os\.system"):
        compose_config("collect", ["rig.sensors.front._target_=os.system"])


def test_sweeps_are_checked_with_their_first_choice() -> None:
    assert compose_config("collect", ["episodes=3,4"])["episodes"] == 3
    with pytest.raises(ConfigError, match="'episodes'"):
        compose_config("collect", ["episodes=x,4"])


def test_nearest_key_prefers_the_same_place() -> None:
    known = ["train", "train.steps", "rl", "rl.steps", "episodes"]
    assert nearest_key("rl.step", known) == "Did you mean 'rl.steps'?"
    assert nearest_key("steps", known) in ("Did you mean 'train.steps'?", "Did you mean 'rl.steps'?")
    assert nearest_key("train.zzz", known) == "Known in 'train': steps."
