"""What points and boxes of generated scenes are called."""

from __future__ import annotations

import numpy as np

UNLABELLED = -1

# class -> its parts. Numbers follow the order here; what stands for itself has one part of its own name.
TABLETOP: dict[str, tuple[str, ...]] = {
    "table": ("top",),
    "box": ("box",),
    "can": ("can",),
    "ball": ("ball",),
    "tray": ("tray",),
    "bowl": ("bowl",),
    "button": ("base", "cap"),
    "cabinet": ("body", "drawer"),
    "mug": ("cup", "handle"),
    "bottle": ("body", "neck", "cap"),
    "screwdriver": ("grip", "shaft"),
}
ROOM: dict[str, tuple[str, ...]] = {
    "floor": ("floor",),
    "wall": ("wall",),
    "table": ("legs", "top"),
    "chair": ("legs", "seat", "back"),
    "shelf": ("sides", "boards"),
    "sofa": ("seat", "back", "arms"),
    "carton": ("carton",),
    "bin": ("bin",),
    "person": ("legs", "trunk", "head"),
    "cart": ("wheels", "load", "handle"),
}


def names(of: dict[str, tuple[str, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names, and part names as "class/part"."""
    return tuple(of), tuple(f"{label}/{part}" for label, parts in of.items() for part in parts)


def numbers(of: dict[str, tuple[str, ...]], label: str, part: str) -> tuple[int, int]:
    """The numbers of a class and of one of its parts, counted over all classes."""
    classes, parts = names(of)
    return classes.index(label), parts.index(f"{label}/{part}")


def lookup(values: dict[int, int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A table by body number whose last entry, -1, is what belongs to no body."""
    table = np.full(max(values, default=-1) + 2, UNLABELLED, np.int64)
    for body, value in values.items():
        table[body] = value
    return table
