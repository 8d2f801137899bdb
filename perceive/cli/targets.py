"""Checks every ``_target_`` of a config against the code: the class exists, its arguments exist, and types fit.

Hydra's schemas cover the commands' own keys; a component's keys are its constructor's arguments, which are checked
here, so that a misspelt one fails before anything runs and no second list of them has to be kept.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

from perceive.build import PARTIAL, TARGET, resolve
from sensors.errors import WiringError, nearest

Wrong = tuple[str, str, str, str]


def check_targets(config: Any, where: str = "") -> Wrong | None:
    """The first mistake as (where, expected, got, fix), or None.

    Args:
        config: resolved plain data.
        where: dotted path of ``config`` in the whole.
    """
    if isinstance(config, list):
        parts: list[tuple[str, Any]] = [(f"{where}[{i}]", value) for i, value in enumerate(config)]
    elif isinstance(config, Mapping):
        if TARGET in config:
            wrong = _check_one(config, where)
            if wrong is not None:
                return wrong
        parts = [(f"{where}.{key}" if where else str(key), value) for key, value in config.items()]
    else:
        return None
    for path, value in parts:
        wrong = check_targets(value, path)
        if wrong is not None:
            return wrong
    return None


def _check_one(config: Mapping[str, Any], where: str) -> Wrong | None:
    place = f"config key '{where or TARGET}'"
    try:
        target = resolve(str(config[TARGET]), where=place)
    except WiringError as error:
        return error.where, error.expected, error.got, error.fix
    known = inspect.signature(target).parameters
    hints = _hints(target)
    for name, value in config.items():
        if name in (TARGET, PARTIAL):
            continue
        if name not in known:
            return place, f"an argument of {config[TARGET]}", f"'{name}'", nearest(str(name), known)
        if name in hints and not _fits(value, hints[name]):
            expected = f"{_say(hints[name])} for '{name}' of {config[TARGET]}"
            return f"config key '{where}.{name}'", expected, f"{type(value).__name__} {value!r}", "Correct the value."
    return None


def _hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # an annotation under TYPE_CHECKING: its types cannot be checked
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether plain data can be meant for an argument; only clear contradictions are False."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(value, Mapping):  # a mapping may be a part still to be built
        return hint not in (int, float, str, bool)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return isinstance(value, str) and value in [member.value for member in hint]
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is type(None):
        return value is None
    if value is None:
        return hint in (None, object)
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        return isinstance(value, list) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin in (tuple, list):
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    return True


def _say(hint: Any) -> str:
    return hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint)
