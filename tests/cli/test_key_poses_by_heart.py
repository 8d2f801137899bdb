"""The shipped model learns eight key poses of real physics by heart: everything from demonstration to answer fits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from perceive.cli import main
from perceive.cli.compose import compose_config
from perceive.geometry import rotation_6d_to_matrix
from perceive.loading import build_model
from policies.keyframes.dataset import KeyframeDataset
from policies.settings import TrainSettings

STEPS = 320
VOXEL_M = 0.8 / 84  # edge of the first cube over its pixels


@pytest.mark.slow
def test_eight_key_poses_of_demonstrations_are_learned_by_heart(tmp_path: Path) -> None:
    demos = tmp_path / "demos"
    assert main(["collect", "env=stack_blocks", "episodes=2", "workers=1", f"output={demos}", "progress=false"]) == 0
    data = KeyframeDataset(demos, keyframe_share=1.0)
    chosen = np.flatnonzero(data._starts)[:8]
    batch, target = data.batch(chosen)
    assert len(chosen) == 8
    plan = compose_config("train", ["experiment=rvt_stack_blocks", "model.pillar_m=0.0"])["model"]
    torch.manual_seed(0)
    model = build_model(plan, data.header.sensor_spaces, {**data.header.history, **data.history}, data.action_spec)
    with torch.no_grad():
        before = model.eval()(batch)["action"].values[:, 0, :3]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS, pct_start=0.1)
    model.train()
    bf16 = TrainSettings().uses_bf16(torch.device("cpu"))  # slower by far where it is not computed in
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            terms = model.loss(batch, {"action": target})
        optimizer.zero_grad()
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        said, right = model.eval()(batch)["action"].values[:, 0], target.values[:, 0]
    assert float((before - right[:, :3]).norm(dim=-1).mean()) > 5 * VOXEL_M  # it could not do it before
    assert float((said[:, :3] - right[:, :3]).norm(dim=-1).max()) < VOXEL_M
    turn = rotation_6d_to_matrix(said[:, 3:9]).transpose(1, 2) @ rotation_6d_to_matrix(right[:, 3:9])
    angle = ((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos()
    # In the right bin of 5 degrees about each axis.
    assert float(angle.max()) < math.radians(2.5) * math.sqrt(3)
    assert bool(((said[:, 9:] > 0) == (right[:, 9:] > 0)).all())
