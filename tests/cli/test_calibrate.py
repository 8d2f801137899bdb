"""perceive calibrate: the whole command on rendered pictures, and what it says when something is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from perceive.build import build
from perceive.cli import main
from sensors.calibration.files import read_lens, read_poses, write_poses
from sensors.live import Mount

SMALL = ("simulated.width=320", "simulated.height=240", "count=8", "simulate=true")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_board_is_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "board.square_m=0.025", "board.marker_m=0.018", "dpi=100", "output=out"]) == 0
    assert (here / "out/board.pdf").read_bytes().startswith(b"%PDF")
    assert (here / "out/board.png").read_bytes().startswith(b"\x89PNG")
    assert "squares of 25 mm" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["eye_in_hand", "eye_to_hand"])
def test_a_dry_run_finds_the_truth_and_its_files_can_be_used_again(
    mode: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", f"mode={mode}", *SMALL, "output=out"]) == 0
    said = capsys.readouterr().out
    off = re.search(r"off the truth by ([\d.]+) mm and ([\d.]+) degrees", said)
    assert off is not None
    assert float(off[1]) < 5
    assert float(off[2]) < 1
    mount = build(yaml.safe_load((here / f"out/{mode}.yaml").read_text()))
    assert isinstance(mount, Mount)
    assert mount.link == ("tool" if mode == "eye_in_hand" else None)
    details = json.loads((here / f"out/{mode}.json").read_text())
    assert details["rms_px"] < 2
    assert (here / f"out/{mode}_summary.txt").read_text().strip() in said
    assert (here / f"out/{mode}_reprojection.png").read_bytes().startswith(b"\x89PNG")
    # The same pictures as if they were the reader's, with the intrinsics of the first time: the same mount.
    words = ["pictures=out/pictures", "intrinsics=out/intrinsics.json", "output=again"]
    words += ["link=tool"] if mode == "eye_in_hand" else []
    assert main(["calibrate", f"mode={mode}", *words]) == 0
    again = json.loads((here / f"again/{mode}.json").read_text())
    np.testing.assert_allclose(again["mount"]["position_m"], details["mount"]["position_m"], atol=1e-6)
    assert not (here / "again/intrinsics.json").exists()


def test_intrinsics_from_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "mode=intrinsics", *SMALL, "output=out"]) == 0
    assert "off the truth by" in capsys.readouterr().out
    assert main(["calibrate", "mode=intrinsics", "pictures=out/pictures", "output=again"]) == 0
    first, second = read_lens(here / "out/intrinsics.json")[0], read_lens(here / "again/intrinsics.json")[0]
    np.testing.assert_allclose(first.intrinsics_px, second.intrinsics_px, rtol=1e-6)
    assert "fx" in capsys.readouterr().out


def test_a_picture_without_pose_and_a_pose_without_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "mode=eye_to_hand", *SMALL, "output=out"]) == 0
    poses = read_poses(here / "out/pictures/poses.json")
    words = ["calibrate", "mode=eye_to_hand", "pictures=out/pictures", "output=out", "poses=poses.json"]
    write_poses(here / "poses.json", {name: matrix for name, matrix in poses.items() if name != "0003.png"})
    capsys.readouterr()
    assert main(words) == 0
    assert "'0003.png' has no pose" in capsys.readouterr().out
    write_poses(here / "poses.json", {**poses, "9999.png": np.eye(4)})
    assert main(words) == 1
    assert "9999.png" in capsys.readouterr().err
    # Poses that are of the other mode are told apart, not fitted.
    assert main([*words[:1], "mode=eye_in_hand", "link=tool", *words[2:4]]) == 1
    assert "eye_to_hand" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "hint"),
    [
        (["mode=intrinsics"], 1, "Say where the pictures come from"),
        (["mode=intrinsics", "simulate=true", "pictures=a"], 1, "pictures and simulate"),
        (["mode=intrinsics", "+sensor@camera=front_rgb"], 1, "world"),
        (["mode=intrinsics", "+sensor@camera=joints"], 1, "rgb"),
        (["mode=eye_in_hand", "+sensor@camera=front_rgb"], 1, "poses.json"),
        (["mode=eye_in_hand", "pictures=a"], 1, "link="),
        (["mode=eye_to_hand", "pictures=a", "link=tool"], 1, "mode=eye_in_hand"),
        (["mode=eye_to_hand", "pictures=a"], 1, "poses 'poses.json'"),
        (["mode=intrinsics", "pictures=a"], 1, "Check the path"),
        (["mode=eye_in_hnd"], 2, "eye_in_hand"),
        (["board.dictionary=DICT_5X5_1OO"], 1, "Did you mean 'DICT_5X5_100'"),
        (["board.square=0.03"], 2, "square_m"),
        (["simulated.widht=3"], 2, "simulated.width"),
    ],
)
def test_what_is_missing_is_said(
    words: list[str], status: int, hint: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *words, "output=out"]) == status
    said = capsys.readouterr().err
    assert hint in said
    assert "Traceback" not in said


def test_help_says_the_format_of_poses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--help"]) == 0
    said = capsys.readouterr().out
    assert '"base_from_hand"' in said
    assert "quaternion_xyzw" in said
    settings = said.partition("settings")[2].partition("groups")[0].splitlines()[1:]
    assert all(len(line.split()) >= 3 for line in settings if line.strip())
