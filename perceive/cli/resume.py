"""resume=<run folder>: go on with a run under its own saved config; only a few settings may be changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from perceive.cli.changes import changes
from perceive.cli.compose import ConfigError, parse, plain
from perceive.cli.schema import TrainSchema
from sensors.errors import DataError, nearest

CONFIG_FILE = "run.json"  # not config.json: that is the name of a model folder's own file
# What does not change what is learnt from the next step on: how long, where, how often it is saved.
# train.steps stretches the cosine of the learning rate; that is what "longer" means.
CHANGEABLE = (
    "data",
    "progress",
    "train.steps",
    "train.device",
    "train.threads",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.tensorboard",
    "rl.steps",
    "rl.device",
    "rl.threads",
    "rl.log_every",
    "rl.checkpoint_every",
    "rl.tensorboard",
)


def saved_run(overrides: Sequence[str]) -> dict[str, Any] | None:
    """The config of the run named by ``resume=``, with the changes that are allowed; None without ``resume=``.

    Prints the differences from the saved config.

    Args:
        overrides: words of the command line.

    Raises:
        ConfigError: a key that must not change, or a value of the wrong type.
        DataError: the folder is not that of a run.
    """
    given = {override.key_or_group: override for override in parse(overrides)}
    wanted = given.pop("resume", None)
    if wanted is None or wanted.value() is None:
        return None
    folder = Path(str(wanted.value()))
    path = folder / CONFIG_FILE
    try:
        saved = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"resume={folder}", f"a run folder with {CONFIG_FILE}", str(error), "Name its folder."
        ) from None
    config = OmegaConf.merge(OmegaConf.structured(TrainSchema), saved)
    assert isinstance(config, DictConfig)
    for key, override in given.items():
        if key not in CHANGEABLE:
            raise ConfigError(
                f"resume={folder}", f"changes of {', '.join(CHANGEABLE)} only", f"'{key}'",
                f"{nearest(key, CHANGEABLE)} Start a new run to change anything else.",
            )  # fmt: skip
        try:
            OmegaConf.update(config, key, override.value())
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"config key '{key}'", "a value that fits", str(override.input_line), f"{reason}."
            ) from None
    config["output"], config["resume"] = str(folder.resolve()), str(folder.resolve())
    resumed = plain(config)
    kept = {key: value for key, value in resumed.items() if key not in ("output", "resume")}
    differing = changes({key: saved.get(key) for key in kept}, kept)
    print(f"resuming {folder}" + (" with changes:" if differing else " unchanged"))
    for line in differing:
        print(f"  {line}")
    return resumed
