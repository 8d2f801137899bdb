"""perceive calibrate touch=...: the whole command on rendered presses, on a film, and what it says when it cannot."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from perceive.build import build
from perceive.cli import main
from perceive.cli.calibrate import job
from perceive.cli.compose import compose_config
from sensors.calibration.files import write_beside
from sensors.errors import PerceiveError
from sensors.tactile.calibration.result import TouchCalibration
from sensors.tactile.calibration.session import png
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.calibration.simulation import balls, hidden_lamps, hidden_unit
from tests.contracts import CONF, check_config, config_files, load_plain
from tests.sensors.films import write_film

SMALL = ("touch=digit", "touch.width=96", "touch.height=120")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", config_files("touch"), ids=lambda path: path.stem)
def test_every_file_of_the_group_states_all_of_its_class(path: Path) -> None:
    config = load_plain(path)
    check_config(config)
    settings = build(config)
    assert isinstance(settings, TouchSettings)
    assert set(config) - {"_target_"} == set(TouchSettings.__dataclass_fields__)
    # The pictures of the sensor's own YAML.
    device = yaml.safe_load((CONF / "sensor" / path.name).read_text())["device"]
    assert (device["width"], device["height"], device["model"]) == (settings.width, settings.height, settings.model)


def test_a_dry_run_its_files_and_another_unit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *SMALL, "simulate=true", "count=8", "output=out"]) == 0
    said = capsys.readouterr().out
    assert (here / "out/touch_summary.txt").read_text().strip() in said
    off = re.search(r"on new presses: ([\d.]+) grey values", said)
    assert off is not None
    assert float(off[1]) < 2.5
    depths = re.findall(r"read back: ([\d.]+) %", said)
    assert len(depths) == 3
    assert max(map(float, depths)) < 6
    calibration = TouchCalibration.load(here / "out/touch.npz")
    assert calibration.table.rows == 120
    assert json.loads((here / "out/touch.json").read_text())["left_out_grey"] < 5
    for name in ("touch_report.png", "touch_background.png", "pictures/background.png", "pictures/press_0007.png"):
        assert (here / "out" / name).read_bytes().startswith(b"\x89PNG")
    # Another fingertip of the kind, by its untouched gel.
    words = ["simulate=true", "refit=out/touch.npz", "output=other"]
    assert main(["calibrate", *SMALL, *words]) == 0
    assert "times as strong" in capsys.readouterr().out
    other = TouchCalibration.load(here / "other/touch.npz")
    assert other.gain != (1.0, 1.0, 1.0)
    assert np.abs(other.background - calibration.background).mean() > 1
    # The same by a folder that holds a background only.
    words = ["pictures=other/pictures", "refit=out/touch.npz", "output=again"]
    assert main(["calibrate", *SMALL, *words]) == 0
    np.testing.assert_allclose(TouchCalibration.load(here / "again/touch.npz").gain, other.gain, rtol=0.01)


def test_a_film_is_gone_through_and_its_pictures_are_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the bare camera of a DIGIT films: 320 x 240, on its side."""
    own = TouchSettings("digit", 240, 320, 0.003)
    unit = hidden_unit(own, hidden_lamps(np.random.default_rng(0)))
    rng = np.random.default_rng(1)
    x, y = torch.tensor([(x, y) for y in (-6e-3, 0.0, 6e-3) for x in (-3e-3, 3e-3)]).T
    overlap = balls(own, (torch.full((6,), 9e-4), x, y))
    untouched, first, second = (unit.film(maps, rng) for maps in (torch.zeros(13, 320, 240), overlap, overlap))
    pictures = untouched[:12]
    for one, other in zip(first, second, strict=True):
        pictures += [one, other, untouched[12]]
    write_film(here / "film.mkv", [np.ascontiguousarray(np.rot90(picture, -1)) for picture in pictures])
    words = ["touch=digit", "touch.width=120", "touch.height=160"]  # half of what the camera gives
    assert main(["calibrate", *words, "pictures=film.mkv", "count=20", "output=out"]) == 0
    said = capsys.readouterr().out
    assert "touch nothing" in said
    assert "the pictures ended after 6 presses" in said
    assert "6 of 6 presses" in said
    assert "20 to 50 tell more" in said
    calibration = TouchCalibration.load(here / "out/touch.npz")
    upright = unit.seen(torch.zeros(1, 320, 240))[0].numpy()
    expected = upright.reshape(160, 2, 120, 2, 3).mean(axis=(1, 3))
    assert np.abs(calibration.background - expected).mean() < 0.6
    assert (here / "out/pictures/press_0005.png").exists()
    assert not (here / "out/pictures/press_0006.png").exists()


def test_what_is_missing_or_wrong_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey = np.full((120, 96, 3), 90, np.uint8)
    write_beside(here / "bare" / "background.png", png(grey))
    write_beside(here / "empty" / "press_0.png", png(grey))
    for number in range(7):
        write_beside(here / "same" / f"press_{number}.png", png(grey))
    write_beside(here / "same" / "background.png", png(grey))
    digit, joints, ouster = (load_plain(CONF / "sensor" / f"{name}.yaml") for name in ("digit", "joints", "ouster_os1"))
    config = compose_config("calibrate", SMALL)  # once; what composing says is tested below and elsewhere
    large = {"touch": config["touch"] | {"width": 240, "height": 320}}
    changes: list[tuple[dict[str, Any], str]] = [
        ({}, "Say where the pictures come from"),
        ({"simulate": True, "pictures": "bare"}, "pictures and simulate"),
        ({"pictures": "absent"}, "Check the path"),
        ({"pictures": "empty"}, "background.png"),
        ({"pictures": "bare"}, "press_*.png"),
        ({"pictures": "same"}, "7 no contact"),
        ({"pictures": "bare", "refit": "absent.npz"}, "absent.npz"),
        ({"pictures": "absent.mkv"}, "cannot be opened"),
        ({"camera": joints}, "a live gel camera"),
        ({"camera": digit}, "touch.width"),
        ({"camera": digit | {"device": digit["device"] | {"difference": True}}}, "difference=false"),
        ({"camera": ouster}, "'rgb'"),
        ({**large, "camera": digit | {"device": digit["device"] | {"device": "/dev/none"}}}, "50-digit.rules"),
        ({"touch": config["touch"] | {"ball_radius_m": 3.0}}, "at most 0.05 m"),
        ({"touch": digit["timing"]}, "settings of a fingertip"),
        ({"touch": None, "refit": "out.npz"}, "touch=digit"),
    ]
    for change, hint in changes:
        with pytest.raises(PerceiveError) as error:
            job(config | {"output": str(here / "out")} | change)
        assert hint in str(error.value), change
    assert not list((here).glob("out/touch*"))
    for words, status, hint in (
        (["touch=digt"], 2, "Did you mean 'digit'"),
        (["touch=digit", "touch.ball_radius=3"], 2, "touch.ball_radius_m"),
        (["touch=digit"], 1, "Say where the pictures come from"),
    ):
        assert main(["calibrate", *words, "output=out"]) == status, words
        said = capsys.readouterr().err
        assert hint in said, words
        assert "Traceback" not in said
