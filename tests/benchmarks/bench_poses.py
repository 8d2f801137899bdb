"""6D poses on generated heaps of objects, held-out scenes and objects: python -m tests.benchmarks.bench_poses.

Makes the pictures (``perceive scenes``), trains the network of the known objects (experiment=pose_tabletop) and
estimates with ``perceive poses``: the trained network on known objects, templates and the classic baseline on objects
that nothing was trained on, each with masks given and with the objects to be found. The trained network is then judged,
without any further training, on pictures with more noise, without depth, of another camera and in another light.
Everything goes on where it was interrupted; ``--train-only`` and ``--arms`` share the work among processes.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perceive.cli.compose import compose_config
from perceive.cli.poses import RESULT_FILE, job
from perceive.cli.scenes import make_scenes
from perceive.cli.train import train_supervised
from perceive.results import Figure, start_clock, write_result
from policies.checkpoint import checkpoint_folders, find_checkpoint

FIRST, PICTURES = 1_000_000, 100
TRAINED_ON = 400  # scenes of three pictures
ROBUST = "limit=40"  # pictures of the arms that only ask what survives, or take long


@dataclass(frozen=True)
class Arm:
    """One way to estimate, on one kind of pictures."""

    scenes: str
    words: tuple[str, ...]
    at_least: float | None = None


NETWORK = ("pose=instance", "masks=true")
ARMS = {
    "known objects, network, masks given": Arm("objects", NETWORK, 0.85),
    "known objects, network, objects to be found": Arm("objects", ("pose=instance", "masks=false", ROBUST), 0.85),
    "new objects, templates, masks given": Arm("objects_new", ("pose=templates", "masks=true"), 0.7),
    "new objects, templates, objects to be found": Arm("objects_new", ("pose=templates", "masks=false"), 0.7),
    "new objects, FPFH + RANSAC + ICP, masks given": Arm("objects_new", ("pose=classic", "masks=true")),
    "new objects, templates, masks given, no depth": Arm(
        "objects_new", ("pose=templates", "masks=true", "drop_depth=true", ROBUST)
    ),
    "network, 40 pictures": Arm("objects", (*NETWORK, ROBUST)),
    "network, 3 mm more noise": Arm("objects", (*NETWORK, ROBUST, "depth_noise_m=0.003")),
    "network, no depth": Arm("objects", (*NETWORK, ROBUST, "drop_depth=true")),
    "network, pictures and intrinsics times 0.6": Arm("objects", (*NETWORK, ROBUST, "zoom=0.6")),
    "network, brighter and redder": Arm("objects", (*NETWORK, ROBUST, "gain=1.4", "tint=0.15")),
    "network, darker and bluer": Arm("objects", (*NETWORK, ROBUST, "gain=0.5", "tint=-0.15")),
}
CLASSIC, TEMPLATES = "new objects, FPFH + RANSAC + ICP, masks given", "new objects, templates, masks given"


def scenes(kind: str, folder: Path, count: int, first: int, views: int) -> Path:
    """A folder of pictures; what is missing is made."""
    words = [f"scenes={kind}", f"count={count}", f"first={first}", f"scenes.views={views}", f"output={folder}"]
    make_scenes(compose_config("scenes", words))
    return folder


def trained(data: Path, run: Path, overrides: Sequence[str]) -> None:
    """Train the network of the known objects, or go on."""
    config = compose_config("train", ["experiment=pose_tabletop", f"data={data}", f"output={run}", *overrides])
    done = find_checkpoint(run).step if checkpoint_folders(run) else 0
    if done < int(config["train"]["steps"]):
        train_supervised(config, run, resume=done > 0)


def judged(name: str, arm: Arm, data: Path, run: Path, folder: Path) -> dict[str, Any]:
    """The figures of one arm; those that are there are read."""
    output = folder / "".join(c if c.isalnum() else "_" for c in name)
    if not (output / RESULT_FILE).exists():
        words = [f"data={data}", f"output={output}", *arm.words]
        words += [f"checkpoint={run}"] if "pose=instance" in arm.words else []
        job(compose_config("poses", words))
    found: dict[str, Any] = json.loads((output / RESULT_FILE).read_text())["figures"]
    return found


def figures_of(found: dict[str, dict[str, Any]], run: Path) -> dict[str, Figure | float]:
    """All arms' average recalls, with their parts and time."""
    out: dict[str, Figure | float] = {}
    for name, figures in found.items():
        ar = figures["AR"]
        out[f"{name}: AR"] = Figure(ar["value"], "fraction", n=ar["n"], at_least=ARMS[name].at_least)
        if ARMS[name].at_least is not None or name == CLASSIC:
            for part in ("AR of VSD", "AR of MSSD", "AR of MSPD", "ADD(-S) below a tenth of the diameter"):
                out[f"{name}: {part}"] = Figure(figures[part]["value"], "fraction", n=ar["n"])
            out[f"{name}: time per picture, median"] = Figure(figures["time per picture, median"]["value"], "s")
    ahead = found[TEMPLATES]["AR"]["value"] - found[CLASSIC]["AR"]["value"]
    out["templates ahead of FPFH + RANSAC + ICP, AR"] = Figure(100 * ahead, "points", at_least=0.0)
    out["training, CPU"] = Figure(find_checkpoint(run).state["cpu_s"] / 60, "min", at_most=40.0)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--folder", type=Path, default=Path("runs/poses"))
    parser.add_argument("--scenes", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--run", type=Path, default=Path("runs/pose_tabletop"))
    parser.add_argument("--out", type=Path, default=Path("results/poses.json"))
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--no-result", action="store_true", help="to share the arms among processes")
    parser.add_argument("overrides", nargs="*", help="of perceive train, e.g. train.steps=600")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    started = start_clock()
    run = given.run.resolve()
    trained(scenes("objects", given.scenes.resolve() / "objects", TRAINED_ON, 0, 3), run, given.overrides)
    if given.train_only:
        return
    found = {}
    for name in given.arms:
        arm = ARMS[name]
        data = scenes(arm.scenes, given.scenes.resolve() / f"{arm.scenes}_{FIRST}", PICTURES, FIRST, 1)
        found[name] = judged(name, arm, data, run, given.folder.resolve())
    if given.no_result or set(found) != set(ARMS):
        return
    figures = figures_of(found, run)
    state = find_checkpoint(run).state["config"]
    write_result(
        given.out, "6D poses on heaps of objects", figures, list(range(FIRST, FIRST + PICTURES)),
        {key: state[key] for key in ("model", "augment", "dataset", "train")}, started=started,
        about="Heaps of 5 to 9 touching objects, 640 x 480 RGB-D with the noise of an active stereo camera; "
        f"{PICTURES} pictures of scenes with other numbers than any that was trained or tuned on. AR as BOP 2019 "
        f"defines it (VSD, MSSD, MSPD). Known objects: 11, a network trained on {TRAINED_ON} scenes of three pictures, "
        "one seed. New objects: 9 others, no training. With depth where nothing else is said; masks given means those "
        "of the visible pixels. The network with the objects to be found, templates without depth, and all that "
        "begins with 'network', are of the first 40 pictures.",
        command=shlex.join(["python", "-m", "tests.benchmarks.bench_poses", *given.overrides]),
    )  # fmt: skip
    for name, figure in figures.items():
        print(f"{name}: {figure.value if isinstance(figure, Figure) else figure:.4g}")


if __name__ == "__main__":
    main()
