"""The model: what it reads and what it ignores, its losses, learning, saving, presets and refusals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.batch import ActionTarget, Batch, BatchStream
from perceive.build import build
from perceive.geometry import matrix_to_rotation_6d
from perceive.loading import build_model, load_model
from perceive.normalize import FieldStats
from perceive.vtt.losses import alignment_loss
from perceive.vtt.model import VttModel
from sensors.errors import SpecError, WiringError
from sensors.rig import SensorRig
from tests.contracts import check_config, load_composed
from tests.perceive.scene import JOINTS, SPEC, WRENCH, camera_space, changed, fake_batch, fake_stats, fake_target

NAN = float("nan")
RIG: dict[str, spaces.Dict] = {"front": camera_space(21, 21, depth=False), "wrench": WRENCH, "joints": JOINTS}
CHUNK = 4
NETWORKS: dict[str, dict[str, Any]] = {
    "vtt": {
        "_target_": "perceive.vtt.network.VttNetwork",
        "image_px": 21, "patch_px": 7, "token_width": 32, "depth": 2, "heads": 2, "compressed": 4, "width": 24,
    },
    "concatenation": {"_target_": "perceive.vtt.concatenation.Concatenation", "image_px": 21, "width": 4},
    "product_of_experts": {
        "_target_": "perceive.vtt.product_of_experts.ProductOfExperts", "image_px": 21, "width": 4, "features": 24,
    },
}  # fmt: skip
PRESETS = {"vtt": 11.93e6, "vtt_concatenation": 0.77e6, "vtt_product_of_experts": 1.06e6}
NAMES = sorted(NETWORKS)


def plan(name: str = "vtt", **changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "_target_": "perceive.vtt.model.VttModel", "network": NETWORKS[name], "camera": "front", "chunk": CHUNK,
        "hidden": 32, "force_norm_N": 2.0, "torque_norm_Nm": 2.0, "contact_N": 1.5,
    }  # fmt: skip
    return whole | changes


def model(name: str = "vtt", rig: Mapping[str, spaces.Dict] = RIG, seed: int = 0, **changes: Any) -> VttModel:
    torch.manual_seed(seed)
    net = build_model(plan(name, **changes), rig, dict.fromkeys(rig, 1), SPEC)
    assert isinstance(net, VttModel)
    return net


def seen(seed: int = 0, size: int = 4, rig: Mapping[str, spaces.Dict] = RIG) -> Batch:
    return fake_batch(np.random.default_rng(seed), size, rig, dict.fromkeys(rig, 1))


def target(size: int = 4) -> ActionTarget:
    return fake_target(np.random.default_rng(0), size, CHUNK)


def replaced(batch: Batch, name: str, **fields: torch.Tensor) -> Batch:
    stream = batch.stream(name)
    return changed(batch, name, BatchStream({**stream.data, **fields}, stream.age_s, stream.valid))


def absent(batch: Batch, *names: str, rows: slice = slice(None)) -> Batch:
    """Sensors that say nothing in some samples; what stands in their place is no number."""
    for name in names:
        stream = batch.stream(name)
        valid = stream.valid.clone()
        valid[rows] = False
        data = {}
        for field, value in stream.data.items():
            data[field] = value.clone()
            data[field][rows] = 255 if value.dtype == torch.uint8 else NAN
        batch = changed(batch, name, BatchStream(data, stream.age_s, valid))
    return batch


def answer(net: VttModel, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        values: torch.Tensor = net.eval()(batch)["action"].values
    return values


def loss(net: VttModel, batch: Batch, wanted: ActionTarget | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return net.loss(batch, {"action": target(batch.size) if wanted is None else wanted})


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_model_answers_bit_for_bit(tmp_path: Path, name: str) -> None:
    net = model(name)
    net.fit(fake_stats(RIG))
    loaded = load_model(net.save_pretrained(tmp_path))
    assert isinstance(loaded, VttModel)
    assert not loaded.training
    values = answer(net, seen())
    assert values.shape == (4, CHUNK, SPEC.size)
    assert torch.equal(answer(loaded, seen()), values)
    blind = absent(seen(), "joints")
    assert torch.equal(answer(loaded, blind), answer(net, blind))
    assert not torch.equal(answer(model(name, seed=1), seen()), values)
    assert loaded.config == net.config
    assert type(loaded.network) is type(net.network)


@pytest.mark.parametrize("sensor", sorted(RIG))
@pytest.mark.parametrize("name", NAMES)
def test_every_sensor_counts_and_none_is_needed(name: str, sensor: str) -> None:
    net, batch = model(name).eval(), seen()
    net.fit(fake_stats(RIG))
    with torch.inference_mode():
        whole = net._context(batch, net.fuse(batch).features).readouts
        without = net._context(absent(batch, sensor), net.fuse(absent(batch, sensor)).features).readouts
    assert without.isfinite().all()
    assert ((whole - without).abs().amax((1, 2)) > 1e-5).all()
    assert answer(net, absent(batch, sensor)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_without_any_sensor_the_losses_and_gradients_are_numbers(name: str) -> None:
    net = model(name).train()
    terms = loss(net, absent(seen(), *RIG))
    assert float(terms["action/alignment"].detach()) == float(terms["action/contact"].detach()) == 0
    terms["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = model(name).train()
    terms = loss(net, seen(size=6))
    logged = {key for key in terms if key.split("/")[-1].startswith("_")}
    assert logged >= {"action/_alignment_accuracy", "action/_contact_accuracy", "action/_contact_rate"}
    summed = [value for key, value in terms.items() if key != "loss" and key not in logged]
    torch.testing.assert_close(terms["loss"], torch.stack(summed).sum())
    assert ("action/divergence" in terms) == (name == "product_of_experts")
    terms["loss"].backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    decay, plain = net.parameter_groups(0.1)
    assert len(decay["params"]) + len(plain["params"]) == len(list(net.parameters()))
    if name == "vtt":
        assert any(p is net.network.get_parameter("place") for p in plain["params"])


def test_the_wrench_is_scaled_and_its_label_is_not() -> None:
    net, batch = model(contact_N=1.5).eval(), seen(size=3)
    force = torch.tensor([[[1.4, 0, 0]], [[0, 1.6, 0]], [[1, 1, 1]]])
    batch = replaced(batch, "wrench", force_N=force)
    assert float(loss(net, batch)["action/_contact_rate"]) == pytest.approx(2 / 3)
    both = torch.cat([force, batch.stream("wrench").data["torque_Nm"]], -1)[:, 0]
    torch.testing.assert_close(net._seen(batch).wrench, both / 2)
    # Another scale changes what the network reads, and not what a contact is.
    other = model(contact_N=1.5, force_norm_N=50.0, torque_norm_Nm=50.0).eval()
    assert float(loss(other, batch)["action/_contact_rate"]) == pytest.approx(2 / 3)
    assert not torch.equal(answer(other, batch), answer(net, batch))


def test_alignment_asks_of_true_and_exchanged_wrenches() -> None:
    """With two samples there is one exchange, so that the term is known."""
    net, batch = model().eval(), seen(size=2)
    wrench = batch.stream("wrench")
    exchanged = replaced(batch, "wrench", **{name: value.flip(0) for name, value in wrench.data.items()})
    with torch.no_grad():
        logit = torch.cat([net.fuse(batch).alignment, net.fuse(exchanged).alignment])
        term = loss(net, batch)["action/alignment"]
    together = torch.tensor([True, True, False, False])
    torch.testing.assert_close(term, alignment_loss(logit, together, torch.ones(4, dtype=torch.bool)))
    assert float(term) == pytest.approx(2 * math.log(2), abs=0.5)
    # Half a pair counts for nothing: the one with a wrench has no other wrench to be exchanged with.
    with torch.no_grad():
        alone = loss(net, absent(batch, "wrench", rows=slice(1)))["action/alignment"]
        expected = alignment_loss(
            torch.stack([logit[1], net.fuse(exchanged).alignment[0]]), together[1:3], torch.ones(2, dtype=torch.bool)
        )
    torch.testing.assert_close(alone, expected)


def test_a_batch_of_one_and_weights_of_zero() -> None:
    net = model().train()
    assert float(loss(net, seen(size=1))["action/alignment"].detach()) == 0
    quiet = model(alignment_weight=0.0, contact_weight=0.0)
    terms = loss(quiet, seen())
    assert "action/alignment" not in terms
    assert float(terms["action/contact"].detach()) == 0
    torch.testing.assert_close(terms["loss"], terms["action/action"])
    double = loss(model(alignment_weight=2.0, contact_weight=3.0).eval(), seen())
    single = loss(model().eval(), seen())
    torch.testing.assert_close(double["action/alignment"], 2 * single["action/alignment"])
    torch.testing.assert_close(double["action/contact"], 3 * single["action/contact"])


def test_larger_pictures_are_made_smaller_by_areas() -> None:
    large = {**RIG, "front": camera_space(42, 63, depth=False)}
    net, batch = model(rig=large), seen()
    rgb = batch.stream("front").data["rgb"]
    assert rgb.shape[2:] == (21, 21, 3)
    each = rgb.repeat_interleave(2, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(answer(net, replaced(batch, "front", rgb=each)), answer(model(), batch))
    expected = rgb[:, -1].permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(net._seen(replaced(batch, "front", rgb=each)).image, expected)


def test_joints_are_read_after_the_fusion_or_not_at_all() -> None:
    batch = seen()
    with_joints, without = model(), model(joints=None, ignored_sensors=["joints"])
    for net in (with_joints, without):
        net.fit(fake_stats(RIG) | {"action": FieldStats(*(np.linspace(0.3, 0.9, SPEC.size),) * 4)})
    assert without.sensor_names == ("front", "wrench")
    blind = absent(batch, "joints")
    assert torch.equal(answer(without, batch), answer(without, blind))
    assert not torch.equal(answer(with_joints, batch), answer(with_joints, blind))
    torch.testing.assert_close(with_joints.fuse(batch).features, with_joints.fuse(blind).features)
    some = absent(batch, "joints", rows=slice(2))
    context, tool = with_joints._context(some, with_joints.fuse(some).features), batch.stream("joints").data
    torch.testing.assert_close(context.origin_m[2:], tool["base_from_tool"][2:, 0, :3, 3])
    torch.testing.assert_close(context.origin_rotation[2:], tool["base_from_tool"][2:, 0, :3, :3])
    torch.testing.assert_close(context.origin_m[:2], with_joints.fallback_origin_m.expand(2, 3))
    torch.testing.assert_close(context.origin_rotation[:2], torch.eye(3).expand(2, 3, 3))
    # Where the tool is unknown, actions are relative to where it mostly was, or to where it was mostly sent.
    assert with_joints.fallback_origin_m.tolist() == pytest.approx([0.1, 0.1, 0.1])
    torch.testing.assert_close(without.fallback_origin_m, torch.linspace(0.3, 0.9, SPEC.size)[:3])


def test_numbers_that_are_none_are_absent() -> None:
    net, batch = model(), seen()
    broken = replaced(batch, "wrench", torque_Nm=torch.full((4, 1, 3), NAN))
    assert torch.equal(answer(net, broken), answer(net, absent(batch, "wrench")))
    broken = replaced(batch, "joints", gripper_m=torch.full((4, 1, 1), NAN))
    assert torch.equal(answer(net, broken), answer(net, absent(batch, "joints")))


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_trains_and_answers(name: str) -> None:
    net = model(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(net, seen())
        values = net(seen())["action"].values
    assert terms["loss"].dtype == values.dtype == torch.float32
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_wrench_tells_what_to_do() -> None:
    """Two pictures and two wrenches: where to go depends on each and on both together, and is learned by heart."""
    batch = seen()
    rgb, wrench = batch.stream("front").data["rgb"], batch.stream("wrench").data
    first, second = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    batch = replaced(batch, "front", rgb=rgb[first])
    batch = replaced(batch, "wrench", **{name: value[second] for name, value in wrench.items()})
    joints = {name: value[:1].expand_as(value) for name, value in batch.stream("joints").data.items()}
    batch = replaced(batch, "joints", **joints)
    way = torch.stack([first * 2 - 1, second * 2 - 1, (first == second) * 2 - 1], -1) * 0.05
    wanted = torch.zeros(4, CHUNK, SPEC.size)
    wanted[..., :3] = (joints["base_from_tool"][:, 0, :3, 3] + way)[:, None]
    wanted[..., 3:9] = matrix_to_rotation_6d(joints["base_from_tool"][:, :, :3, :3])
    goal = ActionTarget(wanted, torch.ones(4, CHUNK, dtype=torch.bool))
    net = model().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    for step in range(110):
        optimizer.param_groups[0]["lr"] = 4e-3 * min(1, (step + 1) / 10) * (1 - step / 110)
        terms = loss(net, batch, goal, seed=step)
        optimizer.zero_grad()
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    wrong = replaced(batch, "wrench", **{name: v.flip(0) for name, v in batch.stream("wrench").data.items()})
    error, other = ((answer(net, b) - wanted)[..., :3].norm(dim=-1).mean() for b in (batch, wrong))
    assert error < 0.015
    assert other > 0.1  # the other wrench says 0.1 m to the side and up or down


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_shipped_configs_fit_the_rig_and_are_of_the_published_size(preset: str) -> None:
    config = load_composed("model", preset)
    check_config(config)
    check_config(config["network"])
    rig = build(load_composed("rig", "lift"))
    assert isinstance(rig, SensorRig)
    net = build_model(config, rig.sensor_spaces, rig.history, SPEC)
    assert isinstance(net, VttModel)
    assert net.sensor_names == ("front", "wrench", "joints")
    size = sum(p.numel() for p in net.network.parameters())
    assert size == pytest.approx(PRESETS[preset], rel=0.005)
    assert net.network.width == 288
    # The three differ in nothing but the network.
    assert {**config, "network": None} == {**load_composed("model", "vtt"), "network": None}


def test_what_does_not_fit_is_refused() -> None:
    for changes, word in (
        ({"camera": "frnt"}, "front"),
        ({"camera": "joints"}, "rgb"),
        ({"wrench": "joints"}, "force_N"),
        ({"joints": None}, "ignored_sensors"),
        ({"ignored_sensors": ["nothing"]}, "nothing"),
    ):
        with pytest.raises(WiringError, match=word):
            model(**changes)
    for changes in (
        {"chunk": 0}, {"hidden": 0}, {"force_norm_N": 0.0}, {"torque_norm_Nm": -1.0}, {"contact_N": 0.0},
        {"alignment_weight": -1.0}, {"divergence_weight": -0.1},
    ):  # fmt: skip
        with pytest.raises(SpecError):
            model(**changes)
    with pytest.raises(WiringError, match="21 x 21 pixels or more"):
        model(rig={**RIG, "front": camera_space(20, 21, depth=False)})
    with pytest.raises(WiringError, match="action spec"):
        build_model(plan(), RIG, dict.fromkeys(RIG, 1), None)
    with pytest.raises(WiringError, match="'pointing'"):
        model().loss(seen(), {"pointing": target()})
