"""The benchmark of Reach: what it makes of its runs, and that it does not train twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from perceive.results import write_json
from policies.rl_settings import RlSettings
from tests.benchmarks.bench_reach import ARMS, figures, one


def finished(seed: int, successes: int, learned: int | None) -> dict[str, Any]:
    settings = dataclasses.asdict(RlSettings(seed=seed, hidden=(8,))) | {"hidden": [8]}
    return {
        "settings": settings,
        "successes": successes,
        "episodes": 100,
        "cpu_s": 60.0 * (seed + 1),
        "steps_to_95": learned,
        "parameters": 7,
    }


def test_figures_pool_the_seeds_and_judge_our_network_only() -> None:
    runs = [finished(0, 100, 2000), finished(1, 98, None)]
    found = figures(dict.fromkeys(ARMS, runs))
    ours = found["success through the trunk, all seeds"]
    assert (ours.value, ours.n, ours.met) == (0.99, 200, True)
    assert found["success stable-baselines3's network, all seeds"].met is None
    minutes = found["CPU minutes through the trunk"]
    assert (minutes.value, minutes.low, minutes.high) == (1.5, 1.0, 2.0)
    assert found["steps until 95 % of the training episodes succeed through the trunk"].n == 1


def test_what_was_found_before_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RlSettings(seed=3, hidden=(8,))
    before = finished(3, 97, 1500)
    write_json(tmp_path / f"perception_{settings.steps}_3.json", before)
    monkeypatch.setattr("tests.benchmarks.bench_reach.train_rl", pytest.fail)
    assert one({}, settings, tmp_path) == before
