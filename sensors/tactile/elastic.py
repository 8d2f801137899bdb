"""An elastic gel: pressure between it and any shape, as a half-space or as a layer on a hard ground.

Pressing at one place lowers the surface beside it. How far is known in closed form for a half-space (a uniformly
pressed rectangle, A. E. H. Love, Phil. Trans. R. Soc. A 228, 1929); what a hard ground behind a layer takes away from
that is known wave by wave (R. H. Bentall and K. L. Johnson, Int. J. Mech. Sci. 10, 1968). The pressure that makes the
surface follow a shape, and nowhere pulls, comes from conjugate gradients with products by FFT (I. A. Polonsky and L. M.
Keer, Wear 231, 1999).
Hertz's law is a result here, not an assumption; friction does not act back on pressure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sensors.errors import SpecError
from sensors.tactile.gel import Gel
from sensors.tactile.hertz import plane_modulus

_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class ElasticGel:
    """How the surface of a gel gives way under pressure on a grid.

    Attributes:
        response: float [2 h, w + 1], metres per pascal for each wave; twice the grid, so that no wave comes round.
        gel: the grid.
    """

    response: Tensor
    gel: Gel

    @classmethod
    def half_space(cls, gel: Gel, modulus_Pa: float, poisson: float) -> ElasticGel:  # noqa: N803
        """A gel without end, for contacts that are small against its thickness.

        Args:
            gel: the grid; its thickness is not used.
            modulus_Pa: Young's modulus.
            poisson: 0 to 1/2.

        Raises:
            SpecError: a number is out of its range.
        """
        return cls(_waves(_half_space(gel) / plane_modulus(modulus_Pa, poisson)), gel)

    @classmethod
    def layer(cls, gel: Gel, modulus_Pa: float, poisson: float) -> ElasticGel:  # noqa: N803
        """A gel as thick as it is, bonded to a hard ground; arguments as of :meth:`half_space`.

        Raises:
            SpecError: a number is out of its range, or a pixel is larger than half of the thickness.
        """
        if 2 * max(gel.pitch_m) > gel.thickness_m:
            got = f"pixels of {max(gel.pitch_m):g} m, a layer of {gel.thickness_m:g} m"
            fix = "Use smaller pixels, or a bed of springs: sensors.tactile.penalty.layer_stiffness."
            raise SpecError("ElasticGel.layer", "pixels of at most half of the thickness", got, fix)
        response = _half_space(gel) - _taken_by_ground(gel, poisson)
        return cls(_waves(response / plane_modulus(modulus_Pa, poisson)), gel)

    def sink(self, pressure_Pa: Tensor) -> Tensor:  # noqa: N803
        """How far the surface is pressed down [B, h, w], metres, by a pressure [B, h, w], Pa."""
        twice = (2 * self.gel.rows, 2 * self.gel.columns)
        sunk: Tensor = torch.fft.irfft2(torch.fft.rfft2(pressure_Pa, s=twice) * self.response.to(pressure_Pa), s=twice)
        return sunk[..., : self.gel.rows, : self.gel.columns]

    def pressure(self, overlap_m: Tensor, iterations: int = 200, tolerance: float = 1e-6) -> Tensor:
        """The pressure with which the gel meets a shape.

        Args:
            overlap_m: float [B, h, w] >= 0, how far the shape reaches into the undeformed gel, metres.
            iterations: at most so many.
            tolerance: stop when the surface follows the shape to this share of the greatest overlap.

        Returns:
            float [B, h, w] >= 0, Pa.

        Raises:
            SpecError: another grid, or overlaps that are negative or not finite.
        """
        inside = self.gel.check(overlap_m, "ElasticGel.pressure, overlap_m") > 0
        goal = tolerance * overlap_m.amax((1, 2), keepdim=True)
        zero = torch.zeros_like(overlap_m)
        # Springs of about the right stiffness are a good start.
        pressure = overlap_m / self.response.to(overlap_m).max()
        toward, before, fresh = zero, overlap_m.new_ones(len(overlap_m), 1, 1), zero[:, :1, :1]
        for _ in range(iterations):
            gap = self.sink(pressure) - overlap_m
            active = inside & (pressure > 0)
            gap = torch.where(inside, gap, zero)
            wrong = torch.where(active, gap.abs(), (-gap).clamp(min=0.0)).amax((1, 2), keepdim=True)
            if bool((wrong <= goal).all()):
                break
            size = torch.where(active, gap.square(), zero).sum((1, 2), keepdim=True)
            toward = torch.where(active, gap + fresh * size / before.clamp(min=_TINY) * toward, zero)
            pushed = torch.where(active, self.sink(toward), zero)
            step = (gap * toward).sum((1, 2), keepdim=True) / (pushed * toward).sum((1, 2), keepdim=True).clamp(
                min=_TINY
            )
            pressure = torch.where(active, (pressure - step * toward).clamp(min=0.0), zero)
            # Pieces that the shape has reached meanwhile.
            joined = inside & (pressure == 0) & (gap < 0)
            pressure = torch.where(joined, -step * gap, pressure)
            fresh = (~joined.any(2).any(1)).to(zero)[:, None, None]
            before = size
        return pressure


def _waves(response: Tensor) -> Tensor:
    """The transform of an even response [2 h, 2 w], which is real."""
    waves: Tensor = torch.fft.rfft2(response)
    return waves.real


def _offsets(gel: Gel) -> tuple[Tensor, Tensor]:
    """y [2 h, 1] and x [1, 2 w] from one pixel to every other, metres, in the order of a Fourier transform."""
    (high, wide), rows, columns = gel.pitch_m, 2 * gel.rows, 2 * gel.columns
    y = torch.fft.fftfreq(rows, 1 / rows, dtype=torch.float64)[:, None] * high
    return y, torch.fft.fftfreq(columns, 1 / columns, dtype=torch.float64)[None] * wide


def _half_space(gel: Gel) -> Tensor:
    """How far [2 h, 2 w] pressure on a pixel presses down the middles of others in a half-space; times E*, metres."""
    (y, x), (high, wide) = _offsets(gel), gel.pitch_m

    def corner(x: Tensor, y: Tensor) -> Tensor:
        return x * torch.asinh(y / x.abs()) + y * torch.asinh(x / y.abs())

    a, b = wide / 2, high / 2
    return (corner(x + a, y + b) - corner(x - a, y + b) - corner(x + a, y - b) + corner(x - a, y - b)) / math.pi


def _taken_by_ground(gel: Gel, poisson: float) -> Tensor:
    """By how much less it is if the gel is a layer on a hard ground.

    An integral over all waves that spread in rings; smooth, as the ground is a thickness away from the surface.
    """
    y, x = _offsets(gel)
    radius = (x.square() + y.square()).sqrt() / gel.thickness_m
    # Waves shorter than a twentieth of the thickness do not reach the ground.
    step = min(0.05, 0.3 / float(radius.max()))
    wave = (torch.arange(math.ceil(20 / step), dtype=torch.float64) + 0.5) * step
    fade, kappa = torch.exp(-2 * wave), 3 - 4 * poisson
    # The layer's response over that of the half-space; numerator and denominator over exp(2 q h), which would overflow.
    above = kappa * (1 - fade**2) / 2 - 2 * wave * fade
    below = kappa * (1 + fade**2) / 2 + (2 * wave**2 + (1 + kappa**2) / 2) * fade
    taken = (1 - above / below) * step / (math.pi * gel.thickness_m)
    rings = torch.arange(math.ceil(float(radius.max()) * 50) + 2, dtype=torch.float64) / 50
    table = torch.stack([(torch.special.bessel_j0(wave * ring) * taken).sum() for ring in rings])
    place = radius * 50
    below_place = place.long()
    rest = place - below_place
    return (table[below_place] * (1 - rest) + table[below_place + 1] * rest) * gel.pitch_m[0] * gel.pitch_m[1]
