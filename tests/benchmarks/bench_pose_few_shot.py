"""Few-shot pose of objects that nothing was trained on: python -m tests.benchmarks.bench_pose_few_shot --network <run>.

The first scenes of a folder of held-out objects give references (posed RGB-D pictures with masks), the others are asked
about, with masks. One, two and four references of each object, drawn anew for each seed. Arms:

- network: the conditional neural process of conf/experiment/pose_few_shot.yaml, besides turns that cover all rotations;
- no network: these turns alone: what the network is worth; nothing is trained;
- fused templates: a mesh fused out of the same references and templates of it; nothing is trained;
- wrong references: as network, with the references of another object: what the references are worth.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceive.cli.poses_report import ChosenPictures
from perceive.loading import load_model
from perceive.metrics.pose_scores import score_bop19
from perceive.model import PerceptionModel
from perceive.pose.estimate import PoseEstimator
from perceive.pose.estimators.few_shot import FewShotEstimator
from perceive.pose.estimators.few_shot_templates import FusedTemplateEstimator
from perceive.pose.files.dataset import PoseDataset
from perceive.pose.files.results_file import PoseRow, read_results, write_results
from perceive.pose.files.view import Target
from perceive.pose.references import Reference
from perceive.pose.references_folder import draw_references
from perceive.results import Figure, start_clock, write_result
from policies.checkpoint import find_checkpoint
from sensors.errors import DataError

COUNTS = (1, 2, 4)
ARMS = ("network", "no network", "fused templates", "wrong references")
ASKED = 0.1  # of a query's: fewer are neither asked for nor punished


def reference_scenes(dataset: PoseDataset, share: float) -> set[int]:
    """The scenes that references are taken from: the first ones."""
    scenes = sorted({key.scene for key in dataset.views})
    return set(scenes[: max(1, round(share * len(scenes)))])


def estimated(dataset: PoseDataset, targets: Sequence[Target], estimator: PoseEstimator) -> list[PoseRow]:
    """An estimate of each asked instance, its mask given."""
    rows: list[PoseRow] = []
    wanted = {(target.key, target.number) for target in targets}
    for key in sorted({target.key for target in targets}):
        frame, start, found = dataset.frame(key), time.process_time(), []
        for one in dataset.truth(key):
            mask = dataset.visible_mask(key, one.index)
            if (key, one.number) in wanted and one.visible_share >= ASKED and mask.any():
                found += estimator.estimate(frame, one.number, mask)[:1]
        spent = time.process_time() - start
        rows += [PoseRow(key, one.number, one.score, one.camera_from_object, spent) for one in found]
    return rows


def estimator_of(arm: str, network: PerceptionModel | None, given: Mapping[int, list[Reference]]) -> PoseEstimator:
    """The estimator of an arm."""
    if arm == "fused templates":
        return FusedTemplateEstimator(given)
    if arm == "no network":
        return FewShotEstimator(given)
    assert network is not None
    if arm == "wrong references":
        numbers = list(given)
        given = {number: given[numbers[(k + 1) % len(numbers)]] for k, number in enumerate(numbers)}
    return FewShotEstimator(given, network)


def main() -> None:
    """Estimate what is missing, score, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, default=None, help="run folder of the training")
    parser.add_argument("--data", type=Path, default=Path("runs/scenes/objects_new"))
    parser.add_argument("--out", type=Path, default=Path("results/pose_few_shot.json"))
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/bench_pose_few_shot"), help="what was estimated so far"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=40, help="pictures that are asked about; 0 = all")
    parser.add_argument("--reference-share", type=float, default=0.3, help="of the scenes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = start_clock()
    dataset = PoseDataset(given.data)
    scenes = reference_scenes(dataset, given.reference_share)
    targets = [target for target in dataset.targets() if target.key.scene not in scenes]
    keys = sorted({target.key for target in targets})
    if given.limit and given.limit < len(keys):
        keys = [keys[int(k)] for k in np.linspace(0, len(keys) - 1, given.limit).round()]
    kept = set(keys)
    targets = [target for target in targets if target.key in kept]
    network = None
    if set(given.arms) - {"fused templates", "no network"}:
        if given.network is None:
            raise DataError("bench_pose_few_shot", "--network, a run folder", "none", "Train experiment=pose_few_shot.")
        loaded = load_model(find_checkpoint(given.network).path / "ema")
        assert isinstance(loaded, PerceptionModel)
        network = loaded
    given.folder.mkdir(parents=True, exist_ok=True)
    ar: dict[tuple[str, int], list[float]] = {}
    spent: dict[str, list[float]] = {arm: [] for arm in given.arms}
    for seed in given.seeds:
        references = draw_references(dataset, max(given.counts), seed, scenes)
        for count in given.counts:
            some = {number: taken[:count] for number, taken in references.items()}
            for arm in given.arms:
                path = given.folder / f"{arm.replace(' ', '-')}_{count}_{seed}_{len(keys)}.csv"
                if path.is_file():
                    rows = list(read_results(path))
                else:
                    rows = estimated(dataset, targets, estimator_of(arm, network, some))
                    write_results(path, rows)
                scores = score_bop19(ChosenPictures(dataset, targets), rows)
                ar.setdefault((arm, count), []).append(scores.ar)
                if scores.time_s is not None:
                    spent[arm].append(scores.time_s)
                print(f"{arm}, {count} references, seed {seed}: AR {100 * scores.ar:.1f} %", flush=True)
    asked = sum(target.count for target in targets)
    figures: dict[str, Figure | float] = {}
    for (arm, count), values in ar.items():
        mean = float(np.mean(values))
        named = f"AR, {arm}, {count} reference{'s' if count > 1 else ''}"
        figures[named] = Figure(mean, "fraction", low=min(values), high=max(values), n=asked * len(values))
    for arm, times in spent.items():
        if times:
            figures[f"CPU time per picture, {arm}"] = Figure(float(np.mean(times)), "s", n=len(keys))
    config: dict[str, Any] = {
        "arms": given.arms, "counts": given.counts, "pictures": len(keys), "data": given.data.name,
        "reference_share": given.reference_share,
    }  # fmt: skip
    write_result(
        given.out, "Few-shot pose of unseen objects", figures, given.seeds, config, started=started,
        about=f"Held-out objects in {len({target.key for target in targets})} pictures of generated scenes, masks "
        "given; intervals are the least and the greatest of the seeds, each with other references.",
        command=shlex.join(["python", "-m", "tests.benchmarks.bench_pose_few_shot", *sys.argv[1:]]),
    )  # fmt: skip
    print(json.dumps({name: f.value if isinstance(f, Figure) else f for name, f in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
