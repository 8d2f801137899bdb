"""Closed-form alignment: exact, proper, honest about what it cannot know, and differentiable everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from perceive.points.registration.kabsch import align
from perceive.points.registration.rigid import exp_twist, invert_rigid
from sensors.errors import SpecError

NAN, INF = float("nan"), float("inf")
SEEDS = st.integers(0, 2**31 - 1)


def some(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def rotation(seed: int) -> Tensor:
    return torch.from_numpy(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())


def turned(points: Tensor, turn: Tensor, shift: Tensor, scale: float = 1.0) -> Tensor:
    return scale * points @ turn.mT + shift


def random_cost(source: Tensor, target: Tensor, seed: int, count: int = 2000) -> float:
    """The least mean square over many random proper rotations, each with its best translation."""
    turns = torch.from_numpy(Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix())
    x, y = source - source.mean(0), target - target.mean(0)
    return float(((x @ turns.mT - y) ** 2).sum(-1).mean(-1).min())


@settings(max_examples=60)
@given(seed=SEEDS, count=st.integers(4, 40), scale=st.floats(0.01, 100), with_scale=st.booleans(), far=st.booleans())
def test_exact_points_give_the_exact_transform(
    seed: int, count: int, scale: float, with_scale: bool, far: bool
) -> None:
    source, turn, shift = some(seed, count, 3), rotation(seed + 1), some(seed + 2, 3)
    source = source + (10.0 if far else 0.0)
    used = scale if with_scale else 1.0
    found = align(source, turned(source, turn, shift, used), scale=with_scale)
    matrix = found.target_from_source
    size = max(used, 1.0) * (30.0 if far else 1.0)
    assert (matrix[:3, :3] / used - turn).abs().max() < 1e-12 * (30.0 if far else 1.0)
    assert (matrix[:3, 3] - shift).abs().max() < 1e-12 * size
    assert abs(float(found.scale) / used - 1) < 1e-12 * (10.0 if far else 1.0)
    assert torch.equal(matrix[3], torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64))
    assert float(found.rms_m) < 1e-13 * 10 * size
    assert (int(found.dimension), bool(found.unique), int(found.used)) == (3, True, count)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("angle_rad", [0.0, 1e-9, 1e-4, np.pi / 2, np.pi - 1e-9, np.pi])
def test_small_turns_and_half_turns(axis: int, angle_rad: float) -> None:
    turn = torch.from_numpy(Rotation.from_rotvec(angle_rad * np.eye(3)[axis]).as_matrix())
    source = some(3, 10, 3)
    found = align(source, source @ turn.mT).target_from_source
    assert (found[:3, :3] - turn).abs().max() < 1e-12


@settings(max_examples=40)
@given(seed=SEEDS, count=st.integers(3, 30), noise=st.floats(1e-3, 3))
def test_it_is_the_least_squares_answer_of_scipy(seed: int, count: int, noise: float) -> None:
    source, weight = some(seed, count, 3), some(seed + 1, count).abs() + 0.1
    target = turned(source, rotation(seed), some(seed + 2, 3)) + noise * some(seed + 3, count, 3)
    found = align(source, target, weight)
    x, y = (v - (weight[:, None] * v).sum(0) / weight.sum() for v in (source, target))
    expected, rssd = Rotation.align_vectors(y.numpy(), x.numpy(), weights=weight.numpy())
    apart = (found.target_from_source[:3, :3] - torch.from_numpy(expected.as_matrix())).abs().max()
    # Where two rotations fit almost equally well, theirs is the less exact.
    assert apart < 1e-6
    assert float(found.rms_m) == pytest.approx(rssd / np.sqrt(float(weight.sum())), rel=1e-6)


def test_scale_is_the_best_scale() -> None:
    source = some(0, 30, 3)
    target = turned(source, rotation(1), some(2, 3), 2.5) + 0.3 * some(3, 30, 3)
    best = align(source, target, scale=True)
    turn = best.target_from_source[:3, :3] / best.scale
    assert torch.linalg.det(turn) == pytest.approx(1.0)
    middle = target.mean(0)
    costs = [
        float(((s * (source - source.mean(0)) @ turn.mT + middle - target) ** 2).sum())
        for s in (float(best.scale) * torch.tensor([0.999, 1.0, 1.001])).tolist()
    ]
    assert costs[1] < min(costs[0], costs[2])
    assert costs[1] == pytest.approx(30 * float(best.rms_m) ** 2)
    assert float(align(source, target).scale) == 1.0


@settings(max_examples=25)
@given(seed=SEEDS, with_scale=st.booleans())
def test_a_mirror_image_gives_a_rotation_and_the_best_one(seed: int, with_scale: bool) -> None:
    source = some(seed, 12, 3) * torch.tensor([1.0, 0.7, 0.4], dtype=torch.float64)
    target = turned(source * torch.tensor([1.0, 1.0, -1.0]), rotation(seed + 1), some(seed + 2, 3))
    found = align(source, target, scale=with_scale)
    turn = found.target_from_source[:3, :3] / found.scale
    assert torch.linalg.det(turn) == pytest.approx(1.0, abs=1e-12)
    assert (turn @ turn.mT - torch.eye(3)).abs().max() < 1e-12
    assert bool(found.unique)
    assert float(found.scale) > 0
    assert float(found.rms_m) > 0.01, "a mirror image cannot be laid on"
    if not with_scale:
        assert float(found.rms_m) ** 2 <= random_cost(source, target, seed) + 1e-12


def figure(name: str) -> Tensor:
    flat = some(5, 9, 3)
    one, other = some(6, 3), some(7, 3)
    return {
        "nothing": torch.zeros(0, 3, dtype=torch.float64),
        "one point": flat[:1],
        "equal points": flat[:1].repeat(5, 1),
        "two points": flat[:2],
        "line": flat[:, :1] * one,
        "plane": flat[:, :1] * one + flat[:, 1:2] * other,
        "triangle": flat[:3],
        "body": flat,
    }[name]


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("nothing", 0),
        ("one point", 0),
        ("equal points", 0),
        ("two points", 1),
        ("line", 1),
        ("plane", 2),
        ("triangle", 2),
        ("body", 3),
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset_m", [0.0, 100.0])
def test_what_a_figure_leaves_open_is_told(name: str, dimension: int, kind: torch.dtype, offset_m: float) -> None:
    source = figure(name) + offset_m
    turn, shift = rotation(8), some(9, 3)
    target = turned(source, turn, shift)
    found = align(source.to(kind), target.to(kind))
    assert (int(found.dimension), bool(found.unique)) == (dimension, dimension >= 2)
    matrix = found.target_from_source.double()
    assert torch.linalg.det(matrix[:3, :3]) == pytest.approx(1.0, abs=1e-6), "a rotation in every case"
    if len(source):
        gap = (turned(source, matrix[:3, :3], matrix[:3, 3]) - target).abs().max()
        assert gap < (1e-4 if kind == torch.float32 else 1e-12) * (1 + offset_m), "open or not, it fits"
    if dimension >= 2:
        assert (matrix[:3, :3] - turn).abs().max() < (1e-12 if kind == torch.float64 else 1e-4) * (1 + offset_m)


def test_the_poorer_of_the_two_figures_counts() -> None:
    body, line = figure("body"), figure("line")
    assert [int(align(a, b).dimension) for a, b in ((body, line), (line, body), (body, body[:1].repeat(9, 1)))] == [
        1,
        1,
        0,
    ]


def test_noise_can_be_told_from_thickness() -> None:
    thin = figure("plane") + 1e-4 * some(1, 9, 3)
    assert int(align(thin, thin).dimension) == 3
    assert int(align(thin, thin, thin=1e-2).dimension) == 2
    needle = figure("line") + 1e-4 * some(1, 9, 3)
    assert bool(align(needle, needle).unique)
    assert not bool(align(needle, needle, thin=1e-2).unique)


def test_a_body_that_fits_its_mirror_image_in_many_ways_is_not_unique() -> None:
    corners = torch.cat([torch.eye(3), -torch.eye(3)]).double()  # all directions alike
    found = align(corners, -corners)
    assert int(found.dimension) == 3
    assert not bool(found.unique)
    assert torch.linalg.det(found.target_from_source[:3, :3]) == pytest.approx(1.0)
    assert bool(align(corners, corners).unique)


def test_weights_and_missing_points() -> None:
    source, turn, shift = some(0, 12, 3), rotation(1), some(2, 3)
    target = turned(source, turn, shift) + 0.1 * some(3, 12, 3)
    count = torch.tensor([1, 2, 3, 1, 0, 1, 1, 2, 1, 1, 0, 4])
    weighted = align(source, target, count.double())
    repeated = align(source.repeat_interleave(count, 0), target.repeat_interleave(count, 0))
    assert (weighted.target_from_source - repeated.target_from_source).abs().max() < 1e-12
    assert float(weighted.rms_m) == pytest.approx(float(repeated.rms_m))
    assert int(weighted.used) == 10

    clean = align(source[4:], target[4:])
    bad_source, bad_target, weight = source.clone(), target.clone(), torch.ones(12).double()
    bad_source[0, 1], bad_target[1, 2], bad_source[2, 0], weight[3] = NAN, -INF, 1e300, NAN
    dirty = align(bad_source, bad_target, weight)
    assert torch.equal(dirty.target_from_source, clean.target_from_source) or (
        (dirty.target_from_source - clean.target_from_source).abs().max() < 1e-14
    )
    assert int(dirty.used) == 8
    nothing = align(bad_source, bad_target, torch.zeros(12).double())
    assert nothing.target_from_source.isfinite().all()
    assert (int(nothing.used), int(nothing.dimension), bool(nothing.unique)) == (0, 0, False)


def test_a_batch_is_its_samples() -> None:
    source, target = some(0, 2, 3, 10, 3), some(1, 2, 3, 10, 3)
    target[0, 1] = target[0, 1, :1]
    weight = some(2, 2, 3, 10).abs()
    whole = align(source, target, weight, scale=True)
    assert whole.target_from_source.shape == (2, 3, 4, 4)
    for i in range(2):
        for j in range(3):
            one = align(source[i, j], target[i, j], weight[i, j], scale=True)
            for name, value in vars(one).items():
                assert (vars(whole)[name][i, j].double() - value.double()).abs().max() < 1e-12, name
    assert whole.unique.tolist() == [[True, False, True], [True, True, True]]


def test_the_order_of_the_points_does_not_matter() -> None:
    source, target, order = some(0, 50, 3), some(1, 50, 3), torch.from_numpy(np.random.default_rng(0).permutation(50))
    one, other = align(source, target), align(source[order], target[order])
    assert (one.target_from_source - other.target_from_source).abs().max() < 1e-13
    wrong = align(source, target[order])
    assert (one.target_from_source - wrong.target_from_source).abs().max() > 1e-2


@pytest.mark.parametrize("with_scale", [False, True])
def test_gradients_are_those_of_differences(with_scale: bool) -> None:
    source, target, weight = some(0, 2, 6, 3), some(1, 2, 6, 3), some(2, 2, 6).abs() + 0.1
    for value in (source, target, weight):
        value.requires_grad_()

    def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = align(*inputs, scale=with_scale)
        return found.target_from_source, found.rms_m, found.scale

    assert torch.autograd.gradcheck(outputs, (source, target, weight), fast_mode=True)


def test_gradient_where_directions_are_alike() -> None:
    """Equal singular values: the derivative of a singular value decomposition is infinite there, the rotation's not."""
    source = torch.cat([torch.eye(3), -torch.eye(3)]).double().requires_grad_()
    target = turned(source.detach(), rotation(0), some(1, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: align(*x).target_from_source, (source, target))
    mirrored = (some(2, 6, 3) * torch.tensor([1.0, 1.0, -1.0])).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: align(*x).target_from_source, (some(2, 6, 3), mirrored))


@pytest.mark.parametrize(
    "name", ["nothing", "one point", "equal points", "two points", "line", "plane", "triangle", "body"]
)
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("with_scale", [False, True])
def test_gradients_are_finite_everywhere(name: str, mirrored: bool, with_scale: bool) -> None:
    source = figure(name).requires_grad_()
    target = figure(name) * torch.tensor([1.0, 1.0, -1.0 if mirrored else 1.0]).double()
    target.requires_grad_()
    weight = torch.ones(len(source), dtype=torch.float64, requires_grad=True)
    found = align(source, target, weight, scale=with_scale)
    (found.target_from_source.sum() + found.rms_m.sum() + found.scale.sum()).backward()  # type: ignore[no-untyped-call]
    for value in (source, target, weight):
        assert value.grad is not None
        assert value.grad.isfinite().all()


def test_missing_points_get_no_gradient_and_spoil_none() -> None:
    source, target = some(0, 6, 3), some(1, 6, 3)
    source[2, 0] = NAN
    source.requires_grad_()
    align(source, target).target_from_source.sum().backward()  # type: ignore[no-untyped-call]
    assert source.grad is not None
    assert source.grad.isfinite().all()
    assert source.grad[2].abs().max() == 0
    assert source.grad[[0, 1, 3, 4, 5]].abs().amin() > 0


def test_precision_of_the_result_is_that_of_the_points() -> None:
    source = some(0, 20, 3)
    target = turned(source, rotation(1), some(2, 3))
    for kind, expected in ((torch.float64, torch.float64), (torch.float32, torch.float32), (torch.half, torch.float32)):
        assert align(source.to(kind), target.to(kind)).target_from_source.dtype == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = align(source.float(), target.float())
    assert (found.target_from_source[:3, :3] - rotation(1)).abs().max() < 1e-6


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(4, 3), torch.zeros(5, 3)),
        (torch.zeros(4, 2), torch.zeros(4, 2)),
        (torch.zeros(3), torch.zeros(3)),
        (torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(5)),
        (torch.zeros(4, 3), torch.zeros(4, 3), -torch.ones(4)),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any) -> None:
    with pytest.raises(SpecError, match="expected"):
        align(*arguments)


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-6, 1e-3, 0.099, 0.101, 1.0, 3.0, np.pi, 10.0])
def test_the_exponential_is_the_matrix_exponential(size: float) -> None:
    twist = torch.cat([size * torch.nn.functional.normalize(some(0, 5, 3), dim=-1), some(1, 5, 3)], -1)
    x, y, z = twist[:, 0], twist[:, 1], twist[:, 2]
    matrix = torch.zeros(5, 4, 4, dtype=torch.float64)
    matrix[:, 0, 1], matrix[:, 0, 2], matrix[:, 1, 2] = -z, y, -x
    matrix = matrix - matrix.mT
    matrix[:, :3, 3] = twist[:, 3:]
    found = exp_twist(twist)
    assert (found - torch.matrix_exp(matrix)).abs().max() < 2e-14 * (1 + size)
    assert (invert_rigid(found) @ found - torch.eye(4)).abs().max() < 1e-14 * (1 + size)
    assert torch.autograd.gradcheck(exp_twist, twist[:2].requires_grad_())
