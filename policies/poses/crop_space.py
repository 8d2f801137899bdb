"""The declared space of a crop: the fields of a RgbdFrame whose base is the crop's frame."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from sensors.spec import box

_REACH_M = 1e6  # one bound for all data sets, so that models of one serve another


def crop_space(size_px: int) -> spaces.Dict:
    """Fields of square crops of ``size_px``."""
    return spaces.Dict(
        {
            "rgb": box(0, 255, (size_px, size_px, 3), np.uint8),
            "depth_m": box(0.0, _REACH_M, (size_px, size_px)),
            "intrinsics_px": box(-_REACH_M, _REACH_M, (4,)),
            "base_from_camera": box(-_REACH_M, _REACH_M, (4, 4)),
        }
    )
