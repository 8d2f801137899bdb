"""RESULTS.md, made from the JSON files that :mod:`perceive.results` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perceive.results import read_result
from sensors.errors import DataError

HEAD = """# Results

Made by `perceive results` from the files in `{folder}/`; do not edit. Success rates carry their 95 % Wilson interval.
Every file also holds the config, the versions and the machine.
"""


def render_results_markdown(folder: str | Path) -> str:
    """The page for all ``*.json`` in ``folder``, in order of their file names.

    Raises:
        DataError: the folder does not exist, or one of its files is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("results", "a folder of result files", f"'{folder}', which does not exist", "Run a benchmark.")
    parts = [HEAD.format(folder=folder.name)]
    for path in sorted(folder.glob("*.json")):
        parts.append(_section(path.name, read_result(path)))
    if len(parts) == 1:
        parts.append("No result has been written yet.\n")
    return "\n".join(parts)


def _section(file_name: str, record: dict[str, Any]) -> str:
    figures: dict[str, dict[str, Any]] = record["figures"]
    columns: list[tuple[str, list[str]]] = [("figure", list(figures))]
    columns.append(("value", [_number(f["value"], f.get("unit", "")) for f in figures.values()]))
    columns.append(("interval", [_interval(f) for f in figures.values()]))
    columns.append(("n", [str(f.get("n", "")) for f in figures.values()]))
    columns.append(("goal", [_goal(f) for f in figures.values()]))
    columns = [column for i, column in enumerate(columns) if i < 2 or any(column[1])]
    lines = [f"## {record['name']}", ""]
    if record["about"]:
        lines += [record["about"], ""]
    lines.append("| " + " | ".join(title for title, _ in columns) + " |")
    lines.append("|" + "---|" * len(columns))
    for row in range(len(figures)):
        lines.append("| " + " | ".join(cells[row] for _, cells in columns) + " |")
    lines += ["", _circumstances(file_name, record), ""]
    return "\n".join(lines)


def _circumstances(file_name: str, record: dict[str, Any]) -> str:
    machine, versions, git = record["machine"], record["versions"], record["git"]
    said = [f"`{file_name}`, {record['finished']}"]
    if record["command"]:
        said.append(f"by `{record['command']}`")
    if record["seeds"]:
        said.append(f"seeds {_seeds(record['seeds'])}")
    said.append(
        f"{machine['cores']} cores of {machine['cpu']}" + "".join(f", {gpu}" for gpu in machine.get("gpus", []))
    )
    if record["wall_s"] is not None:
        said.append(f"{record['wall_s']:.0f} s on the wall, {record['cpu_s']:.0f} s of CPU")
    said.append(", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "numpy") if name in versions))
    if git is not None:
        said.append(f"commit {git['commit'][:10]}" + (" with changes" if git["changed"] else ""))
    return "; ".join(said) + "."


def _seeds(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _number(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{100 * value:.1f} %"
    if float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):,}"
    else:
        text = f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def _interval(figure: dict[str, Any]) -> str:
    if "low" not in figure or "high" not in figure:
        return ""
    unit = figure.get("unit", "")
    return f"{_number(figure['low'], unit)} to {_number(figure['high'], unit)}"


def _goal(figure: dict[str, Any]) -> str:
    wanted = [
        f"{sign} {_number(figure[key], figure.get('unit', ''))}"
        for key, sign in (("at_least", ">="), ("at_most", "<="))
        if key in figure
    ]
    return f"{' and '.join(wanted)}: {'met' if figure['met'] else 'NOT met'}" if wanted else ""
