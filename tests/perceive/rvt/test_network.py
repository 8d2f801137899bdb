"""The stage networks: what attention may see when, sizes, the start of training, teacher forcing, masks."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perceive.build import build
from perceive.rvt.blocks import GegluBlock, MultiViewTransformer
from perceive.rvt.network import Rvt2Network, RvtNetwork, StageFeatures, StageInput, StageNetwork
from perceive.rvt.pose_head import PoseHead, read_tokens
from perceive.rvt.presets import PRESETS, build_stages
from sensors.errors import WiringError

B, V, L, E, P = 2, 3, 6, 12, 4
KINDS = {"rvt": (RvtNetwork, 55, 11), "rvt2": (Rvt2Network, 56, 14)}


def make(kind: str, **changes: Any) -> StageNetwork:
    torch.manual_seed(0)
    network, size, patch = KINDS[kind]
    small = {"token_width": 16, "width": 32, "depth": 4, "heads": 2, "head_width": 16, "mlp_ratio": 2.0}
    made = network(V, size, patch, proprio=P, language_width=E, language_tokens=L, **(small | changes))
    return made.eval()


def stage_input(network: StageNetwork, seed: int = 0, batch: int = B, language: tuple[int, int] = (L, E)) -> StageInput:
    draw = torch.Generator().manual_seed(seed)
    views, size = network.views, network.size_px
    return StageInput(
        images=torch.rand(batch, views, 10, size, size, generator=draw) * 2 - 1,
        xyz=torch.rand(batch, views, 3, size, size, generator=draw) * 2 - 1,
        hit=torch.ones(batch, views, size, size, dtype=torch.bool),
        proprio=torch.randn(batch, P, generator=draw),
        language=torch.randn(batch, *language, generator=draw),
        language_valid=torch.ones(batch, language[0], dtype=torch.bool),
    )


def middle(network: StageNetwork, batch: int = B) -> Tensor:
    return torch.full((batch, network.views, 2), network.size_px / 2)


def noise(like: Tensor, seed: int = 9) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def after_each_block(network: StageNetwork, stage: StageInput) -> list[Tensor]:
    """What every block gives, in order."""
    seen: list[Tensor] = []
    handles = [
        part.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        for part in network.modules()
        if isinstance(part, GegluBlock)
    ]
    with torch.no_grad():
        network(stage)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_views_meet_in_the_second_half_only(kind: str) -> None:
    network = make(kind)
    stage = stage_input(network)
    images = stage.images.clone()
    images[:, 0] = noise(images[:, 0])
    before, after = after_each_block(network, stage), after_each_block(network, replace(stage, images=images))
    for one, other in zip(before[:2], after[:2], strict=True):
        per_view = one.unflatten(0, (B, V)), other.unflatten(0, (B, V))
        assert torch.equal(per_view[0][:, 1:], per_view[1][:, 1:])
        assert not torch.allclose(per_view[0][:, 0], per_view[1][:, 0], atol=1e-2)
    patches = before[0].shape[1]
    for one, other in zip(before[2:], after[2:], strict=True):
        elsewhere = (one - other)[:, patches : V * patches].abs()
        assert bool((elsewhere.amax(-1) > 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_the_instruction_enters_in_the_second_half_and_is_dropped_at_the_end(kind: str) -> None:
    network = make(kind)
    stage = stage_input(network)
    told = replace(stage, language=noise(stage.language))
    before, after = after_each_block(network, stage), after_each_block(network, told)
    assert all(torch.equal(one, other) for one, other in zip(before[:2], after[:2], strict=True))
    patches = before[0].shape[1]
    assert [one.shape[1] for one in before] == [patches, patches, V * patches + L, V * patches + L]
    assert bool(((before[2] - after[2])[:, : V * patches].abs().amax(-1) > 0).all())
    features = network(stage)
    side = network.size_px // KINDS[kind][2]
    assert features.tokens.shape == (B, V, 16, side, side)
    assert features.logits.shape == (B, V, network.size_px, network.size_px)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tint", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_masked_words_change_nothing_and_others_do(kind: str, tint: bool, dtype: torch.dtype) -> None:
    network = make(kind, tint=tint)
    stage = stage_input(network)
    valid = torch.ones(B, L, dtype=torch.bool)
    valid[:, 4:] = False
    stage = replace(stage, language_valid=valid)

    def logits(language: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            out: Tensor = network(replace(stage, language=language)).logits
        return out

    hidden, heard = stage.language.clone(), stage.language.clone()
    hidden[:, 4:] = noise(hidden[:, 4:])
    heard[:, 3:] = noise(heard[:, 3:])
    assert torch.equal(logits(hidden), logits(stage.language))
    assert not torch.equal(logits(heard), logits(stage.language))
    hidden[:, 4:] = math.nan
    assert torch.equal(logits(hidden), logits(stage.language))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tint_brings_the_instruction_to_every_patch_from_the_first_block_on(kind: str) -> None:
    network = make(kind, tint=True)
    stage = stage_input(network)
    told = replace(stage, language=noise(stage.language))
    before, after = after_each_block(network, stage), after_each_block(network, told)
    assert bool(((before[0] - after[0]).abs().amax(-1) > 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_does_not_look_where_it_may_not(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block = GegluBlock(32, heads=2, head_width=16, mlp_ratio=2.0, dropout=0.0).to(dtype)
    features = noise(torch.zeros(2, 9, 32)).to(dtype)
    allowed = torch.ones(2, 1, 1, 9, dtype=torch.bool)
    allowed[0, ..., 3] = allowed[1, ..., 7:] = False
    seen = allowed[:, 0, 0]
    changed = torch.where(seen[..., None], features, 3 * noise(features, 4).to(dtype))
    before, after = block(features, allowed), block(changed, allowed)
    assert torch.equal(before[seen], after[seen])
    assert not torch.allclose(block(features), block(changed), atol=1e-2)
    # The rule is softmax over what may be seen: nothing is left of the rest.
    torch.testing.assert_close(
        before[1, :7], block(features[1:, :7])[0], atol=1e-6 if dtype is torch.float32 else 0.05, rtol=0
    )


def test_tokens_keep_their_place_in_the_grid() -> None:
    torch.manual_seed(0)
    trunk = MultiViewTransformer(V, 4, P, E, L, 16, 32, 0, 2, 16, 2.0, 0.0, place_language=True)
    pictures, proprio, words = torch.zeros(1, V, 8, 4, 4), torch.zeros(1, P), torch.zeros(1, L, E)
    valid = torch.ones(1, L, dtype=torch.bool)
    other = pictures.clone()
    other[0, 2, :, 1, 3] = 1.0
    changed = (trunk(pictures, proprio, words, valid) - trunk(other, proprio, words, valid)).abs().sum(2)[0] > 0
    assert changed.nonzero().tolist() == [[2, 1, 3]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_instruction_equals_a_padded_one(kind: str) -> None:
    network = make(kind)
    stage = stage_input(network)
    valid = torch.ones(B, L, dtype=torch.bool)
    valid[:, 4:] = False
    padded = network(replace(stage, language_valid=valid)).logits
    short = network(replace(stage, language=stage.language[:, :4], language_valid=valid[:, :4])).logits
    torch.testing.assert_close(short, padded, atol=1e-5, rtol=0)


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_seen_and_nothing_said_stays_finite(kind: str, compat: bool) -> None:
    network = make(kind, compat=compat).train()
    stage = stage_input(network)
    images = stage.images.clone()
    images[:, 1] = 0  # one view shows nothing in both samples, and the first sample nothing at all
    images[0] = 0
    hit = images.abs().sum(2) > 0
    stage = replace(stage, images=images, hit=hit, language_valid=torch.zeros(B, L, dtype=torch.bool))
    features = network(stage)
    pose = network.pose(features, middle(network), None)
    assert pose.rotation is not None
    total = features.logits.logsumexp((2, 3)).sum() + pose.rotation.sum() + pose.gripper.sum() + pose.collision.sum()
    total.backward()
    assert bool(total.isfinite())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize("changes", [{}, {"compat": True}, {"rotation": "6d"}, {"conditional_rotation": None}])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind: str, changes: dict[str, Any]) -> None:
    if "conditional_rotation" in changes:
        changes = {"conditional_rotation": kind == "rvt"}  # the other way round than published
    network = make(kind, **changes).train()
    features = network(stage_input(network))
    pose = network.pose(features, middle(network), torch.tensor([[1, 2, 3], [70, 40, 0]]))
    turn = pose.rotation if pose.rotation is not None else pose.rotation_6d
    assert turn is not None
    assert turn.shape == ((B, 6) if changes.get("rotation") == "6d" else (B, 3, 72))
    assert pose.gripper.shape == pose.collision.shape == (B, 2)
    parts = (features.logits, turn, pose.gripper, pose.collision)
    sum((part * noise(part)).sum() for part in parts).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_forcing_with_the_likeliest_bins_is_greedy_decoding(kind: str) -> None:
    network = make(kind, conditional_rotation=True)
    features = network(stage_input(network))
    greedy = network.pose(features, middle(network), None).rotation
    assert greedy is not None
    likeliest = greedy.argmax(-1)
    forced = network.pose(features, middle(network), likeliest).rotation
    assert forced is not None
    assert torch.equal(forced, greedy)
    # Each angle depends on those before it and on no other.
    for axis in range(3):
        wrong = likeliest.clone()
        wrong[:, axis] = (wrong[:, axis] + 20) % 72
        told = network.pose(features, middle(network), wrong).rotation
        assert told is not None
        assert torch.equal(told[:, : axis + 1], greedy[:, : axis + 1])
        assert all(not torch.allclose(told[:, later], greedy[:, later], atol=1e-4) for later in range(axis + 1, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_without_conditional_rotation_the_teacher_says_nothing(kind: str) -> None:
    network = make(kind, conditional_rotation=False)
    features = network(stage_input(network))
    greedy = network.pose(features, middle(network), None).rotation
    told = network.pose(features, middle(network), torch.randint(0, 72, (B, 3))).rotation
    assert greedy is not None
    assert told is not None
    assert torch.equal(greedy, told)


def test_6d_rotations_start_near_the_unit_rotation() -> None:
    network = make("rvt2", rotation="6d")
    pose = network.pose(network(stage_input(network)), middle(network), None)
    assert pose.rotation is None
    assert pose.rotation_6d is not None
    torch.testing.assert_close(pose.rotation_6d, torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(B, 6), atol=0.5, rtol=0)


def test_rvt2_reads_the_pose_at_the_waypoint() -> None:
    network = make("rvt2")
    features = network(stage_input(network))
    here = network.pose(features, middle(network), None)
    there = network.pose(features, middle(network) + torch.tensor([10.0, -12.0]), None)
    assert not torch.allclose(here.gripper, there.gripper, atol=1e-4)


def test_rvt_reads_the_pose_under_the_heatmap_and_sends_no_gradient_through_it() -> None:
    network = make("rvt")
    assert isinstance(network, RvtNetwork)
    features = network(stage_input(network))
    assert features.local is not None
    fine: list[Tensor] = []
    handle = network.merge.register_forward_hook(lambda _module, _inputs, output: fine.append(output))
    features = network(stage_input(network))
    handle.remove()
    assert features.local is not None
    share = features.logits.flatten(2).softmax(-1)
    expected = torch.einsum("bvs,bvcs->bvc", share, fine[0].unflatten(0, (B, V)).flatten(3))
    torch.testing.assert_close(features.local, expected, atol=1e-5, rtol=0)
    network.pose(features, middle(network), None).gripper.sum().backward()
    assert all(parameter.grad is None for parameter in network.heatmap.parameters())
    assert all(parameter.grad is not None for parameter in network.merge.parameters())


def test_tokens_are_read_in_the_middle_of_their_patch_and_blended_between() -> None:
    side, patch = 5, 14
    size = side * patch
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    # Features that are the place of the token in pixels: what is blended between them is the place asked for.
    tokens = torch.stack([(column + 0.5) * patch, (row + 0.5) * patch])[None, None].double()
    pixels = torch.rand(200, 1, 2, generator=torch.Generator().manual_seed(0)).double() * size
    read = read_tokens(tokens.expand(200, 1, 2, side, side), pixels, size)
    torch.testing.assert_close(read, pixels.clamp(patch / 2, size - patch / 2), atol=1e-5, rtol=0)
    # A quarter between two: shares of 3/4 and 1/4, in each view its own.
    tokens = noise(torch.zeros(1, 2, 3, side, side)).double()
    between = torch.tensor([[[1.75 * patch, 2.5 * patch], [0.5 * patch, 0.75 * patch]]], dtype=torch.float64)
    read = read_tokens(tokens, between, size)
    torch.testing.assert_close(read[0, 0], 0.75 * tokens[0, 0, :, 2, 1] + 0.25 * tokens[0, 0, :, 2, 2])
    torch.testing.assert_close(read[0, 1], 0.75 * tokens[0, 1, :, 0, 0] + 0.25 * tokens[0, 1, :, 1, 0])


@pytest.mark.parametrize(("preset", "million"), [("rvt", 36.35), ("rvt2", 72.29)])
@pytest.mark.parametrize("compat", [False, True])
def test_parameters_of_the_published_sizes(preset: str, million: float, compat: bool) -> None:
    with torch.device("meta"):
        stages = build_stages(preset, {"compat": compat})
    count = sum(parameter.numel() for stage in stages for parameter in stage.parameters())
    assert count / 1e6 == pytest.approx(million, rel=0.0002 if compat else 0.005)


def test_presets_are_plain_data_that_state_every_argument() -> None:
    assert json.loads(json.dumps(PRESETS)) == PRESETS
    for name, preset in PRESETS.items():
        with torch.device("meta"):
            stages = [build(stage) for stage in preset["stages"]]
        assert all(stage.views == len(preset["views"]) for stage in stages), name
        assert [stage.with_pose for stage in stages] == [False] * (len(stages) - 1) + [True], name
        for stage, built in zip(preset["stages"], stages, strict=True):
            assert set(stage) - {"_target_"} == set(inspect.signature(type(built)).parameters), name
    small = sum(p.numel() for stage in build_stages("rvt_small") for p in stage.parameters())
    assert 2e6 < small < 8e6


def heatmap_loss_of(features: StageFeatures, seed: int = 3) -> Tensor:
    """Cross entropy against random pixels, the mean over samples and views."""
    flat = features.logits.flatten(0, 1).flatten(1)
    where = torch.randint(flat.shape[1], (len(flat),), generator=torch.Generator().manual_seed(seed))
    return nn.functional.cross_entropy(flat, where)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("rvt_small", {}), ("rvt_small", {"compat": True}), ("rvt2", {}), ("rvt", {"depth": 2, "views": 2})],
)
def test_training_starts_near_uniform(preset: str, changes: dict[str, Any]) -> None:
    torch.manual_seed(1)
    network = build_stages(preset, changes)[-1].train()
    full = preset == "rvt2"
    stage = stage_input(network, batch=2 if full else 4, language=(4 if full else 16, 512))
    with torch.no_grad():
        features = network(stage)
        pose = network.pose(features, middle(network, len(stage.images)), None)
    assert pose.rotation is not None
    parts = {
        math.log(network.size_px**2): heatmap_loss_of(features),
        math.log(72): nn.functional.cross_entropy(pose.rotation.flatten(0, 1), torch.arange(len(stage.images) * 3)),
        math.log(2): sum(
            nn.functional.cross_entropy(two, torch.arange(len(two)) % 2) for two in (pose.gripper, pose.collision)
        )
        / 2,
    }
    for expected, loss in parts.items():
        assert float(loss) == pytest.approx(expected, rel=0.1)
    total = math.log(network.size_px**2) + 3 * math.log(72) + 2 * math.log(2)
    if full:
        assert total == pytest.approx(10.82 + 12.83 + 1.39, abs=0.01)


def test_an_optimiser_overfits_a_batch() -> None:
    """Both heads learn: four samples by heart, places and bins."""
    network = make("rvt2", dropout=0.0).train()
    stage = stage_input(network, batch=4)
    draw = torch.Generator().manual_seed(5)
    where = torch.randint(network.size_px**2, (4, V), generator=draw)
    bins = torch.randint(0, 72, (4, 3), generator=draw)
    pixels = torch.stack([where % network.size_px, where // network.size_px], -1) + 0.5
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(150):
        features = network(stage)
        rotation = network.pose(features, pixels, bins).rotation
        assert rotation is not None
        loss = nn.functional.cross_entropy(features.logits.flatten(0, 1).flatten(1), where.flatten())
        loss = loss + nn.functional.cross_entropy(rotation.flatten(0, 1), bins.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    features = network(stage)
    greedy = network.pose(features, pixels, None).rotation
    assert greedy is not None
    assert torch.equal(greedy.argmax(-1), bins)
    assert torch.equal(features.logits.flatten(2).argmax(-1), where)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_says_nearly_the_same(kind: str) -> None:
    network = make(kind)
    stage = stage_input(network)
    valid = torch.ones(B, L, dtype=torch.bool)
    valid[0, 2:] = False
    stage = replace(stage, language_valid=valid)
    with torch.no_grad():
        exact = network(stage).tokens
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = network(stage)
        pose = network.pose(features, middle(network), None)
    assert features.tokens.dtype is torch.bfloat16
    spread = float((exact - exact.mean()).std())
    assert float((features.tokens.float() - exact).std()) < 0.03 * spread
    assert pose.rotation is not None
    assert bool(pose.rotation.isfinite().all())


def test_published_quirks_are_in_compat_only() -> None:
    ours, published = make("rvt2"), make("rvt2", compat=True)
    kinds = [{type(part) for part in network.modules()} for network in (ours, published)]
    assert nn.BatchNorm1d not in kinds[0]
    assert nn.BatchNorm1d in kinds[1]
    stage = stage_input(ours)
    swapped = replace(stage, language=stage.language.flip(1))
    assert torch.allclose(published(stage).logits, published(swapped).logits, atol=1e-5)  # no order of words
    assert not torch.allclose(ours(stage).logits, ours(swapped).logits, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(WiringError, match="multiple of patch_px"):
        Rvt2Network(V, 57, 14)
    with pytest.raises(WiringError, match="token_width"):
        make("rvt2", token_width=12)
    with pytest.raises(WiringError, match="odd side"):
        RvtNetwork(V, 56, 14)
    with pytest.raises(WiringError, match=r"PoseHead\.rotation"):
        make("rvt2", rotation="quaternion")
    with pytest.raises(WiringError, match=r"PoseHead\.norm"):
        PoseHead(8, 8, "bins", conditional=True, norm="group")
    with pytest.raises(WiringError, match="'rvt2'"):
        build_stages("rvt_2")
    network = make("rvt2", with_pose=False)
    stage = stage_input(network)
    with pytest.raises(WiringError, match="a stage with a pose head"):
        network.pose(network(stage), middle(network), None)
    with pytest.raises(WiringError, match="Render"):
        network(replace(stage, images=stage.images[:, :2]))
    with pytest.raises(WiringError, match=f"at most {L} tokens"):
        network(replace(stage, language=torch.zeros(B, L + 1, E), language_valid=torch.ones(B, L + 1) > 0))
