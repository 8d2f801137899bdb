"""What estimators refuse before they begin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perceive.pose.estimate import check_view
from sensors.errors import DataError
from tests.perceive.pose.meshes import HEIGHT, WIDTH, K, picture

FRAME = picture(np.ones((HEIGHT, WIDTH)))


def test_a_sound_view_passes() -> None:
    check_view("x", FRAME, None)
    check_view("x", FRAME, np.ones((HEIGHT, WIDTH), np.bool_))


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        (np.eye(3), "K"),
        (K[:3], "four numbers"),
        (K * np.nan, "four numbers"),
        ((-300, 300, 80, 60), "resolution"),
        ((1200, 1200, 640, 480), "resolution"),  # of a picture eight times as wide
    ],
)
def test_cameras_of_something_else(camera: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_view("x", replace(FRAME, intrinsics_px=np.asarray(camera, np.float64)), None)


def test_masks_and_depth_of_something_else() -> None:
    with pytest.raises(DataError, match="depth"):
        check_view("x", replace(FRAME, depth_m=np.ones((HEIGHT, WIDTH - 1), np.float32)), None)
    with pytest.raises(DataError, match="mask"):
        check_view("x", FRAME, np.ones((HEIGHT + 1, WIDTH), np.bool_))
    with pytest.raises(DataError, match="view"):
        check_view("x", FRAME, np.zeros((HEIGHT, WIDTH), np.bool_))
