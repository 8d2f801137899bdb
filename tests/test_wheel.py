"""The wheel: built without network, it holds every config and every module, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sensors", "perceive", "envs", "policies", "conf")


def test_the_wheel_holds_all_configs_and_modules(tmp_path: Path) -> None:
    source = tmp_path / "source"  # setuptools leaves a build folder, which must not land in the checkout
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(tmp_path), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {
        str(path.relative_to(source))
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.suffix in (".yaml", ".py") or path.name == "py.typed"
    }
    assert "conf/collect.yaml" in wanted
    assert "conf/env/lift.yaml" in wanted
    assert held == wanted
    _commands_work_from(wheel, tmp_path)


def _commands_work_from(wheel: Path, folder: Path) -> None:
    """The installed configs are found from a folder that has none."""
    place, elsewhere = folder / "installed", folder / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    code = "import conf; from perceive.cli import main; print(conf.__file__); main(['collect', '--cfg', 'job'])"
    environment = {**os.environ, "PYTHONPATH": str(place)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert str(place) in done.stdout, done.stderr
    assert "episodes: 100" in done.stdout
