"""Sizes of the published models and of one that a CPU trains: plain data, one entry per stage's network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceive.build import build
from perceive.rvt.network import StageNetwork
from sensors.errors import WiringError, nearest

_RVT = {
    "_target_": "perceive.rvt.network.RvtNetwork",
    "views": 5,
    "size_px": 220,
    "patch_px": 11,
    "channels": 10,
    "proprio": 4,
    "language_width": 512,
    "language_tokens": 77,
    "token_width": 128,
    "width": 512,
    "depth": 8,
    "heads": 8,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "dropout": 0.1,
    "rotation": "bins",
    "conditional_rotation": False,
    "with_pose": True,
    "tint": False,
    "compat": False,
}
_RVT2 = _RVT | {
    "_target_": "perceive.rvt.network.Rvt2Network",
    "views": 3,
    "size_px": 224,
    "patch_px": 14,
    "conditional_rotation": True,
}
_RVT_SMALL = _RVT2 | {
    "size_px": 112,
    "language_tokens": 16,
    "token_width": 64,
    "width": 192,
    "depth": 6,
    "heads": 6,
    "head_width": 32,
    "mlp_ratio": 2.0,
}

# Faces of the cube that are rendered, and the network of each stage, coarse first. RVT: Goyal et al., CoRL 2023;
# RVT-2: Goyal et al., RSS 2024; the small one is RVT-2 at half the resolution, for training on a CPU.
PRESETS: dict[str, dict[str, Any]] = {
    "rvt": {"views": ["top", "front", "back", "left", "right"], "stages": [_RVT]},
    "rvt2": {"views": ["top", "front", "right"], "stages": [_RVT2 | {"with_pose": False}, _RVT2]},
    "rvt_small": {"views": ["top", "front", "right"], "stages": [_RVT_SMALL | {"with_pose": False}, _RVT_SMALL]},
}


def build_stages(preset: str, changes: Mapping[str, Any] | None = None) -> list[StageNetwork]:
    """The networks of a preset's stages, coarse first.

    Args:
        preset: a name of :data:`PRESETS`.
        changes: arguments of the networks to change, the same in every stage.

    Raises:
        WiringError: an unknown preset or argument.
    """
    if preset not in PRESETS:
        raise WiringError("build_stages", f"one of {sorted(PRESETS)}", f"'{preset}'", nearest(preset, PRESETS))
    stages = PRESETS[preset]["stages"]
    return [build(stage | dict(changes or {}), where=f"preset '{preset}'") for stage in stages]
