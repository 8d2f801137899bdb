"""Picking a named object by its estimated pose: python -m tests.benchmarks.bench_pick_by_pose.

100 held-out episodes of conf/env/pick_named.yaml, the same ones in every arm:

- expert: a script that grasps from above, by true poses;
- true poses: the policy of policies.pose_pick, its estimator replaced by the simulator's truth: what the policy could
  reach with a perfect estimate;
- estimated: the same policy with the template estimator (unseen objects, meshes only, nothing trained, no masks);
- blinded: the same with the camera unplugged.

Failures of each arm are taken apart: not found, a wrong pose (which the truth is compared with up to the object's
symmetries), no reachable grasp, dropped or missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.base import RobotEnv
from envs.pose_scenes.library import NUMBERS
from envs.tasks.pick_named import FLOOR_M, PickNamed
from perceive.build import build
from perceive.cli.compose import compose_config
from perceive.cli.scenes_poses import object_model
from perceive.pose.estimate import PoseEstimate, PoseEstimator
from perceive.pose.model import ObjectModel
from perceive.results import Figure, start_clock, success_figure, write_json, write_result
from policies.pose_look import Verdict
from policies.pose_pick import PosePick
from policies.rollout import rollout
from sensors.errors import SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, invert

FIRST_SEED, EPISODES = 7_700_000, 100
GOAL = 0.9
ARMS = ("expert", "true poses", "estimated", "blinded")
WRONG = 0.1  # of the diameter: a pose whose surface is this far off (MSSD) is wrong
CAMERA = "front"
SAID = {
    Verdict.LOOKING: "too late",
    Verdict.NO_PICTURE: "not found",
    Verdict.NOT_FOUND: "not found",
    Verdict.UNKNOWN: "not found",
    Verdict.NOT_REACHABLE: "not reachable",
}
Row = dict[str, Any]


class TruePoses(PoseEstimator):
    """Answers what the simulator knows."""

    def __init__(self, task: PickNamed, models: Sequence[ObjectModel]) -> None:
        self._task, self._names = task, {model.number: model.name for model in models}

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._names)

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        pose = invert(frame.base_from_camera) @ self._task.pose(self._names[number])
        return [PoseEstimate(number, pose, 1.0, None, np.zeros((0, 4, 4)), np.zeros(0))]


@dataclass(frozen=True)
class Work:
    """What a process is to do: the episodes of some seeds in one arm."""

    arm: str
    seeds: tuple[int, ...]
    env: Mapping[str, Any]
    estimator: Mapping[str, Any]
    folder: str


def played(work: Work) -> list[Row]:
    """The episodes, one row each."""
    torch.set_num_threads(1)
    config = {**work.env}
    if work.arm == "expert":  # nobody looks at the pictures
        config["rig"] = {**config["rig"], "sensors": {k: v for k, v in config["rig"]["sensors"].items() if k != CAMERA}}
    env = build(config, where="env")
    assert isinstance(env, RobotEnv)
    assert isinstance(env.task, PickNamed)
    try:
        if work.arm == "expert":
            return [_by_expert(env, env.task, seed) for seed in work.seeds]
        models = [object_model(shape, NUMBERS[name]) for name, shape in env.task.shapes.items()]
        estimator: PoseEstimator
        if work.arm == "true poses":
            estimator = TruePoses(env.task, models)
        else:
            given = build(
                {**work.estimator, "models": {m.number: m for m in models}, "folder": work.folder}, where="pose"
            )
            assert isinstance(given, PoseEstimator)
            estimator = given
        if work.arm == "blinded":
            env.rig.disable(frozenset({CAMERA}))
        target = (*(float(x) for x in work.env["task"]["tray_m"]), FLOOR_M)
        policy = PosePick(env.action_spec, estimator, models, target)
        return [_by_policy(env, env.task, policy, {m.name: m for m in models}, seed) for seed in work.seeds]
    finally:
        env.close()


def _by_expert(env: RobotEnv, task: PickNamed, seed: int) -> Row:
    env.reset(seed=seed)
    try:
        expert, done, success, steps = env.expert(), False, False, 0
        while not done:
            _, _, terminated, truncated, info = env.step(expert.act().values)
            done, success, steps = terminated or truncated, bool(info["is_success"]), steps + 1
    except SpecError:  # no grasp from above
        return {"seed": seed, "object": task.asked, "success": False, "steps": 0, "failure": "not reachable"}
    failure = "" if success else "dropped or missed"
    return {"seed": seed, "object": task.asked, "success": success, "steps": steps, "failure": failure}


def _by_policy(env: RobotEnv, task: PickNamed, policy: PosePick, models: Mapping[str, ObjectModel], seed: int) -> Row:
    truths: list[FloatArray] = []  # at the start, and after each step

    def note(*_: object) -> None:
        truths.append(task.pose(task.asked))

    result = rollout(env, policy, seed, on_step=note)
    row: Row = {"seed": seed, "object": task.asked, "success": result.success, "steps": result.steps}
    looks: list[Row] = []
    for look in policy.looks:
        # The object rests while it is looked for: the truth of one step before is that of the look.
        truth = truths[min(round(look.now_s / env.period_s), len(truths) - 1)]
        error = np.nan if look.base_from_object is None else mssd(models[look.name], look.base_from_object, truth)
        looks.append(
            {
                "score": look.score,
                "error": error,
                "grasps": look.grasps,
                "why_not": look.why_not,
                "cpu_s": look.estimate_s,
            }
        )
    row |= {"looks": looks, "verdict": policy.verdict.value, "failure": ""}
    if not result.success:
        planned = [look for look in looks if look["grasps"]]
        wrong = any(look["error"] > WRONG for look in looks)
        missed = "wrong pose" if wrong else "dropped or missed" if planned else "not found"
        row["failure"] = missed if wrong else SAID.get(policy.verdict, missed)
    return row


def mssd(model: ObjectModel, first: FloatArray, second: FloatArray) -> float:
    """Largest distance of a vertex between two poses under the best symmetry, as a share of the diameter."""
    points = model.vertices_m[:: max(1, len(model.vertices_m) // 500)]
    moves = second @ model.symmetries.transforms()
    one = points @ first[:3, :3].T + first[:3, 3]
    other = np.einsum("pj,sij->spi", points, moves[:, :3, :3]) + moves[:, None, :3, 3]
    return float(np.linalg.norm(other - one, axis=-1).max(1).min()) / model.diameter_m


def rows_of(arm: str, seeds: Sequence[int], config: Mapping[str, Any], folder: Path, workers: int) -> list[Row]:
    """All episodes of an arm in several processes; each batch of them is kept, and not played again."""
    kept = folder / f"{arm.replace(' ', '_')}.json"
    rows: dict[int, Row] = {}
    if kept.is_file():
        rows = {row["seed"]: row for row in json.loads(kept.read_text())}
    left = [seed for seed in seeds if seed not in rows]
    parts = [tuple(left[k : k + 5]) for k in range(0, len(left), 5)]
    work = [Work(arm, part, config["env"], config["estimator"], str(folder / "templates")) for part in parts]
    folder.mkdir(parents=True, exist_ok=True)
    if work:
        with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=None) as pool:
            for found in pool.imap_unordered(played, work):
                rows |= {row["seed"]: row for row in found}
                write_json(kept, [rows[seed] for seed in sorted(rows)])
                print(f"{arm}: {sum(r['success'] for r in rows.values())} of {len(rows)}", flush=True)
    return [rows[seed] for seed in seeds]


def figures_of(arm: str, rows: Sequence[Row]) -> dict[str, Figure | float]:
    """What an arm shows."""
    count = len(rows)
    goal = GOAL if arm == "estimated" else None
    out: dict[str, Figure | float] = {f"{arm}, success": success_figure(sum(r["success"] for r in rows), count, goal)}
    if arm == "blinded":
        out[f"{arm}, success"] = Figure(sum(r["success"] for r in rows) / count, "fraction", n=count, at_most=0.0)
    for why in ("not found", "wrong pose", "not reachable", "dropped or missed", "too late"):
        hit = sum(row["failure"] == why for row in rows)
        if hit or arm == "estimated":
            out[f"{arm}, failures: {why}"] = Figure(hit, "episodes", n=count)
    looks = [row["looks"][-1] for row in rows if row.get("looks")]
    if arm == "estimated" and looks:
        errors = np.array([look["error"] for look in looks], float)
        errors = errors[np.isfinite(errors)]
        times = np.array([look["cpu_s"] for row in rows for look in row["looks"]])
        out["pose error (MSSD), median"] = Figure(100 * float(np.median(errors)), "% of diameter", n=len(errors))
        out["pose error (MSSD), 90th percentile"] = Figure(
            100 * float(np.percentile(errors, 90)), "% of diameter", n=len(errors)
        )
        out["poses off by more than 10 % of the diameter"] = Figure(
            int((errors > WRONG).sum()), "episodes", n=len(errors)
        )
        out["CPU time of one estimate, median"] = Figure(float(np.median(times)), "s", n=len(times))
        out["episodes with a second look"] = Figure(sum(len(r["looks"]) > 1 for r in rows), "episodes", n=count)
    return out


def settings() -> dict[str, Any]:
    """The environment, and the estimator."""
    composed = compose_config("collect", ["env=pick_named"])
    from omegaconf import OmegaConf

    path = Path(__file__).resolve().parents[2] / "conf" / "pose" / "templates.yaml"
    estimator = OmegaConf.to_container(OmegaConf.load(path))
    return {"env": composed["env"], "estimator": estimator}


def main() -> None:
    """Play what is missing and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/pick_by_pose.json"))
    parser.add_argument("--folder", type=Path, default=Path("runs/pick_by_pose"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="another one while developing")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    started, config = start_clock(), settings()
    seeds = list(range(given.first_seed, given.first_seed + given.episodes))
    figures: dict[str, Figure | float] = {}
    for arm in given.arms:
        figures |= figures_of(arm, rows_of(arm, seeds, config, given.folder.resolve(), given.workers))
    write_result(
        given.out, "Picking a named object by its pose", figures, seeds, config, started=started,
        about="One RGB-D camera of 640 x 480, three or four objects with known meshes, one of them named, no masks, "
        "nothing trained. The objects were chosen so that the hand can grasp them.",
        command="python -m tests.benchmarks.bench_pick_by_pose",
    )  # fmt: skip
    print(json.dumps({name: f.value if isinstance(f, Figure) else f for name, f in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
