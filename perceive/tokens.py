"""Tokens: features that know where they are, when they were measured and whether they are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class Tokens:
    """A set of situated tokens.

    Attributes:
        features: float [B, N, D]; whatever stands in an invalid token is never used.
        position_m: float [B, N, 3] in the base frame.
        placed: bool [B, N]; False where a token has no place (text, a ray without depth).
        age_s: float [B, N] >= 0.
        valid: bool [B, N]; False = sensor absent, dropped or stale.
        groups: name -> slice of the tokens of one sensor.
    """

    features: Tensor
    position_m: Tensor
    placed: Tensor
    age_s: Tensor
    valid: Tensor
    groups: Mapping[str, slice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lead = self.features.shape[:2]
        expected = {"position_m": (*lead, 3), "placed": lead, "age_s": lead, "valid": lead}
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if tuple(got) != tuple(shape):
                raise SpecError(
                    f"Tokens.{name}", f"shape {tuple(shape)}", f"{tuple(got)}", "Fix the encoder that made it."
                )
        for name in ("placed", "valid"):
            if getattr(self, name).dtype != torch.bool:
                raise SpecError(f"Tokens.{name}", "dtype bool", str(getattr(self, name).dtype), "Fix the encoder.")

    def cleaned(self) -> Tokens:
        """The same tokens with all of an invalid one *selected* to zero, so that NaN cannot leak (NaN * 0 = NaN)."""
        keep = self.valid[..., None]
        return Tokens(
            torch.where(keep, self.features, 0.0),
            torch.where(keep, self.position_m, 0.0),
            self.placed & self.valid,
            torch.where(self.valid, self.age_s, 0.0),
            self.valid,
            self.groups,
        )


def join(parts: Mapping[str, Tokens]) -> Tokens:
    """All tokens of several sensors in the given order, with one group per sensor."""
    groups, start = {}, 0
    for name, part in parts.items():
        groups[name] = slice(start, start + part.features.shape[1])
        start = groups[name].stop
    tokens = list(parts.values())
    return Tokens(
        torch.cat([t.features for t in tokens], 1),
        torch.cat([t.position_m for t in tokens], 1),
        torch.cat([t.placed for t in tokens], 1),
        torch.cat([t.age_s for t in tokens], 1),
        torch.cat([t.valid for t in tokens], 1),
        groups,
    )
