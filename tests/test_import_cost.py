"""Importing perceive loads torch and nothing else that is heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ABSENT = (
    "pybullet",
    "open3d",
    "transformers",
    "torchvision",
    "hydra",
    "stable_baselines3",
    "cv2",
    "matplotlib",
    "pyrealsense2",
)


def loaded_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}; import json, sys; print(json.dumps(sorted(sys.modules)))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.strip().splitlines()[-1]))


def test_import_perceive() -> None:
    loaded = loaded_after("import perceive; from perceive import PerceptionModel")
    assert "torch" in loaded
    assert not loaded & set(ABSENT)


@pytest.mark.parametrize("package", ["policies", "perceive.cli", "perceive.viewing", "conf"])
def test_other_packages_load_nothing_of_it_either(package: str) -> None:
    assert not loaded_after(f"import {package}") & set(ABSENT)


def test_the_check_sees_what_is_loaded() -> None:
    assert "pybullet" in loaded_after("import envs.world")
