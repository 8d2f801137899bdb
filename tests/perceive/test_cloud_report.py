"""The report of a model that reads clouds: what it was given is on the page, and the page needs nothing else."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from perceive.results import Figure, success_figure
from perceive.viewing.cloud_report import CloudReport, Panel, Table, confusion_table, write_cloud_report
from sensors.errors import SpecError


def report(panels: list[Panel]) -> CloudReport:
    return CloudReport(
        title="cups & bowls",
        lead="A <model>.",
        figures={"accuracy": success_figure(3, 4), "CPU per cloud": Figure(12.5, "ms", n=2)},
        tables=[Table("By class", "How.", ["class", "IoU"], [("cup", [0.25]), ("bowl", [float("nan")])])],
        panels=panels,
        facts={"cores": "2"},
        config={"rotate": "so3"},
    )


def test_everything_is_on_the_page(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (8, 12, 3)).astype(np.uint8)
    path = write_cloud_report(tmp_path / "new" / "report.html", report([Panel("cloud 7", picture)]))
    page = path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    for words in ("cups &amp; bowls", "A &lt;model&gt;.", "75.0 %", "30.1 % to 95.4 %", "12.5 ms", "n = 2"):
        assert words in page
    assert "<td class='head'>cup<td class='cell'>0.250" in page
    assert "<td class='head'>bowl<td class='cell'>-" in page
    assert "cloud 7" in page
    assert "so3" in page
    # No other file, no other machine.
    sources = re.findall(r"(?:src|href)='([^']*)'", page)
    assert len(sources) == 1
    kind, _, data = sources[0].partition(",")
    assert kind == "data:image/png;base64"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    np.testing.assert_array_equal(image[..., ::-1], picture)


def test_without_pictures_there_is_no_heading_for_them(tmp_path: Path) -> None:
    assert "Clouds, worst first" not in write_cloud_report(tmp_path / "report.html", report([])).read_text()


def test_confusions_are_shares_of_the_truth() -> None:
    table = confusion_table("Which", ["a", "b"], np.array([[3, 1], [0, 0]]), "points")
    assert table.columns == ["truth", "a", "b"]
    assert table.rows == [("a (4)", ["75.0 %", "25.0 %"]), ("b (0)", ["-", "-"])]


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match="1 cells"):
        Table("By class", "", ["class", "IoU"], [("cup", [0.1, 0.2])])
