"""Names of the published model's parameters, and loading of its weights.

The names are reconstructed from how the published PTv3 (Wu et al., CVPR 2024, arXiv 2312.10035) is composed; that
composition gives the published number of parameters. They have not been checked against a published checkpoint, nor
have the outputs: whoever has one finds out when it loads, for loading is strict and names each entry that does not
fit. Equal outputs need, of the published code: convolutions with weights as spconv 2 lays them out, one cloud at a
time, no shuffling of curves, also not in its pooling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from perceive.points.ptv3.network import PointTransformerV3
from sensors.errors import DataError

# Ours to theirs; {} is one number.
_MODULES = (
    ("stem.conv", "embedding.stem.conv"),
    ("stem.norm", "embedding.stem.norm"),
    ("encoder.{}.down.project", "enc.enc{}.down.proj"),
    ("encoder.{}.down.norm", "enc.enc{}.down.norm.0"),
    ("decoder.{}.up.project", "dec.dec{}.up.proj.0"),
    ("decoder.{}.up.norm", "dec.dec{}.up.proj.1"),
    ("decoder.{}.up.skip", "dec.dec{}.up.proj_skip.0"),
    ("decoder.{}.up.skip_norm", "dec.dec{}.up.proj_skip.1"),
)
_BLOCK = (
    ("position.conv", "cpe.0"),
    ("position.linear", "cpe.1"),
    ("position.norm", "cpe.2"),
    ("attention_norm", "norm1.0"),
    ("attention.qkv", "attn.qkv"),
    ("attention.project", "attn.proj"),
    ("mlp_norm", "norm2.0"),
    ("mlp.widen", "mlp.0.fc1"),
    ("mlp.narrow", "mlp.0.fc2"),
)
_ALL = (
    *_MODULES,
    *(
        (f"{ours}.{{}}.blocks.{{}}.{own}", f"{theirs}{{}}.block{{}}.{leaf}")
        for ours, theirs in (("encoder", "enc.enc"), ("decoder", "dec.dec"))
        for own, leaf in _BLOCK
    ),
)
_PREFIXES = ("module.", "backbone.")  # of training on several devices, and of the model around the backbone
_HEADS = ("seg_head.", "cls_head.")


def to_published(name: str) -> str:
    """The published name of one of our parameters or buffers.

    Raises:
        DataError: no such name.
    """
    return _renamed(name, [(ours, theirs) for ours, theirs in _ALL], "our name")


def from_published(name: str) -> str:
    """Our name of a published parameter or buffer, without prefixes; the inverse of :func:`to_published`.

    Raises:
        DataError: no such name.
    """
    return _renamed(name, [(theirs, ours) for ours, theirs in _ALL], "a published name")


def load_published(network: PointTransformerV3, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load published weights; all or nothing.

    Args:
        network: of the published sizes; without a decoder, that of the weights is left out.
        state: name -> tensor, with or without the prefixes of a trainer.

    Returns:
        Published names that were left out: heads, and the decoder of an encoder-only network.

    Raises:
        DataError: a name is unknown, one is missing, or a shape differs.
    """
    expected = network.state_dict()
    found: dict[str, Tensor] = {}
    left_out = []
    for full, tensor in state.items():
        name = _bare(full)
        if name.startswith(_HEADS) or (name.startswith("dec.") and not len(network.decoder)):
            left_out.append(full)
            continue
        own = from_published(name)
        if own not in expected or expected[own].shape != tensor.shape:
            wanted = [*expected[own].shape] if own in expected else "nothing of this name"
            raise DataError(full, f"{wanted}", f"{[*tensor.shape]}", "Build the network with the sizes of the weights.")
        found[own] = tensor
    missing = [to_published(name) for name in expected if name not in found]
    if missing:
        raise DataError("weights", "all of the network's", f"{len(missing)} missing, first {missing[0]}", "Check them.")
    network.load_state_dict(found)
    return tuple(left_out)


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _renamed(name: str, table: list[tuple[str, str]], what: str) -> str:
    module, _, leaf = name.rpartition(".")
    for source, target in table:
        match = re.fullmatch(re.escape(source).replace(r"\{\}", "([0-9]+)"), module)
        if match:
            return f"{target.format(*match.groups())}.{leaf}"
    raise DataError("name of a parameter", what, repr(name), "Load weights of PTv3 as published with its paper.")
