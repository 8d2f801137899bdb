"""Iterative closest points: exact without noise, calibrated with it, honest where a surface leaves something open."""

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

from perceive.points.registration.icp import evaluate, icp
from perceive.points.registration.nearest import NearestGrid, NearestTree
from perceive.points.registration.open3d_pair import icp_open3d
from perceive.points.registration.rigid import exp_twist, invert_rigid
from perceive.points.registration.surface import Surface
from sensors.errors import SpecError

NAN, INF = float("nan"), float("inf")
SEEDS = st.integers(0, 2**31 - 1)
SEARCHES: Any = ("tree", "grid")
METHODS: Any = ("plane", "point")


def some(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def blob(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Points on a bumpy closed surface of about 10 cm, and their outward normals."""
    direction = torch.nn.functional.normalize(some(seed, count, 3), dim=-1)

    def outside(x: Tensor) -> Any:
        u = torch.nn.functional.normalize(x, dim=-1)
        bumps = 0.02 * torch.sin(3 * u[:, 0] + 1) * torch.cos(4 * u[:, 1]) + 0.025 * u[:, 2] ** 3
        return torch.linalg.vector_norm(x, dim=-1) - (0.1 + bumps + 0.02 * torch.sin(5 * u[:, 0] * u[:, 2]))

    xyz = (direction * (1 - outside(direction))[:, None]).requires_grad_()
    (slope,) = torch.autograd.grad(outside(xyz).sum(), xyz)
    return xyz.detach(), torch.nn.functional.normalize(slope, dim=-1)


def box(seed: int, count: int, inset: float = 1.0) -> tuple[Tensor, Tensor]:
    """Points on the faces of a box, evenly by area, and their normals; ``inset`` < 1 leaves the edges out."""
    rng = np.random.default_rng(seed)
    edges = np.array([0.3, 0.2, 0.1])
    area = edges.prod() / edges
    axis = rng.choice(3, count, p=area / area.sum())
    side = rng.choice([-1.0, 1.0], count)
    xyz = inset * rng.uniform(-0.5, 0.5, (count, 3)) * edges
    xyz[np.arange(count), axis] = side * edges[axis] / 2
    normal = np.zeros((count, 3))
    normal[np.arange(count), axis] = side
    return torch.from_numpy(xyz), torch.from_numpy(normal)


def starts(seed: int, count: int, turn_rad: float, shift_m: float) -> Tensor:
    """Motions of exactly these sizes in random directions."""
    parts = [
        size * torch.nn.functional.normalize(some(seed + k, count, 3), dim=-1)
        for k, size in enumerate((turn_rad, shift_m))
    ]
    return exp_twist(torch.cat(parts, -1))


def errors(found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Angles in rad and distances in m of transforms [B, 4, 4]."""
    apart = invert_rigid(expected.expand_as(found)) @ found
    angle = torch.from_numpy(Rotation.from_matrix(apart[:, :3, :3].numpy()).magnitude())
    return angle, torch.linalg.vector_norm(apart[:, :3, 3], dim=-1)


MODEL = blob(0, 2500)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("method", METHODS)
def test_without_noise_the_transform_is_exact(search: Any, method: Any) -> None:
    """The source is some of the model's own points, moved: the pairs become the true ones, and the rest is algebra."""
    xyz, normal = MODEL
    pose = exp_twist(some(5, 6))
    source = (xyz[:600] - pose[:3, 3]) @ pose[:3, :3]
    begin = starts(6, 16, 0.12, 0.015) @ pose
    surface = Surface(xyz, normal, search)
    found = icp(source, surface, begin, method=method, within_m=0.05, iterations=120, stop_rad=1e-9, stop_m=1e-9)
    angle, apart = errors(found.model_from_source, pose)
    good = (angle < 1e-6) & (apart < 1e-6)
    # Point-to-point creeps, and may rest where a few pairs are wrong; point-to-plane does not.
    assert good.double().mean() >= (1.0 if method == "plane" else 0.8)
    assert found.converged.all()
    assert found.inlier.all()
    assert found.inlier_share.tolist() == [1.0] * 16
    assert found.rms_m[good].max() < 1e-7
    assert found.unique.all()
    rotation = found.model_from_source[:, :3, :3]
    assert (rotation @ rotation.mT - torch.eye(3)).abs().max() < 1e-14


@pytest.mark.parametrize("search", SEARCHES)
def test_many_wrong_starts_are_all_refined(search: Any) -> None:
    xyz, normal = MODEL
    source, _ = blob(1, 400)
    surface = Surface(xyz.float(), normal.float(), search)
    found = icp(source.float(), surface, starts(2, 48, 0.2, 0.02), within_m=0.02, first_within_m=0.08)
    angle, apart = errors(found.model_from_source, torch.eye(4, dtype=torch.float64))
    assert float(torch.rad2deg(angle).max()) < 0.3
    assert float(apart.max()) < 0.5e-3
    assert found.converged.all()
    assert int(found.iterations.max()) < 20
    # The control: a start on the other side is not found again.
    back = starts(2, 4, np.pi - 0.2, 0.0)
    far = icp(source.float(), surface, back, within_m=0.02, first_within_m=0.08)
    assert float(errors(far.model_from_source, torch.eye(4, dtype=torch.float64))[0].min()) > 0.5


def test_a_model_far_away_is_as_exact_as_one_at_the_origin() -> None:
    xyz, normal = MODEL
    away = torch.tensor([900.0, -400.0, 70.0], dtype=torch.float64)
    source, _ = blob(1, 400)
    begin = starts(2, 8, 0.1, 0.01)
    near = icp(source, Surface(xyz, normal), begin, within_m=0.03)
    moved = torch.eye(4, dtype=torch.float64)
    moved[:3, 3] = away
    far = icp(source, Surface(xyz + away, normal), moved @ begin, within_m=0.03)
    assert (invert_rigid(moved) @ far.model_from_source - near.model_from_source).abs().max() < 1e-9
    there = icp(source + away, Surface(xyz + away, normal), moved @ begin @ invert_rigid(moved), within_m=0.03)
    assert (invert_rigid(moved) @ there.model_from_source @ moved - near.model_from_source).abs().max() < 1e-8
    # The twist at the origin of the far model is that at the near one's, carried over.
    carried = exp_twist(torch.zeros(6, dtype=torch.float64)).new_zeros(6, 6)
    carried[:3, :3] = carried[3:, 3:] = torch.eye(3)
    x, y, z = away.tolist()
    carried[3:, :3] = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    expected = carried @ near.covariance @ carried.T
    assert ((far.covariance - expected).abs().max() / expected.abs().max()) < 1e-6


def test_the_same_call_gives_the_same_bits_and_mates_do_not_matter() -> None:
    xyz, normal = MODEL
    source, _ = blob(1, 200)
    surface, begin = Surface(xyz, normal), starts(2, 6, 0.1, 0.01)
    one, same = (icp(source, surface, begin, within_m=0.03) for _ in range(2))
    for name, value in vars(one).items():
        assert torch.equal(value, vars(same)[name]), name
    alone = icp(source, surface, begin[2:3], within_m=0.03)
    assert (alone.model_from_source[0] - one.model_from_source[2]).abs().max() < 1e-9
    order = torch.from_numpy(np.random.default_rng(0).permutation(200))
    shuffled = icp(source[order], surface, begin, within_m=0.03)
    assert (shuffled.model_from_source - one.model_from_source).abs().max() < 1e-9
    assert torch.equal(shuffled.inlier, one.inlier[:, order])


def test_a_cloud_for_each_hypothesis_and_points_that_are_not_there() -> None:
    xyz, normal = MODEL
    clouds = torch.stack([blob(seed, 150)[0] for seed in (1, 2, 3)])
    surface, begin = Surface(xyz, normal), starts(2, 3, 0.1, 0.01)
    whole = icp(clouds, surface, begin, within_m=0.03)
    for row in range(3):
        one = icp(clouds[row], surface, begin[row : row + 1], within_m=0.03)
        assert (one.model_from_source[0] - whole.model_from_source[row]).abs().max() < 1e-9
    wide = torch.cat([clouds, torch.full((3, 4, 3), NAN).double()], 1)
    wide[:, 150], wide[:, 151] = INF, 5.0
    valid = torch.ones(3, 154, dtype=torch.bool)
    valid[:, 151] = False
    padded = icp(wide, surface, begin, valid, within_m=0.03)
    assert (padded.model_from_source - whole.model_from_source).abs().max() < 1e-12
    assert torch.equal(padded.inlier[:, :150], whole.inlier)
    assert not padded.inlier[:, 150:].any()
    assert torch.equal(padded.inlier_share, whole.inlier_share)
    reached = evaluate(wide, surface, begin, valid, within_m=100.0)
    assert reached.inlier.tolist() == [[True] * 150 + [False] * 4] * 3, "wherever they would lie"


def test_clutter_is_not_on_the_surface() -> None:
    xyz, normal = MODEL
    source = torch.cat([blob(1, 300)[0], 0.2 + 0.1 * some(3, 100, 3).abs()])
    found = icp(source, Surface(xyz, normal), starts(2, 4, 0.05, 0.005), within_m=0.015)
    assert float(errors(found.model_from_source, torch.eye(4).double())[0].max()) < np.deg2rad(0.3)
    assert found.inlier[:, :300].all()
    assert not found.inlier[:, 300:].any()
    assert found.inlier_share.tolist() == [0.75] * 4


# --------------------------------------------------------------------------------------------------------- covariance


@pytest.mark.parametrize("method", METHODS)
def test_the_covariance_is_that_of_repeated_measurements(method: Any) -> None:
    """300 noisy scans of a box: the spread of the answers against what a single one claims, within a factor of 1.5."""
    noise_m, trials = 0.002, 300
    if method == "plane":
        xyz, normal = box(0, 4000)
        scans = torch.stack([box(seed + 1, 150, 0.8)[0] for seed in range(trials)])
    else:  # sparse points, which noise cannot take for one another
        rng = np.random.default_rng(0)
        xyz = torch.from_numpy(
            rng.permutation(np.stack(np.meshgrid(*[np.linspace(-0.15, 0.15, 5)] * 3), -1).reshape(-1, 3))
        )
        xyz = xyz * torch.tensor([1.0, 0.7, 0.5], dtype=torch.float64)
        normal = None
        scans = xyz[:60].expand(trials, -1, -1)
    scans = scans + noise_m * some(7, *scans.shape)
    away = torch.tensor([0.4, -0.2, 0.3], dtype=torch.float64)  # the origin is not the middle
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = away
    found = icp(
        scans,
        Surface(xyz + away, normal),
        pose.expand(trials, 4, 4),
        method=method,
        within_m=0.02,
        stop_rad=1e-7,
        stop_m=1e-7,
    )
    assert found.converged.all()
    assert found.unique.all()
    twist = _log(pose @ invert_rigid(found.model_from_source))
    actual, claimed = torch.cov(twist.T), found.covariance.mean(0)
    # In every direction: the spread of one in units of the other.
    root = torch.linalg.cholesky(claimed)
    whitened = torch.linalg.solve_triangular(root, actual, upper=False)
    whitened = torch.linalg.solve_triangular(root, whitened.T, upper=False)
    ratio = torch.linalg.eigvalsh(whitened).sqrt()
    assert 1 / 1.5 < float(ratio.min()) <= float(ratio.max()) < 1.5
    expected = noise_m if method == "plane" else noise_m * np.sqrt(3)
    assert float(found.rms_m.mean()) == pytest.approx(expected, rel=0.1)
    # Squared lengths in units of a single answer's own claim: 6 on average.
    own = torch.linalg.solve(found.covariance, twist[..., None])[..., 0]
    assert float((twist * own).sum(-1).mean()) == pytest.approx(6, rel=0.25)


def _log(transform: Tensor) -> Tensor:
    """Twists of small motions, to first order in the translation."""
    turn = torch.from_numpy(Rotation.from_matrix(transform[:, :3, :3].numpy()).as_rotvec())
    return torch.cat([turn, transform[:, :3, 3] - 0.5 * torch.linalg.cross(turn, transform[:, :3, 3])], -1)


def test_twice_the_noise_is_four_times_the_covariance() -> None:
    xyz, normal = box(0, 3000)
    scan, noise = box(1, 400, 0.8)[0], some(2, 400, 3)
    surface, here = Surface(xyz, normal), torch.eye(4, dtype=torch.float64)[None]
    one, two = (evaluate(scan + s * noise, surface, here, within_m=0.05) for s in (0.001, 0.002))
    assert float(
        (two.covariance.diagonal(dim1=1, dim2=2) / one.covariance.diagonal(dim1=1, dim2=2)).mean()
    ) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(("name", "free"), [("plane", 3), ("sphere", 3), ("cylinder", 2), ("box", 0), ("blob", 0)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_what_a_surface_leaves_open_is_told(name: str, free: int, kind: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    flat = torch.from_numpy(rng.uniform(-0.1, 0.1, (2000, 3)))
    across = torch.nn.functional.normalize(some(1, 2000, 3), dim=-1)
    round_ = torch.nn.functional.normalize(across * torch.tensor([1.0, 1.0, 0.0]).double(), dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).double()
    xyz, normal = {
        "plane": lambda: (flat * (1 - up), up.expand(2000, 3)),
        "sphere": lambda: (0.1 * across, across),
        "cylinder": lambda: (0.1 * round_ + flat * up, round_),
        "box": lambda: box(0, 2000),
        "blob": lambda: blob(0, 2000),
    }[name]()
    begin = starts(2, 4, 0.02, 0.002)
    turn = exp_twist(torch.tensor([0.3, -0.5, 0.7, 0, 0, 0], dtype=torch.float64))[:3, :3]
    xyz, normal = xyz @ turn.mT, normal @ turn.mT
    scan = xyz[::4] + 0.001 * some(3, 500, 3)
    found = icp(scan.to(kind), Surface(xyz.to(kind), normal.to(kind)), begin, within_m=0.03)
    assert found.unique.tolist() == [not free] * 4
    assert found.converged.all()
    assert found.model_from_source.isfinite().all()
    assert found.covariance.isfinite().all()
    # What is open stays where it was: noise does not let a cloud slide along a plane or spin about a cylinder.
    angle, apart = errors(found.model_from_source, torch.eye(4).double())
    assert float(angle.max()) < 0.025
    assert float(apart.max()) < 0.003
    assert float(found.rms_m.max()) < 1.5e-3
    unit = torch.tensor([0.1, 0.1, 0.1, 1, 1, 1], dtype=torch.float64)  # turns as metres at the surface
    value = torch.linalg.eigvalsh(unit[:, None] * found.covariance[0] * unit)
    assert int((value > 300 * float(value[0])).sum()) == free


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_points_are_no_registration(count: int) -> None:
    xyz, normal = MODEL
    begin = starts(2, 2, 0.1, 0.01)
    found = icp(xyz[:count], Surface(xyz, normal), begin, within_m=1.0)
    assert not found.converged.any()
    assert not found.unique.any()
    assert (found.model_from_source - begin).abs().max() < 1e-12, "it stays where it was"
    for value in vars(found).values():
        assert value.double().isfinite().all()


def test_out_of_reach_is_no_registration() -> None:
    xyz, normal = MODEL
    begin = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    begin[1, :3, 3] = 3.0
    found = icp(blob(1, 100)[0], Surface(xyz, normal), begin, within_m=0.03)
    assert found.converged.tolist() == [True, False]
    assert found.inlier_share.tolist() == [1.0, 0.0]
    assert icp(xyz[:50], Surface(xyz, normal), begin[:0], within_m=0.03).converged.shape == (0,)


def test_equal_points_and_a_model_of_one_point() -> None:
    xyz, normal = MODEL
    here = torch.eye(4, dtype=torch.float64)[None]
    same = icp(xyz[:1].repeat(50, 1), Surface(xyz, normal), here, within_m=0.1)
    assert same.model_from_source.isfinite().all()
    assert not bool(same.unique[0])
    for search in SEARCHES:
        point = icp(xyz[:50], Surface(xyz[:1], normal[:1], search), here, within_m=1.0)
        assert point.model_from_source.isfinite().all()
        assert not bool(point.unique[0])


# ------------------------------------------------------------------------------------------------- surface, neighbours


def test_a_surface_leaves_bad_points_out_and_needs_one_good() -> None:
    xyz, normal = (value.clone() for value in MODEL)
    xyz[3, 1], normal[4, 0], normal[5] = NAN, INF, 0.0
    surface = Surface(xyz, 3 * normal)
    assert (len(surface), surface.left_out) == (2497, 3)
    assert surface.normal is not None
    assert (torch.linalg.vector_norm(surface.normal, dim=-1) - 1).abs().max() < 1e-12
    for bad in (torch.zeros(0, 3), torch.full((4, 3), NAN)):
        with pytest.raises(SpecError, match="at least one finite point"):
            Surface(bad)


@settings(max_examples=15)
@given(seed=SEEDS, count=st.integers(1, 60), kind=st.sampled_from(["ball", "line", "equal"]))
def test_the_tree_is_exact_and_the_grid_nearly(seed: int, count: int, kind: str) -> None:
    xyz = some(seed, count, 3)
    xyz = {"ball": xyz, "line": xyz[:, :1] * torch.ones(3), "equal": xyz[:1].repeat(count, 1)}[kind]
    query = torch.cat([xyz + 0.05 * some(seed + 1, count, 3), 5 * some(seed + 2, 20, 3)])
    nearest = torch.cdist(query, xyz).amin(1)
    for tool in (NearestTree(xyz), NearestGrid(xyz, cells=12, neighbours=count)):
        for fine in (True, False):
            index = tool.find(query, fine)
            assert index.dtype == torch.int64
            apart = (query - xyz[index]).norm(dim=1)
            if isinstance(tool, NearestTree) or fine:  # all are neighbours of each other here
                assert (apart - nearest).abs().max() < 1e-9
    assert NearestGrid(xyz, cells=2).find(query[:0]).shape == (0,)


def test_the_grid_on_a_surface() -> None:
    xyz, _ = MODEL
    query = blob(1, 2000)[0] + 0.002 * some(2, 2000, 3)
    tree, grid = NearestTree(xyz).find(query), NearestGrid(xyz).find(query)
    far = (query - xyz[grid]).norm(dim=1) - (query - xyz[tree]).norm(dim=1)
    assert float((tree == grid).double().mean()) > 0.99
    assert float(far.min()) >= 0
    rough = NearestGrid(xyz).find(query, fine=False)
    assert 0.3 < float((tree == rough).double().mean()) < 0.99, "the control: the hops do something"
    assert float(((query - xyz[rough]).norm(dim=1) - (query - xyz[tree]).norm(dim=1)).max()) < 0.01


@pytest.mark.parametrize(
    ("source", "start", "more"),
    [
        (torch.zeros(4, 2), torch.eye(4)[None], {}),
        (torch.zeros(3, 4, 3), torch.eye(4)[None], {}),
        (torch.zeros(4, 3), torch.eye(4), {}),
        (torch.zeros(4, 3), torch.eye(4)[None], {"valid": torch.ones(5, dtype=torch.bool)}),
        (torch.zeros(4, 3), torch.eye(4)[None] * NAN, {}),
        (torch.zeros(4, 3), torch.eye(4)[None], {"method": "line"}),
        (torch.zeros(4, 3), torch.eye(4)[None], {"within_m": 0.0}),
        (torch.zeros(4, 3), torch.eye(4)[None], {"iterations": -1}),
    ],
)
def test_wrong_arguments_are_refused(source: Tensor, start: Tensor, more: dict[str, Any]) -> None:
    surface = Surface(*MODEL)
    with pytest.raises(SpecError, match="expected"):
        icp(source, surface, start, **{"within_m": 0.1, **more})


def test_wrong_models_are_refused() -> None:
    xyz, _ = MODEL
    with pytest.raises(SpecError, match="a surface with normals"):
        icp(xyz, Surface(xyz), torch.eye(4)[None], within_m=0.1)
    with pytest.raises(SpecError, match="'tree' or 'grid'"):
        Surface(xyz, search="octree")  # type: ignore[arg-type]
    with pytest.raises(SpecError):
        Surface(xyz, xyz[:5])
    with pytest.raises(SpecError):
        NearestGrid(xyz, cells=0)
    with pytest.raises(SpecError):
        NearestTree(torch.full((3, 3), INF))


# ------------------------------------------------------------------------------------------------------------- Open3D


@pytest.mark.parametrize("method", METHODS)
def test_open3d_and_ours_find_the_same(method: Any) -> None:
    xyz, normal = MODEL
    away = torch.tensor([5.0, 2.0, -3.0], dtype=torch.float64)
    source = blob(1, 800)[0]
    source[0, 0] = NAN
    surface, begin = Surface(xyz + away, normal), starts(2, 1, 0.1, 0.01)
    begin[:, :3, 3] += away
    ours = icp(source, surface, begin, method=method, within_m=0.03, iterations=200)
    theirs = icp_open3d(source, surface, begin[0], method=method, within_m=0.03, iterations=200, relative=1e-9)
    assert cKDTree(xyz.numpy()).n == 2500
    assert (ours.model_from_source - theirs.model_from_source).abs().max() < (1e-5 if method == "plane" else 1e-3)
    assert float(theirs.rms_m[0]) == pytest.approx(float(ours.rms_m[0]), rel=1e-3)
    assert float(theirs.inlier_share[0]) == float(ours.inlier_share[0])
    assert not bool(theirs.inlier[0, 0])
    nothing = icp_open3d(torch.full((3, 3), NAN), surface, begin[0], method=method, within_m=0.03)
    assert not bool(nothing.converged[0])
    with pytest.raises(SpecError):
        icp_open3d(source, surface, begin, within_m=0.1)
