"""Open3D, loaded when a step needs it: half a second and a system library that importing perceive must not ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sensors.errors import WiringError
from sensors.geometry import FloatArray


@contextmanager
def open3d() -> Iterator[Any]:
    """The module, with its printing switched off.

    Raises:
        WiringError: it is not installed, or a system library is missing.
    """
    try:
        import open3d as module
    except (ImportError, OSError) as error:
        raise WiringError(
            "Open3D", "an installation that loads", str(error), "Run `perceive doctor`: it says what is missing."
        ) from error
    with module.utility.VerbosityContextManager(module.utility.VerbosityLevel.Error):
        yield module


def points_of(module: Any, xyz_m: FloatArray) -> Any:
    """Open3D's cloud of points [N, 3]."""
    return module.geometry.PointCloud(module.utility.Vector3dVector(np.ascontiguousarray(xyz_m, dtype=np.float64)))
