"""Speed, exactness and honesty of tracking an object in RGB-D films.

``python -m tests.benchmarks.bench_pose_tracking --out results/pose_tracking.json``

Films of 30 Hz at 640 x 480 of four objects (one without symmetries, two with discrete ones, one of revolution), with
the camera's noise. The tracker takes the first frame that is no older than when it was done with the last one, so that
it sees what its own speed lets it see. Errors are of frames that it calls tracked: MSSD (greatest distance of a vertex,
the least over the object's symmetries), and translation and rotation to the nearest symmetric truth. The seeds were not
used to choose any setting. The ablations see every third frame (10 Hz), where prediction matters, of the same films.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perceive.pose.model import ObjectModel
from perceive.pose.tracking.depth_search import DepthSearch
from perceive.pose.tracking.sequence import AWAY, MovingSequence
from perceive.pose.tracking.shapes import bracket, can, carton, jug
from perceive.pose.tracking.tracker import PoseTracker
from perceive.results import Figure, start_clock, success_figure, write_result
from sensors.geometry import FloatArray, rotation_angle_rad

SEEDS = (101, 102, 103)
RATE_HZ = 30.0
PARTLY_S, HIDDEN_S = 3.0, 3.6
PARTLY = ((0.0, AWAY), (0.5, AWAY), (0.8, 0.35), (2.2, 0.35), (2.5, AWAY))
HIDDEN = ((0.0, AWAY), (0.8, AWAY), (1.0, 1.0), (2.0, 1.0), (2.2, AWAY))
WITHIN_S = 0.5


@dataclass(frozen=True)
class Seen:
    """One answer of the tracker beside the truth."""

    stamp_s: float
    tracked: bool
    mssd_m: float
    shift_m: float
    turn_rad: float
    visible_share: float
    wall_s: float
    cpu_s: float


def errors(model: ObjectModel, found: FloatArray, truth: FloatArray) -> tuple[float, float, float]:
    """MSSD in metres, and translation (m) and rotation (rad) to the symmetric truth that is nearest by MSSD."""
    candidates = truth @ model.symmetries.transforms()
    points = model.vertices_m
    placed = np.einsum("sij,vj->svi", candidates[:, :3, :3], points) + candidates[:, None, :3, 3]
    worst = np.linalg.norm(placed - (points @ found[:3, :3].T + found[:3, 3]), axis=-1).max(-1)
    best = int(worst.argmin())
    shift = float(np.linalg.norm(candidates[best, :3, 3] - found[:3, 3]))
    return float(worst[best]), shift, float(rotation_angle_rad(candidates[best, :3, :3], found[:3, :3]))


def play(film: MovingSequence, tracker: PoseTracker, length_s: float, every: int | None) -> list[Seen]:
    """Track a film from its true first pose; ``every`` frames, or at the tracker's own rate."""
    first = film.shot(0.0)
    tracker.start(first.camera_from_object, first.frame)
    seen, frame = [], 0
    while frame / RATE_HZ < length_s:
        shot = film.shot(frame / RATE_HZ)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        said = tracker.update(shot.frame)
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
        mssd = shift = turn = math.inf
        if said.camera_from_object is not None:
            mssd, shift, turn = errors(film.model, said.camera_from_object, shot.camera_from_object)
        seen.append(Seen(shot.frame.stamp_s, said.valid, mssd, shift, turn, shot.visible_share, wall_s, cpu_s))
        frame += every if every is not None else max(1, math.ceil(wall_s * RATE_HZ))
    return seen


def models() -> tuple[ObjectModel, ...]:
    """The four objects."""
    return carton(), bracket(), can(), jug()


def measure_partly() -> dict[str, Figure]:
    """Rate and errors with an occluder part of the time."""
    every: list[Seen] = []
    figures = {}
    for model in models():
        own = []
        for seed in SEEDS:
            own += play(MovingSequence(model, seed, cover=PARTLY), PoseTracker(model), PARTLY_S, None)
        good = [one for one in own if one.tracked]
        middle = float(np.median([one.mssd_m for one in good])) if good else 1.0
        figures[f"{model.name}_median_mssd_mm"] = Figure(1e3 * middle, "mm", n=len(good))
        figures[f"{model.name}_tracked"] = success_figure(len(good), len(own))
        every += own
    good = [one for one in every if one.tracked]
    covered = [one for one in good if one.visible_share < 0.85]
    wall = np.array([one.wall_s for one in every])
    figures |= {
        "rate_hz": Figure(1.0 / float(wall.mean()), "Hz", n=len(every), at_least=10.0),
        "frame_wall_p99_ms": Figure(1e3 * float(np.quantile(wall, 0.99)), "ms", n=len(every)),
        "frame_cpu_ms": Figure(1e3 * float(np.mean([one.cpu_s for one in every])), "ms", n=len(every)),
        "median_shift_mm": Figure(1e3 * float(np.median([o.shift_m for o in good])), "mm", n=len(good), at_most=5.0),
        "median_turn_deg": Figure(
            math.degrees(float(np.median([o.turn_rad for o in good]))), "deg", n=len(good), at_most=3.0
        ),
        "median_mssd_mm": Figure(1e3 * float(np.median([o.mssd_m for o in good])), "mm", n=len(good)),
        "covered_median_mssd_mm": Figure(1e3 * float(np.median([o.mssd_m for o in covered])), "mm", n=len(covered)),
        "covered_visible_share": Figure(
            float(np.mean([o.visible_share for o in every if o.visible_share < 0.85])), "fraction", n=len(covered)
        ),
        "tracked": success_figure(len(good), len(every)),
        "tracked_but_wrong_2cm": success_figure(sum(one.mssd_m > 0.02 for one in good), len(good)),
    }
    return figures


def measure_hidden(threaded: bool) -> dict[str, Figure]:
    """Recovery after the object was hidden for a second, and what is claimed meanwhile."""
    back, delays, films, false, hidden, wrong = 0, [], 0, 0, 0, 0
    slowest = 0.0
    for model in models():
        search = DepthSearch([model])
        for seed in SEEDS:
            tracker = PoseTracker(model, search, threaded=threaded)
            seen = play(MovingSequence(model, seed, cover=HIDDEN), tracker, HIDDEN_S, None)
            films += 1
            dark = [one for one in seen if one.visible_share < 0.05]
            hidden, false = hidden + len(dark), false + sum(one.tracked for one in dark)
            after = [one for one in seen if dark and one.stamp_s > dark[-1].stamp_s]
            whole = [one.stamp_s for one in after if one.visible_share > 0.9]
            caught = [one.stamp_s for one in after if one.tracked and one.mssd_m < 0.02]
            if whole and caught:
                delays.append(max(caught[0] - whole[0], 0.0))
                back += delays[-1] <= WITHIN_S
            wrong += sum(one.tracked and one.mssd_m >= 0.02 for one in after)
            slowest = max(slowest, max(one.wall_s for one in seen))
            tracker.reset()
    name = "threaded" if threaded else "inline"
    return {
        f"hidden_{name}_back_in_time": success_figure(back, films, 0.9),
        f"hidden_{name}_median_delay_s": Figure(float(np.median(delays)) if delays else 99.0, "s", n=len(delays)),
        f"hidden_{name}_false_tracked": Figure(float(false), "frames", n=hidden, at_most=0.0),
        f"hidden_{name}_wrong_after": Figure(float(wrong), "frames", at_most=0.0),
        f"hidden_{name}_slowest_frame_ms": Figure(1e3 * slowest, "ms"),
    }


def measure_ablations() -> dict[str, Figure]:
    """Share of frames that are tracked and right, at 10 Hz; without the occlusion test, prediction and outline."""
    figures = {}
    kinds = ("whole", "without_occlusion_test", "without_prediction", "without_outline")
    for kind in kinds:
        right = total = 0
        for model in models():
            for seed in SEEDS:
                tracker = PoseTracker(
                    model,
                    occlusion_test=kind != "without_occlusion_test",
                    damping_s=0.0 if kind == "without_prediction" else 0.3,
                    rim=0 if kind == "without_outline" else 160,
                )
                seen = play(MovingSequence(model, seed, cover=PARTLY), tracker, PARTLY_S, 3)
                right, total = right + sum(one.tracked and one.mssd_m < 0.02 for one in seen), total + len(seen)
        figures[f"ablation_10_hz_{kind}"] = success_figure(right, total)
    return figures


def main(out: Path) -> dict[str, Figure]:
    """Measure and write the result file; its figures are returned."""
    started = start_clock()
    figures = {**measure_partly(), **measure_hidden(False), **measure_hidden(True), **measure_ablations()}
    write_result(
        out,
        "pose_tracking",
        figures,
        SEEDS,
        {
            "rate_hz": RATE_HZ,
            "partly": PARTLY,
            "hidden": HIDDEN,
            "speed_m_s": 0.25,
            "spin_deg_s": 60,
            "size": "640x480",
        },
        started=started,
        about=(
            "Tracking of a known object at 0.25 m/s and 60 deg/s in generated RGB-D films with a moving occluder, "
            "depth noise and clutter; fitted to depth. Recovery uses the depth search, inline and in a worker thread."
        ),
        command=f"python -m tests.benchmarks.bench_pose_tracking --out {out}",
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for key, figure in main(parser.parse_args().out).items():
        print(f"{key:45s} {figure.value:.6g} {figure.unit}")
