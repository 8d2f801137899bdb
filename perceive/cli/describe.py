"""The settings of a command for its --help, each with its value and its line of the schema's docstring."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any


def describe(schema: type, config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line a setting: its key, its value in ``config``, and what it is for (from the docstring)."""
    said = _attributes(schema)
    lines = []
    for name, hint in typing.get_type_hints(schema).items():
        key, value = f"{prefix}{name}", config.get(name)
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping) and isinstance(hint, type):
            lines += describe(hint, value, f"{key}.")
        elif isinstance(value, Mapping):
            lines.append(f"  {key:<28} {value.get('_target_', '{...}' if value else '{}')!s:<22} {said.get(name, '')}")
        else:
            lines.append(f"  {key:<28} {_word(value):<22} {said.get(name, '')}")
    return lines


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def _attributes(schema: type) -> dict[str, str]:
    """The "Attributes:" section of a docstring: name -> text on one line."""
    found: dict[str, str] = {}
    section = (schema.__doc__ or "").partition("Attributes:")[2].partition("\n\n")[0]
    name = ""
    for line in section.splitlines():
        indent, text = len(line) - len(line.lstrip()), line.strip()
        head, colon, rest = text.partition(": ")
        if indent == 8 and colon and head.isidentifier():
            name = head
            found[name] = rest
        elif name and text:
            found[name] += f" {text}"
    return found
