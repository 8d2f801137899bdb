"""Groups of points around centres that do not stand alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceive.encoders.point_groups import PointGroupEncoder, in_company
from perceive.points.group import group
from perceive.tokens import Tokens
from tests.perceive.point_clouds import cloud_from, groups_of, point_space

STRAYS = 8


def sheet(side: int = 14, step_m: float = 0.02) -> Tensor:
    """A square grid of points, [side * side, 3]."""
    at = step_m * torch.arange(side)
    return torch.stack([*torch.meshgrid(at, at, indexing="ij"), torch.full((side, side), 0.1)], -1).reshape(-1, 3)


def strays() -> Tensor:
    """Points that are at least half a metre from all others."""
    turn = torch.arange(STRAYS) * (2 * torch.pi / STRAYS)
    return torch.stack([turn.cos(), turn.sin(), torch.full((STRAYS,), 0.5)], -1)


def tokens_of(xyz_m: Tensor, **changes: object) -> Tokens:
    with torch.no_grad():
        tokens: Tokens = groups_of(point_space(), **changes)(cloud_from(point_space(), xyz_m))
    return tokens


def on_strays(tokens: Tokens) -> int:
    return int((torch.cdist(tokens.position_m[tokens.valid], strays()).amin(1) < 1e-6).sum())


def test_stray_points_are_no_centres_where_there_are_others() -> None:
    cloud = torch.cat([sheet(), strays()])
    assert on_strays(tokens_of(cloud)) == STRAYS, "farthest point sampling takes all of them"
    tokens = tokens_of(cloud, lonely=2.5)
    assert on_strays(tokens) == 0
    assert tokens.valid.all()


def test_they_are_where_there_are_not() -> None:
    few = sheet(3)  # nine points for twelve groups
    tokens = tokens_of(torch.cat([few, strays()]), lonely=2.5)
    assert tokens.valid.all()
    assert on_strays(tokens) == 12 - len(few)
    # The first of those that stand alone in the order of farthest point sampling, after all the others.
    assert tokens_of(torch.cat([few, strays()[:1]]), lonely=2.5).valid.sum() == 10


@pytest.mark.parametrize("size", [1, 3, 8])
def test_of_a_cloud_without_stray_points_nothing_changes(size: int) -> None:
    plain, tokens = tokens_of(sheet(), size=size), tokens_of(sheet(), size=size, lonely=2.5)
    assert torch.equal(tokens.features, plain.features)
    assert torch.equal(tokens.position_m, plain.position_m)
    # The control: a corner's fourth-nearest point is more than 1.3 times as far as usual.
    assert not torch.equal(tokens_of(sheet(), size=size, lonely=1.3).position_m, plain.position_m)


def test_points_that_come_many_times_leave_no_yardstick() -> None:
    cloud = torch.cat([sheet(5).repeat(6, 1), strays()])
    assert on_strays(tokens_of(cloud, lonely=2.5)) == STRAYS
    assert tokens_of(cloud, lonely=2.5).features.isfinite().all()


def test_the_rule_in_closed_form() -> None:
    # On a line, so that the fourth-nearest point of the first is 4 steps away, of the inside 2, of the stray one 6.
    line = torch.zeros(1, 12, 3)
    line[0, :11, 0] = torch.arange(11.0)
    line[0, 11, 0] = 13.0
    valid = torch.ones(1, 12, dtype=torch.bool)
    groups = group(line, valid, 12, 5)
    for lonely, alone in ((3.0, set()), (2.9, {11}), (1.9, {0, 11}), (1.4, {0, 1, 9, 10, 11})):
        kept = in_company(groups, 12, 5, lonely)
        order = kept.centre[0].tolist()
        assert set(order[len(order) - len(alone) :]) == alone
        rest = [centre for centre in groups.centre[0].tolist() if centre not in alone]
        assert order[: len(rest)] == rest, "each kind in the order in which it came"
        torch.testing.assert_close(kept.centre_m[0, :, 0], line[0, kept.centre[0], 0])
        torch.testing.assert_close(kept.relative_m, line[0][kept.index] - kept.centre_m[:, :, None])


def test_the_default_samples_as_published() -> None:
    encoder = groups_of(point_space())
    assert isinstance(encoder, PointGroupEncoder)
    stream = cloud_from(point_space(), torch.cat([sheet(), strays()]))
    groups = encoder.groups(stream)
    assert int((torch.cdist(groups.position_m[0], strays()).amin(1) < 1e-6).sum()) == STRAYS
