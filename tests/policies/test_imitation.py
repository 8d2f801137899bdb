"""Training: it learns, and refuses what does not fit."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from perceive.augment import SceneAugment
from perceive.model import PerceptionModel
from policies.checkpoint import checkpoint_folders, find_checkpoint
from policies.dataset import EpisodeDataset
from policies.evaluation import evaluate
from policies.imitation import TrainingError, train
from policies.learned import LearnedPolicy
from policies.logbook import Logbook, read_metrics
from policies.settings import TrainSettings
from sensors.errors import DataError, SpecError, WiringError
from sensors.timeline import Timing
from tests.policies.point_env import SPEC, PointEnv, model_config, record, tiny_model

SMALL = TrainSettings(
    steps=4, batch_size=8, warmup_steps=2, log_every=2, checkpoint_every=2, device="cpu", threads=1, tensorboard=False
)


@pytest.fixture
def data(tmp_path: Path) -> EpisodeDataset:
    record(tmp_path / "data", range(4))
    return EpisodeDataset(tmp_path / "data", chunk=4)


def test_it_learns_to_reach_what_it_sees(tmp_path: Path) -> None:
    record(tmp_path / "data", range(50))
    dataset = EpisodeDataset(tmp_path / "data", chunk=4)
    settings = TrainSettings(
        steps=300, batch_size=32, lr=4e-3, warmup_steps=20, ema_decay=0.97, log_every=50, checkpoint_every=300,
        validation_fraction=0.1, device="cpu", threads=1,
    )  # fmt: skip
    augment = SceneAugment(SPEC, turn_rad=0.5, shift_px=2)
    result = train(tiny_model(dropout=0.0), dataset, settings, tmp_path / "run", augment=augment, progress=False)
    assert result.steps == 300
    assert result.validation_loss is not None
    assert result.validation_loss < 0.15  # untrained: above 1
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [50, 100, 150, 200, 250, 300]
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]
    assert rows[-1]["validation_loss"] == result.validation_loss
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))

    policy = partial(LearnedPolicy.load, tmp_path / "run", replan_s=0.2)
    seeing = evaluate(PointEnv, policy, range(1000, 1020))
    blind = evaluate(PointEnv, policy, range(1000, 1020), disabled=frozenset({"front"}))
    assert seeing.success_rate >= 0.9
    assert blind.success_rate <= 0.2
    assert result.checkpoint == find_checkpoint(tmp_path / "run").path


def test_the_log_and_the_checkpoint_hold_what_they_should(data: EpisodeDataset, tmp_path: Path) -> None:
    train(tiny_model(), data, SMALL, tmp_path / "run", config={"name": "x"}, progress=False)
    rows = read_metrics(tmp_path / "run")
    assert {"step", "loss", "lr", "epoch", "grad_norm", "samples_crc32", "action/position"} <= set(rows[0])
    assert "validation_loss" not in rows[0]
    state = find_checkpoint(tmp_path / "run").state
    assert state["config"] == {"name": "x"}
    assert state["settings"]["batch_size"] == 8
    assert state["samples"] == len(data)
    assert [folder.name for folder in checkpoint_folders(tmp_path / "run")] == ["step_000002", "step_000004"]


def test_normalisers_are_fitted_unless_asked_not_to_be(data: EpisodeDataset, tmp_path: Path) -> None:
    model = tiny_model()
    train(model, data, replace(SMALL, fit_normalizers=False), tmp_path / "plain", progress=False)
    assert not model.fallback_origin_m.any()
    train(model, data, SMALL, tmp_path / "fitted", progress=False)
    torch.testing.assert_close(
        model.fallback_origin_m, torch.tensor(data.stats()["joints/base_from_tool"].mean[:3, 3]).float()
    )


def test_averaged_weights_lag_behind(data: EpisodeDataset, tmp_path: Path) -> None:
    model = tiny_model()
    start = model.trunk.norm.weight.detach().clone()
    train(model, data, replace(SMALL, ema_decay=0.5, steps=1, checkpoint_every=1), tmp_path / "run", progress=False)
    end, averaged = model.trunk.norm.weight, find_checkpoint(tmp_path / "run").model().trunk.norm.weight
    assert not torch.equal(start, end)
    torch.testing.assert_close(averaged, start + 0.9 * (end - start))  # in step 0 the average keeps a tenth


def test_gradients_are_clipped(data: EpisodeDataset, tmp_path: Path) -> None:
    moved = {}
    for clip in (1.0, 1e-12):  # so small that AdamW's epsilon shows
        model = tiny_model()
        start = model.trunk.norm.weight.detach().clone()
        train(model, data, replace(SMALL, grad_clip=clip), tmp_path / str(clip), progress=False)
        moved[clip] = float((model.trunk.norm.weight.detach() - start).abs().max())
    assert moved[1e-12] < 0.01 * moved[1.0]


def test_a_used_run_folder_is_not_overwritten(data: EpisodeDataset, tmp_path: Path) -> None:
    train(tiny_model(), data, SMALL, tmp_path / "run", progress=False)
    with pytest.raises(DataError, match="Pass resume"):
        train(tiny_model(), data, SMALL, tmp_path / "run", progress=False)
    done = train(tiny_model(), data, SMALL, tmp_path / "run", resume=True, progress=False)
    assert done.steps == 4
    assert math.isfinite(done.loss)


def test_resuming_with_other_settings_says_so(
    data: EpisodeDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny_model(), data, SMALL, tmp_path / "run", progress=False)
    with caplog.at_level(logging.WARNING):
        train(tiny_model(), data, replace(SMALL, steps=6, lr=1e-4), tmp_path / "run", resume=True, progress=False)
    assert "steps 4 -> 6" in caplog.text
    assert "lr 0.001 -> 0.0001" in caplog.text


def test_resuming_with_another_model_or_rig_is_refused(data: EpisodeDataset, tmp_path: Path) -> None:
    train(tiny_model(), data, SMALL, tmp_path / "run", progress=False)
    with pytest.raises(DataError, match="step_000004: expected the same model"):
        train(tiny_model(depth=2), data, SMALL, tmp_path / "run", resume=True, progress=False)
    env = PointEnv(Timing(10.0, history=2))
    record(tmp_path / "other", range(2), env)
    model = PerceptionModel.from_config(model_config(), env.rig.sensor_spaces, env.rig.history, SPEC)
    with pytest.raises(DataError, match="schema"):
        train(model, EpisodeDataset(tmp_path / "other", chunk=4), SMALL, tmp_path / "run", resume=True, progress=False)


def test_what_does_not_fit_is_refused_before_the_first_step(data: EpisodeDataset, tmp_path: Path) -> None:
    with pytest.raises(WiringError, match=r"chunks \[K, A\] of \(4, 10\).*\(5, 10\)"):
        train(tiny_model(chunk=5), data, SMALL, tmp_path / "run", progress=False)
    with pytest.raises(WiringError, match="Did you mean 'action'"):
        train(tiny_model(), data, SMALL, tmp_path / "run", heads=("actoin",), progress=False)
    with pytest.raises(WiringError, match="history of 1"):
        train(tiny_model(), EpisodeDataset(data.folder, chunk=4, history=2), SMALL, tmp_path / "run", progress=False)
    with pytest.raises(WiringError, match="'front', which the model reads"):
        train(tiny_model(), EpisodeDataset(data.folder, 4, sensors=["joints"]), SMALL, tmp_path / "run", progress=False)
    with pytest.raises(SpecError, match=r"TrainSettings.precision.*fp16"):
        TrainSettings(precision="fp16")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_and_names_the_step(data: EpisodeDataset, tmp_path: Path) -> None:
    config = model_config() | {"heads": {"action": {"_target_": "tests.policies.counting_head.CountingHead"}}}
    rig = PointEnv().rig
    model = PerceptionModel.from_config(config, rig.sensor_spaces, rig.history, SPEC, allow=("tests.",))
    with pytest.raises(TrainingError, match=r"training step 1: expected finite.*action/broken = nan.*checkpoint: none"):
        train(model, data, SMALL, tmp_path / "run", progress=False)


@pytest.mark.parametrize("native", [True, False])
def test_half_precision_by_itself_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    assert TrainSettings().uses_bf16(torch.device("cpu")) is native
    assert TrainSettings(precision="bf16").uses_bf16(torch.device("cpu"))
    assert not TrainSettings(precision="fp32").uses_bf16(torch.device("cpu"))


def test_bf16_trains(data: EpisodeDataset, tmp_path: Path) -> None:
    result = train(tiny_model(), data, replace(SMALL, precision="bf16"), tmp_path / "run", progress=False)
    assert math.isfinite(result.loss)


def test_the_log_is_cut_back(tmp_path: Path) -> None:
    log = Logbook(tmp_path, tensorboard=False)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1 / step}, {})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    log = Logbook(tmp_path, from_step=2, tensorboard=False)
    log.write({"step": 3, "loss": 0.5}, {})
    log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.5},
    ]  # fmt: skip
