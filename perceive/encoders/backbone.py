"""Any image backbone of ``transformers``: pictures in, feature map out. Imports transformers only when one is made."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sensors.errors import DataError, WiringError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# Parts that pictures -> features does not use, so that a checkpoint may lack them.
_UNUSED = ("pooler", "mask_token", "hidden_states_norms", "classifier", "position_ids", "num_batches_tracked")


class ImageBackbone(nn.Module):
    """Normalised pictures [M, 3, S, S] -> features [M, C, rows, columns].

    A backbone with a feature-pyramid interface (``AutoBackbone``: DINOv2, ResNet, ConvNeXt, Swin ...) gives its last
    stage; any other (``AutoModel``: ViT, DeiT, the picture half of CLIP or SigLIP ...) its last hidden state, whose
    class and register tokens in front are left out.

    Args:
        network: the transformers model.
        size_px: S.
        trainable: whether its weights learn.

    Raises:
        WiringError: its output is not a grid, or it does not take this size.
    """

    def __init__(self, network: PreTrainedModel, size_px: int, trainable: bool) -> None:
        super().__init__()
        self.network = network
        self._trainable = trainable
        self._patch_px = int(getattr(network.config, "patch_size", None) or 0)
        made_for = default_size(network.config, size_px)
        self._options: dict[str, bool] = {}
        if made_for != size_px and "interpolate_pos_encoding" in inspect.signature(network.forward).parameters:
            self._options["interpolate_pos_encoding"] = True
        network.requires_grad_(trainable)
        self.train(False)
        try:
            with torch.no_grad():
                probe = self(torch.zeros(1, 3, size_px, size_px))
        except (ValueError, RuntimeError) as error:
            raise WiringError(
                f"backbone {type(network).__name__}",
                f"one that takes pictures of {size_px} px",
                str(error).splitlines()[0],
                f"It was made for {made_for} px: leave image_px out.",
            ) from error
        self._channels, self._grid = int(probe.shape[1]), (int(probe.shape[2]), int(probe.shape[3]))
        if trainable:
            self._freeze_unreached(size_px)
        self.train(True)

    @property
    def channels(self) -> int:
        """C."""
        return self._channels

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the feature map."""
        return self._grid

    def train(self, mode: bool = True) -> ImageBackbone:
        """A frozen network always evaluates; batch norm always keeps its statistics, since absent frames are zeros."""
        super().train(mode)
        for part in self.network.modules():
            if not self._trainable or isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.training = False
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.set_grad_enabled(self._trainable and torch.is_grad_enabled()):
            answer = self.network(pixels, **self._options)
            maps = answer.get("feature_maps")
            features: Tensor = maps[-1] if maps is not None else answer["last_hidden_state"]
        if features.ndim == 4:
            return features
        count, side = features.shape[1], 0
        if self._patch_px:
            side = pixels.shape[-1] // self._patch_px
        if not side or side * side > count:
            side = int(count**0.5)  # a pyramid whose last hidden state is coarser than its first patches
        if side == 0 or count - side * side > 16:
            raise WiringError(
                f"backbone {type(self.network).__name__}",
                "a square grid of patch tokens after at most 16 others",
                f"{count} tokens",
                "Use another backbone.",
            )
        return features[:, count - side * side :].transpose(1, 2).reshape(len(features), -1, side, side)

    def _freeze_unreached(self, size_px: int) -> None:
        # A pooling head would otherwise sit in the optimizer without ever getting a gradient.
        self(torch.zeros(1, 3, size_px, size_px)).sum().backward()
        for parameter in self.network.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None


def load_network(source: str) -> PreTrainedModel:
    """The pretrained network in a local folder or of a hub model.

    Raises:
        DataError: nothing there, not reachable, or weights that do not fill the network.
    """
    from transformers import AutoConfig

    try:
        config = _picture_config(AutoConfig.from_pretrained(source))
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
    """The network of a saved config (:func:`network_config`) with random weights, to be filled from a checkpoint.

    Raises:
        WiringError: transformers does not know the type of model.
    """
    from transformers import AutoConfig

    arguments = dict(config)
    kind = str(arguments.pop("model_type", ""))
    try:
        whole = AutoConfig.for_model(kind, **arguments)
    except (ValueError, KeyError) as error:
        raise WiringError(
            "backbone_config", "a model_type that transformers knows", f"'{kind}'", "Install a newer transformers."
        ) from error
    network: PreTrainedModel = _class_of(whole)._from_config(whole, dtype=torch.float32)
    return network


def network_config(network: PreTrainedModel) -> dict[str, Any]:
    """Plain data from which :func:`make_network` makes the same network again, without the source folder."""
    data: dict[str, Any] = json.loads(network.config.to_json_string(use_diff=False))
    # Where it came from and with what it was written: of no use later, and a path may be private.
    for key in ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype"):
        data.pop(key, None)
    return data


def colour_statistics(source: str) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel, of colours in 0 to 1, from the source's preprocessor settings (plain JSON).

    Raises:
        DataError: the source has none.
    """
    from transformers.utils.hub import cached_file

    for name in ("preprocessor_config.json", "processor_config.json"):
        try:
            path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        except (OSError, ValueError) as error:
            raise _not_found(source, name, error) from error
        if path is None:
            continue
        data = json.loads(Path(path).read_text())
        data = data.get("image_processor", data)
        if data.get("do_normalize") is False:
            return [0.0] * 3, [1.0] * 3
        if "image_mean" in data and "image_std" in data:
            return [float(x) for x in data["image_mean"]], [float(x) for x in data["image_std"]]
    raise DataError(
        f"pretrained model '{source}'",
        "preprocessor_config.json with image_mean and image_std",
        "none",
        "Pass 'mean' and 'std' (three numbers each, for colours in 0 to 1).",
    )


def default_size(config: PretrainedConfig, otherwise: int) -> int:
    """Side in pixels of the pictures that a network was made for, or ``otherwise`` where it does not say."""
    size = getattr(config, "image_size", None)
    if isinstance(size, Iterable):
        size = next(iter(size), None)
    return int(size) if size else otherwise


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


def _picture_config(config: PretrainedConfig) -> PretrainedConfig:
    # Picture-and-text models keep the picture half's settings inside.
    inner: PretrainedConfig = getattr(config, "vision_config", config)
    return inner


def _class_of(config: PretrainedConfig) -> Any:
    # Not AutoBackbone.from_pretrained: it asks the hub even for a local folder.
    from transformers import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING

    for mapping in (MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING):
        if type(config) in mapping:
            return mapping[type(config)]
    raise ValueError(f"transformers has no model for a {type(config).__name__}")


def _not_found(source: str, wanted: str, error: Exception) -> DataError:
    lines = str(error).strip().splitlines()
    return DataError(
        f"pretrained model '{source}'",
        f"a folder with {wanted}, or the name of a model on the Hugging Face hub",
        f"{type(error).__name__}: {lines[0] if lines else 'no details'}",
        "Check the spelling. Without network: `hf download NAME --local-dir FOLDER` where there is one, copy the "
        "folder, and give its path.",
    )
