"""The ``perceive`` command: one sub-command a module, each over Hydra's ``conf``. Nothing imports this package."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from sensors.errors import PerceiveError, nearest

# name -> (module with `main(arguments) -> int`, what it does)
COMMANDS = {
    "collect": ("perceive.cli.collect", "record demonstrations of a scripted expert"),
    "scenes": ("perceive.cli.scenes", "generate labelled point clouds, or pictures of objects with their poses"),
    "train": ("perceive.cli.train", "train a policy from demonstrations, or by reinforcement learning"),
    "evaluate": ("perceive.cli.evaluate", "measure a trained policy on held-out seeds"),
    "score": ("perceive.cli.score", "measure a trained perception model on labelled clouds"),
    "poses": ("perceive.cli.poses", "estimate 6D poses of known objects in pictures, score and draw them"),
    "export": ("perceive.cli.export", "write a trained backbone of point clouds as ONNX"),
    "run": ("perceive.cli.run", "drive a robot with a trained policy, in real time"),
    "record": ("perceive.cli.record", "record every frame of a robot's sensors into one file"),
    "view": ("perceive.cli.view", "show an episode, clouds of points or a live environment"),
    "demo": ("perceive.cli.demo", "the main job: collect, train and evaluate Lift, and write a report"),
    "calibrate": ("perceive.cli.calibrate", "find a camera's intrinsics, and where it is on or beside a robot"),
    "doctor": ("perceive.cli.doctor", "say what works on this machine and how to fix what does not"),
    "results": ("perceive.cli.results", "write RESULTS.md from results/*.json"),
}

USAGE = """usage: perceive <command> [key=value ...] [--help]

commands:
{commands}

Settings are Hydra overrides: `perceive collect env=lift episodes=50 noise.position_m=0.02`.
`perceive <command> --help` lists the settings of a command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 failed (the message says why), 2 misused (unknown command, key or value),
        130 interrupted. ``PERCEIVE_DEBUG=1`` shows the traceback of an error.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print(USAGE.format(commands="\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items())))
        return 0 if words else 2
    name, *rest = words
    if name not in COMMANDS:
        print(f"perceive: unknown command '{name}'. {nearest(name, COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(COMMANDS[name][0]).main(rest))
    except PerceiveError as error:
        if os.environ.get("PERCEIVE_DEBUG") == "1":
            traceback.print_exc()
        print(f"perceive {name}: {error}", file=sys.stderr)
        # Imported late: help and unknown commands need no Hydra.
        from perceive.cli.compose import ConfigError

        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:  # a full disk, a folder that may not be written
        if os.environ.get("PERCEIVE_DEBUG") == "1":
            traceback.print_exc()
        fix = "Free space, or choose another folder with output=...; what is finished is kept."
        print(f"perceive {name}: {error}. {fix}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nperceive {name}: interrupted; start the same command again to go on.", file=sys.stderr)
        return 130
