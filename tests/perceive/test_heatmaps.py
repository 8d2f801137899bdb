from __future__ import annotations

import numpy as np
import torch

from perceive.rvt.cube import Cube
from perceive.rvt.model import Look
from perceive.rvt.renderer import render
from perceive.rvt.views import pixel_of, views_named
from perceive.viewing.heatmaps import heatmap_pictures, key_pose_picture
from tests.perceive.rvt.scene import make_batch, make_model

FACES = ["top", "front", "right"]
SIZE = 56


def look(point: torch.Tensor) -> Look:
    views = views_named(FACES)
    cube = Cube.around((0.1, -0.4, -0.2), (0.9, 0.4, 0.6), 1, "cpu")
    cloud = torch.zeros(1, 1, 3)
    rendered = render(cloud, torch.full((1, 1, 3), 0.5), torch.ones(1, 1, dtype=torch.bool), views, SIZE)
    logits = torch.full((1, 3, SIZE, SIZE), -20.0)
    for number, (u, v) in enumerate(pixel_of(point[:, None], views, SIZE)[0, :, 0].long().tolist()):
        logits[0, number, v, u] = 20.0
    return Look(cube, rendered, logits, point)


def test_the_heat_is_bright_where_the_map_is_and_the_cross_is_there() -> None:
    point = torch.tensor([[0.4, -0.3, 0.2]])
    seen = look(point)
    pixels = pixel_of(point[:, None], views_named(FACES), SIZE)[0, :, 0].long().tolist()
    for picture, (u, v) in zip(heatmap_pictures(seen, FACES), pixels, strict=True):
        assert picture.shape == (SIZE, SIZE, 3)
        assert picture.dtype == np.uint8
        assert picture[v, u].tolist() == [255, 255, 255]  # the middle of the cross
        assert picture[v, u + 8].max() == 0  # nothing was rendered and nothing is hot beside it
        middle = (SIZE // 2, SIZE // 2)
        assert 120 <= int(picture[middle].max()) <= 135  # the one point, in its own colour


def test_the_right_place_is_circled_in_metres() -> None:
    seen = look(torch.tensor([[0.4, -0.3, 0.2]]))
    plain = heatmap_pictures(seen, FACES)
    circled = heatmap_pictures(seen, FACES, np.array([0.5, 0.2, 0.3]))
    place = pixel_of(seen.cube.normalise(torch.tensor([[[0.5, 0.2, 0.3]]])), views_named(FACES), SIZE)[0, :, 0].long()
    for one, other, (u, v) in zip(plain, circled, place.tolist(), strict=True):
        rows, columns = np.nonzero((one != other).any(-1))
        assert abs(rows.mean() - v) < 1
        assert abs(columns.mean() - u) < 1


def test_all_stages_and_cameras_are_on_one_sheet() -> None:
    batch, _ = make_batch(1)
    with torch.inference_mode():
        pose = make_model().eval()(batch)["action"]
    alone = key_pose_picture(pose, FACES, side_px=60)
    front = batch.stream("front").data["rgb"][0, 0].numpy()
    more = key_pose_picture(pose, FACES, {"front": front}, side_px=60)
    assert alone.shape[1] == 180
    assert more.shape[0] > alone.shape[0]
