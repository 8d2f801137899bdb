"""Blurs as linear maps of rows and columns, with their borders built in; each picks the cheaper of two ways."""

from __future__ import annotations

import math
from typing import Literal, final

import numpy as np
import torch
from scipy.special import ive
from torch import Tensor, nn
from torch.nn import functional

Border = Literal["replicate", "reflect"]
Taper = Literal["discrete", "sampled"]
_REACH = 3.5  # standard deviations at which a kernel ends
_TAIL = 1e-5
# What one tap of a shifted sum costs a pixel, in multiplications of a matrix product; and what all of them cost at
# least, as each is a call.
_TAP_COST, _CALLS_COST = 8, 100


def weights(sigma_px: float, taper: Taper = "discrete") -> np.ndarray:
    """One side and the middle of a Gaussian kernel, fp64 [r + 1], middle first; the whole kernel sums to 1.

    ``discrete``: the discrete Gaussian (T. Lindeberg, "Scale-space for discrete signals", PAMI 1990). Its variance is
    ``sigma_px`` squared however small that is, so that a kernel of so many metres does the same at every resolution.
    ``sampled``: samples of the Gaussian, cut off where Taxim's port for batches does.
    """
    if taper == "sampled":
        size = math.sqrt(max(-2 * math.log(_TAIL * math.sqrt(2 * math.pi) * sigma_px), 0.0)) * sigma_px
        half = np.exp(-0.5 * (np.arange(round(size) // 2 + 1) / sigma_px) ** 2)
    else:
        half = ive(np.arange(math.ceil(_REACH * sigma_px) + 1), sigma_px**2)
    kernel: np.ndarray = half / (2 * half.sum() - half[0])
    return kernel


def _inside(index: np.ndarray, size: int, border: Border) -> np.ndarray:
    if border == "replicate":
        return np.asarray(np.clip(index, 0, size - 1))
    period = max(2 * (size - 1), 1)
    index = np.abs(index) % period
    return np.asarray(np.where(index >= size, period - index, index))


def blur_matrix(size: int, half: np.ndarray, border: Border = "replicate") -> np.ndarray:
    """A blur of ``size`` pixels as a matrix, fp64 [size, size]; its rows sum to 1."""
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for shift in range(1 - len(half), len(half)):
        np.add.at(matrix, (rows, _inside(rows + shift, size, border)), half[abs(shift)])
    return matrix


def enlarging_matrix(size: int, times: int) -> np.ndarray:
    """Linear interpolation of ``size`` pixels to ``times`` as many, fp64 [times * size, size]."""
    at = (np.arange(size * times) + 0.5) / times - 0.5
    low = np.floor(at).astype(int)
    part = at - low
    matrix = np.zeros((size * times, size))
    rows = np.arange(size * times)
    np.add.at(matrix, (rows, np.clip(low, 0, size - 1)), 1 - part)
    np.add.at(matrix, (rows, np.clip(low + 1, 0, size - 1)), part)
    return matrix


@final
class Blur(nn.Module):
    """A separable blur of pictures [B, h, w], and their enlargement by ``times`` in the same step.

    Long kernels are products with two matrices that have the border in them; short ones sums of shifted pictures, which
    touch less memory. (Convolutions of torch take two to five times as long as either on a processor, Fourier
    transforms about as long as the matrices, with a border that is not ours.) Every picture of a batch is worked on by
    itself, so that it comes out the same, bit for bit, whatever stands beside it.

    Args:
        rows: h.
        columns: w.
        sigma_px: standard deviations along y and x, in pixels of the input.
        times: how many times as many pixels come out.
        border: what lies beyond: the last pixel again, or the picture mirrored about it.
        taper: see :func:`weights`.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        sigma_px: tuple[float, float],
        times: int = 1,
        border: Border = "replicate",
        taper: Taper = "discrete",
    ) -> None:
        super().__init__()
        halves = [weights(sigma, taper) for sigma in sigma_px]
        taps = sum(2 * len(half) - 1 for half in halves)
        self._shifted = times == 1 and _TAP_COST * taps + _CALLS_COST < rows + columns
        self._border: Border = border
        if self._shifted:
            self._halves = [half.tolist() for half in halves]
            return
        for name, size, half in (("down", rows, halves[0]), ("across", columns, halves[1])):
            matrix = blur_matrix(size, half, border)
            if times > 1:
                matrix = enlarging_matrix(size, times) @ matrix
            matrix = matrix if name == "down" else matrix.T
            self.register_buffer(name, torch.tensor(np.ascontiguousarray(matrix)), persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        """[B, h, w] -> [B, times * h, times * w], of the type and on the device that came."""
        if self._shifted:
            return self._sum(self._sum(picture, self._halves[1], 2), self._halves[0], 1)
        down, across = (matrix.to(picture) for matrix in (self.get_buffer("down"), self.get_buffer("across")))
        batch = len(picture)
        # Fewer multiplications when the picture grows last; expanded matrices make a product for each picture.
        narrow = torch.bmm(picture, across.expand(batch, -1, -1))
        return torch.bmm(down.expand(batch, -1, -1), narrow)

    def _sum(self, picture: Tensor, half: list[float], axis: int) -> Tensor:
        reach = len(half) - 1
        if reach == 0:
            return picture
        edges = (reach, reach, 0, 0) if axis == 2 else (0, 0, reach, reach)
        wide = functional.pad(picture[:, None], edges, mode=self._border)[:, 0]
        size = picture.shape[axis]
        total = wide.narrow(axis, reach, size) * half[0]
        for shift in range(1, reach + 1):
            total.add_(wide.narrow(axis, reach - shift, size), alpha=half[shift])
            total.add_(wide.narrow(axis, reach + shift, size), alpha=half[shift])
        return total
