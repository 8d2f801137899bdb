"""Models from configs and from folders, whatever their kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnasium import spaces

from perceive.build import TARGET, build
from perceive.model import PerceptionModel
from perceive.model_base import Model
from perceive.saved import Description, fill, read_model
from sensors.action import ActionSpec
from sensors.errors import WiringError


def build_model(
    config: Mapping[str, Any],
    sensor_spaces: Mapping[str, spaces.Dict],
    history: Mapping[str, int],
    action_spec: ActionSpec | None = None,
    allow: Sequence[str] = (),
) -> Model:
    """The model of a config.

    Args:
        config: with ``_target_`` a class derived from :class:`perceive.model_base.Model` and its arguments; without,
            the parts of a :class:`perceive.model.PerceptionModel`.
        sensor_spaces: sensor name -> frame space.
        history: sensor name -> T.
        action_spec: what its actions are to mean.
        allow: import-path prefixes outside this project that the config may name.

    Raises:
        WiringError: names that do not match, or a class that is no model.
    """
    if TARGET not in config:
        return PerceptionModel.from_config(config, sensor_spaces, history, action_spec, allow)
    model = build(
        config, allow=allow, where="model", sensor_spaces=sensor_spaces, history=history, action_spec=action_spec
    )
    if not isinstance(model, Model):
        raise WiringError("model", "a class derived from perceive.model_base.Model", str(config[TARGET]), "Name one.")
    model.describe(Description(config, sensor_spaces, history, action_spec))
    return model


def load_model(folder: str | Path, device: str = "cpu", allow: Sequence[str] = ()) -> Model:
    """The model that ``save_pretrained`` wrote, in evaluation mode.

    Args:
        folder: a local folder, or ``hf://owner/name`` (with ``@revision`` if wanted) on the Hugging Face hub.
        device: where the model goes.
        allow: import-path prefixes outside this project that its config may name.

    Raises:
        DataError: a file is missing, damaged, or of another format.
        WiringError: the config names a class that is not allowed.
    """
    place, was, state = read_model(folder, device)
    model = build_model(was.plan, was.sensor_spaces, was.history, was.action_spec, allow)
    fill(model, state, place)
    return model.to(device).eval()
