"""LearnedPolicy: a model's action chunks, played by the clock."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from perceive.batch import collate
from perceive.geometry import matrix_to_rotation_6d, rotation_6d_to_matrix
from perceive.loading import load_model
from perceive.model_base import Model
from perceive.saved import CONFIG_FILE
from policies.base import Policy
from policies.checkpoint import find_checkpoint
from policies.schema import check_observation_fits, ignored_sensors, model_sensors
from sensors.action import Action
from sensors.errors import DataError, SpecError, WiringError, nearest
from sensors.observation import Observation
from sensors.timeline import EPSILON_S


class LearnedPolicy(Policy):
    """Predicts K commands at a time and picks the one whose time has come.

    The step of a chunk is chosen by how long ago it was predicted, not by how often ``act`` was called: a loop that
    skips a tick, or runs at another rate, still sends every command at its moment.

    Args:
        model: with an action head; from_config made it, so that it knows its sensors and its action spec.
        head: name of the action head.
        replan_s: predict a new chunk when the last one is this old. 0 = at every call.
        ensemble: instead of the newest chunk, average what all chunks of the last K periods say about this moment,
            older ones weighing more (Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost
            Hardware", RSS 2023). Predicts at every call whatever ``replan_s`` is.
        ensemble_decay: the weight of the i-th oldest chunk is exp(-decay * i).

    Raises:
        WiringError: no such head, or a model without an action spec.
        SpecError: ``replan_s`` is negative or longer than a chunk; the chunk's length is seen at the first ``act``.
    """

    def __init__(
        self,
        model: Model,
        head: str = "action",
        replan_s: float = 0.0,
        ensemble: bool = False,
        ensemble_decay: float = 0.01,
    ) -> None:
        known = model.head_names
        if head not in known:
            raise WiringError("LearnedPolicy", f"a head of the model {list(known)}", f"'{head}'", nearest(head, known))
        spec = model.action_spec
        if spec is None:
            raise WiringError(
                "LearnedPolicy", "a model with an action spec", "one without", "Build it with action_spec=..."
            )
        if replan_s < 0:
            raise SpecError("LearnedPolicy.replan_s", "seconds >= 0", repr(replan_s), "Correct it.")
        self._model = model.eval()
        self._head = head
        self._spec = spec
        self._replan_s = replan_s
        self._ensemble = ensemble
        self._decay = ensemble_decay
        self._sensors = model_sensors(model)
        self._ignored = ignored_sensors(model)
        self._device = next(model.parameters()).device
        self._checked = False
        self._chunks: deque[tuple[float, NDArray[np.float32]]] = deque()  # (when predicted, [K, A]), oldest first

    @staticmethod
    def load(
        path: str | Path,
        device: str = "cpu",
        use_ema: bool = True,
        head: str = "action",
        replan_s: float = 0.0,
        ensemble: bool = False,
    ) -> LearnedPolicy:
        """The policy of a run folder (its newest whole checkpoint), a checkpoint, or a ``save_pretrained`` folder.

        Raises:
            DataError: none of these is at ``path``, or it is damaged.
        """
        return LearnedPolicy(trained_model(path, device, use_ema), head, replan_s, ensemble)

    @property
    def model(self) -> Model:
        """The model, in evaluation mode."""
        return self._model

    def reset(self) -> None:
        self._chunks.clear()
        self._checked = False

    def act(self, observation: Observation) -> Action:
        if not self._checked:
            self._check(observation)
        now_s, period_s = observation.now_s, self._spec.period_s
        if self._chunks and now_s < self._chunks[-1][0] - EPSILON_S:
            raise SpecError(
                "LearnedPolicy.act", f"a moment after {self._chunks[-1][0]} s", f"{now_s} s", "Call reset() first."
            )
        while self._chunks and _step_at(now_s - self._chunks[0][0], period_s) >= len(self._chunks[0][1]):
            self._chunks.popleft()
        if self._ensemble or not self._chunks or now_s - self._chunks[-1][0] >= self._replan_s - EPSILON_S:
            self._chunks.append((now_s, self._predict(observation)))
            if not self._ensemble:
                while len(self._chunks) > 1:
                    self._chunks.popleft()
        said = [chunk[_step_at(now_s - made_s, period_s)] for made_s, chunk in self._chunks]
        return Action(self._spec.check(said[0].copy() if len(said) == 1 else self._average(said)), self._spec)

    def predict(self, observation: Observation) -> NDArray[np.float32]:
        """The chunk [K, A] for an observation, in the units of the action spec. Changes nothing."""
        if not self._checked:
            self._check(observation)
        return self._predict(observation)

    @torch.inference_mode()
    def _predict(self, observation: Observation) -> NDArray[np.float32]:
        read = Observation(observation.now_s, {name: observation.streams[name] for name in self._sensors})
        chunk = self._model(collate([read], self._device))[self._head]
        values: NDArray[np.float32] = chunk.values[0].float().cpu().numpy()
        if self._replan_s > len(values) * self._spec.period_s + EPSILON_S:
            raise SpecError(
                "LearnedPolicy.replan_s",
                f"at most one chunk, {len(values)} steps of {self._spec.period_s:.4f} s",
                f"{self._replan_s} s",
                "Replan sooner or train with longer chunks.",
            )
        return values

    def _check(self, observation: Observation) -> None:
        check_fits("LearnedPolicy", self._model, self._sensors, self._ignored, observation)
        self._checked = True

    def _average(self, said: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        weights = np.exp(-self._decay * np.arange(len(said)))
        mean = (weights[:, None] * np.stack(said)).sum(0) / weights.sum()
        if "rotation_6d" in self._spec.parts:
            part = self._spec.part("rotation_6d")
            turned = matrix_to_rotation_6d(
                rotation_6d_to_matrix(torch.from_numpy(mean[part]))
            )  # columns of unit length
            mean[part] = turned.numpy()
        return np.asarray(mean, np.float32)


def trained_model(path: str | Path, device: str = "cpu", use_ema: bool = True) -> Model:
    """The model of a run folder (its newest whole checkpoint), a checkpoint, or a ``save_pretrained`` folder.

    Raises:
        DataError: none of these is at ``path``, or it is damaged.
    """
    path = _folder(path)
    if (path / CONFIG_FILE).exists():
        return load_model(path, device)
    return find_checkpoint(path).model(use_ema, device)


def trained_mode(path: str | Path) -> str | None:
    """The action mode of the model at ``path``, see :func:`trained_model`, without reading its weights."""
    path = _folder(path)
    folder = path if (path / CONFIG_FILE).exists() else find_checkpoint(path).path / "ema"
    action = json.loads((folder / CONFIG_FILE).read_text()).get("action")
    return None if action is None else str(action["mode"])


def _folder(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_dir():
        raise DataError(str(path), "a folder with a trained model", "no such folder", "Check the path, or train first.")
    return path


def check_fits(
    owner: str,
    model: Model,
    sensor_spaces: Mapping[str, spaces.Dict],
    ignored: frozenset[str],
    observation: Observation,
) -> None:
    """Raise unless an observation is of the sensors and histories that a model reads.

    Raises:
        WiringError: it is not.
    """
    shapes = {
        name: {field: value.shape[1:] for field, value in stream.data.items()}
        for name, stream in observation.streams.items()
    }
    check_observation_fits(owner, sensor_spaces, shapes, ignored)
    for name in sensor_spaces:
        steps, got = model.config["history"][name], len(observation.streams[name].valid)
        if steps != got:
            where = f"{owner}, sensor '{name}'"
            raise WiringError(where, f"a history of {steps}", f"{got}", "Change the rig's history.")


def newest(observation: Observation, sensor: str) -> dict[str, NDArray[Any]] | None:
    """Field -> value of a sensor's newest frame; None if it is not valid, or there is no such sensor."""
    stream = observation.streams.get(sensor)
    if stream is None or not stream.valid[-1]:
        return None
    return {field: value[-1] for field, value in stream.data.items()}


def _step_at(age_s: float, period_s: float) -> int:
    # A tick that comes a hair early still belongs to its period, as a clock that sums floats is never exact.
    return int((age_s + 1e-3 * period_s + EPSILON_S) / period_s)
