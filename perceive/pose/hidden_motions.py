"""Motions that the points of an object cannot show, because it looks the same after them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from perceive.pose.model import ObjectModel
from perceive.pose.surface_planes import SurfacePlanes


def hidden_motions(model: ObjectModel, planes: SurfacePlanes) -> Tensor | None:
    """Orthonormal motions [6, K] about the model's middle that its axes of revolution hide."""
    if not model.symmetries.continuous:
        return None
    motions = [
        np.concatenate([one.axis, np.cross(one.offset_m - planes.middle_m, one.axis)])
        for one in model.symmetries.continuous
    ]
    motion = torch.from_numpy(np.stack(motions, -1))
    motion[:3] *= planes.size_m
    u, s, _ = torch.linalg.svd(motion, full_matrices=False)
    hidden: Tensor = u[:, s > 1e-9 * s[0]]
    return hidden
