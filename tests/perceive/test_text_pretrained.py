"""Text encoders of transformers: what is answered is what they compute, and a saved model needs nobody."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, BertModel, CLIPModel, CLIPTextModel, T5EncoderModel

from perceive.build import build
from perceive.language.pretrained import PretrainedText
from sensors.errors import DataError, WiringError
from tests.perceive.text_models import (
    KINDS,
    MOST,
    RED_ON_BLUE,
    assert_same,
    clip_tokenizer,
    save_text_model,
    text,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_text_model(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_transformers(folders: dict[str, Path], kind: str) -> None:
    said = ["put the red block on the blue block", "red"]
    found = PretrainedText(str(folders[kind]), tokens=MOST)(text(*said))
    kinds = {"clip": CLIPTextModel, "clip_with_pictures": CLIPModel, "bert": BertModel}
    whole = kinds.get(kind, T5EncoderModel).from_pretrained(folders[kind]).eval()
    inner = whole.text_model if kind == "clip_with_pictures" else whole
    coded = AutoTokenizer.from_pretrained(folders[kind])(said, padding="max_length", max_length=MOST)
    with torch.no_grad():
        hidden = inner(torch.tensor(coded["input_ids"]), torch.tensor(coded["attention_mask"])).last_hidden_state
    there = torch.tensor(coded["attention_mask"]).bool()
    assert torch.equal(found.valid, there)
    torch.testing.assert_close(found.tokens[there], hidden[there], rtol=0, atol=1e-5)


def test_what_is_remembered_is_what_is_computed(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    part = PretrainedText(str(folders["clip"]), tokens=MOST)
    first = part(text(RED_ON_BLUE, "red", RED_ON_BLUE))
    calls: list[int] = []
    part.network.register_forward_hook(lambda *_: calls.append(1))
    again = part(text("red", RED_ON_BLUE, "red"))
    assert not calls, "a remembered text was computed again"
    assert torch.equal(again.tokens[[1, 0]], first.tokens[:2])
    part.forget()
    assert_same(part(text("red", RED_ON_BLUE, "red")), again)
    assert len(calls) == 2, "once for each text"


def test_remembered_tokens_serve_training_after_acting(folders: dict[str, Path]) -> None:
    part = PretrainedText(str(folders["bert"]), tokens=12)
    learns = nn.Linear(part.width, 2)
    with torch.inference_mode():
        part(text("red"))
    with torch.autocast("cpu", torch.bfloat16):
        part(text("blue"))
    found = part(text("red", "blue")).tokens
    assert found.dtype == torch.float32
    learns(found).sum().backward()
    assert_same(part(text("blue")), PretrainedText(str(folders["bert"]), tokens=12)(text("blue")))


def test_other_weights_and_precision_are_not_answered_from_memory(folders: dict[str, Path]) -> None:
    one, other = (PretrainedText(str(folders[kind]), tokens=12) for kind in ("bert", "bert"))
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.add_(0.1)
    before = one(text("red")).tokens
    one.load_state_dict(other.state_dict())
    after = one(text("red")).tokens
    assert not torch.equal(after, before)
    assert torch.equal(after, other(text("red")).tokens)
    assert one.double()(text("red")).tokens.dtype == torch.float64


def test_frozen_weights_stay_and_others_learn(folders: dict[str, Path]) -> None:
    frozen = PretrainedText(str(folders["bert"]), tokens=12).train()
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not frozen.network.training
    assert not frozen(text("red")).tokens.requires_grad
    for kind in ("bert", "clip", "t5"):
        free = PretrainedText(str(folders[kind]), tokens=MOST, frozen=False).train()
        assert free.network.training
        found = free(text(RED_ON_BLUE, ""))
        (found.tokens * torch.randn(MOST, free.width)).sum().backward()
        for name, parameter in free.named_parameters():
            assert (parameter.grad is not None) is parameter.requires_grad, name
            assert parameter.requires_grad is ("pooler" not in name), name
            assert parameter.grad is None or torch.isfinite(parameter.grad).all()
        free(text("", "")).tokens.sum()


def test_a_trainable_one_answers_from_its_present_weights(folders: dict[str, Path]) -> None:
    free = PretrainedText(str(folders["clip"]), tokens=MOST, frozen=False).eval()
    before = free(text("red")).tokens.detach()
    torch.testing.assert_close(before, PretrainedText(str(folders["clip"]), tokens=MOST)(text("red")).tokens)
    with torch.no_grad():
        free.network.final_layer_norm.bias.add_(1.0)
    torch.testing.assert_close(free(text("red")).tokens[0, 0], before[0, 0] + 1.0)


def test_a_copy_in_another_process_is_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    part = PretrainedText(str(folders["clip"]), tokens=MOST)
    expected = part(text(RED_ON_BLUE))
    assert_same(copy.deepcopy(part)(text(RED_ON_BLUE)), expected)
    torch.save(part, tmp_path / "part.pt")
    assert_same(torch.load(tmp_path / "part.pt", weights_only=False)(text(RED_ON_BLUE)), expected)


def test_missing_damaged_and_unfit_models_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere") as caught:
        PretrainedText(str(tmp_path / "nowhere"))
    assert "hf download" in caught.value.fix
    speechless = tmp_path / "speechless"
    shutil.copytree(folders["bert"], speechless)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (speechless / name).unlink()
    with pytest.raises(DataError, match=r"speechless.*tokenizer"):
        PretrainedText(str(speechless), tokens=12)
    stranger = tmp_path / "stranger"
    shutil.copytree(folders["bert"], stranger)
    clip_tokenizer().save_pretrained(stranger)
    with pytest.raises(DataError, match="at most 12 pieces"):
        PretrainedText(str(stranger), tokens=12)
    mixed = tmp_path / "mixed"
    shutil.copytree(folders["clip"], mixed)
    shutil.copy(folders["bert"] / "model.safetensors", mixed)
    with pytest.raises(DataError, match="missing"):
        PretrainedText(str(mixed), tokens=12)
    for kind in ("clip", "bert"):
        with pytest.raises(WiringError, match=f"{MOST + 1} tokens"):
            PretrainedText(str(folders[kind]), tokens=MOST + 1)
    with pytest.raises(WiringError, match="more than the 2"):
        PretrainedText(str(folders["bert"]), tokens=2)
    plain = PretrainedText(str(folders["bert"]), tokens=12).config()
    with pytest.raises(WiringError, match="tokenizer in its state"):
        build(plain)(text("red"))
    with pytest.raises(WiringError, match="no-such-model"):
        build(plain | {"text_config": {"model_type": "no-such-model"}})


def test_a_hub_name_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="nobody/nothing-of-this-name") as caught:
        PretrainedText("nobody/nothing-of-this-name")
    assert "hf download" in caught.value.fix
