"""Open3D's ICP for one pair of clouds, where it is faster than a batch of one; judged by the same figures as ours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from perceive.points.preprocess.engine import open3d, points_of
from perceive.points.registration.icp import Method, Registration, evaluate
from perceive.points.registration.surface import Surface
from sensors.errors import SpecError
from sensors.geometry import FloatArray


def icp_open3d(
    source_m: Tensor,
    surface: Surface,
    start: Tensor,
    valid: Tensor | None = None,
    *,
    method: Method = "plane",
    within_m: float,
    iterations: int = 40,
    relative: float = 1e-6,
) -> Registration:
    """Refine one transform on the CPU.

    Args:
        source_m: float [N, 3]; points with a NaN or infinite coordinate are left out.
        surface: the model.
        start: float [4, 4], ``model_from_source`` to begin with.
        valid: bool [N]; None = all.
        method: as :func:`~perceive.points.registration.icp.icp`.
        within_m: pairs farther apart do not count.
        iterations: at most.
        relative: it stops when neither the inliers' share nor their error changes by more than this share.

    Returns:
        As :func:`~perceive.points.registration.icp.icp` with B = 1; ``iterations`` is 0, since Open3D does not tell.

    Raises:
        SpecError: shapes that do not fit, or a surface without normals.
        WiringError: Open3D does not load.
    """
    if source_m.ndim != 2 or start.shape != (4, 4):
        raise SpecError(
            "icp_open3d",
            "points [N, 3] and a start [4, 4]",
            f"{list(source_m.shape)} and {list(start.shape)}",
            "Use icp for batches.",
        )
    # Checks the arguments too; a cloud without points is answered here.
    before = evaluate(source_m, surface, start[None], valid, method=method, within_m=within_m)
    there = source_m.isfinite().all(-1) if valid is None else source_m.isfinite().all(-1) & valid
    if not bool(there.any()):
        return before
    source = source_m[there].double().cpu().numpy()
    centre = source.mean(axis=0)
    local = _around(centre, surface.middle_m.cpu().numpy(), start.double().cpu().numpy())
    with open3d() as module:
        tools = module.pipelines.registration
        moving, fixed = (
            points_of(module, value) for value in (source - centre, surface.local_m.double().cpu().numpy())
        )
        if method == "plane":
            assert surface.normal is not None
            fixed.normals = module.utility.Vector3dVector(surface.normal.double().cpu().numpy())
            estimation = tools.TransformationEstimationPointToPlane()
        else:
            estimation = tools.TransformationEstimationPointToPoint()
        stop = tools.ICPConvergenceCriteria(relative, relative, iterations)
        found = tools.registration_icp(moving, fixed, within_m, local, estimation, stop)
        local = np.array(found.transformation)
    pose = torch.from_numpy(_around(-centre, -surface.middle_m.cpu().numpy(), local))
    return evaluate(source_m, surface, pose[None].to(start.device), valid, method=method, within_m=within_m)


def _around(source_middle: FloatArray, model_middle: FloatArray, transform: FloatArray) -> FloatArray:
    """``model_from_source`` [4, 4] for coordinates that are counted from the two middles."""
    out = transform.copy()
    out[:3, 3] += transform[:3, :3] @ source_middle - model_middle
    return out
