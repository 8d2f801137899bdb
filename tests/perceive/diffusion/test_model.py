"""The model: what it reads and what it ignores, its loss, saving, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.batch import ActionTarget, Batch, BatchStream
from perceive.diffusion.model import PointDiffusionModel
from perceive.diffusion.scale import ActionScale
from perceive.geometry import rotation_6d_to_matrix
from perceive.loading import build_model, load_model
from perceive.model_base import Model
from perceive.normalize import FieldStats
from sensors.errors import SpecError, WiringError
from sensors.instruction import to_bytes
from sensors.spec import box
from tests.contracts import check_config, load_composed
from tests.perceive.scene import JOINTS, SPEC, camera_space, changed, fake_batch, fake_target

NAN = float("nan")
RIG: dict[str, spaces.Dict] = {
    "front": camera_space(16, 16),
    "left": camera_space(16, 16),
    "joints": JOINTS,
    "task": spaces.Dict({"text": box(0, 255, (32,), np.uint8)}),
}
TEXTS = ("red on blue", "blue on red", "open the drawer", "")
CHUNK = 8


def plan(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "_target_": "perceive.diffusion.model.PointDiffusionModel",
        "cameras": ["front", "left"],
        "low_m": [-0.7, -1.2, -0.9],
        "high_m": [1.7, 1.2, 1.5],
        "chunk": CHUNK,
        "points": 32,
        "candidates": 64,
        "language": {"_target_": "perceive.language.words.WordTable", "width": 12, "tokens": 6},
        "widths": [16, 24, 32],
    }
    return whole | changes


def model(seed: int = 0, rig: Mapping[str, spaces.Dict] = RIG, **changes: Any) -> Model:
    torch.manual_seed(seed)
    return build_model(plan(**changes), rig, dict.fromkeys(rig, 1), SPEC)


def seen(seed: int = 0, size: int = 4) -> Batch:
    batch = fake_batch(np.random.default_rng(seed), size, RIG, dict.fromkeys(RIG, 1))
    text = np.stack([to_bytes(TEXTS[i % len(TEXTS)], 32) for i in range(size)])[:, None]
    task = batch.stream("task")
    return changed(batch, "task", BatchStream({"text": torch.from_numpy(text)}, task.age_s, task.valid))


def absent(batch: Batch, *names: str) -> Batch:
    """Sensors that say nothing; what stands in their place is no number."""
    for name in names:
        stream = batch.stream(name)
        data = {
            field: value if value.dtype == torch.uint8 else torch.full_like(value, NAN)
            for field, value in stream.data.items()
        }
        batch = changed(batch, name, BatchStream(data, stream.age_s, torch.zeros_like(stream.valid)))
    return batch


def answer(net: Model, batch: Batch, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    with torch.inference_mode():
        values: torch.Tensor = net.eval()(batch)["action"].values
    return values


def stats(low: float = 0.0, high: float = 1.0) -> dict[str, FieldStats]:
    size = SPEC.size
    return {"action": FieldStats(*(np.full(size, x) for x in ((low + high) / 2, 0.3, low, high)))}


def lacking(net: Model) -> list[str]:
    return [
        name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]


def test_the_answer_is_a_chunk_within_reach() -> None:
    net = model(limit=1.5)
    net.fit(stats(0.2, 0.8))
    last = net.get_submodule("denoiser.leave")[-1]  # type: ignore[index]
    last.weight.data *= 100  # says what is far out of reach
    values = answer(net, seen())
    assert values.shape == (4, CHUNK, SPEC.size)
    assert ((values[..., :3] >= 0.05 - 1e-6) & (values[..., :3] <= 0.95 + 1e-6)).all()
    assert float(values[..., :3].max()) == pytest.approx(0.95)
    turn = rotation_6d_to_matrix(values[..., 3:9])
    torch.testing.assert_close(turn[..., :2].transpose(-1, -2).flatten(-2), values[..., 3:9], rtol=0, atol=1e-5)
    assert float(values[..., 9].abs().max()) == 1


def test_the_noise_of_an_answer_is_torchs() -> None:
    net = model()
    assert torch.equal(answer(net, seen(), 1), answer(net, seen(), 1))
    assert not torch.equal(answer(net, seen(), 1), answer(net, seen(), 2))


@pytest.mark.parametrize("sampling", ["random", "voxel", "farthest"])
def test_a_loaded_model_answers_bit_for_bit(tmp_path: Path, sampling: str) -> None:
    net = model(sampling=sampling)
    net.fit(stats(-0.4, 0.9))
    loaded = load_model(net.save_pretrained(tmp_path))
    assert not loaded.training
    assert torch.equal(answer(loaded, seen()), answer(net, seen()))
    assert not torch.equal(answer(model(1, sampling=sampling), seen()), answer(net, seen()))
    assert loaded.config == net.config
    assert loaded.action_spec == SPEC
    # The words are kept, so that a later vocabulary does not change what they mean.
    assert "red" in loaded.config["model"]["language"]["words"]


@pytest.mark.parametrize("name", ["front", "left", "joints", "task"])
def test_every_sensor_counts_and_none_is_needed(name: str) -> None:
    net, batch = model().eval(), seen()
    with torch.inference_mode():
        whole, _ = net._observed(batch)  # type: ignore[operator]  # what the denoiser is told
        without, _ = net._observed(absent(batch, name))  # type: ignore[operator]
    assert without.isfinite().all()
    told = [i for i, text in enumerate(TEXTS) if text] if name == "task" else range(4)
    for row in told:
        assert (whole[row] - without[row]).abs().max() > 1e-3
    assert answer(net, absent(batch, name)).isfinite().all()


def test_named_colours_reach_the_points_without_a_language() -> None:
    names = {"_target_": "perceive.language.colours.ColourNames", "hues": {"red": 0.0, "green": 0.36, "blue": 0.61}}
    net, batch = model(language=None, colours=names).eval(), seen()
    assert "task" in net.sensor_names
    points, valid = net._points_of(batch)  # type: ignore[operator]
    assert points.shape[-1] == 9
    # TEXTS: the first two name the same colours in another order, the others none.
    assert float(points[:2, :, 6].amax(1).min()) > 0
    assert float(points[2:, :, 6:].abs().max()) == 0
    assert float(points[~valid].abs().sum()) == 0
    assert float(net._points_of(absent(batch, "task"))[0][..., 6:].abs().max()) == 0  # type: ignore[operator]


def test_without_any_sensor_the_loss_and_its_gradients_are_numbers() -> None:
    net = model().train()
    terms = net.loss(absent(seen(), *RIG), {"action": fake_target(np.random.default_rng(0), 4, CHUNK)})
    assert float(terms["action/_seen"]) == 0
    terms["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert net.get_parameter("pointnet.nothing").grad is not None


def test_unmeasured_depth_and_points_outside_do_not_matter() -> None:
    net, batch = model(), seen()
    front = batch.stream("front")
    depth = front.data["depth_m"].clone()
    gone = torch.rand(depth.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    answers = []
    for bad in (NAN, 0.0, 50.0, 2.9):  # 2.9 m is measured, and beyond the workspace
        stream = BatchStream({**front.data, "depth_m": torch.where(gone, bad, depth)}, front.age_s, front.valid)
        answers.append(answer(net, changed(batch, "front", stream)))
    assert answers[0].isfinite().all()
    assert all(torch.equal(answers[0], other) for other in answers[1:])
    assert not torch.equal(answers[0], answer(net, batch))


def test_joints_that_are_no_numbers_are_absent() -> None:
    net, batch = model(), seen()
    joints = batch.stream("joints")
    broken = BatchStream({**joints.data, "gripper_m": torch.full((4, 1, 1), NAN)}, joints.age_s, joints.valid)
    assert torch.equal(answer(net, changed(batch, "joints", broken)), answer(net, absent(batch, "joints")))


def test_colours_are_read_only_if_asked_for() -> None:
    batch = seen()
    front = batch.stream("front")
    dark = BatchStream({**front.data, "rgb": front.data["rgb"] // 3}, front.age_s, front.valid)
    other = changed(batch, "front", dark)
    blind, seeing = model(use_color=False), model()
    assert torch.equal(answer(blind, batch), answer(blind, other))
    assert not torch.equal(answer(seeing, batch), answer(seeing, other))


def test_the_order_of_the_words_is_told() -> None:
    """The first two texts have the same words."""
    net, batch = model(), seen()
    task = batch.stream("task")
    swapped = task.data["text"][[1, 0, 2, 3]]
    one, other = (net._told_by(net.language, b) for b in (  # type: ignore[operator]
        batch, changed(batch, "task", BatchStream({"text": swapped}, task.age_s, task.valid))
    ))  # fmt: skip
    torch.testing.assert_close(other, one[[1, 0, 2, 3]])
    assert (one[0] - one[1]).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient() -> None:
    net, batch = model().train(), seen()
    present = torch.ones(4, 1, dtype=torch.bool)
    present[3] = False  # a sample that sees nothing
    for name in ("front", "left"):
        stream = batch.stream(name)
        batch = changed(batch, name, BatchStream(stream.data, stream.age_s, present))
    target = fake_target(np.random.default_rng(0), 4, CHUNK)
    net.loss(batch, {"action": target})["loss"].backward()
    assert lacking(net) == []
    decay, plain = net.parameter_groups(0.1)
    assert len(decay["params"]) + len(plain["params"]) == len(list(net.parameters()))
    assert all(p.ndim >= 2 for p in decay["params"])
    language: Any = net.get_submodule("language")
    assert any(p is language.table.weight for p in plain["params"])


def test_what_stands_beyond_an_episodes_end_does_not_matter() -> None:
    net, batch = model().train(), seen()
    target = fake_target(np.random.default_rng(0), 4, CHUNK)

    def loss(values: torch.Tensor, valid: torch.Tensor) -> float:
        torch.manual_seed(0)
        return float(net.loss(batch, {"action": ActionTarget(values, valid)})["loss"].detach())

    harmed = torch.where(target.valid[..., None], target.values, NAN)
    assert loss(harmed, target.valid) == loss(target.values, target.valid)
    other = target.values.clone()
    other[-1, 0] += 0.1
    assert loss(other, target.valid) != loss(target.values, target.valid)
    assert loss(harmed, torch.zeros_like(target.valid)) == 0


def test_the_loss_of_an_untrained_network_is_that_of_the_data() -> None:
    """A network that says 0 has the mean square of the latent chunk as its loss."""
    net = model().train()
    net.fit(stats())
    last = net.get_submodule("denoiser.leave")[-1]  # type: ignore[index]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    target = fake_target(np.random.default_rng(0), 4, CHUNK)
    latent = target.values.clone()
    latent[..., :3] = latent[..., :3] * 2 - 1
    terms = net.loss(seen(), {"action": target})
    torch.testing.assert_close(terms["loss"], latent[target.valid].square().mean())
    assert terms["action/denoise"] is terms["loss"]


def test_mixed_precision_trains_and_answers() -> None:
    net = model().train()
    with torch.autocast("cpu", torch.bfloat16):
        terms = net.loss(seen(), {"action": fake_target(np.random.default_rng(0), 4, CHUNK)})
        values = net(seen())["action"].values
    assert terms["loss"].dtype == values.dtype == torch.float32
    terms["loss"].backward()
    assert lacking(net) == ["pointnet.nothing"]


def test_the_scale_and_its_inverse() -> None:
    scale = ActionScale(SPEC)
    target = fake_target(np.random.default_rng(0), 6, CHUNK).values
    flat = target.reshape(-1, SPEC.size).double().numpy()
    scale.fit({"action": FieldStats(flat.mean(0), flat.std(0), flat.min(0), flat.max(0))})
    latent = scale.encode(target)
    torch.testing.assert_close(latent[..., :3].amax((0, 1)), torch.ones(3))
    torch.testing.assert_close(latent[..., :3].amin((0, 1)), -torch.ones(3))
    assert torch.equal(latent[..., 3:], target[..., 3:])
    torch.testing.assert_close(scale.decode(latent), target, rtol=0, atol=1e-6)
    constant = ActionScale(SPEC, floor=0.02)
    constant.fit(stats(0.5, 0.5))
    torch.testing.assert_close(constant.decode(torch.ones(1, 1, SPEC.size))[0, 0, :3], torch.full((3,), 0.52))
    with pytest.raises(SpecError):
        scale.fit({"action": FieldStats(*(np.zeros(3) for _ in range(4)))})
    with pytest.raises(SpecError):
        scale.fit(stats(NAN, 1.0))


def test_training_thins_the_pictures_and_answers_do_not() -> None:
    batch = seen()
    coarse = model(stride=4, points=32, candidates=512)
    _, valid = coarse.train()._points_of(batch)  # type: ignore[operator]
    assert valid.sum(1).max() <= 2 * 16  # two pictures of 4 x 4
    assert torch.equal(answer(coarse, batch), answer(model(points=32, candidates=512), batch))


def test_points_are_drawn_in_training_and_always_the_same_in_answers() -> None:
    net, batch = model(), seen()

    def points(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        found: torch.Tensor = net._points_of(batch)[0]  # type: ignore[operator]
        return found

    net.eval()
    assert torch.equal(points(0), points(1))
    net.train()
    assert not torch.equal(points(0), points(1))
    assert torch.equal(points(0), points(0))


def test_the_shipped_config_is_the_class() -> None:
    config = load_composed("model", "point_diffusion")
    check_config(config)
    rig = {name: camera_space(16, 16) for name in config["cameras"]} | {n: RIG[n] for n in ("joints", "task")}
    net = build_model(config, rig, dict.fromkeys(rig, 1), SPEC)
    assert isinstance(net, PointDiffusionModel)
    assert 1e6 < sum(p.numel() for p in net.parameters()) < 3e6
    without = {**config, "language": None, "colours": None, "ignored_sensors": ["task"]}
    assert "task" not in build_model(without, rig, dict.fromkeys(rig, 1), SPEC).sensor_names


def test_what_does_not_fit_is_refused() -> None:
    for changes, word in (
        ({"cameras": ["frnt", "left"]}, "front"),
        ({"cameras": ["front"]}, "ignored_sensors"),
        ({"cameras": ["front", "left", "joints"]}, "rgb"),
        ({"language": None}, "ignored_sensors"),
        ({"chunk": 6}, "multiple of 4"),
    ):
        with pytest.raises(WiringError, match=word):
            model(**changes)
    for changes in (
        {"low_m": [0, 0, 2.0]}, {"low_m": [0, 0]}, {"points": 65}, {"points": 0}, {"sample_steps": 101}, {"limit": 0.5},
        {"stride": 0}, {"cameras": []}, {"noise_steps": 1},
    ):  # fmt: skip
        with pytest.raises(SpecError):
            model(**changes)
    with pytest.raises(WiringError, match="action spec"):
        build_model(plan(), RIG, dict.fromkeys(RIG, 1), None)
    target = replace(fake_target(np.random.default_rng(0), 4, CHUNK))
    with pytest.raises(WiringError, match="'pointing'"):
        model().loss(seen(), {"pointing": target})
