"""VTT: which token is what, how many parameters, and what attention does with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from perceive.vtt.concatenation import Concatenation
from perceive.vtt.network import ALIGNMENT, CONTACT, VttNetwork
from perceive.vtt.product_of_experts import ProductOfExperts
from sensors.errors import WiringError
from tests.perceive.vtt.networks import PATCH, PX, SIDE, seen, small

VTT, CONCATENATION, PRODUCT = 11.93e6, 0.77e6, 1.06e6


def parameters(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


def vtt(seed: int = 0) -> VttNetwork:
    network = small("vtt", seed).eval()
    assert isinstance(network, VttNetwork)
    return network


def changed_tokens(network: VttNetwork, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> list[int]:
    change = (network.tokens(*one) - network.tokens(*other)).abs().amax((0, 2))
    return change.nonzero().flatten().tolist()


def test_the_published_layout_is_40_tokens_and_288_features() -> None:
    torch.manual_seed(0)
    network = VttNetwork().eval()
    image, wrench, image_there, wrench_there = seen(2, px=84)
    tokens = network.tokens(image, wrench)
    assert tokens.shape == (2, 40, 384)
    assert network.image_tokens == slice(2, 38)
    assert network.wrench_tokens == slice(38, 40)
    assert {ALIGNMENT, CONTACT} == {0, 1}
    with torch.inference_mode():
        fused = network(image, wrench, image_there, wrench_there)
    assert fused.features.shape == (2, 288)
    assert fused.alignment.shape == fused.contact.shape == (2,)
    assert fused.mean is None
    assert fused.variance is None
    # The last patch of the third row: 2 learned tokens, two rows of 6, and 5 in this one.
    moved = image.clone()
    moved[:, :, 2 * 14 : 3 * 14, 5 * 14 :] += 0.1
    assert changed_tokens(network, (image, wrench), (moved, wrench)) == [2 + 2 * 6 + 5]


def test_every_patch_is_one_token_and_the_wrench_is_two() -> None:
    network = vtt()
    image, wrench, _, _ = seen()
    for row in range(SIDE):
        for column in range(SIDE):
            moved = image.clone()
            moved[:, :, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)] += 0.1
            assert changed_tokens(network, (image, wrench), (moved, wrench)) == [2 + SIDE * row + column]
    assert changed_tokens(network, (image, wrench), (image, wrench + 0.1)) == [2 + SIDE**2, 3 + SIDE**2]


def test_sizes_are_the_published_ones_and_widths_match_them() -> None:
    with torch.device("meta"):
        assert parameters(VttNetwork()) == pytest.approx(VTT, rel=0.005)
        assert parameters(Concatenation()) == pytest.approx(CONCATENATION, rel=0.005)
        assert parameters(ProductOfExperts()) == pytest.approx(PRODUCT, rel=0.005)
        for matched in (Concatenation(width=140), ProductOfExperts(width=132)):
            assert parameters(matched) == pytest.approx(VTT, rel=0.1)
        assert Concatenation().width == ProductOfExperts().width == VttNetwork().width == 288
        assert Concatenation(width=140).width == ProductOfExperts(width=132).width == 288


def test_the_logits_are_read_from_their_own_tokens() -> None:
    """Without a block no token sees another: then each logit depends on one learned token alone, in closed form."""
    torch.manual_seed(0)
    network = VttNetwork(PX, PATCH, token_width=16, depth=0, heads=2, compressed=4, width=8).eval()
    fused = network(*seen())
    for index, head, got in ((0, network.alignment, fused.alignment), (1, network.contact, fused.contact)):
        token = nn.functional.layer_norm(network.learned[index] + network.place[index], (16,))
        expected = head.weight[0] @ token + head.bias[0]
        torch.testing.assert_close(got, expected.expand(5))


def test_patches_have_an_order_by_their_learned_places_only() -> None:
    """Attention does not know one: patches that move with their place leave both logits as they were."""
    network = vtt()
    image, wrench, *there = seen()
    patches = image.unflatten(3, (SIDE, PATCH)).unflatten(2, (SIDE, PATCH)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(1))
    rows = patches[:, order].unflatten(1, (SIDE, SIDE)).permute(0, 3, 1, 4, 2, 5)
    mixed = rows.reshape(image.shape)
    with torch.no_grad():
        before, moved = network(image, wrench, *there), network(mixed, wrench, *there)
        network.place[network.image_tokens] = network.place[network.image_tokens][order]
        moved_with_place = network(mixed, wrench, *there)
    for name in ("alignment", "contact"):
        torch.testing.assert_close(getattr(moved_with_place, name), getattr(before, name), rtol=0, atol=1e-5)
        assert (getattr(moved, name) - getattr(before, name)).abs().min() > 1e-5


def test_what_is_absent_is_no_key_of_attention_and_no_part_of_the_feature() -> None:
    """With the picture gone all is as in a network that has no patches, with zeros in their places at the end."""
    network = vtt()
    image, wrench, there, _ = seen()
    with torch.no_grad():
        fused = network(image, wrench, ~there, there)
        tokens = network.tokens(torch.zeros_like(image), wrench)
        tokens = torch.cat([tokens[:, :2], tokens[:, network.wrench_tokens]], 1)
        for block in network.blocks:
            tokens = block(tokens, None, torch.ones(1, 1, 1, 4, dtype=torch.bool))
        tokens = network.norm(tokens)
        small_tokens = nn.functional.gelu(network.compress(tokens))
        blank = torch.zeros(5, SIDE**2, small_tokens.shape[-1])
        features = network.leave(torch.cat([small_tokens[:, :2], blank, small_tokens[:, 2:]], 1).flatten(1))
    torch.testing.assert_close(fused.features, features, rtol=0, atol=1e-5)
    torch.testing.assert_close(fused.alignment, network.alignment(tokens[:, 0])[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(fused.contact, network.contact(tokens[:, 1])[:, 0], rtol=0, atol=1e-5)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(WiringError, match="patch_px"):
        VttNetwork(image_px=84, patch_px=16)
    with pytest.raises(WiringError, match="heads"):
        VttNetwork(heads=7)
    with pytest.raises(WiringError, match="width"):
        Concatenation(width=0)
    with pytest.raises(WiringError, match="width"):
        ProductOfExperts(width=0)
