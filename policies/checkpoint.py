"""Checkpoints: a folder per step, written beside and renamed, with a checksum of every file.

checkpoints/step_000500/
  model/           the weights as trained: config.json, model.safetensors (perceive.loading.load_model reads it)
  ema/             the averaged weights, the same way
  optimizer.pt     tensors and numbers only (torch.load with weights_only=True)
  state.json       step, settings, config, versions, sensor schema, running sums of the log
  manifest.json    name, size and sha256 of every file above
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from perceive.loading import load_model
from perceive.model_base import Model
from sensors.errors import DataError
from sensors.spec import Json

_LOG = logging.getLogger(__name__)
FORMAT = 1
FOLDER, _MANIFEST, _STATE, _OPTIMIZER = "checkpoints", "manifest.json", "state.json", "optimizer.pt"
_FIX = "Delete that folder; the one before it is used, or train again."


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint whose files have been verified.

    Attributes:
        path: its folder.
        state: what ``state.json`` holds; ``state["step"]`` is the number of steps done.
    """

    path: Path
    state: Json

    @property
    def step(self) -> int:
        """Training steps done."""
        return int(self.state["step"])

    def model(self, use_ema: bool = True, device: str = "cpu") -> Model:
        """The model, in evaluation mode."""
        return load_model(self.path / ("ema" if use_ema else "model"), device)

    def optimizer_state(self, device: torch.device | str) -> dict[str, Any]:
        """What ``optimizer.load_state_dict`` takes."""
        state: dict[str, Any] = torch.load(self.path / _OPTIMIZER, map_location=device, weights_only=True)
        return state


def save_checkpoint(
    run_dir: str | Path,
    step: int,
    model: Model,
    ema: Model,
    optimizer_state: Mapping[str, Any],
    state: Json,
    keep_last: int = 3,
) -> Path:
    """Write ``checkpoints/step_<step>`` whole or not at all, then delete all but the newest ``keep_last``.

    Raises:
        DataError: the disk is full or the folder cannot be written; older checkpoints are untouched.
    """
    final = Path(run_dir) / FOLDER / f"step_{step:06d}"
    temporary = final.with_name(f".tmp-{final.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        model.save_pretrained(temporary / "model")
        ema.save_pretrained(temporary / "ema")
        torch.save(dict(optimizer_state), temporary / _OPTIMIZER)
        (temporary / _STATE).write_text(json.dumps(state | {"format": FORMAT, "step": step}, indent=1))
        files = {str(p.relative_to(temporary)): _fingerprint(p) for p in sorted(temporary.rglob("*")) if p.is_file()}
        for name in files:
            _sync(temporary / name)
        (temporary / _MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}, indent=1))
        _sync(temporary / _MANIFEST)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a short write as RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        raise DataError(
            str(final), "room for a checkpoint", f"{type(error).__name__}: {error}", "Free space, then resume the run."
        ) from error
    for old in checkpoint_folders(run_dir)[:-keep_last]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """A verified checkpoint.

    Raises:
        DataError: a file is missing, truncated or changed; names it.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                raise DataError(str(path), f"a file of {expected['bytes']} bytes", "no file", _FIX)
            got = _fingerprint(path, full=path.stat().st_size == expected["bytes"])
            if got != expected:
                size = f"{got['bytes']} bytes" if got["bytes"] != expected["bytes"] else "other content"
                raise DataError(str(path), f"the {expected['bytes']} bytes that were written", size, _FIX)
        state = json.loads((folder / _STATE).read_text())
    except (OSError, ValueError, KeyError) as error:
        raise DataError(str(folder), f"a checkpoint with {_MANIFEST} and {_STATE}", str(error), _FIX) from error
    if state.get("format") != FORMAT:
        raise DataError(
            str(folder), f"format {FORMAT}", repr(state.get("format")), "Load it with the version that wrote it."
        )
    return Checkpoint(folder, state)


def checkpoint_folders(run_dir: str | Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, not verified."""
    return sorted((Path(run_dir) / FOLDER).glob("step_*"))


def latest(run_dir: str | Path) -> Checkpoint | None:
    """The newest checkpoint of a run that is whole; damaged ones are named in a warning and passed over."""
    for folder in reversed(checkpoint_folders(run_dir)):
        try:
            return read_checkpoint(folder)
        except DataError as error:
            _LOG.warning("passed over a damaged checkpoint: %s", error)
    return None


def find_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint at ``path``, or the newest whole one of the run at ``path``.

    Raises:
        DataError: there is none.
    """
    path = Path(path)
    if (path / _MANIFEST).exists():
        return read_checkpoint(path)
    found = latest(path)
    if found is None:
        raise DataError(
            str(path), "a checkpoint folder, or a run folder with one in 'checkpoints/'", "neither", "Train first."
        )
    return found


def remove_leftovers(run_dir: str | Path) -> None:
    """Delete what a killed run left half written. Call before the run's only writer starts."""
    for folder in (Path(run_dir) / FOLDER).glob(".tmp-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _fingerprint(path: Path, full: bool = True) -> Json:
    digest = hashlib.sha256()
    if full:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the rename must not reach the disk before the data do
    finally:
        os.close(descriptor)
