"""Features of cells, templates and the files that keep them, judging."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from perceive.pose.raster import MeshRenderer
from perceive.pose.templates.features import BackboneFeatures, SurfaceFeatures, colour_features
from perceive.pose.templates.hypotheses import different, rough_covariance
from perceive.pose.templates.judging import Judge
from perceive.pose.templates.store import fingerprint, load_templates, make_templates, save_templates
from sensors.errors import DataError, SpecError
from sensors.geometry import axis_angle_to_matrix
from tests.perceive.pose.templates.scene import CAMERA, bracket, look, painted_box, shot


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny_dinov2"
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=84, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    return folder


def test_colours_do_not_mind_the_strength_of_the_light_but_the_hue() -> None:
    rgb = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.5
    there = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    here = colour_features(rgb, there)
    assert torch.allclose(here.norm(dim=1), torch.ones(2, 6, 6), atol=1e-5)
    assert (here * colour_features(0.6 * rgb, there)).sum(1).min() > 0.97
    assert (here * colour_features(rgb.flip(1), there)).sum(1).mean() < 0.9


def test_normals_of_the_cells_are_those_of_the_surface() -> None:
    renderer = MeshRenderer(painted_box(), 1)
    templates = make_templates(renderer, SurfaceFeatures(normal_share=1.0), "metric", 8, 1)
    for one in range(len(templates)):
        whole = templates.share[one] > 0.99
        normal = templates.features[one, :3, whole].T
        axes = torch.from_numpy(templates.rotation[one].T @ normal.numpy().T.astype(np.float64))  # object's frame
        assert torch.median(axes.abs().amax(0)) > 0.97  # a box has six normals


def test_templates_know_where_their_cells_are() -> None:
    renderer = MeshRenderer(bracket(), 1)
    for kind in ("metric", "round"):
        t = make_templates(renderer, SurfaceFeatures(), kind, 12, 1)
        cells = t.share.shape[1]
        for one in range(len(t)):
            row, column = np.nonzero(t.share[one].numpy() > 0)
            place = t.place_m[one, row, column].numpy() @ t.rotation[one].T - t.rotation[one] @ t.middle_m
            place[:, 2] += t.distance_m
            inside = t.place_px[one, row, column].numpy()
            at = (np.stack([column, row], -1) + inside - (cells - 1) / 2) * t.side[one] / cells + t.offset[one]
            assert np.allclose(place[:, :2] / place[:, 2:], at, atol=1e-5)
            middle = (np.stack([column, row], -1) - (cells - 1) / 2) * t.share[one, row, column].numpy()[:, None]
            assert np.abs(middle.sum(0) / t.share[one].sum().item()).max() < 0.5  # what is seen is in the middle


def test_templates_survive_the_disk_and_another_mesh_is_noticed(tmp_path: Path) -> None:
    features, model = SurfaceFeatures(), bracket()
    made = make_templates(MeshRenderer(model, 1), features, "metric", 6, 1)
    mark = fingerprint(model, features, "metric", 6, 1)
    path = tmp_path / "kept" / "1.npz"
    save_templates(path, made, mark)
    back = load_templates(path, mark)
    assert back is not None
    assert torch.equal(back.features, made.features)
    assert np.array_equal(back.rotation, made.rotation)
    assert back.distance_m == made.distance_m
    assert [p.name for p in path.parent.iterdir()] == ["1.npz"]
    assert load_templates(path, fingerprint(painted_box(), features, "metric", 6, 1)) is None
    assert load_templates(path, fingerprint(model, SurfaceFeatures(normal_share=0.4), "metric", 6, 1)) is None
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="Delete the file"):
        load_templates(path, mark)


def test_a_backbone_describes_cells(backbone: Path) -> None:
    features = BackboneFeatures(str(backbone), image_px=84, mean=(0.5,) * 3, std=(0.2,) * 3)
    assert (features.cells, features.pixels, features.turns_query) == (6, 84, False)
    made = make_templates(MeshRenderer(painted_box(), 1), features, "round", 4, 2)
    assert made.features.shape == (8, 32, 6, 6)
    length = made.features.norm(dim=1)
    assert torch.allclose(length[made.share > 0], torch.tensor(1.0), atol=1e-5)
    assert (length[made.share == 0] == 0).all()


def test_a_backbone_that_is_not_here_is_named() -> None:
    with pytest.raises(DataError, match="local_only"):
        BackboneFeatures("nobody/has-this-model")


@pytest.mark.parametrize("wrong", [{"cells": 2}, {"samples": 0}, {"normal_share": 1.5}])
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="SurfaceFeatures"):
        SurfaceFeatures(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_the_judge_prefers_the_truth_and_colours_tell_what_geometry_does_not() -> None:
    rng = np.random.default_rng(5)
    model = painted_box()
    truth = look(rng, model)
    frame, mask, _, _ = shot(rng, [model], [truth])
    half = np.eye(4)
    half[:3, :3] = axis_angle_to_matrix([0, 0, np.pi])  # the same shape, other colours
    off = truth.copy()
    off[:3, 3] += (0.01, 0.0, 0.01)
    judge = Judge(MeshRenderer(model, 1), 0.02, 0.002, 40)
    score = judge.score(frame.rgb, frame.depth_m, mask, np.stack([truth, truth @ half, off]), CAMERA)
    assert score[0] > 0.75
    assert score[0] > score[1] + 0.02
    assert score[0] > score[2] + 0.1
    gone = truth.copy()
    gone[:3, 3] += (2.0, 0, 0)  # out of view
    assert judge.score(frame.rgb, frame.depth_m, mask, gone, CAMERA)[0] == 0


def test_nearly_equal_poses_are_one_and_a_turn_about_the_middle_is_not_a_shift() -> None:
    pose = np.tile(np.eye(4), (3, 1, 1))
    pose[:, 2, 3] = 0.5
    pose[1, 0, 3] = 0.001
    pose[2, 0, 3] = 0.02
    assert different(pose, np.zeros(3), 0.1).tolist() == [0, 2]


def test_without_depth_the_distance_is_the_least_certain() -> None:
    pose = np.eye(4)
    pose[:3, :3] = axis_angle_to_matrix([0.3, 1.0, -0.4])
    pose[:3, 3] = (0.1, 0.0, 0.8)
    covariance = rough_covariance(pose, 0.1)
    value, vector = np.linalg.eigh(covariance[3:, 3:])
    along = pose[:3, :3] @ vector[:, -1]
    assert abs(along @ pose[:3, 3]) == pytest.approx(np.linalg.norm(pose[:3, 3]))
    assert value[-1] > 50 * value[0] > 0
