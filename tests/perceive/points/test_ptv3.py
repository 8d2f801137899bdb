"""PTv3: the published size and names, attention against a plain softmax, and what must not matter to its output."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perceive.points.padding import borrow_padding
from perceive.points.ptv3.blocks import DropPath, PatchAttention, batch_norm, normalised
from perceive.points.ptv3.levels import GridCloud, build_levels, curve_codes, cut, grid_cloud
from perceive.points.ptv3.names import from_published, load_published, to_published
from perceive.points.ptv3.network import PointTransformerV3
from perceive.points.ptv3.pooling import GridPool, GridUnpool
from perceive.points.serialise import CURVES, depth_of, encode
from perceive.points.sparse_conv import kernel_map
from sensors.errors import DataError, SpecError

SEEDS = st.integers(0, 2**31 - 1)


def small(decoder: bool = True, patch: int = 16, seed: int = 0) -> PointTransformerV3:
    torch.manual_seed(seed)
    sizes = {"decoder_blocks": (1, 2), "decoder_width": (8, 16), "decoder_heads": (2, 4)} if decoder else {}
    none = {"decoder_blocks": (), "decoder_width": (), "decoder_heads": ()}
    network = PointTransformerV3(
        in_width=3,
        encoder_blocks=(1, 2, 5),
        encoder_width=(8, 16, 16),
        encoder_heads=(2, 2, 4),
        patch=patch,
        **(sizes or none),
    )
    # Statistics as after some training, so that normalisation does something.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.1, 0.5)  # type: ignore[union-attr]
    return network


def scene(cells: int, side: int, seed: int, samples: int = 1) -> GridCloud:
    """Clouds of at most ``cells`` different cells each, in a random order."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(samples):
        cell = torch.randint(side, (cells, 3), generator=generator)
        cell = cell.unique(dim=0)  # type: ignore[no-untyped-call]
        parts.append(cell[torch.randperm(len(cell), generator=generator)])
    sample = torch.repeat_interleave(torch.arange(samples), torch.tensor([len(part) for part in parts]))
    cell = torch.cat(parts)
    features = torch.randn(len(cell), 3, generator=generator)
    return GridCloud(features, cell, sample, samples, cell * 0.05)


def only(cloud: GridCloud, rows: Tensor, sample: Tensor | None = None, samples: int | None = None) -> GridCloud:
    return GridCloud(
        cloud.features[rows],
        cloud.cell[rows],
        cloud.sample[rows] if sample is None else sample,
        cloud.samples if samples is None else samples,
        cloud.position_m[rows],
    )


def alone(cloud: GridCloud, number: int) -> tuple[GridCloud, Tensor]:
    rows = (cloud.sample == number).nonzero()[:, 0]
    return only(cloud, rows, torch.zeros_like(rows), 1), rows


@pytest.fixture(scope="module")
def published() -> PointTransformerV3:
    with torch.device("meta"):
        return PointTransformerV3()


def test_the_defaults_have_the_published_number_of_parameters(published: PointTransformerV3) -> None:
    count = sum(parameter.numel() for parameter in published.parameters())
    assert abs(count / 46.2e6 - 1) < 0.005
    # By hand: an MLP of ratio 4, qkv with bias and a 3^3 convolution, at the widest stage.
    width = 512
    block = 27 * width**2 + width + 1 * (width**2 + width) + 3 * 2 * width
    block += 4 * width**2 + 4 * width + 8 * width**2 + 5 * width
    assert sum(p.numel() for p in published.encoder[4].blocks[0].parameters()) == block  # type: ignore[index, union-attr]
    assert published.stem.norm.eps == 1e-3
    assert published.stem.norm.momentum == 0.01


def test_drop_path_grows_in_the_encoder_and_falls_within_stages_of_the_decoder(published: PointTransformerV3) -> None:
    encoder = [block.drop.rate for stage in published.encoder for block in stage.blocks]  # type: ignore[union-attr]
    assert encoder == pytest.approx([0.3 * number / 13 for number in range(14)], abs=1e-6)
    decoder = [[block.drop.rate for block in stage.blocks] for stage in published.decoder]  # type: ignore[union-attr]
    assert decoder[0] == pytest.approx([0.3 / 7, 0.0], abs=1e-6)
    assert decoder[3] == pytest.approx([0.3, 0.3 * 6 / 7], abs=1e-6)


def test_names_are_a_bijection(published: PointTransformerV3) -> None:
    ours = list(published.state_dict())
    theirs = [to_published(name) for name in ours]
    assert len(set(theirs)) == len(ours)
    assert [from_published(name) for name in theirs] == ours
    known = {
        "embedding.stem.conv.weight": (32, 5, 5, 5, 6),
        "enc.enc0.block1.cpe.0.bias": (32,),
        "enc.enc3.block5.attn.qkv.weight": (768, 256),
        "enc.enc4.down.norm.0.running_var": (512,),
        "enc.enc4.block0.cpe.0.weight": (512, 3, 3, 3, 512),
        "dec.dec3.up.proj.0.weight": (256, 512),
        "dec.dec0.up.proj_skip.1.weight": (64,),
        "dec.dec0.block1.mlp.0.fc2.weight": (64, 256),
    }
    shapes = {to_published(name): tuple(value.shape) for name, value in published.state_dict().items()}
    assert {name: shapes[name] for name in known} == known
    for name in theirs:
        assert re.match(r"embedding\.stem\.|enc\.enc[0-4]\.|dec\.dec[0-3]\.", name)


def test_published_weights_load_into_the_whole_and_into_the_encoder() -> None:
    first, second, encoder = small(seed=1), small(seed=2), small(decoder=False, seed=3)
    state = {"module.backbone." + to_published(name): value for name, value in first.state_dict().items()}
    state["module.seg_head.weight"] = torch.zeros(2, 8)
    assert load_published(second, state) == ("module.seg_head.weight",)
    cloud = scene(60, 8, 0)
    assert second.eval()(cloud).features.equal(first.eval()(cloud).features)
    left_out = load_published(encoder, state)
    assert sum("dec.dec" in name for name in left_out) == len(left_out) - 1 > 0
    assert encoder.state_dict()["encoder.2.down.project.weight"].equal(
        first.state_dict()["encoder.2.down.project.weight"]
    )


@pytest.mark.parametrize("fault", ["unknown", "missing", "shape", "deeper"])
def test_weights_that_do_not_fit_are_refused_whole(fault: str) -> None:
    network = small(seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {to_published(name): torch.zeros_like(value) for name, value in network.state_dict().items()}
    if fault == "unknown":
        state["enc.enc0.block0.rpe.table"] = torch.zeros(1)
    elif fault == "missing":
        del state["dec.dec0.up.proj.0.bias"]
    elif fault == "shape":
        state["embedding.stem.conv.weight"] = torch.zeros(8, 5, 5, 5, 4)
    else:
        state["enc.enc0.block7.cpe.0.bias"] = torch.zeros(8)
    with pytest.raises(DataError):
        load_published(network, state)
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("cells", [(5,), (16,), (17,), (32,), (33,), (3, 40, 0, 16)])
def test_attention_is_a_softmax_over_each_patch(cells: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    length, width, heads = 16, 12, 3
    attention = PatchAttention(width, heads)
    features = torch.randn(sum(cells), width)
    patches = borrow_padding(torch.tensor(cells), length)
    got = attention(features, patches, masked=not bool(patches.key.all()))
    query, key, value = attention.qkv(features).view(-1, 3, heads, width // heads).unbind(1)
    first, expected = 0, []
    for count in cells:
        for start in range(0, count, length):
            rows = list(range(start, min(start + length, count)))
            # A last patch that is not full looks at the tail of the one before, too; a short cloud at itself alone.
            seen = list(range(max(0, rows[-1] + 1 - length), rows[-1] + 1)) if count > length else rows
            if count > length:
                seen = sorted({*rows, *range(start + len(rows) - length, start)})
            q = query[[first + row for row in rows]]
            k, v = (part[[first + row for row in seen]] for part in (key, value))
            weight = (torch.einsum("qhc,khc->hqk", q, k) / (width // heads) ** 0.5).softmax(-1)
            expected.append(torch.einsum("hqk,khc->qhc", weight, v).flatten(1))
        first += count
    torch.testing.assert_close(got, attention.project(torch.cat(expected)), atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 60))
def test_codes_are_those_of_each_cloud_alone_and_their_prefixes_the_coarser_cells(seed: int, side: int) -> None:
    cloud = scene(40, side, seed, samples=3)
    geometry = build_levels(cloud, (4, 4, 4), 8, CURVES, 5, shuffle=False)
    fine, coarse = geometry.levels[0], geometry.levels[1]
    codes = curve_codes(cloud.cell, cloud.sample, 3, CURVES, 2)
    deepest = max(2, depth_of(cloud.cell))
    for number in range(3):
        part, rows = alone(cloud, number)
        for curve, code in zip(CURVES, codes[:, rows], strict=True):
            assert (code & ((1 << (3 * deepest)) - 1)).equal(encode(part.cell, depth_of(part.cell), curve))
            assert (code >> (3 * deepest)).eq(number).all()
    # One partition from all curves: that of halved cells.
    assert coarse.child_of is not None
    assert coarse.cell[coarse.child_of].equal(fine.cell >> 1)
    for got, finer in zip(coarse.codes, fine.codes, strict=True):
        assert got[coarse.child_of].equal(finer >> 3)
        assert len(set(got.tolist())) == len(coarse.cell)
    assert geometry.first[geometry.row].equal(torch.arange(len(cloud.cell)))
    for number in range(len(coarse.cell)):
        torch.testing.assert_close(coarse.position_m[number], fine.position_m[coarse.child_of == number].mean(0))


def test_the_map_inside_of_the_stems_is_that_of_a_kernel_of_three() -> None:
    cloud = scene(200, 8, 0)
    level = build_levels(cloud, (1,), 16, CURVES, 5, shuffle=False).levels[0]
    direct = kernel_map(level.cell, level.sample, 3)
    assert level.neighbours.offsets == direct.offsets
    assert level.neighbours.kernel == 3
    for got, expected in zip(level.neighbours.pairs, direct.pairs, strict=True):
        assert got[0].equal(expected[0])
        assert got[1].equal(expected[1])


def test_pooling_takes_the_largest_and_unpooling_gives_it_back_to_each_child() -> None:
    torch.manual_seed(0)
    geometry = build_levels(scene(80, 6, 1, samples=2), (1, 1), 8, CURVES, 3, shuffle=False)
    fine, coarse = geometry.levels
    assert coarse.child_of is not None
    features = torch.randn(len(fine.cell), 4)
    pool, unpool = GridPool(4, 6).eval(), GridUnpool(6, 4, 5).eval()
    pooled = pool(features, coarse)
    largest = torch.stack([pool.project(features[coarse.child_of == n]).amax(0) for n in range(len(coarse.cell))])
    torch.testing.assert_close(pooled, nn.functional.gelu(pool.norm(largest)))
    with torch.no_grad():
        unpool.skip.weight.zero_()
        unpool.skip.bias.zero_()
    back = unpool(pooled, features, coarse)
    up = nn.functional.gelu(unpool.norm(unpool.project(pooled)))
    for number, parent in enumerate(coarse.child_of.tolist()):
        torch.testing.assert_close(back[number], up[parent])


@pytest.mark.parametrize("decoder", [True, False])
def test_evaluation_gives_the_same_bits_from_run_to_run_and_in_any_order_of_rows(decoder: bool) -> None:
    network, cloud = small(decoder).eval(), scene(150, 10, 0, samples=2)
    first = network(cloud)
    torch.rand(7)  # torch's generator stands elsewhere
    assert network(cloud).features.equal(first.features)
    rows = torch.randperm(len(cloud.cell), generator=torch.Generator().manual_seed(1))
    moved = network(only(cloud, rows))
    assert moved.features.equal(first.features[rows] if decoder else first.features)
    if decoder:
        assert moved.cell.equal(cloud.cell[rows])


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.sampled_from([1, 7, 16, 17, 48, 49]), st.booleans())
def test_batch_mates_do_not_matter(seed: int, mate: int, decoder: bool) -> None:
    network = small(decoder, seed=seed % 7).eval()
    cloud = scene(120, 9, seed)
    beside = scene(mate, 300, seed + 1)  # a deeper grid, few cells
    far = GridCloud(
        torch.cat([beside.features, cloud.features]),
        torch.cat([beside.cell, cloud.cell]),
        torch.cat([beside.sample, cloud.sample + 2]),  # the second cloud is empty
        3,
        torch.cat([beside.position_m, cloud.position_m]),
    )
    both, own, mates = network(far), network(cloud), network(beside)
    torch.testing.assert_close(both.features[both.sample == 2], own.features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both.features[both.sample == 0], mates.features, atol=1e-5, rtol=1e-5)
    assert not (both.sample == 1).any()


def test_output_hangs_on_features_on_places_and_on_cells_far_apart() -> None:
    network, cloud = small(patch=256).eval(), scene(150, 12, 0)
    out = network(cloud).features
    far = int((cloud.cell - cloud.cell[0]).abs().sum(1).argmax())
    features = cloud.features.clone()
    features[far] += 5.0
    changed = network(GridCloud(features, cloud.cell, cloud.sample, 1, cloud.position_m)).features
    assert (changed - out)[0].abs().max() > 1e-4
    mirrored = GridCloud(cloud.features, 11 - cloud.cell, cloud.sample, 1, cloud.position_m)
    assert (network(mirrored).features - out).abs().max() > 1e-2


@pytest.mark.parametrize("cells", [1, 2, 15, 16, 17, 33, 48])
def test_any_number_of_cells_about_a_patch(cells: int) -> None:
    network = small().eval()
    cell = torch.stack([torch.arange(cells), torch.arange(cells) % 3, torch.arange(cells) % 2], 1)
    cloud = GridCloud(torch.randn(cells, 3), cell, torch.zeros(cells, dtype=torch.int64), 1, cell * 0.1)
    out = network(cloud).features
    assert out.shape == (cells, 8)
    assert out.isfinite().all()
    for pieces in network.levels(cloud).levels[0].patches:
        assert pieces.index.shape[1] == min(16, cells)
        assert len(pieces.index) == -(-cells // 16)
        assert pieces.key.all()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("decoder", [True, False])
def test_clouds_of_nothing_and_of_one_cell(decoder: bool, train: bool) -> None:
    network = small(decoder).train(train)
    nothing = torch.zeros(0, dtype=torch.int64)
    for samples in (0, 2):
        empty = network(
            GridCloud(torch.zeros(0, 3), nothing.view(0, 1).expand(0, 3), nothing, samples, torch.zeros(0, 3))
        )
        assert empty.features.shape == (0, network.out_width)
    one = network(
        GridCloud(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.int64), nothing.new_zeros(1), 1, torch.ones(1, 3))
    )
    assert one.features.shape == (1, network.out_width)
    assert one.features.isfinite().all()
    one.features.sum().backward()


@pytest.mark.parametrize("decoder", [True, False])
def test_gradients_are_finite_and_reach_every_parameter(decoder: bool) -> None:
    network, cloud = small(decoder).train(), scene(150, 10, 3, samples=2)
    features = cloud.features.clone().requires_grad_()
    out = network(GridCloud(features, cloud.cell, cloud.sample, 2, cloud.position_m)).features
    (out * torch.randn(out.shape)).sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert (features.grad != 0).any(1).all()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_training_shuffles_curves_by_torchs_generator_and_drops_whole_rows() -> None:
    network, cloud = small().train(), scene(150, 10, 0)

    def codes(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return [level.codes for level in network.levels(cloud).levels]

    assert all(a.equal(b) for a, b in zip(codes(0), codes(0), strict=True))
    assert any(not a.equal(b) for a, b in zip(codes(0), codes(1), strict=True))
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 3))
    kept = out[:, 0] != 0
    assert out[kept].eq(1 / 0.75).all()
    assert out[~kept].eq(0).all()
    assert abs(float(kept.float().mean()) - 0.75) < 0.03
    assert drop.eval()(torch.ones(9, 3)).eq(1).all()


def test_one_row_is_normalised_by_the_running_statistics_in_training() -> None:
    norm = batch_norm(2)
    rows = torch.tensor([[1.0, 3.0]])
    torch.testing.assert_close(normalised(norm, rows), rows / (1 + 1e-3) ** 0.5)
    assert int(norm.num_batches_tracked or 0) == 0


def test_points_become_cells_counted_from_each_clouds_lowest() -> None:
    points = torch.tensor(
        [[[-1.0, 0.0, 5.0], [-0.9, 0.1, 5.0], [0.3, 0.0, 4.9]], [[torch.nan, 0, 0], [9.0, 9, 9], [1e9, 0, 0]]]
    )
    features = points.nan_to_num().clone()
    features[0, 2, 1] = torch.inf
    cloud, voxels = grid_cloud(points, features, 0.25)
    assert cloud.cell.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert cloud.sample.tolist() == [0, 1]
    assert voxels.of_point.tolist() == [[0, 0, -1], [-1, 1, -1]]
    assert voxels.dropped.tolist() == [1, 2]
    torch.testing.assert_close(cloud.position_m, torch.tensor([[-0.95, 0.05, 5.0], [9.0, 9.0, 9.0]]))
    torch.testing.assert_close(cloud.features, cloud.position_m)
    empty, _ = grid_cloud(torch.full((2, 3, 3), torch.nan), torch.zeros(2, 3, 1), 0.1)
    assert empty.cell.shape == (0, 3)
    assert empty.samples == 2
    assert empty.position_m.shape == (0, 3)
    equal, _ = grid_cloud(torch.ones(50, 3), torch.ones(50, 2), 0.1)
    assert len(equal.cell) == 1


def test_rows_and_sizes_that_do_not_fit_are_refused() -> None:
    network, cloud = small().eval(), scene(20, 5, 0)
    twice = torch.tensor([0, 1, 0])
    far = cloud.cell.clone()
    for broken in (far - 1, torch.where(far == far.max(), 1 << 21, far)):
        with pytest.raises(SpecError):
            network(GridCloud(cloud.features, broken, cloud.sample, 1, cloud.position_m))
    with pytest.raises(SpecError, match="once"):
        network(only(cloud, twice))
    with pytest.raises(SpecError, match="3 channels"):
        network(GridCloud(cloud.features[:, :2], cloud.cell, cloud.sample, 1, cloud.position_m))
    with pytest.raises(SpecError):
        GridCloud(cloud.features, cloud.cell, cloud.sample + 1, 1, cloud.position_m)
    with pytest.raises(SpecError):
        GridCloud(cloud.features[1:], cloud.cell, cloud.sample, 1, cloud.position_m)
    with pytest.raises(SpecError):
        grid_cloud(torch.rand(4, 3), torch.rand(3, 3), 0.1)
    with pytest.raises(SpecError, match="divisor"):
        PointTransformerV3(encoder_heads=(3, 4, 8, 16, 32))
    with pytest.raises(SpecError, match="fewer"):
        PointTransformerV3(encoder_blocks=(2, 2))
    with pytest.raises(SpecError, match="fewer"):
        PointTransformerV3(decoder_blocks=())
    with pytest.raises(SpecError, match="patch"):
        PointTransformerV3(patch=0)


def test_cuts_of_clouds_shorter_than_a_patch_are_as_long_as_the_longest() -> None:
    sample = torch.tensor([0, 0, 0, 1])
    codes = torch.tensor([[2, 1, 0, 9], [0, 1, 2, 9]])
    backward, forward = cut(codes, sample, 3, 1024)
    assert backward.index.tolist() == [[2, 1, 0], [3, 3, 3]]
    assert forward.index.tolist() == [[0, 1, 2], [3, 3, 3]]
    assert forward.key.tolist() == [[True] * 3, [True, False, False]]
