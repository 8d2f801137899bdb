"""perceive export: a trained encoder's backbone as ONNX, what is written beside it, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from perceive.batch import Batch
from perceive.cli import main
from perceive.cli.export import backbone
from perceive.encoders.point_transformer import PointTransformerEncoder
from perceive.export.onnx_points import OnnxPTv3
from perceive.export.ptv3_inputs import input_specs
from perceive.loading import build_model
from perceive.model import PerceptionModel
from perceive.model_base import Model
from perceive.normalize import FieldStats
from perceive.points.ptv3.levels import GridCloud
from sensors.errors import WiringError
from sensors.spec import box

SPACE = spaces.Dict(
    {"xyz_m": box(-9, 9, (64, 3)), "rgb": box(0, 255, (64, 3), np.uint8), "count": box(0, 64, (1,), np.int64)}
)
TRANSFORMER = {
    "_target_": "perceive.encoders.point_transformer.PointTransformerEncoder", "tokens": 8, "blocks": [1, 1],
    "channels": [8, 16], "heads": [2, 2], "patch": 32,
}  # fmt: skip
GROUPS = {"_target_": "perceive.encoders.point_groups.PointGroupEncoder", "groups": 4, "size": 8, "hidden": 8}


def model_of(encoders: dict[str, Any]) -> PerceptionModel:
    torch.manual_seed(0)
    plan = {
        "width": 16,
        "origin": None,
        "ignored_sensors": [],
        "encoders": encoders,
        "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 1, "heads": 1},
        "heads": {"class": {"_target_": "perceive.heads.classification.ClassHead", "classes": ["a", "b"], "hidden": 8}},
    }
    model = build_model(plan, dict.fromkeys(encoders, SPACE), dict.fromkeys(encoders, 1))
    assert isinstance(model, PerceptionModel)
    return model.eval()


def test_a_trained_encoder_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = model_of({"cloud": TRANSFORMER, "other": GROUPS})
    model.save_pretrained(tmp_path / "model")
    assert main(["export", f"checkpoint={tmp_path / 'model'}", f"output={tmp_path / 'out'}"]) == 0
    assert "the Point Transformer V3 of 'cloud'" in capsys.readouterr().out
    encoder = model.encoders["cloud"]
    assert isinstance(encoder, PointTransformerEncoder)
    network = encoder.network
    generator = torch.Generator().manual_seed(3)
    cell = torch.randint(9, (90, 3), generator=generator).unique(dim=0)  # type: ignore[no-untyped-call]
    features = torch.randn(len(cell), network.in_width, generator=generator)
    cloud = GridCloud(features, cell, torch.zeros(len(cell), dtype=torch.int64), 1, cell.float())
    with torch.no_grad():
        expected = network(cloud).features.numpy()
    found = OnnxPTv3(tmp_path / "out" / "model.onnx", network)(cloud)
    np.testing.assert_allclose(found, expected, atol=1e-4)

    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["sensor"] == "cloud"
    assert about["encoder"] == TRANSFORMER
    assert [entry["name"] for entry in about["inputs"]] == [spec.name for spec in input_specs(network)]
    assert about["inputs"][0] == {"name": "features", "type": "float32", "axes": ["M0", 7]}
    assert about["outputs"] == [{"name": "out", "type": "float32", "axes": ["M1", 16]}]
    assert found.shape[1] == about["outputs"][0]["axes"][1]


def test_a_model_without_such_a_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_of({"cloud": GROUPS}).save_pretrained(tmp_path / "model")
    assert main(["export", f"checkpoint={tmp_path / 'model'}", f"output={tmp_path / 'out'}"]) == 1
    told = capsys.readouterr().err
    assert "an encoder with a Point Transformer V3" in told
    assert "PointGroupEncoder" in told
    assert "encoder=point_transformer" in told


def test_which_of_several() -> None:
    model = model_of({"left": TRANSFORMER, "right": TRANSFORMER, "other": GROUPS})
    with pytest.raises(WiringError, match="'left', 'right'"):
        backbone(model, None)
    with pytest.raises(WiringError, match="'other'"):
        backbone(model, "other")
    with pytest.raises(WiringError, match="Did you mean 'right'"):
        backbone(model, "rigth")
    right = model.encoders["right"]
    assert isinstance(right, PointTransformerEncoder)
    assert backbone(model, "right") == ("right", right.network)


class Other(Model):
    """A model without encoders of sensors."""

    sensor_names = head_names = ()  # type: ignore[assignment]

    def forward(self, batch: Batch) -> dict[str, Any]:
        return {}

    def loss(self, batch: Batch, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        return {}

    def fit(self, stats: Mapping[str, FieldStats]) -> None: ...

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return []


def test_a_model_of_another_kind() -> None:
    with pytest.raises(WiringError, match="a PerceptionModel; got Other"):
        backbone(Other(), None)


def test_what_cannot_be_exported_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["export", f"checkpoint={tmp_path / 'model'}", f"output={tmp_path / 'out'}"]
    assert main(words) == 1
    assert "no such folder" in capsys.readouterr().err
    model_of({"cloud": TRANSFORMER}).save_pretrained(tmp_path / "model")
    assert main([*words, f"file={tmp_path / 'model.pt'}"]) == 1
    assert "ends in .onnx" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(words) == 1
    assert "perceive[export]" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("model.*"))
    assert main(["export"]) == 2
    assert "checkpoint=" in capsys.readouterr().err
