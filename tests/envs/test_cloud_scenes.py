"""Generated scenes: what the labels say against where the points are, and what must not change a scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from envs import models
from envs.cloud_scenes.labels import ROOM, TABLETOP, names
from envs.cloud_scenes.room import RoomScenes, ray_of
from envs.cloud_scenes.scene import CloudScene, SceneBoxes, thinned
from envs.cloud_scenes.sight import CARRIER, Sight
from envs.cloud_scenes.stage import Stage, pose_of
from envs.cloud_scenes.tabletop import TabletopScenes
from envs.cloud_scenes.tabletop_things import MAKERS
from envs.cloud_scenes.things import Piece, Solid, Thing, solids_of
from envs.world import PyBulletWorld
from perceive.points.files.cloud import from_arrays
from sensors.errors import SensorError, SpecError
from sensors.frames import LidarFrame
from sensors.geometry import FloatArray, invert, look_at, transform_points, unproject
from sensors.lidar_pattern import SpinningPattern, vlp_16

WHITE = (1.0, 1.0, 1.0, 1.0)
SMALL = SpinningPattern(np.linspace(-25, 10, 12).tolist(), 180, 10.0, 1e-6)
Stages = Callable[[dict[str, tuple[str, ...]]], Stage]


@pytest.fixture(scope="module")
def tabletop() -> Iterator[TabletopScenes]:
    built = TabletopScenes(7, width=96, height=96, depth_noise_m=0.0, points=None)
    yield built
    built.close()


@pytest.fixture(scope="module")
def tabletop_scenes(tabletop: TabletopScenes) -> list[CloudScene]:
    return [tabletop.scene(number) for number in range(6)]


@pytest.fixture
def world() -> Iterator[PyBulletWorld]:
    built = PyBulletWorld()
    yield built
    built.close()


@pytest.fixture
def stage_of(world: PyBulletWorld) -> Iterator[Stages]:
    """Builds stages that are cleared in the end, whatever happens."""
    built: list[Stage] = []

    def build(of: dict[str, tuple[str, ...]]) -> Stage:
        built.append(Stage(world, of))
        return built[-1]

    yield build
    for stage in built:
        stage.clear()


def block(label: str, part: str, size: tuple[float, ...], middle: tuple[float, float, float]) -> Thing:
    return Thing(label, (Piece(part, (Solid(size, middle),), WHITE),))


def inside(boxes: SceneBoxes, number: int, xyz_m: NDArray[np.float32], margin_m: float) -> NDArray[np.bool_]:
    """Whether points [N, 3] are in a box, by the box's own numbers alone."""
    yaw = float(boxes.yaw_rad[number])
    ahead, left = np.array([math.cos(yaw), math.sin(yaw), 0.0]), np.array([-math.sin(yaw), math.cos(yaw), 0.0])
    away = xyz_m - boxes.centre_m[number]
    local = np.stack([away @ ahead, away @ left, away[:, 2]], axis=-1)
    held: NDArray[np.bool_] = (np.abs(local) <= boxes.size_m[number] / 2 + margin_m).all(axis=1)
    return held


def same(one: CloudScene, other: CloudScene) -> bool:
    ours, theirs = one.arrays(), other.arrays()
    return set(ours) == set(theirs) and all(np.array_equal(ours[name], theirs[name], False) for name in ours)


# ----------------------------------------------------------------------------------------------------------- tabletop


def test_tabletop_points_lie_in_the_boxes_of_their_things(tabletop_scenes: list[CloudScene]) -> None:
    seen = set()
    for scene in tabletop_scenes:
        assert 5 <= len(scene.boxes.label) <= 12
        assert scene.rgb is not None
        assert {len(getattr(scene, name)) for name in ("xyz_m", "rgb", "semantic", "instance", "part")} == {
            len(scene.xyz_m)
        }
        assert scene.semantic.min() >= 0  # the renderer knew of every pixel
        table = scene.instance < 0
        assert (scene.semantic[table] == scene.classes.index("table")).all()
        assert np.abs(scene.xyz_m[table][:, 2]).max() < 0.045  # its top, or its rim
        for row, number in enumerate(scene.boxes.instance):
            mine = scene.instance == number
            assert mine.sum() == scene.boxes.points[row]
            assert (scene.semantic[mine] == scene.boxes.label[row]).all()
            assert inside(scene.boxes, row, scene.xyz_m[mine], 0.0015).all()
            # Positive control: few of the other points do, namely those of what is in a bowl and of the table below.
            assert inside(scene.boxes, row, scene.xyz_m[~mine], 0.0).mean() < 0.05
            seen.add(scene.classes[scene.boxes.label[row]])
    assert seen == set(MAKERS)


def test_parts_of_a_tabletop_belong_to_their_class(tabletop_scenes: list[CloudScene]) -> None:
    found = set()
    for scene in tabletop_scenes:
        for semantic, part in np.unique(np.stack([scene.semantic, scene.part]), axis=1).T:
            assert scene.parts[part].split("/")[0] == scene.classes[semantic]
            found.add(scene.parts[part])
    assert {"cabinet/drawer", "mug/handle", "bottle/cap", "button/cap", "screwdriver/shaft"} <= found
    assert (tuple(TABLETOP), names(TABLETOP)[1]) == (tabletop_scenes[0].classes, tabletop_scenes[0].parts)


def test_a_scene_is_a_function_of_its_seed_and_number(
    tabletop: TabletopScenes, tabletop_scenes: list[CloudScene]
) -> None:
    again = TabletopScenes(7, width=96, height=96, depth_noise_m=0.0, points=None)
    other = TabletopScenes(8, width=96, height=96, depth_noise_m=0.0, points=None)
    try:
        assert same(again.scene(3), tabletop_scenes[3])  # another world, nothing before it
        assert same(tabletop.scene(3), tabletop_scenes[3])  # the same world, after others
        assert not same(other.scene(3), tabletop_scenes[3])
    finally:
        again.close()
        other.close()


def test_noise_moves_points_and_a_limit_thins_them(tabletop_scenes: list[CloudScene]) -> None:
    noisy = TabletopScenes(7, width=96, height=96, depth_noise_m=0.003, points=None)
    few = TabletopScenes(7, width=96, height=96, depth_noise_m=0.0, points=1000)
    try:
        clean, scene = tabletop_scenes[0], noisy.scene(0)
        assert np.array_equal(scene.semantic, clean.semantic)
        away = np.linalg.norm(scene.xyz_m - clean.xyz_m, axis=1)
        assert 0.001 < away.mean() < 0.006
        small = few.scene(0)
        assert len(small.xyz_m) == 1000
        rows = {row.tobytes() for row in clean.xyz_m}
        assert all(row.tobytes() in rows for row in small.xyz_m)
        assert small.boxes.points.sum() == (small.instance >= 0).sum()
    finally:
        noisy.close()
        few.close()


def test_a_scene_reads_as_a_labelled_cloud(tabletop_scenes: list[CloudScene]) -> None:
    cloud = from_arrays(tabletop_scenes[1].arrays())
    assert cloud.frame == "base"
    assert cloud.boxes is not None
    assert np.array_equal(cloud.boxes.size_m, tabletop_scenes[1].boxes.size_m)
    assert np.array_equal(cloud.xyz_m, tabletop_scenes[1].xyz_m)
    assert cloud.classes == tabletop_scenes[1].classes
    assert cloud.name == "tabletop 7/1"


def test_labels_follow_the_renderer_not_the_place(world: PyBulletWorld, stage_of: Stages) -> None:
    """Two things in one place: the one that is drawn is the one that is named."""
    stage = stage_of(TABLETOP)
    stage.put(block("box", "box", (0.1, 0.1, 0.1), (0.0, 0.0, 0.05)), (0.5, 0.0, 0.0))
    stage.put(block("can", "can", (0.03, 0.09), (0.0, 0.0, 0.045)), (0.5, 0.0, 0.0))  # inside of the box
    sight = Sight(world, stage)
    picture = sight.render(
        look_at((1.0, 0.1, 0.3), (0.5, 0.0, 0.05)), np.array([150.0, 150, 31.5, 31.5]), 64, 64, 0.05, 3.0
    )
    semantic, instance, part = stage.truth(sight.body)
    drawn = picture.body >= 0
    assert drawn.sum() > 200
    assert (semantic[drawn] == list(TABLETOP).index("box")).all()
    assert (instance[drawn] == 0).all()
    assert (part[~drawn] == -1).all()
    assert (semantic[~drawn] == -1).all()


# ------------------------------------------------------------------------------------------------------------- things


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_bounds_hold_a_thing_and_no_more(name: str, world: PyBulletWorld, stage_of: Stages) -> None:
    """Against the simulator's own boxes around its bodies."""
    thing = MAKERS[name](np.random.default_rng(3))
    stage = stage_of(TABLETOP)
    stage.put(thing, (0.2, -0.1, 0.0))
    low, high = thing.bounds_m
    eye = transform_points(np.eye(4), np.array([[0.2, -0.1, 0.0]]))[0]
    rng = np.random.default_rng(0)
    bodies = [body.number for body in stage.bodies]
    for axis in range(3):
        for side, bound in ((1.0, high[axis]), (-1.0, low[axis])):
            # Rays along an axis from outside meet the thing at its bound first, or later: never before.
            starts = eye + rng.uniform(low, high, (2500, 3))
            starts[:, axis] = eye[axis] + side * 0.5
            ends = starts.copy()
            ends[:, axis] = eye[axis] - side * 0.5
            met = 0.5 - world.ray_cast(starts, ends, bodies=bodies)
            assert met.max() <= side * bound + 1e-6
            assert met.max() >= side * bound - 0.006  # a round edge is seldom met at its very end


def test_links_of_the_cabinet_are_told_apart_and_its_drawer_is_open(world: PyBulletWorld) -> None:
    links = solids_of(models.cabinet_urdf(), {"slide": 0.1})
    shut = solids_of(models.cabinet_urdf(), {})
    assert set(links) == {"body", "drawer"}
    assert links["body"] == shut["body"]
    moved = np.array([solid.middle_m for solid in links["drawer"]]) - [solid.middle_m for solid in shut["drawer"]]
    assert np.allclose(moved, (0.1, 0.0, 0.0))
    assert [solid.size_m for solid in links["drawer"]] == [solid.size_m for solid in shut["drawer"]]


def test_reach_of_a_turned_solid_is_exact() -> None:
    rng = np.random.default_rng(1)
    for size in ((0.1, 0.2, 0.3), (0.1, 0.4), (0.2,)):
        rpy = tuple(rng.uniform(-3, 3, 3).tolist())
        solid = Solid(size, (0.0, 0.0, 0.0), rpy)
        r, p, y = rpy
        about_x = np.array([[1, 0, 0], [0, math.cos(r), -math.sin(r)], [0, math.sin(r), math.cos(r)]])
        about_y = np.array([[math.cos(p), 0, math.sin(p)], [0, 1, 0], [-math.sin(p), 0, math.cos(p)]])
        about_z = np.array([[math.cos(y), -math.sin(y), 0], [math.sin(y), math.cos(y), 0], [0, 0, 1]])
        angle = np.linspace(0, 2 * np.pi, 20_000)
        if len(size) == 3:
            points = np.array([[x, y, z] for x in (-0.05, 0.05) for y in (-0.1, 0.1) for z in (-0.15, 0.15)])
        elif len(size) == 2:
            rim = np.stack([0.1 * np.cos(angle), 0.1 * np.sin(angle), np.full_like(angle, 0.2)], axis=-1)
            points = np.concatenate([rim, -rim])
        else:
            points = 0.2 * np.concatenate([np.eye(3), -np.eye(3)]) @ (about_z @ about_y @ about_x)
        reach = np.abs(points @ (about_z @ about_y @ about_x).T).max(axis=0)
        assert solid.reach_m == pytest.approx(reach, abs=1e-6)


# --------------------------------------------------------------------------------------------------------------- room


@pytest.fixture(scope="module")
def rooms() -> Iterator[RoomScenes]:
    built = RoomScenes(11, SMALL, range_noise_m=0.0)
    yield built
    built.close()


@pytest.fixture(scope="module")
def room_scenes(rooms: RoomScenes) -> list[CloudScene]:
    return [rooms.scene(number) for number in range(5)]


def test_room_points_lie_in_the_boxes_of_their_things(room_scenes: list[CloudScene]) -> None:
    labels, parts = set(), set()
    for scene in room_scenes:
        assert scene.intensity is not None
        assert scene.time_s is not None
        assert (scene.time_s >= np.float32(-0.1)).all()
        assert (scene.time_s < 0).all()
        assert scene.semantic.min() >= 0  # every ray that came back met something that is known
        ground = scene.instance < 0
        assert set(scene.semantic[ground].tolist()) <= {0, 1}
        floor = scene.semantic == scene.classes.index("floor")
        # Beams are 0.3 mrad uncertain: a floor that is met at a low angle lies that much of the range off.
        away = np.linalg.norm(scene.xyz_m, axis=1)
        assert (np.abs(scene.xyz_m[floor][:, 2]) < 0.002 + 0.002 * away[floor]).all()
        for row, number in enumerate(scene.boxes.instance):
            mine = scene.instance == number
            assert mine.sum() == scene.boxes.points[row]
            speed = float(np.linalg.norm(scene.boxes.velocity_m_s[row]))
            assert inside(scene.boxes, row, scene.xyz_m[mine], 0.02 + 0.1 * speed).all()
            labels.add(scene.classes[scene.boxes.label[row]])
        for semantic, part in np.unique(np.stack([scene.semantic, scene.part]), axis=1).T:
            assert scene.parts[part].split("/")[0] == scene.classes[semantic]
            parts.add(scene.parts[part])
    assert labels == set(ROOM) - {"floor", "wall"}
    assert {"chair/back", "table/top", "person/head", "shelf/boards", "cart/load"} <= parts


def test_a_room_is_a_function_of_its_seed_and_number(rooms: RoomScenes, room_scenes: list[CloudScene]) -> None:
    again = RoomScenes(11, SMALL, range_noise_m=0.0)
    try:
        assert same(again.scene(2), room_scenes[2])
        assert same(rooms.scene(2), room_scenes[2])
        assert not same(room_scenes[1], room_scenes[2])
    finally:
        again.close()


def test_moving_things_move_as_their_boxes_say() -> None:
    """Two turns, half of a second apart: points on what moves, taken back by its velocity, are in its box."""
    slow = SpinningPattern(np.linspace(-25, 10, 24).tolist(), 180, 2.0)
    scenes = RoomScenes(3, slow, sweeps=2, range_noise_m=0.0)
    try:
        moved = 0
        for number in range(3):
            scene = scenes.scene(number)
            assert scene.time_s is not None
            assert scene.time_s.min() < -0.9
            for row, instance in enumerate(scene.boxes.instance):
                velocity, mine = scene.boxes.velocity_m_s[row], scene.instance == instance
                old = mine & (scene.time_s < -0.5)
                if np.linalg.norm(velocity) > 0.5 and old.sum() > 5:
                    now = scene.xyz_m[mine] - scene.time_s[mine, None] * velocity
                    assert inside(scene.boxes, row, now, 0.02).all()
                    assert not inside(scene.boxes, row, scene.xyz_m[old], 0.02).all()  # they were elsewhere
                    moved += 1
        assert moved >= 2
    finally:
        scenes.close()


def test_taking_out_the_bases_motion_is_what_makes_a_floor_plan_stand_still() -> None:
    straight, raw, parked = (
        RoomScenes(5, SMALL, range_noise_m=0.0, compensated=compensated, moving_base=moving)
        for compensated, moving in ((True, True), (False, True), (True, False))
    )
    try:
        worst = []
        for scenes in (straight, raw):
            scene = scenes.scene(1)
            still = [row for row in range(len(scene.boxes.label)) if not scene.boxes.velocity_m_s[row].any()]
            outside = [
                1.0 - inside(scene.boxes, row, scene.xyz_m[scene.instance == scene.boxes.instance[row]], 0.01).mean()
                for row in still
                if scene.boxes.points[row]
            ]
            worst.append(max(outside))
        assert worst[0] < 0.02 < worst[1]
        assert not same(parked.scene(1), straight.scene(1))
    finally:
        for scenes in (straight, raw, parked):
            scenes.close()


def test_each_ray_meets_a_moving_thing_where_it_is_then(world: PyBulletWorld, stage_of: Stages) -> None:
    """A wall that comes nearer at 2 m/s: the range falls with the ray's own time."""
    stage = stage_of(ROOM)
    stage.put(
        block("carton", "carton", (1.0, 4.0, 2.0), (0.0, 0.0, 1.0)), (5.0, 0.0, 0.0), velocity_m_s=(-2.0, 0.0, 0.0)
    )
    stage.put(block("bin", "bin", (0.2, 2.0), (0.0, 0.0, 1.0)), (0.0, 3.0, 0.0))
    offset = np.array([-0.5, -0.25, 0.0, 0.0])
    sight = Sight(world, stage, offset_s=offset)
    sight.set_time(1.0)
    start = np.tile([0.0, 0.0, 1.0], (4, 1))
    ends = start + np.array([[9.0, 0, 0], [9.0, 0, 0], [9.0, 0, 0], [0.0, 9.0, 0]])
    cosines = np.zeros(4)
    found = sight.ray_cast(start, ends, cosines=cosines)
    assert found == pytest.approx([4.5 - 2.0 * 0.5, 4.5 - 2.0 * 0.75, 4.5 - 2.0, 2.8])
    assert cosines == pytest.approx([1.0] * 4)
    semantic, _, _ = stage.truth(sight.body)
    assert [list(ROOM)[each] for each in semantic] == ["carton", "carton", "carton", "bin"]
    sight.blind = True
    assert np.isinf(sight.ray_cast(start, ends)).all()
    assert (sight.body == -1).all()
    with pytest.raises(SensorError):
        sight.link_pose(CARRIER)


def test_the_body_of_a_ray_is_that_of_a_search_through_all(world: PyBulletWorld, stage_of: Stages) -> None:
    """Random boxes that touch and overlap, against one cast per body."""
    rng = np.random.default_rng(0)
    stage = stage_of(ROOM)
    for _ in range(25):
        size = tuple(rng.uniform(0.1, 1.0, 3).tolist())
        stage.put(
            block("carton", "carton", size, (0.1, 0.0, size[2] / 2)),
            (*rng.uniform(-2, 2, 2), 0.0),
            float(rng.uniform(-3, 3)),
        )
    start = rng.uniform((-4, -4, 0.0), (4, 4, 2.0), (3000, 3))
    end = rng.uniform((-2, -2, 0.0), (2, 2, 1.0), (3000, 3)) * 3 - start * 2
    sight = Sight(world, stage)
    sight.ray_cast(start, end)
    each = np.stack([world.ray_cast(start, end, bodies=[body.number]) for body in stage.bodies])
    hit = np.isfinite(each.min(axis=0))
    expected = np.where(hit, np.array([body.number for body in stage.bodies])[each.argmin(axis=0)], -1)
    assert 500 < hit.sum() < 3000
    assert np.array_equal(sight.body, expected)


@pytest.mark.parametrize("pattern", [SMALL, SpinningPattern([-10.0, 0.0, 10.0], 100, 10.0), vlp_16(90, 10.0)])
def test_points_find_their_rays(pattern: SpinningPattern) -> None:
    rng = np.random.default_rng(0)
    sweep = pattern.sweep(0.0)
    kept = np.flatnonzero(rng.random(pattern.rays) < 0.6)
    frame = LidarFrame(
        stamp_s=0.0,
        xyz_m=(sweep.directions[kept] * rng.uniform(0.3, 30.0, len(kept))[:, None]).astype(np.float32),
        intensity=np.zeros(len(kept), np.float32),
        offset_s=sweep.offset_s[kept].astype(np.float32),
        count=np.array([len(kept)]),
        base_from_lidar=np.eye(4),
    )
    assert np.array_equal(ray_of(frame, pattern), kept)
    padded = replace(frame, count=np.array([0]))
    assert len(ray_of(padded, pattern)) == 0


def test_boxes_are_given_in_the_base_frame(world: PyBulletWorld, stage_of: Stages) -> None:
    stage = stage_of(ROOM)
    thing = block("carton", "carton", (0.4, 0.2, 0.6), (0.1, 0.0, 0.3))
    stage.put(thing, (2.0, 1.0, 0.0), 0.5, (1.0, 0.0, 0.0))
    stage.put(thing, (0.0, 0.0, 0.0), ground=True)
    world_from_base: FloatArray = pose_of(0.2, np.array([1.0, -1.0, 0.0]))
    boxes = stage.boxes(np.array([0, 0, -1, 0]), world_from_base, 2.0)
    middle = np.array([2.0 + 2.0 + 0.1 * math.cos(0.5), 1.0 + 0.1 * math.sin(0.5), 0.3])
    assert boxes.centre_m == pytest.approx(transform_points(invert(world_from_base), middle[None]))
    assert boxes.size_m == pytest.approx(np.array([[0.4, 0.2, 0.6]]))
    assert boxes.yaw_rad == pytest.approx([0.3])
    assert boxes.velocity_m_s == pytest.approx(np.array([[math.cos(0.2), -math.sin(0.2), 0.0]]))
    assert boxes.points.tolist() == [3]
    assert boxes.instance.tolist() == [0]


def test_camera_points_of_a_scene_are_its_depth_picture(world: PyBulletWorld, stage_of: Stages) -> None:
    stage = stage_of(TABLETOP)
    stage.put(block("ball", "ball", (0.05,), (0.0, 0.0, 0.05)), (0.5, 0.1, 0.0))
    camera = look_at((1.0, 0.0, 0.4), (0.5, 0.0, 0.0))
    intrinsics = np.array([150.0, 150.0, 31.5, 31.5])
    picture = Sight(world, stage).render(camera, intrinsics, 64, 64, 0.05, 3.0)
    points = transform_points(camera, unproject(picture.depth_m, intrinsics))[picture.body == stage.bodies[0].number]
    away = np.linalg.norm(points - (0.5, 0.1, 0.05), axis=1)
    assert len(points) > 100
    assert away.max() < 0.0501
    assert away.min() > 0.0455  # the drawn ball is made of triangles, whose middles lie inside of it


def test_thinning_keeps_the_order_and_the_number() -> None:
    rng = np.random.default_rng(0)
    assert thinned(5, None, rng).tolist() == [0, 1, 2, 3, 4]
    assert thinned(3, 10, rng).tolist() == [0, 1, 2]
    assert thinned(0, 4, rng).tolist() == []
    kept = thinned(1000, 100, rng)
    assert len(set(kept.tolist())) == 100
    assert (np.diff(kept) > 0).all()


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"cameras": 0}, {"points": 0}, {"width": 0}, {"depth_noise_m": -1.0}])
def test_wrong_tabletops_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SpecError):
        TabletopScenes(**{"seed": 0, **wrong})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"sweeps": 0}, {"points": 0}, {"range_noise_m": -1.0}, {"max_m": 0.1}])
def test_wrong_rooms_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SpecError):
        RoomScenes(**{"seed": 0, **wrong})  # type: ignore[arg-type]  # wrong on purpose


def test_negative_numbers_are_refused(tabletop: TabletopScenes, rooms: RoomScenes) -> None:
    for scenes in (tabletop, rooms):
        with pytest.raises(SpecError, match="number"):
            scenes.scene(-1)
