"""Where a LiDAR looks, and when: the scan patterns of spinning and of solid-state devices.

The LiDAR's frame has +x forwards, +y to the left and +z up. A sweep is all that is fired in ``sweep_s`` seconds up to
its end; firing times are relative to that end, so they lie in [-sweep_s, 0) and rise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from sensors.errors import SpecError
from sensors.geometry import FloatArray
from sensors.simulated import check_settings, positive


@dataclass(frozen=True, eq=False)
class Sweep:
    """The rays of one sweep, in the order in which they are fired.

    Attributes:
        directions: float [N, 3], unit vectors in the LiDAR's frame.
        offset_s: float [N], firing times relative to the sweep's end; rising, in [-sweep_s, 0).
    """

    directions: FloatArray
    offset_s: FloatArray


class ScanPattern(ABC):
    """Directions and firing times of a LiDAR's rays."""

    @property
    @abstractmethod
    def rays(self) -> int:
        """N, rays of one sweep."""

    @property
    @abstractmethod
    def sweep_s(self) -> float:
        """How long a sweep takes, seconds."""

    @abstractmethod
    def sweep(self, end_s: float) -> Sweep:
        """The sweep that ends at ``end_s`` seconds on the device's clock. Its arrays must not be written to."""


@final
class SpinningPattern(ScanPattern):
    """Lasers one above the other on a head that turns, counter-clockwise seen from above.

    A sweep is one turn, which begins and ends where the head faces +x. The head turns on while the lasers of a step
    are fired one after the other, so ray k of a step looks at the azimuth that belongs to its own firing time.

    Args:
        elevations_deg: elevation of each laser above the head's plane, in the order in which they are fired.
        azimuth_steps: how often all lasers are fired in a turn.
        rotation_hz: turns per second.
        firing_s: seconds from one laser's firing to the next one's; 0 = all at once.

    Raises:
        SpecError: an argument is out of its range, or the lasers of a step take longer than the step.
    """

    def __init__(
        self, elevations_deg: Sequence[float], azimuth_steps: int, rotation_hz: float, firing_s: float = 0.0
    ) -> None:
        upright = len(elevations_deg) > 0 and all(-90 <= angle <= 90 for angle in elevations_deg)
        check_settings(
            "SpinningPattern",
            {
                "elevations_deg": (upright, elevations_deg, "one or more angles from -90 to 90 degrees"),
                "azimuth_steps": (azimuth_steps >= 1, azimuth_steps, "at least 1"),
                "firing_s": (firing_s >= 0, firing_s, "0 or more seconds"),
                **positive({"rotation_hz": rotation_hz}),
            },
        )
        step_s = 1.0 / rotation_hz / azimuth_steps
        if firing_s * len(elevations_deg) > step_s:
            raise SpecError(
                "SpinningPattern, azimuth_steps",
                f"time to fire {len(elevations_deg)} lasers, {firing_s * len(elevations_deg):.6g} s, within a step",
                f"{azimuth_steps} steps of {step_s:.6g} s",
                "Take fewer steps, or turn more slowly.",
            )
        self._sweep_s = 1.0 / rotation_hz
        since_start = np.arange(azimuth_steps)[:, None] * step_s + np.arange(len(elevations_deg)) * firing_s
        azimuth = 2 * np.pi * rotation_hz * since_start
        elevation = np.deg2rad(np.asarray(elevations_deg, dtype=float))
        flat = np.cos(elevation)
        directions = np.stack(
            [flat * np.cos(azimuth), flat * np.sin(azimuth), np.broadcast_to(np.sin(elevation), azimuth.shape)], axis=-1
        )
        self._sweep = Sweep(directions.reshape(-1, 3), (since_start - self._sweep_s).ravel())

    @property
    def rays(self) -> int:
        """Lasers times steps."""
        return len(self._sweep.offset_s)

    @property
    def sweep_s(self) -> float:
        """The time of a turn."""
        return self._sweep_s

    def sweep(self, end_s: float) -> Sweep:
        """One turn; they are all alike."""
        return self._sweep


@final
class SolidStatePattern(ScanPattern):
    """The rosette of a beam behind two prisms that turn at different speeds; it does not repeat from sweep to sweep.

    Each thin prism bends the beam by a quarter of the field of view, in the direction that it is turned to; the two
    vectors add up (Rosell, "Prism scanner", JOSA 1960). The curve goes on from sweep to sweep: where the beam is
    depends on the device's time alone. It closes when both prisms have made whole turns: after 30 s with the default
    speeds, about those of a Livox Mid-40 (Brazeal, Wilkinson and Hochmair, Sensors 2021).

    Args:
        fov_deg: full angle of the round field of view, degrees, around +x.
        rays: rays of one sweep.
        sweep_s: how long a sweep takes, seconds.
        prism_rpm: turns per minute of the two prisms; the sign is the sense of turning about +x.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self, fov_deg: float, rays: int, sweep_s: float, prism_rpm: Sequence[float] = (7294.0, -4664.0)
    ) -> None:
        differ = len(prism_rpm) == 2 and abs(prism_rpm[0]) != abs(prism_rpm[1])
        check_settings(
            "SolidStatePattern",
            {
                "fov_deg": (0 < fov_deg <= 180, fov_deg, "an angle above 0 and up to 180 degrees"),
                "rays": (rays >= 1, rays, "at least 1"),
                "prism_rpm": (differ, prism_rpm, "2 speeds of different size"),
                **positive({"sweep_s": sweep_s}),
            },
        )
        self._bend_rad = np.deg2rad(fov_deg) / 4
        self._turn_rad_s = np.asarray(prism_rpm, dtype=float)[:, None] * (2 * np.pi / 60)
        self._sweep_s = sweep_s
        self._offset_s = np.arange(rays) * (sweep_s / rays) - sweep_s

    @property
    def rays(self) -> int:
        """Rays of a sweep."""
        return len(self._offset_s)

    @property
    def sweep_s(self) -> float:
        """The time of a sweep."""
        return self._sweep_s

    def sweep(self, end_s: float) -> Sweep:
        """The part of the curve that ends at ``end_s``."""
        turned = self._turn_rad_s * (end_s + self._offset_s)
        left, up = self._bend_rad * np.cos(turned).sum(axis=0), self._bend_rad * np.sin(turned).sum(axis=0)
        off_axis = np.hypot(left, up)
        spread = np.sinc(off_axis / np.pi)  # sin(x) / x, right at 0 too
        return Sweep(np.stack([np.cos(off_axis), spread * left, spread * up], axis=-1), self._offset_s)


def vlp_16(azimuth_steps: int, rotation_hz: float) -> SpinningPattern:
    """16 lasers from -15 to 15 degrees, as in a Velodyne VLP-16 (user manual 63-9243): fired 2.304 us apart.

    The device takes about 1808 steps at 10 Hz; fewer make a sparser sweep. Its lasers sit up to 11 mm above each other,
    here all rays start in one point.
    """
    low, high = np.arange(-15.0, 0.0, 2.0), np.arange(1.0, 16.0, 2.0)
    return SpinningPattern(np.stack([low, high], axis=-1).ravel().tolist(), azimuth_steps, rotation_hz, 2.304e-6)


def hdl_32(azimuth_steps: int, rotation_hz: float) -> SpinningPattern:
    """32 lasers from -30.67 to 10.67 degrees, as in a Velodyne HDL-32E: fired 1.152 us apart.

    The device takes about 2170 steps at 10 Hz.
    """
    low, high = (-92 + 4 * np.arange(16)) / 3, (-28 + 4 * np.arange(16)) / 3
    return SpinningPattern(np.stack([low, high], axis=-1).ravel().tolist(), azimuth_steps, rotation_hz, 1.152e-6)


def hdl_64(azimuth_steps: int, rotation_hz: float) -> SpinningPattern:
    """64 lasers, spaced as in a Velodyne HDL-64E: 2 to -8.33 degrees by thirds, -8.83 to -24.33 by halves.

    Fired from top to bottom, evenly over each step: the device's own order is that of its calibration file.
    """
    elevations = [*(2 - np.arange(32) / 3).tolist(), *(-53 / 6 - np.arange(32) / 2).tolist()]
    # The least bit under an even share, so that 64 of them fit into a step whatever the rounding.
    firing_s = (1 - 1e-9) / (64.0 * azimuth_steps * rotation_hz) if azimuth_steps * rotation_hz > 0 else 0.0
    return SpinningPattern(elevations, azimuth_steps, rotation_hz, firing_s)
