"""RlPolicy: what reinforcement learning came to, as a Policy; and its file format, which executes nothing on loading.

<folder>/policy.json          algorithm, network, spaces, action spec
<folder>/policy.safetensors   the weights
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.ppo.policies import MultiInputPolicy as PpoPolicy
from stable_baselines3.sac.policies import MultiInputPolicy as SacPolicy

from policies.base import Policy
from policies.features import PerceptionFeatures
from policies.goals import to_flat
from sensors.action import Action, ActionSpec
from sensors.errors import DataError, SpecError, WiringError
from sensors.observation import Observation
from sensors.spec import Json, space_from_json, space_to_json

FORMAT = 1
DESCRIPTION_FILE, WEIGHTS_FILE = "policy.json", "policy.safetensors"
_CLASSES: Mapping[str, type[BasePolicy]] = {"sac": SacPolicy, "ppo": PpoPolicy}


def network_arguments(network: str, hidden: Sequence[int], model: Mapping[str, Any] | None) -> dict[str, Any]:
    """``policy_kwargs`` of stable-baselines3.

    Args:
        network: ``"perception"`` or ``"flat"``.
        hidden: widths of the layers behind the features.
        model: config of the perception model.

    Raises:
        SpecError: ``"perception"`` without a model.
    """
    arguments: dict[str, Any] = {"net_arch": list(hidden)}
    if network == "perception":
        if model is None:
            raise SpecError("reinforcement learning", "a model for network 'perception'", "none", "Choose model=state.")
        arguments |= {
            "features_extractor_class": PerceptionFeatures,
            "features_extractor_kwargs": {"model": dict(model)},
        }
    return arguments


def save_policy(
    folder: Path,
    policy: BasePolicy,
    algorithm: str,
    network: str,
    hidden: Sequence[int],
    model: Mapping[str, Any] | None,
    action_spec: ActionSpec,
) -> None:
    """Write the two files into an existing folder."""
    description = {
        "format": FORMAT,
        "algorithm": algorithm,
        "network": network,
        "hidden": list(hidden),
        "model": model,
        "observation": space_to_json(policy.observation_space),
        "action": action_spec.to_json(),
    }
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1))
    state = {name: value.detach().cpu().contiguous().clone() for name, value in policy.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE)


@final
class RlPolicy(Policy):
    """Acts without exploration.

    Args:
        policy: of stable-baselines3, over flat observations.
        action_spec: what its numbers mean.
    """

    def __init__(self, policy: BasePolicy, action_spec: ActionSpec) -> None:
        policy.set_training_mode(False)
        self._policy = policy
        self._spec = action_spec
        space = policy.observation_space
        assert isinstance(space, spaces.Dict)
        self._keys = tuple(space.spaces)

    @staticmethod
    def load(folder: str | Path, device: str = "cpu") -> RlPolicy:
        """The policy in a folder of :func:`save_policy`, or in the run folder around it.

        Raises:
            DataError: it is not there, damaged, or of another format.
        """
        folder = Path(folder)
        if not (folder / DESCRIPTION_FILE).exists():
            folder = folder / "policy"
        fix = "Train again with algorithm=sac or ppo."
        try:
            about: Json = json.loads((folder / DESCRIPTION_FILE).read_text())
            weights = load_file(folder / WEIGHTS_FILE)
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(str(folder), f"{DESCRIPTION_FILE} and {WEIGHTS_FILE}", str(error), fix) from error
        if about.get("format") != FORMAT or about.get("algorithm") not in _CLASSES:
            got = f"format {about.get('format')}, algorithm {about.get('algorithm')}"
            raise DataError(str(folder), f"format {FORMAT} of {sorted(_CLASSES)}", got, fix)
        spec = ActionSpec.from_json(about["action"])
        policy = _CLASSES[about["algorithm"]](
            space_from_json(about["observation"]),
            spec.space,
            _never_learns,
            **network_arguments(about["network"], about["hidden"], about["model"]),
        )
        try:
            policy.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                str(folder), "weights that fit the description", reason, "The files belong to different runs."
            ) from error
        return RlPolicy(policy.to(device), spec)

    def reset(self) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation) -> Action:
        flat = to_flat(observation)
        for key in self._keys:
            if key not in flat:
                fix = "Use the rig that it was trained with; goals come from an env with goal_keys: true."
                raise WiringError("RlPolicy", f"'{key}' in the observation", f"{sorted(flat)}", fix)
        with torch.inference_mode():
            values, _ = self._policy.predict({key: flat[key] for key in self._keys}, deterministic=True)
        return Action(self._spec.check(values), self._spec)


def _never_learns(_progress: float) -> float:
    return 0.0
