"""Every example runs as a stranger would run it, and stays short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip(), "an example shows something"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_and_say_what_they_show(example: Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert text.startswith('"""')
    assert f"python examples/{example.name}" in text, "the docstring says how to run it"


def test_the_first_example_shows_every_sensor_and_saves_its_picture(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES[0]), "seen.png"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for name in ("front", "wrist", "joints", "wrench", "touch_left", "touch_right"):
        assert name in done.stdout
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
