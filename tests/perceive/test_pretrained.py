"""Pretrained backbones: tiny random ones are saved to disk and read back as a user's would be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTModel,
)

from perceive.batch import BatchStream
from perceive.encoders.pretrained import PretrainedImageEncoder
from perceive.encoders.rgbd import RgbdPatchEncoder
from perceive.model import PerceptionModel
from sensors.errors import DataError, WiringError
from tests.perceive.scene import SPACES, SPEC, camera_space, config, fake_batch, fake_target

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def vit() -> PreTrainedModel:
    return ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=8))


def dinov2() -> PreTrainedModel:
    slim = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    return Dinov2Model(Dinov2Config(**slim, mlp_ratio=2, image_size=42, patch_size=14))


def resnet() -> PreTrainedModel:
    # Saved with its classifier, as published ones are.
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    )


def convnext() -> PreTrainedModel:
    return ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32))


def clip() -> PreTrainedModel:
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8}
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


MAKERS: dict[str, tuple[Callable[[], PreTrainedModel], int]] = {  # and tokens for a 24x24 picture
    "vit": (vit, 16),
    "dinov2": (dinov2, 9),
    "resnet": (resnet, 9),
    "convnext": (convnext, 16),
    "clip": (clip, 4),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    out = {}
    for name, (make, _) in MAKERS.items():
        out[name] = tmp_path_factory.mktemp(name)
        make().save_pretrained(out[name])
        settings = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "do_normalize": True}
        (out[name] / "preprocessor_config.json").write_text(json.dumps(settings))
    return out


def encoder(folder: Path, depth: bool = True, **changes: Any) -> PretrainedImageEncoder:
    torch.manual_seed(1)
    return PretrainedImageEncoder(camera_space(24, 24, depth), 1, 32, backbone=str(folder), **changes)


def stream(seed: int = 0, depth: bool = True) -> BatchStream:
    return fake_batch(np.random.default_rng(seed), 2, {"it": camera_space(24, 24, depth)}, {"it": 1}).stream("it")


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("depth", [True, False])
def test_every_kind_of_backbone_gives_a_grid_of_tokens(folders: dict[str, Path], kind: str, depth: bool) -> None:
    part = encoder(folders[kind], depth)
    tokens = part(stream(depth=depth))
    assert part.num_tokens == tokens.features.shape[1] == MAKERS[kind][1]
    assert bool(tokens.placed.all()) is depth
    assert torch.isfinite(tokens.features).all()
    tokens.features.sum().backward()
    assert all(p.grad is None for p in part.backbone.parameters())
    assert part.project[1].weight.grad is not None


@pytest.mark.parametrize("kind", MAKERS)
def test_weights_are_those_on_disk(folders: dict[str, Path], kind: str) -> None:
    one = encoder(folders[kind])
    torch.manual_seed(7)
    two = PretrainedImageEncoder(camera_space(), 1, 32, backbone=str(folders[kind]))
    for name, value in one.backbone.state_dict().items():
        assert torch.equal(value, two.backbone.state_dict()[name])


def test_features_are_those_of_transformers(folders: dict[str, Path]) -> None:
    part, data = encoder(folders["vit"]), stream()
    whole = ViTModel.from_pretrained(folders["vit"]).eval()
    colours = data.data["rgb"][:, 0].permute(0, 3, 1, 2).float() / 255
    pixels = (colours - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    pixels = torch.nn.functional.interpolate(pixels, (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        hidden = whole(pixels).last_hidden_state[:, 1:]  # without the class token
        maps = part.backbone(pixels)
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), hidden)
    assert encoder(folders["vit"], image_px=24).num_tokens == 9  # another size of picture: positions are interpolated


def test_tokens_sit_at_the_mean_surface_point_of_their_cell(folders: dict[str, Path]) -> None:
    data = stream()
    # A ResNet of 24 px gives 3 x 3 cells of 8 px, as patches of 8 px do.
    tokens = encoder(folders["resnet"])(data)
    patches = RgbdPatchEncoder(camera_space(24, 24), 1, 32, patch_px=8, cell_px=4)(data)
    torch.testing.assert_close(tokens.position_m, patches.position_m, rtol=0, atol=1e-5)
    fewer = encoder(folders["resnet"], cells=1)
    assert fewer.num_tokens == 1


def test_a_cell_without_depth_carries_its_ray(folders: dict[str, Path]) -> None:
    data = stream()
    depth = data.data["depth_m"].clone()
    depth[..., :8, :8] = 0
    tokens = encoder(folders["resnet"])(BatchStream({**data.data, "depth_m": depth}, data.age_s, data.valid))
    assert tokens.placed[0].tolist() == [False] + [True] * 8


@pytest.mark.parametrize("trainable", [False, True])
def test_a_saved_model_outlives_the_pretrained_folder(
    folders: dict[str, Path], tmp_path: Path, trainable: bool
) -> None:
    source = tmp_path / "source"
    shutil.copytree(folders["dinov2"], source)
    front = {"_target_": f"{PretrainedImageEncoder.__module__}.PretrainedImageEncoder", "backbone": str(source)}
    whole = config()
    whole["encoders"] = whole["encoders"] | {"front": front | {"trainable": trainable}}
    torch.manual_seed(0)
    model = PerceptionModel.from_config(whole, SPACES, dict.fromkeys(SPACES, 1), SPEC).eval()
    batch = fake_batch(np.random.default_rng(0))
    expected = model(batch)["action"].values
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(source)
    loaded = PerceptionModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded(batch)["action"].values, expected)
    again = PerceptionModel.from_pretrained(loaded.save_pretrained(tmp_path / "again"))
    assert torch.equal(again(batch)["action"].values, expected)
    learns = [p.requires_grad for p in loaded.encoders["front"].backbone.parameters()]
    assert any(learns) is trainable


def test_fine_tuning_changes_the_backbone_and_freezing_does_not(folders: dict[str, Path]) -> None:
    for trainable in (True, False):
        whole = config()
        target = f"{PretrainedImageEncoder.__module__}.PretrainedImageEncoder"
        front = {"_target_": target, "backbone": str(folders["resnet"]), "trainable": trainable}
        whole["encoders"] = whole["encoders"] | {"front": front}
        torch.manual_seed(0)
        model = PerceptionModel.from_config(whole, SPACES, dict.fromkeys(SPACES, 1), SPEC).train()
        before = {name: value.clone() for name, value in model.encoders["front"].backbone.state_dict().items()}
        optimizer = torch.optim.AdamW(model.parameter_groups(0.01), lr=1e-2)
        rng = np.random.default_rng(0)
        loss = model.loss(fake_batch(rng), {"action": fake_target(rng)})["loss"]
        loss.backward()
        optimizer.step()
        after = model.encoders["front"].backbone.state_dict()
        different = {name for name, value in after.items() if not torch.equal(value, before[name])}
        assert bool(different) is trainable
        # Absent frames are zeros: they must not enter batch statistics.
        assert not any("running" in name or "num_batches" in name for name in different)


def test_an_absent_frame_changes_nothing(folders: dict[str, Path]) -> None:
    data = stream()
    gone = torch.tensor([[True], [False]])
    part = encoder(folders["convnext"])
    honest = part(BatchStream(data.data, data.age_s, gone)).cleaned()
    spoiled = {name: value.clone() for name, value in data.data.items()}
    for name, value in spoiled.items():
        value[1] = 255 if name == "rgb" else float("nan")
    noisy = part(BatchStream(spoiled, data.age_s, gone)).cleaned()
    assert torch.equal(noisy.features, honest.features)
    assert torch.equal(noisy.position_m, honest.position_m)


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere") as caught:
        encoder(tmp_path / "nowhere")
    assert "hf download" in caught.value.fix


def test_a_hub_name_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="nobody/nothing-of-this-name") as caught:
        encoder(Path("nobody/nothing-of-this-name"))
    assert "hf download" in caught.value.fix


def test_damaged_weights_and_missing_statistics_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folders["vit"], broken)
    (broken / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match="image_mean"):
        encoder(broken)
    assert encoder(broken, mean=[0, 0, 0], std=[1, 1, 1]).num_tokens == 16
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(DataError, match="broken"):
        encoder(broken, mean=[0, 0, 0], std=[1, 1, 1])


def test_weights_of_another_model_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(folders["vit"], mixed)
    shutil.copy(folders["convnext"] / "model.safetensors", mixed)
    with pytest.raises(DataError, match="missing"):
        encoder(mixed)


def test_a_size_that_the_backbone_refuses_is_a_wiring_error(folders: dict[str, Path]) -> None:
    with pytest.raises(WiringError, match="32 px"):
        encoder(folders["vit"], image_px=4)


def test_a_sensor_without_colour_is_a_wiring_error(folders: dict[str, Path]) -> None:
    with pytest.raises(WiringError, match="rgb"):
        PretrainedImageEncoder(SPACES["joints"], 1, 32, backbone=str(folders["vit"]))
