"""Refinement: exact without noise, calibrated with it, honest about what nobody can see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from perceive.pose.covariance import about_origin
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.refine import ModelRefiner, Refined
from perceive.pose.surface_planes import SurfacePlanes
from sensors.errors import DataError, SpecError
from sensors.geometry import axis_angle_to_matrix, unproject
from tests.perceive.pose.meshes import HEIGHT, WIDTH, K, about, mesh, motion, near, seen_points, some_pose

NAN = float("nan")
REFINERS: dict[str, ModelRefiner] = {}


def refiner(name: str) -> ModelRefiner:
    """Built once for all tests: it keeps nothing of what it has refined."""
    if name not in REFINERS:
        REFINERS[name] = ModelRefiner(mesh(name), 400)
    return REFINERS[name]


def errors(found: Tensor, truth: Any) -> tuple[Tensor, Tensor]:
    off = motion(found, truth)
    return off[:, :3].norm(dim=1), off[:, 3:].norm(dim=1)


@pytest.mark.parametrize("name", ["box", "blob", "bracket"])
def test_without_noise_the_pose_is_exact(name: str) -> None:
    truth = some_pose(3)
    points, _ = seen_points(mesh(name), truth, 400, 1)
    found = refiner(name).refine(points, near(truth, 8, 0.15, 0.01, 2), exact=8)
    angle, apart = errors(found.camera_from_object, truth)
    assert float(angle.max()) < 1e-8
    assert float(apart.max()) < 1e-9
    assert float(found.rmse_m.max()) < 1e-9
    assert found.inlier_share.tolist() == [1.0] * 8
    assert bool(found.exact.all())


def test_the_best_of_many_are_exact_and_the_others_near() -> None:
    truth = some_pose(4)
    points, _ = seen_points(mesh("blob"), truth, 400, 1)
    found = refiner("blob").refine(points, near(truth, 32, 0.3, 0.02, 5))
    angle, apart = errors(found.camera_from_object, truth)
    assert int(found.exact.sum()) == 4
    assert float(angle[found.exact].max()) < 1e-8
    assert float(apart[found.exact].max()) < 1e-9
    assert float((angle < 3e-3).double().mean()) >= 0.95
    assert float(angle[~found.exact].median()) > 1e-6  # the table is a table


def test_points_of_a_drawn_picture() -> None:
    """Only the pixels of one camera, the hidden side not among them; single-precision depth."""
    truth = np.eye(4)
    truth[:3, :3] = axis_angle_to_matrix((0.0, 0.7, 0.0)) @ axis_angle_to_matrix((-0.7, 0.0, 0.0))
    truth[:3, 3] = (-0.03, 0.0, 0.4)  # three faces are seen
    drawn = MeshRenderer(mesh("bracket")).depth(truth, K, (0, 0, WIDTH, HEIGHT))[0]
    points = torch.from_numpy(unproject(drawn, K)[drawn > 0])
    found = refiner("bracket").refine(points, near(truth, 8, 0.12, 0.008, 6))
    angle, apart = errors(found.camera_from_object[found.exact], truth)
    assert float(angle.max()) < 1e-5
    assert float(apart.max()) < 1e-6


def normalised(found: Refined, truth: Any) -> float:
    off = motion(found.camera_from_object, truth)[0]
    return float(off @ torch.linalg.solve(found.covariance[0], off))


@pytest.mark.parametrize(("name", "along_rays"), [("blob", False), ("blob", True)])
def test_the_covariance_is_calibrated(name: str, along_rays: bool) -> None:
    """Mean normalised squared error of 80 trials inside its 95 % band, with noise alike or only along the rays."""
    rng, squares = np.random.default_rng(7), []
    for trial in range(80):
        truth = some_pose(100 + trial)
        points, _ = seen_points(mesh(name), truth, 400, trial)
        noise = torch.from_numpy(rng.standard_normal(points.shape)) * 4e-4
        if along_rays:
            noise = points / points[:, 2:] * noise[:, 2:]
        found = refiner(name).refine(points + noise, torch.from_numpy(truth)[None], exact=1)
        squares.append(normalised(found, truth))
    low, high = chi2.ppf([0.025, 0.975], 6 * len(squares)) / len(squares)
    assert low < np.mean(squares) < high
    inside = np.mean(np.array(squares) < chi2.ppf(0.95, 6))
    assert 0.87 <= inside <= 1.0


def test_the_covariance_grows_with_the_noise() -> None:
    truth = some_pose(8)
    points, _ = seen_points(mesh("blob"), truth, 400, 1)
    rng = torch.from_numpy(np.random.default_rng(1).standard_normal(points.shape))
    small, large = (
        refiner("blob").refine(points + size * rng, torch.from_numpy(truth)[None]).covariance[0].diagonal().sqrt()
        for size in (1e-4, 8e-4)
    )
    torch.testing.assert_close(large / small, torch.full((6,), 8.0, dtype=torch.float64), rtol=0.35, atol=0)


def test_a_turn_that_nobody_sees_is_left_open_and_the_rest_is_calibrated() -> None:
    """A can: the start's turn about the axis is kept, its variance says nothing is known, the other five are right."""
    model, rng, squares = mesh("can"), np.random.default_rng(9), []
    for trial in range(60):
        truth = some_pose(0) @ about((0.02, 0, 0), (0.0, 0.0, 0.1 * trial))
        points, _ = seen_points(model, truth, 400, trial)
        points = points + 4e-4 * torch.from_numpy(rng.standard_normal(points.shape))
        begin = truth @ about((0.02, 0, 0), (0, 0, 1.0))
        found = refiner("can").refine(points, torch.from_numpy(begin)[None], exact=1)
        # The truth that looks the same is where it began; about the can's axis the hidden turn is the third number.
        off = motion(found.camera_from_object, begin)[0]
        assert abs(float(off[2])) < 0.02
        back = about_origin(found.covariance, torch.tensor([-0.02, 0.0, 0.0]))[0]
        off[3:] += torch.linalg.cross(off[:3], torch.tensor([0.02, 0.0, 0.0], dtype=torch.float64))
        assert float(back[2, 2]) > 1.0
        kept = [0, 1, 3, 4, 5]
        squares.append(float(off[kept] @ torch.linalg.solve(back[kept][:, kept], off[kept])))
    low, high = chi2.ppf([0.025, 0.975], 5 * len(squares)) / len(squares)
    assert low < np.mean(squares) < high


def test_a_ball_has_no_turn_at_all() -> None:
    truth = some_pose(10)
    points, _ = seen_points(mesh("ball"), truth, 400, 1)
    found = refiner("ball").refine(points, torch.from_numpy(truth)[None])
    deviation = found.covariance[0].diagonal().sqrt()
    assert float(deviation[:3].min()) > 1.0
    assert float(deviation[3:].max()) < 1e-3


def test_one_face_alone_leaves_its_plane_open() -> None:
    """The top of the box: sliding on it and turning in it cannot be seen; its height and its tilt can."""
    truth = np.eye(4)
    truth[:3, :3] = np.diag([1.0, -1.0, -1.0])
    truth[2, 3] = 0.5
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(0.02, 0.08, 300), rng.uniform(0.02, 0.05, 300), np.full(300, 0.04)])
    points = points @ truth[:3, :3].T + truth[:3, 3] + 1e-4 * rng.standard_normal((300, 3))
    begin = truth @ about((0.05, 0.035, 0.02), (0.02, 0.01, 0))
    begin[2, 3] += 0.002
    found = refiner("box").refine(torch.from_numpy(points), torch.from_numpy(begin)[None])
    off = motion(found.camera_from_object, truth)[0].abs()
    assert float(off[:2].max()) < 2e-3
    assert float(found.covariance[0, 3, 3]) > 1e-3
    assert float(found.covariance[0, 4, 4]) > 1e-3
    about_middle = about_origin(found.covariance, -torch.tensor([0.05, 0.035, 0.02]))[0].diagonal().sqrt()
    assert float(about_middle[5]) < 1e-3
    assert float(about_middle[0]) < 1e-2
    assert bool((torch.linalg.eigvalsh(found.covariance[0]) > -1e-9).all())


def test_a_third_of_the_points_beside_the_object() -> None:
    truth = some_pose(11)
    points, _ = seen_points(mesh("blob"), truth, 300, 1)
    rng = np.random.default_rng(2)
    wrong = torch.from_numpy(truth[:3, 3] + rng.uniform(-0.1, 0.1, (120, 3)))
    found = refiner("blob").refine(torch.cat([points, wrong]), near(truth, 4, 0.1, 0.005, 3))
    angle, apart = errors(found.camera_from_object, truth)
    assert float(angle.min()) < 1e-3
    assert float(apart.min()) < 1e-4
    assert 0.6 < float(found.inlier_share.max()) < 0.95


def test_points_are_not_pulled_to_a_face_that_cannot_be_seen() -> None:
    """Begun 9 mm too near, the far side of a 12 mm plate is the nearest: normals or the camera forbid it."""
    truth = np.eye(4)
    truth[:3, :3] = np.diag([1.0, -1.0, -1.0])
    truth[:3, 3] = (-0.05, 0.04, 0.5)
    points, normals = seen_points(mesh("plate"), truth, 400, 0)
    begin = torch.from_numpy(truth.copy())[None]
    begin[0, 2, 3] = 0.491
    by_normals, by_camera, by_neither = (
        refiner("plate").refine(points, begin, given, facing=facing, reach_m=0.004)
        for given, facing in ((normals, False), (None, True), (None, False))
    )
    for found in (by_normals, by_camera):
        assert abs(float(found.camera_from_object[0, 2, 3]) - 0.488) > 2e-3
    assert abs(float(by_neither.camera_from_object[0, 2, 3]) - 0.488) < 1e-6
    assert float(by_neither.inlier_share[0]) == 1.0


def test_no_steps_judge_and_move_nothing() -> None:
    truth = some_pose(12)
    points, _ = seen_points(mesh("blob"), truth, 400, 1)
    begin = torch.cat([torch.from_numpy(truth)[None], near(truth, 3, 0.3, 0.01, 1)])
    found = refiner("blob").refine(points, begin, steps=0)
    torch.testing.assert_close(found.camera_from_object, begin, rtol=0, atol=1e-12)
    assert int(found.rmse_m.argmin()) == 0
    assert float(found.rmse_m[0]) < 1e-9
    assert bool((found.inlier_share[1:] < 0.999).all())


def test_the_same_again_and_each_alone() -> None:
    truth = some_pose(13)
    points, _ = seen_points(mesh("bracket"), truth, 400, 1)
    begin = near(truth, 6, 0.2, 0.01, 1)
    first, second = (refiner("bracket").refine(points, begin, exact=6) for _ in range(2))
    assert torch.equal(first.camera_from_object, second.camera_from_object)
    assert torch.equal(first.covariance, second.covariance)
    alone = refiner("bracket").refine(points, begin[4:5], exact=6)
    torch.testing.assert_close(alone.camera_from_object[0], first.camera_from_object[4], rtol=0, atol=1e-7)


def test_points_that_are_not_finite_are_left_out() -> None:
    truth = some_pose(14)
    points, _ = seen_points(mesh("blob"), truth, 200, 1)
    bad = torch.full((50, 3), NAN, dtype=torch.float64)
    bad[:, 2] = 0.5
    found = refiner("blob").refine(torch.cat([bad, points]), near(truth, 2, 0.1, 0.005, 1))
    assert float(errors(found.camera_from_object, truth)[0].max()) < 1e-8


def test_far_from_the_object_nothing_moves_and_nothing_is_known() -> None:
    truth = some_pose(15)
    points, _ = seen_points(mesh("blob"), truth, 200, 1)
    begin = torch.from_numpy(truth).clone()[None]
    begin[0, 0, 3] += 2.0
    found = refiner("blob").refine(points, begin)
    torch.testing.assert_close(found.camera_from_object, begin, rtol=0, atol=1e-9)
    assert float(found.inlier_share[0]) == 0.0
    assert float(torch.linalg.eigvalsh(found.covariance[0]).max()) > 1.0
    assert bool(found.covariance.isfinite().all())


def test_the_table_is_the_signed_distance() -> None:
    """Within half a cell of the truth on a ball, whose distance is known; exactly on its flat triangles."""
    planes, rng = SurfacePlanes(mesh("ball")), np.random.default_rng(0)
    place = torch.from_numpy(rng.uniform(-0.055, 0.055, (500, 3))).float()
    place = place[place.norm(dim=1) > 0.02]
    row = planes.near(place)
    off = (row[:, :3] * place).sum(1) - row[:, 3]
    torch.testing.assert_close(off, place.norm(dim=1) - 0.05, rtol=0, atol=4e-4)
    torch.testing.assert_close(row[:, 4], off.abs(), rtol=0, atol=planes.edge_m)
    normal, exact, distance = planes.exact(place.double())
    torch.testing.assert_close(exact.abs(), distance, rtol=0, atol=6e-3)
    assert bool(((normal * place).sum(1) > 0).all())


def test_a_mesh_with_its_winding_turned_round_is_refined_alike() -> None:
    model, truth = mesh("bracket"), some_pose(16)
    turned = ObjectModel.make(1, "inside out", model.vertices_m, model.faces[:, ::-1])
    points, _ = seen_points(model, truth, 300, 1)
    found = ModelRefiner(turned, 300).refine(points, near(truth, 2, 0.1, 0.005, 1))
    assert float(errors(found.camera_from_object, truth)[0].max()) < 1e-8


def test_triangles_without_area_and_open_meshes() -> None:
    model, truth = mesh("blob"), some_pose(17)
    faces = np.concatenate([model.faces[:-40], [[0, 0, 1], [5, 5, 5]]])
    holes = ObjectModel.make(1, "open", model.vertices_m, faces)
    assert not holes.watertight
    points, _ = seen_points(holes, truth, 300, 1)
    found = ModelRefiner(holes, 300).refine(points, near(truth, 2, 0.05, 0.003, 1))
    assert float(errors(found.camera_from_object, truth)[0].max()) < 1e-8
    with pytest.raises(DataError, match="area"):
        ModelRefiner(ObjectModel.make(1, "line", [[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]]))


def test_bad_input() -> None:
    one, points = refiner("box"), torch.rand(50, 3, dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)[None]
    with pytest.raises(DataError, match="finite points"):
        one.refine(torch.full((50, 3), NAN), eye)
    with pytest.raises(DataError, match="6"):
        one.refine(points[:5], eye)
    with pytest.raises(SpecError, match="pose"):
        one.refine(points, eye[0])
    with pytest.raises(DataError, match="rigid"):
        one.refine(points, 1000 * eye)  # millimetres in the rotation too
    with pytest.raises(DataError, match="rigid"):
        one.refine(points, eye * NAN)
    with pytest.raises(SpecError, match="points"):
        one.refine(points[:, :2], eye)
    with pytest.raises(SpecError, match="normals"):
        one.refine(points, eye, points[:10])
    for wrong in ({"reach_m": 0.0}, {"reach_m": NAN}, {"steps": -1}, {"exact": -1}):
        with pytest.raises(SpecError, match="reach_m"):
            one.refine(points, eye, **wrong)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(SpecError, match="points"):
        ModelRefiner(mesh("box"), 3)
    with pytest.raises(SpecError, match="cells"):
        SurfacePlanes(mesh("box"), cells=1)
    assert math.isfinite(one.planes.size_m)
