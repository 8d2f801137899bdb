"""Texts as tensors, and small text encoders with random weights, saved to disk as published ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from perceive.language.base import TextFeatures
from sensors.instruction import to_bytes

LENGTH = 96  # bytes of a text
RED_ON_BLUE, BLUE_ON_RED = "put the red block on the blue block", "put the blue block on the red block"
MOST = 60  # tokens that they take
KINDS = ("clip", "clip_with_pictures", "bert", "t5", "t5_whole")
SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def text(*said: str) -> Tensor:
    """uint8 [B, bytes]."""
    return torch.from_numpy(np.stack([to_bytes(one, LENGTH) for one in said]))


def assert_same(ours: TextFeatures, theirs: TextFeatures) -> None:
    """Bit by bit."""
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.valid, theirs.valid)


def save_text_model(kind: str, folder: Path) -> Path:
    """Write a model of a kind and its tokenizer into a folder."""
    torch.manual_seed(0)
    _network(kind).save_pretrained(folder)
    (clip_tokenizer() if kind.startswith("clip") else bert_tokenizer()).save_pretrained(folder)
    return folder


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own scheme, of single letters: every byte, at a word's end and elsewhere."""
    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])


def bert_tokenizer() -> BertTokenizer:
    """Twelve pieces of words."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "block", "on", "the", "put", "##s"]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})


def _network(kind: str) -> PreTrainedModel:
    clip: dict[str, Any] = {**SMALL, "vocab_size": 514, "max_position_embeddings": MOST}
    clip |= {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    t5 = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=20)
    if kind == "clip":
        return CLIPTextModel(CLIPTextConfig(**clip))
    if kind == "clip_with_pictures":
        vision = {**SMALL, "image_size": 32, "patch_size": 16}
        return CLIPModel(CLIPConfig(text_config=clip, vision_config=vision, projection_dim=8))
    if kind == "bert":
        return BertModel(BertConfig(**SMALL, vocab_size=12, max_position_embeddings=MOST))
    return T5EncoderModel(t5) if kind == "t5" else T5ForConditionalGeneration(t5)
