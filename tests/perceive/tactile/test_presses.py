"""Presses: what is drawn, and that pictures show what the targets say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.tactile.presses import (
    SHAPES,
    TURNED,
    Bodies,
    Contacts,
    gel_space,
    overlap,
    press,
    random_bodies,
    random_contacts,
)
from sensors.errors import SpecError
from sensors.tactile.presets import preset_gel, preset_optics
from sensors.tactile.vary import Ranges

GEL = preset_gel("gelsight_mini", 48, 64)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SHAPES))
def test_bodies_stand_where_and_as_deep_as_the_targets_say(seed: int, shape: str) -> None:
    rng = np.random.default_rng(seed)
    bodies, contacts = random_bodies(rng, 4, (shape,)), random_contacts(rng, 4, GEL, reach=0.1)
    maps = overlap(GEL, bodies, contacts)
    pitch = max(GEL.pitch_m)
    y, x = GEL.centres()
    touched = maps > 0
    for index in range(4):
        weight = touched[index].float()
        middle = torch.stack([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        assert (middle - contacts.xy_m[index]).norm() < pitch
        assert maps[index].max() <= contacts.depth_m[index] + 1e-7
        if shape in ("box", "punch"):
            assert maps[index].max() == pytest.approx(contacts.depth_m[index].item(), abs=1e-7)
        elif shape == "cone":
            assert maps[index].max() > contacts.depth_m[index] - bodies.slope[index] * pitch
        else:
            assert maps[index].max() > contacts.depth_m[index] - pitch**2 / bodies.size_m[index, 0]


@pytest.mark.parametrize("shape", TURNED)
def test_the_yaw_is_the_direction_of_the_long_side(shape: str) -> None:
    rng = np.random.default_rng(0)
    bodies, contacts = random_bodies(rng, 16, (shape,)), random_contacts(rng, 16, GEL, reach=0.05)
    maps = (overlap(GEL, bodies, contacts) > 0).float()
    y, x = GEL.centres()
    off_x, off_y = x - contacts.xy_m[:, :1, None], y - contacts.xy_m[:, 1:, None]
    xx, yy, xy = ((maps * part).sum((1, 2)) for part in (off_x**2, off_y**2, off_x * off_y))
    found = 0.5 * torch.atan2(2 * xy, xx - yy)
    turn = (found - contacts.yaw_rad + math.pi / 2).remainder(math.pi) - math.pi / 2
    assert turn.abs().max() < math.radians(6)


def test_targets_know_which_yaw_can_be_felt() -> None:
    some = press(preset_optics("digit", 16, 16), np.random.default_rng(0), 40)
    pose = some.targets()["pose"]
    wanted = torch.tensor([SHAPES[int(index)] in TURNED for index in some.bodies.shape])
    assert torch.equal(pose.yaw_known, wanted)
    assert wanted.any()
    assert not wanted.all()


def test_seeds_repeat_and_differ_and_fingertips_vary() -> None:
    optics = preset_optics("digit", 16, 16)
    one, same, other = (press(optics, np.random.default_rng(seed), 6) for seed in (0, 0, 1))
    assert torch.equal(one.rgb, same.rgb)
    assert not torch.equal(one.rgb, other.rgb)
    varied = press(optics, np.random.default_rng(2), 6, ranges=Ranges(), bodies=one.bodies, contacts=one.contacts)
    plain = press(optics, np.random.default_rng(2), 6, bodies=one.bodies, contacts=one.contacts)
    assert torch.equal(plain.rgb, one.rgb)
    assert not torch.equal(varied.rgb, one.rgb)


def test_they_are_frames_of_a_gel_camera() -> None:
    optics = preset_optics("gelsight_mini", 16, 24)
    some = press(optics, np.random.default_rng(0), 3)
    pose = torch.eye(4).repeat(3, 1, 1)
    pose[:, 0, 3] = 0.3
    seen = some[torch.tensor([2, 0])].batch("mini", pose[:2]).stream("mini")
    space = gel_space(optics.gel)
    assert seen.data.keys() == space.spaces.keys()
    for name, part in space.spaces.items():
        assert seen.data[name].shape == (2, 1, *(part.shape or ()))
        assert part.contains(seen.data[name][0, 0].numpy())
    assert torch.equal(seen.data["rgb"][:, 0], some.rgb[[2, 0]])
    assert torch.equal(seen.data["base_from_pad"][:, 0], pose[:2])
    torch.testing.assert_close(seen.data["size_m"][0, 0], torch.tensor([0.0143, 0.0186]))


def test_nothing_is_deeper_than_the_gel() -> None:
    bodies = Bodies(torch.tensor([2]), torch.tensor([[0.003, 0.006]]), torch.zeros(1))
    contacts = Contacts(torch.zeros(1, 2), torch.zeros(1), torch.tensor([0.1]))
    assert overlap(GEL, bodies, contacts).max() == pytest.approx(GEL.thickness_m)


def test_unknown_shapes_are_refused() -> None:
    with pytest.raises(SpecError, match="Did you mean 'ball'"):
        random_bodies(np.random.default_rng(0), 3, ("bal",))
    with pytest.raises(SpecError, match="none"):
        random_bodies(np.random.default_rng(0), 3, ())
