"""The benchmark of policies from clouds: arms fit one folder of episodes, and claims follow from figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perceive.results import Figure
from tests.benchmarks import bench_cloud_policy as bench

SMALL = [
    "train.steps=1", "train.batch_size=2", "train.tensorboard=false", "train.device=cpu", "progress=false",
    "env.max_steps=14", "train.validation_fraction=0.0",
]  # fmt: skip


def test_arms_learn_from_the_same_episodes_and_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "DEMONSTRATIONS", 1)
    monkeypatch.setattr(bench, "EPISODES", 1)
    out, folder = tmp_path / "out.json", tmp_path / "work"
    where = ["--out", str(out), "--folder", str(folder)]
    bench.main([*where, "--arms", "cloud_without_colour", "--train-only", *SMALL])
    assert not out.exists()
    bench.main([*where, "--arms", "rgbd", "cloud", "--", *SMALL])
    figures = json.loads(out.read_text())["figures"]
    assert {"rgbd, as trained", "cloud, as trained", "cloud, cloud unplugged"} <= set(figures)
    assert "cloud stays behind the pictures by" in figures
    kept = folder / "cloud" / "evaluation" / "as trained.json"
    changed = json.loads(kept.read_text()) | {"successes": 1, "success_rate": 1.0}
    kept.write_text(json.dumps(changed))
    bench.main([*where, "--arms", "cloud", "--", *SMALL])
    assert json.loads(out.read_text())["figures"]["cloud, as trained"]["value"] == 1.0


@pytest.mark.parametrize(("cloud", "met"), [(0.9, True), (0.86, True), (0.84, False)])
def test_the_claim_is_met_or_not_by_its_figures(cloud: float, met: bool) -> None:
    rates = {("rgbd", "as trained"): 0.9, ("cloud", "as trained"): cloud, ("cloud", "cloud unplugged"): 0.1}
    found = bench.claims(rates)
    behind = found["cloud stays behind the pictures by"]
    assert isinstance(behind, Figure)
    assert behind.met is met
    worth = found["the cloud is worth"]
    assert isinstance(worth, Figure)
    assert worth.value == pytest.approx(100 * (cloud - 0.1))
    assert "colour is worth" not in found
    assert bench.claims({}) == {}
