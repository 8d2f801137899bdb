"""The objects by name, and their numbers in dataset folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envs.pose_scenes import shapes_data, shapes_known, shapes_new
from envs.pose_scenes.shape import ObjectShape
from sensors.errors import SpecError, nearest

KNOWN: dict[str, Callable[[], ObjectShape]] = {
    "brick": shapes_known.brick,
    "cube": shapes_known.cube,
    "hexagon": shapes_known.hexagon,
    "can": shapes_known.can,
    "bottle": shapes_known.bottle,
    "bowl": shapes_known.bowl,
    "spool": shapes_known.spool,
    "mug": shapes_known.mug,
    "hammer": shapes_known.hammer,
    "bracket": shapes_known.bracket,
    "duck": shapes_data.duck,
}
HELD_OUT: dict[str, Callable[[], ObjectShape]] = {
    "cone": shapes_new.cone,
    "star": shapes_new.star,
    "bolt": shapes_new.bolt,
    "ring": shapes_new.ring,
    "jug": shapes_new.jug,
    "pillow": shapes_new.pillow,
    "zigzag": shapes_new.zigzag,
    "bunny": shapes_data.bunny,
    "teddy": shapes_data.teddy,
}
_ALL = {**KNOWN, **HELD_OUT}
# Numbers never change with the choice of objects: models of one folder fit the pictures of another.
NUMBERS: dict[str, int] = {
    **{name: number for number, name in enumerate(KNOWN, 1)},
    **{name: number for number, name in enumerate(HELD_OUT, 101)},
}


def objects(names: Sequence[str]) -> tuple[ObjectShape, ...]:
    """The objects of these names.

    Raises:
        SpecError: none, an unknown name, or one twice.
    """
    for name in names:
        if name not in _ALL:
            raise SpecError("objects", "a known object", repr(name), nearest(name, _ALL))
    if not names or len(set(names)) != len(names):
        raise SpecError("objects", "names of objects, each once", repr(list(names)), f"Choose of {', '.join(_ALL)}.")
    return tuple(_ALL[name]() for name in names)
