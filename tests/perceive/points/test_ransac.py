"""Matches and the transform that most of them agree on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from perceive.points.registration.descriptor import histograms
from perceive.points.registration.matching import match
from perceive.points.registration.pair import register_pair
from perceive.points.registration.ransac import _draw, ransac
from perceive.points.registration.surface import Surface
from sensors.errors import SpecError

NAN, INF = float("nan"), float("inf")
SEEDS = st.integers(0, 2**31 - 1)


def some(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def rotation(seed: int) -> Tensor:
    return torch.from_numpy(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())


def angle_rad(first: Tensor, second: Tensor) -> float:
    return float(Rotation.from_matrix((first[:3, :3].mT @ second[:3, :3]).double().numpy()).magnitude())


def matches(seed: int, count: int, wrong: float, noise_m: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source and target [count, 3] of which a share is wrong, which are right, and the transform."""
    rng = np.random.default_rng(seed)
    source = torch.from_numpy(rng.uniform(-0.5, 0.5, (count, 3)))
    transform = torch.eye(4).double()
    transform[:3, :3], transform[:3, 3] = rotation(seed), torch.from_numpy(rng.uniform(-1, 1, 3))
    target = (
        source @ transform[:3, :3].mT + transform[:3, 3] + noise_m * torch.from_numpy(rng.standard_normal((count, 3)))
    )
    right = torch.from_numpy(rng.permutation(count) >= round(wrong * count))
    elsewhere = torch.from_numpy(rng.uniform(-0.7, 0.7, (count, 3))) + transform[:3, 3]
    return source, torch.where(right[:, None], target, elsewhere), right, transform


# ------------------------------------------------------------------------------------------------------------ ransac


@settings(max_examples=15)
@given(seed=SEEDS, wrong=st.floats(0, 0.7), count=st.integers(40, 120))
def test_the_right_matches_are_found_and_exactly(seed: int, wrong: float, count: int) -> None:
    source, target, right, transform = matches(seed, count, wrong)
    found = ransac(source[None], target[None], inlier_m=0.01)
    assert bool(found.found[0])
    assert (found.target_from_source[0] - transform).abs().max() < 1e-10 or bool((found.inlier[0] & ~right).any())
    assert bool(found.inlier[0][right].all())
    assert int((found.inlier[0] & ~right).sum()) <= 1, "hardly a random match fits by chance"
    assert angle_rad(found.target_from_source[0], transform) < 0.01
    assert float(found.inlier_share[0]) == pytest.approx(int(found.inlier[0].sum()) / count)
    assert float(found.confidence[0]) > 0.99


def test_noisy_matches_give_the_fit_of_all_the_right_ones() -> None:
    source, target, right, transform = matches(3, 400, 0.6, 0.003)
    found = ransac(source[None], target[None], inlier_m=0.012)
    assert int((found.inlier[0] != right).sum()) < 12
    assert angle_rad(found.target_from_source[0], transform) < 0.003
    assert float(found.rms_m[0]) == pytest.approx(0.003 * np.sqrt(3), rel=0.15)
    rough = ransac(source[None], target[None], inlier_m=0.012, refinements=0)
    gap = [
        ((source[right] @ one.target_from_source[0, :3, :3].mT + one.target_from_source[0, :3, 3]) - target[right])
        .square()
        .mean()
        for one in (rough, found)
    ]
    assert gap[1] < gap[0]


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    source, target, _, _ = matches(5, 80, 0.9, 0.01)
    one, same, other = (ransac(source[None], target[None], inlier_m=0.02, seed=seed) for seed in (1, 1, 2))
    for name, value in vars(one).items():
        assert torch.equal(value, vars(same)[name]), name
    assert int(one.judged[0]) != int(other.judged[0])
    state = torch.get_rng_state()
    ransac(source[None], target[None], inlier_m=0.02)
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left alone"


def test_a_pair_does_not_depend_on_its_mates_or_on_padding() -> None:
    source, target, right, _ = matches(7, 60, 0.5, 0.002)
    alone = ransac(source[None], target[None], inlier_m=0.01)
    mate = matches(8, 100, 0.95)
    wide = torch.full((2, 100, 3), NAN).double()
    wide_target, valid = wide.clone(), torch.zeros(2, 100, dtype=torch.bool)
    wide[0, :60], wide_target[0, :60], valid[0, :60] = source, target, True
    wide[1], wide_target[1], valid[1] = mate[0], mate[1], True
    both = ransac(wide, wide_target, valid, inlier_m=0.01)
    assert (both.target_from_source[0] - alone.target_from_source[0]).abs().max() < 1e-9
    assert torch.equal(both.inlier[0, :60], alone.inlier[0])
    assert not both.inlier[0, 60:].any()
    assert int(right.sum()) == 30
    # Points that are not finite are left out without being asked, and so is what the mask excludes.
    assert torch.equal(ransac(wide, wide_target, inlier_m=0.01).inlier, both.inlier)
    valid[0, :60] = ~right
    assert not bool(ransac(wide, wide_target, valid, inlier_m=0.01).inlier[0, :60][right].any())


@settings(max_examples=30)
@given(seed=SEEDS, count=st.integers(3, 12), size=st.integers(1, 3))
def test_triplets_are_of_three_different_valid_matches(seed: int, count: int, size: int) -> None:
    valid = torch.from_numpy(np.random.default_rng(seed).random((size, count)) < 0.6)
    valid[:, :3] = True
    drawn = _draw(valid, valid.sum(1), 300, seed)
    assert drawn.shape == (size, 300, 3)
    for row in range(size):
        assert valid[row][drawn[row]].all()
        assert ((drawn[row] - drawn[row].roll(1, -1)) != 0).all()


def test_all_triplets_are_drawn_equally_often() -> None:
    drawn = _draw(torch.ones(1, 5, dtype=torch.bool), torch.tensor([5]), 60_000, 0)[0]
    code = drawn @ torch.tensor([25, 5, 1])
    count = torch.bincount(code, minlength=125)
    assert int((count > 0).sum()) == 60
    assert int(count[count > 0].min()) > 850
    assert int(count.max()) < 1150


@pytest.mark.parametrize("name", ["none", "one", "two", "equal", "line", "not finite", "all wrong"])
def test_nothing_is_found_where_nothing_is(name: str) -> None:
    source, target, _, _ = matches(0, 30, 0.0)
    if name in ("none", "one", "two"):
        count = ("none", "one", "two").index(name)
        source, target = source[:count], target[:count]
    elif name == "equal":
        source, target = source[:1].expand(30, 3), target[:1].expand(30, 3)
    elif name == "line":
        place = some(1, 30, 1)
        source, target = place * some(2, 3), place * some(2, 3) + 1.0
    elif name == "not finite":
        source = torch.full_like(source, INF)
    else:
        target = torch.from_numpy(np.random.default_rng(9).uniform(-1, 1, (30, 3)))
    found = ransac(source[None], target[None], inlier_m=0.01)
    assert not bool(found.found[0])
    assert torch.equal(found.target_from_source[0], torch.eye(4).double())
    assert not found.inlier.any()
    assert float(found.inlier_share[0]) == 0.0
    for value in vars(found).values():
        assert value.double().isfinite().all()
    if name in ("equal", "line"):
        assert (int(found.flat[0]), int(found.judged[0])) == (4096, 0)
    if name == "all wrong":
        assert int(found.flat[0]) < 4096


def test_a_mirrored_cloud_is_not_taken_for_a_turned_one() -> None:
    source, _, _, _ = matches(0, 60, 0.0)
    mirrored = source * torch.tensor([1.0, 1.0, -1.0]).double()
    found = ransac(source[None], mirrored[None], inlier_m=0.01)
    assert torch.linalg.det(found.target_from_source[0, :3, :3]) == pytest.approx(1.0)
    assert float(found.inlier_share[0]) < 0.3


def test_far_from_the_origin_in_single_precision() -> None:
    source, target, right, transform = matches(4, 100, 0.5, 0.001)
    far = torch.tensor([4e3, -2e3, 5e2]).double()
    found = ransac((source + far).float()[None], (target + far).float()[None], inlier_m=0.01)
    assert int((found.inlier[0] != right).sum()) <= 1
    assert angle_rad(found.target_from_source[0], transform) < 0.002


@pytest.mark.parametrize(
    ("source", "target", "more"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 3), {}),
        (torch.zeros(1, 4, 3), torch.zeros(1, 5, 3), {}),
        (torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), {"inlier_m": 0.0}),
        (torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), {"inlier_m": NAN}),
        (torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), {"triplets": 0}),
        (torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), {"least_inliers": 2}),
    ],
)
def test_wrong_arguments_are_refused(source: Tensor, target: Tensor, more: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="expected"):
        ransac(source, target, **{"inlier_m": 0.01, **more})


# ---------------------------------------------------------------------------------------------------------- matching


@settings(max_examples=40)
@given(seed=SEEDS, count=st.integers(1, 25), other=st.integers(1, 25), width=st.integers(1, 6))
def test_matches_are_those_of_the_definition(seed: int, count: int, other: int, width: int) -> None:
    source, target = some(seed, 2, count, width), some(seed + 1, 2, other, width)
    found = match(source, target)
    for row in range(2):
        distance = np.linalg.norm(source[row].numpy()[:, None] - target[row].numpy()[None], axis=-1)
        forth, back = distance.argmin(1), distance.argmin(0)
        assert found.index[row].tolist() == forth.tolist()
        assert found.mutual[row].tolist() == [int(back[j]) == i for i, j in enumerate(forth)]
        np.testing.assert_allclose(found.distance[row].numpy(), distance.min(1), atol=1e-12)
        if other > 1:
            two = np.sort(distance, axis=1)[:, :2]
            np.testing.assert_allclose(found.ratio[row].numpy(), two[:, 0] / two[:, 1], atol=1e-6)
        else:
            assert (found.ratio[row] == 0).all() or found.ratio[row].max() <= 1


def test_matches_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small whole numbers with a mean of zero: every distance is exact, and most are equal to some other.
    source, target = (torch.cat([half, -half], 1).round() for half in (some(0, 1, 100, 4), some(1, 1, 75, 4)))
    whole = match(source, target)
    monkeypatch.setattr("perceive.points.registration.matching._BLOCK", 1000)
    for name, value in vars(match(source, target)).items():
        assert torch.equal(value, vars(whole)[name]), name
    distance = torch.cdist(source, target)[0].numpy()
    forth, back = distance.argmin(1), distance.argmin(0)  # the first of equals
    assert whole.index[0].tolist() == forth.tolist()
    assert whole.mutual[0].tolist() == [int(back[j]) == i for i, j in enumerate(forth)]
    assert int(whole.mutual.sum()) > 10


def test_of_equal_features_the_first_is_taken() -> None:
    same = torch.ones(1, 4, 3)
    found = match(same, same)
    assert found.index.tolist() == [[0, 0, 0, 0]]
    assert found.mutual.tolist() == [[True, False, False, False]]
    assert found.ratio.tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_missing_features_match_nothing() -> None:
    source = some(0, 1, 6, 4)
    target = source.clone()
    source[0, 1, 2], target[0, 3, 0], target[0, 4, 1] = NAN, NAN, -INF
    valid = torch.tensor([[False, True, True, True, True, True]])
    found = match(source, target, valid, None)
    assert found.mutual[0, [0, 1, 2, 5]].tolist() == [False, False, True, True]
    assert found.index[0, [2, 5]].tolist() == [2, 5]
    assert not set(found.index[0, 2:].tolist()) & {3, 4}
    assert found.distance[0, [0, 1]].tolist() == [INF, INF]
    assert not match(source, target, None, torch.zeros(1, 6, dtype=torch.bool)).mutual.any()
    assert match(source[:, :0], target).mutual.shape == (1, 0)
    assert not match(source, target[:, :0]).mutual.any()


def test_small_differences_on_a_large_common_value_are_told() -> None:
    source = some(0, 1, 50, 3) * 1e-2
    found = match((source + 100.0).float(), (source + 100.0).float())
    assert found.mutual.all()
    assert found.index[0].tolist() == list(range(50))


def test_ambiguous_matches_can_be_left_out() -> None:
    target = torch.tensor([[[0.0], [1.0], [10.0]]])
    found = match(torch.tensor([[[0.4], [9.9]]]), target, max_ratio=0.5)
    assert found.mutual.tolist() == [[False, True]]
    assert match(torch.tensor([[[0.4], [9.9]]]), target).mutual.tolist() == [[True, True]]


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SpecError):
        match(torch.zeros(1, 4, 3), torch.zeros(1, 4, 2))
    with pytest.raises(SpecError):
        match(torch.zeros(2, 4, 3), torch.zeros(1, 4, 3))


# -------------------------------------------------------------------------------------------- descriptors, end to end


def wavy(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Points on a bumpy sheet, and their normals."""
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(-1, 1, (2, count))
    height = 0.25 * np.sin(2.5 * u + 0.4) * np.cos(3.1 * v) + 0.15 * np.sin(6 * u * v) + 0.1 * u
    du = 0.625 * np.cos(2.5 * u + 0.4) * np.cos(3.1 * v) + 0.9 * v * np.cos(6 * u * v) + 0.1
    dv = -0.775 * np.sin(2.5 * u + 0.4) * np.sin(3.1 * v) + 0.9 * u * np.cos(6 * u * v)
    normal = np.stack([-du, -dv, np.ones(count)], -1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return torch.from_numpy(np.stack([u, v, height], -1)), torch.from_numpy(normal)


def pair_features(xyz: Tensor, normal: Tensor, neighbours: int) -> Tensor:
    """Distance and three angles (Drost et al., 2010) of each point with its neighbours, [N, K, 4]."""
    index = torch.from_numpy(cKDTree(xyz.numpy()).query(xyz.numpy(), k=neighbours + 1)[1][:, 1:])
    gap = xyz[index] - xyz[:, None]
    own, other = normal[:, None].expand_as(gap), normal[index]

    def angle(a: Tensor, b: Tensor) -> Tensor:
        return torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1), (a * b).sum(-1))

    return torch.stack(
        [torch.linalg.vector_norm(gap, dim=-1), angle(own, gap), angle(other, gap), angle(own, other)], -1
    )


RANGES = ((0.0, 0.4), (0.0, float(np.pi)), (0.0, float(np.pi)), (0.0, 1.5))


def test_histograms_by_hand() -> None:
    features = torch.tensor([[[0.0, 2.0], [0.5, 1.5], [0.6, 9.0]]], dtype=torch.float64)
    found = histograms(features, [(0.0, 1.0), (1.0, 2.0)], bins=3)
    # First feature: bin 0 whole; bin 1 whole; 0.8 of bin 1 and 0.2 of bin 2. Second: bin 2, bin 1, bin 2 (clamped).
    shares = torch.tensor([[1.0, 1.8, 0.2, 0.0, 1.0, 2.0]], dtype=torch.float64) / 6
    assert (found.square() - shares).abs().max() < 1e-12
    missing = torch.cat([features, torch.full((1, 2, 2), NAN).double()], 1)
    assert torch.equal(histograms(missing, [(0.0, 1.0), (1.0, 2.0)], bins=3), found)
    masked = torch.cat([features, torch.ones(1, 1, 2).double()], 1)
    valid = torch.tensor([[True, True, True, False]])
    assert torch.equal(histograms(masked, [(0.0, 1.0), (1.0, 2.0)], bins=3, valid=valid), found)
    assert histograms(features[:, :0], [(0.0, 1.0), (1.0, 2.0)]).abs().max() == 0
    inner = torch.rand(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: histograms(x, [(0.0, 1.0), (-0.5, 2.0)], bins=3), inner)


@pytest.mark.parametrize("ranges", [[(0.0, 1.0)], [(0.0, 1.0), (2.0, 2.0)], [(0.0, 1.0), (0.0, NAN)]])
def test_wrong_ranges_are_refused(ranges: list[tuple[float, float]]) -> None:
    with pytest.raises(SpecError):
        histograms(torch.zeros(1, 3, 2), ranges)


def test_descriptors_of_pair_features_do_not_turn() -> None:
    xyz, normal = wavy(0, 300)
    turn = rotation(1)
    one = histograms(pair_features(xyz, normal, 30), RANGES)
    other = histograms(pair_features(xyz @ turn.mT + 1.0, normal @ turn.mT, 30), RANGES)
    assert (one - other).abs().max() < 1e-6
    bent = histograms(pair_features(xyz * torch.tensor([1.0, 1.0, 0.2]).double(), normal, 30), RANGES)
    assert (one - bent).abs().max() > 0.1, "the control: another shape has other descriptors"


@pytest.mark.parametrize("engine", ["torch", "open3d"])
def test_two_samples_of_a_surface_are_registered_without_a_start(engine: Any) -> None:
    """Independent samples, a random rotation, a third of the source missing, and noise."""
    model, normal = wavy(0, 1500)
    source, source_normal = wavy(1, 1500)
    part = source[:, 0] < 0.35
    source, source_normal = source[part] + 0.002 * some(2, int(part.sum()), 3), source_normal[part]
    turn, shift = rotation(3), some(4, 3)
    given, given_normal = (source - shift) @ turn, source_normal @ turn
    features = [histograms(pair_features(*cloud, 60), RANGES) for cloud in ((given, given_normal), (model, normal))]
    found = register_pair(
        given, features[0], model, features[1], Surface(model, normal), match_m=0.06, within_m=0.05, engine=engine
    )
    assert found.found
    assert angle_rad(found.model_from_source, turn) < np.deg2rad(0.5)
    moved = given @ found.model_from_source[:3, :3].mT + found.model_from_source[:3, 3]
    assert float((moved - source).norm(dim=1).max()) < 0.01
    # The control: features of another place.
    shuffled = features[0][torch.from_numpy(np.random.default_rng(0).permutation(len(given)))]
    wrong = register_pair(given, shuffled, model, features[1], Surface(model), match_m=0.005, within_m=0.05)
    assert not wrong.found
    assert torch.equal(wrong.model_from_source, torch.eye(4).double())


def test_an_unknown_engine_is_refused() -> None:
    points = some(0, 5, 3)
    with pytest.raises(SpecError, match="'torch' or 'open3d'"):
        register_pair(points, points, points, points, Surface(points), match_m=1, within_m=1, engine="pcl")  # type: ignore[arg-type]
