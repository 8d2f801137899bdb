"""Pictures made smaller: every pixel is the mean of its area."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.vtt.picture import AreaResize
from sensors.errors import WiringError


@settings(max_examples=25, deadline=None, derandomize=True)
@given(height=st.integers(7, 60), width=st.integers(7, 60), seed=st.integers(0, 1000))
def test_it_is_the_area_mean_of_any_size(height: int, width: int, seed: int) -> None:
    picture = np.random.default_rng(seed).random((height, width), np.float32)
    got = AreaResize(height, width, 7)(torch.from_numpy(picture))
    assert got.shape == (7, 7)
    assert float(got.mean()) == pytest.approx(float(picture.mean()), abs=1e-5)
    expected = cv2.resize(picture, (7, 7), interpolation=cv2.INTER_AREA)
    if (height > 7) == (width > 7):  # another program's word; it interpolates where only one side shrinks
        torch.testing.assert_close(got, torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_whole_factors_are_block_means_and_the_right_size_is_kept() -> None:
    picture = torch.rand(2, 3, 168, 252, generator=torch.Generator().manual_seed(0))
    blocks = picture.unflatten(3, (84, 3)).unflatten(2, (84, 2)).mean((3, 5))
    torch.testing.assert_close(AreaResize(168, 252, 84)(picture), blocks)
    same = picture[..., :84, :84]
    assert AreaResize(84, 84, 84)(same) is same


def test_a_smaller_picture_is_refused() -> None:
    with pytest.raises(WiringError, match="84 x 84"):
        AreaResize(84, 83, 84)
