"""How small and how fast key-pose samples are: python -m tests.benchmarks.bench_keyframe_data.

Demonstrations of a grasp, seen by three RGB-D cameras of 128 x 128 pixels with pseudo-random pictures, are written by
EpisodeWriter and opened as a KeyframeDataset: once to make its store, and again to find it. Samples are read in the
order of training, 24 a batch, in one thread, as tensors ready for the model; the same from the store and from the
episodes in turn. Files are in the system's page cache, as they are from the second epoch on. Times are CPU time of this
process, the median over the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from perceive.results import Figure, start_clock, write_result
from policies.keyframes.dataset import KeyframeDataset
from policies.sampling import SampleOrder
from tests.policies.keyframes.demos import OPEN, Demo, pick, write

SIZE, BATCH, CAMERAS = 128, 24, ("front", "left", "right")
FLOAT32_BYTES = SIZE * SIZE * len(CAMERAS) * (3 + 1 + 3) * 4  # colour, depth and points of a sample, as published


def carry(number: int) -> Demo:
    """Pick and place: 4 s at 12 Hz."""
    x = 0.35 + 0.02 * number
    demo = pick((x, 0.1, 0.02)).move((x, -0.2, 0.15), 8).rest(3)
    return demo.move((x, -0.2, 0.03), 3).rest(1).grip(OPEN, 7)


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds that a call takes."""
    before_s = time.process_time()
    work()
    return time.process_time() - before_s


def samples_per_cpu_s(dataset: KeyframeDataset, order: SampleOrder, first: int, batches: int) -> float:
    """Samples per second of this process's CPU time."""
    indices = [order.step(first + step) for step in range(batches)]

    def read() -> None:
        for chosen in indices:
            dataset.batch(chosen)

    return batches * BATCH / cpu_s(read)


def measure(folder: Path, episodes: int, rounds: int, batches: int) -> dict[str, Figure]:
    """The figures."""
    for number in range(episodes):
        write(folder, number, carry(number), cameras=CAMERAS, size=SIZE)
    making_s = cpu_s(lambda: KeyframeDataset(folder))
    finding_s = [cpu_s(lambda: KeyframeDataset(folder)) for _ in range(rounds)]
    compact, dense = KeyframeDataset(folder), KeyframeDataset(folder, compact=False)
    order = SampleOrder(compact.split(0.0, 0)[0], BATCH, 0)
    rates = []
    for number in range(rounds + 1):
        pair = [samples_per_cpu_s(dataset, order, number * batches, batches) for dataset in (compact, dense)]
        rates += [pair] if number else []  # the first fills the page cache
    own, others = [pair[0] for pair in rates], [pair[1] for pair in rates]
    stored = sum(path.stat().st_size for path in (folder / "keyframes").iterdir())
    recorded = sum(path.stat().st_size for path in folder.glob("*.h5"))
    return {
        "store, MB per sample": Figure(stored / len(compact) / 1e6, "MB", n=len(compact)),
        "float32 colour, depth and points over the store": Figure(
            FLOAT32_BYTES * len(compact) / stored, "times", n=len(compact), at_least=5
        ),
        "dense episodes over the store": Figure(recorded / stored, "times", n=episodes),
        "samples per CPU-second, from the store": Figure(
            float(np.median(own)), "samples/s", min(own), max(own), n=rounds, at_least=1000
        ),
        "samples per CPU-second, from the episodes": Figure(
            float(np.median(others)), "samples/s", min(others), max(others), n=rounds
        ),
        "making the store, CPU time per episode": Figure(1e3 * making_s / episodes, "ms", n=episodes),
        "finding the store again, every byte checked, CPU time per episode": Figure(
            1e3 * float(np.median(finding_s)) / episodes, "ms", n=rounds
        ),
    }


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/keyframe_data.json"))
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=20)
    arguments = parser.parse_args()
    started = start_clock()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.episodes, arguments.rounds, arguments.batches)
    config = {key: value for key, value in vars(arguments).items() if key != "out"}
    config |= {"image_px": SIZE, "cameras": len(CAMERAS), "batch": BATCH, "threads": 1}
    about = (
        "Key-pose samples of three 128 x 128 RGB-D cameras, as tensors (colour uint8, depth float32), 24 a batch, out "
        "of the store of uint8 colour and uint16 depth in the page cache; the interval is the lowest and highest "
        "round. Compared with what published keyframe replays keep of a sample (float32 colour, depth and points; the "
        "points are made from the depth on the device here) and with the dense episodes that the samples come from."
    )
    command = "python -m tests.benchmarks.bench_keyframe_data"
    write_result(
        arguments.out,
        "Key-pose samples: size and loading",
        figures,
        [0],
        config,
        started=started,
        about=about,
        command=command,
    )
    for name, figure in figures.items():
        verdict = {None: "", True: " (met)", False: " (NOT met)"}[figure.met]
        print(f"{name}: {figure.value:.2f} {figure.unit}{verdict}")


if __name__ == "__main__":
    main()
