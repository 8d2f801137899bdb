"""Text encoders and tokenizers of ``transformers`` by folder or hub name. Imports transformers only when asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from sensors.errors import DataError, WiringError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig, PreTrainedModel

# Parts that text -> last hidden state does not use, so that a checkpoint may lack them.
_UNUSED = ("pooler", "position_ids", "lm_head", "cls.")


def load_network(source: str) -> PreTrainedModel:
    """The text encoder in a local folder or of a hub model; of a picture-and-text model, its text half.

    Raises:
        DataError: nothing there, not reachable, no text encoder, or weights that do not fill the network.
    """
    from transformers import AutoConfig

    try:
        config = _text_config(AutoConfig.from_pretrained(source))
        with _quiet():  # its report of unused weights; missing ones are an error below
            network, info = _class_of(config).from_pretrained(
                source, config=config, output_loading_info=True, dtype=torch.float32
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _not_found(source, "config.json and weights", error) from error
    missing = [key for key in info["missing_keys"] if not any(part in key for part in _UNUSED)]
    if missing:
        raise DataError(
            f"pretrained weights in '{source}'",
            f"all weights of {type(network).__name__}",
            f"{len(missing)} missing, such as '{min(missing)}'",
            "The folder holds another model's weights or a damaged file; download it again.",
        )
    loaded: PreTrainedModel = network
    return loaded


def make_network(config: Mapping[str, Any]) -> PreTrainedModel:
    """The network of a saved config with random weights, to be filled from a checkpoint.

    Raises:
        WiringError: transformers does not know the type of model.
    """
    from transformers import AutoConfig

    arguments = dict(config)
    kind = str(arguments.pop("model_type", ""))
    try:
        whole = AutoConfig.for_model(kind, **arguments)
        network: PreTrainedModel = _class_of(whole)._from_config(whole, dtype=torch.float32)
    except (ValueError, KeyError) as error:
        raise WiringError(
            "text_config", "a model_type that transformers knows", f"'{kind}'", "Install a newer transformers."
        ) from error
    return network


def load_tokenizer(source: str) -> Tokenizer:
    """The tokenizer beside a model.

    Raises:
        DataError: there is none, or none that the ``tokenizers`` library runs.
    """
    from transformers import AutoTokenizer
    from transformers.utils.hub import cached_file

    try:
        with _quiet():
            found = AutoTokenizer.from_pretrained(source)
        names = set(type(found).vocab_files_names.values()) | {"tokenizer.json"}
        paths = [cached_file(source, name, _raise_exceptions_for_missing_entries=False) for name in sorted(names)]
        if not any(paths):  # transformers then makes one that knows no word
            raise FileNotFoundError(f"none of {sorted(names)}")
    # Whatever a damaged file makes of the many kinds of tokenizers; ``tokenizers`` itself raises bare Exception.
    except Exception as error:
        raise _not_found(source, "a tokenizer", error) from error
    backend: Tokenizer | None = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise DataError(
            f"tokenizer of '{source}'",
            "one that can be saved as a single file (tokenizer.json)",
            type(found).__name__,
            "Use a model with a fast tokenizer.",
        )
    return backend


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(40)  # error
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _text_config(config: PretrainedConfig) -> PretrainedConfig:
    # Picture-and-text models keep the text half's settings inside.
    inner: PretrainedConfig = getattr(config, "text_config", config)
    return inner


def _class_of(config: PretrainedConfig) -> Any:
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

    for mapping in (MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING):  # the first: only the encoder of a T5
        if type(config) in mapping:
            return mapping[type(config)]
    raise ValueError(f"transformers has no text encoder for a {type(config).__name__}")


def _not_found(source: str, wanted: str, error: Exception) -> DataError:
    lines = str(error).strip().splitlines()
    return DataError(
        f"pretrained model '{source}'",
        f"a folder with {wanted}, or the name of a model on the Hugging Face hub",
        f"{type(error).__name__}: {lines[0] if lines else 'no details'}",
        "Check the spelling. Without network: `hf download NAME --local-dir FOLDER` where there is one, copy the "
        "folder, and give its path.",
    )
