import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.rvt.cube import Cube, in_cube
from sensors.errors import SpecError

SEED = st.integers(0, 2**31 - 1)


def uniform(shape: tuple[int, ...], low: float, high: float, seed: int) -> torch.Tensor:
    return torch.empty(shape).uniform_(low, high, generator=torch.Generator().manual_seed(seed))


def random_cube(batch: int, seed: int) -> Cube:
    return Cube(uniform((batch, 3), -1, 1, seed), uniform((batch,), 0.05, 1, seed + 1))


@settings(max_examples=40)
@given(seed=SEED, batch=st.integers(1, 3))
def test_there_and_back_is_the_same_point(seed: int, batch: int) -> None:
    cube = random_cube(batch, seed)
    points_m = cube.centre_m[:, None] + cube.half_m[:, None, None] * uniform((batch, 50, 3), -1.5, 1.5, seed + 2)
    torch.testing.assert_close(cube.restore(cube.normalise(points_m)), points_m, atol=1e-6, rtol=0)


def test_corners_become_plus_and_minus_one() -> None:
    low_m, high_m = torch.tensor([-0.3, -0.5, 0.6]), torch.tensor([0.7, 0.5, 1.6])
    cube = Cube.around(low_m, high_m, 2, "cpu")
    corners = torch.cartesian_prod(*torch.stack([low_m, high_m], 1))
    signs = torch.cartesian_prod(*torch.tensor([[-1.0, 1.0]] * 3))
    for sample in cube.normalise(corners.expand(2, -1, -1)):
        torch.testing.assert_close(sample, signs, atol=1e-6, rtol=0)


def test_a_long_box_gets_a_cube_of_its_longest_side() -> None:
    cube = Cube.around([0.0, -0.2, 0.0], [0.4, 0.8, 0.1], 1, "cpu")
    torch.testing.assert_close(cube.centre_m, torch.tensor([[0.2, 0.3, 0.05]]))
    torch.testing.assert_close(cube.half_m, torch.tensor([0.5]))


def test_each_sample_has_its_own_cube() -> None:
    cube = Cube(torch.tensor([[0.0, 0, 0], [1, 0, 0]]), torch.tensor([1.0, 2.0]))
    point_m = torch.tensor([[1.0, 0, 0], [1, 0, 2]])
    torch.testing.assert_close(cube.normalise(point_m), torch.tensor([[1.0, 0, 0], [0, 0, 1]]))
    pictures_m = cube.restore(torch.zeros(2, 3, 4, 4, 3))
    torch.testing.assert_close(pictures_m[:, 2, 3, 3], cube.centre_m)


def test_inside_takes_the_faces_in_and_leaves_nan_out() -> None:
    cube = Cube(torch.tensor([[1.0, 0, 0]]), torch.tensor([0.5]))
    rows = [([1.0, 0, 0], True), ([1.5, 0.5, -0.5], True), ([1.0, 0, 0.51], False), ([0.0, 0, 0], False)]
    rows += [([1.0, float("nan"), 0], False), ([float("inf"), 0, 0], False)]
    points_m = torch.tensor([[point for point, _ in rows]])
    assert cube.inside(points_m).tolist() == [[expected for _, expected in rows]]
    assert in_cube(cube.normalise(points_m)).equal(cube.inside(points_m))


@settings(max_examples=40)
@given(seed=SEED)
def test_zoom_maps_back_through_both_cubes(seed: int) -> None:
    cube = random_cube(2, seed)
    points_m = cube.restore(uniform((2, 40, 3), -1, 1, seed + 2))
    zoomed = cube.zoomed(uniform((2, 3), -0.9, 0.9, seed + 3), 4.0)
    through_both = cube.normalise(zoomed.restore(zoomed.normalise(cube.restore(cube.normalise(points_m)))))
    torch.testing.assert_close(cube.restore(through_both), points_m, atol=1e-6, rtol=0)


@settings(max_examples=40)
@given(seed=SEED)
def test_the_target_stays_in_a_zoomed_cube_whose_centre_is_jittered(seed: int) -> None:
    cube = random_cube(2, seed)
    target, jitter = uniform((2, 3), -1, 1, seed + 2), uniform((2, 3), -0.1, 0.1, seed + 3)
    zoomed = cube.zoomed(target + jitter, 4.0)
    seen = zoomed.normalise(cube.restore(target))
    torch.testing.assert_close(seen, -4 * jitter, atol=2e-4, rtol=0)
    assert in_cube(seen).all()
    assert not in_cube(cube.zoomed(target + 0.3, 4.0).normalise(cube.restore(target))).any()  # what jitter must not be


@pytest.mark.parametrize("half_m", [torch.ones(2), torch.ones(1, 1), torch.tensor(1.0)])
def test_a_cube_needs_one_half_edge_per_centre(half_m: torch.Tensor) -> None:
    with pytest.raises(SpecError, match=r"centre_m \[B, 3\]"):
        Cube(torch.zeros(1, 3), half_m)


def test_wrong_points_boxes_and_factors_are_refused() -> None:
    cube = Cube(torch.zeros(2, 3), torch.ones(2))
    for points in (torch.zeros(3, 5, 3), torch.zeros(2, 5, 2), torch.zeros(3)):
        with pytest.raises(SpecError, match=r"points \[2, ..., 3\]"):
            cube.normalise(points)
    for high_m in ([1.0, 0.0, 1.0], [1.0, 1.0], [1.0, float("nan"), 1.0]):
        with pytest.raises(SpecError, match="below"):
            Cube.around([0.0, 0.0, 0.0], high_m, 1, "cpu")
    for factor in (0.0, -1.0, float("nan")):
        with pytest.raises(SpecError, match="positive factor"):
            cube.zoomed(torch.zeros(2, 3), factor)
