"""Importing the sensors costs no torch, no simulator and no vendor SDK."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "pybullet", "open3d", "transformers", "cv2", "hydra", "perceive", "envs", "policies")


def test_sensors_import_nothing_heavy() -> None:
    names = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "sensors").glob("*.py"))
    imports = "; ".join(f"import sensors.{name}" for name in names if name != "__init__")
    code = f"import sys; {imports}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
