"""Encoders of point clouds: clouds that are hardly one, what enters, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.encoders.point_frame import PointReader
from perceive.encoders.point_groups import PointGroupEncoder, curve_order
from perceive.encoders.point_voxels import PointVoxelEncoder
from sensors.errors import WiringError
from sensors.spec import box
from tests.contracts_torch import check_encoder
from tests.perceive.point_clouds import (
    INF,
    NAN,
    ROOM,
    WIDTH,
    Make,
    both,
    changed,
    cloud_from,
    cloud_of,
    every,
    groups_of,
    lidar_space,
    point_space,
    rows,
    same_set,
    voxels_of,
)
from tests.perceive.scene import fake_batch

# ------------------------------------------------------------------------------------------- clouds that are hardly one


@every
@both
@pytest.mark.parametrize("train", [False, True])
def test_an_empty_cloud_has_no_token(make: Make, space: spaces.Dict, train: bool) -> None:
    encoder, stream = make(space).train(train), cloud_of(space)
    stream.data["count"][:] = 0
    tokens = encoder(stream)
    assert not tokens.valid.any()
    assert tokens.features.isfinite().all()
    tokens.features.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@every
@both
@pytest.mark.parametrize("copies", [1, 50])
def test_one_point_is_one_place(make: Make, space: spaces.Dict, copies: int) -> None:
    encoder = make(space)
    stream = cloud_from(space, torch.tensor([[0.1, 0.2, 0.3]]).expand(copies, 3))
    tokens = encoder(stream)
    most = 12 if isinstance(encoder, PointGroupEncoder) else 1
    assert int(tokens.valid.sum()) == min(copies, most)
    there = tokens.valid[0]
    assert tokens.features.isfinite().all()
    pose = stream.data.get("base_from_lidar", torch.eye(4).expand(1, 1, 4, 4))[0, 0]
    expected = pose[:3, :3] @ torch.tensor([0.1, 0.2, 0.3]) + pose[:3, 3]
    torch.testing.assert_close(tokens.position_m[0, there], expected.expand(int(there.sum()), 3), rtol=0, atol=1e-6)
    tokens.features.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@every
@both
def test_points_that_are_not_finite_are_not_there(make: Make, space: spaces.Dict) -> None:
    encoder, stream = make(space), cloud_of(space)
    bad = stream.data["xyz_m"].clone()
    bad[:, :, 5, 0], bad[:, :, 17, 1], bad[:, :, 30, 2], bad[:, :, 31] = NAN, INF, -INF, 1e30
    kept = torch.tensor([i for i in range(ROOM) if i not in (5, 17, 30, 31)] + [ROOM - 1] * 4)
    clean = changed(rows(stream, kept), count=torch.full((2, 1, 1), 196))
    broken = changed(stream, xyz_m=bad)
    if "intensity" in stream.data:  # a feature that is not finite is 0, its point stays
        for one, where in ((broken, 3), (clean, 3)):
            one.data["intensity"][:, :, where] = NAN if one is broken else 0.0
    with torch.no_grad():
        ours, theirs = encoder(broken), encoder(clean)
    assert ours.features.isfinite().all()
    same_set(ours, theirs, 1e-6)


@every
@both
def test_points_that_come_twice(make: Make, space: spaces.Dict) -> None:
    """All stays finite, and places are those of the points; a voxel counts them, a group has them as members."""
    encoder, stream = make(space), cloud_of(space, count=100)
    twice = rows(stream, torch.cat([torch.arange(100).repeat(2), torch.arange(100, ROOM - 100)]))
    twice = changed(twice, count=torch.full((2, 1, 1), 200))
    with torch.no_grad():
        once, again = encoder(stream), encoder(twice)
    assert again.features.isfinite().all()
    assert torch.equal(once.valid, again.valid)
    if isinstance(encoder, PointVoxelEncoder):
        same_set(replace(once, features=again.features), again, 1e-6)
        assert (once.features - again.features).abs().max() > 1e-2, "how many points there are does not matter"
        return
    torch.testing.assert_close(again.position_m[:, :1], once.position_m[:, :1], rtol=0, atol=1e-6)
    apart = torch.cdist(again.position_m, again.position_m) + torch.eye(12)
    assert apart.min() > 1e-3, "a centre was taken twice"


@every
def test_far_points_change_nothing_that_is_kept(make: Make) -> None:
    """Places beyond the range of the grid's numbers, of the curve's, and a cloud as wide as a country."""
    space = point_space()
    encoder, stream = make(space), cloud_of(space)
    far = stream.data["xyz_m"].clone()
    far[:, :, 7] = torch.tensor([3e14, -2e9, 1e6])
    tokens = encoder(changed(stream, xyz_m=far))
    assert tokens.features.isfinite().all()
    assert tokens.position_m.isfinite().all()
    assert tokens.valid.any(1).all()
    tokens.features.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@every
@both
def test_an_absent_frame_and_a_lost_pose_give_no_token(make: Make, space: spaces.Dict) -> None:
    encoder, stream = make(space), cloud_of(space)
    with torch.no_grad():
        tokens = encoder(stream)
        absent = encoder(replace(stream, valid=torch.tensor([[True], [False]])))
        assert not absent.valid[1].any()
        assert torch.equal(absent.valid[0], tokens.valid[0])
        assert (absent.features[1] == 0).all()
        torch.testing.assert_close(absent.features[0], tokens.features[0], rtol=0, atol=1e-6)
        if "base_from_lidar" in stream.data:
            lost = stream.data["base_from_lidar"].clone()
            lost[1, 0, 0, 3] = NAN
            assert torch.equal(encoder(changed(stream, base_from_lidar=lost)).valid, absent.valid)


# ----------------------------------------------------------------------------------------------------- learning, wiring


@every
@both
def test_every_parameter_learns_and_the_contract_is_kept(make: Make, space: spaces.Dict) -> None:
    # Fewer tokens than places, as the contract wants them all there.
    encoder = make(space, **({"tokens": 8} if make is voxels_of else {}))
    check_encoder(encoder, cloud_of(space, 0, 3), cloud_of(space, 1, 3), {})


@every
def test_same_answer_twice_and_in_any_number_of_threads(make: Make) -> None:
    space = lidar_space(3000)
    encoder, stream = make(space), cloud_of(space, count=2500)
    threads = torch.get_num_threads()
    answers = []
    try:
        for number in (1, 2, 1):
            torch.set_num_threads(number)
            encoder.zero_grad()
            tokens = encoder(stream)
            tokens.features.square().sum().backward()
            answers.append([tokens.features, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(answers[0], answers[2], strict=True)), "run to run"
    assert torch.equal(answers[0][0], answers[1][0]), "threads"


@every
def test_what_is_measured_beside_the_place_enters_only_when_asked(make: Make) -> None:
    space = lidar_space()
    stream = cloud_of(space)
    other = changed(stream, intensity=1 - stream.data["intensity"], offset_s=stream.data["offset_s"] / 2)
    with torch.no_grad():
        for asked, matters in ((None, True), ([], False), (["range"], False), (["offset_s"], True)):
            encoder = make(space, features=asked)
            assert torch.equal(encoder(stream).features, encoder(other).features) is not matters, asked


def test_the_channels_of_a_sweep() -> None:
    space = lidar_space(4)
    xyz = torch.tensor([[3.0, 0, 4], [0, 0, 0], [NAN, 0, 0]])
    stream = cloud_from(space, xyz)
    stream.data["intensity"][:], stream.data["offset_s"][:] = 0.7, -0.05
    got = PointReader("test", space, None).read(stream)
    assert got.valid.tolist() == [[True, True, False, False]]
    expected = torch.tensor([[0.7, -0.5, 1.7917595], [0.7, -0.5, 0], [0, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(got.features[0], expected, rtol=0, atol=1e-6)


def test_points_are_ordered_along_the_curve() -> None:
    """The corners of a cube in z-order, x the highest bit; those not valid last."""
    corners = torch.tensor([[x, y, z] for x in (0.0, 2.0) for y in (0.0, 2.0) for z in (0.0, 2.0)]) + 7
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    valid = torch.ones(1, 8, dtype=torch.bool)
    assert torch.equal(order[curve_order(corners[order][None], valid)[0]], torch.arange(8))
    valid[0, 3] = False
    assert curve_order(corners[None], valid)[0, -1] == 3


@every
@pytest.mark.parametrize("missing", ["xyz_m", "count"])
def test_a_missing_field_is_named(make: Make, missing: str) -> None:
    left = {name: part for name, part in lidar_space().spaces.items() if name != missing}
    with pytest.raises(WiringError, match=missing):
        make(spaces.Dict(left))


@every
@pytest.mark.parametrize(
    ("space", "changes", "named"),
    [
        (point_space(), {"features": ["intensity"]}, "intensity"),
        (point_space(), {"features": ["range"]}, "range"),
        (lidar_space(), {"features": ["intensity", "intensity"]}, "different"),
        (spaces.Dict({**lidar_space().spaces, "base_from_tool": box(-1, 1, (4, 4))}), {}, "base_from_tool"),
        (spaces.Dict({**lidar_space().spaces, "intensity": box(0, 1, (7,))}), {}, "intensity"),
        (spaces.Dict({**point_space().spaces, "xyz_m": box(0, 1, (7, 2))}), {}, "xyz_m"),
        (point_space(), {"hidden": 0}, "hidden"),
    ],
)
def test_what_does_not_fit_is_refused(make: Make, space: spaces.Dict, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(WiringError, match=named):
        make(space, **changes)


@pytest.mark.parametrize(
    ("make", "changes", "named"),
    [
        (groups_of, {"groups": 0}, "groups"),
        (groups_of, {"candidates": 11}, "candidates"),
        (groups_of, {"reach_m": 0.0}, "reach_m"),
        (groups_of, {"geometry": "polar"}, "geometry"),
        (groups_of, {"normal_neighbours": 2}, "normal_neighbours"),
        (groups_of, {"lonely": 1.0}, "lonely"),
        (groups_of, {"lonely": NAN}, "lonely"),
        (voxels_of, {"tokens": 0}, "tokens"),
        (voxels_of, {"edge_m": NAN}, "edge_m"),
        (voxels_of, {"low_m": (0, 0, 2)}, "low_m"),
        (voxels_of, {"high_m": (1, 1)}, "high_m"),
        (voxels_of, {"keep": "all"}, "keep"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Make, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(WiringError, match=named):
        make(point_space(), **changes)


def test_two_instants_of_a_drawn_lidar_have_their_own_ages() -> None:
    space = lidar_space()
    stream = fake_batch(np.random.default_rng(0), 2, {"it": space}, {"it": 2}).stream("it")
    torch.manual_seed(0)
    tokens = PointGroupEncoder(space, 2, WIDTH, groups=5, size=4, hidden=4)(stream)
    assert tokens.features.shape == (2, 10, WIDTH)
    assert torch.equal(tokens.age_s, stream.age_s.repeat_interleave(5, 1))
