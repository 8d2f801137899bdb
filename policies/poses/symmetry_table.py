"""The symmetries of several objects as one array, for losses that take the nearest of the truths that look alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from perceive.pose.symmetry import Symmetries

MOST_ALIKE = 64  # of one object; where axes make more of them, they are cut into fewer steps


def symmetry_table(all_symmetries: Sequence[Symmetries], steps: int) -> torch.Tensor:
    """Transforms [K, S, 4, 4] of K objects, the identity first and filled up with it.

    Args:
        all_symmetries: of each object.
        steps: into which an axis of revolution is cut.
    """
    found = []
    for one in all_symmetries:
        step = np.pi / steps
        transforms = one.transforms(step)
        while len(transforms) > MOST_ALIKE and one.continuous:
            step *= 1.5
            transforms = one.transforms(step)
        found.append(transforms[:MOST_ALIKE])
    out = np.tile(np.eye(4), (len(found), max(len(each) for each in found), 1, 1))
    for row, each in zip(out, found, strict=True):
        row[: len(each)] = each
    return torch.from_numpy(out).float()
