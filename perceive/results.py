"""Results: what the project says about itself, written by commands as JSON and rendered to one page.

A result is a set of figures with their intervals, and everything needed to judge them: seeds, config, versions,
machine, time and commit. ``RESULTS.md`` is made from these files; nobody types a number into it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sensors.errors import DataError, SpecError

FORMAT = 1
PACKAGES = (
    "perceive", "torch", "numpy", "gymnasium", "pybullet", "open3d", "transformers", "accelerate",
    "stable-baselines3", "hydra-core", "h5py", "safetensors", "opencv-python-headless", "scipy",
)  # fmt: skip


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a success rate; unlike the normal one it is sound at 0 %, at 100 % and for small n.

    Args:
        successes: how many of ``n`` succeeded.
        n: trials; 0 gives (0, 1), which is what nothing is known.
        z: quantile of the normal distribution; 1.96 for 95 %.

    Raises:
        SpecError: ``successes`` is not between 0 and ``n``.

    Paper: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927.
    """
    if n < 0 or not 0 <= successes <= n:
        raise SpecError("wilson_interval", "0 <= successes <= n", f"{successes} of {n}", "Count again.")
    if n == 0:
        return 0.0, 1.0
    rate = successes / n
    scale = 1 / (1 + z * z / n)
    middle = scale * (rate + z * z / (2 * n))
    half = scale * z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # The bounds are exact at the ends; rounding would leave 1e-17 there.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return low, high


@dataclass(frozen=True)
class Figure:
    """One number with what is needed to read it.

    Attributes:
        value: the number.
        unit: ``"%"`` is shown of fractions: a value of 0.9 with the unit ``"fraction"`` reads "90.0 %".
        low: lower end of its interval, if it has one.
        high: upper end.
        n: how many trials or repetitions it rests on.
        at_least: the goal, where more is better.
        at_most: the goal, where less is better.
    """

    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return above and below


def success_figure(successes: int, n: int, at_least: float | None = None) -> Figure:
    """A success rate (a fraction) with its 95 % Wilson interval."""
    low, high = wilson_interval(successes, n)
    return Figure(successes / n if n else 0.0, "fraction", low, high, n, at_least)


@dataclass(frozen=True)
class Started:
    """When a job began, on the wall and in CPU time of this process and its finished children, seconds."""

    wall_s: float
    cpu_s: float


def start_clock() -> Started:
    """Take the time at the start of a job, for :func:`write_result`."""
    return Started(time.perf_counter(), cpu_seconds())


def write_result(
    path: str | Path,
    name: str,
    figures: Mapping[str, Figure | float],
    seeds: Sequence[int],
    config: Mapping[str, Any],
    *,
    started: Started | None = None,
    about: str = "",
    command: str = "",
) -> dict[str, Any]:
    """Write one result as JSON, whole or not at all.

    Args:
        path: the file; its folder is made.
        name: title of the result.
        figures: name of each figure -> the figure; a plain number is a figure without interval.
        seeds: the seeds it rests on.
        config: the resolved config, plain data; folders in absolute paths are left out.
        started: from :func:`start_clock`, for wall and CPU time.
        about: one or two sentences: what was measured, how.
        command: the command that makes this file again.

    Returns:
        What was written.

    Raises:
        SpecError: a figure is not a finite number.
    """
    rows = {}
    for key, given in figures.items():
        figure = given if isinstance(given, Figure) else Figure(float(given))
        if not math.isfinite(figure.value):
            raise SpecError(
                f"result '{name}', figure '{key}'", "a finite number", str(figure.value), "Measure it again."
            )
        rows[key] = {k: v for k, v in {**asdict(figure), "met": figure.met}.items() if v is not None and v != ""}
    record = {
        "format": FORMAT,
        "name": name,
        "about": about,
        "command": command,
        "figures": rows,
        "seeds": [int(seed) for seed in seeds],
        "config": _portable(config),
        "versions": versions(),
        "machine": machine(),
        "wall_s": None if started is None else round(time.perf_counter() - started.wall_s, 3),
        "cpu_s": None if started is None else round(cpu_seconds() - started.cpu_s, 3),
        "git": git_state(),
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    write_json(path, record)
    return record


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a file of :func:`write_result`.

    Raises:
        DataError: the file is not such a file.
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"result '{path.name}'", "a readable JSON file", str(error), "Run its command again.") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT or not isinstance(record.get("figures"), dict):
        raise DataError(
            f"result '{path.name}'", f"a result of format {FORMAT}", "something else", "Run its command again."
        )
    return record


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON beside its place and rename it there, so that a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w") as file:
            json.dump(data, file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Package -> installed version, of Python and the packages that matter; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on: CPU, cores that may be used, system, memory, GPUs. No names, no paths."""
    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if sys.platform == "linux":
        found["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    torch = sys.modules.get("torch")  # asked only when the job used it: importing torch here would cost a second
    if torch is not None:
        found["torch_threads"] = torch.get_num_threads()
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the source tree and whether it has uncommitted changes; None when it is not a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # an installed copy may lie inside somebody else's repository
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changed)}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def _cpu_model() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _portable(value: Any) -> Any:
    """Plain JSON data without the folders of this machine."""
    if isinstance(value, Mapping):
        return {str(key): _portable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(part) for part in value]
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith(("/", "~"))):
        return Path(value).name
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
