"""perceive results: the page is made from the files, and --check tells when it is out of date."""

from __future__ import annotations

from pathlib import Path

import pytest

from perceive.cli import main
from perceive.results import success_figure, write_result


def test_the_page_follows_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["results"]) == 1
    assert "does not exist" in capsys.readouterr().err
    write_result("results/lift.json", "Lift", {"success": success_figure(49, 50)}, range(50), {})
    assert main(["results", "--check"]) == 1
    assert main(["results"]) == 0
    assert "98.0 %" in (tmp_path / "RESULTS.md").read_text()
    assert main(["results", "--check"]) == 0
    write_result("results/lift.json", "Lift", {"success": success_figure(48, 50)}, range(50), {})
    assert main(["results", "--check"]) == 1
