"""FusedTemplateEstimator: poses of objects out of a few posed pictures, with nothing trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.estimate import PoseEstimate, PoseEstimator
from perceive.pose.estimators.templates import TemplateEstimator
from perceive.pose.model import ObjectModel
from perceive.pose.references import Reference, fuse
from perceive.pose.templates.features import PatchFeatures
from sensors.frames import RgbdFrame


@final
class FusedTemplateEstimator(PoseEstimator):
    """A mesh is fused out of the references; templates of it are rendered and compared as if it were the object's own.

    Where no reference looked the mesh is open, so an object seen from there is not found well: the fewer references,
    the more of that. See :class:`~perceive.pose.estimators.templates.TemplateEstimator`.

    Args:
        references: of the objects, by their numbers.
        features: of templates; None = those that need no weights.
        views: directions that templates are rendered from.
        turns: in the picture plane for each of them.
        hypotheses: how many poses are refined.
        points: of the picture that hypotheses are refined with.
        least_score: what is found without a mask and judged below this is not the object.
        others: further hypotheses in an answer.
        folder: where templates are kept between runs; None = in memory only.
        seed: of the points and of RANSAC.

    Attributes:
        models: the fused meshes, by number.

    Raises:
        DataError: an object without references, or whose references show no surface.
        SpecError: no object, or a setting out of its range.
    """

    def __init__(
        self,
        references: Mapping[int, Sequence[Reference]],
        features: PatchFeatures | None = None,
        views: int = 162,
        turns: int = 24,
        hypotheses: int = 64,
        points: int = 256,
        least_score: float = 0.5,
        others: int = 8,
        folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self.models: dict[int, ObjectModel] = {number: fuse(given, number) for number, given in references.items()}
        self._inner = TemplateEstimator(
            self.models, features, views=views, turns=turns, hypotheses=hypotheses, points=points,
            least_score=least_score, others=others, folder=folder, seed=seed,
        )  # fmt: skip

    @property
    def numbers(self) -> tuple[int, ...]:
        return self._inner.numbers

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        return self._inner.estimate(frame, number, mask, most)
