"""How a soft gel gives around what is pressed into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensors.simulated import check_settings, not_negative
from sensors.tactile.blur import Blur, Border, Taper
from sensors.tactile.gel import Gel

_COARSE_PX = 1.5  # a kernel is applied to smaller pictures as long as it is so many of their pixels wide
_CELLS = 2  # the search for the depth nearby goes by cells, at least so many within its reach


@final
@dataclass(frozen=True)
class Softness:
    """How the gel follows: the pyramid of Gaussians of Taxim, in metres instead of pixels.

    Attributes:
        sigmas_m: widths of the kernels, widest first; what is in firm contact is put back after each.
        final_sigma_m: width of the last one, over everything.
        contact_share: what lies deeper than this share of the depth near it is in firm contact. For a ball 0.5 gives
            Hertz's contact radius sqrt(R d), where the geometric one is sqrt(2 R d); Taxim has 0.4.
        reach_m: how far "near it" reaches, about; None = the whole picture as in Taxim, where a deep contact lifts the
            gel off a shallow one at the other end.
        pyramid: apply wide kernels to smaller pictures.
        border: what lies beyond the border.
        taper: see :func:`sensors.tactile.blur.weights`.

    Raises:
        SpecError: a width is negative, or the share is not in [0, 1).

    Paper: Z. Si and W. Yuan, "Taxim: An Example-based Simulation Model for GelSight Tactile Sensors", RA-L 2022
    (kernels of 201, 101, 51, 21, 11 and 5 pixels of 29.5 micrometres).
    """

    sigmas_m: tuple[float, ...] = (9.0e-4, 4.57e-4, 2.36e-4, 1.03e-4, 5.9e-5, 3.2e-5)
    final_sigma_m: float = 5.9e-5
    contact_share: float = 0.5
    reach_m: float | None = 0.003
    pyramid: bool = True
    border: Border = "replicate"
    taper: Taper = "discrete"

    def __post_init__(self) -> None:
        check_settings(
            "Softness",
            {
                **not_negative({f"sigmas_m[{i}]": sigma for i, sigma in enumerate(self.sigmas_m)}),
                **not_negative({"final_sigma_m": self.final_sigma_m}),
                "contact_share": (0 <= self.contact_share < 1, self.contact_share, "in [0, 1)"),
                "reach_m": (self.reach_m is None or self.reach_m > 0, self.reach_m, "a length > 0, or None"),
            },
        )

    def scaled(self, stiffness: float) -> Softness:
        """That of a stiffer (> 1) or softer gel: a stiff one bends over a longer way."""
        return Softness(
            tuple(sigma * stiffness for sigma in self.sigmas_m),
            self.final_sigma_m * stiffness,
            self.contact_share,
            self.reach_m,
            self.pyramid,
            self.border,
            self.taper,
        )


def _halvings(size: int) -> int:
    return (size & -size).bit_length() - 1


def _halved(picture: Tensor) -> Tensor:
    """Means [B, h / 2, w / 2] of blocks of 2 x 2 pixels."""
    rows = picture[:, ::2] + picture[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) * 0.25


def _spread(depth: Tensor, span: int, axis: int) -> Tensor:
    """The greatest value within ``span`` cells along an axis: by doubling, few steps for a long reach."""
    edges = (span, span, 0, 0) if axis == 2 else (0, 0, span, span)
    wide = functional.pad(depth, edges)  # depths are >= 0: a border of 0 adds nothing
    covered = 1
    while covered < 2 * span + 1:
        step = min(covered, 2 * span + 1 - covered)
        size = wide.shape[axis] - step
        wide = torch.maximum(wide.narrow(axis, 0, size), wide.narrow(axis, step, size))
        covered += step
    return wide


@final
class GelDeform(nn.Module):
    """The face of a gel into which something is pressed: firm contact keeps its shape, the rest follows smoothly.

    Wide kernels work on pictures that were halved until the kernel spans few pixels; what halving and enlarging blur by
    themselves is taken off the kernel's variance, so that the result is that of the full picture within a small
    fraction of the depth.

    Args:
        gel: size and pixels.
        softness: the kernels.
    """

    def __init__(self, gel: Gel, softness: Softness | None = None) -> None:
        super().__init__()
        self.gel = gel
        self.softness = softness = softness or Softness()
        # The kernels that blur anything at all, each with the number of halvings of its input and its output.
        sigmas = [s for s in softness.sigmas_m if s > 0.2 * min(gel.pitch_m)]
        most = min(_halvings(gel.rows), _halvings(gel.columns)) if softness.pyramid else 0
        levels = [self._level(sigma, most) for sigma in sigmas]
        self._levels = levels
        nexts = [*levels[1:], 0]
        self._blurs = nn.ModuleList(
            self._blur(sigma, level, after) for sigma, level, after in zip(sigmas, levels, nexts, strict=True)
        )
        final = softness.final_sigma_m
        self._final = self._blur(final, 0, 0) if final > 0.2 * min(gel.pitch_m) else None

    def _level(self, sigma_m: float, most: int) -> int:
        level = 0
        while level < most and sigma_m / (max(self.gel.pitch_m) * 2 ** (level + 1)) >= _COARSE_PX:
            level += 1
        return level

    def _blur(self, sigma_m: float, level: int, after: int) -> Blur:
        softness, factor, times = self.softness, 2**level, 2 ** (level - after)
        # In squared pixels of the level: means of blocks, and linear interpolation at the places of the finer pixels.
        parts = [((i + 0.5) / times - 0.5) % 1.0 for i in range(times)]
        own = (1 - 1 / factor**2) / 12 + sum(part * (1 - part) for part in parts) / times
        sigma_px = [max((sigma_m / (pitch * factor)) ** 2 - own, 1e-4) ** 0.5 for pitch in self.gel.pitch_m]
        rows, columns = self.gel.rows // factor, self.gel.columns // factor
        return Blur(rows, columns, (sigma_px[0], sigma_px[1]), times, softness.border, softness.taper)

    def forward(self, overlap_m: Tensor) -> Tensor:
        """How far the gel's face is pushed in: overlap [B, h, w] -> [B, h, w], metres, differentiable.

        What is in firm contact is chosen by a threshold and counts as fixed for the gradient.
        """
        if not len(self._blurs):
            return overlap_m if self._final is None else self._out(overlap_m)
        firm = self.contact(overlap_m)
        kept, free = [overlap_m * firm], [1 - firm]
        start = overlap_m
        for level in range(self._levels[0]):
            kept.append(_halved(kept[level]))
            free.append(_halved(free[level]))
            start = _halved(start)
        face = start
        for blur, after in zip(self._blurs, [*self._levels[1:], 0], strict=True):
            face = torch.addcmul(kept[after], free[after], blur(face))
        return self._out(face)

    def _out(self, face: Tensor) -> Tensor:
        if self._final is None:
            return face
        smooth: Tensor = self._final(face)
        return smooth

    def contact(self, overlap_m: Tensor) -> Tensor:
        """Where the gel is in firm contact, 0 or 1 [B, h, w] of the map's type; carries no gradient."""
        overlap_m = overlap_m.detach()
        share, reach = self.softness.contact_share, self.softness.reach_m
        if reach is None:
            return (overlap_m > share * overlap_m.amax(dim=(1, 2), keepdim=True)).to(overlap_m.dtype)
        cell, deepest = 1, overlap_m
        while min(_halvings(edge) for edge in deepest.shape[1:]) and 2 * cell * max(self.gel.pitch_m) * _CELLS <= reach:
            cell *= 2
            rows = torch.maximum(deepest[:, ::2], deepest[:, 1::2])
            deepest = torch.maximum(rows[:, :, ::2], rows[:, :, 1::2])
        for axis, pitch in zip((1, 2), self.gel.pitch_m, strict=True):
            deepest = _spread(deepest, min(round(reach / (pitch * cell)), deepest.shape[axis] - 1), axis)
        B, h, w = overlap_m.shape
        limit = (share * deepest).repeat_interleave(cell, dim=2)[:, :, None]
        firm = overlap_m.reshape(B, h // cell, cell, w) > limit
        return firm.to(overlap_m.dtype).view(B, h, w)
