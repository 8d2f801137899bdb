"""Which samples and which random numbers belong to a training step: pure functions of the seed and the step.

Nothing here has a state, so a run that was killed and goes on at step n sees exactly what it would have seen.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError


class SampleOrder:
    """The samples of every step: one permutation per epoch, batches cut from the endless row of them.

    Args:
        indices: int64 [n], the samples to go through.
        batch_size: B over all processes.
        seed: of the permutations.

    Raises:
        DataError: there is no sample.
    """

    def __init__(self, indices: NDArray[np.int64], batch_size: int, seed: int) -> None:
        if not len(indices):
            raise DataError("SampleOrder", "at least one sample", "none", "Collect more episodes or hold fewer back.")
        self._indices = indices
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = indices  # a cache only: recomputed whenever the epoch differs

    def step(self, step: int) -> NDArray[np.int64]:
        """int64 [B] for step 0, 1, ..."""
        count = len(self._indices)
        places = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        out = np.empty(self._batch_size, np.int64)
        for epoch in range(int(places[0] // count), int(places[-1] // count) + 1):
            if epoch != self._epoch:
                rng = np.random.default_rng([self._seed, epoch])
                self._permutation, self._epoch = self._indices[rng.permutation(count)], epoch
            mine = places // count == epoch
            out[mine] = self._permutation[places[mine] % count]
        return out

    def epoch(self, step: int) -> float:
        """How often every sample has been seen before a step."""
        return step * self._batch_size / len(self._indices)


def step_seed(seed: int, step: int, purpose: int, process: int = 0) -> int:
    """A seed for one purpose (1 = dropout and noise of the heads, 2 = augmentation) in one step of one process."""
    return int(np.random.SeedSequence([seed, step, purpose, process]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def extend_digest(digest: int, indices: NDArray[np.int64]) -> int:
    """Checksum of all sample indices so far; equal digests mean the same samples in the same order."""
    return zlib.crc32(np.ascontiguousarray(indices).data, digest)
