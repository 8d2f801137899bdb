"""Pictures of a gel through a code book that was trained beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from gymnasium import spaces
from torch import nn

from perceive.batch import BatchStream
from perceive.build import Resolved
from perceive.encoders.base import Encoder, field_shape, per_token
from perceive.encoders.camera import colours_of
from perceive.encoders.gel_image import dead_pixels
from perceive.encoders.pad import PadPatches
from perceive.normalize import FieldStats
from perceive.tactile.code_book import CodeBookSettings, PictureCodes, TouchCodeBook
from perceive.tokens import Tokens
from perceive.vtt.picture import AreaResize
from sensors.errors import WiringError


class TouchCodeEncoder(Encoder, Resolved):
    """The codes of a gel's picture, one token each, where it is on the finger.

    Args:
        space: frame space with ``rgb`` [H, W, 3], ``base_from_pad`` [4, 4], ``size_m`` [2].
        history: T.
        width: D.
        folder: a saved :class:`perceive.tactile.code_book.TouchCodeBook`; None = an untrained one of ``settings``.
        trainable: whether it goes on learning; then its codes also follow.
        image_px: side of the square that pictures are made smaller to, by areas.
        most_dead: share of black or white pixels up to which a picture is used; beyond it its tokens are not valid.
        settings: sizes of the code book; None = those in the folder.

    Raises:
        WiringError: a field is missing, a size does not divide, or there is nothing to build from.
        DataError: the folder does not hold a code book.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        folder: str | None = None,
        trainable: bool = False,
        image_px: int = 64,
        most_dead: float = 0.3,
        settings: CodeBookSettings | None = None,
    ) -> None:
        super().__init__()
        owner = "TouchCodeEncoder"
        size = field_shape(owner, space, "rgb", 3)
        if settings is not None:
            codes = PictureCodes(settings)
        elif folder is not None:
            codes = TouchCodeBook.from_pretrained(folder).codes
        else:
            raise WiringError(owner, "a folder or settings", "neither", "Train a TouchCodeBook and name its folder.")
        cell = 2**codes.settings.halvings
        self.resize = AreaResize(size[0], size[1], image_px)
        self.grid = PadPatches(owner, space, (image_px, image_px), (cell, cell), (cell, cell))
        self._history, self._trainable, self._most_dead = history, trainable, most_dead
        self.codes = codes.requires_grad_(trainable)
        self.codes.train(trainable)
        self.project = nn.Linear(codes.settings.width, width)
        self.place = nn.Linear(2, width)
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._history * self.grid.patches

    def resolved_arguments(self) -> dict[str, Any]:
        """What replaces the folder when this encoder is built again."""
        return {"settings": self.codes.settings.to_config(), "folder": None}

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: colours have a natural scale."""

    def train(self, mode: bool = True) -> TouchCodeEncoder:
        """Training mode; a code book that is not trained stays as it is."""
        super().train(mode)
        self.codes.train(mode and self._trainable)
        return self

    def forward(self, stream: BatchStream) -> Tokens:
        batch, steps = stream.valid.shape
        rgb = colours_of(stream)
        usable = stream.valid & (dead_pixels(rgb).float().mean((1, 2)) <= self._most_dead).reshape(batch, steps)
        picture = self.resize(rgb.movedim(-1, 1).float() / 127.5 - 1)
        vectors = self.codes(picture, usable.flatten()).values.flatten(1, 2)
        places = self.grid.places(stream)
        features = self.norm(self.project(vectors) + self.place(places.on_pad))
        return Tokens(
            features.reshape(batch, steps * self.grid.patches, -1),
            places.position_m,
            torch.ones_like(places.valid),
            per_token(stream.age_s, self.grid.patches),
            places.valid & per_token(usable, self.grid.patches),
        )
