"""Losses that symmetry does not change: zero at all truths that look alike, the same from all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.points.registration.rigid import exp_twist
from perceive.pose.rotation_6d import columns_6d_to_matrix, matrix_to_columns_6d, matrix_to_rows_6d, rows_6d_to_matrix
from perceive.pose.symmetric_loss import best_symmetry, closest_truth, coordinate_loss, pose_loss
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.errors import SpecError
from tests.perceive.pose.meshes import about

CENTRE = (0.02, -0.01, 0.03)
KINDS = {
    "none": Symmetries.none(),
    "box": Symmetries.make([about(CENTRE, turn) for turn in math.pi * np.eye(3)]),
    "axis": Symmetries.make((), [ContinuousSymmetry.make((0, 0, 1), CENTRE)]),
    "can": Symmetries.make([about(CENTRE, (math.pi, 0, 0))], [ContinuousSymmetry.make((0, 0, 1), CENTRE)]),
    "ball": Symmetries.make((), [ContinuousSymmetry.make(axis, CENTRE) for axis in ((0, 0, 1), (1, 0, 0))]),
}


def some(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def symmetric(kind: str, seed: int) -> Tensor:
    """Any one of the symmetries, at any angle: none of the steps of a list."""
    rng = np.random.default_rng(seed)
    kinds, out = KINDS[kind], np.eye(4)
    if kind == "ball":
        return torch.from_numpy(about(CENTRE, rng.standard_normal(3) * 2))
    if kinds.continuous:
        out = kinds.continuous[0].at(rng.uniform(-7, 7))
    if len(kinds.discrete) and rng.random() < 0.7:
        out = out @ kinds.discrete[rng.integers(len(kinds.discrete))]
    return torch.from_numpy(out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", ["length", "squared"])
@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=15)
def test_zero_at_every_symmetric_truth_and_the_same_from_each(kind: str, distance: str, seed: int) -> None:
    points = 0.1 * some(seed, 40, 3)
    truth, predicted = exp_twist(some(seed + 1, 3, 6)), exp_twist(some(seed + 2, 3, 6))
    other = truth @ symmetric(kind, seed)
    assert float(pose_loss(other, truth, points, KINDS[kind], distance).max()) < 1e-9  # type: ignore[arg-type]
    first = pose_loss(predicted, truth, points, KINDS[kind], distance)  # type: ignore[arg-type]
    torch.testing.assert_close(
        pose_loss(predicted, other, points, KINDS[kind], distance),
        first,
        rtol=0,
        atol=1e-6,  # type: ignore[arg-type]
    )
    if kind != "none":
        assert float(pose_loss(other, truth, points, Symmetries.none()).max()) >= 0


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=15)
def test_coordinates_likewise(kind: str, seed: int) -> None:
    truth, predicted = 0.1 * some(seed, 2, 30, 3), 0.1 * some(seed + 1, 2, 30, 3)
    valid = torch.from_numpy(np.random.default_rng(seed).random((2, 30)) < 0.8)
    turn = symmetric(kind, seed + 3)
    other = truth @ turn[:3, :3].T + turn[:3, 3]
    noise = torch.where(valid[..., None], other, torch.nan)
    assert float(coordinate_loss(other, truth, valid, KINDS[kind]).max()) < 1e-9
    first = coordinate_loss(predicted, truth, valid, KINDS[kind])
    torch.testing.assert_close(coordinate_loss(predicted, noise, valid, KINDS[kind]), first, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["box", "axis", "can"])
def test_the_closed_form_is_the_least_of_all_listed(kind: str) -> None:
    p, q, w = 0.1 * some(1, 6, 25, 3), 0.1 * some(2, 6, 25, 3), some(3, 6, 25).abs()
    listed = torch.from_numpy(KINDS[kind].transforms())
    moved = torch.einsum("sij,bkj->bski", listed[:, :3, :3], q) + listed[:, None, :3, 3]
    least = ((p[:, None] - moved).square().sum(-1) * w[:, None]).sum(-1).min(1).values
    found = best_symmetry(p, q, w, KINDS[kind])
    mine = ((p - (q @ found[:, :3, :3].transpose(1, 2) + found[:, None, :3, 3])).square().sum(-1) * w).sum(-1)
    assert bool((mine <= least + 1e-12).all())
    torch.testing.assert_close(mine, least, rtol=2e-3, atol=0)


def test_each_sample_has_its_own_symmetry() -> None:
    points, truth = 0.1 * some(1, 40, 3), exp_twist(some(2, 4, 6))
    turns = torch.from_numpy(KINDS["box"].transforms())
    nearest = closest_truth(truth @ turns, truth, points, KINDS["box"])
    torch.testing.assert_close(nearest, truth @ turns, rtol=0, atol=1e-12)


def test_the_gradient_is_finite_at_the_truth_and_leads_to_it() -> None:
    points, truth = 0.1 * some(1, 40, 3), exp_twist(some(2, 2, 6))
    start = (truth @ symmetric("can", 5)).requires_grad_()
    pose_loss(start, truth, points, KINDS["can"]).sum().backward()
    assert start.grad is not None
    assert bool(start.grad.isfinite().all())
    twist = (0.2 * some(3, 2, 6)).requires_grad_()
    before = pose_loss(truth @ symmetric("can", 6) @ exp_twist(twist), truth, points, KINDS["can"], "squared")
    optimiser = torch.optim.Adam([twist], lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        loss = pose_loss(truth @ symmetric("can", 6) @ exp_twist(twist), truth, points, KINDS["can"], "squared")
        loss.sum().backward()
        optimiser.step()
    assert float(loss.detach().max()) < 1e-3 * float(before.detach().max())


def test_pixels_without_truth_have_no_gradient() -> None:
    predicted = some(1, 1, 4, 4, 3).requires_grad_()
    truth, valid = torch.full((1, 4, 4, 3), torch.nan, dtype=torch.float64), torch.zeros(1, 4, 4, dtype=torch.bool)
    loss = coordinate_loss(predicted, truth, valid, KINDS["can"])
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert predicted.grad is not None
    assert float(predicted.grad.abs().max()) == 0.0


def test_both_conventions_of_six_numbers() -> None:
    turn = exp_twist(some(4, 5, 6))[:, :3, :3]
    columns, rows = matrix_to_columns_6d(turn), matrix_to_rows_6d(turn)
    assert torch.equal(columns[0], torch.cat([turn[0, :, 0], turn[0, :, 1]]))
    assert torch.equal(rows[0], torch.cat([turn[0, 0], turn[0, 1]]))
    torch.testing.assert_close(columns_6d_to_matrix(3 * columns), turn, rtol=0, atol=1e-12)
    torch.testing.assert_close(rows_6d_to_matrix(3 * rows), turn, rtol=0, atol=1e-12)
    torch.testing.assert_close(rows_6d_to_matrix(columns), turn.transpose(1, 2), rtol=0, atol=1e-12)
    found = columns_6d_to_matrix(some(5, 100, 6))
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(100, dtype=torch.float64), rtol=0, atol=1e-6)


def test_bad_input() -> None:
    pose, points = torch.eye(4)[None], torch.zeros(5, 3)
    with pytest.raises(SpecError, match="poses"):
        pose_loss(pose[0], pose, points, KINDS["none"])
    with pytest.raises(SpecError, match="points"):
        pose_loss(pose, pose, points[:, :2], KINDS["none"])
    with pytest.raises(SpecError, match="length"):
        pose_loss(pose, pose, points, KINDS["none"], "l1")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(SpecError, match="valid"):
        coordinate_loss(points[None], points[None], torch.ones(1, 4, dtype=torch.bool), KINDS["none"])
