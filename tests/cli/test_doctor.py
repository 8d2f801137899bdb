"""perceive doctor: honest with missing extras, missing libraries, closed devices and crashing checks."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path

import pytest

from perceive.cli import checks, doctor
from perceive.cli.checks import Check, State

SPACE = namedtuple("SPACE", "total used free")


def test_it_says_that_this_machine_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    for subject in ("python", "torch", "pybullet", "renderer", "open3d", "cameras", "serial devices", "disk"):
        assert subject in said


def test_a_crashing_check_is_a_finding_and_hides_no_other() -> None:
    def check_crash() -> list[Check]:
        raise RuntimeError("driver went away")

    found = doctor.examine([check_crash, checks.check_python])
    assert [check.state for check in found] == [State.BROKEN, State.WORKS]
    assert "driver went away" in found[0].detail
    assert "Broken: crash" in doctor.render(found)


def test_findings_as_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (checks.check_python,))
    monkeypatch.setattr(doctor.examine, "__defaults__", ((checks.check_python,),))
    assert doctor.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "python"


def test_missing_extras_are_absent_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name in checks.EXTRAS else find_spec(name))
    found = checks.check_extras()
    assert {check.state for check in found} == {State.ABSENT}
    assert all("pip install 'perceive[" in check.fix for check in found)
    assert checks.check_realsense() == []


def test_a_missing_libusb_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(checks.sys, "platform", "linux")
    (found,) = checks.check_open3d()
    assert found.state is State.BROKEN
    assert found.fix == "sudo apt-get install libusb-1.0-0"


def test_devices_and_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (none,) = checks.check_cameras(tmp_path)
    assert none.state is State.ABSENT
    (tmp_path / "video0").touch()
    (tmp_path / "ttyUSB0").touch()
    assert checks.check_cameras(tmp_path)[0].state is State.WORKS
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (closed,) = checks.check_serial(tmp_path)
    assert "ttyUSB0: no permission" in closed.detail
    assert "usermod -aG dialout" in closed.fix


def test_a_full_disk_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SPACE(10, 9, 2**30))
    (found,) = checks.check_disk()
    assert (found.state, found.detail) == (State.BROKEN, "1.0 GiB free here")


def test_a_simulator_that_crashes_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_python", lambda code: "Segmentation fault")
    (found,) = checks.check_pybullet()
    assert found.state is State.BROKEN
