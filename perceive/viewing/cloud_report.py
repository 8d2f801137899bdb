"""The report of a model that reads clouds: figures, a table per class, confusions, and pictures, worst first."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import cv2
import numpy as np
from numpy.typing import NDArray

from perceive.report import STYLE
from perceive.results import Figure
from perceive.viewing.draw import Picture
from sensors.errors import SpecError

_OWN_STYLE = "td.cell { text-align: right; min-width: 3rem } td.head, th { white-space: nowrap }"


@final
@dataclass(frozen=True, eq=False)
class Table:
    """A table of the report.

    Attributes:
        heading: what it is of.
        about: how to read it.
        columns: names; the first is that of the rows' names.
        rows: name and cells of each; a cell that is NaN is shown as a dash.

    Raises:
        SpecError: a row of another length than the columns.
    """

    heading: str
    about: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | str]]]

    def __post_init__(self) -> None:
        for name, cells in self.rows:
            if len(cells) + 1 != len(self.columns):
                got = f"{len(cells)} in '{name}'"
                raise SpecError(f"Table '{self.heading}'", f"{len(self.columns) - 1} cells", got, "Correct it.")


@final
@dataclass(frozen=True, eq=False)
class Panel:
    """One cloud of the report.

    Attributes:
        caption: which one, and how well it was read.
        picture: uint8 [H, W, 3], all looks at it.
    """

    caption: str
    picture: Picture


@final
@dataclass(frozen=True, eq=False)
class CloudReport:
    """Everything on the page.

    Attributes:
        title: headline.
        lead: one or two sentences.
        figures: the headline figures.
        tables: in order.
        panels: clouds, the worst first.
        facts: name -> text, for the small table.
        config: the resolved config.
        shown: what the panels are, in the plural.
    """

    title: str
    lead: str
    figures: Mapping[str, Figure]
    tables: Sequence[Table]
    panels: Sequence[Panel]
    facts: Mapping[str, str]
    config: Mapping[str, Any]
    shown: str = "Clouds"


def write_cloud_report(path: str | Path, report: CloudReport) -> Path:
    """Write the page beside and rename it to ``path``; it needs no other file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(render_cloud_report(report), encoding="utf-8")
    part.replace(path)
    return path


def render_cloud_report(report: CloudReport) -> str:
    """The page as text."""
    rows = "".join(_figure_row(name, figure) for name, figure in report.figures.items())
    facts = "".join(f"<tr><td>{_text(name)}<td>{_text(value)}" for name, value in report.facts.items())
    pieces = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{_text(report.title)}</title>",
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}{_OWN_STYLE}</style>",
        f"<h1>{_text(report.title)}</h1><p class='lead'>{_text(report.lead)}</p><table>{rows}</table>",
        *(_table(table) for table in report.tables),
    ]
    if report.panels:
        pieces.append(
            f"<h2>{_text(report.shown)}, worst first</h2>" + "".join(_panel(panel) for panel in report.panels)
        )
    pieces.append(f"<h2>Facts</h2><table>{facts}</table>")
    pieces.append(f"<h2>Config</h2><pre>{_text(json.dumps(report.config, indent=1, default=str))}</pre></html>")
    return "\n".join(pieces)


def confusion_table(heading: str, names: Sequence[str], matrix: NDArray[np.int64], unit: str) -> Table:
    """What each class was taken for, as shares of the row, of a matrix [S, S] of true rows and guessed columns."""
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
    rows = [
        (f"{name} ({int(count):,})", [_percent(value) for value in row])
        for name, count, row in zip(names, total[:, 0], share, strict=True)
    ]
    about = f"A row: of the {unit} of a class (how many in brackets), what share was taken for which."
    return Table(heading, about, ["truth", *names], rows)


def _percent(share: float) -> str:
    return "-" if not np.isfinite(share) else f"{100 * share:.1f} %"


def _figure_row(name: str, figure: Figure) -> str:
    def said(value: float) -> str:
        return _percent(value) if figure.unit == "fraction" else f"{value:.4g} {_text(figure.unit)}"

    bar = ""
    if figure.unit == "fraction":
        wide = 100 * min(max(figure.value, 0.0), 1.0)
        bar = f"<span class='track'><span class='bar' style='width:{wide:.0f}%'></span></span>"
    beside = []
    if figure.low is not None and figure.high is not None:
        beside.append(f"95 % interval {said(figure.low)} to {said(figure.high)}")
    if figure.n is not None:
        beside.append(f"n = {figure.n:,}")
    return (
        f"<tr><td>{_text(name)}<td>{bar}<td class='number'>{said(figure.value)}<td><small>{'; '.join(beside)}</small>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(name)}" for name in table.columns)
    rows = "".join(
        f"<tr><td class='head'>{_text(name)}" + "".join(f"<td class='cell'>{_cell(cell)}" for cell in cells)
        for name, cells in table.rows
    )
    return f"<h2>{_text(table.heading)}</h2><p>{_text(table.about)}</p><table><tr>{head}{rows}</table>"


def _cell(cell: float | str) -> str:
    if isinstance(cell, str):
        return _text(cell)
    return f"{cell:.3f}" if np.isfinite(cell) else "-"


def _panel(panel: Panel) -> str:
    done, data = cv2.imencode(".png", np.ascontiguousarray(panel.picture[..., ::-1]))
    assert done  # a uint8 picture of three channels always can be
    source = f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"
    caption = _text(panel.caption)
    return f"<figure><img alt='{caption}' src='{source}'><figcaption>{caption}</figcaption></figure>"


def _text(value: str) -> str:
    return html.escape(str(value))
