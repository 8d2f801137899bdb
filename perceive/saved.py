"""A model's folder: ``config.json`` and ``model.safetensors``, written beside and renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perceive.hub import local_folder
from sensors.action import ActionSpec
from sensors.errors import DataError
from sensors.spec import space_from_json, space_to_json

FORMAT = 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


@dataclass(frozen=True, eq=False)
class Description:
    """What a model was built from, and can be built from again.

    Attributes:
        plan: the model's config, plain JSON data.
        sensor_spaces: sensor -> space of one frame.
        history: sensor -> T.
        action_spec: what its actions mean; None for models without actions.
    """

    plan: Mapping[str, Any]
    sensor_spaces: Mapping[str, spaces.Dict]
    history: Mapping[str, int]
    action_spec: ActionSpec | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "format": FORMAT,
            "model": json.loads(json.dumps(self.plan)),
            "sensor_spaces": {name: space_to_json(space) for name, space in self.sensor_spaces.items()},
            "history": dict(self.history),
            "action": None if self.action_spec is None else self.action_spec.to_json(),
        }


def write_model(folder: str | Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Path:
    """Write a model's config and weights."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    part = folder / f".{WEIGHTS_FILE}.part"
    save_file(plain, part)
    part.replace(folder / WEIGHTS_FILE)
    part = folder / f".{CONFIG_FILE}.part"
    part.write_text(json.dumps(config, indent=1))
    part.replace(folder / CONFIG_FILE)
    return folder


def read_model(folder: str | Path, device: str) -> tuple[Path, Description, dict[str, Tensor]]:
    """The inverse of :func:`write_model`: the local folder, what the model was built from, and its weights.

    Raises:
        DataError: a file is missing, damaged, or of another format.
    """
    folder = local_folder(folder, (CONFIG_FILE, WEIGHTS_FILE))
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        state = load_file(folder / WEIGHTS_FILE, device=device)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            str(folder), f"{CONFIG_FILE} and {WEIGHTS_FILE}", str(error), "Copy or train the model again."
        ) from error
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        raise DataError(str(folder), f"format {FORMAT}", f"{found}", "Load it with the version that wrote it.")
    try:
        read = {name: space_from_json(data) for name, data in config["sensor_spaces"].items()}
        action = None if config["action"] is None else ActionSpec.from_json(config["action"])
        plan, history = config["model"], config["history"]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{folder / CONFIG_FILE}", "what save_pretrained wrote", repr(error), "Copy or train the model again."
        ) from error
    sensor_spaces = {name: space for name, space in read.items() if isinstance(space, spaces.Dict)}
    return folder, Description(plan, sensor_spaces, history, action), state


def fill(model: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Load weights.

    Raises:
        DataError: they do not fit the model.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            str(folder),
            "weights that fit the config",
            str(error).splitlines()[0],
            "The files belong to different models.",
        ) from error
