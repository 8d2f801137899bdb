"""A command as a Hydra app: flags, help, checks before anything starts, the output folder, sweeps."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from perceive.cli.compose import (
    CONFIG_MODULE,
    VERSION_BASE,
    ConfigError,
    compose_config,
    group_options,
    groups,
    plain,
    search_path_override,
)
from perceive.cli.describe import describe
from perceive.cli.schema import SCHEMAS
from sensors.errors import PerceiveError

OUTPUT = "output"
# Keys that only the reader can know; the other open ones are filled by the root configs.
REQUIRED = ("checkpoint", "policy")
Job = Callable[[dict[str, Any]], object]
Resume = Callable[[Sequence[str]], dict[str, Any] | None]


def _never(_overrides: Sequence[str]) -> dict[str, Any] | None:
    """Of commands that have no runs to go on with."""
    return None


@dataclass(frozen=True)
class App:
    """A command over a root config of ``conf/``.

    Attributes:
        name: the command and its root config.
        about: what it does, for ``--help``.
        examples: command lines, for ``--help``.
        job: does it; is given the resolved config as plain data, with ``output`` as an absolute path.
        resume: given the overrides, the config of an earlier run to go on with, or None to compose a new one.
    """

    name: str
    about: str
    examples: tuple[str, ...]
    job: Job
    resume: Resume = _never

    def main(self, arguments: Sequence[str]) -> int:
        """Run with the words of the command line that follow the command.

        Returns:
            The exit status.

        Raises:
            PerceiveError: what the job raises, or a :class:`ConfigError`.
        """
        flags = self._parse(arguments)
        overrides = search_path_override(flags.config_dir) + flags.overrides
        if flags.help:
            print(self.help(overrides))
            return 0
        resumed = self.resume(overrides)
        if resumed is not None:
            self.job(resumed)
            return 0
        compose_config(self.name, overrides)  # fails with a message about the reader's own words
        words = list(overrides)
        words += ["--multirun"] if flags.multirun else []
        words += ["--cfg", flags.cfg] if flags.cfg else []
        self._run(words)
        return 0

    def help(self, overrides: Sequence[str] = ()) -> str:
        """Usage, examples, settings with their defaults, and the options of every group that the command uses."""
        config = compose_config(self.name, overrides_for_help(self.name, overrides))
        lines = [f"usage: perceive {self.name} [key=value ...]", "", self.about, "", "examples:"]
        lines += [f"  {example}" for example in self.examples]
        lines += ["", "settings (with their defaults):"]
        lines += describe(SCHEMAS[self.name], config)
        lines += ["", "groups (choose with group=option; --config-dir adds a folder of your own):"]
        used = [group for group in groups() if group in config or group in ("experiment", "sensor")]
        lines += [f"  {group:<11} {', '.join(group_options(group))}" for group in used]
        lines += ["", "flags:", *(f"  {line}" for line in FLAGS)]
        return "\n".join(lines)

    def _parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        parser = _Parser(prog=f"perceive {self.name}", add_help=False, allow_abbrev=False)
        parser.add_argument("-h", "--help", action="store_true")
        parser.add_argument("-m", "--multirun", action="store_true")
        parser.add_argument("--cfg", choices=("job", "hydra", "all"))
        parser.add_argument("--config-dir", action="append", default=[])
        parser.add_argument("overrides", nargs="*")
        return parser.parse_intermixed_args(list(arguments))

    def _run(self, words: list[str]) -> None:
        failed: list[PerceiveError] = []

        def task(config: DictConfig) -> object:
            try:
                return self.job(plain(_with_output(config)))
            except PerceiveError as error:  # kept: Hydra would write a line of its own about it
                failed.append(error)
                return None

        argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
        sys.argv = [f"perceive {self.name}", *words]
        # Hydra would print errors itself and leave; they are ours to show.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            app = hydra.main(version_base=VERSION_BASE, config_path=f"pkg://{CONFIG_MODULE}", config_name=self.name)
            app(task)()
            if failed:  # in a sweep the other jobs have run
                raise failed[0]
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(
                f"perceive {self.name}", "a config that Hydra can run", str(error), "See --help."
            ) from error
        finally:
            sys.argv = argv
            if full_error is None:
                del os.environ["HYDRA_FULL_ERROR"]
            else:
                os.environ["HYDRA_FULL_ERROR"] = full_error


FLAGS = (
    "-h, --help        this text",
    "-m, --multirun    run once for every combination of values given as a=1,2",
    "--cfg job         print the composed config and stop",
    "--config-dir DIR  look for configs in DIR as well",
)


def overrides_for_help(name: str, overrides: Sequence[str]) -> list[str]:
    """The overrides that make a config complete enough to be shown: required keys get a placeholder."""
    given = {word.split("=", 1)[0] for word in overrides}
    missing = [f.name for f in fields(SCHEMAS[name]) if f.default == MISSING and f.name in REQUIRED]
    return [*overrides, *(f"{key}=REQUIRED" for key in missing if key not in given)]


def _with_output(config: DictConfig) -> DictConfig:
    # Hydra has the last word on the folder: in a sweep each job has its own.
    OmegaConf.set_readonly(config, False)
    config[OUTPUT] = str(Path(HydraConfig.get().runtime.output_dir).resolve())
    return config


def portable_command(name: str) -> str:
    """The command line of this process, for a result file: without the folders of this machine."""

    def portable(word: str) -> str:
        key, equals, value = word.partition("=")
        return f"{key}={Path(value).name}" if equals and value.startswith(("/", "~")) else word

    return shlex.join(["perceive", name, *map(portable, sys.argv[1:])])


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(self.prog, "key=value words and known flags", message, "See --help.")
