"""The nearest points of each query, and those within a radius. Batched, exact, equal distances to the lowest index.

Small clouds are searched by comparing all with all, large ones by a tree (SciPy's, on the CPU); both give the same
answer bit for bit, so the switch cannot be seen. Distances are compared in single precision, by
``(dx^2 + dy^2) + dz^2`` of coordinate differences: not by the expanded product, which loses millimetres far from the
origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.geometry import full_precision, widened
from sensors.errors import SpecError

FAR_M = 1e15  # farther than this from the origin a point is no measurement: squares would overflow
TREE_FROM = 1 << 18  # queries times points of a cloud from which a tree is faster (measured on one core)
_BLOCK = 1 << 18  # distances at a time: what stays in the cache
_BLOCK_ELSEWHERE = 1 << 26
_ROWS = 1 << 16  # queries of a tree at a time
_NEAR_TIE = 2e-6  # squared distances this close (relatively) may change places when rounded to single precision
_INFINITE = 0x7F800000  # bits of infinity, which no distance of a usable point reaches


@dataclass(frozen=True, eq=False)
class Neighbours:
    """K points for each of Q queries, nearest first.

    Attributes:
        index: int64 [B, Q, K] into the P points; where not valid the nearest point again, or 0 if there is none.
        distance_m: float [B, Q, K]; infinite where not valid. No gradient: take it from the points.
        valid: bool [B, Q, K]; False where there are fewer points (within the radius), or the query is not valid.
    """

    index: Tensor
    distance_m: Tensor
    valid: Tensor


def usable(points_m: Tensor, valid: Tensor | None = None) -> Tensor:
    """Which points are valid, finite and nearer than 1e15 m in each coordinate, bool [...] for points [..., 3]."""
    near = (points_m.abs() < FAR_M).all(-1)  # False of NaN
    return near if valid is None else near & valid


def nearest(
    query_m: Tensor,
    points_m: Tensor,
    count: int,
    *,
    query_valid: Tensor | None = None,
    valid: Tensor | None = None,
    tree_from: int = TREE_FROM,
) -> Neighbours:
    """The ``count`` nearest points of each query; a query that is itself a point finds itself.

    Args:
        query_m: float [B, Q, 3].
        points_m: float [B, P, 3].
        count: K.
        query_valid: bool [B, Q]; None = all that are finite.
        valid: bool [B, P]; None = all that are finite.
        tree_from: least ``Q * P`` for which a tree is built (on the CPU).

    Raises:
        SpecError: shapes that do not fit, or ``count`` below 1.
    """
    return _search(query_m, points_m, count, float("inf"), query_valid, valid, tree_from)


def within(
    query_m: Tensor,
    points_m: Tensor,
    radius_m: float,
    count: int,
    *,
    query_valid: Tensor | None = None,
    valid: Tensor | None = None,
    tree_from: int = TREE_FROM,
) -> Neighbours:
    """The nearest points of each query that are at most ``radius_m`` away, at most ``count``.

    Arguments and errors as of :func:`nearest`. Unlike the ball query of PointNet++ (Qi et al., NeurIPS 2017), which
    takes the first ones it meets, the answer does not depend on the order of the points.
    """
    if not radius_m > 0:
        raise SpecError("within.radius_m", "a radius above 0", repr(radius_m), "Correct it.")
    return _search(query_m, points_m, count, float(radius_m), query_valid, valid, tree_from)


def take_points(values: Tensor, index: Tensor) -> Tensor:
    """Rows [B, ..., C] of values [B, P, C] by index [B, ...]; differentiable."""
    size, total, width = values.shape
    lead = torch.arange(size, device=index.device).view(-1, *(1 for _ in index.shape[1:]))
    flat = (index + total * lead).flatten()
    return values.reshape(size * total, width).index_select(0, flat).view(*index.shape, width)


@torch.no_grad()
def _search(
    query_m: Tensor,
    points_m: Tensor,
    count: int,
    radius_m: float,
    query_valid: Tensor | None,
    valid: Tensor | None,
    tree_from: int,
) -> Neighbours:
    size, queries, points = _checked(query_m, points_m, count)
    query_m, points_m = widened(query_m), widened(points_m)
    asks, there = usable(query_m, query_valid), usable(points_m, valid)
    if not (size and queries and points):
        shape = (size, queries, count)
        nothing = torch.zeros(shape, dtype=torch.int64, device=query_m.device)
        return Neighbours(nothing, query_m.new_full(shape, torch.inf), nothing.bool())
    # In rows of their own, so that blocks read what lies together; what is not usable is infinitely far.
    source = torch.where(there[..., None], points_m, torch.inf).transpose(1, 2).contiguous()
    target = torch.where(asks[..., None], query_m, 0.0)
    with full_precision(query_m.device):
        if query_m.device.type == "cpu" and queries * points >= tree_from:
            each = zip(target, asks, points_m, there, strict=True)
            key = torch.stack([_tree_keys(*cloud, count, radius_m) for cloud in each])
        else:
            key = _all_keys(target, source, count)
        square = (key >> 32).to(torch.int32).view(torch.float32)
        found = (square < torch.inf) & asks[..., None]
        first = torch.where(found[..., :1], key[..., :1] & 0xFFFFFFFF, 0)
        index = torch.where(found, key & 0xFFFFFFFF, first)
        distance = (take_points(torch.where(there[..., None], points_m, 0.0), index) - target[:, :, None]).norm(dim=-1)
        close = found & (distance <= radius_m)
        # The nearest stands in for those beyond the radius, too.
        index = torch.where(close, index, torch.where(close[..., :1], first, 0))
    return Neighbours(index, torch.where(close, distance, torch.inf), close)


def _square(apart: Tensor) -> Tensor:
    """Squared lengths [...] of differences [3, ...], which are overwritten, in single precision.

    Each step is an operation of its own: a compiler may contract ``a * b + c`` here and not there, and then equal
    distances would differ.
    """
    apart.mul_(apart)
    return apart[0].add_(apart[1]).add_(apart[2]).float()


def _keys(square: Tensor, index: Tensor) -> Tensor:
    """One int64 per candidate that sorts by distance, then index: bits of a float >= 0 sort like its value."""
    return (square.view(torch.int32).long() << 32).bitwise_or_(index)


def _all_keys(query: Tensor, points: Tensor, count: int) -> Tensor:
    """The lowest keys [B, Q, K] of all with all; query [B, Q, 3], points [B, 3, P], infinite where not usable."""
    size, queries, _ = query.shape
    total = points.shape[2]
    number = torch.arange(total, device=points.device)
    most = min(count, total)
    out = torch.full((size, queries, count), _INFINITE << 32, device=points.device)
    block = _BLOCK if points.device.type == "cpu" else _BLOCK_ELSEWHERE
    rows = max(1, block // total)
    clouds = max(1, rows // queries)
    for first in range(0, size, clouds):
        own = slice(first, first + clouds)
        columns = points[own].transpose(0, 1)[:, :, None]  # [3, b, 1, P]
        for start in range(0, queries, rows):
            part = slice(start, start + rows)
            at = query[own, part].permute(2, 0, 1)[..., None]  # [3, b, q, 1]
            key = _keys(_square(at - columns), number)
            out[own, part, :most] = key.topk(most, dim=2, largest=False).values
    return out


def _tree_keys(query: Tensor, asks: Tensor, points: Tensor, there: Tensor, count: int, radius_m: float) -> Tensor:
    """The lowest keys [Q, K] of one cloud on the CPU by a tree; query [Q, 3], points [P, 3]."""
    out = torch.full((len(query), count), _INFINITE << 32)
    number = there.nonzero()[:, 0]
    rows = asks.nonzero()[:, 0]
    if len(number):
        tree = _Tree(*_thinned(points.index_select(0, number), number, count), radius_m)
        left = []
        for part in torch.split(rows, _ROWS):
            key, sure = tree.lowest(query.index_select(0, part), count, count + 1)
            out[part, : key.shape[1]] = key
            left.append(part[~sure])
        unsure = torch.cat(left) if left else rows
        if len(unsure):
            _settle(tree, query, unsure, count, out)
    return out


def _settle(tree: _Tree, query: Tensor, rows: Tensor, count: int, out: Tensor) -> None:
    """Answers rows of queries whose last neighbour has rivals at the same distance, by looking ever further."""
    wide = 2 * count + 8
    while len(rows):
        left = []
        for part in torch.split(rows, max(1, _ROWS * 16 // wide)):
            key, sure = tree.lowest(query.index_select(0, part), count, wide)
            out[part] = _INFINITE << 32
            out[part, : key.shape[1]] = key
            left.append(part[~sure])
        rows = torch.cat(left)
        wide *= 4


def _thinned(points: Tensor, number: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` lowest points of each place: no others of a place can be among the ``count`` lowest of a query.

    Without this, each query of a cloud of equal points would look at them all.
    """
    bits = points.view(torch.int32 if points.dtype == torch.float32 else torch.int64).long()
    mixed = (bits[:, 0] * 73856093) ^ (bits[:, 1] * 19349663) ^ (bits[:, 2] * 83492791)
    if (
        int(torch.unique(mixed, return_counts=True)[1].max()) <= count
    ):  # as good as always; the same place, the same mix
        return points, number
    order = torch.arange(len(points))
    for values in points.unbind(1):
        order = order[values[order].sort(stable=True).indices]
    ordered = points.index_select(0, order)
    begins = torch.ones(len(order), dtype=torch.bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(1)
    places = torch.arange(len(order))
    first = torch.where(begins, places, 0).cummax(0).values
    keep = order[places - first < count].sort().values
    return points.index_select(0, keep), number.index_select(0, keep)


class _Tree:
    """A k-d tree over points [P, 3] that are numbers [P], ascending, of a cloud."""

    def __init__(self, points: Tensor, number: Tensor, radius_m: float) -> None:
        from scipy.spatial import cKDTree

        self._points = points
        self._number = number
        self._radius_m = radius_m
        # Without balancing and shrinking it is built in half the time, and many equal points do not end in recursion.
        self._tree = cKDTree(points.double().numpy(), leafsize=32, balanced_tree=False, compact_nodes=False)

    def lowest(self, query: Tensor, count: int, wide: int) -> tuple[Tensor, Tensor]:
        """The lowest keys [Q, <= count] of ``wide`` candidates, and whether no other point can be one of them."""
        total = len(self._points)
        wide = min(wide, total)
        distance, index = self._tree.query(
            query.double().numpy(),
            k=range(1, wide + 1),
            distance_upper_bound=self._radius_m * (1 + 1e-6),
            workers=torch.get_num_threads(),
        )
        candidate = torch.from_numpy(index)
        inside = candidate < total  # the tree says P where there is no further one
        candidate = candidate.clamp_max_(total - 1)
        own = self._points.index_select(0, candidate.flatten()).view(*candidate.shape, 3)
        square = _square((query[:, None] - own).permute(2, 0, 1).contiguous())
        key = _keys(torch.where(inside, square, torch.inf), self._number[candidate])
        key = key.sort(dim=1).values[:, :count]
        if wide == total:
            return key, torch.ones(len(query), dtype=torch.bool)
        reached = torch.from_numpy(distance)
        last = reached[:, count - 1 : count].square()
        sure = reached[:, -1:].square() > last * (1 + _NEAR_TIE)
        return key, (sure | ~inside[:, -1:])[:, 0]


def _checked(query_m: Tensor, points_m: Tensor, count: int) -> tuple[int, int, int]:
    for name, given in (("query_m", query_m), ("points_m", points_m)):
        if given.dim() != 3 or given.shape[2] != 3 or not given.is_floating_point():
            raise SpecError(f"neighbours.{name}", "float [B, N, 3]", f"{given.dtype} {tuple(given.shape)}", "Reshape.")
    if query_m.shape[0] != points_m.shape[0] or query_m.dtype != points_m.dtype:
        raise SpecError("neighbours", "as many clouds as sets of queries, of one type", "others", "Correct them.")
    if count < 1:
        raise SpecError("neighbours.count", "at least 1", repr(count), "Raise it.")
    return query_m.shape[0], query_m.shape[1], points_m.shape[1]
