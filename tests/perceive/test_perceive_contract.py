"""Every file of conf/encoder, conf/trunk and conf/head builds and keeps the contract of its kind, unasked.

An encoder's YAML does not say which sensor it is for: it is tried on every sensor of conf/sensor and on crops, and must
keep the contract on each that it accepts (one at least).
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from perceive.batch import BatchStream
from perceive.build import build, resolve
from perceive.encoders.base import Encoder
from perceive.heads.base import Head
from perceive.model_base import Model
from perceive.trunk import BaseTrunk, Trunk
from sensors.errors import WiringError
from tests.contracts import build_sensor, check_config, config_files, load_composed, load_plain
from tests.contracts_torch import check_encoder, check_head, check_padding, check_trunk, spec_if_taken
from tests.perceive.crop_streams import CROPS
from tests.perceive.scene import fake_batch, fake_stats
from tests.perceive.text_models import MOST, save_text_model

WIDTH = 32


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Stands in for the hub model that a YAML names."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**size, image_size=42, patch_size=14)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return str(folder)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Likewise for texts."""
    return str(save_text_model("clip", tmp_path_factory.mktemp("text_model")))


def streams(space: Any, history: int) -> tuple[BatchStream, BatchStream]:
    drawn = (fake_batch(np.random.default_rng(seed), 3, {"it": space}, {"it": history}) for seed in (0, 1))
    first, second = (batch.stream("it") for batch in drawn)
    return first, second


@pytest.mark.parametrize("history", [1, 2])
@pytest.mark.parametrize("path", config_files("encoder"), ids=lambda path: path.stem)
def test_encoder_contract(path: Path, history: int, backbone: str, text_model: str) -> None:
    config = load_plain(path)
    check_config(config)
    if "backbone" in config:
        config["backbone"] = backbone
    if "model" in config.get("language", {}):
        config["language"] |= {"model": text_model, "tokens": MOST}
    accepted = set()
    # What is cut out of pictures for a question is a stream as well, though no sensor gives it.
    for space in [*(build_sensor(sensor_path).space for sensor_path in config_files("sensor")), *CROPS.values()]:
        # LiDARs differ in how many points they give: one is enough here.
        signature = str(sorted(space.spaces) if "xyz_m" in space.spaces else space)
        if signature in accepted:
            continue
        torch.manual_seed(0)
        try:
            encoder = build(config, space=space, history=history, width=WIDTH)
        except WiringError:
            continue
        assert isinstance(encoder, Encoder)
        accepted.add(signature)
        stats = {key.removeprefix("it/"): value for key, value in fake_stats({"it": space}).items()}
        check_encoder(encoder, *streams(space, history), stats)
    assert accepted, f"{path.name} fits no sensor of conf/sensor and no crop"


def test_encoders_refuse_what_they_cannot_read() -> None:
    """The loop above skips by WiringError: there must be something that it skips."""
    joints = build_sensor(next(p for p in config_files("sensor") if p.stem == "joints")).space
    for path in config_files("encoder"):
        if path.stem in (
            "rgbd_patches", "text_table", "touch_patches", "wrench",
            "gel_image", "force_field", "pressure_cells", "wrench_history", "touch_codes",
            "point_groups", "point_voxels", "point_sets", "point_snake",
        ):  # fmt: skip
            with pytest.raises(WiringError):
                build(load_plain(path), space=joints, history=1, width=WIDTH)


@pytest.mark.parametrize("path", config_files("trunk"), ids=lambda path: path.stem)
def test_trunk_contract(path: Path) -> None:
    config = load_plain(path)
    check_config(config)
    torch.manual_seed(0)
    width, count = 64, 9
    trunk = build(config, width=width, num_tokens=count)
    assert isinstance(trunk, BaseTrunk)
    check_trunk(trunk, width, count)
    if isinstance(trunk, Trunk) and config.get("position", "metric") == "metric":
        check_padding(build(config, width=width, num_tokens=count), width, count)


@pytest.mark.parametrize("path", config_files("head"), ids=lambda path: path.stem)
def test_head_contract(path: Path) -> None:
    config = load_plain(path)
    check_config(config)
    torch.manual_seed(0)
    parameters = inspect.signature(resolve(config["_target_"])).parameters
    head = build(config, width=WIDTH, **spec_if_taken(parameters))
    assert isinstance(head, Head)
    check_head(head, WIDTH)


@pytest.mark.parametrize("path", config_files("model"), ids=lambda path: path.stem)
def test_every_model_names_classes_and_their_arguments(path: Path) -> None:
    config = load_composed("model", path.stem)
    if "_target_" in config:  # a model of another kind than PerceptionModel
        assert issubclass(resolve(config["_target_"]), Model)
        check_config(config)
        for stage in config.get("stages", ()):
            check_config(stage)
        return
    for part in (*config["encoders"].values(), config["trunk"], *config["heads"].values()):
        check_config(part)
