"""From command-line words to one checked, resolved, plain config; every mistake names the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from perceive.cli.schema import SCHEMAS, register_schemas
from perceive.cli.targets import check_targets
from sensors.errors import PerceiveError, nearest

VERSION_BASE = "1.3"
CONFIG_MODULE = "conf"


class ConfigError(PerceiveError, ValueError):
    """The words on the command line or a config file do not make a valid config."""


def compose_config(command: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved config of a command as plain data (dicts, lists, numbers, strings).

    Args:
        command: name of a root config in ``conf/``.
        overrides: Hydra overrides; of a sweep (``a=1,2``) the first choice is taken.

    Raises:
        ConfigError: an unknown key, group or option (the nearest valid one is named), a value of the wrong type, a
            key without value, or a class or argument that does not exist.
    """
    register_schemas()
    parsed = parse(overrides)
    with _hydra() as loader:
        words = [_first_choice(override) for override in parsed]
        _refuse_null_groups(parsed, loader)
        try:
            return plain(_composed(command, words))
        except (HydraException, OmegaConfBaseException) as error:
            raise _explain(error, command, parsed, loader) from error


def plain(config: DictConfig) -> dict[str, Any]:
    """Interpolations resolved, missing values refused, classes and arguments checked, and no DictConfig left.

    Raises:
        ConfigError: a value is missing, or a ``_target_`` is wrong.
    """
    try:
        data = OmegaConf.to_container(config, resolve=True, throw_on_missing=True, enum_to_str=True)
    except MissingMandatoryValue as error:
        key = error.full_key or "?"
        raise ConfigError("config", f"a value for '{key}'", "none", f"Give it: {key}=...") from None
    assert isinstance(data, dict)
    # The rig first: it also stands inside the env, but the reader writes `rig.`.
    wrong = check_targets({key: data[key] for key in sorted(data, key=lambda key: key != "rig")})
    if wrong is not None:
        raise ConfigError(*wrong)
    return {str(key): value for key, value in data.items()}


def parse(overrides: Sequence[str]) -> list[Override]:
    """Words -> overrides.

    Raises:
        ConfigError: a word is not of the form ``key=value``.
    """
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        reason = str(error.message).splitlines()[0]
        raise ConfigError(
            "command line", "key=value", f"'{error.override}' ({reason})", "Quote special characters: 'key=\"a b\"'."
        ) from None


def group_options(group: str) -> list[str]:
    """The options of a config group, e.g. ``env`` -> lift, reach ..."""
    with _hydra() as loader:
        return sorted(loader.get_group_options(group, ObjectType.CONFIG))


def groups() -> list[str]:
    """The config groups, e.g. env, model, rig."""
    with _hydra() as loader:
        return sorted(group for group in loader.list_groups("") if group != "hydra")


def flat_keys(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every key of nested plain data as a dotted path, inner nodes included."""
    found = []
    for key, value in config.items():
        path = f"{prefix}{key}"
        found.append(path)
        if isinstance(value, Mapping):
            found += flat_keys(value, f"{path}.")
    return found


def nearest_key(key: str, known: Sequence[str]) -> str:
    """As :func:`sensors.errors.nearest` for dotted paths: a right last part in the wrong place is found as well."""
    parent, _, name = key.rpartition(".")

    def likeness(other: str) -> float:
        other_parent, _, other_name = other.rpartition(".")
        last = difflib.SequenceMatcher(None, name, other_name).ratio()
        # Where it was looked for decides between equals, and between a near miss there and a far one elsewhere.
        return last * (0.9 + 0.1 * difflib.SequenceMatcher(None, parent, other_parent).ratio())

    best = max(known, key=likeness, default=None)
    if best is not None and likeness(best) >= 0.7:
        return f"Did you mean '{best}'?"
    while key and key not in known:
        key = key.rpartition(".")[0]
    inside = f"{key}." if key else ""
    beside = {other.removeprefix(inside) for other in known if other.startswith(inside)}
    return f"Known{f' in {key!r}' if key else ''}: {', '.join(sorted(name for name in beside if '.' not in name))}."


def search_path_override(folders: Sequence[str]) -> list[str]:
    """The override by which Hydra also looks for configs in folders of the user.

    Raises:
        ConfigError: a folder does not exist.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError("--config-dir", "a folder", f"'{folder}'", "Check the path.")
    if not folders:
        return []
    return ["hydra.searchpath=[" + ",".join(f'"file://{Path(folder).resolve()}"' for folder in folders) + "]"]


@contextmanager
def _hydra() -> Iterator[ConfigLoader]:
    # A command runs inside tests and other apps, so whatever Hydra state was there is put back.
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base=VERSION_BASE):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = before


def _composed(command: str, words: Sequence[str]) -> DictConfig:
    """The config with ``${hydra:...}`` resolved, without Hydra's own part."""
    config = compose(command, overrides=list(words), return_hydra_config=True)
    known, before = HydraConfig.instance(), HydraConfig.instance().cfg
    known.set_config(config)
    try:
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        OmegaConf.resolve(own)
    finally:
        known.cfg = before
    # `+key=value` adds keys behind the schema's back; merged into a fresh one they are refused.
    checked = OmegaConf.merge(OmegaConf.structured(SCHEMAS[command]), own)
    assert isinstance(checked, DictConfig)
    return checked


def _refuse_null_groups(overrides: Sequence[Override], loader: ConfigLoader) -> None:
    """``augment=null`` would fail deep within Hydra: a group takes the name of an option."""
    for override in overrides:
        key = override.key_or_group
        if override.value() is None and not override.is_delete() and key in loader.list_groups(""):
            options = sorted(loader.get_group_options(key, ObjectType.CONFIG))
            fix = f"Write {key}=none." if "none" in options else f"Leave it out, or choose one of {', '.join(options)}."
            raise ConfigError(f"config group '{key}'", f"the name of an option: {options}", "null", fix)


def _first_choice(override: Override) -> str:
    line = override.input_line or ""
    if not override.is_sweep_override():
        return line
    return f"{line.split('=', 1)[0]}={next(override.sweep_string_iterator())}"


def _explain(error: Exception, command: str, overrides: Sequence[Override], loader: ConfigLoader) -> ConfigError:
    """Find the word that is to blame, so that the message speaks of it and not of Hydra's internals."""
    for cause in _chain(error):
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _missing_option(cause)
    known_groups = [group for group in loader.list_groups("") if group != "hydra"]
    # What is valid is what the command composes with the chosen groups but without the values.
    chosen = [o.input_line or "" for o in overrides if o.key_or_group in known_groups]
    try:
        valid = flat_keys(_container(compose(command, overrides=chosen)))
        valid = [key for key in valid if not key.startswith("hydra")]
    except (HydraException, OmegaConfBaseException):
        valid = []
    for override in overrides:
        key = override.key_or_group
        if valid and not override.is_hydra_override() and not override.is_add() and key not in [*valid, *known_groups]:
            fix = nearest_key(key, sorted({*valid, *known_groups}))
            return ConfigError(f"perceive {command}", "a key of its config", f"'{key}'", fix)
    for cause in _chain(error):
        if isinstance(cause, OmegaConfBaseException):
            key = cause.full_key or ""
            reason = str(cause).splitlines()[0]
            if key in valid:
                said = [o.input_line for o in overrides if o.key_or_group == key]
                return ConfigError(
                    f"config key '{key}'", "a value that fits", str((said or ["another"])[0]), f"{reason}."
                )
            fix = nearest_key(key, valid) if key else "Correct the config."
            return ConfigError(f"perceive {command}", "keys that it has", f"'{key}'" if key else reason, fix)
    return ConfigError(f"perceive {command}", "a valid config", str(error).splitlines()[0], "Run it with --help.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _missing_option(error: MissingConfigException) -> ConfigError:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = sorted(error.options or ())
    fix = nearest(option, options)
    if group == "rig":  # its default is the env's name, so the reader may never have written it
        fix += " By default a rig has the name of the env: choose one with rig=..."
    return ConfigError(f"config group '{group}'", f"one of {options}", f"'{option}'", fix)


def _container(config: DictConfig) -> dict[str, Any]:
    data = OmegaConf.to_container(config, resolve=False)
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}
