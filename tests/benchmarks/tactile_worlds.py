"""What the benchmark of learning from touch looks at: kinds of fingertips, and a camera's view of what is touched."""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from perceive.batch import Batch, BatchStream
from perceive.tactile.presses import Bodies, Contacts, overlap
from sensors.spec import box
from sensors.tactile.deform import Softness
from sensors.tactile.gel import Gel
from sensors.tactile.optics import GelOptics
from sensors.tactile.presets import preset_optics
from sensors.tactile.smooth_light import Lamp, SmoothLight

SIDE_PX = 64
KNOWN = ("gelsight_mini", "digit", "ring")  # what a trunk is pretrained on
NEW = "stripe"  # what it has never seen

# Two fingertips of no maker: other sizes, colours, directions and heights of the lights, another gel.
_LAMPS = {
    "ring": ((45.0, 40.0, (30.0, 140.0, 30.0)), (165.0, 40.0, (140.0, 30.0, 30.0)), (285.0, 40.0, (30.0, 30.0, 140.0))),
    "stripe": ((90.0, 15.0, (150.0, 10.0, 90.0)), (270.0, 15.0, (10.0, 150.0, 40.0)), (0.0, 50.0, (60.0, 60.0, 60.0))),
}
_GELS = {"ring": (0.015, 0.015, 0.0035), "stripe": (0.018, 0.012, 0.0025)}
_STIFF = {"ring": 0.8, "stripe": 1.5}


def fingertip(name: str) -> GelOptics:
    """Gel, lights and camera of a kind, 64 x 64 pixels."""
    if name not in _LAMPS:
        return preset_optics(name, SIDE_PX, SIDE_PX)
    gel = Gel(*_GELS[name], SIDE_PX, SIDE_PX)
    lamps = [Lamp(math.radians(a), math.radians(e), rgb, 25.0) for a, e, rgb in _LAMPS[name]]
    light = SmoothLight(gel, lamps)
    return GelOptics(gel, light, light.flat(50.0).detach(), Softness().scaled(_STIFF[name]))


VIEW_M, FAR_M, RELIEF_M = 0.024, 0.3, 0.004  # side of what the camera sees, its distance, how deep it sees the body
VIEW_SPACE = spaces.Dict(
    {
        "rgb": box(0, 255, (SIDE_PX, SIDE_PX, 3), np.uint8),
        "depth_m": box(0, 1, (SIDE_PX, SIDE_PX)),
        "intrinsics_px": box(0, 1e6, (4,)),
        "base_from_camera": box(-1e3, 1e3, (4, 4)),
    }
)


def view(bodies: Bodies, contacts: Contacts, rng: np.random.Generator) -> Batch:
    """The same bodies seen by an RGB-D camera that looks at their lowest points, out of the pad and from far behind it.

    The pad is the base. Each body has a colour of its own, and light from a direction of its own; the camera is shifted
    by up to 2 mm, and knows it. Depth is off by 0.1 mm. How deep the body will be pressed in cannot be seen.
    """
    count = len(bodies)
    shift = torch.from_numpy(rng.uniform(-0.002, 0.002, (count, 2))).float()
    whole = torch.full((count,), RELIEF_M)
    seen = Contacts(contacts.xy_m - shift, contacts.yaw_rad, whole)
    gel = Gel(VIEW_M, VIEW_M, RELIEF_M, SIDE_PX, SIDE_PX)
    relief = overlap(gel, bodies, seen)
    depth = FAR_M + RELIEF_M - relief + 1e-4 * _normal(rng, count, SIDE_PX, SIDE_PX)
    down, across = torch.gradient(relief, spacing=VIEW_M / SIDE_PX, dim=(1, 2))
    facing = torch.stack([across, down, torch.ones_like(across)], -1)
    towards = functional.normalize(_normal(rng, count, 3) * 0.5 + torch.tensor([0.0, 0.0, 1.0]), dim=-1)
    light = torch.einsum("bhwc,bc->bhw", functional.normalize(facing, dim=-1), towards)
    own = torch.from_numpy(rng.uniform(60, 220, (2, count, 1, 1, 3))).float()  # of the body, and of what is behind it
    colour = torch.where((relief > 0)[..., None], own[0], own[1]) * (0.3 + 0.7 * light.clamp(0, 1))[..., None]
    rgb = (colour + 3 * _normal(rng, *colour.shape)).round().clamp(0, 255).to(torch.uint8)
    focal = SIDE_PX * FAR_M / VIEW_M
    pose = torch.eye(4).repeat(count, 1, 1)
    pose[:, :2, 3], pose[:, 2, 3] = shift, -FAR_M
    middle = (SIDE_PX - 1) / 2
    data = {
        "rgb": rgb[:, None],
        "depth_m": depth[:, None],
        "intrinsics_px": torch.tensor([focal, focal, middle, middle]).expand(count, 1, 4),
        "base_from_camera": pose[:, None],
    }
    return Batch({"camera": BatchStream(data, torch.zeros(count, 1), torch.ones(count, 1, dtype=torch.bool))})


def chosen(batch: Batch, index: Tensor | slice) -> Batch:
    """Some samples of a batch."""
    return Batch(
        {
            name: BatchStream({f: v[index] for f, v in s.data.items()}, s.age_s[index], s.valid[index])
            for name, s in batch.streams.items()
        }
    )


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, np.float32))
