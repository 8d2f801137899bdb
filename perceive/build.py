"""Config data -> objects: a dict with ``_target_`` (a class or function by its import path) plus its arguments.

This is Hydra's convention without Hydra, so that a library or a checkpoint can be read where Hydra is not installed,
and so that a downloaded config can only name code of this project or of packages that the caller allows.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sensors.errors import WiringError, nearest

TARGET = "_target_"
PARTIAL = "_partial_"
OWN_PREFIXES = ("perceive.", "sensors.", "envs.", "policies.")


class Resolved(ABC):
    """A part whose arguments name something outside (a folder, a hub model) that may be gone when it is built again."""

    @abstractmethod
    def resolved_arguments(self) -> dict[str, Any]:
        """Arguments, as plain JSON data, with which the part can be built again from its saved weights alone."""


def build(
    config: Mapping[str, Any],
    *,
    allow: Sequence[str] = (),
    where: str = "config",
    offered: Mapping[str, Any] | None = None,
    **extra: Any,
) -> Any:
    """The object that ``config`` describes; nested ``_target_`` dicts are built first.

    Args:
        config: ``{"_target_": "package.module.Class", argument: value, ...}``; with ``"_partial_": True`` nothing is
            called yet, and what comes back takes the arguments that are left (``functools.partial``).
        allow: import-path prefixes allowed besides this project's own, e.g. ``("my_robot.",)``.
        where: what is being built, for errors.
        offered: arguments that are passed only if the target takes them.
        extra: further arguments, known to the caller and not to the config (spaces, widths).

    Raises:
        WiringError: no ``_target_``, a target outside the allowed prefixes, an unknown name or unknown argument.
    """
    if TARGET not in config:
        raise WiringError(where, f"a '{TARGET}' entry", f"the keys {sorted(config)}", "Name the class to build.")
    target = resolve(str(config[TARGET]), allow=allow, where=where)
    arguments = {
        key: _build_value(value, allow, f"{where}.{key}")
        for key, value in config.items()
        if key not in (TARGET, PARTIAL)
    } | extra
    known = inspect.signature(target).parameters
    arguments |= {name: value for name, value in (offered or {}).items() if name in known}
    for name in arguments:
        if name not in known:
            raise WiringError(
                where, f"an argument of {config[TARGET]}: {sorted(known)}", f"'{name}'", nearest(name, known)
            )
    if config.get(PARTIAL):
        return partial(target, **arguments)
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in arguments:
            raise WiringError(where, f"a value for '{name}' of {config[TARGET]}", "nothing", f"Add '{name}'.")
    return target(**arguments)


def resolve(path: str, *, allow: Sequence[str] = (), where: str = "config") -> Any:
    """The class or function at an import path.

    Raises:
        WiringError: the path is not under an allowed prefix, or does not exist.
    """
    prefixes = (*OWN_PREFIXES, *allow)
    if not path.startswith(prefixes):
        raise WiringError(
            where,
            f"a {TARGET} under {', '.join(prefixes)}",
            f"'{path}'",
            "Pass its package in 'allow' if you trust it.",
        )
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module exists, and something that *it* needs does not
        raise WiringError(where, "an importable module", f"'{module_name}'", "Check the spelling.") from error
    if name not in vars(module):
        raise WiringError(where, f"a name in {module_name}", f"'{name}'", nearest(name, vars(module)))
    found = vars(module)[name]
    # What a module of ours merely imports (``subprocess.run``) is not ours to hand out.
    if not callable(found) or not f"{found.__module__}.".startswith(prefixes):
        raise WiringError(where, f"a class or function of {module_name}", f"'{path}'", "Name where it is defined.")
    return found


def _build_value(value: Any, allow: Sequence[str], where: str) -> Any:
    if isinstance(value, Mapping):
        if TARGET in value:
            return build(value, allow=allow, where=where)
        return {key: _build_value(part, allow, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_build_value(part, allow, f"{where}[{i}]") for i, part in enumerate(value)]
    return value
