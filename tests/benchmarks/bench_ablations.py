"""Moved cameras, and what each part of the idea is worth: python -m tests.benchmarks.bench_ablations.

Trains the demo's model and its ablations alike (same episodes, settings and seeds; fewer steps than the demo, so that
fifteen trainings take two hours), and evaluates each on held-out seeds with the cameras as trained, with the cameras
moved, and with everything but the joints unplugged:

- situated: metric tokens, pointing head, augmentation (the demo);
- regression: the action is regressed instead of pointed at;
- index: learned index positions instead of metric ones (and regression, since there is nothing to point at);
- flow: the action is drawn by flow matching instead of pointed at;
- no_augment: situated without augmentation (and so without sensor dropout).

Every run is a ``perceive demo`` in a folder of its own and goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from perceive.cli.compose import compose_config
from perceive.cli.demo import demo
from perceive.results import Figure, start_clock, success_figure, write_result

VARIANTS = {
    "situated": ["model=situated"],
    "regression": ["model=regression"],
    "index": ["model=index"],
    "flow": ["model=flow"],
    "no_augment": ["model=situated", "augment=none"],
}
STEPS = 1200
CONDITIONS = ("full", "moved", "joints_only")


def configured(variant: str, seed: int, folder: Path, episodes: Path, overrides: list[str]) -> dict[str, object]:
    """The demo's config for one variant and training seed."""
    words = [
        *VARIANTS[variant],
        f"train.steps={STEPS}",
        f"output={folder / f'{variant}_{seed}'}",
        f"collect.output={episodes}",
    ]
    config = compose_config("demo", [*words, f"train.seed={seed}", "films=0", *overrides])
    conditions = config["evaluate"]["conditions"]
    config["evaluate"]["conditions"] = {name: conditions[name] for name in CONDITIONS}
    return config


def main() -> None:
    """Run what is missing and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/ablations.json"))
    parser.add_argument("--folder", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--episodes", type=Path, default=Path("runs/demo/episodes"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--train-only", action="store_true", help="write no result; to share the work among processes")
    parser.add_argument("overrides", nargs="*", help="of perceive demo, e.g. train.steps=600")
    given = parser.parse_args()
    started = start_clock()
    figures: dict[str, Figure | float] = {}
    wall_s = 0.0
    for variant in given.variants:
        records = []
        for seed in given.seeds:
            config = configured(variant, seed, given.folder.resolve(), given.episodes.resolve(), given.overrides)
            records.append(demo(config))
            wall_s += records[-1]["figures"]["whole_wall"]["value"]
        for condition in CONDITIONS:
            key = "success" if condition == "full" else f"success_{condition}"
            rates = [record["figures"][key] for record in records]
            hits = sum(round(rate["value"] * rate["n"]) for rate in rates)
            figures[f"{variant}, {condition}"] = success_figure(hits, sum(rate["n"] for rate in rates))
            figures[f"{variant}, {condition}, worst training seed"] = min(rate["value"] for rate in rates)
        full, moved = (figures[f"{variant}, {name}"] for name in ("full", "moved"))
        if isinstance(full, Figure) and isinstance(moved, Figure) and full.value > 0:
            goal = 0.9 if variant == "situated" else None
            figures[f"{variant}, kept with cameras moved"] = Figure(
                moved.value / full.value, "fraction", n=moved.n, at_least=goal
            )
    figures["wall time of all runs"] = Figure(wall_s, "s")
    if not given.train_only:
        config = configured("situated", given.seeds[0], given.folder, given.episodes, given.overrides)
        portable = {key: config[key] for key in ("collect", "train", "augment", "evaluate", "moved", "model")}
        portable["collect"] = {key: value for key, value in portable["collect"].items() if key != "output"}  # type: ignore[attr-defined]  # a dict
        write_result(
            given.out, "Moved cameras and ablations", figures, given.seeds, portable, started=started,
            about=f"Lift; all variants trained alike for {STEPS} steps, 50 held-out seeds per training seed and "
            "condition. Cameras never moved in training; moved: the front one by 10 cm and 10 degrees, the wrist one "
            "by 2 cm and 5 degrees.",
            command="python -m tests.benchmarks.bench_ablations",
        )  # fmt: skip


if __name__ == "__main__":
    main()
