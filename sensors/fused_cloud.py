"""One point cloud in the base frame out of the depth of several cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.base import Sensor, World
from sensors.errors import SensorLost, SpecError, nearest
from sensors.frames import PointFrame, RgbdFrame
from sensors.geometry import transform_points, unproject
from sensors.observation import Stream
from sensors.rig import SensorRig
from sensors.simulated import check_settings, not_ready, positive
from sensors.spec import box
from sensors.timeline import EPSILON_S, Timing

_FIELDS = ("rgb", "depth_m", "intrinsics_px", "base_from_camera")
# A voxel's code along the curve and a pixel's number are sorted as one whole number: 3 x 14 bits and 21 bits.
_AXIS_BITS, _PIXEL_BITS = 14, 21

Points = tuple[NDArray[np.float32], NDArray[np.uint8]]  # xyz_m [N, 3] and rgb [N, 3]


@final
class FusedCloud(Sensor):
    """What several RGB-D cameras measure, as one coloured point cloud of fixed capacity in the base frame.

    The cameras form a rig of their own, inside: each keeps its rate, delay, dropout and faults, and a read takes what
    can be seen of each at that moment. A camera that has nothing to show (lost, unplugged, a gap, a corrupt frame, one
    older than its ``max_age_s``) is left out: the cloud is made of the others, :attr:`counts` says how often, and
    ``count`` of the frame is smaller. If all of them are left out, the cloud is lost (:class:`SensorLost`). If no
    camera has a new frame since the last cloud, there is no cloud either: a copy would look like a measurement.

    ``stamp_s`` is the *oldest* capture among the frames that are in the cloud. Nobody sees in a point which camera it
    came from, so the cloud's age is an upper bound of every point's: a policy that trusts the age never takes an old
    part for a new one. Cameras that are read at one moment share one stamp.

    Pixels without a measurement (0, below 0, NaN, infinite) and points outside the box give nothing. Of the others the
    mean is taken in each cube of ``edge_m`` of a grid that starts at ``low_m``, in place and colour. These are ordered
    along a z-order curve through the box, and of more than ``points`` of them so many are taken evenly along it. So
    neither the order of the cameras nor that of the pixels matters, nor whether two cameras see the same surface.

    Args:
        cameras: name -> camera; any sensor with the fields of :class:`sensors.frames.RgbdFrame`. The noise of each
            depends on its name, not on which others there are.
        points: P, capacity of a frame.
        edge_m: edge of a cube of the grid, metres.
        low_m: corner [3] of the box in the base frame, metres; points on it are inside.
        high_m: the opposite corner [3]; points on it are outside.
        timing: rate, delay, dropout, history of the cloud, besides those of its cameras; live as they are.

    Raises:
        SpecError: an argument is out of its range, a camera has no such fields, or some are live and others not.
    """

    def __init__(
        self,
        *,
        cameras: Mapping[str, Sensor],
        points: int,
        edge_m: float,
        low_m: Sequence[float],
        high_m: Sequence[float],
        timing: Timing,
    ) -> None:
        low, high = np.asarray(low_m, dtype=float), np.asarray(high_m, dtype=float)
        corners = low.shape == high.shape == (3,) and bool(np.isfinite([low, high]).all() and (low < high).all())
        check_settings(
            "FusedCloud",
            {
                "cameras": (len(cameras) > 0, sorted(cameras), "at least one camera"),
                "points": (points >= 1, points, "at least 1"),
                "low_m": (corners, f"{low_m!r} (high_m {high_m!r})", "3 finite numbers, each below that of high_m"),
                **positive({"edge_m": edge_m}),
            },
        )
        cells = np.floor((high - low) / edge_m).max() + 1
        fine = cells < 2**_AXIS_BITS
        check_settings("FusedCloud", {"edge_m": (fine, edge_m, f"fewer than {2**_AXIS_BITS} cubes along each edge")})
        pixels = sum(_pixels(name, camera, timing) for name, camera in cameras.items())
        check_settings("FusedCloud", {"cameras": (pixels <= 2**_PIXEL_BITS, f"{pixels} pixels", "2 million at most")})
        self._rig = SensorRig({name: _Depth(camera) for name, camera in cameras.items()})
        self._points = points
        self._edge_m = float(edge_m)
        self._low_m, self._high_m = low, high
        self._spread = _spread(int(cells) + 1)
        self._timing = timing
        self._open = False
        self._seed: int | None = None  # of the episode; None = not reset
        self._started = False  # whether the rig inside knows of the episode: it learns when at the first read
        self._used_s: dict[str, float] = {}  # camera -> stamp of its frame in the last cloud

    @property
    def space(self) -> spaces.Dict:
        """xyz_m, rgb, count; see :class:`sensors.frames.PointFrame`."""
        # One bound for all: bounds of each number would be written into the header of every episode.
        reach = float(np.abs([self._low_m, self._high_m]).max())
        return spaces.Dict(
            {
                "xyz_m": box(-reach, reach, (self._points, 3)),
                "rgb": box(0, 255, (self._points, 3), np.uint8),
                "count": box(0, self._points, (1,), np.int64),
            }
        )

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history of the cloud."""
        return self._timing

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Camera -> frames dropped and frames masked as corrupt since reset."""
        return self._rig.counts

    def open(self, world: World | None) -> None:
        """Open every camera; if one fails, those already open are closed again.

        Raises:
            SensorError: a camera could not be opened.
        """
        self._rig.open(world)
        self._open = True

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode: all noise of the cameras comes from ``rng``."""
        self._seed = int(rng.integers(2**63))
        self._started = False
        self._used_s = {}

    def read(self, now_s: float) -> PointFrame | None:
        """The cloud of what can be seen now; None = no camera has anything new, or none has shown anything yet.

        Raises:
            SensorLost: every camera is away, or silent for longer than its ``max_age_s``.
            SensorError: not open, or not reset.
        """
        if not self._open or self._seed is None:
            raise not_ready("FusedCloud")
        if not self._started:
            self._rig.reset(now_s, self._seed)
            self._started = True
        self._rig.tick(now_s)
        streams = self._rig.observe(now_s).streams
        seen = {name: stream for name, stream in streams.items() if stream.valid[-1]}
        if not seen:
            if not self._used_s:
                return None
            fix = "Check cables and power; it goes on by itself when one is back."
            raise SensorLost("FusedCloud.read", f"a frame of one of {list(streams)}", "none", fix)
        stamps_s = {name: now_s - float(stream.age_s[-1]) for name, stream in seen.items()}
        if all(stamp_s <= self._used_s.get(name, -np.inf) + EPSILON_S for name, stamp_s in stamps_s.items()):
            return None
        self._used_s |= stamps_s
        parts = [self._inside(stream) for stream in seen.values()]
        xyz_m, rgb = self._thinned(np.concatenate([xyz for xyz, _ in parts]), np.concatenate([rgb for _, rgb in parts]))
        return PointFrame(
            stamp_s=min(stamps_s.values()),
            xyz_m=_padded(xyz_m, self._points),
            rgb=_padded(rgb, self._points),
            count=np.array([len(xyz_m)], np.int64),
        )

    def close(self) -> None:
        """Close every camera. May be called twice."""
        self._rig.close()
        self._open = False
        self._seed = None

    def _inside(self, stream: Stream) -> Points:
        """What the newest frame of a camera measured within the box, in the base frame."""
        rgb, depth_m, intrinsics_px, base_from_camera = (stream.data[field][-1] for field in _FIELDS)
        measured = depth_m > 0
        points = transform_points(base_from_camera, unproject(depth_m, intrinsics_px)[measured])
        # Before they become float32: what is far beyond its range is outside the box as well.
        kept = ((points >= self._low_m) & (points < self._high_m)).all(1)
        return points[kept].astype(np.float32), rgb[measured][kept]

    def _thinned(self, xyz_m: NDArray[np.float32], rgb: NDArray[np.uint8]) -> Points:
        """The mean of each occupied cube, in the order of the curve, and evenly no more than P of them."""
        if not len(xyz_m):
            return xyz_m, rgb
        # float32 may have rounded a point up to the far side of the box or below the near one.
        cell = np.maximum(np.floor((xyz_m - self._low_m) / self._edge_m).astype(np.int64), 0)
        code = self._spread[cell[:, 0]] << 2 | self._spread[cell[:, 1]] << 1 | self._spread[cell[:, 2]]
        # All different, so that sorting has one answer whatever the algorithm.
        packed = np.sort(code << _PIXEL_BITS | np.arange(len(code)))
        order, code = packed & (2**_PIXEL_BITS - 1), packed >> _PIXEL_BITS
        first = np.flatnonzero(np.concatenate([[True], code[1:] != code[:-1]]))
        chosen = np.arange(len(first))
        if len(first) > self._points:
            chosen = (2 * np.arange(self._points) + 1) * len(first) // (2 * self._points)
        # In double precision the sum of a cube's points is the same in any order, but for the very last bits.
        rows = np.concatenate([xyz_m.T, rgb.T]).astype(np.float64)[:, order]
        held = np.diff(np.append(first, len(order)))
        mean = (np.add.reduceat(rows, first, axis=1) / held)[:, chosen]
        return mean[:3].T.astype(np.float32), np.floor(mean[3:].T + 0.5).astype(np.uint8)


@final
class _Depth(Sensor):
    """A camera with the four fields of an RgbdFrame and nothing else; depth that is no finite number is 0.

    A rig masks a whole frame for one NaN in it; many cameras write NaN where they measured nothing, and the rest is
    good.
    """

    def __init__(self, camera: Sensor) -> None:
        self._camera = camera

    @property
    def space(self) -> spaces.Dict:
        known = self._camera.space.spaces
        return spaces.Dict({field: known[field] for field in _FIELDS})

    @property
    def timing(self) -> Timing:
        return self._camera.timing

    def open(self, world: World | None) -> None:
        self._camera.open(world)

    def reset(self, rng: np.random.Generator) -> None:
        self._camera.reset(rng)

    def read(self, now_s: float) -> RgbdFrame | None:
        frame = self._camera.read(now_s)
        if frame is None:
            return None
        arrays = frame.arrays()
        depth_m = arrays["depth_m"]
        return RgbdFrame(
            stamp_s=frame.stamp_s,
            rgb=arrays["rgb"],
            depth_m=np.where(np.isfinite(depth_m), depth_m, depth_m.dtype.type(0)),
            intrinsics_px=arrays["intrinsics_px"],
            base_from_camera=arrays["base_from_camera"],
        )

    def close(self) -> None:
        self._camera.close()


def _pixels(name: str, camera: Sensor, timing: Timing) -> int:
    """How many pixels a camera has.

    Raises:
        SpecError: it is no RGB-D camera, or it is live and the cloud is not, or the other way round.
    """
    place, known = f"FusedCloud, camera '{name}'", camera.space.spaces
    for field in _FIELDS:
        if field not in known:
            fix = nearest(field, known) + " Use cameras with colour and depth."
            raise SpecError(place, f"the fields {list(_FIELDS)}", f"no '{field}'", fix)
    height, width = known["depth_m"].shape or (0, 0)
    wanted = {"rgb": (height, width, 3), "intrinsics_px": (4,), "base_from_camera": (4, 4)}
    for field, shape in wanted.items():
        if known[field].shape != shape:
            fix = "Register depth to colour; both pictures have one size."
            raise SpecError(f"{place}, '{field}'", f"shape {shape}", f"{known[field].shape}", fix)
    if camera.timing.live != timing.live:
        got = f"live: {camera.timing.live} in a cloud with live: {timing.live}"
        raise SpecError(f"{place}, timing", "cameras that are all live, or all not, as the cloud", got, "Correct it.")
    return int(height * width)


def _spread(values: int) -> NDArray[np.int64]:
    """int64 [values]: each whole number with two zero bits between its bits."""
    number = np.arange(values, dtype=np.int64)
    out = np.zeros_like(number)
    for bit in range(_AXIS_BITS):
        out |= (number >> bit & 1) << 3 * bit
    return out


def _padded(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """[rows, ...]: the values, and zeros below them."""
    out = np.zeros((rows, *values.shape[1:]), values.dtype)
    out[: len(values)] = values
    return out
