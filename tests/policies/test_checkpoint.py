"""Checkpoints: whole or not at all, and what is damaged is found, named and passed over."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from policies.checkpoint import checkpoint_folders, find_checkpoint, latest, read_checkpoint, save_checkpoint
from policies.optimisation import Averaged, make_optimizer
from sensors.errors import DataError
from tests.policies.point_env import tiny_model


def save(run_dir: Path, step: int, keep_last: int = 3) -> Path:
    model = tiny_model(step)
    optimizer = make_optimizer(model, 1e-3, 0.01)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    ema = Averaged(model, 0.9).model
    optimizer.step()
    return save_checkpoint(run_dir, step, model, ema, optimizer.state_dict(), {"note": 1}, keep_last)


FILES = ("model/model.safetensors", "ema/config.json", "optimizer.pt", "state.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 10)
    path = save(tmp_path, 20) / name
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(DataError, match=f"step_000020/{name}"):
        read_checkpoint(tmp_path / "checkpoints" / "step_000020")
    with caplog.at_level(logging.WARNING):
        found = latest(tmp_path)
    assert found is not None
    assert found.step == 10
    assert f"step_000020/{name}" in caplog.text


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    for place in (path, tmp_path):
        found = find_checkpoint(place)
        assert found.state == {"note": 1, "format": 1, "step": 5}
        for name, value in tiny_model(5).state_dict().items():
            assert torch.equal(value, found.model().state_dict()[name])
    name = "trunk.norm.weight"  # the weights as trained are one step away from the average
    assert not torch.equal(found.model().state_dict()[name], found.model(use_ema=False).state_dict()[name])
    optimizer = make_optimizer(tiny_model(), 1e-3, 0.01)
    optimizer.load_state_dict(found.optimizer_state("cpu"))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10, 100):
        save(tmp_path, step, keep_last=2)
    assert [folder.name for folder in checkpoint_folders(tmp_path)] == ["step_000010", "step_000100"]


def test_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    with pytest.raises(DataError, match="Train first"):
        find_checkpoint(tmp_path)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


def test_a_pickle_in_place_of_the_optimizer_is_not_executed(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    found = find_checkpoint(path)
    (path / "optimizer.pt").write_bytes(pickle.dumps(Evil(tmp_path / "executed"), protocol=2))
    with pytest.raises(DataError, match=r"optimizer\.pt"):
        read_checkpoint(path)
    with pytest.raises(pickle.UnpicklingError):  # even where the checksums have been passed by
        found.optimizer_state("cpu")
    assert not (tmp_path / "executed").exists()
    pickle.loads((path / "optimizer.pt").read_bytes())  # noqa: S301  # positive control: it would have
    assert (tmp_path / "executed").exists()


FULL = """
import resource, signal, sys, pathlib
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from tests.policies.test_checkpoint import save
from sensors.errors import DataError
save(pathlib.Path(sys.argv[1]), 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    save(pathlib.Path(sys.argv[1]), 20)
except DataError as error:
    print("REFUSED", error)
"""


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    size = (save(tmp_path / "size", 1) / "model" / "model.safetensors").stat().st_size + 1000  # the optimizer is larger
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(size)],
        capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": os.getcwd()}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "REFUSED" in done.stdout
    assert "step_000020" in done.stdout
    assert "checkpoint" in done.stdout
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000010"]
    assert find_checkpoint(tmp_path).step == 10
