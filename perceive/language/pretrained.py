"""PretrainedText: tokens of a text from a pretrained encoder of ``transformers``."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from perceive.encoders.backbone import network_config
from perceive.geometry import full_precision
from perceive.language.base import Language, TextFeatures, sentences
from perceive.language.source import load_network, load_tokenizer, make_network
from sensors.errors import DataError, WiringError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LOG = logging.getLogger(__name__)
_MOST_KEPT = 1024  # texts whose tokens are remembered: 20 kB each for a sentence of ten tokens of CLIP


@final
class PretrainedText(Language):
    """The last hidden state of a text encoder: CLIP's text half (Radford et al., ICML 2021), BERT, the encoder of T5.

    RVT and PerAct read CLIP's this way, as one token of 512 numbers per piece of a word, in a row of 77. What the
    tokenizer adds (begin, end) are tokens too, so a text without a visible character, which has no valid token, is
    dealt with apart. A frozen encoder runs once for each different text, which is then remembered. The weights and the
    tokenizer are part of the state, so a saved model needs neither the folder nor the hub.

    Args:
        model: local folder or hub name of any text or picture-and-text model that ``AutoModel`` knows, with its
            tokenizer.
        tokens: L; pieces of a text beyond these are left out, which is logged.
        frozen: whether the weights stay as they are.
        text_config: settings of an encoder whose weights come from a model's own checkpoint; saving writes it.
        tokenizer_bytes: size of the tokenizer in that checkpoint; saving writes it.

    Raises:
        DataError: the pretrained model or its tokenizer cannot be found or read.
        WiringError: the model does not take so many tokens.
    """

    def __init__(
        self,
        model: str,
        tokens: int = 77,
        frozen: bool = True,
        text_config: Mapping[str, Any] | None = None,
        tokenizer_bytes: int = 0,
    ) -> None:
        super().__init__()
        self._model = model
        self._tokens = tokens
        self._frozen = frozen
        self._tokenizer: Tokenizer | None = None
        self._kept: dict[str, Tensor] = {}
        self._told = False
        if text_config is None:
            self.network = load_network(model)
            tokenizer = _limited(load_tokenizer(model), tokens)
            numbers, size = tokenizer.get_vocab().values(), int(self.network.config.vocab_size)
            if max(numbers) >= size:
                got = f"one that numbers them up to {max(numbers)}"
                fix = "The folder holds another model's tokenizer; download it again."
                raise DataError(f"tokenizer of '{model}'", f"one of at most {size} pieces", got, fix)
            packed = zlib.compress(tokenizer.to_str().encode(), 9)
            stored = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        else:
            self.network = make_network(text_config)
            stored = torch.zeros(tokenizer_bytes, dtype=torch.uint8)
        self.tokenizer_file: Tensor
        self.register_buffer("tokenizer_file", stored)
        self.register_state_dict_post_hook(_untie)  # type: ignore[no-untyped-call]  # torch's
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]
        self._width = self._probe()
        self.train(True)

    @property
    def width(self) -> int:
        return self._width

    @property
    def num_tokens(self) -> int:
        return self._tokens

    def resolved_arguments(self) -> dict[str, Any]:
        """All arguments, with what replaces the folder or hub model when this is built again."""
        return {
            "model": self._model,
            "tokens": self._tokens,
            "frozen": self._frozen,
            "text_config": network_config(self.network),
            "tokenizer_bytes": len(self.tokenizer_file),
        }

    def train(self, mode: bool = True) -> PretrainedText:
        """A frozen network always evaluates."""
        super().train(mode)
        if self._frozen:
            self.network.train(False)
        return self

    def forget(self) -> None:
        """Forget what was remembered of the texts, as is right after the weights were changed by hand."""
        self._kept.clear()
        self._tokenizer = None

    def forward(self, text: Tensor) -> TextFeatures:
        texts, which = sentences(text)
        which = which.to(self.tokenizer_file.device)
        parts = [self._remembered(one) for one in texts] if self._frozen else self._encoded(texts)
        tokens = torch.stack([nn.functional.pad(part, (0, 0, 0, self._tokens - len(part))) for part in parts])
        count = torch.tensor([len(part) for part in parts], device=which.device)
        valid = torch.arange(self._tokens, device=which.device) < count[:, None]
        return TextFeatures(tokens[which], valid[which])

    def _apply(self, fn: Any, recurse: bool = True) -> PretrainedText:
        self._kept.clear()  # of another device or precision
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's
        return self

    def _remembered(self, text: str) -> Tensor:
        """Tokens [n, E] of a text, computed on its own, so that they do not depend on its company."""
        if text not in self._kept:
            # What is kept serves every later call, so it must not be of the half precision of this one.
            with torch.no_grad(), full_precision(self.tokenizer_file.device):
                found = self._encoded([text])[0].clone()
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[text] = found
        return self._kept[text]

    def _encoded(self, texts: Sequence[str]) -> list[Tensor]:
        """Tokens [n, E] of each text, n = 0 where it says nothing."""
        pieces = [self._pieces(text) for text in texts]
        longest = max(map(len, pieces), default=0) or 1
        device = self.tokenizer_file.device
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in pieces], device=device)
        there = torch.tensor([[i < len(row) for i in range(longest)] for row in pieces], device=device)
        spoken = there[:, 0]  # an attention over nothing at all may be NaN, so the others are left out
        if not spoken.any():
            return [torch.zeros(0, self._width, device=device, dtype=self.network.dtype)] * len(pieces)
        hidden: Tensor = self.network(input_ids=ids[spoken], attention_mask=there[spoken].long())["last_hidden_state"]
        rows = iter(hidden)
        return [next(rows)[: len(row)] if row else hidden[0, :0] for row in pieces]

    def _pieces(self, text: str) -> list[int]:
        """Numbers of a text's pieces."""
        if not text.strip():
            return []
        if self._tokenizer is None:
            self._tokenizer = self._unpacked()
        found = self._tokenizer.encode(text)
        if found.overflowing and not self._told:
            self._told = True
            _LOG.warning("PretrainedText: '%s' is longer than %d tokens; the rest is left out.", text, self._tokens)
        return list(found.ids)

    def _unpacked(self) -> Tokenizer:
        from tokenizers import Tokenizer

        try:
            text = zlib.decompress(self.tokenizer_file.cpu().numpy().tobytes()).decode()
        except zlib.error:
            raise WiringError(
                "PretrainedText", "the tokenizer in its state", "none", "Load the weights that it was saved with first."
            ) from None
        return _limited(Tokenizer.from_str(text), self._tokens)

    def _probe(self) -> int:
        """The width; freezes what the last hidden state does not depend on, if the rest learns."""
        self.network.requires_grad_(not self._frozen)
        self.network.train(False)
        number = min(2, int(self.network.config.vocab_size) - 1)  # 0 and 1 often mean padding
        ids = torch.full((1, self._tokens), number)
        try:
            with torch.set_grad_enabled(not self._frozen):
                hidden: Tensor = self.network(input_ids=ids, attention_mask=torch.ones_like(ids))["last_hidden_state"]
        except (IndexError, ValueError, RuntimeError) as error:
            raise WiringError(
                f"text encoder {type(self.network).__name__}",
                f"one that takes {self._tokens} tokens",
                str(error).splitlines()[0],
                "Make 'tokens' smaller.",
            ) from error
        if not self._frozen:
            # A pooling head would otherwise sit in the optimizer without ever getting a gradient.
            parameters = list(self.network.parameters())
            gradients = torch.autograd.grad(hidden.sum(), parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.requires_grad_(gradient is not None)
        return int(hidden.shape[-1])


def _limited(tokenizer: Tokenizer, tokens: int) -> Tokenizer:
    """The tokenizer, set to give ``tokens`` pieces at most, and no padding.

    Raises:
        WiringError: nothing of the text would fit.
    """
    added = tokenizer.num_special_tokens_to_add(False)
    if tokens <= added:
        raise WiringError(
            "PretrainedText.tokens", f"more than the {added} that the tokenizer adds", f"{tokens}", "Use more."
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens)
    return tokenizer


def _untie(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
    # T5 has its word table under two names; a file of safetensors refuses two names for one memory.
    seen = set()
    for name, value in state.items():
        if name.startswith(prefix) and value.numel():
            place = value.data_ptr()
            state[name] = value.clone() if place in seen else value
            seen.add(place)


def _forget(module: nn.Module, _: Any) -> None:
    assert isinstance(module, PretrainedText), "registered by itself"
    module.forget()
