"""The six faces of the cube as orthographic cameras.

A view looks along one axis of the cube. Its picture is S x S pixels over the whole face: pixel ``i`` covers
``[i, i + 1)`` and has its centre at ``i + 0.5``, in rendering, in training targets and in the readout alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sensors.errors import SpecError, nearest


@final
@dataclass(frozen=True)
class SignedAxis:
    """A direction along an axis of the cube.

    Attributes:
        index: 0, 1, 2 for x, y, z.
        sign: +1 or -1.
    """

    index: int
    sign: int


@final
@dataclass(frozen=True)
class View:
    """An orthographic camera in the middle of a face of the cube, looking at the opposite face.

    Attributes:
        name: of the face.
        right: the direction that is image-right.
        down: the direction that is image-down.
        towards: the direction from the scene towards the camera; the camera sits at +1 along it.

    Raises:
        SpecError: the three are not a right-handed camera (right x down = away from the camera).
    """

    name: str
    right: SignedAxis
    down: SignedAxis
    towards: SignedAxis

    def __post_init__(self) -> None:
        indices = [axis.index for axis in (self.right, self.down, self.towards)]
        signs = [axis.sign for axis in (self.right, self.down, self.towards)]
        cyclic = tuple(indices) in ((0, 1, 2), (1, 2, 0), (2, 0, 1))
        right_handed = sorted(indices) == [0, 1, 2] and all(abs(sign) == 1 for sign in signs)
        if not right_handed or signs[0] * signs[1] * signs[2] != (-1 if cyclic else 1):
            raise SpecError(
                f"view '{self.name}'",
                "three axes with right x down = -towards",
                f"{self.right}, {self.down}, {self.towards}",
                "Turn one of them round, or mirror images would be rendered.",
            )


def _view(name: str, right: str, down: str, towards: str) -> View:
    signed = [SignedAxis("xyz".index(axis[1]), 1 if axis[0] == "+" else -1) for axis in (right, down, towards)]
    return View(name, *signed)


# The robot stands at the back of the cube and looks along +x, with +y at its left and +z up; "front" looks at its face.
FACES: dict[str, View] = {
    view.name: view
    for view in (
        _view("top", "-y", "-x", "+z"),
        _view("bottom", "+y", "-x", "-z"),
        _view("front", "+y", "-z", "+x"),
        _view("back", "-y", "-z", "-x"),
        _view("left", "-x", "-z", "+y"),
        _view("right", "+x", "-z", "-y"),
    )
}


def views_named(names: Iterable[str]) -> tuple[View, ...]:
    """The faces of these names, in this order: ("top", "front", "right") is RVT-2's set.

    Raises:
        SpecError: an unknown or repeated name, or none at all.
    """
    given = tuple(names)
    for name in given:
        if name not in FACES:
            raise SpecError("views", "names of faces", repr(name), nearest(name, FACES))
    if not given or len(set(given)) != len(given):
        raise SpecError("views", "one or more different faces", str(given), f"Choose from {', '.join(FACES)}.")
    return tuple(FACES[name] for name in given)


def pixel_of(points: Tensor, views: Sequence[View], size: int) -> Tensor:
    """Where points appear.

    Args:
        points: [B, N, 3] in units of the cube.
        views: V.
        size: S, pixels along an edge.

    Returns:
        Continuous pixel coordinates (u right, v down) [B, V, N, 2]; the picture covers [0, S).
    """
    coordinates = points.unbind(-1)
    half = size / 2
    per_view = [
        torch.stack([(coordinates[axis.index] * axis.sign + 1.0) * half for axis in (view.right, view.down)], -1)
        for view in views
    ]
    return torch.stack(per_view, 1)
