"""A report folder that people look at: one self-contained HTML page with figures, videos and tables."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --good: #2a9d5c; --bad: #d1495b; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem } .lead { font-size: 1.15rem; margin-top: 0 }
table { border-collapse: collapse; margin: .6rem 0 }
td, th { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.bar { display: inline-block; height: .7rem; background: var(--good); border-radius: 2px; vertical-align: middle }
.track { display: inline-block; width: 10rem; background: var(--soft); border-radius: 2px; line-height: .7rem }
figure { display: inline-block; margin: .4rem } figcaption { font-size: .85rem } img { max-width: 100% }
figure.good img { outline: 3px solid var(--good) } figure.bad img { outline: 3px solid var(--bad) }
pre { background: var(--soft); padding: 1rem; overflow: auto; max-height: 30rem; font-size: .8rem }
small { opacity: .7 }
"""


@dataclass(frozen=True)
class Rate:
    """A success rate: ``successes`` of ``episodes`` with its Wilson 95 % interval [low, high]."""

    label: str
    successes: int
    episodes: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Successes over episodes."""
        return self.successes / self.episodes if self.episodes else 0.0


@dataclass(frozen=True, eq=False)
class Clip:
    """A film of one episode.

    Attributes:
        caption: what is seen.
        success: colours the frame.
        gif: the encoded GIF.
    """

    caption: str
    success: bool
    gif: bytes


@dataclass(frozen=True, eq=False)
class Report:
    """Everything on the page.

    Attributes:
        title: headline.
        lead: one or two sentences.
        headline: the main success rate.
        tables: heading -> (explanation, rates).
        curve: rows of the training log.
        clips: films.
        timings_s: stage -> seconds.
        facts: name -> text, for the small table.
        config: the resolved config.
    """

    title: str
    lead: str
    headline: Rate
    tables: Mapping[str, tuple[str, Sequence[Rate]]]
    curve: Sequence[Mapping[str, Any]]
    clips: Sequence[Clip]
    timings_s: Mapping[str, float]
    facts: Mapping[str, str]
    config: Mapping[str, Any]


def write_report(path: Path, report: Report) -> Path:
    """Write the page beside and rename it to ``path``; it needs no other file."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(render_html(report), encoding="utf-8")
    part.replace(path)
    return path


def render_html(report: Report) -> str:
    """The page as text."""
    pieces = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{_text(report.title)}</title>",
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style>",
        f"<h1>{_text(report.title)}</h1><p class='lead'>{_text(report.lead)}</p>",
        f"<table>{_rate_row(report.headline)}</table>",
    ]
    if report.clips:
        pieces.append("<h2>What it does</h2>" + "".join(_clip(clip) for clip in report.clips))
    if report.curve:
        pieces.append(
            "<h2>Learning curve</h2><img alt='loss over steps' src='" + _data("png", curve_png(report.curve)) + "'>"
        )
    for heading, (explanation, rates) in report.tables.items():
        rows = "".join(_rate_row(rate) for rate in rates)
        pieces.append(f"<h2>{_text(heading)}</h2><p>{_text(explanation)}</p><table>{rows}</table>")
    timings = "".join(
        f"<tr><td>{_text(name)}<td class='number'>{seconds:.1f} s" for name, seconds in report.timings_s.items()
    )
    facts = "".join(f"<tr><td>{_text(name)}<td>{_text(value)}" for name, value in report.facts.items())
    pieces.append(f"<h2>Timings</h2><table>{timings}</table><h2>Facts</h2><table>{facts}</table>")
    pieces.append(f"<h2>Config</h2><pre>{_text(json.dumps(report.config, indent=1))}</pre></html>")
    return "\n".join(pieces)


def curve_png(curve: Sequence[Mapping[str, Any]]) -> bytes:
    """Training (and validation) loss over steps as a PNG."""
    from matplotlib.figure import Figure  # drawing is rare; the import is slow

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    for key, label in (("loss", "training loss"), ("validation_loss", "loss on held-back episodes")):
        rows = [(row["step"], row[key]) for row in curve if key in row]
        if rows:
            steps, values = zip(*rows, strict=True)
            axes.plot(steps, values, label=label)
    axes.set(xlabel="step", ylabel="L1 loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def encode_gif(frames: Sequence[NDArray[np.uint8]], rate_hz: float, scale: int = 1) -> bytes:
    """Frames uint8 [H, W, 3] as an endless GIF; the last frame is held for a second."""
    from PIL import Image

    pictures = [Image.fromarray(np.repeat(np.repeat(frame, scale, 0), scale, 1)) for frame in frames]
    buffer = io.BytesIO()
    milliseconds = [round(1000 / rate_hz)] * (len(pictures) - 1) + [1000]
    pictures[0].save(buffer, format="GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def _text(value: str) -> str:
    return html.escape(str(value))


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _clip(clip: Clip) -> str:
    kind = "good" if clip.success else "bad"
    caption, film = _text(clip.caption), _data("gif", clip.gif)
    return f"<figure class='{kind}'><img alt='{caption}' src='{film}'><figcaption>{caption}</figcaption></figure>"


def _rate_row(rate: Rate) -> str:
    bar = f"<span class='track'><span class='bar' style='width:{100 * rate.value:.0f}%'></span></span>"
    return (
        f"<tr><td>{_text(rate.label)}<td>{bar}<td class='number'>{100 * rate.value:.0f} %"
        f"<td><small>{rate.successes} of {rate.episodes}, 95 % interval "
        f"{100 * rate.low:.0f}-{100 * rate.high:.0f} %</small>"
    )
