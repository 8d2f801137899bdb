from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perceive.rvt.network import StageInput
from perceive.rvt.trunk_network import TrunkNetwork
from perceive.rvt.views import pixel_of, views_named
from sensors.errors import WiringError

FACES = ["top", "front", "right"]
SIZE, PATCH = 28, 14


def network(**changes: Any) -> TrunkNetwork:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"views": 3, "size_px": SIZE, "faces": FACES, "patch_px": PATCH, "width": 32, "depth": 2}
    sizes |= {"heads": 2, "token_width": 16, "language_width": 8, "language_tokens": 4}
    return TrunkNetwork(**(sizes | changes))


def stage(batch: int = 2, hit: bool = True) -> StageInput:
    draw = torch.Generator().manual_seed(1)
    there = torch.rand(batch, 3, SIZE, SIZE, generator=draw) < 0.6 if hit else torch.zeros(batch, 3, SIZE, SIZE) > 0
    xyz = torch.where(there[:, :, None], torch.rand(batch, 3, 3, SIZE, SIZE, generator=draw) * 2 - 1, 0.0)
    words = torch.ones(batch, 4, dtype=torch.bool)
    words[:, 3] = False
    return StageInput(
        torch.randn(batch, 3, 10, SIZE, SIZE, generator=draw), xyz, there,
        torch.randn(batch, 10, generator=draw), torch.randn(batch, 4, 8, generator=draw), words,
    )  # fmt: skip


def replaced(old: StageInput, **changes: Tensor) -> StageInput:
    return StageInput(**{name: changes.get(name, value) for name, value in vars(old).items()})


def test_a_patch_stands_where_its_points_are() -> None:
    seen = stage()
    places = network().places(seen.xyz, seen.hit).view(2, 3, 2, 2, 3)
    for number, face in enumerate(views_named(FACES)):
        for row in range(2):
            for column in range(2):
                block = (..., slice(row * PATCH, (row + 1) * PATCH), slice(column * PATCH, (column + 1) * PATCH))
                hit = seen.hit[:, number][block]
                along = seen.xyz[:, number, face.towards.index][block]
                depth = (along * hit).sum((1, 2)) / hit.sum((1, 2))
                here = places[:, number, row, column]
                torch.testing.assert_close(here[:, face.towards.index], depth, atol=1e-5, rtol=0)
                # Across the view it is the middle of the patch.
                pixel = pixel_of(here[:, None], [face], SIZE)[:, 0, 0]
                wanted = torch.tensor([(column + 0.5) * PATCH, (row + 0.5) * PATCH]).expand(2, 2)
                torch.testing.assert_close(pixel, wanted, atol=1e-4, rtol=0)


def test_an_empty_patch_stands_in_the_middle_along_the_view() -> None:
    places = network().places(torch.zeros(1, 3, 3, SIZE, SIZE), torch.zeros(1, 3, SIZE, SIZE) > 0)
    for number, face in enumerate(views_named(FACES)):
        assert bool((places.view(1, 3, 4, 3)[:, number, :, face.towards.index] == 0).all())


def test_what_an_absent_word_says_does_not_matter() -> None:
    seen, net = stage(), network().eval()
    noise = seen.language.clone()
    noise[:, 3] = 50.0 * torch.randn(2, 8)
    assert torch.equal(net(seen).logits, net(replaced(seen, language=noise)).logits)
    noise[:, 0] = torch.randn(2, 8)  # the control: a word that is there
    assert not torch.equal(net(seen).logits, net(replaced(seen, language=noise)).logits)


@pytest.mark.parametrize("position", ["metric", "index"])
def test_no_words_and_nothing_seen_are_survived(position: str) -> None:
    net, seen = network(position=position).eval(), stage(hit=False)
    silent = replaced(seen, language_valid=torch.zeros(2, 4, dtype=torch.bool))
    features = net(silent)
    assert bool(torch.isfinite(features.logits).all())
    pose = net.pose(features, torch.full((2, 3, 2), 14.0), None)
    assert bool(torch.isfinite(pose.gripper).all())


def test_samples_do_not_mix() -> None:
    seen, net = stage(3), network().eval()
    alone = StageInput(**{name: value[:1] for name, value in vars(seen).items()})
    torch.testing.assert_close(net(seen).logits[:1], net(alone).logits, atol=1e-5, rtol=0)


def test_gradients_reach_every_parameter() -> None:
    net, seen = network(), stage()
    features = net(seen)
    pose = net.pose(features, torch.full((2, 3, 2), 9.0), torch.zeros(2, 3, dtype=torch.long))
    assert pose.rotation is not None
    total = features.logits.square().mean() + pose.rotation.square().mean() + pose.gripper.square().mean()
    (total + pose.collision.square().mean()).backward()  # type: ignore[no-untyped-call]
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("changes", "hint"), [({"size_px": 30}, "divides"), ({"cell_px": 4}, "divides"), ({"faces": ["top"]}, "faces")]
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], hint: str) -> None:
    with pytest.raises(WiringError, match=hint):
        network(**changes)


def test_other_pictures_and_a_missing_pose_head_are_refused() -> None:
    seen = stage()
    with pytest.raises(WiringError, match="28 px"):
        network()(replaced(seen, images=torch.zeros(2, 3, 10, 42, 42)))
    net = network(with_pose=False)
    with pytest.raises(WiringError, match="pose head"):
        net.pose(net(seen), torch.zeros(2, 3, 2), None)
