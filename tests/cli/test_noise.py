"""BurstNoise: its statistics in closed form, its bounds, and that it repeats."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from perceive.cli.noise import BurstNoise
from sensors.action import Action, ActionMode, ActionSpec
from sensors.errors import SpecError
from sensors.geometry import rotation_6d_to_matrix

LOW, HIGH = np.array([-9.0] * 3 + [-1.0] * 7, np.float32), np.array([9.0] * 3 + [1.0] * 7, np.float32)
PARTS = {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)}
SPEC = ActionSpec(ActionMode.EE_POSE, spaces.Box(LOW, HIGH), PARTS, 1 / 12)
CLEAN = Action(np.array([0.5, 0.1, 0.2, 1, 0, 0, 0, 1, 0, -1], np.float32), SPEC)


def sent(noise: BurstNoise, steps: int) -> np.ndarray:
    return np.stack([noise(CLEAN).values for _ in range(steps)])


def test_bursts_are_as_frequent_as_the_two_state_chain_says() -> None:
    # Outside -> inside with p, inside -> outside with q = 1 / mean length: a share of p / (p + q) is inside.
    values = sent(BurstNoise(0.01, 0.1, burst_probability=0.2, burst_steps=5.0, seed=0), 6_000)
    share = float(np.mean(np.any(values != CLEAN.values, axis=1)))
    assert share == pytest.approx(0.2 / (0.2 + 1 / 5.0), abs=0.03)


def test_offsets_stay_within_a_burst_and_have_the_size_asked_for() -> None:
    values = sent(BurstNoise(0.02, 0.3, burst_probability=0.2, burst_steps=6.0, seed=1), 6_000)
    shift = values[:, :3] - CLEAN.values[:3]
    started = np.flatnonzero(np.any(shift[1:] != shift[:-1], axis=1) & np.any(shift[1:] != 0, axis=1)) + 1
    assert shift[started].std() == pytest.approx(0.02, rel=0.08)
    angles = [np.arccos((np.trace(rotation_6d_to_matrix(values[i, 3:9].astype(float))) - 1) / 2) for i in started]
    # The angle is the length of a normal vector in three dimensions: its mean square is 3 sigma^2.
    assert np.sqrt(np.mean(np.square(angles))) == pytest.approx(np.sqrt(3) * 0.3, rel=0.08)


def test_the_gripper_and_the_label_are_left_alone() -> None:
    before = CLEAN.values.copy()
    values = sent(BurstNoise(0.1, 0.5, 1.0, 1.0, seed=2), 100)
    assert np.any(values[:, :9] != before[:9])
    assert (values[:, 9] == before[9]).all()
    assert (CLEAN.values == before).all()


def test_it_repeats_for_a_seed_and_differs_between_seeds() -> None:
    def draw(seed: int) -> np.ndarray:
        return sent(BurstNoise(0.1, 0.5, 0.3, 4.0, seed=seed), 200)

    assert np.array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))


def test_no_noise_changes_nothing_and_what_is_sent_stays_legal() -> None:
    assert (sent(BurstNoise(0.0, 0.0, 0.5, 4.0, seed=5), 100) == CLEAN.values).all()
    values = sent(BurstNoise(100.0, 3.0, 0.5, 4.0, seed=5), 100)
    assert all(SPEC.space.contains(value) for value in values)


def test_it_works_without_a_rotation_part() -> None:
    spec = ActionSpec(ActionMode.EE_POSE, spaces.Box(-1, 1, (3,), np.float32), {"position_m": (0, 3)}, 0.1)
    action = Action(np.zeros(3, np.float32), spec)
    assert np.any(BurstNoise(0.1, 0.1, 1.0, 1.0, seed=0)(action).values != 0)


def test_bad_settings_and_other_modes_are_refused() -> None:
    with pytest.raises(SpecError, match="burst_steps"):
        BurstNoise(0.1, 0.1, 0.1, 0.5, seed=0)
    spec = ActionSpec(ActionMode.JOINT_POSITION, spaces.Box(-1, 1, (8,), np.float32), {}, 0.1)
    with pytest.raises(SpecError, match="joint_position"):
        BurstNoise(0.1, 0.1, 0.1, 2.0, seed=0)(Action(np.zeros(8, np.float32), spec))


def test_what_is_held_may_be_spared() -> None:
    noise = BurstNoise(0.1, 0.5, 1.0, 1000.0, seed=2, only_open=True)
    assert (sent(noise, 20) == CLEAN.values).all()
    values = CLEAN.values.copy()
    values[9] = 1.0
    assert (noise(Action(values, SPEC)).values != values).any()
    # The same burst goes on: what is spared is not what is drawn.
    assert (sent(BurstNoise(0.1, 0.5, 1.0, 1000.0, seed=2), 20)[-1, :3] == noise(Action(values, SPEC)).values[:3]).all()
