"""Vectors and touch: what enters, and where their tokens sit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from perceive.batch import BatchStream
from perceive.encoders.touch import TouchPatchEncoder
from perceive.encoders.vector import VectorEncoder
from perceive.normalize import Affine, FieldStats
from sensors.errors import SpecError, WiringError
from sensors.geometry import transform_points
from sensors.spec import box
from tests.perceive.scene import JOINTS, SPACES, TOUCH, fake_batch, fake_stats

POINT = spaces.Dict({"goal_m": box(-1, 1, (3,))})


def joints(**changes: Any) -> VectorEncoder:
    torch.manual_seed(0)
    return VectorEncoder(JOINTS, 1, 32, **({"fields": ["gripper_m"], "pose": "base_from_tool"} | changes))


def stream(name: str = "joints", steps: int = 1) -> BatchStream:
    return fake_batch(np.random.default_rng(0), 3, {name: SPACES[name]}, {name: steps}).stream(name)


def test_a_vector_sits_at_its_pose() -> None:
    data = stream()
    tokens = joints()(data)
    assert torch.equal(tokens.position_m, data.data["base_from_tool"][..., :3, 3])
    assert tokens.placed.all()
    free = joints(pose=None)(data)
    assert not free.placed.any()


def test_a_vector_sits_at_its_place_field() -> None:
    part = VectorEncoder(POINT, 1, 32, fields=["goal_m"], place="goal_m")
    goal = torch.rand(2, 1, 3)
    tokens = part(BatchStream({"goal_m": goal}, torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool)))
    assert torch.equal(tokens.position_m, goal)
    assert tokens.placed.all()


def test_position_enters_as_a_feature_only_when_asked() -> None:
    data = stream()
    moved = data.data["base_from_tool"].clone()
    moved[..., :3, 3] += torch.tensor([0.1, -0.3, 0.2])
    elsewhere = replace(data, data={**data.data, "base_from_tool": moved})
    plain, told = joints(), joints(position_feature=True)
    assert torch.equal(plain(data).features, plain(elsewhere).features)
    assert (told(data).features - told(elsewhere).features).abs().max() > 1e-3


def test_a_vector_reads_its_fields_and_no_others() -> None:
    data, part = stream(), joints()
    other = replace(data, data={**data.data, "position_rad": torch.randn_like(data.data["position_rad"])})
    assert torch.equal(part(data).features, part(other).features)
    wider = replace(data, data={**data.data, "gripper_m": data.data["gripper_m"] + 0.3})
    assert (part(data).features - part(wider).features).abs().max() > 1e-3


def test_fitting_normalises_by_the_dataset() -> None:
    part = joints()
    part.fit({key.split("/")[1]: value for key, value in fake_stats().items() if key.startswith("joints")})
    normalizer = part.normalizers["gripper_m"]
    assert isinstance(normalizer, Affine)
    torch.testing.assert_close(normalizer(torch.tensor([0.6])), torch.tensor([1.0]))  # (0.6 - 0.1) / 0.5
    torch.testing.assert_close(normalizer.inverse(torch.tensor([1.0])), torch.tensor([0.6]))


def test_statistics_of_another_size_or_not_finite_are_refused() -> None:
    good = np.zeros(2)
    with pytest.raises(SpecError, match="3 entries"):
        Affine(3).fit(FieldStats(good, good, good, good))
    with pytest.raises(SpecError, match="finite"):
        Affine(2).fit(FieldStats(good * np.nan, good, good, good))


def test_a_constant_entry_is_not_blown_up() -> None:
    part = Affine(1)
    part.fit(FieldStats(np.array([2.0]), np.array([0.0]), np.array([2.0]), np.array([2.0])))
    assert part(torch.tensor([2.001])).item() == pytest.approx(1.0, rel=1e-2)


def test_touch_patches_sit_on_the_pad() -> None:
    part = TouchPatchEncoder(TOUCH, 1, 32, patch_rows=4, patch_columns=3)
    data = stream("touch")
    size = torch.tensor([0.02, 0.012]).expand(3, 1, 2)  # height, width
    data = replace(data, data={**data.data, "size_m": size})
    tokens = part(data)
    assert part.num_tokens == 4
    # Two rows and two columns of patches: a quarter of the pad from its middle, +x right and +y down in the picture.
    local = np.array([[-0.003, -0.005, 0], [0.003, -0.005, 0], [-0.003, 0.005, 0], [0.003, 0.005, 0]])
    for sample in range(3):
        pad = data.data["base_from_pad"][sample, 0].numpy()
        np.testing.assert_allclose(tokens.position_m[sample].numpy(), transform_points(pad, local), atol=1e-6)


def test_touch_patches_hold_their_own_taxels() -> None:
    part = TouchPatchEncoder(TOUCH, 1, 32, patch_rows=4, patch_columns=3)
    data = stream("touch")
    image = torch.zeros(3, 1, 8, 6)
    image[..., 5, 1] = 0.001  # lower left
    image[..., 2, 4] = 0.002  # upper right
    tokens = part(replace(data, data={**data.data, "indentation_m": image}))
    wanted = torch.zeros(4, 12)
    wanted[1, 2 * 3 + 1] = 2.0  # row 2, column 1 of its patch, in units of scale_m = 1 mm
    wanted[2, 1 * 3 + 1] = 1.0
    torch.testing.assert_close(tokens.features[0], part.norm(part.embed(wanted)))


def test_instants_come_oldest_first() -> None:
    part = TouchPatchEncoder(TOUCH, 2, 32, patch_rows=4, patch_columns=3)
    data = stream("touch", steps=2)
    tokens = part(data)
    assert tokens.features.shape[1] == part.num_tokens == 8
    torch.testing.assert_close(tokens.age_s[0], data.age_s[0].repeat_interleave(4))


@pytest.mark.parametrize(
    "build",
    [
        lambda: joints(fields=["gripper"]),
        lambda: joints(fields=["base_from_tool"]),
        lambda: joints(pose="gripper_m"),
        lambda: VectorEncoder(POINT, 1, 32, fields=[], place="aim_m"),
        lambda: TouchPatchEncoder(TOUCH, 1, 32, patch_rows=5),
        lambda: TouchPatchEncoder(JOINTS, 1, 32),
    ],
)
def test_spaces_that_do_not_fit_are_wiring_errors(build: Any) -> None:
    with pytest.raises(WiringError):
        build()
