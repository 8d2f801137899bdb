"""rigid_motion: what moved rigidly is found again, weights count, and nothing moves where nothing is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceive.geometry import axis_angle_to_matrix
from perceive.heads.pose_change_solve import rigid_motion

B, N = 3, 60


def moved(turn_rad: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Points, their true motions, focal lengths, distances; the rotation vectors and shifts."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.rand(B, N, 3, generator=draw, dtype=torch.float64) - 0.5
    focal = torch.full((B, 2), 5.0, dtype=torch.float64)
    away = torch.tensor([6.0, 8.0, 10.0], dtype=torch.float64)
    axis = torch.nn.functional.normalize(torch.randn(B, 3, generator=draw, dtype=torch.float64), dim=-1)
    turn, shift = turn_rad * axis, turn_rad * torch.randn(B, 3, generator=draw, dtype=torch.float64) * 0.3
    new = points @ axis_angle_to_matrix(turn).mT + shift[:, None]
    pixel = [one[..., :2] / (away[:, None] + one[..., 2])[..., None] * focal[:, None] for one in (points, new)]
    motion = torch.cat([pixel[1] - pixel[0], (new - points - shift[:, None])[..., 2:]], -1)
    return points, motion, focal, away, turn, shift


@pytest.mark.parametrize("kinds", [(1.0, 1.0), (1.0, 0.0)])
def test_small_motions_are_found(kinds: tuple[float, float]) -> None:
    """With distances and without: from the picture alone the shift along the axis is weak, but there."""
    points, motion, focal, away, turn, shift = moved(1e-4)
    weights = torch.tensor(kinds, dtype=torch.float64).expand(B, N, 2)
    if not kinds[1]:
        motion = torch.cat([motion[..., :2], torch.full_like(motion[..., 2:], 7.0)], -1)  # never read
    got_turn, got_shift = rigid_motion(points, motion, weights, focal, away)
    loose = 0.02 if kinds[1] else 0.3  # damping pulls towards no motion
    assert float((got_turn - turn).norm(dim=-1).max()) < loose * 1e-4
    assert float((got_shift - shift)[:, :2].norm(dim=-1).max()) < loose * 1e-4
    assert float((got_shift - shift)[:, 2].abs().max()) < 0.7 * 1e-4  # from what grows or shrinks alone


def test_steps_lead_to_a_large_motion() -> None:
    points, motion, focal, away, turn, _ = moved(0.4)
    got, _ = rigid_motion(points, motion, torch.ones(B, N, 2, dtype=torch.float64), focal, away)
    assert float((got - turn).norm(dim=-1).max()) < 0.3 * 0.4


def test_points_without_weight_have_no_say() -> None:
    points, motion, focal, away, _, _ = moved(0.01)
    weights = torch.ones(B, N, 2, dtype=torch.float64)
    weights[:, 40:] = 0
    clean = rigid_motion(points, motion, weights, focal, away)
    motion[:, 40:] += 3.0
    for one, other in zip(clean, rigid_motion(points, motion, weights, focal, away), strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_known_is_no_motion_and_has_gradients() -> None:
    points, motion, focal, away, _, _ = moved(0.1)
    weights = torch.zeros(B, N, 2, dtype=torch.float64, requires_grad=True)
    turn, shift = rigid_motion(points, motion, weights, focal, away)
    assert not turn.any()
    assert not shift.any()
    (turn.sum() + shift.sum()).backward()
    assert weights.grad is not None
    assert bool(weights.grad.isfinite().all())
