"""What encoders share that make a token of each cell of a grid: their box, which cells come first, rows of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perceive.batch import BatchStream
from perceive.encoders.base import per_token
from perceive.tokens import Tokens
from sensors.errors import WiringError

Corner = tuple[float, ...]


def checked_box(
    owner: str, tokens: int, edge_m: float, low_m: Sequence[float], high_m: Sequence[float]
) -> tuple[Corner, Corner]:
    """Both corners of a box, in metres.

    Raises:
        WiringError: less than one token, an edge that is no length, or corners that are none.
    """
    if tokens < 1:
        raise WiringError(f"{owner}.tokens", ">= 1", repr(tokens), "Correct it.")
    if not 0 < edge_m < float("inf"):
        raise WiringError(f"{owner}.edge_m", "a length above 0", repr(edge_m), "Correct it.")
    if len(low_m) != 3 or len(high_m) != 3 or not all(low < high for low, high in zip(low_m, high_m, strict=True)):
        raise WiringError(owner, "low_m [3] below high_m [3]", f"{list(low_m)} and {list(high_m)}", "Correct the box.")
    return tuple(map(float, low_m)), tuple(map(float, high_m))


def first_cells(key: Tensor, sample: Tensor, samples: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Which cells become tokens: of each sample those of the smallest key, of equals those that come first.

    Args:
        key: integers [N].
        sample: int64 [N], which frame a cell belongs to.
        samples: M, how many frames there are.
        tokens: most tokens of a frame.

    Returns:
        Which cells, int64 [V]; and the place of each among the M * tokens rows, int64 [V].
    """
    order = key.sort(stable=True).indices
    order = order[sample[order].sort(stable=True).indices]
    sample = sample[order]
    count = torch.bincount(sample, minlength=samples)
    rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[sample]
    fits = rank < tokens
    return order[fits], (sample * tokens + rank)[fits]


def in_rows(made: Tensor, places_m: Tensor, slot: Tensor, stream: BatchStream, tokens: int) -> Tokens:
    """Tokens [V, D] at places [V, 3] as rows of their frames; rows without a token are not valid."""
    batch, steps = stream.valid.shape
    rows, lead = batch * steps * tokens, (batch, steps * tokens)
    features = made.new_zeros(rows, made.shape[1]).index_copy(0, slot, made)
    position = places_m.new_zeros(rows, 3).index_copy(0, slot, places_m)
    valid = torch.zeros(rows, dtype=torch.bool, device=slot.device).index_fill(0, slot, True).view(lead)
    return Tokens(features.view(*lead, -1), position.view(*lead, 3), valid, per_token(stream.age_s, tokens), valid)
