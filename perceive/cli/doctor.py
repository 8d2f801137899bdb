"""perceive doctor: what works on this machine, and how to fix what does not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from perceive.cli.checks import (
    Check,
    State,
    check_cameras,
    check_disk,
    check_extras,
    check_gpu,
    check_open3d,
    check_pybullet,
    check_python,
    check_realsense,
    check_renderer,
    check_serial,
    check_torch,
    check_torchvision,
)

# Each answers on its own: a check that crashes is a finding and hides no other.
CHECKS: tuple[Callable[[], Sequence[Check]], ...] = (
    check_python,
    check_torch,
    check_gpu,
    check_torchvision,
    check_pybullet,
    check_renderer,
    check_open3d,
    check_extras,
    check_cameras,
    check_realsense,
    check_serial,
    check_disk,
)
MARK = {State.WORKS: "ok  ", State.ABSENT: "-   ", State.BROKEN: "FAIL"}


def main(arguments: Sequence[str]) -> int:
    """Print the findings; the status is 1 if something that the core needs is broken.

    Args:
        arguments: ``--json`` prints them as data.
    """
    parser = argparse.ArgumentParser(prog="perceive doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    flags = parser.parse_args(list(arguments))
    found = examine()
    if flags.json:
        print(json.dumps([asdict(check) for check in found], indent=2))
    else:
        print(render(found))
    return 1 if any(check.state is State.BROKEN for check in found) else 0


def examine(checks: Sequence[Callable[[], Sequence[Check]]] = CHECKS) -> list[Check]:
    """Run the checks; what one of them raises becomes a finding."""
    found: list[Check] = []
    for check in checks:
        try:
            found += check()
        except Exception as error:  # a doctor must survive every illness
            name = check.__name__.removeprefix("check_")
            found.append(Check(name, State.BROKEN, f"{type(error).__name__}: {error}", "Install it again."))
    return found


def render(found: Sequence[Check]) -> str:
    """The findings as a table, and what to do about those that are not well."""
    width = max(len(check.name) for check in found)
    lines = []
    for check in found:
        lines.append(f"{MARK[check.state]}  {check.name:<{width}}  {check.detail}")
        if check.fix:
            lines.append(f"      {'':<{width}}  -> {check.fix}")
    broken = [check.name for check in found if check.state is State.BROKEN]
    absent = [check.name for check in found if check.state is State.ABSENT]
    lines.append("")
    lines.append(f"Broken: {', '.join(broken)}." if broken else "Everything that the core needs works.")
    if absent:
        lines.append(f"Absent, and only needed for what they name: {', '.join(absent)}.")
    return "\n".join(lines)
