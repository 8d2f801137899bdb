"""The last T samples of a force-torque sensor: few tokens that know how the wrench came to be."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder, field_shape
from perceive.geometry import matrix_to_rotation_6d
from perceive.normalize import Affine, FieldStats
from perceive.tokens import Tokens
from sensors.errors import WiringError

_FIELDS = ("force_N", "torque_Nm")


class WrenchHistoryEncoder(Encoder):
    """Causal convolutions over the samples of a wrench, and one token for each run of samples.

    :class:`perceive.encoders.vector.VectorEncoder` makes a token of each sample by itself; here a sample also sees the
    ones before it, so that a few tokens stand for a fast sensor's burst: a knock, a slip, a steady push. A token
    stands for its run where the newest sample of the run that is there was measured, and is as old as that. Dropped
    samples are told to the network as dropped, and the time between samples as time.

    Args:
        space: frame space with ``force_N`` [3], ``torque_Nm`` [3], ``base_from_sensor`` [4, 4].
        history: T.
        width: D.
        tokens: runs of T / tokens samples each; None = each sample is a run.
        layers: convolutions over three samples; each skips twice as far as the one before.

    Raises:
        WiringError: a field is missing, or T samples do not make so many runs.
    """

    def __init__(
        self, space: spaces.Dict, history: int, width: int, tokens: int | None = None, layers: int = 2
    ) -> None:
        super().__init__()
        owner = "WrenchHistoryEncoder"
        for name in _FIELDS:
            if field_shape(owner, space, name, 1) != (3,):
                raise WiringError(owner, f"'{name}' [3]", f"{space.spaces[name].shape}", "Use another encoder.")
        field_shape(owner, space, "base_from_sensor", 2)
        count = history if tokens is None else tokens
        if count < 1 or history % count:
            fix = "Choose 'tokens' or the sensor's history."
            raise WiringError(f"{owner}.tokens", f"a number that divides the {history} samples", f"{count}", fix)
        if layers < 1:
            raise WiringError(f"{owner}.layers", "at least 1", f"{layers}", "Correct it.")
        self._tokens, self._run = count, history // count
        self.normalizers = nn.ModuleDict({name: Affine(3) for name in _FIELDS})
        self.embed = nn.Linear(14, width)  # force, torque, rotation 6, time, whether it is there
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=2**i) for i in range(layers))
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._tokens

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Normalise force and torque where there are statistics."""
        for name, normalizer in self.normalizers.items():
            if name in stats and isinstance(normalizer, Affine):
                normalizer.fit(stats[name])

    def forward(self, stream: BatchStream) -> Tokens:
        batch, _ = stream.valid.shape
        pose = stream.data["base_from_sensor"].float()
        wrench = [self.normalizers[name](stream.data[name].float()) for name in _FIELDS]
        inputs = torch.cat([*wrench, matrix_to_rotation_6d(pose[..., :3, :3])], -1)
        there = stream.valid & inputs.isfinite().all(-1) & pose[..., :3, 3].isfinite().all(-1)
        # Selected before the network: a NaN that reached its weights' gradient would stay.
        inputs = torch.where(there[..., None], inputs.clamp(-10, 10), 0.0)
        since_s = (stream.age_s - stream.age_s[:, -1:]).clamp(0, 5)
        told = torch.cat([inputs, since_s[..., None], there[..., None].to(inputs.dtype)], -1)
        features = self.embed(told).transpose(1, 2)  # [B, D, T]
        for number, layer in enumerate(self.layers):
            past = nn.functional.pad(features, (2 * 2**number, 0))
            features = features + nn.functional.gelu(layer(past))
        # The newest sample of each run that is there; a run without any is not valid, and its last one will do.
        runs = there.reshape(batch, self._tokens, self._run)
        order = torch.arange(self._run, device=runs.device)
        newest = torch.where(runs, order, -1).amax(-1)
        chosen = torch.where(newest < 0, self._run - 1, newest)
        chosen = chosen + self._run * torch.arange(self._tokens, device=runs.device)
        own = features.transpose(1, 2).gather(1, chosen[..., None].expand(-1, -1, features.shape[1]))
        position = pose[..., :3, 3].gather(1, chosen[..., None].expand(-1, -1, 3))
        valid = newest >= 0
        return Tokens(
            self.norm(self.out(own)),
            torch.where(valid[..., None], position, 0.0),
            torch.ones_like(valid),
            stream.age_s.gather(1, chosen),
            valid,
        )
