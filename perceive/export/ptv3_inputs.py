"""The geometry of a cloud as plain index maps: all that PTv3 needs besides its weights and features.

Where cells are, which are neighbours and how curves cut them into patches is worked out here, in torch; what is left is
gathering, products and sums, which any runtime has. The maps hold rows of their own, so their sizes may differ from
cloud to cloud.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.points.ptv3.levels import GridCloud, Level
from perceive.points.ptv3.network import PointTransformerV3
from perceive.points.sparse_conv import KernelMap
from sensors.errors import SpecError

_CHILDREN = 8


@dataclass(frozen=True)
class InputSpec:
    """One input of the exported graph.

    Attributes:
        name: in the graph.
        kind: of its values.
        axes: a name for each axis that varies, a number for each that does not.
    """

    name: str
    kind: torch.dtype
    axes: tuple[str | int, ...]


def input_specs(network: PointTransformerV3) -> tuple[InputSpec, ...]:
    """The inputs of the graph of a network, in their order.

    ``M{l}`` is the number of cells at level l, ``S{l}`` and ``L{l}`` of patches there and of places in each.

    - ``features`` [M0, C] of the given cells, in any order.
    - ``first`` [M0] and ``row`` [M0]: the given row of each sorted cell, and back.
    - ``stem`` [M0, k^3]: the cell under each place of the kernel; M0 where there is none.
    - ``neighbours{l}`` [M{l}, 27]: the same for the kernel of the blocks; M{l} where there is none.
    - ``parent{l}`` [M{l-1}] (with a decoder only, as ``row``) and ``children{l}`` [M{l}, 8]: the coarser cell of each
      finer one, and back; the first child again where there are fewer.
    - ``patch{l}_{c}`` [S{l}, L{l}], ``place{l}_{c}`` [M{l}]: the cell at each place of the patches along curve c, and
      from which place each cell takes its result.
    - ``key{l}`` bool [S{l}, L{l}]: False = not looked at, the place repeats another.
    """
    specs = [
        InputSpec("features", torch.float32, ("M0", network.in_width)),
        InputSpec("first", torch.int64, ("M0",)),
        InputSpec("row", torch.int64, ("M0",)),
        InputSpec("stem", torch.int64, ("M0", network.stem_kernel**3)),
    ]
    for level, blocks in enumerate(network.blocks_per_level):
        cells = f"M{level}"
        if level:
            specs.append(InputSpec(f"parent{level}", torch.int64, (f"M{level - 1}",)))
            specs.append(InputSpec(f"children{level}", torch.int64, (cells, _CHILDREN)))
        if not blocks:
            continue
        specs.append(InputSpec(f"neighbours{level}", torch.int64, (cells, 27)))
        specs.append(InputSpec(f"key{level}", torch.bool, (f"S{level}", f"L{level}")))
        for curve in range(min(blocks, len(network.curves))):
            specs.append(InputSpec(f"patch{level}_{curve}", torch.int64, (f"S{level}", f"L{level}")))
            specs.append(InputSpec(f"place{level}_{curve}", torch.int64, (cells,)))
    if len(network.decoder):
        return tuple(specs)
    # The coarsest rows of an encoder alone come in their own order, and nothing goes back to finer ones.
    return tuple(spec for spec in specs if spec.name != "row" and not spec.name.startswith("parent"))


@torch.no_grad()
def prepare(network: PointTransformerV3, cloud: GridCloud) -> dict[str, Tensor]:
    """The inputs for a cloud (or several in one :class:`GridCloud`), by name; see :func:`input_specs`.

    Args:
        network: whose sizes and curves count; not its weights.
        cloud: at least one cell.

    Raises:
        SpecError: no cell, features of another width or not finite, or a network in training.
    """
    if network.training:
        raise SpecError("prepare.network", "a network in evaluation", "one in training", "Call network.eval().")
    if not len(cloud.cell) or cloud.features.shape[1] != network.in_width or not bool(cloud.features.isfinite().all()):
        raise SpecError(
            "prepare.cloud",
            f"at least one cell, {network.in_width} finite features each",
            f"features {[*cloud.features.shape]}",
            "Make it with grid_cloud, which leaves out what is not finite.",
        )
    geometry = network.levels(cloud)
    found = {
        "features": cloud.features.float(),
        "first": geometry.first,
        "row": geometry.row,
        "stem": _table(geometry.stem),
    }
    for number, level in enumerate(geometry.levels):
        if level.child_of is not None:
            found[f"parent{number}"] = level.child_of
            found[f"children{number}"] = _children(level)
        found[f"neighbours{number}"] = _table(level.neighbours)
        for curve, patch in enumerate(level.patches):
            found[f"key{number}"] = patch.key
            found[f"patch{number}_{curve}"] = patch.index
            found[f"place{number}_{curve}"] = patch.place
    return {spec.name: found[spec.name].contiguous() for spec in input_specs(network)}


def _table(neighbours: KernelMap) -> Tensor:
    """The voxel under each place of the kernel, int64 [N, k^3] in the order of the weights; N = none."""
    kernel, count = neighbours.kernel, neighbours.voxels
    reach = kernel // 2
    middle = kernel**3 // 2
    own = neighbours.pairs[0][0].new_tensor(range(count))
    table = own.new_full((count, kernel**3), count)
    table[:, middle] = own
    for (x, y, z), (at, other) in zip(neighbours.offsets, neighbours.pairs, strict=True):
        number = ((x + reach) * kernel + y + reach) * kernel + z + reach
        table[at, number] = other
        table[other, kernel**3 - 1 - number] = at
    return table


def _children(coarse: Level) -> Tensor:
    """The finer cells of each cell, int64 [M, 8], ascending; the first again where there are fewer."""
    assert coarse.child_of is not None  # only the finest level has none
    parent, order = coarse.child_of.sort(stable=True)
    count = torch.bincount(parent, minlength=len(coarse.cell))
    first = count.cumsum(0) - count
    nth = torch.arange(len(order), device=order.device) - first[parent]
    table = order[first][:, None].repeat(1, _CHILDREN)
    table[parent, nth] = order
    return table
