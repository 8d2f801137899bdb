"""The PTv3 encoder: where its tokens sit, which are kept, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.batch import BatchStream
from perceive.encoders.point_transformer import PointTransformerEncoder
from perceive.tokens import Tokens
from sensors.errors import SpecError, WiringError
from sensors.spec import box

ROOM = 300


def space_of(room: int = ROOM) -> spaces.Dict:
    """As of a PointFrame."""
    rgb, count = box(0, 255, (room, 3), np.uint8), box(0, room, (1,), np.int64)
    return spaces.Dict({"xyz_m": box(-9, 9, (room, 3)), "rgb": rgb, "count": count})


def small(**changes: object) -> PointTransformerEncoder:
    torch.manual_seed(0)
    arguments = {
        "tokens": 60,
        "edge_m": 0.1,
        "low_m": (-1, -1, -1),
        "high_m": (1, 1, 1),
        "blocks": (1, 1),
        "channels": (8, 16),
        "heads": (2, 2),
        "patch": 32,
    }
    return PointTransformerEncoder(space_of(), 1, 12, **{**arguments, **changes}).eval()  # type: ignore[arg-type]


def cloud(seed: int = 0, size: int = 2, count: int = 200) -> BatchStream:
    """Points of a bent sheet within half a metre of the base; padding is NaN."""
    draw = torch.Generator().manual_seed(seed)
    xyz = torch.rand(size, 1, ROOM, 3, generator=draw) - 0.5
    xyz[..., 2] = 0.4 * (4 * xyz[..., 0]).sin() * xyz[..., 1]
    xyz[:, :, count:] = torch.nan
    rgb = torch.randint(256, (size, 1, ROOM, 3), generator=draw, dtype=torch.uint8)
    data = {"xyz_m": xyz, "rgb": rgb, "count": torch.full((size, 1, 1), count)}
    return BatchStream(data, torch.full((size, 1), 0.02), torch.ones(size, 1, dtype=torch.bool))


def with_points(stream: BatchStream, xyz: torch.Tensor) -> BatchStream:
    return replace(stream, data={**stream.data, "xyz_m": xyz})


def close(ours: Tokens, theirs: Tokens) -> None:
    assert ours.valid.equal(theirs.valid)
    for name in ("features", "position_m"):
        mine, other = getattr(ours.cleaned(), name), getattr(theirs.cleaned(), name)
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_tokens_sit_on_the_surface_one_for_each_cell_fullest_first() -> None:
    encoder, stream = small(), cloud(size=1)
    tokens = encoder(stream)
    points = stream.data["xyz_m"][0, 0, :200]
    fine = (points / 0.1).floor().long()
    fine = fine - fine.amin(0)
    expected = {}
    for cell in {tuple(row) for row in (fine >> 1).tolist()}:
        inside = ((fine >> 1) == torch.tensor(cell)).all(1)
        parts = {tuple(row) for row in fine[inside].tolist()}
        means = [points[(fine == torch.tensor(part)).all(1)].mean(0) for part in parts]
        expected[cell] = (-int(inside.sum()), cell, torch.stack(means).mean(0))
    order = sorted(expected.values(), key=lambda item: item[:2])
    assert int(tokens.valid.sum()) == min(60, len(order))
    torch.testing.assert_close(tokens.position_m[0, : len(order)], torch.stack([at for *_, at in order])[:60])
    few = small(tokens=5)(stream)
    close(few, Tokens(*(getattr(tokens, n)[:, :5] for n in ("features", "position_m", "placed", "age_s", "valid"))))


def test_the_order_of_points_batch_mates_and_points_outside_do_not_matter() -> None:
    encoder, stream = small(), cloud()
    tokens = encoder(stream)
    order = torch.cat([torch.randperm(200, generator=torch.Generator().manual_seed(1)), torch.arange(200, ROOM)])
    data = {name: value[:, :, order] if name != "count" else value for name, value in stream.data.items()}
    close(encoder(replace(stream, data=data)), tokens)
    last = BatchStream({n: v[1:] for n, v in stream.data.items()}, stream.age_s[1:], stream.valid[1:])
    alone = encoder(last)
    torch.testing.assert_close(alone.features[0], tokens.features[1], atol=1e-5, rtol=1e-5)
    outside = stream.data["xyz_m"].clone()
    outside[:, :, 200:] = torch.tensor([1.0, 0.0, 0.0])
    beyond = with_points(stream, outside)
    close(encoder(replace(beyond, data={**beyond.data, "count": torch.full((2, 1, 1), ROOM)})), tokens)


def test_moving_by_whole_cells_moves_tokens_and_leaves_features() -> None:
    encoder, stream = small(edge_m=0.125), cloud()
    tokens = encoder(stream)
    step = torch.tensor([0.25, -0.125, 0.375])
    moved = encoder(with_points(stream, stream.data["xyz_m"] + step))
    torch.testing.assert_close(moved.features, tokens.features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved.position_m[moved.valid], (tokens.position_m + step)[tokens.valid])


@pytest.mark.parametrize("kind", ["empty", "one", "equal", "nan", "far"])
@pytest.mark.parametrize("train", [True, False])
def test_clouds_that_are_hardly_one(kind: str, train: bool) -> None:
    encoder, stream = small().train(train), cloud()
    xyz = stream.data["xyz_m"].clone()
    count = {"empty": 0, "one": 1}.get(kind, 200)
    if kind == "equal":
        xyz[:] = 0.3
    elif kind == "nan":
        xyz[:] = torch.nan
        xyz[0, 0, ::2] = torch.inf
    elif kind == "far":
        xyz[:] = 3e30
    counts = torch.tensor([count, 200])[:, None, None] if kind in ("empty", "one") else stream.data["count"]
    tokens = encoder(replace(stream, data={**stream.data, "xyz_m": xyz, "count": counts}))
    assert tokens.features.isfinite().all()
    assert tokens.position_m.isfinite().all()
    assert int(tokens.valid[0].sum()) == {"empty": 0, "one": 1, "equal": 1, "nan": 0, "far": 0}[kind]
    if kind in ("empty", "one"):
        assert int(tokens.valid[1].sum()) > 10


def test_half_precision_changes_little() -> None:
    encoder, stream = small(), cloud()
    tokens = encoder(stream)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(stream)
    assert half.position_m.equal(tokens.position_m)
    assert (half.features - tokens.features).abs().mean() < 0.05


def test_arguments_out_of_range_are_refused() -> None:
    for bad in ({"tokens": 0}, {"edge_m": 0.0}, {"low_m": (0, 0, 2)}, {"features": ["intensity"]}):
        with pytest.raises(WiringError):
            small(**bad)
    with pytest.raises(SpecError):
        small(heads=(2, 3))
    with pytest.raises(WiringError):
        PointTransformerEncoder(spaces.Dict({"xyz_m": box(-9, 9, (ROOM, 3))}), 1, 12)
