"""The layers that compare: cells are found where they moved to, and the loss of finding them is what it says."""

from __future__ import annotations

import math

import pytest
import torch

from perceive.heads.pose_change import _visible
from perceive.heads.pose_change_net import CHANNELS, REACH, CompareNet

SIDE = 6  # tokens; cells are twice as many
GRID, WIDTH = 2 * SIDE, 8
WINDOW = 2 * REACH + 1


def slot(right: int, down: int) -> int:
    """The number of a step in the window."""
    return (down + REACH) * WINDOW + right + REACH


@pytest.fixture(scope="module")
def net() -> CompareNet:
    torch.manual_seed(0)
    return CompareNet(WIDTH, SIDE, 32, 16).eval()


@pytest.mark.parametrize(("right", "down"), [(2, 1), (-3, 0), (0, 0), (1, -4)])
def test_even_untrained_cells_are_likest_where_they_moved_to(net: CompareNet, right: int, down: int) -> None:
    side = 8 * SIDE
    drawn = torch.rand(1, 5, side, side, generator=torch.Generator().manual_seed(1))
    seen = drawn.roll((4 * down, 4 * right), (2, 3))
    pictures = torch.zeros(1, CHANNELS, side, side)
    pictures[:, [3, 4, 5, 8, 9]], pictures[:, [0, 1, 2, 6, 7]] = drawn, seen
    with torch.no_grad():
        motion, sure, features, found = net(pictures, torch.zeros(1, SIDE**2, 2 * WIDTH))
    assert motion.shape == (1, 3, GRID, GRID)
    assert sure.shape == (1, 2, GRID, GRID)
    assert features.shape[2:] == (GRID, GRID)
    assert found.shape == (1, GRID**2, WINDOW**2)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(1, GRID**2))
    inner = torch.zeros(GRID, GRID, dtype=torch.bool)
    inner[REACH + 1 : -REACH - 1, REACH + 1 : -REACH - 1] = True
    best = found.argmax(-1).view(GRID, GRID)[inner]
    assert (best == slot(right, down)).all()


def test_what_is_beyond_the_picture_is_not_looked_at(net: CompareNet) -> None:
    with torch.no_grad():
        found = net(torch.rand(1, CHANNELS, 8 * SIDE, 8 * SIDE), torch.zeros(1, SIDE**2, 2 * WIDTH))[3]
    first = found[0, 0].exp().view(WINDOW, WINDOW)  # of the upper left cell
    assert first[:REACH].sum() == 0
    assert first[:, :REACH].sum() == 0
    assert first[REACH:, REACH:].sum() == pytest.approx(1.0)


def certain(right: int, down: int, probability: float) -> torch.Tensor:
    """Every cell finds itself at a step with a probability, and anywhere else alike."""
    found = torch.full((1, GRID**2, WINDOW**2), math.log((1 - probability) / (WINDOW**2 - 1)))
    found[:, :, slot(right, down)] = math.log(probability)
    return found


def test_misses_are_the_cross_entropy_of_the_true_place(net: CompareNet) -> None:
    motion = torch.zeros(1, GRID, GRID, 2)
    motion[..., 0], motion[..., 1] = 2 / GRID, -1 / GRID
    there = (slice(1, None), slice(None, -2))  # elsewhere the place is beyond the picture
    entropy, within = net.misses(certain(2, -1, 0.9), motion)
    assert within[0][there].all()
    assert within.sum() == (GRID - 1) * (GRID - 2)
    torch.testing.assert_close(entropy[0][there], torch.full((GRID - 1, GRID - 2), -math.log(0.9)))
    # Between two cells both are wanted alike.
    motion[..., 0] = 1.5 / GRID
    entropy, _ = net.misses(certain(2, -1, 0.9), motion)
    other = math.log(0.1 / (WINDOW**2 - 1))
    assert entropy[0, 4, 4] == pytest.approx(-0.5 * (math.log(0.9) + other), rel=1e-5)
    motion[..., 0] = (REACH + 1) / GRID
    assert not net.misses(certain(2, -1, 0.9), motion)[1].any()


def test_cells_count_that_move_onto_the_visible_object() -> None:
    mask = torch.zeros(1, 2 * GRID, 2 * GRID, dtype=torch.bool)
    mask[0, 8:12, 4:8] = True  # cells in rows 4 and 5, columns 2 and 3
    motion = torch.zeros(1, GRID, GRID, 2)
    seen = _visible(motion, mask)
    assert seen.sum() == 4
    assert seen[0, 4:6, 2:4].all()
    motion[..., 0], motion[..., 1] = 3 / GRID, -2 / GRID
    moved = _visible(motion, mask)
    assert moved[0, 6:8, :1].all()  # columns 2 and 3 are reached from -1 and 0
    assert moved.sum() == 2
