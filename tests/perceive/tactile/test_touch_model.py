"""Stems, one trunk, heads: wiring, what does not matter, saving, new kinds of sensors, and that it learns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.batch import Batch
from perceive.heads.classification import ClassHead
from perceive.heads.readout import ReadoutHead
from perceive.loading import build_model, load_model
from perceive.tactile.heads import PressPose, PressPoseHead, PressTarget, pose_errors
from perceive.tactile.model import TouchModel
from perceive.tactile.presses import SHAPES, gel_space, press
from perceive.tactile.stems import ForceStem, GelStem, StemPlan
from perceive.wiring import check_shapes
from sensors.errors import DataError, SpecError, WiringError
from sensors.spec import box
from sensors.tactile.presets import preset_optics
from tests.contracts import load_composed
from tests.contracts_torch import check_head
from tests.perceive.scene import fake_batch

POSE = {"base_from_pad": box(-1e3, 1e3, (4, 4)), "size_m": box(0, 1, (2,))}
PICTURE = spaces.Dict({"rgb": box(0, 255, (16, 16, 3), np.uint8), **POSE})
FIELD = spaces.Dict({"force_N": box(-5, 5, (4, 6, 3)), **POSE})
SPACES = {"digit": PICTURE, "field": FIELD}
STEMS: Mapping[str, StemPlan] = {"digit": GelStem(), "field": ForceStem(patch_rows=2, patch_columns=3)}


def heads() -> dict[str, Any]:
    return {"pose": PressPoseHead(32, 32), "shape": ClassHead(32, SHAPES, 32)}


def model(**changes: Any) -> TouchModel:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "sensor_spaces": SPACES, "history": dict.fromkeys(SPACES, 1), "action_spec": None, "width": 32, "stems": STEMS,
        "heads": heads(), "sensor_tokens": 2, "depth": 2, "attention_heads": 2,
    }  # fmt: skip
    return TouchModel(**(given | changes)).eval()


def batch(*names: str, size: int = 3, seed: int = 0) -> Batch:
    kinds = {name: SPACES["field" if name == "field" else "digit"] for name in names}
    return fake_batch(np.random.default_rng(seed), size, kinds, dict.fromkeys(names, 1))


def targets(size: int = 3) -> dict[str, Any]:
    pose = PressTarget(torch.rand(size, 2) * 0.005, torch.rand(size), torch.rand(size) * 1e-3, torch.ones(size) > 0)
    return {"pose": pose, "shape": torch.arange(size) % len(SHAPES)}


# ------------------------------------------------------------------------------------------------------------- wiring


def test_one_sensor_or_several_at_once() -> None:
    part = model()
    for names in (("digit",), ("field",), ("digit", "field")):
        answer = part(batch(*names))
        assert answer["pose"].xy_m.shape == (3, 2)
        assert answer["shape"].logits.shape == (3, len(SHAPES))
    both = batch("digit", "field")
    alone = part(Batch({"digit": both.stream("digit")}))
    assert (part(both)["shape"].logits - alone["shape"].logits).abs().max() > 1e-4, "the second sensor does not matter"


def test_a_sensor_without_a_stem_is_an_error_that_names_those_with_one() -> None:
    with pytest.raises(WiringError, match=r"digit.*field.*got 'gelsight'.*add_stem"):
        model()(batch("gelsight"))
    with pytest.raises(WiringError, match="Did you mean 'digit'"):
        model().stem("digti")
    with pytest.raises(WiringError, match="none"):
        model()(Batch({}))
    wrong = Batch({"digit": batch("field").stream("field")})
    with pytest.raises(WiringError, match="'rgb'"):
        model()(wrong)


def test_sensors_of_one_kind_share_a_stem() -> None:
    fingers = {"left": PICTURE, "right": PICTURE}
    part = model(sensor_spaces=fingers, history={"left": 1, "right": 1}, stems={"digit": GelStem()},
                 kinds={"left": "digit", "right": "digit"})  # fmt: skip
    assert part.sensor_names == ("left", "right")
    assert part.kinds == ("digit",)
    seen = fake_batch(np.random.default_rng(0), 3, {"left": PICTURE}, {"left": 1}).stream("left")
    assert torch.equal(part(Batch({"left": seen}))["shape"].logits, part(Batch({"right": seen}))["shape"].logits)


@pytest.mark.parametrize(
    "changes",
    [
        {"stems": {}},
        {"heads": {}},
        {"sensor_tokens": -1},
        {"stems": {"digit": GelStem()}},
        {"stems": {**STEMS, "mini": GelStem()}},
        {"kinds": {"left": "digit"}},
        {"kinds": {"digit": "mini", "field": "field"}},
        {"kinds": {"digit": "digit", "field": "digit"}, "stems": {"digit": GelStem()}},
        {"history": {"digit": 1}},
        {"stems": {"digit": GelStem(patch_px=7), "field": STEMS["field"]}},
        {"sensor_spaces": {"a.b": PICTURE}, "history": {"a.b": 1}, "stems": {"a.b": GelStem()}},
    ],
)
def test_parts_that_do_not_fit_are_wiring_errors(changes: dict[str, Any]) -> None:
    with pytest.raises(WiringError):
        model(**changes)


def test_targets_without_a_head_and_heads_that_make_no_sense() -> None:
    with pytest.raises(WiringError, match="Did you mean 'pose'"):
        model().loss(batch("digit"), {"poses": None})
    with pytest.raises(WiringError, match="none"):
        model().loss(batch("digit"), {})
    with pytest.raises(SpecError, match="int64 from -1 to 4"):
        model().loss(batch("digit"), {"shape": torch.tensor([0, 5, 1])})
    for make in (lambda: ClassHead(32, ["ball"]), lambda: ClassHead(32, ["ball", "ball"]),
                 lambda: PressPoseHead(32, period_rad=0.0)):  # fmt: skip
        with pytest.raises(WiringError):
            make()


# --------------------------------------------------------------------------------------------- what does (not) matter


def test_where_the_arm_holds_the_finger_does_not_matter_but_where_on_the_pad_does() -> None:
    part, seen = model(), batch("digit", "field")
    other = fake_batch(np.random.default_rng(7), 3, {"digit": PICTURE}, {"digit": 1}).stream("digit")
    turn = other.data["base_from_pad"]

    def carried(only: tuple[str, ...]) -> Batch:
        streams = {}
        for name, stream in seen.streams.items():
            pose = stream.data["base_from_pad"]
            streams[name] = replace(
                stream, data={**stream.data, "base_from_pad": (turn @ pose) if name in only else pose}
            )
        return Batch(streams)

    ours, theirs = part(seen), part(carried(("digit", "field")))
    torch.testing.assert_close(theirs["pose"].xy_m, ours["pose"].xy_m, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs["shape"].logits, ours["shape"].logits, atol=1e-3, rtol=0)
    one = part(carried(("field",)))  # the second pad elsewhere relative to the first
    assert (one["shape"].logits - ours["shape"].logits).abs().max() > 1e-2


def test_an_absent_sensor_changes_nothing_whatever_it_holds() -> None:
    part, both = model(), batch("digit", "field")
    field = both.stream("field")
    gone = replace(field, valid=torch.zeros_like(field.valid))
    garbage = replace(gone, data={name: torch.full_like(value, torch.nan) for name, value in gone.data.items()})
    answers = [part(Batch({**both.streams, "field": other})) for other in (gone, garbage)]
    alone = part(Batch({"digit": both.stream("digit")}))
    for answer in answers:
        torch.testing.assert_close(answer["shape"].logits, alone["shape"].logits, atol=1e-5, rtol=0)
    assert torch.equal(answers[0]["pose"].xy_m, answers[1]["pose"].xy_m)
    first = Batch({"digit": replace(both.stream("digit"), valid=gone.valid), "field": field})
    alone = part(Batch({"field": field}))
    torch.testing.assert_close(part(first)["shape"].logits, alone["shape"].logits, atol=1e-5, rtol=0)


def test_with_nothing_there_all_stays_finite_and_gradients_too() -> None:
    part, both = model().train(), batch("digit", "field")
    streams = {
        name: replace(s, valid=torch.zeros_like(s.valid), data={f: torch.full_like(v, torch.nan) if
                      v.is_floating_point() else v for f, v in s.data.items()})
        for name, s in both.streams.items()
    }  # fmt: skip
    terms = part.loss(Batch(streams), targets())
    assert all(torch.isfinite(value) for value in terms.values())
    terms["loss"].backward()
    for name, parameter in part.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_every_parameter_learns_and_groups_hold_them_all_once() -> None:
    part = model().train()
    part.loss(batch("digit", "field"), targets())["loss"].backward()
    for name, parameter in part.named_parameters():
        spared = name.endswith("key.bias")  # of a softmax's keys moves all of its scores alike
        assert spared or (parameter.grad is not None and parameter.grad.abs().sum() > 0), name
    groups = part.parameter_groups(0.1)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in part.parameters())
    bare = {id(p) for p in groups[1]["params"]}
    assert all(id(p) in bare for p in (*part.readouts.values(), *part.sensor_tokens.values()))


@pytest.mark.parametrize(
    ("head", "target"),
    [
        (lambda: PressPoseHead(32), targets()["pose"]),
        (lambda: ClassHead(32, SHAPES), torch.tensor([0, -1, 3])),
    ],
)
def test_heads_keep_the_contract(head: Any, target: Any) -> None:
    torch.manual_seed(0)
    check_head(head(), 32, target)


def test_errors_of_a_turn_repeat_with_its_period() -> None:
    pose = PressPose(torch.tensor([[0.003, 0.004]] * 3), torch.tensor([1.5, -1.5, 0.1]), torch.full((3,), 1e-3))
    wanted = PressTarget(torch.zeros(3, 2), torch.tensor([-1.5, 1.5, 0.3]), torch.full((3,), 7e-4), torch.ones(3) > 0)
    errors = pose_errors(pose, wanted)
    torch.testing.assert_close(errors["place_m"], torch.full((3,), 0.005))
    torch.testing.assert_close(errors["yaw_rad"], torch.tensor([math.pi - 3, math.pi - 3, 0.2]))
    torch.testing.assert_close(errors["depth_m"], torch.full((3,), 3e-4))
    whole = pose_errors(pose, wanted, 2 * math.pi)
    torch.testing.assert_close(whole["yaw_rad"], torch.tensor([3.0, 3.0, 0.2]))


def test_a_yaw_that_is_not_known_teaches_nothing() -> None:
    part, seen, wanted = model(), batch("digit"), targets()
    pose = replace(wanted["pose"], yaw_known=torch.tensor([True, False, False]))
    spoilt = replace(pose, yaw_rad=torch.tensor([pose.yaw_rad[0], torch.nan, 99.0]))
    terms, others = (part.loss(seen, {"pose": one}) for one in (pose, spoilt))
    assert torch.equal(terms["loss"], others["loss"])
    assert torch.isfinite(others["pose/_yaw_rad"])
    turned = replace(pose, yaw_rad=pose.yaw_rad + 0.7)
    assert not torch.equal(terms["loss"], part.loss(seen, {"pose": turned})["loss"])


# ------------------------------------------------------------------------------------------------- new kinds, saving


def test_a_new_stem_begins_like_another_or_untrained_and_leaves_the_rest_alone() -> None:
    part, seen = model(), batch("digit")
    before = part(seen)["shape"].logits
    part.add_stem("mini", like="digit")
    part.add_stem("other", plan=GelStem(), space=PICTURE)
    assert part.sensor_names == part.kinds == ("digit", "field", "mini", "other")
    assert torch.equal(part(seen)["shape"].logits, before)
    renamed = {name: Batch({name: seen.stream("digit")}) for name in ("mini", "other")}
    assert torch.equal(part(renamed["mini"])["shape"].logits, before)
    assert not torch.equal(part(renamed["other"])["shape"].logits, before)
    with torch.no_grad():
        next(part.stem("mini").parameters()).add_(1.0)
        part.sensor_tokens["mini"].add_(1.0)
    assert torch.equal(part(seen)["shape"].logits, before), "the new stem shares weights with the old one"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "digit", "like": "field"}, "a name other than"),
        ({"name": "mini"}, "got neither"),
        ({"name": "mini", "like": "digit", "plan": GelStem()}, "got both"),
        ({"name": "mini", "like": "digt"}, "Did you mean 'digit'"),
        ({"name": "mini", "plan": GelStem()}, "space"),
        ({"name": "a.b", "like": "digit"}, "without a dot"),
        ({"name": "mini", "like": "digit", "space": FIELD}, "'rgb'"),
    ],
)
def test_new_stems_that_make_no_sense(arguments: dict[str, Any], says: str) -> None:
    part = model()
    with pytest.raises(WiringError, match=says):
        part.add_stem(**arguments)
    assert part.kinds == ("digit", "field")


def test_a_model_is_saved_with_the_stems_that_were_added(tmp_path: Any) -> None:
    config = load_composed("model", "touch")
    square = gel_space(preset_optics("digit", 16, 16).gel)
    torch.manual_seed(0)
    part = build_model(config, {"digit": square, "gelsight_mini": square}, {"digit": 1, "gelsight_mini": 1})
    assert isinstance(part, TouchModel)
    wide = spaces.Dict({"rgb": box(0, 255, (16, 24, 3), np.uint8), **POSE})
    part.add_stem("stripe", plan=GelStem(cell_px=8), space=wide, history=2)
    part.eval().save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, TouchModel)
    assert again.kinds == ("digit", "gelsight_mini", "stripe")
    seen = fake_batch(np.random.default_rng(0), 2, {"stripe": wide}, {"stripe": 2})
    for name in ("xy_m", "yaw_rad", "depth_m"):
        assert torch.equal(getattr(part(seen)["pose"], name), getattr(again(seen)["pose"], name))
    again.add_stem("later", like="stripe").requires_grad_(False)
    again.save_pretrained(tmp_path / "twice")
    third = load_model(tmp_path / "twice")
    assert third.sensor_names == ("digit", "gelsight_mini", "stripe", "later")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError):
        load_model(tmp_path)
    with pytest.raises(WiringError, match="built by hand"):
        model().save_pretrained(tmp_path / "hand")


def test_the_features_of_a_touch_can_be_asked_for() -> None:
    part = model(heads={"features": ReadoutHead(32, 2)})
    found = part(batch("digit"))["features"].features
    assert found.shape == (3, 64)
    check_shapes("digit", batch("digit").stream("digit"), {"rgb": (1, 16, 16, 3)})


# ----------------------------------------------------------------------------------------------------------- learning


def test_it_learns_where_a_ball_is_pressed_in() -> None:
    """From 512 pictures: the mean distance on new ones falls under a third of that of guessing the middle."""
    optics, rng = preset_optics("digit", 16, 16), np.random.default_rng(0)
    torch.manual_seed(0)
    part = model(
        sensor_spaces={"digit": gel_space(optics.gel)},
        stems={"digit": GelStem(patch_px=4, cell_px=4)},
        heads={"pose": PressPoseHead(32, 32)},
        depth=1,
    ).train()
    optimizer = torch.optim.Adam(part.parameters(), lr=3e-3)
    data = press(optics, rng, 512, ("ball",))
    for _ in range(200):
        some = data[torch.from_numpy(rng.integers(512, size=32))]
        optimizer.zero_grad()
        part.loss(some.batch("digit"), {"pose": some.targets()["pose"]})["loss"].backward()
        optimizer.step()
    new = press(optics, np.random.default_rng(1), 128, ("ball",))
    with torch.no_grad():
        found = pose_errors(part.eval()(new.batch("digit"))["pose"], new.targets()["pose"])["place_m"].mean()
    assert found < new.contacts.xy_m.norm(dim=-1).mean() / 3
