"""How many training samples a CPU-second gives: python -m tests.benchmarks.bench_data --out results/data_loading.json.

Episodes of two 224 x 224 RGB cameras and joints, pseudo-random pictures, are written by EpisodeWriter and read in
random order, 64 samples a batch, as tensors ready for the model (pictures stay uint8), once with a chunk of 16 actions
and once with single actions. The files are in the system's page cache, as they are from the second epoch on. Both kinds
alternate within one run, and a figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from gymnasium import spaces

from perceive.results import Figure, start_clock, write_result
from policies.dataset import EpisodeDataset
from policies.episodes import EpisodeHeader, EpisodeWriter
from sensors.action import ActionMode, ActionSpec
from sensors.observation import Observation, Stream
from sensors.spec import box

SIZE, CHUNK, BATCH, HZ = 224, 16, 64, 12.0
CAMERA = spaces.Dict(
    {
        "rgb": box(0, 255, (SIZE, SIZE, 3), np.uint8),
        "intrinsics_px": box(-np.inf, np.inf, (4,)),
        "base_from_camera": box(-np.inf, np.inf, (4, 4)),
    }
)
JOINTS = spaces.Dict(
    {
        "position_rad": box(-4, 4, (7,)),
        "velocity_rad_s": box(-4, 4, (7,)),
        "gripper_m": box(0, 1, (1,)),
        "base_from_tool": box(-np.inf, np.inf, (4, 4)),
    }
)
SPACES = {"left": CAMERA, "right": CAMERA, "joints": JOINTS}
SPEC = ActionSpec(
    ActionMode.EE_POSE, box(-2, 2, (10,)), {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)}, 1 / HZ
)


def write_episodes(folder: Path, episodes: int, steps: int, seed: int = 0) -> None:
    """Episodes of noise."""
    rng = np.random.default_rng(seed)
    ones = dict.fromkeys(SPACES, 1)
    for number in range(episodes):
        rates = dict.fromkeys(SPACES, HZ)
        writer = EpisodeWriter(folder, number, EpisodeHeader(SPACES, ones, rates, SPEC, number, {}))
        for step in range(steps):
            streams = {}
            for name, space in SPACES.items():
                data = {}
                for field, part in space.spaces.items():
                    assert isinstance(part, spaces.Box)
                    raw = rng.bytes(int(np.prod(part.shape))) if part.dtype == np.uint8 else None
                    value = (
                        rng.normal(size=part.shape) if raw is None else np.frombuffer(raw, np.uint8).reshape(part.shape)
                    )
                    data[field] = value.astype(part.dtype)[None]
                streams[name] = Stream(data, np.zeros(1, np.float32), np.ones(1, bool))
            action = rng.normal(size=10).astype(np.float32)
            writer.add(Observation(step / HZ, streams), action, action)
        writer.finish(True)


def samples_per_cpu_s(dataset: EpisodeDataset, batches: int, rng: np.random.Generator) -> float:
    """Samples per second of this process's CPU time."""
    orders = [rng.integers(0, len(dataset), BATCH) for _ in range(batches)]
    before_s = time.process_time()
    for order in orders:
        dataset.batch(order)
    return batches * BATCH / (time.process_time() - before_s)


def measure(folder: Path, rounds: int, batches: int) -> dict[str, Figure]:
    """The figures."""
    chunked, single = EpisodeDataset(folder, chunk=CHUNK), EpisodeDataset(folder, chunk=1)
    rng = np.random.default_rng(1)
    for dataset in (chunked, single):
        samples_per_cpu_s(dataset, batches, rng)  # fill the page cache
    rates = [(samples_per_cpu_s(chunked, batches, rng), samples_per_cpu_s(single, batches, rng)) for _ in range(rounds)]
    slower = [one / many for many, one in rates]
    many = [rate for rate, _ in rates]
    return {
        "samples per CPU-second, chunk of 16": Figure(
            float(np.median(many)), "samples/s", min(many), max(many), n=rounds, at_least=2000
        ),
        "single-step over chunked": Figure(
            float(np.median(slower)), "times", min(slower), max(slower), n=rounds, at_most=1.2
        ),
    }


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/data_loading.json"))
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=20)
    arguments = parser.parse_args()
    started = start_clock()
    with tempfile.TemporaryDirectory() as folder:
        write_episodes(Path(folder), arguments.episodes, arguments.steps)
        figures = measure(Path(folder), arguments.rounds, arguments.batches)
    config = {key: value for key, value in vars(arguments).items() if key != "out"} | {"image_px": SIZE, "batch": BATCH}
    about = (
        "Random training samples of two 224 x 224 RGB cameras, joints and a chunk of 16 actions from episode files in "
        "the page cache, as tensors (pictures uint8); the interval is the lowest and highest round."
    )
    command = "python -m tests.benchmarks.bench_data"
    write_result(
        arguments.out,
        "Loading training samples",
        figures,
        [0, 1],
        config,
        started=started,
        about=about,
        command=command,
    )
    for name, figure in figures.items():
        print(f"{name}: {figure.value:.2f} {figure.unit} ({'met' if figure.met else 'NOT met'})")


if __name__ == "__main__":
    main()
