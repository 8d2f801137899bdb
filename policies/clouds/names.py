"""What the classes of clouds are called: alike in all clouds of a folder, in the order that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.model_base import Model
from perceive.points.files.cloud import UNLABELLED, Boxes, LabelledCloud
from sensors.errors import DataError, SpecError, WiringError, nearest


class Names:
    """Takes the names from the first cloud that has any, and makes the others follow.

    Args:
        where: for errors.
        classes: what the numbers of points and clouds are to follow; None = as in the clouds.
        box_classes: the same of boxes.

    Attributes:
        classes: names.
        box_classes: names.
        parts: names.

    Raises:
        SpecError: a name comes twice.
    """

    def __init__(self, where: str, classes: Sequence[str] | None, box_classes: Sequence[str] | None) -> None:
        for what, names in (("classes", classes), ("box_classes", box_classes)):
            if names is not None and (not names or len(set(names)) != len(names)):
                raise SpecError(f"CloudDataset.{what}", "different names", f"{list(names)}", "Correct them.")
        self._where = where
        self._wanted = {"classes": classes, "box_classes": box_classes, "parts": None}
        self.classes: tuple[str, ...] = tuple(classes or ())
        self.box_classes: tuple[str, ...] = tuple(box_classes or ())
        self.parts: tuple[str, ...] = ()

    def renumbered(self, cloud: LabelledCloud, where: str) -> LabelledCloud:
        """A cloud whose numbers are those of the names here.

        Raises:
            DataError: it has other names, or lacks some.
        """
        changes: dict[str, Any] = {}
        if cloud.semantic is not None or cloud.label is not None:
            table = self._table("classes", cloud.classes, _most(cloud.semantic, cloud.label), where)
            if table is not None:
                changes["semantic"] = None if cloud.semantic is None else table[cloud.semantic]
                changes["label"] = None if cloud.label is None else int(table[cloud.label])
            changes["classes"] = self.classes
        if cloud.part is not None:
            self._table("parts", cloud.parts, _most(cloud.part), where)
        if cloud.boxes is not None and (len(cloud.boxes) or cloud.box_classes):
            table = self._table("box_classes", cloud.box_classes, _most(cloud.boxes.label), where)
            if table is not None:
                changes["boxes"] = _relabelled(cloud.boxes, table)
            changes["box_classes"] = self.box_classes
        return replace(cloud, **changes)

    def _table(self, kind: str, names: tuple[str, ...], most: int, where: str) -> NDArray[np.int64] | None:
        """Old number -> new number, its last entry that of -1; None = they stay."""
        wanted, known = self._wanted[kind], getattr(self, kind)
        if wanted is None:
            if not known:
                setattr(self, kind, names)
            elif names != known:
                got = next((f"'{b}' where '{a}'" for a, b in zip(known, names, strict=False) if a != b), len(names))
                raise DataError(
                    where, f"{kind} as in the other clouds, {list(known)}", f"{got}", "Name those that you want."
                )
            return None
        if not names:
            if most >= len(known):
                raise DataError(where, f"{kind} numbered 0 to {len(known) - 1}", f"{most}", "Name all of them.")
            return None
        for name in known:
            if name not in names:
                raise DataError(where, f"{kind} with '{name}'", f"{list(names)}", nearest(name, names))
        table = np.full(len(names) + 1, UNLABELLED, np.int64)
        for number, name in enumerate(known):
            table[names.index(name)] = number
        return table


def check_heads(
    where: str, model: Model, heads: Sequence[str], classes: Sequence[str], box_classes: Sequence[str]
) -> None:
    """Raise unless the names of the classes of a model's heads are those of points and clouds, or those of boxes.

    Raises:
        WiringError: names or their order differ.
    """
    plans = model.config["model"].get("heads", {})
    for head in heads:
        names = plans.get(head, {}).get("classes")
        known = [tuple(each) for each in (classes, box_classes) if each]
        if names is None or not known or tuple(names) in known:
            continue
        raise WiringError(
            f"head '{head}'",
            f"the classes of '{where}', {' or '.join(str(list(each)) for each in dict.fromkeys(known))}",
            f"{list(names)}",
            f"Set model.heads.{head}.classes, or dataset.classes and dataset.box_classes.",
        )


def _most(*values: NDArray[np.int64] | int | None) -> int:
    return max((int(np.max(value, initial=UNLABELLED)) for value in values if value is not None), default=UNLABELLED)


def _relabelled(boxes: Boxes, table: NDArray[np.int64]) -> Boxes:
    """Boxes of other classes than those that are asked for are left out; those of unknown class stay."""
    label = table[boxes.label]
    kept = (label != UNLABELLED) | (boxes.label == UNLABELLED)
    return Boxes(
        boxes.centre_m[kept],
        boxes.size_m[kept],
        boxes.yaw_rad[kept],
        label[kept],
        boxes.velocity_m_s[kept],
        boxes.instance[kept],
        boxes.points[kept],
    )
