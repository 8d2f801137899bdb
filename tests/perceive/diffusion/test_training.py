"""It learns: a few samples by heart, and from demonstrations what it sees, through training, checkpoint and policy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceive.batch import Batch
from perceive.loading import build_model
from perceive.model_base import Model
from policies.dataset import EpisodeDataset
from policies.evaluation import evaluate
from policies.imitation import train
from policies.learned import LearnedPolicy
from policies.logbook import read_metrics
from policies.settings import TrainSettings
from tests.policies.point_env import PERIOD_S, SPEC, PointEnv, record

CHUNK = 4


def model(**changes: Any) -> Model:
    torch.manual_seed(0)
    rig = PointEnv().rig
    plan = {
        "_target_": "perceive.diffusion.model.PointDiffusionModel",
        "cameras": ["front"],
        "low_m": [0.1, -0.4, -0.1],
        "high_m": [0.9, 0.4, 0.4],
        "chunk": CHUNK,
        "points": 576,
        "candidates": 576,
        "sampling": "random",
        "point_layers": [32, 64, 128],
        "widths": [32, 48, 64],
        "point_width": 64,
        "state_width": 32,
    }
    return build_model(plan | changes, rig.sensor_spaces, rig.history, SPEC)


def tool_error_m(net: Model, batch: Batch, wanted_m: torch.Tensor) -> float:
    """Mean distance of the chunks' positions [B, K, 3] from the wanted ones."""
    torch.manual_seed(1)
    with torch.inference_mode():
        values = net.eval()(batch)["action"].values
    return float((values[..., :3] - wanted_m).norm(dim=-1).mean())


def test_a_few_samples_are_learned_by_heart(tmp_path: Path) -> None:
    """Eight scenes to 15 mm, half a pixel; and who is shown another's scene goes to the other's place."""
    record(tmp_path, range(8))
    dataset = EpisodeDataset(tmp_path, chunk=CHUNK)
    starts = np.cumsum([0, *(len(episode) for episode in dataset.episodes[:-1])])
    batch, target = dataset.batch(starts)
    net, steps, lr = model(), 170, 3e-3
    net.fit(dataset.stats())
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 20) * (1 - step / steps)
        loss = net.loss(batch, {"action": target})["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-20:]) < 0.02 * np.mean(losses[:3])
    wanted_m = target.values[..., :3]
    assert tool_error_m(net, batch, wanted_m) < 0.015
    turned = [*range(1, 8), 0]
    other, _ = dataset.batch(starts[turned])
    scenes = Batch({"front": other.stream("front"), "joints": batch.stream("joints")})
    assert tool_error_m(net, scenes, wanted_m) > 0.1
    assert tool_error_m(net, scenes, wanted_m[turned]) < 0.02


def test_it_learns_to_reach_what_it_sees(tmp_path: Path) -> None:
    record(tmp_path / "data", range(50))
    dataset = EpisodeDataset(tmp_path / "data", chunk=CHUNK)
    settings = TrainSettings(
        steps=180, batch_size=16, lr=4e-3, warmup_steps=20, ema_decay=0.98, log_every=50, checkpoint_every=180,
        validation_fraction=0.1, device="cpu", threads=1, tensorboard=False,
    )  # fmt: skip
    result = train(model(), dataset, settings, tmp_path / "run", progress=False)
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]
    assert rows[0]["action/_seen"] == 1
    assert result.validation_loss is not None
    assert result.validation_loss < 0.01
    # Three of the chunk's four commands are carried out before it looks again.
    policy = partial(LearnedPolicy.load, tmp_path / "run", replan_s=3 * PERIOD_S)
    seeing = evaluate(PointEnv, policy, range(1000, 1020))
    blind = evaluate(PointEnv, policy, range(1000, 1010), disabled=frozenset({"front"}))
    assert seeing.success_rate >= 0.6
    assert blind.success_rate <= 0.1
