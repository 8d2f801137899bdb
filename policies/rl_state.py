"""Where a reinforcement learning run stands, on disk and back: tensors and arrays only, nothing that executes.

<run>/state/trainer.pt    weights and optimizers (torch.load with weights_only=True)
<run>/state/replay.npz    what was experienced (SAC)
<run>/state/state.json    counters
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.her import HerReplayBuffer

from policies.rl_policy import save_policy
from policies.rl_settings import RlSettings
from sensors.action import ActionSpec
from sensors.errors import DataError
from sensors.spec import Json

Learner = SAC | PPO
FOLDER = "state"
_ARRAYS = ("actions", "rewards", "dones", "timeouts")
_HER_ARRAYS = ("ep_start", "ep_length", "_current_ep_start")


def save_state(
    run_dir: Path, learner: Learner, algorithm: str, settings: RlSettings, model: Json | None, spec: ActionSpec
) -> None:
    """Write the policy and the state of its training, each whole or not at all.

    Raises:
        DataError: the disk is full or cannot be written; what was there stays.
    """
    for name in ("policy", FOLDER):
        beside = run_dir / f".tmp-{name}"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir(parents=True)
            if name == "policy":
                save_policy(beside, learner.policy, algorithm, settings.network, settings.hidden, model, spec)
            else:
                _write(beside, learner)
            old = run_dir / f".old-{name}"
            shutil.rmtree(old, ignore_errors=True)
            if (run_dir / name).exists():
                (run_dir / name).rename(old)
            beside.rename(run_dir / name)
            shutil.rmtree(old, ignore_errors=True)
        except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
            shutil.rmtree(beside, ignore_errors=True)
            got = f"{type(error).__name__}: {error}"
            raise DataError(str(run_dir / name), "room for it", got, "Free space, then resume the run.") from error


def load_state(run_dir: Path, learner: Learner) -> int:
    """Put a learner back to where the run was; the number of environment steps done.

    Going on is not exact: the environment starts a new episode.

    Raises:
        DataError: there is no such state, or it is damaged.
    """
    folder = run_dir / FOLDER
    try:
        state = json.loads((folder / "state.json").read_text())
        tensors = torch.load(folder / "trainer.pt", map_location=learner.device, weights_only=True)
        learner.set_parameters(tensors["parameters"])
        if isinstance(learner, SAC):
            if learner.ent_coef_optimizer is not None and learner.log_ent_coef is not None:
                learner.log_ent_coef.data.copy_(tensors["log_ent_coef"])
            with (folder / "replay.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                _fill(learner, dict(arrays), state)
        learner.num_timesteps = int(state["steps"])
        learner._n_updates = int(state["updates"])
        learner._episode_num = int(state["episodes"])
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes the readers raise
        got = f"{type(error).__name__}: {error}"
        raise DataError(str(folder), "the state of a run", got, "Start a new run.") from error
    return learner.num_timesteps


def _write(folder: Path, learner: Learner) -> None:
    tensors: dict[str, Any] = {"parameters": learner.get_parameters()}
    state = {"steps": learner.num_timesteps, "updates": learner._n_updates, "episodes": learner._episode_num}
    if isinstance(learner, SAC):
        if learner.log_ent_coef is not None:
            tensors["log_ent_coef"] = learner.log_ent_coef.detach()
        buffer = _buffer(learner)
        filled = buffer.buffer_size if buffer.full else buffer.pos
        arrays: dict[str, NDArray[Any]] = {name: vars(buffer)[name][:filled] for name in _ARRAYS}
        for part in ("observations", "next_observations"):
            arrays |= {f"{part}:{key}": value[:filled] for key, value in vars(buffer)[part].items()}
        if isinstance(buffer, HerReplayBuffer):
            arrays |= {name: vars(buffer)[name] for name in _HER_ARRAYS}
        with (folder / "replay.npz").open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the arrays for its own options
        state |= {"position": buffer.pos, "full": buffer.full}
    torch.save(tensors, folder / "trainer.pt")
    (folder / "state.json").write_text(json.dumps(state))


def _fill(learner: SAC, arrays: dict[str, NDArray[Any]], state: Json) -> None:
    buffer = _buffer(learner)
    filled = len(arrays["rewards"])
    for name in _ARRAYS:
        vars(buffer)[name][:filled] = arrays[name]
    for part in ("observations", "next_observations"):
        for key, value in vars(buffer)[part].items():
            value[:filled] = arrays[f"{part}:{key}"]
    buffer.pos, buffer.full = int(state["position"]), bool(state["full"])
    if isinstance(buffer, HerReplayBuffer):
        for name in _HER_ARRAYS:
            vars(buffer)[name][...] = arrays[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that the episode is cut short, which is meant
            buffer.truncate_last_trajectory()


def _buffer(learner: SAC) -> DictReplayBuffer:
    assert isinstance(learner.replay_buffer, DictReplayBuffer)
    return learner.replay_buffer
