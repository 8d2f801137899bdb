"""perceive export: the Point Transformer V3 in a trained model's encoder as ONNX, and what it reads as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perceive.cli.app import App
from perceive.export.onnx_points import OPSET, OUTPUT, export_ptv3
from perceive.export.ptv3_inputs import input_specs
from perceive.model import PerceptionModel
from perceive.model_base import Model
from perceive.points.ptv3.network import PointTransformerV3
from perceive.results import versions, write_json
from policies.learned import trained_model
from sensors.errors import SpecError, WiringError, nearest

FILE = "model.onnx"
FORMAT = 1


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "export",
        "Write the Point Transformer V3 in the encoder of a trained model as an ONNX file for clouds of any size.",
        (
            "perceive export checkpoint=runs/segment",
            "perceive export checkpoint=runs/segment sensor=lidar file=backbone.onnx",
        ),
        job,
    )


def job(config: dict[str, Any]) -> None:
    """Export as the config says and print where the files are.

    Raises:
        DataError: no model at ``checkpoint``, or the written graph does not compute what the network does.
        SpecError: a file of another kind.
        WiringError: the model has no such backbone, or several; or the extra ``export`` is not installed.
    """
    path = Path(config["file"]) if config["file"] else Path(config["output"]) / FILE
    if path.suffix != ".onnx":
        raise SpecError("perceive export, file", "a name that ends in .onnx", str(path), "Rename it.")
    model = trained_model(config["checkpoint"], "cpu", config["use_ema"])
    sensor, network = backbone(model, config["sensor"])
    export_ptv3(network, path)
    about = path.with_suffix(".json")
    plan = model.config["model"]["encoders"][sensor]  # how its cells and features are made of points
    write_json(about, {**described(network), "sensor": sensor, "encoder": plan})
    print(f"the Point Transformer V3 of '{sensor}': {path}\nits inputs and outputs: {about}")


def backbone(model: Model, sensor: str | None) -> tuple[str, PointTransformerV3]:
    """The network in a model's encoder, and the sensor that it encodes.

    Args:
        model: in evaluation.
        sensor: whose encoder; None = the only one with such a network.

    Raises:
        WiringError: there is none, or several and no sensor was named.
    """
    where = "perceive export, checkpoint"
    if not isinstance(model, PerceptionModel):
        raise WiringError(where, "a PerceptionModel", type(model).__name__, "Export a model of encoders and heads.")
    found = {
        name: part
        for name, encoder in model.encoders.items()
        for part in encoder.modules()
        if isinstance(part, PointTransformerV3)
    }
    if not found:
        kinds = {name: type(encoder).__name__ for name, encoder in model.encoders.items()}
        raise WiringError(
            where, "an encoder with a Point Transformer V3", f"{kinds}", "Train with encoder=point_transformer."
        )
    if sensor is None and len(found) > 1:
        raise WiringError("perceive export, sensor", f"one of {list(found)}", "none", "Name it: sensor=...")
    chosen = next(iter(found)) if sensor is None else sensor
    if chosen not in found:
        raise WiringError(
            "perceive export, sensor", f"one with a Point Transformer V3, of {list(found)}", f"'{chosen}'",
            nearest(chosen, found),
        )  # fmt: skip
    return chosen, found[chosen]


def described(network: PointTransformerV3) -> dict[str, Any]:
    """What a graph reads and gives: name, type and axes of each; an axis with a name has any length.

    Index maps of a cloud are made by :func:`perceive.export.ptv3_inputs.prepare` with a network of the same sizes.
    """
    last = len(network.encoder) - 1
    rows = "M0" if len(network.decoder) else f"M{last}"
    out = {"name": OUTPUT, "type": "float32", "axes": [rows, network.out_width]}
    return {
        "format": FORMAT,
        "opset": OPSET,
        "network": {
            "in_width": network.in_width,
            "out_width": network.out_width,
            "levels": last + 1,
            "decoder": bool(len(network.decoder)),
            "patch": network.patch,
            "curves": [str(curve) for curve in network.curves],
            "stem_kernel": network.stem_kernel,
        },
        "inputs": [
            {"name": spec.name, "type": str(spec.kind).removeprefix("torch."), "axes": list(spec.axes)}
            for spec in input_specs(network)
        ],
        "outputs": [out],
        "versions": versions(),
    }
