"""StoredSensor: one sensor of all episodes as batches, out of their stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from perceive.batch import BatchStream, to_tensor
from policies.keyframes.depth import depth_quantum_m, unpack
from policies.keyframes.store import FrameStore

_SMALL_BYTES = 1024  # fields up to this size per frame are held in memory, larger ones are read from the mapped file


class StoredSensor:
    """Reads one sensor.

    Args:
        stores: one per episode.
        name: of the sensor.
        space: of one frame, as it is given out.
    """

    def __init__(self, stores: Sequence[FrameStore], name: str, space: spaces.Dict) -> None:
        rows = f"rows/{name}"
        self._index = np.concatenate([store.array(f"{rows}/frame") for store in stores]).astype(np.int64)
        self._age_s = np.concatenate([store.array(f"{rows}/age_s") for store in stores])
        self._valid = np.concatenate([store.array(f"{rows}/valid") for store in stores]).astype(bool)
        self._small: dict[str, NDArray[Any]] = {}
        self._large: dict[str, tuple[tuple[int, ...], np.dtype[Any], float | None]] = {}
        counts = []
        for field, box in space.spaces.items():
            assert isinstance(box, spaces.Box)
            shape, dtype = tuple(box.shape), np.dtype(box.dtype)
            if np.prod(shape) * dtype.itemsize <= _SMALL_BYTES and depth_quantum_m(field, box) is None:
                tables = [store.array(f"obs/{name}/{field}") for store in stores]
                # One row more: what is shown where nothing is, so that a sensor that never spoke has a row at all.
                self._small[field] = np.concatenate([*tables, np.zeros((1, *shape), dtype)])
            else:
                self._large[field] = (shape, dtype, depth_quantum_m(field, box))
            counts = [len(store.array(f"obs/{name}/{field}")) for store in stores]
        self._first = np.cumsum([0, *counts])[:-1]
        self._name = name
        self._stores = list(stores)

    def stream(self, samples: NDArray[np.int64], episodes: NDArray[np.int64]) -> BatchStream:
        """The samples [B], which belong to the episodes [B]."""
        index, valid = self._index[samples], self._valid[samples]
        data = {}
        for field, table in self._small.items():
            data[field] = to_tensor(table[np.where(valid, index + self._first[episodes][:, None], -1)])
        for field, (shape, dtype, quantum_m) in self._large.items():
            value = np.empty((*index.shape, *shape), dtype)
            for sample, owner in enumerate(episodes.tolist()):
                frames = self._stores[owner].array(f"obs/{self._name}/{field}")
                for step, frame in enumerate(index[sample].tolist()):
                    if frame < 0:
                        value[sample, step] = 0
                    elif quantum_m is None:
                        value[sample, step] = frames[frame]
                    else:
                        unpack(frames[frame], quantum_m, value[sample, step])
            data[field] = to_tensor(value)
        return BatchStream(data, torch.from_numpy(self._age_s[samples]), torch.from_numpy(valid))
