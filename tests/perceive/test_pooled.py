"""PooledTrunk: what the trunk contract does not say - sizes, absent sensors, and where sensors meet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from perceive.batch import ActionTarget, Batch
from perceive.pooled import FUSIONS, PooledTrunk
from perceive.tokens import Tokens, join
from perceive.trunk import Trunk
from sensors.errors import WiringError
from tests.contracts import CONF, load_plain
from tests.contracts_torch import fake_tokens
from tests.perceive.scene import fake_batch
from tests.perceive.scene import model as scene_model

WIDTH = 32
SENSORS = {"camera": 5, "left": 3, "right": 2}
READOUT = 2


def scene(seed: int = 0) -> tuple[Tokens, torch.Tensor, list[slice]]:
    parts = {name: fake_tokens(4, count, WIDTH, seed + i) for i, (name, count) in enumerate(SENSORS.items())}
    tokens = join({**parts, "action": fake_tokens(4, READOUT, WIDTH, seed + 9)})
    return tokens, torch.zeros(4, 3, dtype=torch.float64), [tokens.groups["action"]]


def make(fusion: str, **changes: int) -> PooledTrunk:
    torch.manual_seed(0)
    return PooledTrunk(WIDTH, 12, **({"sensors": 3, "fusion": fusion, "depth": 2} | changes)).double().eval()


def without(tokens: Tokens, name: str) -> Tokens:
    valid = tokens.valid.clone()
    valid[:, tokens.groups[name]] = False
    return replace(tokens, valid=valid).cleaned()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_tokens_meet_in_one_vector(fusion: str) -> None:
    """Another left finger changes all tokens of the camera by the same in the middle: not how they differ."""
    trunk = make(fusion)
    trunk.after = torch.nn.ModuleList()
    trunk.norm = torch.nn.Identity()  # type: ignore[assignment]
    tokens, origin, groups = scene()
    features = tokens.features.clone()
    features[:, tokens.groups["left"]] = torch.randn(4, 3, WIDTH, dtype=torch.float64)
    changed = trunk(replace(tokens, features=features), origin, groups) - trunk(tokens, origin, groups)
    camera = changed[:, tokens.groups["camera"]]
    assert camera.abs().max() > 1e-3
    torch.testing.assert_close(camera, camera[:, :1].expand_as(camera))
    torch.testing.assert_close(changed[:, tokens.groups["action"]], camera[:, :2])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_order_within_a_sensor_does_not_matter(fusion: str) -> None:
    trunk, (tokens, origin, groups) = make(fusion), scene()
    order = torch.arange(tokens.valid.shape[1])
    order[:5] = torch.tensor([3, 0, 4, 1, 2])
    parts = (tokens.features, tokens.position_m, tokens.placed, tokens.age_s, tokens.valid)
    turned = Tokens(*(part[:, order] for part in parts), tokens.groups)
    torch.testing.assert_close(trunk(turned, origin, groups), trunk(tokens, origin, groups)[:, order])


def test_an_absent_expert_is_no_factor_and_a_sure_one_wins() -> None:
    trunk, (tokens, _, groups) = make("product_of_experts"), scene()
    nothing = without(without(without(tokens, "camera"), "left"), "right")
    alone = without(without(tokens, "left"), "right")
    # Nobody says anything: the prior's mean, 0, goes through the MLP.
    expected = trunk.fuse(torch.zeros(4, WIDTH, dtype=torch.float64))
    torch.testing.assert_close(trunk._fused(nothing, groups), expected)
    with torch.no_grad():
        for index, say in enumerate(trunk.say):
            say.weight.zero_()
            say.bias[:WIDTH] = float(index + 1)  # the means: 1, 2, 3
            say.bias[WIDTH:] = 40.0 if index else -40.0  # the first is sure, variance 1e-4; the others 36
    torch.testing.assert_close(
        trunk._fused(tokens, groups), trunk.fuse(torch.full((4, WIDTH), 1.0, dtype=torch.float64)), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(trunk._fused(alone, groups), trunk._fused(tokens, groups), atol=1e-3, rtol=0)


def test_as_large_as_the_trunk() -> None:
    """With the shipped settings, at the width and the five sensors of the models that feel."""
    sizes = {}
    for name in ("metric", *FUSIONS):
        arguments = load_plain(CONF / "trunk" / f"{name}.yaml")
        made = {"metric": Trunk}.get(name, PooledTrunk)
        extra = {} if name == "metric" else {"sensors": 5}
        trunk = made(128, 0, **{key: value for key, value in arguments.items() if key != "_target_"}, **extra)
        sizes[name] = sum(p.numel() for p in trunk.parameters())
    for name in FUSIONS:
        assert sizes[name] == pytest.approx(sizes["metric"], rel=0.02), sizes


@pytest.mark.parametrize("change", [{"fusion": "sum"}, {"depth": 3}, {"heads": 5}, {"sensors": 0}])
def test_impossible_settings(change: dict[str, object]) -> None:
    with pytest.raises(WiringError):
        PooledTrunk(WIDTH, 12, **({"sensors": 3} | change))  # type: ignore[arg-type]


def test_another_number_of_sensors_is_told() -> None:
    tokens, origin, groups = scene()
    with pytest.raises(WiringError, match="tokens of 2 sensors"):
        make("concatenation", sensors=2)(tokens, origin, groups)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_whole_model_is_wired_with_it(fusion: str) -> None:
    """From a config: it knows how many sensors there are, learns, and does without one."""
    part = scene_model(trunk={"_target_": "perceive.pooled.PooledTrunk", "fusion": fusion, "depth": 2, "heads": 2})
    batch = fake_batch(np.random.default_rng(0), 3)
    whole = part.eval()(batch)["action"].values
    front = batch.streams["front"]
    blind = Batch({**batch.streams, "front": replace(front, valid=torch.zeros_like(front.valid))})
    assert (part(blind)["action"].values - whole).abs().max() > 1e-5
    target = ActionTarget(torch.zeros(3, 4, 10), torch.ones(3, 4, dtype=torch.bool))
    part.train().loss(batch, {"action": target})["loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in part.trunk.parameters())
