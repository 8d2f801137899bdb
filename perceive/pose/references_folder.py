"""References out of a folder of posed pictures, for estimators that have no mesh."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from perceive.pose.files.dataset import PoseDataset
from perceive.pose.references import LEAST_PIXELS, Reference
from sensors.errors import DataError, SpecError

SHOWN = 0.6  # how much of an object is visible in a reference of it, at least


def draw_references(
    dataset: PoseDataset, most: int, seed: int = 0, scenes: Container[int] | None = None
) -> dict[int, list[Reference]]:
    """``most`` references of each object, each from another scene; of fewer, the first ones are the same.

    Args:
        dataset: posed pictures with masks and depth.
        most: references of each object.
        seed: of the choice.
        scenes: numbers of the scenes that may be used; None = all.

    Raises:
        DataError: an object is seen well enough in fewer scenes than that.
        SpecError: fewer than one reference.
    """
    if most < 1:
        raise SpecError("draw_references", "one reference or more", repr(most), "Correct it.")
    rng = np.random.default_rng(seed)
    out: dict[int, list[Reference]] = {}
    for number in sorted(dataset.models):
        able = [
            (key, one)
            for key in dataset.views
            if scenes is None or key.scene in scenes
            for one in dataset.truth(key)
            if one.number == number and one.visible_share >= SHOWN
        ]
        taken: list[Reference] = []
        used: set[int] = set()
        for place in rng.permutation(len(able)):
            key, one = able[int(place)]
            if key.scene in used or len(taken) == most:
                continue
            frame, mask = dataset.frame(key), dataset.visible_mask(key, one.index)
            if (mask & (frame.depth_m > 0)).sum() < 4 * LEAST_PIXELS:
                continue
            taken.append(Reference.make(frame, mask, one.camera_from_object))
            used.add(key.scene)
        if len(taken) < most:
            expected = f"{most} pictures of object {number} in different scenes"
            raise DataError("references", expected, f"{len(taken)}", "Add pictures, or ask for fewer references.")
        out[number] = taken
    return out
