from __future__ import annotations

from pathlib import Path

import pytest

from perceive.loading import build_model, load_model
from perceive.model import PerceptionModel
from perceive.rvt.model import KeyPoseModel
from sensors.errors import DataError, WiringError
from tests.perceive.rvt.scene import SPACES, make_model, make_spec
from tests.perceive.test_saving import model as perception_model


def test_each_kind_comes_back_as_what_it_was(tmp_path: Path) -> None:
    perception_model().save_pretrained(tmp_path / "one")
    make_model().save_pretrained(tmp_path / "other")
    assert isinstance(load_model(tmp_path / "one"), PerceptionModel)
    assert isinstance(load_model(tmp_path / "other"), KeyPoseModel)


def test_a_class_that_is_no_model_is_refused() -> None:
    config = {"_target_": "sensors.action.ActionSpec"}
    with pytest.raises(WiringError):
        build_model(config, SPACES, dict.fromkeys(SPACES, 1), make_spec())


def test_a_class_outside_the_project_is_refused() -> None:
    with pytest.raises(WiringError, match="allow"):
        build_model({"_target_": "subprocess.run"}, SPACES, dict.fromkeys(SPACES, 1), make_spec())


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "two")
    make_model(stages=1).save_pretrained(tmp_path / "one")
    (tmp_path / "two" / "model.safetensors").write_bytes((tmp_path / "one" / "model.safetensors").read_bytes())
    with pytest.raises(DataError, match="fit the config"):
        load_model(tmp_path / "two")
