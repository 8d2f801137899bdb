"""Simple bodies pressed into a simulated gel: pictures of which everything is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.tactile.heads import PressTarget
from sensors.errors import SpecError, nearest
from sensors.spec import box as bounds
from sensors.tactile.gel import Gel
from sensors.tactile.optics import GelOptics
from sensors.tactile.shapes import Number, box, cone, cylinder, punch, sphere
from sensors.tactile.vary import Ranges, draw

SHAPES = ("ball", "bar", "box", "cone", "punch")
TURNED = ("bar", "box")  # shapes whose yaw can be felt, up to half a turn


@dataclass(frozen=True, eq=False)
class Bodies:
    """B rigid bodies.

    Attributes:
        shape: int64 [B], index into :data:`SHAPES`.
        size_m: float [B, 2]: of a ball, punch or bar its radius; of a bar and a box then the length; a box begins with
            its breadth; of a cone the radius out to which it goes.
        slope: float [B], rise per distance of a cone.
    """

    shape: Tensor
    size_m: Tensor
    slope: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, chosen: Tensor | slice) -> Bodies:
        """Some of them."""
        return Bodies(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Contacts:
    """How B bodies are pressed in.

    Attributes:
        xy_m: float [B, 2] from the middle of the pad.
        yaw_rad: float [B], in [-pi / 2, pi / 2).
        depth_m: float [B].
    """

    xy_m: Tensor
    yaw_rad: Tensor
    depth_m: Tensor

    def __getitem__(self, chosen: Tensor | slice) -> Contacts:
        """Some of them."""
        return Contacts(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Presses:
    """B pictures of a gel, and what is pressed in.

    Attributes:
        rgb: uint8 [B, h, w, 3].
        gel: size and pixels.
        bodies: what.
        contacts: how.
    """

    rgb: Tensor
    gel: Gel
    bodies: Bodies
    contacts: Contacts

    def __len__(self) -> int:
        return len(self.rgb)

    def __getitem__(self, chosen: Tensor | slice) -> Presses:
        """Some of them."""
        return Presses(self.rgb[chosen], self.gel, self.bodies[chosen], self.contacts[chosen])

    def batch(self, sensor: str, base_from_pad: Tensor | None = None) -> Batch:
        """As frames of a sensor; ``base_from_pad`` [B, 4, 4], None = the pad is the base."""
        count = len(self)
        pose = torch.eye(4).expand(count, 4, 4) if base_from_pad is None else base_from_pad
        size = torch.tensor([self.gel.height_m, self.gel.width_m]).expand(count, 1, 2)
        data = {"rgb": self.rgb[:, None], "base_from_pad": pose[:, None], "size_m": size}
        return Batch({sensor: BatchStream(data, torch.zeros(count, 1), torch.ones(count, 1, dtype=torch.bool))})

    def targets(self) -> dict[str, Any]:
        """``"pose"`` and ``"shape"``, as the heads of :mod:`perceive.tactile.heads` take them."""
        turned = torch.tensor([SHAPES.index(name) for name in TURNED])
        known = torch.isin(self.bodies.shape, turned)
        pose = PressTarget(self.contacts.xy_m, self.contacts.yaw_rad, self.contacts.depth_m, known)
        return {"pose": pose, "shape": self.bodies.shape}


def gel_space(gel: Gel) -> spaces.Dict:
    """Frame space of a gel's pictures, as of :class:`sensors.tactile.gel_picture.SimulatedGelCamera`."""
    return spaces.Dict(
        {
            "rgb": bounds(0, 255, (gel.rows, gel.columns, 3), np.uint8),
            "base_from_pad": bounds(-1000.0, 1000.0, (4, 4)),
            "size_m": bounds(0.0, 1.0, (2,)),
        }
    )


def random_bodies(rng: np.random.Generator, count: int, shapes: Sequence[str] = SHAPES) -> Bodies:
    """Bodies of all these shapes, of sizes from 1 to 9 mm.

    Raises:
        SpecError: an unknown shape, or none.
    """
    for name in shapes:
        if name not in SHAPES:
            raise SpecError("random_bodies, shapes", f"of {SHAPES}", repr(name), nearest(name, SHAPES))
    if not shapes:
        raise SpecError("random_bodies, shapes", f"some of {SHAPES}", "none", "Name one.")
    shape = rng.choice([SHAPES.index(name) for name in shapes], count)
    first = np.empty(count)
    for name, (low, high) in {
        "ball": (2e-3, 6e-3), "bar": (1e-3, 2e-3), "box": (2e-3, 4e-3), "cone": (2e-3, 5e-3), "punch": (1e-3, 3e-3)
    }.items():  # fmt: skip
        own = shape == SHAPES.index(name)
        first[own] = rng.uniform(low, high, own.sum())
    # Longer than broad by so much that it can be felt which way it lies.
    length = np.where(
        shape == SHAPES.index("bar"), rng.uniform(6e-3, 9e-3, count), first * rng.uniform(1.5, 2.5, count)
    )
    slope = rng.uniform(0.25, 0.6, count)  # so blunt that the shallowest press still meets a pixel of 0.4 mm
    return Bodies(torch.from_numpy(shape), _float(np.stack([first, length], -1)), _float(slope))


def random_contacts(
    rng: np.random.Generator, count: int, gel: Gel, reach: float = 0.25, depth_m: tuple[float, float] = (2e-4, 1e-3)
) -> Contacts:
    """Evenly drawn contacts within ``reach`` of the gel's sides from its middle."""
    xy = rng.uniform(-1, 1, (count, 2)) * reach * np.array([gel.width_m, gel.height_m])
    yaw = rng.uniform(-math.pi / 2, math.pi / 2, count)
    return Contacts(_float(xy), _float(yaw), _float(rng.uniform(*depth_m, count)))


def overlap(gel: Gel, bodies: Bodies, contacts: Contacts) -> Tensor:
    """How far bodies stand in a gel: height maps float [B, h, w], metres."""
    out = torch.zeros(len(bodies), gel.rows, gel.columns)
    for number, name in enumerate(SHAPES):
        own = bodies.shape == number
        if bool(own.any()):
            out[own] = _overlap(name, gel, bodies[own], contacts[own])
    return out.clamp(max=gel.thickness_m)


def _overlap(name: str, gel: Gel, bodies: Bodies, contacts: Contacts) -> Tensor:
    first, length = bodies.size_m.unbind(-1)
    x, y = contacts.xy_m.unbind(-1)
    depth, yaw = contacts.depth_m, contacts.yaw_rad
    endless: Number = 1.0
    if name == "ball":
        return sphere(gel, first, depth, x, y)
    if name == "bar":
        # An endless cylinder has no place along itself: it is cut off.
        cut = box(gel, length, endless, endless, yaw, x, y)
        return torch.minimum(cylinder(gel, first, depth, yaw, x, y), cut)
    if name == "box":
        return box(gel, length, first, depth, yaw, x, y)
    if name == "cone":
        return cone(gel, bodies.slope, depth, x, y, first)
    return punch(gel, first, depth, x, y)


def press(
    optics: GelOptics,
    rng: np.random.Generator,
    count: int,
    shapes: Sequence[str] = SHAPES,
    ranges: Ranges | None = None,
    bodies: Bodies | None = None,
    contacts: Contacts | None = None,
) -> Presses:
    """Pictures of bodies pressed into a gel.

    Args:
        optics: gel, lights and camera.
        rng: draws all that is not given.
        count: B.
        shapes: of the bodies.
        ranges: how fingertips differ from picture to picture; None = not, and without noise.
        bodies: what is pressed in; None = random ones.
        contacts: how; None = random ones.

    Raises:
        SpecError: an unknown shape.
    """
    bodies = random_bodies(rng, count, shapes) if bodies is None else bodies
    contacts = random_contacts(rng, count, optics.gel) if contacts is None else contacts
    variation = None if ranges is None else draw(ranges, optics.gel, rng, count)
    noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
    rgb = optics.picture(overlap(optics.gel, bodies, contacts), variation, noise)
    return Presses(rgb, optics.gel, bodies, contacts)


def _float(value: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value, np.float32))
