"""Scenes of dropped objects: the poses against the pictures, and what must not change a scene."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from envs.pose_scenes import pile
from envs.pose_scenes.library import objects
from envs.pose_scenes.scene import ObjectScene, ObjectView
from envs.pose_scenes.scenes import AWAY_M, ObjectScenes
from envs.pose_scenes.surroundings import PATTERNS, Look
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from sensors.depth_noise import SquareLawNoise
from sensors.errors import SensorError, SpecError

NAMES = ["brick", "bottle", "mug", "hammer", "spool", "teddy"]
SMALL: dict[str, Any] = {"fewest": 4, "most": 5, "views": 2, "width": 200, "height": 150}


@pytest.fixture(scope="module")
def exact() -> Iterator[ObjectScenes]:
    built = ObjectScenes(3, NAMES, **SMALL, colour_noise=0.0)
    yield built
    built.close()


@pytest.fixture(scope="module")
def made(exact: ObjectScenes) -> list[ObjectScene]:
    return [exact.scene(number) for number in range(3)]


def same(first: ObjectScene, second: ObjectScene, *names: str) -> bool:
    views = zip(first.views, second.views, strict=True)
    return bool(
        first.names == second.names
        and np.array_equal(first.world_from_object, second.world_from_object)
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for a, b in views for name in names)
    )


EVERYTHING = tuple(item.name for item in fields(ObjectView))


def test_the_model_at_the_stated_pose_is_what_the_picture_shows(made: list[ObjectScene]) -> None:
    renderers = {
        shape.name: MeshRenderer(ObjectModel.make(1, shape.name, shape.vertices_m, shape.faces), threads=1)
        for shape in objects(NAMES)
    }
    compared = 0
    for scene in made:
        for image, view in enumerate(scene.views):
            height, width = view.depth_m.shape
            depth = np.stack(
                [
                    renderers[name].depth(pose, view.intrinsics_px, (0, 0, width, height))[0]
                    for name, pose in zip(scene.names, scene.camera_from_object(image), strict=True)
                ]
            )
            far = np.where(depth > 0, depth, np.inf)
            nearest = np.where(np.isfinite(far.min(0)), far.argmin(0), -1)
            for row in range(len(scene.names)):
                expected, got = nearest == row, view.instance == row
                if expected.sum() < 60:
                    continue
                assert (expected & got).sum() / (expected | got).sum() >= 0.97
                error = np.abs(depth[row] - view.depth_m)[expected & got]
                assert np.quantile(error, 0.99) < 3e-4
                compared += 1
    assert compared >= 15


def test_objects_lie_on_the_table_and_on_each_other(made: list[ObjectScene]) -> None:
    shapes = {shape.name: shape for shape in objects(NAMES)}
    for scene in made:
        assert 3 <= len(scene.names) <= 5
        assert len(set(scene.names)) == len(scene.names)
        lowest = []
        for name, pose in zip(scene.names, scene.world_from_object, strict=True):
            points = shapes[name].vertices_m @ pose[:3, :3].T + pose[:3, 3]
            lowest.append(points[:, 2].min())
            assert (np.abs(points[:, :2]) < 0.65).all()
        assert min(lowest) > -0.004  # not in the table
        assert sorted(lowest)[1] < 0.004  # not in the air: two at least stand on the table
    turns = np.concatenate([scene.world_from_object[:, :3, :3] for scene in made])
    assert np.ptp(turns[:, 2, 2]) > 0.5  # they lie on other sides


def test_cameras_look_at_the_objects_from_all_sides(made: list[ObjectScene]) -> None:
    for scene in made:
        away = []
        for view in scene.views:
            eye = view.world_from_camera[:3, 3]
            away.append(np.linalg.norm(eye - [*scene.world_from_object[:, :2, 3].mean(0), 0.03]))
            assert eye[2] > 0.1
            assert (view.instance >= 0).mean() > 0.01
            assert set(np.unique(view.instance)) <= set(range(-1, len(scene.names)))
            assert (view.depth_m[view.instance >= 0] > 0.2).all()
        assert (np.array(away) >= AWAY_M[0] - 1e-9).all()
        assert (np.array(away) <= AWAY_M[1] + 1e-9).all()
        first, second = (view.world_from_camera[:2, 3] for view in scene.views)
        assert np.linalg.norm(first - second) > 0.2


def test_a_scene_is_a_function_of_settings_and_number(exact: ObjectScenes, made: list[ObjectScene]) -> None:
    again = ObjectScenes(3, NAMES, **SMALL, colour_noise=0.0)
    other = ObjectScenes(4, NAMES, **SMALL, colour_noise=0.0)
    try:
        assert same(again.scene(2), made[2], *EVERYTHING)  # without scenes 0 and 1 before it
        assert same(exact.scene(2), made[2], *EVERYTHING)
        assert not same(made[1], made[2])
        assert not same(other.scene(2), made[2])
    finally:
        again.close()
        other.close()


def test_noise_and_pictures_change_nothing_else(made: list[ObjectScene]) -> None:
    noisy = ObjectScenes(3, NAMES, **SMALL, depth_noise=SquareLawNoise(0.002), colour_noise=2.0)
    try:
        scene = noisy.scene(0)
    finally:
        noisy.close()
    assert same(scene, made[0], "instance", "world_from_camera", "intrinsics_px")
    for view, true in zip(scene.views, made[0].views, strict=True):
        there = true.depth_m > 0
        error = (view.depth_m - true.depth_m)[there] / true.depth_m[there] ** 2
        assert error.std() == pytest.approx(0.002, rel=0.05)
        assert (view.depth_m[~there] == 0).all()
        middling = (true.rgb > 30) & (true.rgb < 220)
        assert (view.rgb.astype(float) - true.rgb)[middling].std() == pytest.approx(2.0, rel=0.08)


def test_what_falls_off_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pile, "TABLE_HALF_M", (0.15, 0.15, 0.02))  # smaller than where they fall: most objects miss it
    few = {"fewest": 6, "most": 6, "views": 1, "width": 40, "height": 30, "spread_m": 0.2}
    scenes = ObjectScenes(0, NAMES, **{**SMALL, **few})
    try:
        found = [scenes.scene(number) for number in range(3)]
    finally:
        scenes.close()
    assert 0 < sum(len(scene.names) for scene in found) < 18
    for scene in found:
        assert (scene.world_from_object[:, 2, 3] > -0.1).all()
        assert scene.views[0].instance.max() < len(scene.names)


def test_the_same_object_may_lie_there_twice() -> None:
    scenes = ObjectScenes(0, ["cube", "bolt"], 3, 4, copies=2, views=1, width=160, height=120)
    try:
        scene = scenes.scene(0)
    finally:
        scenes.close()
    assert len(scene.names) > len(set(scene.names))
    assert len(np.unique(scene.views[0].instance)) >= 3


def test_light_and_tables_differ_and_patterns_show_both_colours() -> None:
    looks = [Look.draw(np.random.default_rng(number)) for number in range(40)]
    assert {look.pattern for look in looks} == set(PATTERNS)
    assert len({look.light.direction for look in looks}) == 40
    assert all(look.light.direction[2] > 0.5 for look in looks)
    places = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2))
    for look in looks:
        colours = look.table(places)
        low, high = look.colours.min(0), look.colours.max(0)
        assert ((colours >= low - 1e-9) & (colours <= high + 1e-9)).all()
        spread = np.ptp(colours, axis=0) / np.maximum(high - low, 1e-9)
        assert spread.max() == 0 if look.pattern == "plain" else spread.max() > 0.6


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1}, {"views": 0}, {"copies": 0}, {"fewest": 0}, {"fewest": 5, "most": 4}, {"most": 7}, {"width": 8},
        {"height": 0}, {"fov_y_deg": 180.0}, {"colour_noise": -1.0}, {"renderer": "vulkan"},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        ObjectScenes(**{"seed": 0, "objects": NAMES, "most": 5, **wrong})


def test_negative_numbers_and_unknown_objects_are_refused(exact: ObjectScenes) -> None:
    with pytest.raises(SpecError, match="number"):
        exact.scene(-1)
    with pytest.raises(SpecError, match="Did you mean 'hammer'"):
        ObjectScenes(0, ["hamer", "mug", "cube"], 1, 2)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.pictures.load_egl", lambda *_: None)
    scenes = ObjectScenes(0, NAMES, **SMALL, renderer="egl")
    try:
        with pytest.raises(SensorError, match="EGL"):
            scenes.scene(0)
    finally:
        scenes.close()
        scenes.close()
