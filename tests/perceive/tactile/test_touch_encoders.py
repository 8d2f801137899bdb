"""Gel pictures, force fields, taxels and the wrench's history: what enters, where tokens sit, what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.encoders.force_field import ForceFieldEncoder
from perceive.encoders.gel_image import GelImageEncoder
from perceive.encoders.touch_codes import TouchCodeEncoder
from perceive.encoders.wrench_history import WrenchHistoryEncoder
from perceive.model import PerceptionModel
from perceive.tactile.code_book import CodeBookSettings, TouchCodeBook
from sensors.errors import DataError, WiringError
from sensors.geometry import transform_points
from sensors.spec import box
from tests.contracts import CONF, build_sensor, load_composed
from tests.perceive.scene import JOINTS, SPEC, WRENCH, fake_batch

POSE = {"base_from_pad": box(-1e3, 1e3, (4, 4)), "size_m": box(0, 1, (2,))}
GEL = spaces.Dict({"rgb": box(0, 255, (16, 24, 3), np.uint8), **POSE})
WITH_REFERENCE = spaces.Dict({"rgb": box(0, 255, (16, 24, 3), np.uint8), "untouched": box(0, 255, (16, 24, 3)), **POSE})
FIELD = spaces.Dict({"force_N": box(-5, 5, (4, 6, 3)), **POSE})
CELLS = spaces.Dict({"normal_N": box(0, 5, (4, 6)), **POSE})


def stream(space: spaces.Dict, size: int = 3, steps: int = 1, seed: int = 0) -> BatchStream:
    return fake_batch(np.random.default_rng(seed), size, {"it": space}, {"it": steps}).stream("it")


def put(data: BatchStream, **fields: Tensor) -> BatchStream:
    return replace(data, data={**data.data, **fields})


def gel(space: spaces.Dict = GEL, steps: int = 1, **changes: Any) -> GelImageEncoder:
    torch.manual_seed(0)
    return GelImageEncoder(space, steps, 32, **({"patch_px": 8, "cell_px": 4} | changes))


def field(space: spaces.Dict = FIELD, **changes: Any) -> ForceFieldEncoder:
    torch.manual_seed(0)
    return ForceFieldEncoder(space, 1, 32, **({"patch_rows": 2, "patch_columns": 3} | changes))


def history(steps: int, tokens: int | None = None, layers: int = 2) -> WrenchHistoryEncoder:
    torch.manual_seed(0)
    return WrenchHistoryEncoder(WRENCH, steps, 32, tokens, layers)


# ---------------------------------------------------------------------------------------------------------- the places


@pytest.mark.parametrize(
    ("part", "space", "down", "right"),
    [
        (gel(), GEL, [-0.25, 0.25], [-1 / 3, 0.0, 1 / 3]),
        (field(), FIELD, [-0.25, 0.25], [-0.25, 0.25]),
        (field(CELLS, field="normal_N"), CELLS, [-0.25, 0.25], [-0.25, 0.25]),
    ],
)
def test_patches_sit_where_they_are_on_the_finger(
    part: Any, space: spaces.Dict, down: list[float], right: list[float]
) -> None:
    data = put(stream(space), size_m=torch.tensor([0.02, 0.012]).expand(3, 1, 2))  # height, width
    tokens = part(data)
    local = np.array([[x * 0.012, y * 0.02, 0] for y in down for x in right])
    for sample in range(3):
        pad = data.data["base_from_pad"][sample, 0].numpy()
        np.testing.assert_allclose(tokens.position_m[sample].numpy(), transform_points(pad, local), atol=1e-6)
    assert tokens.placed.all()
    assert tokens.valid.all()


def test_a_patch_holds_its_own_pixels_and_forces() -> None:
    part, data = gel(), stream(GEL)
    picture = torch.full((3, 1, 16, 24, 3), 100, dtype=torch.uint8)
    picture[:, :, 9, 20, 2] = 160  # lower right patch: row 1, column 4 of it, blue
    values, measured = part.patches(put(data, rgb=picture))
    assert measured.all()
    flat = (100 - 127.5) / 64
    wanted = torch.full((6, 64, 3), flat)
    wanted[5, 16 + 4, 2] = (160 - 127.5) / 64  # cells of 4 x 4: second cell, its row 1 and column 0
    torch.testing.assert_close(values[0].reshape(6, 64, 3), wanted)

    force = torch.zeros(3, 1, 4, 6, 3)
    force[..., 3, 1, 0] = -0.1  # lower left patch: row 1, column 1
    values, _ = field().patches(put(stream(FIELD), force_N=force))
    wanted = torch.zeros(4, 6, 3)
    wanted[2, 4, 0] = -2.0
    torch.testing.assert_close(values[0].reshape(4, 6, 3), wanted)


def test_the_same_touch_on_another_finger_has_the_same_features() -> None:
    data = stream(GEL)
    moved = data.data["base_from_pad"].clone()
    moved[..., :3, 3] += 0.2
    ours, theirs = gel()(data), gel()(put(data, base_from_pad=moved))
    assert torch.equal(ours.features, theirs.features)
    assert (theirs.position_m - ours.position_m - 0.2).abs().max() < 1e-6
    larger = gel()(put(data, size_m=data.data["size_m"] * 1.5))
    assert (larger.features - ours.features).abs().max() > 1e-3, "how large the pad is does not matter"


# ---------------------------------------------------------------------------------------------- what is wrong with it


@pytest.mark.parametrize("grey", [0, 255])
def test_a_black_or_white_picture_is_left_out_and_counted(grey: int) -> None:
    part, data = gel(steps=2), stream(GEL, steps=2)
    rgb = data.data["rgb"].clone()
    rgb[1, 0] = grey
    tokens = part(put(data, rgb=rgb))
    assert part.rejected == 1
    wanted = torch.ones(3, 12, dtype=torch.bool)
    wanted[1, :6] = False
    assert torch.equal(tokens.valid, wanted)
    absent = replace(put(data, rgb=rgb), valid=torch.zeros(3, 2, dtype=torch.bool))
    part(absent)
    assert part.rejected == 1, "an absent picture is not a rejected one"


def test_one_saturated_colour_is_no_reason_to_leave_a_picture_out() -> None:
    rgb = torch.full((3, 1, 16, 24, 3), 90, dtype=torch.uint8)
    rgb[..., 0] = 255
    part = gel()
    assert part(put(stream(GEL), rgb=rgb)).valid.all()
    assert part.rejected == 0


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 255]))
@example(16886, 0)  # whose pixels, though alive, change hardly a hundredth
@example(535, 0)  # whose picture is nearly of the colour that pixels once were marked with
def test_dead_pixels_do_little_and_live_ones_do_much(seed: int, stuck: int) -> None:
    rng, part = np.random.default_rng(seed), gel()
    smooth = torch.from_numpy(rng.integers(60, 200, 3)).to(torch.uint8).expand(3, 1, 16, 24, 3).clone()
    where = torch.from_numpy(rng.permutation(16 * 24)[:12])
    dead, marked = smooth.clone(), smooth.clone()
    dead.flatten(2, 3)[:, :, where] = stuck
    far = torch.where(smooth[0, 0, 0, 0] < 130, 230, 20).to(torch.uint8)  # from the picture's colour, and not dead
    marked.flatten(2, 3)[:, :, where] = far
    ours, spoilt, other = (part(put(stream(GEL), rgb=rgb)) for rgb in (smooth, dead, marked))
    assert spoilt.valid.all()
    torch.testing.assert_close(spoilt.features, ours.features, atol=1e-6, rtol=0)  # an even picture is filled exactly
    assert (other.features - ours.features).abs().max() > 3e-3
    _, measured = part.patches(put(stream(GEL), rgb=dead))
    assert int((~measured).sum()) == 3 * 12 * 3


def test_a_patch_without_a_live_pixel_is_not_there() -> None:
    rgb = torch.full((3, 1, 16, 24, 3), 120, dtype=torch.uint8)
    rgb[:, :, :8, :8] = 0
    tokens = gel()(put(stream(GEL), rgb=rgb))
    assert torch.equal(tokens.valid, torch.tensor([False, True, True, True, True, True]).expand(3, 6))


def test_the_difference_to_the_untouched_gel() -> None:
    part = gel(WITH_REFERENCE, reference="untouched", contrast=32.0)
    rgb = torch.full((3, 1, 16, 24, 3), 110, dtype=torch.uint8)
    rgb[:, :, 2, 3] = torch.tensor([126, 110, 110], dtype=torch.uint8)
    data = put(stream(WITH_REFERENCE), rgb=rgb, untouched=torch.full((3, 1, 16, 24, 3), 110.0))
    values, _ = part.patches(data)
    assert values[0].count_nonzero() == 1
    assert values[0].sum() == pytest.approx(16 / 32)
    broken = put(data, untouched=torch.full((3, 1, 16, 24, 3), torch.nan))
    tokens = part(broken)
    assert not tokens.valid.any()
    assert torch.isfinite(tokens.cleaned().features).all()
    with pytest.raises(WiringError, match="untouched"):
        gel(GEL, reference="untouched")


@pytest.mark.parametrize("name", ["base_from_pad", "size_m"])
def test_a_place_that_is_not_a_number_makes_a_token_invalid(name: str) -> None:
    for part, space in ((gel(), GEL), (field(), FIELD)):
        data = stream(space)
        broken = data.data[name].clone()
        broken[1] = torch.nan
        tokens = part(put(data, **{name: broken}))
        assert torch.equal(tokens.valid.any(1), torch.tensor([True, False, True]))
        assert torch.isfinite(tokens.position_m).all()
        assert torch.isfinite(tokens.features).all()


def test_cells_that_are_not_numbers_count_as_no_force() -> None:
    part, data = field(CELLS, field="normal_N"), stream(CELLS)
    normal = torch.zeros(3, 1, 4, 6)
    normal[..., 0, 0] = 0.05
    dead = normal.clone()
    dead[..., 1, 1] = torch.nan
    ours, theirs = part(put(data, normal_N=normal)), part(put(data, normal_N=dead))
    assert torch.equal(ours.features, theirs.features)
    assert theirs.valid.all()
    dead[..., :2, :3] = torch.nan
    assert torch.equal(part(put(data, normal_N=dead)).valid[0], torch.tensor([False, True, True, True]))
    huge = normal.clone()
    huge[..., 0, 0] = torch.inf
    assert torch.isfinite(part(put(data, normal_N=huge)).features).all()


# ------------------------------------------------------------------------------------------------------------- wrench


def test_a_run_of_samples_is_one_token_where_its_newest_was_measured() -> None:
    data = stream(WRENCH, steps=8)
    tokens = history(8, tokens=2)(data)
    assert tokens.features.shape[1] == 2
    assert torch.equal(tokens.age_s, data.age_s[:, [3, 7]])
    assert torch.equal(tokens.position_m, data.data["base_from_sensor"][:, [3, 7], :3, 3])
    valid = torch.ones(3, 8, dtype=torch.bool)
    valid[0, 6:] = False
    valid[1, :4] = False
    dropped = history(8, tokens=2)(replace(data, valid=valid))
    assert torch.equal(dropped.valid, torch.tensor([[True, True], [False, True], [True, True]]))
    assert torch.equal(dropped.age_s[0], data.age_s[0, [3, 5]]), "the token is not as old as its newest sample"


def test_samples_see_those_before_and_none_after() -> None:
    data, part = stream(WRENCH, steps=8), history(8)
    loud = data.data["force_N"].clone()
    loud[:, 4] += 1.0
    change = (part(put(data, force_N=loud)).features - part(data).features).abs().amax((0, 2))
    assert torch.equal(change > 1e-4, torch.tensor([False] * 4 + [True] * 4))


def test_a_knock_that_is_over_still_shows_in_the_one_token() -> None:
    data, part = stream(WRENCH, steps=8), history(8, tokens=1, layers=3)
    knock = data.data["force_N"].clone()
    knock[:, 2] += 1.5
    assert (part(put(data, force_N=knock)).features - part(data).features).abs().max() > 1e-3


def test_a_wrench_that_is_not_a_number_is_a_sample_that_was_dropped() -> None:
    data, part = stream(WRENCH, steps=4), history(4)
    force = data.data["force_N"].clone()
    force[:, 1] = torch.nan
    tokens = part(put(data, force_N=force))
    assert torch.equal(tokens.valid[0], torch.tensor([True, False, True, True]))
    gone = data.valid.clone()
    gone[:, 1] = False
    assert torch.equal(tokens.cleaned().features, part(replace(data, valid=gone)).cleaned().features)
    assert not torch.equal(tokens.features[:, 2], part(data).features[:, 2])


# --------------------------------------------------------------------------------------------------------- code book


def test_a_trained_code_book_is_read_and_stays_as_it_is(tmp_path: Any) -> None:
    torch.manual_seed(0)
    book = TouchCodeBook(CodeBookSettings(codes=32, width=8, channels=4, halvings=2, blocks=1))
    picture = stream(GEL, size=8).data["rgb"][:, 0, :, :16]
    book.train().loss(picture)
    book.save_pretrained(tmp_path)
    part = TouchCodeEncoder(GEL, 1, 32, folder=str(tmp_path), image_px=16)
    before = {name: value.clone() for name, value in part.codes.state_dict().items()}
    assert not any(p.requires_grad for p in part.codes.parameters())
    part.train()
    data = stream(GEL)
    part(data).features.square().sum().backward()
    for name, value in part.codes.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert torch.equal(value, book.codes.state_dict()[name]), name
    assert not part(put(data, rgb=torch.zeros_like(data.data["rgb"]))).valid.any()
    again = TouchCodeEncoder(GEL, 1, 32, image_px=16, settings=part.codes.settings, folder=None)
    again.load_state_dict(part.state_dict())
    assert torch.equal(again.eval()(data).features, part.eval()(data).features)
    with pytest.raises(DataError):
        TouchCodeEncoder(GEL, 1, 32, folder=str(tmp_path / "none"), image_px=16)


def test_a_policy_reads_gel_pictures_of_either_kind() -> None:
    config = load_composed("model", "situated_gel")
    touch = {name: config["encoders"][name] for name in ("touch_left", "touch_right")}
    config |= {"encoders": {**touch, "joints": config["encoders"]["joints"]}, "width": 32}
    config["trunk"] |= {"depth": 1, "heads": 2}
    sensors = {
        "touch_left": build_sensor(CONF / "sensor" / "digit_left_sim.yaml").space,
        "touch_right": build_sensor(CONF / "sensor" / "gelsight_mini_right_sim.yaml").space,
        "joints": JOINTS,
    }
    torch.manual_seed(0)
    policy = PerceptionModel.from_config(config, sensors, dict.fromkeys(sensors, 1), SPEC).eval()
    seen = fake_batch(np.random.default_rng(0), 2, sensors, dict.fromkeys(sensors, 1))
    answer = policy(seen)["action"].values
    assert torch.isfinite(answer).all()
    left = seen.stream("touch_left")
    other = put(left, rgb=255 - left.data["rgb"])
    assert (policy(Batch({**seen.streams, "touch_left": other}))["action"].values - answer).abs().max() > 1e-5


@pytest.mark.parametrize(
    "make",
    [
        lambda: gel(JOINTS),
        lambda: gel(patch_px=5),
        lambda: gel(cell_px=3),
        lambda: gel(patch_px=0),
        lambda: gel(contrast=0.0),
        lambda: gel(dark=300),
        lambda: gel(most_dead=1.0),
        lambda: field(GEL),
        lambda: field(CELLS),
        lambda: field(field="torque"),
        lambda: field(patch_rows=3),
        lambda: field(scale_N=0.0),
        lambda: history(8, tokens=3),
        lambda: history(8, layers=0),
        lambda: WrenchHistoryEncoder(JOINTS, 1, 32),
        lambda: TouchCodeEncoder(GEL, 1, 32, image_px=16),
    ],
)
def test_what_does_not_fit_is_a_wiring_error(make: Any) -> None:
    with pytest.raises(WiringError):
        make()
