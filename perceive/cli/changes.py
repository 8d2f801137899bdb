"""The keys in which two configs differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def changes(before: Any, now: Any, where: str = "") -> list[str]:
    """One line a difference: dotted key, value before, value now. A key that one side lacks counts as null."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            line
            for key in keys
            for line in changes(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
        ]
    return [] if before == now else [f"{where}: {before!r} -> {now!r}"]
