"""Speed and exactness of the simulated LiDAR on the physics engine.

``python -m tests.benchmarks.bench_lidar --out results/lidar.json``

Rates are rays per CPU-second of this process, from the pattern to the frame, with the noise of the configs: best of
several blocks, since other work on the machine only ever makes a block slower. The physics engine's own ray test is
given the same rays in turns with ours. Ranges without noise are compared with sphere tracing (boxes, cylinders) and
with the triangles of the robot's parts, which share no formula with what is measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pybullet
from scipy.spatial import ConvexHull

from envs.base import RobotEnv
from envs.presets import make
from envs.robots.panda import Panda
from envs.world import PyBulletWorld
from perceive.build import build
from perceive.results import Figure, start_clock, write_result
from sensors.geometry import FloatArray, invert, look_at, matrix_to_quaternion, pose, transform_points
from sensors.lidar import Lidar
from sensors.lidar_pattern import ScanPattern, SolidStatePattern, vlp_16
from sensors.timeline import Timing
from tests.contracts import CONF, load_plain

BLOCKS, FRAMES, SCENES, RAYS = 7, 10, 20, 4000
QUIET = {"range_noise_m": 0.0, "angle_noise_rad": 0.0, "ray_dropout": 0.0, "intensity_noise": 0.0}
TRACED_M = 1e-9  # sphere tracing has arrived


# -------------------------------------------------------------------------------------------------------------- speed


def from_config(name: str, **changes: Any) -> Lidar:
    """The LiDAR of a file in conf/sensor, with some settings changed."""
    sensor = build({**load_plain(CONF / "sensor" / f"{name}.yaml"), **changes})
    assert isinstance(sensor, Lidar)
    return sensor


def arm_filler() -> Lidar:
    """The hardest view: a narrow rosette full of the arm."""
    eye = np.array([1.3, 0.6, 0.6])
    right, down, forward = look_at(eye, (0.1, 0.0, 0.4))[:3, :3].T
    turned = matrix_to_quaternion(np.stack([forward, -right, -down], axis=-1))
    return Lidar(
        timing=Timing(rate_hz=12.0),
        pattern=SolidStatePattern(24.0, 8333, 0.08333),
        position_m=eye.tolist(),
        quaternion_xyzw=turned.tolist(),
    )


def ray_rate(lidar: Lidar, world: PyBulletWorld, frames: int) -> tuple[float, float]:
    """Rays per CPU-second, and the share of rays that gave a point."""
    lidar.open(world)
    lidar.reset(np.random.default_rng(0))
    rays = lidar.space["intensity"].shape[0]
    points = int(lidar.read(0.0).count[0])
    begin = time.process_time()
    for number in range(1, frames + 1):
        lidar.read(number / 12.0)
    taken = time.process_time() - begin
    lidar.close()
    return frames * rays / taken, points / rays


def engine_rate(pattern: ScanPattern, base_from_lidar: FloatArray, world: PyBulletWorld, frames: int) -> float:
    """The physics engine's own rays per CPU-second, lists and distances included; all bodies, no noise, no frame."""
    directions = pattern.sweep(0.0).directions @ base_from_lidar[:3, :3].T
    starts = np.broadcast_to(base_from_lidar[:3, 3], directions.shape)
    ends = starts + 30.0 * directions
    begin = time.process_time()
    for _ in range(frames):
        for first in range(0, len(starts), 16_000):
            part = slice(first, first + 16_000)
            hits = pybullet.rayTestBatch(
                starts[part].tolist(), ends[part].tolist(), numThreads=1, physicsClientId=world._id
            )
            np.array([hit[2] if hit[0] >= 0 else np.inf for hit in hits])
    return frames * len(starts) / (time.process_time() - begin)


def measure_speed(seed: int = 0) -> dict[str, Figure]:
    """Rates in the Lift scene, each block of ours beside one of the engine's."""
    env = make("lift", cameras=False)
    assert isinstance(env, RobotEnv)
    env.reset(seed=seed)
    dense = {"_target_": "sensors.lidar_pattern.vlp_16", "azimuth_steps": 1500, "rotation_hz": 12.0}
    lidars = {
        "spinning": from_config("lidar_spinning"),
        "spinning_dense": from_config("lidar_spinning", pattern=dense),
        "solid_state": from_config("lidar_solid_state"),
        "arm_fills_view": arm_filler(),
    }
    rates: dict[str, list[float]] = {name: [] for name in (*lidars, "engine_spinning", "engine_arm")}
    seen: dict[str, float] = {}
    arm = lidars["arm_fills_view"]
    arm_pose = arm._link_from_lidar
    spinning_pose = lidars["spinning"]._link_from_lidar
    for _ in range(BLOCKS):
        for name, lidar in lidars.items():
            rate, seen[name] = ray_rate(lidar, env.world, FRAMES)
            rates[name].append(rate)
        rates["engine_spinning"].append(engine_rate(vlp_16(450, 12.0), spinning_pose, env.world, FRAMES))
        rates["engine_arm"].append(engine_rate(SolidStatePattern(24.0, 8333, 0.08333), arm_pose, env.world, 1))
    env.close()
    best = {name: max(values) for name, values in rates.items()}
    figures = {
        f"{name}_rays_per_cpu_s": Figure(best[name], "rays/CPU-s", n=BLOCKS, at_least=100_000.0) for name in lidars
    }
    figures |= {f"{name}_points_per_ray": Figure(seen[name], "fraction") for name in lidars}
    figures["engine_spinning_rays_per_cpu_s"] = Figure(best["engine_spinning"], "rays/CPU-s", n=BLOCKS)
    figures["engine_arm_fills_view_rays_per_cpu_s"] = Figure(best["engine_arm"], "rays/CPU-s", n=BLOCKS)
    return figures


# ---------------------------------------------------------------------------------------------------------- exactness


@dataclass(frozen=True, eq=False)
class Body:
    """A box (half edges [3]) or an upright cylinder (radius, half height) in the base frame."""

    base_from_body: FloatArray
    size_m: FloatArray

    def outside_m(self, points_m: FloatArray) -> FloatArray:
        """Signed distance [N] of points [N, 3] from the surface."""
        local = transform_points(invert(self.base_from_body), points_m)
        if len(self.size_m) == 2:
            local = np.stack([np.hypot(local[:, 0], local[:, 1]), local[:, 2]], axis=-1)
        beyond = np.abs(local) - self.size_m
        apart: FloatArray = np.linalg.norm(np.maximum(beyond, 0.0), axis=1) + np.minimum(beyond.max(axis=1), 0.0)
        return apart


def random_scene(rng: np.random.Generator) -> tuple[PyBulletWorld, list[Body]]:
    """A table, five boxes and five cylinders."""
    world, bodies = PyBulletWorld(), []
    colour = (1.0, 1.0, 1.0, 1.0)
    world.add_box((0.55, 0.6, 0.02), (0.35, 0.0, -0.02), mass_kg=0.0, rgba=colour)
    bodies.append(Body(pose((0.35, 0.0, -0.02)), np.array([0.55, 0.6, 0.02])))
    for _ in range(5):
        half, place, yaw = rng.uniform(0.01, 0.1, 3), rng.uniform((0, -0.5, 0), (0.8, 0.5, 0.4)), rng.uniform(-3, 3)
        world.add_box(half.tolist(), place, yaw, mass_kg=0.0, rgba=colour)
        bodies.append(Body(pose(place, (0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2))), half))
        radius, height = rng.uniform(0.01, 0.1), rng.uniform(0.02, 0.3)
        place = rng.uniform((0, -0.5, 0), (0.8, 0.5, 0.4))
        world.add_cylinder(radius, height, place, mass_kg=0.0, rgba=colour)
        bodies.append(Body(pose(place), np.array([radius, height / 2])))
    return world, bodies


def rays_from_outside(bodies: Sequence[Body], count: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Starts [N, 3] outside of all bodies, and unit directions [N, 3] towards the middle of the scene, roughly."""
    starts = rng.uniform((-1.5, -2.0, -0.5), (2.5, 2.0, 1.5), (2 * count, 3))
    outside = np.min([body.outside_m(starts) for body in bodies], axis=0) > 0.01
    starts = starts[outside][:count]
    towards = rng.uniform((0.0, -0.5, -0.02), (0.8, 0.5, 0.4), (len(starts), 3)) - starts
    return starts, towards / np.linalg.norm(towards, axis=1, keepdims=True)


def traced_m(bodies: Sequence[Body], starts: FloatArray, directions: FloatArray, far_m: float) -> FloatArray:
    """Ranges [N] by sphere tracing (Hart, The Visual Computer 1996): infinity = nothing within ``far_m``."""
    at, moving = np.zeros(len(starts)), np.arange(len(starts))
    for _ in range(20_000):
        points = starts[moving] + at[moving, None] * directions[moving]
        gap = np.min([body.outside_m(points) for body in bodies], axis=0)
        at[moving] += np.maximum(gap, TRACED_M / 2)
        moving = moving[(gap > TRACED_M) & (at[moving] < far_m)]
        if not len(moving):
            break
    return np.where(at < far_m, at, np.inf)


def scene_errors_mm(seed: int, count: int) -> FloatArray:
    """Range errors [N] in a random scene; where only one of the two meets anything, the length of the other."""
    rng = np.random.default_rng(seed)
    world, bodies = random_scene(rng)
    starts, directions = rays_from_outside(bodies, count, rng)
    found = world.ray_cast(starts, starts + 5.0 * directions, robot=True)
    world.close()
    return _errors_mm(found, traced_m(bodies, starts, directions, 5.0))


def robot_errors_mm(seed: int, count: int) -> FloatArray:
    """The same for the robot alone in a random pose, against the triangles of its parts."""
    rng = np.random.default_rng(seed)
    world = PyBulletWorld()
    panda = Panda()
    panda.attach(world)
    world.place_joints(rng.uniform(-1.0, 1.0, 7) + np.array([0.0, 0.0, 0.0, -1.8, 0.0, 1.8, 0.0]), 0.06)
    triangles = robot_triangles(world)
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    turn = rng.standard_normal((count, 3))
    starts = (low + high) / 2 + 1.5 * turn / np.linalg.norm(turn, axis=1, keepdims=True)
    directions = rng.uniform(low, high, (count, 3)) - starts
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = world.ray_cast(starts, starts + 5.0 * directions, robot=True)
    world.close()
    expected = np.concatenate(
        [_nearest_triangle(triangles, starts[i : i + 200], directions[i : i + 200]) for i in range(0, count, 200)]
    )
    return _errors_mm(found, expected)


def robot_triangles(world: PyBulletWorld) -> FloatArray:
    """Corners [F, 3, 3] of the robot's collision model in the base frame; boxes as the hull of their corners."""
    robot, client, found = world._robot, world._id, []
    for link in world._links.values():
        if link < 0:
            base_from_link = pose(*pybullet.getBasePositionAndOrientation(robot, physicsClientId=client))
        else:
            base_from_link = pose(*pybullet.getLinkState(robot, link, 0, 1, physicsClientId=client)[:2])
        for shape in pybullet.getCollisionShapeData(robot, link, physicsClientId=client):
            if shape[2] == pybullet.GEOM_BOX:
                signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
                points = transform_points(pose(shape[5], shape[6]), signs * np.array(shape[3]) / 2)
            else:
                points = np.array(pybullet.getMeshData(robot, link, physicsClientId=client)[1])
            points = transform_points(base_from_link, points)
            found.append(points[ConvexHull(points).simplices])
    return np.concatenate(found)


def _nearest_triangle(corners: FloatArray, starts: FloatArray, directions: FloatArray) -> FloatArray:
    """Ranges [N] to the nearest of triangles [F, 3, 3] (Moeller and Trumbore, Journal of Graphics Tools 1997)."""
    first, edge, other = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = np.cross(directions[:, None], other)
    area = (across * edge).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = starts[:, None] - first
        u = (apart * across).sum(-1) / area
        turned = np.cross(apart, edge)
        v = (turned * directions[:, None]).sum(-1) / area
        range_m = (turned * other).sum(-1) / area
        inside = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (range_m > 0)
    nearest: FloatArray = np.where(inside, range_m, np.inf).min(axis=1)
    return nearest


def _errors_mm(found: FloatArray, expected: FloatArray) -> FloatArray:
    neither = np.isinf(found) & np.isinf(expected)
    with np.errstate(invalid="ignore"):
        apart = np.abs(np.where(np.isinf(found), 0.0, found) - np.where(np.isinf(expected), 0.0, expected))
    return np.where(neither, 0.0, apart) * 1e3


def measure_exactness(seeds: Sequence[int]) -> dict[str, Figure]:
    """Worst errors over random scenes and over random poses of the robot."""
    scenes = np.concatenate([scene_errors_mm(seed, RAYS) for seed in seeds])
    robots = np.concatenate([robot_errors_mm(seed, RAYS // 4) for seed in seeds])
    return {
        "worst_range_error_mm": Figure(float(scenes.max()), "mm", n=len(scenes), at_most=1.0),
        "worst_range_error_on_robot_mm": Figure(float(robots.max()), "mm", n=len(robots), at_most=1.0),
    }


def main(out: Path) -> dict[str, Figure]:
    """Measure and write the result file; its figures are returned."""
    started = start_clock()
    seeds = list(range(SCENES))
    figures = {**measure_speed(0), **measure_exactness(seeds)}
    write_result(
        out,
        "lidar",
        figures,
        seeds,
        {"blocks": BLOCKS, "frames": FRAMES, "scenes": SCENES, "rays_per_scene": RAYS},
        started=started,
        about=(
            "Simulated LiDAR in the Lift scene, robot seen, from scan pattern to frame; 'engine' is the physics "
            "engine's own ray test on the same rays, without noise or frame. Range errors without noise, over random "
            "scenes."
        ),
        command=f"python -m tests.benchmarks.bench_lidar --out {out}",
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for key, figure in main(parser.parse_args().out).items():
        print(f"{key:40s} {figure.value:.6g} {figure.unit}")
