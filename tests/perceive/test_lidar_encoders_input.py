"""The LiDAR encoders: clouds that are hardly one, sensors that move, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.batch import BatchStream
from perceive.encoders.point_frame import PointReader, rotation_vector, straightened
from sensors.deskew import deskew
from sensors.errors import WiringError
from sensors.geometry import FloatArray, axis_angle_to_matrix, matrix_to_axis_angle, pose
from sensors.spec import box
from tests.perceive.point_clouds import (
    INF,
    NAN,
    ROOM,
    Make,
    changed,
    cloud_from,
    cloud_of,
    lidar_space,
    point_space,
    rows,
    same_set,
)
from tests.perceive.test_lidar_encoders import every, finite_gradients, one_point, sets_of, snake_of

# ----------------------------------------------------------------------------------------- clouds that are hardly one


@every
@pytest.mark.parametrize("kind", ["empty", "nan", "far", "outside"])
def test_clouds_that_have_nothing_in_the_box(make: Make, kind: str) -> None:
    encoder, stream = make(lidar_space()).train(), cloud_of(lidar_space())
    value = {"nan": NAN, "far": 3e30, "outside": 2.5}.get(kind, 0.0)
    stream.data["xyz_m"][1] = value
    if kind == "nan":
        stream.data["xyz_m"][1, 0, ::2] = -INF
    stream.data["count"][1] = 0 if kind == "empty" else ROOM
    tokens = encoder(stream)
    assert tokens.valid[0].all()
    assert not tokens.valid[1].any()
    assert (tokens.features[1] == 0).all()
    alone = BatchStream({n: v[1:] for n, v in stream.data.items()}, stream.age_s[1:], stream.valid[1:])
    nothing = encoder(alone)
    assert not nothing.valid.any()
    (tokens.features.square().sum() + nothing.features.square().sum()).backward()
    assert finite_gradients(encoder)


@every
@pytest.mark.parametrize("copies", [1, 4])
def test_one_point_is_one_token_however_often_it_comes(make: Make, copies: int) -> None:
    encoder = make(point_space(4))
    tokens = encoder(one_point(copies))
    assert tokens.valid[0].tolist() == [True] + [False] * 39
    torch.testing.assert_close(tokens.position_m[0, 0], torch.tensor([0.1, 0.2, 0.3]))
    once = encoder(one_point()).features
    torch.testing.assert_close(tokens.features, once, rtol=0, atol=1e-6)
    tokens.features.square().sum().backward()
    assert finite_gradients(encoder)


@every
def test_points_that_are_not_finite_are_not_there(make: Make) -> None:
    space = lidar_space()
    encoder, stream = make(space), cloud_of(space)
    bad = stream.data["xyz_m"].clone()
    bad[:, :, 5, 0], bad[:, :, 17, 1], bad[:, :, 30, 2], bad[:, :, 31] = NAN, INF, -INF, 1e30
    kept = torch.tensor([i for i in range(ROOM) if i not in (5, 17, 30, 31)] + [ROOM - 1] * 4)
    clean = changed(rows(stream, kept), count=torch.full((2, 1, 1), 196))
    with torch.no_grad():
        same_set(encoder(changed(stream, xyz_m=bad)), encoder(clean), 1e-5)


@every
def test_an_absent_frame_and_a_lost_pose_give_no_token(make: Make) -> None:
    space = lidar_space()
    encoder, stream = make(space), cloud_of(space)
    lost = stream.data["base_from_lidar"].clone()
    lost[1, 0, 0, 3] = NAN
    with torch.no_grad():
        tokens = encoder(stream)
        for broken in (replace(stream, valid=torch.tensor([[True], [False]])), changed(stream, base_from_lidar=lost)):
            absent = encoder(broken)
            assert not absent.valid[1].any()
            assert (absent.features[1] == 0).all()
            torch.testing.assert_close(absent.features[0], tokens.features[0], rtol=0, atol=1e-5)


def test_a_point_just_below_the_top_is_in_the_one_layer() -> None:
    space = point_space(4)
    high = 0.3
    top = torch.nextafter(torch.tensor(high), torch.tensor(0.0)).item()
    for low in (-0.1, -0.7, -1.1):  # where the quotient rounds up to 1, a second layer would begin
        encoder = snake_of(space, low_m=(-1, -1, low), high_m=(1, 1, high))
        xyz = torch.tensor([[0.01, 0.01, top], [0.02, 0.02, low + 0.01]])
        assert int(encoder(cloud_from(space, xyz)).valid.sum()) == 1


def test_two_million_points() -> None:
    """Most of them lie in the box; the clouds of both encoders share the reading."""
    space = point_space(2_000_000)
    xyz = torch.rand(1, 1, 2_000_000, 3, generator=torch.Generator().manual_seed(0)) * 2.5 - 1.2
    data = {"xyz_m": xyz, "count": torch.full((1, 1, 1), 2_000_000)}
    stream = BatchStream(data, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))
    encoder = sets_of(space, features=[], channels=4, heads=1)
    with torch.no_grad():
        tokens = encoder(stream)
    assert tokens.valid.all()
    assert tokens.features.isfinite().all()
    assert (tokens.position_m[0, :, 2].abs() < 0.1).all(), "columns that are full from -1 to 1 have their mean at 0"


# ------------------------------------------------------------------------------------------------ motion compensation


def measured(stands_m: FloatArray, share: FloatArray, before: FloatArray, now: FloatArray) -> FloatArray:
    """Points [P, 3] of the base frame as seen from poses on the way, by their definition."""
    turn = matrix_to_axis_angle(before[:3, :3].T @ now[:3, :3])
    rotation = before[:3, :3] @ axis_angle_to_matrix(share[:, None] * turn)
    origin = (1 - share[:, None]) * before[:3, 3] + share[:, None] * now[:3, 3]
    return np.asarray(np.einsum("nji,nj->ni", rotation, stands_m - origin))


def moving(size: int = 2, steps: int = 3, seed: int = 0, turn_rad: float = 0.4) -> tuple[BatchStream, torch.Tensor]:
    """Points that stand [B, T, P, 3], float64, and what a LiDAR that moves steadily between frames measures of them."""
    rng = np.random.default_rng(seed)
    stands = rng.uniform((-0.9, -0.9, -0.9), 0.9, (size, steps, ROOM, 3))
    offset = rng.uniform(-0.1, 0, (size, steps, ROOM))
    xyz, poses = np.empty_like(stands), np.empty((size, steps, 4, 4))
    for sample in range(size):
        at = pose(rng.normal(0, 0.3, 3))
        for step in range(steps):
            now = pose(at[:3, 3] + rng.normal(0, 0.2, 3))
            now[:3, :3] = at[:3, :3] @ axis_angle_to_matrix(turn_rad * rng.normal(size=3))
            xyz[sample, step] = measured(stands[sample, step], 1 + offset[sample, step] / 0.1, at, now)
            poses[sample, step] = at = now
    data = {
        "xyz_m": torch.from_numpy(xyz),
        "intensity": torch.full((size, steps, ROOM), 0.5, dtype=torch.float64),
        "offset_s": torch.from_numpy(offset),
        "count": torch.full((size, steps, 1), ROOM),
        "base_from_lidar": torch.from_numpy(poses),
    }
    age = torch.linspace(0.1 * (steps - 1), 0, steps, dtype=torch.float64).expand(size, steps) + 0.02
    return BatchStream(data, age, torch.ones(size, steps, dtype=torch.bool)), torch.from_numpy(stands)


def test_what_stands_is_read_where_it_is() -> None:
    stream, stands = moving()
    space = lidar_space()
    for compensate in (True, False):
        points = PointReader("test", space, None, compensate).read(stream)
        gap = (points.in_base(points.xyz_m).view_as(stands) - stands).norm(dim=-1)
        assert gap[:, 0].max() > 0.05, "nobody knows how the sensor came to the first frame"
        assert gap[:, 1:].max() < 1e-6 if compensate else gap[:, 1:].max() > 0.05
    raw = PointReader("test", space, None).read(stream)
    assert torch.equal(points.features, raw.features), "the range is what was measured"
    single = {n: v.float() if v.is_floating_point() else v for n, v in stream.data.items()}
    rough = PointReader("test", space, None, True).read(BatchStream(single, stream.age_s.float(), stream.valid))
    assert (rough.in_base(rough.xyz_m).view_as(stands) - stands)[:, 1:].abs().max() < 1e-5


def test_a_frame_after_a_gap_or_of_the_same_age_stays_as_it_is() -> None:
    stream, _ = moving(3)
    raw = PointReader("test", lidar_space(), None).read(stream).xyz_m.view(3, 3, ROOM, 3)
    valid, age = stream.valid.clone(), stream.age_s.clone()
    valid[0, 1] = False
    age[1, 2] = age[1, 1]
    lost = stream.data["base_from_lidar"].clone()
    lost[2, 0] = NAN
    late = stream.data["offset_s"].clone()
    late[2, 2, :4] = torch.tensor([NAN, INF, -INF, 1e30])
    broken = replace(changed(stream, base_from_lidar=lost, offset_s=late), valid=valid, age_s=age)
    got = PointReader("test", lidar_space(), None, True).read(broken)
    xyz = got.xyz_m.view(3, 3, ROOM, 3)
    assert xyz.isfinite().all()
    same = torch.tensor([[torch.equal(xyz[s, t], raw[s, t]) for t in range(3)] for s in range(3)])
    assert not xyz[0, 1].any()  # absent
    assert same.tolist() == [[True, False, True], [True, False, True], [False, True, False]]
    assert torch.equal(xyz[2, 2, :3], raw[2, 2, :3])


def test_one_instant_and_frames_of_one_moment_are_read_as_before_to_the_bit() -> None:
    for space, stream in ((lidar_space(), cloud_of(lidar_space())), (point_space(), cloud_of(point_space()))):
        ours, theirs = (PointReader("test", space, None, flag).read(stream) for flag in (True, False))
        assert torch.equal(ours.xyz_m, theirs.xyz_m)
        assert torch.equal(ours.features, theirs.features)


def test_straightening_in_torch_is_that_in_numpy() -> None:
    rng = np.random.default_rng(5)
    before, now = np.tile(np.eye(4), (2, 6, 1, 1))
    for number, angle in enumerate((0.0, 1e-9, 1e-4, 1.0, np.pi - 1e-6, np.pi)):
        before[number, :3, :3] = axis_angle_to_matrix(rng.normal(size=3))
        axis = rng.normal(size=3)
        now[number, :3, :3] = before[number, :3, :3] @ axis_angle_to_matrix(angle * axis / np.linalg.norm(axis))
        now[number, :3, 3] = rng.normal(size=3)
    xyz, share = rng.normal(size=(6, 9, 3)), rng.uniform(0, 1, (6, 9))
    ours = straightened(*map(torch.from_numpy, (xyz, share, before, now))).numpy()
    for number in range(6):
        theirs = deskew(xyz[number], -0.1 * share[number], before[number], now[number], 0.1)
        np.testing.assert_allclose(ours[number], theirs, atol=1e-7)
    turn = torch.from_numpy(axis_angle_to_matrix(rng.normal(size=(50, 3))))
    again = axis_angle_to_matrix(rotation_vector(turn).numpy())
    np.testing.assert_allclose(again, turn.numpy(), atol=1e-12)


@every
def test_tokens_of_a_moving_lidar_lie_on_what_stands(make: Make) -> None:
    """A wall that stands: tokens of the second frame lie on it if the motion is known, else beside it."""
    stream, stands = moving(1, 2, seed=3)
    stands[..., 0] = 0.52
    base, share = stream.data["base_from_lidar"].numpy(), 1 + stream.data["offset_s"][0, 1].numpy() / 0.1
    xyz = stream.data["xyz_m"].clone()
    xyz[0, 1] = torch.from_numpy(measured(stands[0, 1].numpy(), share, base[0, 0], base[0, 1]))
    stream = changed(stream, xyz_m=xyz)
    single = {n: v.float() if v.is_floating_point() else v for n, v in stream.data.items()}
    stream = BatchStream(single, stream.age_s.float(), stream.valid)
    for compensate in (True, False):
        encoder = make(lidar_space(), tokens=30, compensate=compensate)
        # Made for one instant: its maker knows no other; a second only doubles what it says it makes.
        tokens = encoder(stream)
        second = slice(30, 60)
        off = (tokens.position_m[0, second, 0] - 0.52).abs()[tokens.valid[0, second]]
        assert len(off) > 10
        assert off.max() < 1e-5 if compensate else off.max() > 0.02


# --------------------------------------------------------------------------------------------------- what is refused


@every
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokens": 0}, "tokens"),
        ({"edge_m": NAN}, "edge_m"),
        ({"low_m": (0, 0, 2)}, "low_m"),
        ({"keep": "all"}, "keep"),
        ({"channels": 0}, "channels"),
        ({"channels": 7, "heads": 1}, "channels"),
        ({"heads": 3}, "heads"),
        ({"blocks": 0}, "blocks"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
        ({"window": (4,)}, "window"),
        ({"features": ["intensity"]}, "intensity"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Make, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(WiringError, match=named):
        make(point_space(), **changes)


@pytest.mark.parametrize(
    ("make", "changes", "named"),
    [
        (sets_of, {"height_m": 0.0}, "height_m"),
        (sets_of, {"set_length": 0}, "set_length"),
        (sets_of, {"wide": (8, 8, 0)}, "wide"),
        (sets_of, {"shift": (2, -2, 0)}, "shift"),
        (sets_of, {"window": (4, 4, 1.5)}, "window"),
        (snake_of, {"group_length": 0}, "group_length"),
        (snake_of, {"window": (3, 0)}, "window"),
        (snake_of, {"channels": 6}, "channels"),
    ],
)
def test_so_are_their_own(make: Make, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(WiringError, match=named):
        make(point_space(), **changes)


def test_times_of_another_shape_are_refused_where_they_are_needed() -> None:
    space = spaces.Dict({**lidar_space().spaces, "offset_s": box(-1, 0, (7,))})
    PointReader("test", space, [])
    with pytest.raises(WiringError, match="offset_s"):
        PointReader("test", space, [], True)
