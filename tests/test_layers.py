"""The import contract: kept by this tree, and able to see each kind of breach."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sensors", "perceive", "perceive/cli", "envs", "policies", "conf")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    command = [sys.executable, "-c", code, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_tree_keeps_the_contract() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_a_clean_tree_passes(tmp_path: Path) -> None:
    plant(tmp_path, "perceive/cli/train.py", "import envs, policies, perceive, sensors")
    plant(tmp_path, "perceive/model.py", "import torch, sensors")
    plant(tmp_path, "policies/rl.py", "import torch, perceive, sensors, stable_baselines3")
    assert lint(tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("sensors/camera.py", "import torch", "sensors import nothing"),
        ("sensors/camera.py", "import perceive", "sensors import nothing"),
        ("perceive/model.py", "import policies", "perceive sees sensors only"),
        ("perceive/model.py", "def f():\n    import pybullet", "pybullet stays in envs.world"),
        ("perceive/model.py", "import hydra", "only the commands import Hydra"),
        ("perceive/model.py", "import perceive.cli.collect", "nothing imports the commands"),
        ("envs/base.py", "import torch", "envs see sensors only"),
        ("envs/base.py", "import pybullet", "pybullet stays in envs.world"),
        ("envs/base.py", "import policies", "envs and policies are independent"),
        ("policies/rl.py", "import envs", "envs and policies are independent"),
        ("policies/rl.py", "from omegaconf import DictConfig", "only the commands import Hydra"),
    ],
)
def test_a_breach_is_seen(file: str, line: str, contract: str, tmp_path: Path) -> None:
    plant(tmp_path, file, line)
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout
    broken = [row for row in done.stdout.splitlines() if "BROKEN" in row]
    assert any(row.startswith(contract) for row in broken), done.stdout


def plant(folder: Path, file: str, text: str) -> None:
    """A small tree that keeps the contract, but for the one file of interest."""
    for package in PACKAGES:
        (folder / package).mkdir(parents=True, exist_ok=True)
        (folder / package / "__init__.py").touch()
    (folder / "envs/world.py").write_text("import pybullet\n")
    (folder / "perceive/cli/collect.py").write_text("import hydra, omegaconf\n")
    (folder / file).write_text(text + "\n")
