"""KeyframeDataset: a folder of dense demonstrations as samples of "from here, which key pose is next?"."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from perceive.batch import ActionTarget, Batch
from perceive.normalize import FieldStats
from policies.dataset import EpisodeDataset
from policies.episode_file import Episode, Verify
from policies.episodes import EpisodeHeader
from policies.keyframes.discovery import DiscoverySettings
from policies.keyframes.reader import StoredSensor
from policies.keyframes.samples import KeyEpisode, joint_sensor, key_episode
from policies.keyframes.store import FOLDER, FrameStore, Wanted, frame_store
from sensors.action import ActionSpec, key_pose_spec
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

_LOG = logging.getLogger(__name__)


class KeyframeDataset:
    """Samples of key poses out of the episodes of a folder; stands in for an EpisodeDataset where a model is trained.

    A sample is the observation at a frame and, as its target, the first key pose after it (see
    :func:`policies.keyframes.samples.key_episode`); key poses are found, not recorded
    (:mod:`policies.keyframes.discovery`). Only frames that samples look at are kept, colour as uint8 and depth in steps
    of 0.1 mm (:mod:`policies.keyframes.depth`), in a cache that is made once (:mod:`policies.keyframes.store`).
    May be pickled; a copy in another process maps the files itself.

    Args:
        folder: holds ``episode_*.h5``, recorded with end-effector-pose actions.
        history: T, for every sensor or by name; None = as recorded. At most as recorded, unless ``compact`` is off.
        sensors: names to read; None = all.
        on_bad: what to do with a file that is truncated or corrupt, or a demonstration that cannot be used:
            ``"raise"``, or ``"skip"`` it, log a warning and list it in :attr:`skipped`.
        verify: ``"full"`` checks every byte that is read, ``"quick"`` only completeness.
        limit: use the first ``limit`` episodes only.
        every: stride of the frames that samples start from, besides the first frame and the keyframes.
        keyframe_share: the least share of the training samples that start where a policy will: at the first frame or a
            keyframe. Reached by repeating them in what :meth:`split` returns. 1 = only those.
        fine_m: a move shorter than this, or that starts or ends where the gripper opens or closes, may touch
            (``avoid`` = -1); the others keep clear (1).
        discovery: when a frame is a keyframe; None = the defaults.
        joints: the sensor of the joints; None = the only one that measures joints, gripper and tool.
        compact: keep the frames in the cache; otherwise they are read from the episodes, bit for bit.
        cache: folder of the cache; None = ``keyframes`` in ``folder``.

    Attributes:
        episodes: those that are used.
        skipped: what was left out, and why.

    Raises:
        DataError: no usable episode, a bad one with ``on_bad="raise"``, episodes that differ in sensors, rates or
            action, an unknown sensor, or a longer history than recorded.
        SpecError: a number out of range, or actions that are not end-effector poses with rotation and gripper.
    """

    def __init__(
        self,
        folder: str | Path,
        history: int | Mapping[str, int] | None = None,
        sensors: Sequence[str] | None = None,
        on_bad: Literal["raise", "skip"] = "raise",
        verify: Verify = "full",
        limit: int | None = None,
        every: int = 4,
        keyframe_share: float = 0.5,
        fine_m: float = 0.1,
        discovery: DiscoverySettings | None = None,
        joints: str | None = None,
        compact: bool = True,
        cache: str | Path | None = None,
    ) -> None:
        _check(every, keyframe_share, fine_m)
        self.folder = Path(folder)
        self.chunk = 1
        # Bytes are checked where they are read: all of them without the cache, else when a store is made or mapped.
        self._dense = EpisodeDataset(folder, 1, history, sensors, on_bad, "quick" if compact else verify, limit)
        self.header: EpisodeHeader = self._dense.header
        self.sensor_spaces: dict[str, spaces.Dict] = self._dense.sensor_spaces
        self.history: dict[str, int] = self._dense.history
        self.action_spec: ActionSpec = key_pose_spec(self.header.action)
        self.skipped: list[str] = list(self._dense.skipped)
        self._share = keyframe_share
        if compact:
            self._check_history()
        joints = joint_sensor(self.header, joints)
        settings = discovery or DiscoverySettings()
        place = self.folder / FOLDER if cache is None else Path(cache)
        self._keys: list[KeyEpisode] = []
        self.episodes: list[Episode] = []
        stores: list[FrameStore] = []
        rows, first = [], 0
        for episode in self._dense.episodes:
            try:
                key = key_episode(episode, joints, self.action_spec, every, fine_m, settings)
                if compact:
                    stores.append(frame_store(episode, Wanted(tuple(key.rows.tolist()), self.history), place, verify))
                self._keys.append(key)
                self.episodes.append(episode)
                rows.append(first + key.rows)
            except DataError as error:
                if on_bad == "raise":
                    raise
                self.skipped.append(str(error))
                _LOG.warning("skipped an episode: %s", error)
            first += len(episode)
        if not self._keys:
            raise DataError(str(folder), "at least one demonstration", "none that can be used", "See the warnings.")
        counts = [len(key.rows) for key in self._keys]
        self._rows = np.concatenate(rows)  # of each sample, in the dense dataset
        self._episode = np.repeat(np.arange(len(counts)), counts)
        self._starts = np.concatenate([key.starts for key in self._keys])
        self._targets = np.concatenate([key.targets[key.goals] for key in self._keys])
        self._stored = {n: StoredSensor(stores, n, s) for n, s in self.sensor_spaces.items()} if compact else {}

    def __len__(self) -> int:
        """Number of different samples."""
        return len(self._rows)

    def batch(self, indices: ArrayLike) -> tuple[Batch, ActionTarget]:
        """The samples at ``indices`` [B].

        Returns:
            Streams [B, T, ...] (age relative to each sample's own moment, zeros where not valid), and the next key
            poses [B, 1, A], all of them valid.
        """
        chosen = np.asarray(indices, np.int64)
        target = ActionTarget(
            torch.from_numpy(self._targets[chosen][:, None]), torch.ones(len(chosen), 1, dtype=torch.bool)
        )
        if not self._stored:
            return self._dense.batch(self._rows[chosen])[0], target
        owners = self._episode[chosen]
        return Batch({name: sensor.stream(chosen, owners) for name, sensor in self._stored.items()}), target

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sample indices for training and for validation; whole episodes are held back, about ``fraction`` of them.

        Samples that start at a first frame or keyframe come several times, so that they make up ``keyframe_share`` of
        each part: whoever shuffles the indices shows a model what it will be asked. At least one episode is held back
        if ``fraction`` > 0 and there are two or more.
        """
        count = len(self._keys)
        held = min(max(round(fraction * count), 1), count - 1) if fraction > 0 else 0
        rng = np.random.default_rng(seed)
        back = np.isin(self._episode, rng.permutation(count)[:held])
        return self._weighted(np.flatnonzero(~back), rng), self._weighted(np.flatnonzero(back), rng)

    def stats(self) -> dict[str, FieldStats]:
        """As :meth:`policies.dataset.EpisodeDataset.stats`, over all frames; ``"action"`` over the key poses, each
        counted once."""
        poses = np.concatenate([key.targets[np.unique(key.goals)] for key in self._keys]).astype(np.float64)
        own = FieldStats(poses.mean(0), poses.std(0), poses.min(0), poses.max(0))
        return self._dense.stats() | {"action": own}

    def keyframes(self, episode: int) -> list[tuple[int, FloatArray]]:
        """The keyframes of one demonstration, for people: (frame, ``base_from_tool`` [4, 4]) in order."""
        key = self._keys[episode]
        return list(zip(key.keyframes.tolist(), key.base_from_tool, strict=True))

    def describe(self) -> list[str]:
        """One line per demonstration: its file, its samples, its keyframes with gripper and way of getting there."""
        gripper, avoid = self.action_spec.part("gripper").start, self.action_spec.part("avoid").start
        lines = []
        for episode, key in zip(self.episodes, self._keys, strict=True):
            parts = [
                f"{frame} ({', '.join(f'{x:.3f}' for x in target[self.action_spec.part('position_m')])}; "
                f"{'open' if target[gripper] > 0 else 'closed'}, {'clear' if target[avoid] > 0 else 'fine'})"
                for frame, target in zip(key.keyframes.tolist(), key.targets, strict=True)
            ]
            lines.append(f"{episode.path.name}: {len(key.rows)} samples, key poses at {', '.join(parts)}")
        return lines

    def _weighted(self, indices: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """``indices`` with those of starts repeated up to their share, sorted."""
        starts, others = indices[self._starts[indices]], indices[~self._starts[indices]]
        if self._share == 1 or not len(starts):
            return starts if len(starts) else indices
        copies = round(len(others) * self._share / (1 - self._share))
        if copies <= len(starts):
            return indices
        return np.sort(np.concatenate([others, np.resize(rng.permutation(starts), copies)]))

    def _check_history(self) -> None:
        for name, steps in self.history.items():
            if steps > self.header.history[name]:
                raise DataError(
                    f"sensor '{name}'",
                    f"a history of at most {self.header.history[name]} (recorded)",
                    str(steps),
                    "Collect again with the longer history, or set compact=False.",
                )


def _check(every: int, keyframe_share: float, fine_m: float) -> None:
    for name, good, got, wanted in (
        ("every", every >= 1, every, "at least 1"),
        ("keyframe_share", 0 <= keyframe_share <= 1, keyframe_share, "0 to 1"),
        ("fine_m", fine_m >= 0, fine_m, "at least 0"),
    ):
        if not good:
            raise SpecError(f"KeyframeDataset, {name}", wanted, repr(got), "Correct it.")
