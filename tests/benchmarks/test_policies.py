"""The benchmarks of data loading and latency run, on a small scale, and their figures are not far off."""

from __future__ import annotations

from pathlib import Path

from policies.learned import LearnedPolicy
from tests.benchmarks import bench_data, bench_latency


def test_loading_samples(tmp_path: Path) -> None:
    bench_data.write_episodes(tmp_path, episodes=3, steps=20)
    figures = bench_data.measure(tmp_path, rounds=3, batches=3)
    assert figures["samples per CPU-second, chunk of 16"].met
    assert figures["single-step over chunked"].value < 2  # a few milliseconds long: the result file's rounds are longer


def test_latency() -> None:
    figures = bench_latency.measure(LearnedPolicy(bench_latency.fresh_model("situated", "lift")), calls=10)
    assert figures["p50, CPU time"].value < 60  # twice the goal, since this machine may be anything
