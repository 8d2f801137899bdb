"""PTv3 as an ONNX file with any number of points.

Wu et al., "Point Transformer V3: Simpler, Faster, Stronger", CVPR 2024, arXiv 2312.10035. The graph holds the weights
and the arithmetic; index maps of the cloud at hand are inputs (:func:`perceive.export.ptv3_inputs.prepare`), so it
needs no sorting, no hash table and no operator of its own, and every size in it that comes from the cloud may vary.

The graph is made by tracing: nothing in it branches on data, and torch's newer exporter, which gives the same results,
takes minutes to reason about so many sizes.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perceive.export.ptv3_inputs import InputSpec, input_specs, prepare
from perceive.points.ptv3.blocks import Block, PatchAttention
from perceive.points.ptv3.levels import GridCloud
from perceive.points.ptv3.network import DecoderStage, EncoderStage, PointTransformerV3, Stem
from perceive.points.ptv3.pooling import GridPool, GridUnpool
from perceive.points.sparse_conv import SubmanifoldConv3d
from sensors.errors import DataError, SpecError, WiringError

OPSET = 18
OUTPUT = "out"
_EXAMPLE_CELLS = 400
_HIDDEN = -1e9  # of places that are no keys: finite, since every patch has at least one key


@final
class PTv3Graph(nn.Module):
    """The same arithmetic as the network's in evaluation, on index maps instead of :class:`Levels`.

    Args:
        network: whose weights are read; not copied.
    """

    def __init__(self, network: PointTransformerV3) -> None:
        super().__init__()
        self.network = network
        self._names = [spec.name for spec in input_specs(network)]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Features [M0, D] of the given cells; of an encoder alone, those of the coarsest level's cells."""
        given = dict(zip(self._names, inputs, strict=True))
        network = self.network
        assert isinstance(network.stem, Stem)
        features = given["features"].index_select(0, given["first"])
        stem = network.stem
        features = nn.functional.gelu(stem.norm(_conv(stem.conv, features, given["stem"])))
        curves = len(network.curves)
        skips = []
        for number, stage in enumerate(network.encoder):
            assert isinstance(stage, EncoderStage)
            if stage.down is not None:
                features = _pool(stage.down, features, given[f"children{number}"])
            features = _blocks(stage.blocks, features, given, number, curves)
            skips.append(features)
        if not len(network.decoder):
            return features
        for number in range(len(network.decoder) - 1, -1, -1):
            stage = network.decoder[number]
            assert isinstance(stage, DecoderStage)
            features = _unpool(stage.up, features, skips[number], given[f"parent{number + 1}"])
            features = _blocks(stage.blocks, features, given, number, curves)
        return features.index_select(0, given["row"])


def export_ptv3(network: PointTransformerV3, path: str | Path, example: GridCloud | None = None) -> Path:
    """Write the network as ONNX (operator set 18), checked against itself before it gets its name.

    Args:
        network: on the CPU, in evaluation and single precision.
        path: ends in ``.onnx``.
        example: a cloud to trace and check with; None = one of random cells. Any other size works as well.

    Raises:
        WiringError: the extra ``export`` is not installed.
        SpecError: a network in training, or not in single precision on the CPU; an example that does not fit; a path
            of another kind.
        DataError: the written graph does not compute what the network does.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise SpecError("export_ptv3.path", "a file ending in .onnx", str(path), "Rename it.")
    if any(value.dtype != torch.float32 or value.device.type != "cpu" for value in network.parameters()):
        raise SpecError("export_ptv3.network", "float32 on the CPU", "other weights", "Call network.float().cpu().")
    onnx = _load("onnx")
    runtime = _load("onnxruntime")
    if example is None:
        example = _example(network)
    inputs = prepare(network, example)
    specs = input_specs(network)
    graph = PTv3Graph(network).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is no longer developed, and about constants of the trace
        torch.onnx.export(
            graph,
            tuple(inputs.values()),
            str(part),
            input_names=[spec.name for spec in specs],
            output_names=[OUTPUT],
            dynamic_axes={
                spec.name: {place: axis for place, axis in enumerate(spec.axes) if isinstance(axis, str)}
                for spec in specs
            },
            dynamo=False,
            opset_version=OPSET,
        )
    model = onnx.load(str(part))
    entry = model.metadata_props.add()
    entry.key, entry.value = "perceive", json.dumps({"network": "PointTransformerV3", "patch": network.patch})
    onnx.save(model, str(part))
    session = runtime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
    # Of a second size too: what a trace has taken for a constant shows there.
    for cloud in (example, _part_of(example)):
        with torch.no_grad():
            expected = network(cloud).features.numpy()
        found = session.run(None, {name: value.numpy() for name, value in prepare(network, cloud).items()})[0]
        gap = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
        if not gap <= 1e-4:
            part.unlink()
            raise DataError(
                str(path), "a graph within 1e-4 of the network", f"{gap:.2g}", "Try other versions of onnx."
            )
    part.replace(path)
    return path


@final
class OnnxPTv3:
    """An exported network in ONNX Runtime.

    Args:
        path: that :func:`export_ptv3` wrote.
        network: of the same sizes, for the index maps; its weights do not count.
        providers: of ONNX Runtime, e.g. ``("CUDAExecutionProvider", "CPUExecutionProvider")``.

    Raises:
        WiringError: the extra ``export`` is not installed.
        DataError: the file is missing, damaged, or of a network of other sizes.
    """

    def __init__(
        self, path: str | Path, network: PointTransformerV3, providers: tuple[str, ...] = ("CPUExecutionProvider",)
    ) -> None:
        runtime = _load("onnxruntime")
        self._network = network
        self._specs = input_specs(network)
        if not Path(path).is_file():
            raise DataError(str(path), "an ONNX file", "none", "Write one with export_ptv3.")
        try:
            self._session = runtime.InferenceSession(str(path), providers=list(providers))
        except Exception as error:  # its own error types are no common class
            raise DataError(str(path), "a graph that loads", str(error), "Export it again.") from error
        wanted = {spec.name for spec in self._specs}
        got = {value.name for value in self._session.get_inputs()}
        if wanted != got:
            odd = sorted(wanted ^ got)[:5]
            raise DataError(str(path), "the inputs of this network", f"others: {odd}", "Use the network's own file.")

    def __call__(self, cloud: GridCloud) -> NDArray[np.float32]:
        """Features of the given cells, in their order, float32 [M, D].

        Raises:
            SpecError: a cloud that does not fit; see :func:`perceive.export.ptv3_inputs.prepare`.
        """
        return self.run({name: value.cpu().numpy() for name, value in prepare(self._network, cloud).items()})

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The same on prepared inputs.

        Raises:
            SpecError: one is missing or unknown, of another type or shape, or an index is out of its range.
        """
        check_inputs(self._specs, inputs)
        out: NDArray[np.float32] = self._session.run(None, dict(inputs))[0]
        return out


def check_inputs(specs: tuple[InputSpec, ...], inputs: Mapping[str, NDArray[Any]]) -> None:
    """Whether arrays are what a graph reads; a wrong index would be undefined there.

    Raises:
        SpecError: one is missing or unknown, of another type or shape, or an index is out of its range.
    """
    wanted = {spec.name for spec in specs}
    if set(inputs) != wanted:
        raise SpecError("inputs", f"{len(wanted)} by name", f"not both: {sorted(set(inputs) ^ wanted)[:5]}", "Prepare.")
    sizes: dict[str, int] = {}
    for spec in specs:
        value = inputs[spec.name]
        kind = str(spec.kind).removeprefix("torch.")
        known = [sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in spec.axes]
        fits = value.ndim == len(known) and all(
            isinstance(size, str) or size == got for size, got in zip(known, value.shape, strict=True)
        )
        if value.dtype.name != kind or not fits or not value.size:
            raise SpecError(f"input {spec.name}", f"{kind} {known}", f"{value.dtype} {[*value.shape]}", "Prepare it.")
        sizes |= {axis: int(got) for axis, got in zip(spec.axes, value.shape, strict=True) if isinstance(axis, str)}
    for spec in specs:
        if spec.kind != torch.int64:
            continue
        value, limit = inputs[spec.name], _limit(spec.name, sizes)
        if int(value.min()) < 0 or int(value.max()) >= limit:
            raise SpecError(f"input {spec.name}", f"0 to {limit - 1}", f"{value.min()} to {value.max()}", "Prepare it.")


def _limit(name: str, sizes: Mapping[str, int]) -> int:
    """One more than the largest index."""
    if name in ("first", "row"):
        return sizes["M0"]
    if name == "stem":
        return sizes["M0"] + 1
    what, level = name.rstrip("0123456789_"), int("".join(c for c in name.split("_")[0] if c.isdigit()))
    return {
        "neighbours": sizes[f"M{level}"] + 1,
        "parent": sizes[f"M{level}"],
        "children": sizes.get(f"M{level - 1}", 0),
        "patch": sizes[f"M{level}"],
        "place": sizes.get(f"S{level}", 0) * sizes.get(f"L{level}", 0),
    }[what]


def _conv(conv: SubmanifoldConv3d, features: Tensor, table: Tensor) -> Tensor:
    """The convolution as one product, of what stands under each place of the kernel; zero where nothing does."""
    padded = torch.cat([features, torch.zeros_like(features[:1])])
    # [N, k^3 * C]
    return nn.functional.linear(padded[table].flatten(1), conv.weight.flatten(1), conv.bias)


def _pool(pool: GridPool, features: Tensor, children: Tensor) -> Tensor:
    return nn.functional.gelu(pool.norm(pool.project(features)[children].amax(1)))


def _unpool(unpool: GridUnpool, features: Tensor, skip: Tensor, parent: Tensor) -> Tensor:
    up = nn.functional.gelu(unpool.norm(unpool.project(features)))
    return nn.functional.gelu(unpool.skip_norm(unpool.skip(skip))) + up.index_select(0, parent)


def _blocks(blocks: nn.ModuleList, features: Tensor, given: Mapping[str, Tensor], level: int, curves: int) -> Tensor:
    for number, block in enumerate(blocks):
        assert isinstance(block, Block)
        curve = number % curves
        position = block.position
        told = position.norm(position.linear(_conv(position.conv, features, given[f"neighbours{level}"])))
        features = features + told
        attended = _attend(
            block.attention,
            block.attention_norm(features),
            given[f"patch{level}_{curve}"],
            given[f"place{level}_{curve}"],
            given[f"key{level}"],
        )
        features = features + attended
        features = features + block.mlp(block.mlp_norm(features))
    return features


def _attend(attention: PatchAttention, features: Tensor, patch: Tensor, place: Tensor, key: Tensor) -> Tensor:
    each = features.shape[1] // attention.heads
    taken = attention.qkv(features).unflatten(1, (3, attention.heads, each))[patch]  # [S, L, 3, H, C / H]
    query, keys, values = taken.permute(2, 0, 3, 1, 4).unbind(0)
    logits = (query * each**-0.5) @ keys.transpose(-1, -2)
    share = torch.where(key[:, None, None, :], logits, _HIDDEN).softmax(-1)
    out = (share @ values).transpose(1, 2).flatten(2).flatten(0, 1)
    projected: Tensor = attention.project(out.index_select(0, place))
    return projected


def _example(network: PointTransformerV3) -> GridCloud:
    """Two clouds of random cells, on a grid that every level still has several of."""
    side = 4 << len(network.encoder)
    generator = torch.Generator().manual_seed(0)
    cell = torch.randint(side, (_EXAMPLE_CELLS, 3), generator=generator).unique(dim=0)  # type: ignore[no-untyped-call]
    sample = torch.arange(len(cell)) % 2
    features = torch.randn(len(cell), network.in_width, generator=generator)
    return GridCloud(features, cell, sample, 2, cell.float())


def _part_of(cloud: GridCloud) -> GridCloud:
    """The first third of a cloud's rows."""
    rows = slice(0, max(1, len(cloud.cell) // 3))
    return GridCloud(cloud.features[rows], cloud.cell[rows], cloud.sample[rows], cloud.samples, cloud.position_m[rows])


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WiringError(
            name, "the extra 'export'", f"not installed ({error})", "Run: pip install 'perceive[export]'."
        ) from error
