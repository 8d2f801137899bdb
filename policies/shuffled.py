"""ShuffledPolicy: a policy that gets what some sensors said in another episode; does it use what they say?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch

from policies.base import Policy
from policies.episode_file import Episode
from policies.episodes import list_episodes
from sensors.action import Action
from sensors.errors import DataError, WiringError, nearest
from sensors.observation import Observation, Stream

KNOWN = ("intrinsics_px", "size_m")  # of the sensor, not of what it measures


@final
class ShuffledPolicy(Policy):
    """Lets a policy act on another episode's readings of some sensors, all taken from the same one.

    The readings are there, look as they always do, and tell nothing of the present episode: where unplugging a sensor
    asks whether a policy can do without, this asks whether it listens. Where a sensor is and how it looks (poses,
    intrinsics) stays true. The other episode is drawn at every reset from torch's generator, which a rollout seeds;
    when it is over, its last moment stays.

    Args:
        policy: what acts.
        sensors: whose readings are exchanged.
        folder: recorded episodes of the same rig.

    Raises:
        DataError: no episode is in the folder, or one is damaged.
        WiringError: the episodes do not have such a sensor.
    """

    def __init__(self, policy: Policy, sensors: Sequence[str], folder: str | Path) -> None:
        self._policy, self._sensors, self._paths = policy, tuple(sensors), list_episodes(folder)
        if not self._paths:
            fix = "Name the folder of demonstrations: shuffled_from=runs/episodes/..."
            raise DataError(f"shuffled sensors, '{folder}'", "recorded episodes", "none", fix)
        self._other = self._open(0)
        self._start_s: float | None = None

    def reset(self) -> None:
        """Start an episode with the readings of another one."""
        self._policy.reset()
        self._other = self._open(int(torch.randint(len(self._paths), ()).item()))
        self._start_s = None

    def act(self, observation: Observation) -> Action:
        """The policy's action."""
        self._start_s = observation.now_s if self._start_s is None else self._start_s
        times = self._other.time_s - self._other.time_s[0]
        row = int(np.searchsorted(times, observation.now_s - self._start_s + 1e-6, side="right")) - 1
        other = self._other.observation(max(row, 0))
        streams = dict(observation.streams)
        for name in self._sensors:
            if name not in streams:
                raise WiringError("shuffled sensors", f"sensors {sorted(streams)}", f"'{name}'", nearest(name, streams))
            streams[name] = _exchanged(name, streams[name], other.streams[name])
        return self._policy.act(Observation(observation.now_s, streams))

    def _open(self, index: int) -> Episode:
        episode = Episode(self._paths[index], "quick")
        known = episode.header.sensor_spaces
        for name in self._sensors:
            if name not in known:
                raise WiringError("shuffled sensors", f"sensors {sorted(known)}", f"'{name}'", nearest(name, known))
        return episode


def _exchanged(name: str, own: Stream, other: Stream) -> Stream:
    """The other's readings where this stream has a frame, at its own place."""
    data = dict(own.data)
    for field, value in other.data.items():
        if field in KNOWN or field.startswith("base_from_"):
            continue
        if field not in data or data[field].shape != value.shape:
            got = f"{value.shape}" if field in data else "another kind of sensor"
            expected = f"{field} {data[field].shape}" if field in data else f"the fields {sorted(data)}"
            raise WiringError(f"shuffled sensors, '{name}'", expected, got, "Use episodes of the same rig.")
        data[field] = value
    return Stream(data, other.age_s, own.valid & other.valid)
