"""Saving, loading and wiring: the same numbers back, and errors that say where, expected, got and what to do."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from perceive.batch import BatchStream, collate
from perceive.build import build
from perceive.heads.value import ValueHead
from perceive.hub import local_folder
from perceive.model import PerceptionModel
from perceive.saved import CONFIG_FILE, WEIGHTS_FILE
from sensors.action import ActionMode, ActionSpec
from sensors.errors import DataError, SpecError, WiringError
from sensors.observation import Observation
from tests.perceive.scene import (
    ONE_INSTANT,
    SPACES,
    SPEC,
    changed,
    config,
    fake_batch,
    fake_stats,
    fake_stream,
    model,
)

HEADS = ("pointing.PointingHead", "regression.RegressionHead", "flow.FlowMatchingHead")


@pytest.mark.parametrize("head", HEADS)
def test_a_loaded_model_answers_bit_for_bit(tmp_path: Path, head: str) -> None:
    net = model(head=f"perceive.heads.{head}").eval()
    net.fit(fake_stats())
    batch = fake_batch(np.random.default_rng(0))
    loaded = PerceptionModel.from_pretrained(net.save_pretrained(tmp_path / "saved"))
    assert not loaded.training
    assert torch.equal(loaded(batch)["action"].values, net(batch)["action"].values)
    assert loaded.config == net.config
    assert loaded.action_spec == SPEC
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


def test_saving_over_a_model_replaces_it(tmp_path: Path) -> None:
    model(seed=0).save_pretrained(tmp_path)
    other = model(seed=1).eval()
    other.save_pretrained(tmp_path)
    batch = fake_batch(np.random.default_rng(0))
    assert torch.equal(PerceptionModel.from_pretrained(tmp_path)(batch)["action"].values, other(batch)["action"].values)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("harm", ["missing", "truncated", "empty"])
def test_damaged_files_are_data_errors(tmp_path: Path, file: str, harm: str) -> None:
    path = model().save_pretrained(tmp_path) / file
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if harm == "truncated" else 0])
    with pytest.raises(DataError) as caught:
        PerceptionModel.from_pretrained(tmp_path)
    assert str(tmp_path) in caught.value.where


def test_weights_of_another_model_and_other_formats_are_data_errors(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "a")
    model(head="perceive.heads.regression.RegressionHead").save_pretrained(tmp_path / "b")
    (tmp_path / "a" / CONFIG_FILE).write_text((tmp_path / "b" / CONFIG_FILE).read_text())
    with pytest.raises(DataError, match="different models"):
        PerceptionModel.from_pretrained(tmp_path / "a")
    path = tmp_path / "b" / CONFIG_FILE
    for content in (json.dumps(json.loads(path.read_text()) | {"format": 99}), "[]", "{}", '{"format": 1}'):
        path.write_text(content)
        with pytest.raises(DataError):
            PerceptionModel.from_pretrained(tmp_path / "b")


@pytest.mark.parametrize(
    "target", ["os.system", "subprocess.run", "perceive.hub.Path", "perceive.model.json", "perceive.nowhere.Encoder"]
)
def test_a_config_may_only_name_our_own_classes(tmp_path: Path, target: str) -> None:
    path = model().save_pretrained(tmp_path) / CONFIG_FILE
    data = json.loads(path.read_text())
    data["model"]["encoders"]["wrench"] = {"_target_": target}
    path.write_text(json.dumps(data))
    with pytest.raises(WiringError, match="wrench"):
        PerceptionModel.from_pretrained(tmp_path)


def test_a_readers_own_class_is_allowed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    own = types.ModuleType("my_robot_parts")
    source = "from perceive.heads.value import ValueHead as Parent\ndef MyHead(width: int):\n    return Parent(width)\n"
    exec(source, own.__dict__)  # noqa: S102  # a stand-in for a file of the reader's
    monkeypatch.setitem(sys.modules, "my_robot_parts", own)
    part = {"_target_": "my_robot_parts.MyHead"}
    with pytest.raises(WiringError, match="allow"):
        build(part, width=8)
    assert isinstance(build(part, allow=("my_robot_parts.",), width=8), ValueHead)


def wire(**changes: Any) -> PerceptionModel:
    return PerceptionModel.from_config(config() | changes, SPACES, ONE_INSTANT, SPEC)


def renamed(old: str, new: str) -> dict[str, Any]:
    encoders = config()["encoders"]
    return {(new if name == old else name): part for name, part in encoders.items()}


def test_a_misspelt_sensor_names_the_nearest() -> None:
    with pytest.raises(WiringError, match="Did you mean 'front'"):
        wire(encoders=renamed("front", "fronnt"))
    with pytest.raises(WiringError, match="Did you mean 'joints'"):
        wire(origin="joint")
    with pytest.raises(WiringError, match="Did you mean 'wrench'"):
        wire(ignored_sensors=["wrensh"])


def test_a_sensor_without_encoder_must_be_ignored_explicitly() -> None:
    encoders = {name: part for name, part in config()["encoders"].items() if name != "touch"}
    with pytest.raises(WiringError, match="'touch'"):
        wire(encoders=encoders)
    net = wire(encoders=encoders, ignored_sensors=["touch"])
    assert net.sensor_names == ("front", "wrist", "joints", "wrench")
    net(fake_batch(np.random.default_rng(0)))  # the rig may go on sending it


def test_misspelt_keys_and_arguments_name_the_nearest() -> None:
    with pytest.raises(WiringError, match="Did you mean 'encoders'"):
        wire(encoder={})
    with pytest.raises(WiringError, match="Did you mean 'depth'"):
        wire(trunk={"_target_": "perceive.trunk.Trunk", "depht": 2})
    with pytest.raises(WiringError, match="Did you mean 'Trunk'"):
        wire(trunk={"_target_": "perceive.trunk.Trunc"})
    with pytest.raises(WiringError, match="_target_"):
        wire(trunk={"depth": 2})
    with pytest.raises(WiringError, match="'heads'"):
        PerceptionModel.from_config({k: v for k, v in config().items() if k != "heads"}, SPACES, ONE_INSTANT, SPEC)


def test_heads_and_actions_that_do_not_fit_are_wiring_errors() -> None:
    delta = ActionSpec(
        ActionMode.EE_DELTA, SPEC.space, {"position": (0, 3), "rotation": (3, 9), "gripper": (9, 10)}, 0.1
    )
    with pytest.raises(WiringError, match="ee_delta"):
        PerceptionModel.from_config(config(), SPACES, ONE_INSTANT, delta)
    with pytest.raises(WiringError, match="action_spec"):
        PerceptionModel.from_config(config(), SPACES, ONE_INSTANT, None)
    value = {"value": {"_target_": "perceive.heads.value.ValueHead"}}
    assert wire(heads=value).action_spec == SPEC  # a head that takes no action_spec is not given one
    with pytest.raises(WiringError, match="at least one"):
        wire(heads={})


def test_feeding_another_rig_is_named() -> None:
    net, batch = model(), fake_batch(np.random.default_rng(0))
    with pytest.raises(WiringError, match="'wrist'"):
        net(type(batch)({name: s for name, s in batch.streams.items() if name != "wrist"}))
    stream = batch.stream("front")
    small = {**stream.data, "rgb": stream.data["rgb"][:, :, :12]}
    with pytest.raises(SpecError, match=r"front.*rgb"):
        net(changed(batch, "front", BatchStream(small, stream.age_s, stream.valid)))
    without = {name: value for name, value in stream.data.items() if name != "depth_m"}
    with pytest.raises(WiringError, match="depth_m"):
        net(changed(batch, "front", BatchStream(without, stream.age_s, stream.valid)))
    with pytest.raises(WiringError, match="Did you mean 'action'"):
        net.loss(batch, {"acton": None})


def test_a_model_put_together_by_hand_cannot_be_saved(tmp_path: Path) -> None:
    net = model()
    loose = PerceptionModel(dict(net.encoders.items()), net.trunk, dict(net.heads.items()), 32)  # type: ignore[arg-type]
    with pytest.raises(WiringError, match="build_model"):
        loose.save_pretrained(tmp_path)
    assert isinstance(loose, nn.Module)


def test_collate_stacks_and_narrows() -> None:
    rng = np.random.default_rng(0)
    observations = [Observation(0.0, {"joints": fake_stream(SPACES["joints"], rng, 2)}) for _ in range(3)]
    observations[1].streams["joints"].data["position_rad"].dtype  # noqa: B018
    batch = collate(observations)
    assert batch.size == 3
    assert batch.stream("joints").data["position_rad"].shape == (3, 2, 7)
    assert batch.stream("joints").valid.dtype == torch.bool
    wide = {"x": np.zeros((1, 2)), "picture": np.zeros((1, 2, 2, 3), np.uint8)}
    double = Observation(0.0, {"it": type(fake_stream(SPACES["joints"], rng))(wide, np.zeros(1), np.ones(1, bool))})
    data = collate([double]).stream("it").data
    assert (data["x"].dtype, data["picture"].dtype) == (torch.float32, torch.uint8)
    with pytest.raises(WiringError, match="observation 1"):
        collate([observations[0], double])
    with pytest.raises(WiringError, match="at least one"):
        collate([])
    with pytest.raises(WiringError, match="Did you mean 'joints'"):
        batch.stream("joint")


def test_a_plain_folder_never_asks_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked = []

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        if repository == "nobody/nothing":
            raise OSError("no such model")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(DataError, match="runs/mine"):
        PerceptionModel.from_pretrained("runs/mine")
    assert asked == []
    net = model().eval()
    net.save_pretrained(tmp_path)
    loaded = PerceptionModel.from_pretrained("hf://someone/lift@v2")
    assert asked == [("someone/lift", "v2", [CONFIG_FILE, WEIGHTS_FILE])]
    assert torch.equal(loaded.fallback_origin_m, net.fallback_origin_m)
    with pytest.raises(DataError, match="nobody/nothing"):
        local_folder("hf://nobody/nothing", [])


def test_pushing_uploads_both_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    sent: dict[str, Any] = {}

    class Api:
        def create_repo(self, repository: str, private: bool, exist_ok: bool) -> Any:
            if repository == "someone/elses":
                raise OSError("403")
            sent.update(private=private)
            return type("Address", (str,), {"repo_id": repository})("https://hub/me/lift")

        def upload_folder(self, repo_id: str, folder_path: Path, allow_patterns: list[str]) -> None:
            sent.update(repository=repo_id, files=sorted(p.name for p in folder_path.iterdir()))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert model().push_to_hub("me/lift", private=True) == "https://hub/me/lift"
    assert sent == {"private": True, "repository": "me/lift", "files": [CONFIG_FILE, WEIGHTS_FILE]}
    with pytest.raises(DataError, match="hf auth login"):
        model().push_to_hub("someone/elses")
