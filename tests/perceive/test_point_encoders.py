"""Encoders of point clouds: what must not matter, and where tokens sit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.batch import BatchStream, collate
from perceive.encoders.base import Encoder
from perceive.encoders.point_voxels import PointVoxelEncoder
from perceive.points.group import group
from sensors.geometry import axis_angle_to_matrix
from sensors.lidar_pattern import SolidStatePattern
from sensors.observation import Observation, Stream
from tests.fake_world import FakeWorld
from tests.perceive.point_clouds import (
    MAKERS,
    ROOM,
    Make,
    both,
    changed,
    cloud_from,
    cloud_of,
    every,
    groups_of,
    lidar_space,
    pairs_of,
    point_space,
    rows,
    same_set,
    voxels_of,
)
from tests.sensors.quiet_lidar import DOWN, in_base, opened

# ------------------------------------------------------------------------------------------------- what must not matter


@every
@both
def test_the_order_of_the_points_does_not_matter(make: Make, space: spaces.Dict) -> None:
    encoder, stream = make(space), cloud_of(space)
    order = torch.cat([torch.randperm(200, generator=torch.Generator().manual_seed(1)), torch.arange(200, ROOM)])
    with torch.no_grad():
        tokens, mixed = encoder(stream), encoder(rows(stream, order))
    assert tokens.valid.sum() > 20
    same_set(tokens, mixed, 1e-6)
    # The control: which features go with which point does matter.
    name = "rgb" if "rgb" in space.spaces else "intensity"
    swapped = encoder(changed(stream, **{name: stream.data[name][:, :, order]}))
    assert (swapped.features - tokens.features).abs().max() > 1e-2


def thinning(space: spaces.Dict) -> Encoder:
    return groups_of(space, candidates=64)


def test_nor_does_it_where_a_sweep_is_thinned() -> None:
    space = point_space()
    encoder, stream = thinning(space), cloud_of(space)
    order = torch.cat([torch.randperm(200, generator=torch.Generator().manual_seed(1)), torch.arange(200, ROOM)])
    with torch.no_grad():
        same_set(encoder(stream), encoder(rows(stream, order)), 1e-6)
        assert not torch.equal(encoder(stream).features, groups_of(space)(stream).features), "nothing was thinned"


@every
@both
def test_a_cloud_that_is_elsewhere_has_the_same_features_elsewhere(make: Make, space: spaces.Dict) -> None:
    # Whole cubes, so that the grid cuts the cloud where it did.
    shift = torch.tensor([0.25, -0.25, 0.25])
    encoder, stream = make(space), cloud_of(space)
    with torch.no_grad():
        tokens = encoder(stream)
        if "base_from_lidar" in stream.data:
            pose = stream.data["base_from_lidar"].clone()
            pose[..., :3, 3] += shift
            moved = encoder(changed(stream, base_from_lidar=pose))
        else:
            moved = encoder(changed(stream, xyz_m=stream.data["xyz_m"] + shift))
    same_set(tokens, moved, 1e-5, shift)


def test_where_a_sensor_stands_changes_no_bit_of_a_group() -> None:
    encoder, stream = groups_of(lidar_space()), cloud_of(lidar_space())
    pose = stream.data["base_from_lidar"].clone()
    pose[..., :3, 3] += 123.4
    with torch.no_grad():
        assert torch.equal(encoder(stream).features, encoder(changed(stream, base_from_lidar=pose)).features)


@pytest.mark.parametrize("make", [*MAKERS, thinning], ids=["groups", "pairs", "company", "voxels", "thinned"])
@both
def test_batch_mates_do_not_matter(make: Make, space: spaces.Dict) -> None:
    encoder, stream = make(space), cloud_of(space, size=3)
    stream.data["count"][1] = 3
    stream.data["xyz_m"][2] *= 50
    with torch.no_grad():
        together = encoder(stream)
        for row in range(3):
            one = slice(row, row + 1)
            own = BatchStream({n: v[one] for n, v in stream.data.items()}, stream.age_s[one], stream.valid[one])
            alone = encoder(own)
            assert torch.equal(alone.valid, together.valid[one])
            torch.testing.assert_close(alone.features, together.features[one], rtol=0, atol=1e-6)
            torch.testing.assert_close(alone.position_m, together.position_m[one], rtol=0, atol=1e-6)


def test_pairs_do_not_see_how_a_cloud_is_turned_and_xyz_does() -> None:
    space, rng = point_space(), np.random.default_rng(3)
    stream = cloud_of(space, size=4)
    turn = torch.from_numpy(axis_angle_to_matrix(rng.normal(size=(4, 1, 3))))
    before = changed(stream, xyz_m=stream.data["xyz_m"].double())
    after = changed(stream, xyz_m=before.data["xyz_m"] @ turn.transpose(-1, -2))
    for make, invariant in ((pairs_of, True), (groups_of, False)):
        encoder = make(space).double()
        with torch.no_grad():
            ours, theirs = encoder(before), encoder(after)
        turned = torch.where(ours.valid[..., None], ours.position_m @ turn[:, 0].transpose(-1, -2), 0.0)
        torch.testing.assert_close(turned, theirs.position_m, rtol=0, atol=1e-9)
        gap = (ours.features - theirs.features).abs().max()
        assert gap < 1e-6 if invariant else gap > 1e-2, gap


# ---------------------------------------------------------------------------------------------------- where tokens sit


def test_group_tokens_sit_at_centres_and_a_pose_is_applied() -> None:
    space = lidar_space()
    stream = cloud_of(space)
    tokens = groups_of(space)(stream)
    pose = stream.data["base_from_lidar"][:, 0]
    xyz = stream.data["xyz_m"][:, 0, :200]
    # By the definition: the centre farthest from the mean comes first, and each next is farthest from those before.
    own = group(xyz, torch.ones(2, 200, dtype=torch.bool), 12, 8)
    expected = own.centre_m @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]
    torch.testing.assert_close(tokens.position_m, expected, rtol=0, atol=1e-6)
    assert torch.equal(tokens.age_s, torch.full((2, 12), 0.02))


@every
def test_tokens_of_a_simulated_sweep_lie_on_what_it_saw(make: Make) -> None:
    """A table at height 0 and a box on it, seen from above: what the sensor gives enters as it comes."""
    sensor = opened(FakeWorld(), SolidStatePattern(60.0, 2000, 0.08), quaternion_xyzw=DOWN)
    sweep = sensor.read(0.0)
    data = {name: value[None] for name, value in sweep.arrays().items()}
    stream = collate([Observation(0.0, {"it": Stream(data, np.zeros(1, np.float32), np.ones(1, bool))})]).stream("it")
    encoder = make(sensor.space, **({"edge_m": 0.04, "tokens": 400} if make is voxels_of else {"groups": 60}))
    tokens = encoder(stream)
    here = tokens.valid[0]
    assert here.sum() >= 60
    height = tokens.position_m[0, here, 2].detach()
    seen = in_base(sweep)
    assert (np.abs(seen[:, 2]) < 1e-5).any()
    assert (seen[:, 2] > 1e-3).any()
    low, high = float(seen[:, 2].min()) - 1e-5, float(seen[:, 2].max()) + 1e-5
    assert ((height >= low) & (height <= high)).all()
    gap = np.linalg.norm(seen[None] - tokens.position_m[0, here].detach().numpy()[:, None], axis=-1).min(1)
    assert gap.max() < (1e-5 if make is not voxels_of else 0.04), "a token lies where nothing was seen"


def test_voxel_tokens_sit_at_the_mean_of_their_points_inside_the_box() -> None:
    space = point_space(6)
    xyz = torch.tensor([[0.01, 0.01, 0.01], [0.03, 0.05, 0.09], [-0.1, 0.2, 0.3], [1.5, 0, 0], [-1, 0, 0], [2, 0, 0]])
    tokens = voxels_of(space)(cloud_from(space, xyz))
    # 1.5 is the upper face, which is outside; -1 is on the lower one, which is inside.
    assert tokens.valid[0].tolist() == [True] * 3 + [False] * 37
    expected = torch.tensor([[0.02, 0.03, 0.05], [-1, 0, 0], [-0.1, 0.2, 0.3]])  # the fullest, then by x
    torch.testing.assert_close(tokens.position_m[0, :3], expected, rtol=0, atol=1e-6)


def test_of_more_voxels_than_tokens_the_rule_says_which() -> None:
    space = point_space(6)
    xyz = torch.tensor([[0.9, 0, 0], [0.95, 0, 0], [0.1, 0, 0], [-0.6, 0, 0], [0.4, 0.1, 0.1], [-0.9, 0, 0]])
    stream = cloud_from(space, xyz)
    fullest = voxels_of(space, tokens=2)(stream).position_m[0, :, 0]
    nearest = voxels_of(space, tokens=2, keep="nearest")(stream).position_m[0, :, 0]
    torch.testing.assert_close(fullest, torch.tensor([0.925, -0.9]))
    torch.testing.assert_close(nearest, torch.tensor([0.1, 0.4]))
    # Of cubes (3, 0, 0) and (2, 1, 1) the middle of the second is nearer, though it is more steps away.
    corner = cloud_from(space, torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.4, 0.4]]))
    assert voxels_of(space, tokens=1, keep="nearest")(corner).position_m[0, 0, 0] == 0.6
    whole = voxels_of(space)(stream)
    for keep in ("fullest", "nearest"):
        cut = voxels_of(space, tokens=2, keep=keep)(stream)
        apart = torch.cdist(cut.position_m[0], whole.position_m[0][whole.valid[0]]).argmin(1)
        torch.testing.assert_close(cut.features[0], whole.features[0, apart], rtol=0, atol=1e-6)


def test_a_voxel_is_told_where_points_lie_in_its_cube_and_among_each_other() -> None:
    space = point_space(4)
    xyz = torch.tensor([[0.05, 0.05, 0.05], [0.1, 0.05, 0.08], [0.07, 0.1, 0.05]])
    near, moved = cloud_from(space, xyz), cloud_from(space, xyz + 0.1)
    for blind, matters in ((slice(0, 3), False), (slice(3, 6), True)):
        encoder = voxels_of(space)
        assert isinstance(encoder, PointVoxelEncoder)
        with torch.no_grad():
            encoder.point[0].weight[:, blind] = 0  # type: ignore[index]
            gap = (encoder(near).features - encoder(moved).features).abs().max()
        assert gap > 1e-3 if matters else gap < 1e-5, (blind, gap)
