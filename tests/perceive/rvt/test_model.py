from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.loading import build_model, load_model
from perceive.rvt.cube import Cube
from perceive.rvt.model import KeyPoseModel
from perceive.rvt.views import pixel_of
from sensors.action import ActionMode, end_effector_spec
from sensors.errors import SpecError, WiringError
from tests.perceive.rvt.scene import SPACES, make_batch, make_model, make_spec

KINDS = ["trunk", "rvt2"]


def changed(batch: Batch, name: str, change: Callable[[BatchStream], BatchStream]) -> Batch:
    return Batch({**batch.streams, name: change(batch.streams[name])})


def absent(stream: BatchStream) -> BatchStream:
    return replace(stream, valid=torch.zeros_like(stream.valid))


def with_field(field: str, change: Callable[[Tensor], Tensor]) -> Callable[[BatchStream], BatchStream]:
    return lambda stream: replace(stream, data={**stream.data, field: change(stream.data[field])})


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_model_knows_nothing(kind: str) -> None:
    batch, target = make_batch(4)
    terms = make_model(kind).eval().loss(batch, {"action": target})
    uniform = {"heat1": math.log(56**2), "heat2": math.log(56**2), "rotation": 3 * math.log(72),
               "gripper": math.log(2), "collision": math.log(2)}  # fmt: skip
    for name, expected in uniform.items():
        assert float(terms[f"action/{name}"].detach()) == pytest.approx(expected, rel=0.12, abs=0.2), name
    total = sum(float(value.detach()) for name, value in terms.items() if "/_" not in name and name != "loss")
    assert float(terms["loss"].detach()) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_key_poses_are_learned_by_heart(kind: str) -> None:
    batch, target = make_batch(8)
    model = make_model(kind)
    before = model.eval()(batch)["action"].values[:, 0, :3]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(90):
        optimizer.zero_grad()
        model.loss(batch, {"action": target})["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        said, right = model.eval()(batch)["action"].values[:, 0], target.values[:, 0]
    away = (said[:, :3] - right[:, :3]).norm(dim=-1)
    assert float((before - right[:, :3]).norm(dim=-1).mean()) > 0.08  # it could not do it before
    assert float(away.mean()) < 2 * 0.4 / 56  # one voxel of the first stage, four of the second
    assert float(away.max()) < 0.03
    assert bool(((said[:, 9:] > 0) == (right[:, 9:] > 0)).all())
    assert float((said[:, 3:9] - right[:, 3:9]).abs().max()) < math.radians(5.0)  # all bins right


def test_every_parameter_learns() -> None:
    batch, target = make_batch(3)
    model = make_model("trunk")
    model.loss(batch, {"action": target})["loss"].backward()  # type: ignore[no-untyped-call]
    idle = [n for n, p in model.named_parameters() if p.grad is None and "heads" not in n]
    assert idle == []


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_says_the_same(kind: str, tmp_path: Path) -> None:
    batch, _ = make_batch(2)
    model = make_model(kind).eval()
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, KeyPoseModel)
    with torch.inference_mode():
        assert torch.equal(model(batch)["action"].values, again(batch)["action"].values)


def test_a_cube_that_is_seen_is_said_in_the_base_frame() -> None:
    batch, _ = make_batch(2)
    with torch.inference_mode():
        pose = make_model("trunk").eval()(batch)["action"]
    first, second = pose.looks
    torch.testing.assert_close(second.cube.half_m, first.cube.half_m / 4)
    torch.testing.assert_close(second.cube.centre_m, first.cube.restore(first.point[:, None])[:, 0])
    torch.testing.assert_close(pose.values[:, 0, :3], second.cube.restore(second.point[:, None])[:, 0])


def test_nothing_seen_is_not_usable() -> None:
    batch, _ = make_batch(2)
    model = make_model("trunk").eval()
    assert bool(model(batch)["action"].usable.all())
    for name in ("front", "left", "right"):
        batch = changed(batch, name, absent)
    pose = model(batch)["action"]
    assert not bool(pose.usable.any())
    assert float(pose.seen.max()) == 0.0
    assert bool(torch.isfinite(pose.values).all())


def test_a_wrong_calibration_is_not_usable() -> None:
    batch, _ = make_batch(2)
    model = make_model("trunk").eval()
    far = with_field("base_from_camera", lambda pose: pose + torch.eye(4)[:, 3:] * 0 + _up(5.0))
    for name in ("front", "left", "right"):
        batch = changed(batch, name, far)
    assert not bool(model(batch)["action"].usable.any())


def _up(metres: float) -> Tensor:
    out = torch.zeros(4, 4)
    out[2, 3] = metres
    return out


def test_what_is_in_an_absent_frame_does_not_matter() -> None:
    batch, target = make_batch(2)
    model = make_model("trunk").eval()
    lost = changed(batch, "left", absent)
    broken = changed(lost, "left", with_field("depth_m", lambda depth: depth * float("nan")))
    assert torch.equal(model(lost)["action"].values, model(broken)["action"].values)
    # The control: it mattered while it was there.
    assert not torch.equal(model(lost)["action"].looks[0].logits, model(batch)["action"].looks[0].logits)
    assert math.isfinite(float(model.loss(broken, {"action": target})["loss"].detach()))


def test_depth_that_is_nan_is_not_measured() -> None:
    batch, _ = make_batch(2)
    hole = torch.zeros(48, 48, dtype=torch.bool)
    hole[10:20] = True
    nan = changed(batch, "front", with_field("depth_m", lambda d: torch.where(hole, float("nan"), d)))
    zero = changed(batch, "front", with_field("depth_m", lambda d: torch.where(hole, 0.0, d)))
    model = make_model("trunk").eval()
    assert torch.equal(model(nan)["action"].values, model(zero)["action"].values)


def test_the_instruction_matters_and_its_absence_is_survived() -> None:
    batch, _ = make_batch(2)
    model = make_model("trunk").eval()
    other = changed(batch, "task", with_field("text", lambda text: text.flip(0)))
    silent = changed(batch, "task", absent)
    logits = [model(b)["action"].looks[0].logits for b in (batch, other, silent)]
    assert not torch.equal(logits[0], logits[1])
    assert bool(torch.isfinite(logits[2]).all())


def test_stages_see_where_the_named_colours_are(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"_target_": "perceive.language.colours.ColourNames", "hues": {"red": 0.0, "green": 0.36, "blue": 0.63}}
    model = make_model("trunk", stages=1, language=None, colours=names, **{"stages.channels": 13}).eval()
    batch, target = make_batch(4)
    told: list[Tensor] = []
    stage = model.stages[0]
    monkeypatch.setattr(stage, "forward", lambda seen, go=stage.forward: (told.append(seen.images), go(seen))[1])
    model(batch)
    score = told[0][:, 0, 10]  # from above: the first colour that is named
    assert float(score.amax((1, 2)).min()) > 0.8
    assert float(told[0][:, :, 11:].max()) == 0.0  # one colour is named
    cube = Cube.around(model.low_m, model.high_m, 4, model.low_m.device)
    pixel = pixel_of(cube.normalise(target.values[:, :, :3]), model._views, 56)[:, 0, 0]
    rows, columns = torch.meshgrid(torch.arange(56) + 0.5, torch.arange(56) + 0.5, indexing="ij")
    weight = torch.where(score > 0.5, score, 0.0)
    middle = torch.stack([(weight * grid).sum((1, 2)) / weight.sum((1, 2)) for grid in (columns, rows)], -1)
    assert float((middle - pixel).norm(dim=-1).max()) < 2.0
    model(changed(batch, "task", absent))
    assert float(told[1][:, :, 10:].abs().max()) == 0.0


def test_one_stage_and_no_language() -> None:
    model = make_model("trunk", stages=1, language=None, ignored_sensors=["task"]).eval()
    batch, target = make_batch(2)
    assert len(model(batch)["action"].looks) == 1
    assert "action/heat2" not in model.loss(batch, {"action": target})


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"cameras": ["front", "left", "rigth"]}, "right"),
        ({"cameras": ["front", "left"]}, "ignored_sensors"),
        ({"views": ["top", "front"]}, "views"),
        ({"zoom": 12.0}, "zoom_jitter"),
        ({"views": ["top", "front", "bakc"]}, "back"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], hint: str) -> None:
    with pytest.raises((WiringError, SpecError), match=hint):
        make_model("trunk", **changes)


def test_dense_actions_are_refused() -> None:
    dense = end_effector_spec(make_spec())
    assert dense.mode is ActionMode.EE_POSE
    with pytest.raises(WiringError, match="key_pose"):
        build_model(make_model("trunk").config["model"], SPACES, dict.fromkeys(SPACES, 1), dense)
