"""Camera encoders against numpy loops: the order of pixels, the place of every token, what absence may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch.nn.functional import gelu, normalize

from perceive.batch import BatchStream
from perceive.encoders.camera import PatchGrid, RayEmbedding
from perceive.encoders.rgb import RgbPatchEncoder
from perceive.encoders.rgbd import RgbdPatchEncoder
from perceive.geometry import camera_rays
from sensors.errors import WiringError
from sensors.geometry import axis_angle_to_matrix, pose, transform_points, unproject
from sensors.spec import box
from tests.perceive.scene import SPACES, camera_space, fake_batch, fake_stream

HEIGHT, WIDTH, PATCH, CELL = 12, 18, 6, 3
SPACE = camera_space(HEIGHT, WIDTH)


def encoder(**changes: Any) -> RgbdPatchEncoder:
    torch.manual_seed(0)
    return RgbdPatchEncoder(SPACE, 1, 32, patch_px=PATCH, cell_px=CELL, **changes)


def stream(seed: int = 0, steps: int = 1, **changes: NDArray[Any]) -> BatchStream:
    drawn = fake_stream(SPACE, np.random.default_rng(seed), steps)
    data = {name: torch.from_numpy(np.asarray(changes.get(name, value))[None]) for name, value in drawn.data.items()}
    data = {name: value if value.dtype == torch.uint8 else value.float() for name, value in data.items()}
    return BatchStream(data, torch.from_numpy(drawn.age_s)[None], torch.from_numpy(drawn.valid)[None])


def numpy_points(data: BatchStream, step: int = 0) -> NDArray[Any]:
    """Surface points [H, W, 3] in the base frame by ``sensors.geometry``."""
    camera = data.data["base_from_camera"][0, step].numpy()
    points = unproject(data.data["depth_m"][0, step].numpy(), data.data["intrinsics_px"][0, step].numpy())
    return transform_points(camera, points.reshape(-1, 3)).reshape(points.shape)


def patches_of(image: NDArray[Any]) -> list[NDArray[Any]]:
    return [
        image[r : r + PATCH, c : c + PATCH] for r in range(0, HEIGHT, PATCH) for c in range(0, WIDTH, PATCH)
    ]  # fmt: skip


def test_every_token_sits_at_the_mean_of_its_surface_points() -> None:
    data = stream()
    tokens = encoder()(data)
    depth = data.data["depth_m"][0, 0].numpy()
    assert 0 < (depth == 0).sum() < depth.size  # some pixels are unmeasured, and none of them may pull
    for index, (points, measured) in enumerate(zip(patches_of(numpy_points(data)), patches_of(depth > 0), strict=True)):
        np.testing.assert_allclose(tokens.position_m[0, index].numpy(), points[measured].mean(0), atol=2e-6)
    assert tokens.placed.all()


def test_features_equal_naive_loops() -> None:
    data, part = stream(), encoder()
    points, depth = numpy_points(data), data.data["depth_m"][0, 0].numpy()
    rgb = data.data["rgb"][0, 0].numpy() / 255.0 - 0.5
    wanted = []
    for top in range(0, HEIGHT, PATCH):
        for left in range(0, WIDTH, PATCH):
            here = (slice(top, top + PATCH), slice(left, left + PATCH))
            middle = points[here][depth[here] > 0].mean(0)
            cells = []
            for down in range(top, top + PATCH, CELL):
                for across in range(left, left + PATCH, CELL):
                    pixels: list[float] = []
                    for v in range(down, down + CELL):
                        for u in range(across, across + CELL):
                            seen = depth[v, u] > 0
                            relative = np.clip((points[v, u] - middle) / 0.05, -2, 2) if seen else np.zeros(3)
                            pixels += [*rgb[v, u], *relative, float(seen)]
                    cells.append(gelu(part.cell(torch.tensor(pixels, dtype=torch.float32))))
            wanted.append(part.norm(part.patch(torch.cat(cells))))
    torch.testing.assert_close(part(data).features[0], torch.stack(wanted), rtol=0, atol=2e-4)


def test_a_moved_camera_sees_the_same_world() -> None:
    """A plane seen from two places, with lenses chosen so that each pixel looks at the same point of the plane."""
    part, rng = encoder(), np.random.default_rng(3)
    colours = rng.integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    near, back, aside = 0.5, 0.2, 0.07
    lens = np.array([20.0, 20.0, 8.5, 5.5], np.float32)
    camera = pose([0.4, 0.1, 0.9])
    camera[:3, :3] = axis_angle_to_matrix([np.pi - 0.1, 0.2, 0.3])
    moved = camera.copy()
    moved[:3, 3] += camera[:3, :3] @ [aside, 0.0, -back]
    zoomed = lens * np.array([(near + back) / near] * 2 + [1, 1], np.float32)
    zoomed[2] += zoomed[0] * aside / (near + back)
    views = []
    for depth, intrinsics, base_from_camera in ((near, lens, camera), (near + back, zoomed, moved)):
        picture = np.full((1, HEIGHT, WIDTH), depth, np.float32)
        views.append(
            part(
                stream(
                    rgb=colours,
                    depth_m=picture,
                    intrinsics_px=intrinsics[None],
                    base_from_camera=base_from_camera[None],
                )
            )
        )
    torch.testing.assert_close(views[1].position_m, views[0].position_m, rtol=0, atol=1e-6)
    torch.testing.assert_close(views[1].features, views[0].features, rtol=0, atol=1e-4)
    no_move = part(stream(rgb=colours, depth_m=picture, intrinsics_px=zoomed[None], base_from_camera=camera[None]))
    assert (no_move.position_m - views[0].position_m).abs().max() > 0.05  # control: the pose matters


def test_moving_scene_and_camera_moves_the_tokens() -> None:
    part, data = encoder(), stream()
    turn = pose([0.1, -0.2, 0.05])
    turn[:3, :3] = axis_angle_to_matrix([0.0, 0.0, 0.7])
    moved = stream(base_from_camera=(turn @ data.data["base_from_camera"][0].numpy()).astype(np.float32))
    expected = transform_points(turn, part(data).position_m[0].numpy())
    np.testing.assert_allclose(part(moved).position_m[0].numpy(), expected, atol=1e-6)


def test_patches_without_depth_carry_their_ray() -> None:
    depth = fake_stream(SPACE, np.random.default_rng(0)).data["depth_m"].copy()
    depth[0, :PATCH, :PATCH] = 0.0
    depth[0, :PATCH, PATCH : 2 * PATCH] = 2.5  # beyond max_depth_m
    depth[0, PATCH, PATCH] = np.nan  # one bad pixel is one missing pixel
    part = encoder()
    tokens = part(stream(depth_m=depth))
    assert tokens.placed[0].tolist() == [False, False, True, True, True, True]
    assert torch.isfinite(tokens.features).all()
    elsewhere = stream(depth_m=depth)
    turned = elsewhere.data["base_from_camera"] @ torch.from_numpy(pose([0, 0, 0], [0.3, 0, 0, 1])).float()
    elsewhere = BatchStream(
        {**elsewhere.data, "base_from_camera": turned}, elsewhere.age_s, elsewhere.valid
    )  # fmt: skip
    assert (part(elsewhere).features[0, 0] - tokens.features[0, 0]).abs().max() > 1e-3


def test_depth_as_a_channel_places_nothing() -> None:
    part, data = encoder(geometry="depth"), stream()
    tokens = part(data)
    assert not tokens.placed.any()
    moved = stream(base_from_camera=np.tile(np.eye(4, dtype=np.float32), (1, 1, 1)))
    assert torch.equal(part(moved).features, tokens.features)
    nearer = part(stream(depth_m=data.data["depth_m"][0].numpy() * 0.7)).features
    assert (nearer - tokens.features).abs().max() > 1e-3


def test_patch_grid_lists_every_pixel_once_in_cell_order() -> None:
    grid = PatchGrid("test", SPACE, PATCH, CELL)
    assert (grid.patches, grid.cells, grid.cell_pixels) == (6, 4, 9)
    assert grid.pixels.shape == (6, 36, 2)
    assert len({tuple(pixel) for pixel in grid.pixels.flatten(0, 1).tolist()}) == HEIGHT * WIDTH
    second_cell = grid.pixels[1, 9:18].tolist()  # of the second patch: columns 6 to 11; its second cell: 9 to 11
    assert second_cell == [[u, v] for v in range(3) for u in range(9, 12)]
    lens = torch.tensor([[20.0, 21.0, 8.0, 5.0]])
    rays = grid.rays(lens, torch.eye(4)[None])
    raster = camera_rays(lens, HEIGHT, WIDTH).reshape(1, HEIGHT, WIDTH, 3)
    torch.testing.assert_close(rays, grid.split(raster))


def test_half_precision_leaves_places_alone() -> None:
    part, data = encoder(), stream()
    with torch.autocast("cpu", torch.bfloat16):
        position = part(data).position_m
    assert torch.equal(position, part(data).position_m)


def test_rgb_tokens_carry_their_ray() -> None:
    space = camera_space(HEIGHT, WIDTH, depth=False)
    torch.manual_seed(0)
    part = RgbPatchEncoder(space, 1, 32, patch_px=PATCH, cell_px=CELL)
    data = stream()
    tokens = part(data)
    assert part.num_tokens == tokens.features.shape[1] == 6
    assert not tokens.placed.any()
    grey = stream(rgb=np.full((1, HEIGHT, WIDTH, 3), 127, np.uint8))
    features = part(grey).features[0]
    assert (features[0] - features[5]).abs().max() > 1e-3  # the same colours in another direction
    moved = grey.data["base_from_camera"].clone()
    moved[..., 0, 3] += 0.3
    there = part(BatchStream({**grey.data, "base_from_camera": moved}, grey.age_s, grey.valid)).features[0]
    assert (features - there).abs().max() > 1e-3  # the same direction from elsewhere


def test_ray_embedding_takes_the_line_and_the_centre() -> None:
    torch.manual_seed(0)
    part = RayEmbedding(16)
    ray, centre = torch.tensor([0.0, 0.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])
    line = torch.tensor([0, 0, 1, 2, -1, 0, 1, 2, 3.0])  # direction, centre x direction, centre
    torch.testing.assert_close(part(ray, centre), part.embed(line))
    torch.testing.assert_close(part(ray * 3, centre), part(ray, centre))
    torch.testing.assert_close(normalize(ray, dim=0), line[:3])


def test_several_instants_are_encoded_one_by_one() -> None:
    part = RgbdPatchEncoder(SPACE, 2, 32, patch_px=PATCH, cell_px=CELL)
    data = stream(steps=2)
    whole = part(data)
    for step in range(2):
        one = BatchStream(
            {n: v[:, step : step + 1] for n, v in data.data.items()}, data.age_s[:, [step]], data.valid[:, [step]]
        )
        alone = part(one)
        torch.testing.assert_close(whole.features[:, 6 * step : 6 * step + 6], alone.features)
        assert (whole.age_s[:, 6 * step : 6 * step + 6] == data.age_s[0, step]).all()


@pytest.mark.parametrize(
    ("space", "changes"),
    [
        (SPACES["joints"], {}),
        (camera_space(depth=False), {}),
        (camera_space(25, 24), {}),
        (camera_space(), {"cell_px": 5}),
        (camera_space(), {"geometry": "cubic"}),
        (spaces.Dict({**camera_space().spaces, "depth_m": box(0, 3, (12, 12))}), {}),
    ],
)
def test_a_space_that_does_not_fit_is_a_wiring_error(space: spaces.Dict, changes: dict[str, Any]) -> None:
    with pytest.raises(WiringError, match="RgbdPatchEncoder"):
        RgbdPatchEncoder(space, 1, 32, **changes)


def test_batches_are_independent() -> None:
    torch.manual_seed(0)
    part = RgbdPatchEncoder(SPACES["front"], 1, 32)
    whole = fake_batch(np.random.default_rng(0), 3).stream("front")
    alone = BatchStream({n: v[1:2] for n, v in whole.data.items()}, whole.age_s[1:2], whole.valid[1:2])
    torch.testing.assert_close(part(whole).features[1:2], part(alone).features)
