"""The report page: what is on it, and that nothing has to be fetched to see it."""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from perceive.report import Clip, Rate, Report, curve_png, encode_gif, render_html, write_report

RATE = Rate("all <sensors>", 45, 50, 0.79, 0.96)
CURVE = [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 0.5, "validation_loss": 0.6}]


def frames(count: int) -> list[np.ndarray]:
    """Pictures that differ, 8 x 12."""
    return [np.full((8, 12, 3), 20 * index, np.uint8) for index in range(count)]


def page(clips: list[Clip]) -> str:
    """A page with one table."""
    tables = {"Missing sensors": ("Why.", [RATE, Rate("none", 0, 50, 0.0, 0.07)])}
    return render_html(Report("Title", "Lead.", RATE, tables, CURVE, clips, {"train": 1.5}, {"seed": "0"}, {"a": 1}))


def test_gif_holds_every_frame_at_its_rate() -> None:
    picture = Image.open(io.BytesIO(encode_gif(frames(5), 10.0, scale=2)))
    assert (picture.size, picture.n_frames, picture.info["duration"]) == ((24, 16), 5, 100)


def test_curve_is_a_picture() -> None:
    assert Image.open(io.BytesIO(curve_png(CURVE))).size[0] > 400


def test_page_is_self_contained_and_escaped() -> None:
    text = page([Clip("seed 1: failure", False, encode_gif(frames(2), 10.0))])
    assert "all &lt;sensors&gt;" in text
    assert "90 %" in text
    assert "45 of 50" in text
    assert "79-96 %" in text
    sources = re.findall(r"src='([^']{0,30})", text)
    assert len(sources) == 2
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://", text)


def test_page_is_written_whole(tmp_path: Path) -> None:
    report = Report("T", "L", RATE, {}, [], [], {}, {}, {})
    path = write_report(tmp_path / "report.html", report)
    assert path.read_text().endswith("</html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
