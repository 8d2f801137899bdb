import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from perceive.metrics.pose_vsd import VisibleSurface, distance_image, projections_overlap, visible, vsd
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from sensors.errors import SensorError, SpecError

LENS, SIZE = (120.0, 118.0, 40.3, 29.6), (60, 80)


def pose(turn, at):
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), at
    return out


@pytest.fixture(scope="module")
def renderer():
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * (0.05, 0.04, 0.03)
    faces = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]]
    faces += [[2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
    return MeshRenderer(ObjectModel.make(1, "box", corners, faces), threads=1)


def test_the_crop_equals_the_whole_picture(renderer):
    rng = np.random.default_rng(0)
    whole, values = (0, 0, SIZE[1], SIZE[0]), []
    for number in range(60):
        at = rng.normal(size=3) * (0.08, 0.06, 0.05) + (0, 0, 0.35)  # some are cut by the border of the picture
        truth = pose(rng.normal(size=3), at)
        estimate = pose(rng.normal(size=3), at + rng.normal(size=3) * rng.choice([0.005, 0.1]))
        shown = renderer.depth(truth, LENS, whole)[0]
        depth = np.where(shown > 0, shown, 0.5) + rng.normal(size=SIZE) * 0.005
        depth[rng.random(SIZE) < (0.0, 0.3, 1.0)[number % 3]] = 0.0
        depth[20:35, 30:50] = (0.5, 0.2)[number % 2]
        images = [distance_image(x, LENS) for x in (depth, shown, renderer.depth(estimate, LENS, whole)[0])]
        want = vsd(*images, renderer.model.diameter_m)
        for corners in (None, renderer.model.vertices_m):
            surface = VisibleSurface(renderer, depth, LENS, shortcut=False, corners_m=corners)
            found = surface.vsd(estimate, surface.truth(truth))
            np.testing.assert_array_equal(found, want)
        values.append(found)
    assert len(np.unique(values)) > 100


def test_the_signs_at_the_limits():
    """At most delta behind is visible; a difference of exactly tau costs."""
    ones = np.ones((1, 1))
    assert visible(ones, ones * 1.015, 0.015)[0, 0]
    assert not visible(ones, ones * 1.0151, 0.015)[0, 0]
    assert vsd(ones * 0, ones, ones * 1.25, 1.0, [0.25, 0.5]).tolist() == [1.0, 0.0]
    assert vsd(ones * 0, ones, ones * 1.25, 1.0, [0.2500001]).tolist() == [0.0]


def test_missing_depth_hides_nothing():
    """BOP 2019: what was not measured is visible; a wall in front hides."""
    truth, none = np.full((2, 2), 1.0), np.zeros((2, 2))
    assert vsd(none, truth, truth, 0.2)[0] == 0.0
    assert vsd(truth * 0.5, truth, truth, 0.2)[0] == 1.0  # nothing is visible in either: an empty union
    half = np.array([[0.5, 0.5], [0.0, 0.0]])
    assert vsd(half, truth, none, 0.2)[0] == 1.0


def test_pixels_visible_in_the_truth_count_in_the_estimate():
    """An estimate farther back than delta at a pixel where the true surface shows is compared, not left out."""
    measured = truth = np.ones((1, 2))
    estimate = np.array([[1.05, 0.0]])
    assert vsd(measured, truth, estimate, 1.0, [0.01, 0.1]).tolist() == [1.0, 0.5]


def test_distance_is_along_the_ray():
    assert distance_image([[1.0, 1.0]], (1, 1, 0, 0))[0].tolist() == pytest.approx([1.0, np.sqrt(2)])
    assert distance_image(np.ones((1, 1)), (1, 1, 0, 0), (1, 1, 2, 2))[0, 0] == pytest.approx(np.sqrt(3))


def test_balls_that_do_not_overlap_are_not_looked_at(renderer):
    truth, far = pose((0, 0, 0), (-0.1, 0, 0.4)), pose((0, 0, 0), (0.1, 0, 0.4))
    size = renderer.model.diameter_m
    assert not projections_overlap(size, far, truth)
    assert projections_overlap(size, truth, truth)
    assert not projections_overlap(size, pose((0, 0, 0), (0, 0, 0)), truth)
    # a wall hides both but for the shortcut; nearer than the ball the picture decides
    surface = VisibleSurface(renderer, np.zeros(SIZE), LENS)
    assert surface.vsd(far, surface.truth(truth)).tolist() == [1.0] * 10
    assert surface.vsd(truth, surface.truth(truth)).tolist() == [0.0] * 10


def test_out_of_view_and_empty(renderer):
    behind, ahead = pose((0, 0, 0), (0, 0, -0.4)), pose((0, 0, 0), (0, 0, 0.4))
    surface = VisibleSurface(renderer, np.zeros(SIZE), LENS, shortcut=False)
    assert surface.truth(behind).box is None
    assert surface.vsd(behind, surface.truth(behind)).tolist() == [1.0] * 10
    assert surface.vsd(behind, surface.truth(ahead)).tolist() == [1.0] * 10
    assert surface.vsd(ahead, surface.truth(behind)).tolist() == [1.0] * 10


def test_nan_is_missing_depth_and_negative_depth_an_error(renderer):
    truth = pose((0, 0, 0), (0, 0, 0.4))
    surface = VisibleSurface(renderer, np.full(SIZE, np.nan), LENS)
    assert surface.vsd(truth, surface.truth(truth))[0] == 0.0
    with pytest.raises(SensorError):
        VisibleSurface(renderer, np.full(SIZE, -1.0), LENS).truth(truth)
    with pytest.raises(SensorError):
        VisibleSurface(renderer, np.zeros(5), LENS)
    with pytest.raises(SpecError):
        VisibleSurface(renderer, np.zeros(SIZE), np.eye(3))
    with pytest.raises(SpecError):
        vsd(np.zeros((2, 2)), np.zeros((2, 3)), np.zeros((2, 2)), 1.0)
    with pytest.raises(SpecError):
        vsd(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)), 1.0, [0.2, 0.1])
