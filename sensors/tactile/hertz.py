"""Closed forms of a ball pressed into an elastic body: Hertz's half-space, and a layer of finite thickness.

Hertz holds while the contact is small against the thickness of the gel: a << h. A fingertip's gel is 1 to 4 mm thick
and contacts are about as wide, so the hard ground behind the gel makes it stiffer: by :func:`layer_factor`, which at
sqrt(R d) = h / 2 is already 2.2; :mod:`sensors.tactile.elastic` goes on from there.

Two further traps: the overlap of the undeformed shapes has the radius sqrt(2 R d), the real contact only sqrt(R d),
since the gel sinks beside the ball; and the force of a bed of springs (:mod:`sensors.tactile.penalty`) grows with d
squared, that of an elastic body with d to the 3/2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sensors.errors import SpecError
from sensors.tactile.checks import constants


@dataclass(frozen=True)
class BallContact:
    """A ball in an elastic half-space.

    Attributes:
        force_N: that presses it.
        radius_m: of the contact.
        peak_Pa: pressure in the middle.
    """

    force_N: float  # noqa: N815  (units keep their own capital letter, design convention 4)
    radius_m: float
    peak_Pa: float  # noqa: N815


def plane_modulus(modulus_Pa: float, poisson: float) -> float:  # noqa: N803
    """E / (1 - poisson^2) of a gel that touches something hard, Pa.

    Raises:
        SpecError: a number is out of its range.
    """
    constants("plane_modulus", modulus_Pa=modulus_Pa)
    if not 0 <= poisson <= 0.5:
        raise SpecError("plane_modulus, poisson", "0 <= poisson <= 0.5", repr(poisson), "Gels have about 0.48.")
    return modulus_Pa / (1 - poisson**2)


def hertz_ball(radius_m: float, depth_m: float, plane_modulus_Pa: float) -> BallContact:  # noqa: N803
    """A ball pressed into a half-space: F = 4/3 E* sqrt(R) d^1.5 (H. Hertz, 1882; Johnson, 1985, section 4.2).

    Args:
        radius_m: R of the ball.
        depth_m: d, how far its tip is below the flat surface.
        plane_modulus_Pa: E*.

    Raises:
        SpecError: a negative number.
    """
    constants("hertz_ball", radius_m=radius_m, plane_modulus_Pa=plane_modulus_Pa)
    constants("hertz_ball", zero=True, depth_m=depth_m)
    contact_m = math.sqrt(radius_m * depth_m)
    force = 4 / 3 * plane_modulus_Pa * math.sqrt(radius_m) * depth_m**1.5
    return BallContact(force, contact_m, 2 * plane_modulus_Pa * contact_m / (math.pi * radius_m))


def hertz_pressure(contact: BallContact, places_m: Tensor, middle_m: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Pressure p0 sqrt(1 - r^2 / a^2) under a ball, Pa.

    Args:
        contact: force, radius and peak.
        places_m: float [..., 2], x and y, metres.
        middle_m: where the ball's tip is.

    Returns:
        float [...], Pa; 0 outside of the contact.
    """
    square = (places_m - places_m.new_tensor(middle_m)).square().sum(-1)
    return contact.peak_Pa * (1 - square / max(contact.radius_m**2, 1e-300)).clamp(min=0.0).sqrt()


def layer_factor(radius_m: float, depth_m: float, thickness_m: float) -> float:
    """By how much more than Hertz a ball's force is on a layer that is bonded to a hard ground and keeps its volume.

    A series in sqrt(R d) / h (P. D. Garcia and R. Garcia, Biophysical Journal 114, 2018), which takes the place of an
    earlier one (Dimitriadis et al., ibid. 82, 2002) that is 12 % too low at the end of its range; good to 2 % while
    sqrt(R d) is at most 0.6 h.

    Raises:
        SpecError: a number is out of its range, or the contact is too wide for the thickness of the layer.
    """
    constants("layer_factor", radius_m=radius_m, thickness_m=thickness_m)
    constants("layer_factor", zero=True, depth_m=depth_m)
    ratio = math.sqrt(radius_m * depth_m) / thickness_m
    if ratio > 0.6:
        fix = "The series does not hold for so wide a contact; use sensors.tactile.elastic."
        raise SpecError("layer_factor", "sqrt(R d) <= 0.6 h", f"{ratio:.2f} h", fix)
    return sum(term * ratio**power for power, term in enumerate((1.0, 1.133, 1.497, 1.469, 0.755)))
