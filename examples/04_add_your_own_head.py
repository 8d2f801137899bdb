"""Add a task of your own: a head that tells from all sensors whether the finger touches something; train it.

    python examples/04_add_your_own_head.py

A head asks the trunk for readout tokens, turns them into one frozen dataclass, and owns its loss. Nothing else has to
know it: a config names it by its import path, for example `my_heads.ContactHead`, and whoever loads the config allows
`my_heads.`. Here the head stands in the script itself, whose import path is `__main__`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive import Batch, PerceptionModel, collate
from perceive.heads.base import Head, HeadContext
from perceive.normalize import FieldStats
from sensors.geometry import pose
from sensors.observation import Observation, Stream
from sensors.spec import box


@dataclass(frozen=True, eq=False)
class Contact:
    """probability [B] that the finger touches something."""

    probability: Tensor


class ContactHead(Head):
    """One readout, one logit, cross-entropy against bool targets [B]; the model passes `width`."""

    def __init__(self, width: int, hidden: int = 32) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1))

    @property
    def num_readouts(self) -> int:
        """One readout."""
        return 1

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit."""

    def forward(self, context: HeadContext) -> Contact:
        """What the model answers."""
        return Contact(self.out(context.readouts[:, 0])[:, 0].sigmoid())

    def loss(self, context: HeadContext, target: Tensor) -> dict[str, Tensor]:
        """`entropy` is trained; names that start with `_` are only logged."""
        logit = self.out(context.readouts[:, 0])[:, 0]
        right = ((logit > 0) == target).float().mean()
        return {"entropy": nn.functional.binary_cross_entropy_with_logits(logit, target.float()), "_right": right}


FINGER = {"_target_": "perceive.encoders.touch.TouchPatchEncoder", "patch_rows": 4, "patch_columns": 4}
TOUCH = {"indentation_m": box(0, 0.003, (8, 8)), "base_from_pad": box(-10, 10, (4, 4)), "size_m": box(0, 1, (2,))}
CONFIG = {
    "width": 32,
    "encoders": {"finger": FINGER},
    "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 1, "heads": 2},
    "heads": {"contact": {"_target_": f"{__name__}.ContactHead"}},
}


def toy_batch(rng: np.random.Generator, size: int = 64) -> tuple[Batch, Tensor]:
    """Noisy gels, half of them pressed in by a small dent somewhere."""
    touched, observations = rng.random(size) < 0.5, []
    for dented in touched:
        gel = rng.normal(0, 1e-4, (1, 8, 8))
        row, column = rng.integers(0, 6, 2)
        gel[0, row : row + 3, column : column + 3] += 4e-4 * dented
        data = {"indentation_m": gel, "base_from_pad": pose()[None], "size_m": np.full((1, 2), 0.016)}
        observations.append(Observation(0.0, {"finger": Stream(data, np.zeros(1, np.float32), np.ones(1, bool))}))
    return collate(observations), torch.from_numpy(touched)


torch.set_num_threads(1)  # the model is tiny
torch.manual_seed(0)
rng = np.random.default_rng(0)
model = PerceptionModel.from_config(CONFIG, {"finger": spaces.Dict(TOUCH)}, {"finger": 1}, allow=(f"{__name__}.",))
optimizer = torch.optim.AdamW(model.parameter_groups(weight_decay=0.01), lr=3e-3)
for step in range(60):
    batch, touched = toy_batch(rng)
    terms = model.loss(batch, {"contact": touched})
    optimizer.zero_grad()
    terms["loss"].backward()
    optimizer.step()
    if step % 15 == 0:
        print(f"step {step:2}: loss {terms['loss'].item():.3f}, right {terms['contact/_right'].item():.0%}")
batch, touched = toy_batch(rng, 500)
right = ((model(batch)["contact"].probability > 0.5) == touched).float().mean().item()
print(f"new touches: {right:.0%} right")
assert right > 0.9
