"""The LiDAR encoders, DSVT-style sets and FlatFormer-style snakes: closed forms, what must not matter, bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder
from perceive.encoders.pillars import PieceAttention, PillarNet
from perceive.encoders.point_frame import PointReader
from perceive.encoders.point_sets import PointSetEncoder, partition_of
from perceive.encoders.point_snake import PointSnakeEncoder, snake_passes, wave_place
from tests.contracts_torch import check_encoder
from tests.perceive.point_clouds import (
    ROOM,
    Make,
    both,
    changed,
    cloud_from,
    cloud_of,
    lidar_space,
    made,
    point_space,
    rows,
    same_set,
)

SMALL = {"tokens": 40, "edge_m": 0.1, "low_m": (-1, -1, -1), "high_m": (1.5, 1, 1), "channels": 16, "heads": 2}


def sets_of(space: spaces.Dict, **changes: Any) -> Encoder:
    small = {**SMALL, "set_length": 5, "window": (4, 4, 1), "wide": (8, 8, 1), "shift": (2, 2, 0)}
    return made(PointSetEncoder, space, small, **changes)


def voxels_of(space: spaces.Dict, **changes: Any) -> Encoder:
    tall = {"height_m": 0.2, "window": (4, 4, 4), "wide": (8, 8, 4)}
    return sets_of(space, **{**tall, **changes})


def snake_of(space: spaces.Dict, **changes: Any) -> Encoder:
    return made(PointSnakeEncoder, space, {**SMALL, "group_length": 7, "window": (3, 3)}, **changes)


every = pytest.mark.parametrize("make", [sets_of, voxels_of, snake_of], ids=["sets", "voxels", "snake"])


def net_of(encoder: Encoder) -> PillarNet:
    assert isinstance(encoder, PointSetEncoder | PointSnakeEncoder)
    return encoder.pillars


def finite_gradients(encoder: Encoder) -> bool:
    return all(p.grad is None or bool(p.grad.isfinite().all()) for p in encoder.parameters())


# ------------------------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(("height_m", "z"), [(None, -0.325), (0.5, 0.1)])
def test_pillar_features_by_hand(height_m: float | None, z: float) -> None:
    """Two pillars of two points and one: what the first layer is told, and what is pooled."""
    space = point_space(4)
    xyz = torch.tensor([[0.02, 0.03, 0.3], [0.08, 0.05, 0.3], [-0.95, 0.55, 0.3]])
    encoder = sets_of(space, height_m=height_m, features=[], high_m=(1.5, 1.0, 1.0))
    net, told = net_of(encoder), []
    net.first.register_forward_pre_hook(lambda _, given: told.append(given[0].clone()))
    pillars = net(PointReader("test", space, []).read(cloud_from(space, xyz)))
    assert pillars.cell[:, :2].tolist() == [[0, 15], [10, 10]]
    assert pillars.count.tolist() == [1, 2]
    # Middles (-0.95, 0.55) and (0.05, 0.05); the height is 2 m from -1, or 0.5 m: 0.3 is in the layer from 0 to 0.5.
    up = 0.15 if height_m is None else 0.1
    expected = torch.tensor([[-0.3, -0.2, up, -0.3, -0.1, 0], [0.3, 0.0, up, 0.3, 0.1, 0], [0.0, 0.0, up, 0.0, 0.0, 0]])
    torch.testing.assert_close(told[0], expected, rtol=0, atol=1e-5)
    middle_z = 0.0 if height_m is None else 0.25
    assert z < middle_z
    torch.testing.assert_close(pillars.middle_m[:, 2], torch.full((2,), middle_z))
    torch.testing.assert_close(pillars.position_m, torch.tensor([[-0.95, 0.55, 0.3], [0.05, 0.04, 0.3]]))
    first = net.first(expected)
    shared = torch.stack([first[:2].amax(0), first[:2].amax(0), first[2]])
    second = net.second(torch.cat([first, shared], 1))
    pooled = torch.stack([second[2], second[:2].amax(0)])
    torch.testing.assert_close(pillars.features, pooled, rtol=0, atol=1e-5)


def attended(attention: PieceAttention, features: Tensor, place: Tensor, keys: list[Tensor]) -> Tensor:
    """Each row's attention over its own keys, by the definition, one by one."""
    query, key = attention.query_key(features + place).chunk(2, -1)
    value, out = attention.value(features), []
    for row, seen in enumerate(keys):
        parts = []
        for q, k, v in zip(*(one.chunk(2, -1) for one in (query[row], key[seen], value[seen])), strict=True):
            parts.append(((k @ q) / len(q) ** 0.5).softmax(0) @ v)
        out.append(torch.cat(parts))
    return attention.project(torch.stack(out))  # type: ignore[no-any-return]


def test_set_attention_is_that_of_the_closed_formula_and_repeats_change_nothing() -> None:
    space = point_space()
    encoder = sets_of(space).double()
    assert isinstance(encoder, PointSetEncoder)
    stream = cloud_of(space)
    stream = changed(stream, xyz_m=stream.data["xyz_m"].double())
    pillars = encoder.pillars(encoder._reader.read(stream))
    part = partition_of(pillars, (4, 4, 1), (0, 0, 0), 5)
    features = pillars.features
    layer = encoder.blocks[0].along_x  # type: ignore[union-attr]
    where = layer.place(part)
    for major, sets in ((0, part.by_x), (1, part.by_y)):
        keys: list[Tensor] = [torch.tensor([])] * len(features)
        window = torch.cat([pillars.sample[:, None], pillars.cell[:, :2] // 4], 1)
        for own in window.unique(dim=0):
            inside = (window == own).all(1).nonzero()[:, 0].tolist()
            inside.sort(key=lambda i: (int(pillars.cell[i, major]), int(pillars.cell[i, 1 - major])))
            n = len(inside)
            number = -(-n // 5)
            ranks = [[(s * 5 + j) * n // (number * 5) for j in range(5)] for s in range(number)]
            for rank, pillar in enumerate(inside):
                mine = next(line for line in ranks if rank in line)
                keys[pillar] = torch.tensor([inside[r] for r in sorted(set(mine))])
        assert max(map(len, keys)) == 5
        assert min(map(len, keys)) < 5, "no set repeats"
        expected = attended(layer.attention, features, where, keys)
        torch.testing.assert_close(layer.attention(features, where, sets), expected, rtol=0, atol=1e-10)


def test_in_a_block_a_pillar_sees_its_window_and_no_other() -> None:
    space = point_space()
    encoder = sets_of(space, set_length=16)
    assert isinstance(encoder, PointSetEncoder)
    pillars = encoder.pillars(encoder._reader.read(cloud_of(space)))
    window = torch.cat([pillars.sample[:, None], (pillars.cell[:, :2] + 2) // 8], 1)
    part = partition_of(pillars, (8, 8, 1), (2, 2, 0), 64)
    features = pillars.features.detach().requires_grad_()
    out = encoder.blocks[1](features, part)
    mates = (window[:, None] == window).all(2).sum(1)
    for row in ((mates > 1).nonzero()[[0, 40, -1], 0]).tolist():
        (gradient,) = torch.autograd.grad(out[row] @ torch.randn(16), features, retain_graph=True)
        same = (window == window[row]).all(1)
        assert 1 < int(same.sum()) < len(same)
        assert torch.equal(gradient.abs().sum(1) > 0, same)


def test_where_in_its_window_a_pillar_stands_is_told_by_the_middle_of_the_window() -> None:
    space = point_space()
    encoder = voxels_of(space)
    assert isinstance(encoder, PointSetEncoder)
    pillars = encoder.pillars(encoder._reader.read(cloud_of(space)))
    shape = torch.tensor([8, 8, 4])
    part = partition_of(pillars, (8, 8, 4), (2, 2, 0), 5)
    place = encoder.blocks[1].along_y.place  # type: ignore[union-attr]
    inner = (pillars.cell + torch.tensor([2, 2, 0])).remainder(shape)
    offset = (inner + 0.5 - shape / 2) / (shape / 2)
    torch.testing.assert_close(place(part), place.second(place.first(offset).relu()), rtol=0, atol=1e-6)


def test_snake_attention_is_that_of_the_groups_on_the_line() -> None:
    """Whole groups see themselves; the last sees the last L of its line; a short line sees itself, once."""
    space = point_space()
    encoder = snake_of(space).double()
    assert isinstance(encoder, PointSnakeEncoder)
    stream = cloud_of(space)
    stream.data["count"][1] = 3
    stream = changed(stream, xyz_m=stream.data["xyz_m"].double())
    pillars = encoder.pillars(encoder._reader.read(stream))
    count = pillars.sample.bincount().tolist()
    assert count[0] % 7
    assert count[0] > 14
    assert 1 < count[1] < 7
    place = wave_place(pillars.cell, 16, torch.float64)
    passes = snake_passes(pillars, (3, 3), 7)
    for number, (along, shift) in enumerate((("x", 0), ("x", 1), ("y", 0), ("y", 1))):
        layer = encoder.layers[number]

        def key(i: int, along: str = along, shift: int = shift) -> tuple[int, ...]:
            """Rows of windows there and back; in a row forward columns up and down, in a row back all reversed."""
            x, y = (int(c) + shift for c in pillars.cell[i, :2])
            quick, slow = (x, y) if along == "x" else (y, x)
            odd = slow // 3 % 2
            within = quick % 3 * 3 + (2 - slow % 3 if quick % 3 % 2 else slow % 3)
            return (slow // 3, -(quick // 3) if odd else quick // 3, -within if odd else within)

        keys: list[Tensor] = []
        for sample in (0, 1):
            line = sorted((pillars.sample == sample).nonzero()[:, 0].tolist(), key=key)
            seen = {}
            for rank, pillar in enumerate(line):
                first = max(0, min(rank // 7 * 7, len(line) - 7))
                seen[pillar] = torch.tensor(line[first : first + 7])
            keys += [seen[pillar] for pillar in sorted(line)]
        expected = attended(layer.attention, pillars.features, place, keys)  # type: ignore[arg-type]
        ours = layer.attention(pillars.features, place, passes[number])  # type: ignore[operator]
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


def test_waves_know_how_far_apart_cells_are_and_reach_keys_only() -> None:
    cell = torch.tensor([[3, 7, 0], [13, 5, 9], [103, 107, 0], [113, 105, 0]])
    place = wave_place(cell, 16, torch.float64)
    length = 10_000.0 ** (torch.arange(4) / 4)
    apart = (10 / length).cos().sum() + (2 / length).cos().sum()
    assert float(place[0] @ place[1]) == pytest.approx(float(apart), abs=1e-4)
    assert float(place[2] @ place[3]) == pytest.approx(float(apart), abs=1e-4)
    torch.testing.assert_close(place.square().sum(1), torch.full((4,), 8.0, dtype=torch.float64))
    # Alone in a piece a pillar's result is its value, wherever it stands.
    encoder = snake_of(point_space(4))
    attention, features = encoder.layers[0].attention, torch.randn(1, 16)  # type: ignore[union-attr,index]
    pieces = snake_passes(net_of(encoder)(PointReader("test", point_space(4), None).read(one_point())), (3, 3), 7)[0]
    with torch.no_grad():
        torch.testing.assert_close(
            attention(features, place[:1].float(), pieces), attention.project(attention.value(features))
        )


def one_point(copies: int = 1) -> BatchStream:
    return cloud_from(point_space(4), torch.tensor([[0.1, 0.2, 0.3]]).expand(copies, 3))


# ---------------------------------------------------------------------------------------- places; what must not matter


@every
def test_tokens_sit_at_the_mean_of_their_points_in_the_order_of_the_rule(make: Make) -> None:
    space, stream = point_space(), cloud_of(point_space())
    points = stream.data["xyz_m"][0, 0, :200].double()
    height = 0.2 if make is voxels_of else 2.0
    cell = ((points + 1) / torch.tensor([0.1, 0.1, height])).floor()
    found, index, count = cell.unique(dim=0, return_inverse=True, return_counts=True)
    means = torch.stack([points[index == number].mean(0) for number in range(len(found))])
    middle = (found + 0.5) * torch.tensor([0.1, 0.1, height]) - 1
    for keep, rule in (("fullest", -count.double()), ("nearest", (1e3 * middle.norm(dim=1)).round())):
        tokens = make(space, keep=keep)(stream)
        order = rule.sort(stable=True).indices[:40]
        torch.testing.assert_close(tokens.position_m[0].double(), means[order], rtol=0, atol=1e-6)
        assert torch.equal(tokens.age_s, torch.full((2, 40), 0.02))
    whole = make(space, tokens=200)(stream)
    apart = torch.cdist(tokens.position_m[0], whole.position_m[0][whole.valid[0]]).argmin(1)
    torch.testing.assert_close(tokens.features[0], whole.features[0, apart], rtol=0, atol=1e-6)


@every
@both
def test_the_order_of_the_points_does_not_matter(make: Make, space: spaces.Dict) -> None:
    encoder, stream = make(space), cloud_of(space)
    order = torch.cat([torch.randperm(200, generator=torch.Generator().manual_seed(1)), torch.arange(200, ROOM)])
    with torch.no_grad():
        tokens = encoder(stream)
        same_set(tokens, encoder(rows(stream, order)), 1e-5)
        name = "rgb" if "rgb" in space.spaces else "intensity"
        swapped = encoder(changed(stream, **{name: stream.data[name][:, :, order]}))
    assert (swapped.features - tokens.features).abs().max() > 1e-2


@every
def test_batch_mates_do_not_matter(make: Make) -> None:
    """Nor one that is nearly empty, one whose points lie elsewhere, and whether any is trained with."""
    space = lidar_space()
    encoder, stream = make(space).train(), cloud_of(space, size=3)
    stream.data["count"][1] = 3
    stream.data["xyz_m"][2] *= 3
    with torch.no_grad():
        together = encoder(stream)
        for row in range(3):
            one = slice(row, row + 1)
            own = BatchStream({n: v[one] for n, v in stream.data.items()}, stream.age_s[one], stream.valid[one])
            alone = encoder(own)
            assert torch.equal(alone.valid, together.valid[one])
            torch.testing.assert_close(alone.features, together.features[one], rtol=0, atol=1e-5)
            torch.testing.assert_close(alone.position_m, together.position_m[one], rtol=0, atol=1e-6)


@every
def test_a_sensor_that_stands_elsewhere_moves_its_tokens(make: Make) -> None:
    # By whole wide windows, so that sets stay sets; waves know where in the box a pillar is.
    shift = torch.tensor([0.8, -0.8, 0.0])
    space = lidar_space()
    stream = cloud_of(space)
    encoder = make(space, low_m=(-2.4, -2.4, -1), high_m=(2.4, 2.4, 1), edge_m=0.1, tokens=150)
    places = stream.data["base_from_lidar"].clone()
    places[..., :3, 3] += shift
    with torch.no_grad():
        tokens, moved = encoder(stream), encoder(changed(stream, base_from_lidar=places))
    if make is snake_of:
        moved_features = moved.features
        assert (moved_features - tokens.features).abs().max() > 1e-3
        moved = replace(moved, features=tokens.features)
        torch.testing.assert_close(moved.position_m[tokens.valid], (tokens.position_m + shift)[tokens.valid])
    else:
        same_set(tokens, moved, 1e-4, shift)


@every
def test_same_answer_twice_and_in_any_number_of_threads(make: Make) -> None:
    space = lidar_space(800)
    encoder, stream = make(space), cloud_of(space, count=700)
    threads, answers = torch.get_num_threads(), []
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
    torch.testing.assert_close(answers[0][0], answers[1][0], rtol=0, atol=1e-5)


@every
@both
def test_the_contract_is_kept(make: Make, space: spaces.Dict) -> None:
    check_encoder(make(space, tokens=30, compensate=True), cloud_of(space, 0, 3), cloud_of(space, 1, 3), {})
