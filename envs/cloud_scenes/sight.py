"""Sight: the world as sensors of a generated scene see it, which notes what each pixel or ray met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from envs.cloud_scenes.stage import SLACK_M, Body, Put, Stage, pose_of
from envs.world import PyBulletWorld
from sensors.base import JointState, Picture, Touching
from sensors.errors import SensorError
from sensors.geometry import FloatArray

CARRIER = "carrier"  # the link that a sensor on the moving base hangs on
_SAME_M = 1e-9  # two surfaces this close to each other are one; rounding is far below it
NOTHING = -1


@final
class Sight:
    """Answers a camera or a LiDAR (:class:`sensors.base.World`) and keeps the truth about its latest measurement.

    Things move while a LiDAR turns: each ray meets them where they are at its own time. A thing that moves steadily is
    met by a ray at time t as the same thing at rest would be by a ray that is shifted by minus its way until t, so this
    is exact for every ray.

    Args:
        world: where the scene stands.
        stage: what stands in it.
        world_from_carrier: the pose [4, 4] of the link "carrier" at a time in seconds.
        offset_s: float [R], when each ray of a LiDAR is fired, relative to the time of its reading.

    Attributes:
        blind: rays meet nothing: for a reading that only tells a LiDAR where it is.
        body: int32, number of the body in each pixel [H, W] or on each ray [R] of the latest measurement; -1 = none.
    """

    def __init__(
        self,
        world: PyBulletWorld,
        stage: Stage,
        world_from_carrier: Callable[[float], FloatArray] | None = None,
        offset_s: FloatArray | None = None,
    ) -> None:
        self._world, self._stage = world, stage
        self._world_from_carrier = world_from_carrier
        self._offset_s = offset_s
        self._now_s = 0.0
        self.blind = False
        self.body: NDArray[np.int32] = np.zeros(0, np.int32)

    def set_time(self, now_s: float) -> None:
        """Call it this moment, and put things where they are then."""
        self._now_s = now_s
        self._stage.move(now_s)

    @property
    def time_s(self) -> float:
        """The moment."""
        return self._now_s

    @property
    def instruction(self) -> str:
        """None."""
        return ""

    def render(
        self,
        base_from_camera: FloatArray,
        intrinsics_px: FloatArray,
        width: int,
        height: int,
        near_m: float,
        far_m: float,
    ) -> Picture:
        """The picture of a pinhole camera."""
        picture = self._world.render(base_from_camera, intrinsics_px, width, height, near_m, far_m)
        self.body = picture.body
        return picture

    def link_pose(self, link: str) -> FloatArray:
        """The pose of the carrier."""
        if link != CARRIER or self._world_from_carrier is None:
            raise _not_here(f"link '{link}'")
        return self._world_from_carrier(self._now_s)

    def ray_cast(
        self,
        start_m: FloatArray,
        end_m: FloatArray,
        *,
        robot: bool = False,
        cosines: FloatArray | None = None,
        bodies: Sequence[int] | None = None,
    ) -> FloatArray:
        """Metres [R] along rays to the first surface; there is no robot, and all bodies count."""
        start, end = np.asarray(start_m, dtype=float), np.asarray(end_m, dtype=float)
        distance, slope = np.full(len(start), np.inf), np.zeros(len(start))
        self.body = np.full(len(start), NOTHING, np.int32)
        if not self.blind:
            still = [body for body in self._stage.bodies if not self._put(body).velocity_m_s.any()]
            distance = self._world.ray_cast(start, end, cosines=slope, bodies=[body.number for body in still])
            self.body = self._which(still, start, end, distance)
            offset_s = np.zeros(len(start)) if self._offset_s is None else self._offset_s
            for number, put in enumerate(self._stage.put_so_far):
                if put.velocity_m_s.any():
                    self._meet(number, put, offset_s, start, end, distance, slope)
        if cosines is not None:
            cosines[:] = slope
        return distance

    def _meet(
        self,
        number: int,
        put: Put,
        offset_s: FloatArray,
        start: FloatArray,
        end: FloatArray,
        distance: FloatArray,
        slope: FloatArray,
    ) -> None:
        """Let rays meet a moving thing where they meet it before all else; the last two arrays are written to."""
        low, high = put.thing.bounds_m
        middle = put.place_m + self._now_s * put.velocity_m_s + [0.0, 0.0, (low[2] + high[2]) / 2]
        reach = np.hypot(put.thing.radius_m, (high[2] - low[2]) / 2) + np.abs(offset_s).max() * np.linalg.norm(
            put.velocity_m_s
        )
        rays = _towards(start, end, middle, float(reach))
        if not len(rays):
            return
        bodies = [body for body in self._stage.bodies if body.owner == number]
        way = offset_s[rays, None] * put.velocity_m_s
        from_m, to_m, own = start[rays] - way, end[rays] - way, np.zeros(len(rays))
        found = self._world.ray_cast(from_m, to_m, cosines=own, bodies=[body.number for body in bodies])
        which = self._which(bodies, from_m, to_m, found)
        first = found < distance[rays]
        chosen = rays[first]
        distance[chosen], slope[chosen], self.body[chosen] = found[first], own[first], which[first]

    def _which(
        self, bodies: Sequence[Body], start: FloatArray, end: FloatArray, distance: FloatArray
    ) -> NDArray[np.int32]:
        """The body [R] that each ray met first: the one whose own distance is that of all.

        Only the bodies in whose box a ray ends are asked.
        """
        out = np.full(len(start), NOTHING, np.int32)
        hit = np.flatnonzero(np.isfinite(distance))
        along = end[hit] - start[hit]
        share = distance[hit] / np.sqrt(np.einsum("ni,ni->n", along, along))
        point = np.ascontiguousarray((start[hit] + share[:, None] * along).T)
        apart = np.full(len(start), np.inf)
        for owner in sorted({body.owner for body in bodies}):
            put = self._stage.put_so_far[owner]
            place = put.place_m + self._now_s * put.velocity_m_s
            inside = np.flatnonzero(np.hypot(point[0] - place[0], point[1] - place[1]) <= put.thing.radius_m + SLACK_M)
            local = pose_of(-put.yaw_rad)[:3, :3] @ (point[:, inside] - place[:, None])
            for body in bodies:
                if body.owner != owner:
                    continue
                low, high = body.low_m[:, None], body.high_m[:, None]
                near = hit[inside[((local >= low) & (local <= high)).all(axis=0)]]
                if len(near):
                    found = np.abs(self._world.ray_cast(start[near], end[near], bodies=[body.number]) - distance[near])
                    nearer = found < np.minimum(apart[near], _SAME_M)
                    out[near[nearer]], apart[near[nearer]] = body.number, found[nearer]
        return out

    def _put(self, body: Body) -> Put:
        return self._stage.put_so_far[body.owner]

    def link_velocity(self, link: str) -> tuple[FloatArray, FloatArray]:
        """Nobody asks."""
        raise _not_here("link_velocity")

    def joint_state(self) -> JointState:
        """Nobody asks."""
        raise _not_here("joint_state")

    def wrench(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Nobody asks."""
        raise _not_here("wrench")

    def touches(self, link: str, margin_m: float) -> bool:
        """Nobody asks."""
        raise _not_here("touches")

    def touching(self, link: str, margin_m: float) -> Sequence[Touching]:
        """Nobody asks."""
        raise _not_here("touching")


def _towards(start: FloatArray, end: FloatArray, middle: FloatArray, reach: float) -> NDArray[np.intp]:
    """The rays that come into a ball."""
    along, ahead = end - start, middle - start
    share = np.einsum("ni,ni->n", ahead, along) / np.maximum(np.einsum("ni,ni->n", along, along), 1e-300)
    apart = ahead - np.clip(share, 0.0, 1.0)[:, None] * along
    return np.flatnonzero(np.einsum("ni,ni->n", apart, apart) <= reach**2)


def _not_here(what: str) -> SensorError:
    return SensorError("cloud scene", "a camera, or a LiDAR on the carrier", what, "There is no robot in this world.")
