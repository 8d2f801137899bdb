"""What the tactile core refuses, in one wording."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sensors.errors import SpecError


def finite(where: str, value: Tensor, dims: int) -> Tensor:
    """The tensor itself, if it has so many dimensions and is finite everywhere.

    Raises:
        SpecError: it is not.
    """
    if value.dim() != dims:
        raise SpecError(where, f"{dims} dimensions", f"shape {tuple(value.shape)}", "Add or drop the batch dimension.")
    if not bool(torch.isfinite(value).all()):
        raise SpecError(where, "finite numbers", "NaN or infinity", "Look where it was computed.")
    return value


def not_negative(where: str, value: Tensor, dims: int) -> Tensor:
    """The same for tensors that are >= 0 everywhere."""
    if bool((finite(where, value, dims) < 0).any()):
        raise SpecError(where, "numbers >= 0", f"{float(value.min()):g}", "0 = untouched.")
    return value


def constants(where: str, *, zero: bool = False, **values: float) -> None:
    """Refuse constants that are not finite and > 0; ``zero``: 0 is good, too.

    Raises:
        SpecError: names the first that is not.
    """
    for name, value in values.items():
        if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
            raise SpecError(
                f"{where}, {name}", f"a finite number {'>=' if zero else '>'} 0", repr(value), "Correct it."
            )
