import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from perceive.metrics import pose_errors, pose_fast, pose_matching
from perceive.metrics.pose_fast import PoseErrors
from perceive.pose.diameter import diameter
from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.errors import SpecError

LENS = (600.0, 610.0, 320.0, 240.0)


def pose(turn=(0, 0, 0), at=(0, 0, 1.0)):
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), at
    return out


def cylinder(around=64, along=40, at=(0.0, 0.0, 0.0)):
    angle, z = 2 * np.pi * np.arange(around) / around, np.linspace(-0.05, 0.05, along)
    ring = np.stack([0.03 * np.cos(angle), 0.03 * np.sin(angle)], -1)
    points = np.concatenate([np.tile(ring, (along, 1)), np.repeat(z, around)[:, None]], 1) + at
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    flip[:3, 3] = np.asarray(at) - flip[:3, :3] @ at
    symmetries = Symmetries.make([flip], [ContinuousSymmetry.make((0, 0, 1), at)])
    return ObjectModel.make(1, "cylinder", points, [[0, 1, 2]], symmetries=symmetries)


def cloud(seed, count, symmetries=None, flat=False):
    points = np.random.default_rng(seed).normal(size=(count, 3)) * 0.05
    points[:, 2] *= 0.0 if flat else 1.0
    return ObjectModel.make(1, "cloud", points, [[0, 1, 2]], symmetries=symmetries)


@pytest.mark.parametrize("module", [pose_errors, pose_fast, pose_matching])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0


def test_closed_forms():
    bar = np.array([[-0.1, 0, 0], [0.1, 0, 0], [0, 0, 0]])
    half = pose((0, 0, np.pi))
    assert pose_errors.mssd(half, pose(), bar) == pytest.approx(0.2)
    assert pose_errors.mssd(half, pose(), bar, [np.eye(4), pose((0, 0, np.pi), (0, 0, 0))]) == pytest.approx(
        0, abs=1e-15
    )
    assert pose_errors.add(half, pose(), bar) == pytest.approx(0.4 / 3)
    assert pose_errors.adi(half, pose(), bar) == pytest.approx(0, abs=1e-15)
    assert pose_errors.rotation_error_rad(half, pose()) == pytest.approx(np.pi)
    assert pose_errors.rotation_error_rad(pose((1e-9, 0, 0)), pose()) == pytest.approx(1e-9, rel=1e-6)
    assert pose_errors.translation_error_m(pose(at=(0.3, 0.4, 1)), pose()) == pytest.approx(0.5)
    aside = pose(at=(0.01, 0, 1))
    assert pose_errors.mspd(aside, pose(), bar, LENS) == pytest.approx(6.0)
    assert pose_errors.proj(aside, pose(), bar, LENS) == pytest.approx(6.0)


def test_adi_goes_from_the_truth_to_the_estimate():
    points = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.1, 0.001, 0], [0.1, 0.002, 0]])
    there, back = (
        pose_errors.adi(*pair, points) for pair in ((pose(at=(0.1, 0, 1)), pose()), (pose(), pose(at=(0.1, 0, 1))))
    )
    assert there == pytest.approx(np.mean([0.1, 0, 0.001, 0.002]))
    assert back != pytest.approx(there)
    model = ObjectModel.make(1, "points", points, [[0, 1, 2]])
    assert PoseErrors(model).adi(pose(at=(0.1, 0, 1))[None], pose()[None])[0] == pytest.approx(there)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["cylinder", "off", "cloud", "flat", "four"]))
def test_fast_equals_plain(seed, kind):
    rng = np.random.default_rng(seed)
    four = Symmetries.make([pose((0, 0, k * np.pi / 2), (0, 0, 0)) for k in (1, 2, 3)])
    model = {
        "cylinder": lambda: cylinder(),
        "off": lambda: cylinder(12, 120, (0.02, -0.01, 0.03)),
        "cloud": lambda: cloud(seed, 300),
        "flat": lambda: cloud(seed, 300, four, flat=True),
        "four": lambda: cloud(seed, 6000, four),
    }[kind]()
    turns = model.symmetries.transforms()
    truth = pose(rng.normal(size=3), (*rng.normal(size=2) * 0.1, 0.8))
    estimate = (
        truth
        @ turns[rng.integers(len(turns))]
        @ pose(rng.normal(size=3) * rng.choice([0.01, 0.3, 2]), rng.normal(size=3) * 0.01)
    )
    fast = PoseErrors(model)
    both = estimate[None], truth[None]
    vertices = model.vertices_m
    assert fast.mssd(*both)[0] == pytest.approx(pose_errors.mssd(estimate, truth, vertices, turns), abs=1e-13)
    assert fast.mspd(*both, LENS)[0] == pytest.approx(
        pose_errors.mspd(estimate, truth, vertices, LENS, turns), abs=1e-9
    )
    assert fast.add(*both)[0] == pytest.approx(pose_errors.add(estimate, truth, vertices), abs=1e-13)
    assert fast.adi(*both)[0] == pytest.approx(pose_errors.adi(estimate, truth, vertices), abs=1e-13)


def test_symmetries_are_never_punished_and_other_turns_are():
    model = cylinder(at=(0.05, 0.02, -0.01))
    turns, fast = model.symmetries.transforms(), PoseErrors(model)
    assert len(turns) == 630
    truth = np.tile(pose((0.3, 0.2, 0.1), (0, 0, 0.7)), (630, 1, 1))
    assert fast.mssd(truth @ turns, truth).max() < 1e-12
    assert fast.mspd(truth @ turns, truth, LENS).max() < 1e-8
    tilted = truth[:1] @ pose((0.2, 0, 0), (0, 0, 0))
    assert fast.mssd(tilted, truth[:1])[0] > 1e-3


def test_the_hull_does_not_hold_for_projections():
    """A vertex inside of the hull may have the worst projection: MSPD looks at all."""
    outer = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 0.02
    outer = np.concatenate([outer, outer + np.array([0, 0, 0.98]), [[0.0, 0.0, 0.0]]])
    model = ObjectModel.make(1, "tower", np.concatenate([outer, cloud(0, 30).vertices_m * 0.1]), [[0, 1, 2]])
    truth, estimate = pose(at=(0, 0, 0.1)), pose((0.1, 0.4, 0.2), (0.01, 0, 0.1))
    want = pose_errors.mspd(estimate, truth, model.vertices_m, LENS)
    assert PoseErrors(model).mspd(estimate[None], truth[None], LENS)[0] == pytest.approx(want, rel=1e-12)


def test_a_vertex_in_the_plane_of_the_camera_has_no_projection():
    model = cylinder(8, 4)
    model = ObjectModel.make(
        1, "c", np.concatenate([model.vertices_m, [[0.0, 0, 0]]]), [[0, 1, 2]], symmetries=model.symmetries
    )
    inside = pose(at=(0, 0, 0))
    assert pose_errors.mspd(inside, inside, model.vertices_m, LENS) == np.inf
    assert PoseErrors(model).mspd(inside[None], inside[None], LENS)[0] == np.inf


def test_rounded_rotations_are_taken_as_they_are():
    model, rounded = cloud(1, 200), pose((0.4, 0.1, 0.2))
    rounded[:3, :3] = rounded[:3, :3].round(3)
    want = pose_errors.adi(rounded, pose(), model.vertices_m)
    assert PoseErrors(model).adi(rounded[None], pose()[None])[0] == pytest.approx(want, abs=1e-15)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pose_errors.add(np.eye(3), np.eye(4), np.zeros((2, 3))),
        lambda: pose_errors.add(np.full((4, 4), np.nan), np.eye(4), np.zeros((2, 3))),
        lambda: pose_errors.add(np.eye(4), np.eye(4), np.zeros((0, 3))),
        lambda: pose_errors.mspd(np.eye(4), np.eye(4), np.ones((2, 3)), np.eye(3)),
        lambda: pose_errors.mspd(np.eye(4), np.eye(4), np.ones((2, 3)), (0, 1, 2, 3)),
        lambda: pose_errors.mssd(np.eye(4), np.eye(4), np.ones((2, 3)), np.zeros((0, 4, 4))),
        lambda: PoseErrors(cloud(0, 20)).mssd(np.eye(4), np.eye(4)),
        lambda: PoseErrors(cloud(0, 20)).mspd(np.eye(4)[None], np.eye(4)[None], np.eye(3)),
        lambda: diameter(np.zeros((0, 3))),
        lambda: diameter([[np.nan, 0, 0]]),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(SpecError):
        call()


@pytest.mark.parametrize("kind", ["sphere", "ball", "flat", "line", "point", "tetrahedron", "rod"])
def test_diameter_is_that_of_all_pairs(kind):
    rng = np.random.default_rng(3)
    ball = rng.normal(size=(1500, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    points = {
        "sphere": ball,
        "ball": ball * rng.random((1500, 1)),
        "flat": ball * (1, 1, 0),
        "line": ball[:, :1] * (1, 2, 3),
        "point": np.ones((1500, 3)),
        "tetrahedron": rng.dirichlet(np.full(4, 0.2), 1500) @ corners,
        "rod": cylinder().vertices_m,
    }[kind]
    want = max(np.linalg.norm(points - one, axis=1).max() for one in points)
    assert diameter(points + np.array([5, 6, 7])) == pytest.approx(want, rel=1e-12, abs=1e-12)
