"""Pictures of a gel: colour patches, each placed where it is on the finger."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import field_shape, per_token
from perceive.encoders.camera import colours_of
from perceive.encoders.pad import PadPatches, PatchEncoder
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.errors import WiringError


class GelImageEncoder(PatchEncoder):
    """Square patches of the picture that a camera behind a gel takes (DIGIT, GelSight; simulated or real).

    Single pixels that are black or white in all colours are dead: they are filled with the mean of their patch. A
    picture that is dead for more than ``most_dead`` of its area (lights out, overexposed, cable torn) says nothing
    about touch: its tokens are not valid, and it is counted in :attr:`rejected`.

    A robot's trunk knows places from centimetres up; so that it also knows where on the pad a patch is, the place in
    the pad's own frame is a feature.

    Args:
        space: frame space with ``rgb`` [H, W, 3], ``base_from_pad`` [4, 4], ``size_m`` [2].
        history: T.
        width: D.
        patch_px: side of a patch; must divide H and W.
        cell_px: side of a cell; must divide ``patch_px``.
        cell_width: channels of a cell.
        contrast: grey values away from middle grey (or from the reference) that become 1.
        reference: name of a field [H, W, 3] of the same sensor that shows the untouched gel; the picture enters as its
            difference from it. None = as it comes.
        dark: a pixel with no colour above this is dead.
        bright: a pixel with no colour below this is dead.
        most_dead: share of dead pixels up to which a picture is used.

    Raises:
        WiringError: a field is missing, a size does not divide, or a number is out of its range.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        patch_px: int = 16,
        cell_px: int = 4,
        cell_width: int = 32,
        contrast: float = 64.0,
        reference: str | None = None,
        dark: int = 3,
        bright: int = 252,
        most_dead: float = 0.3,
    ) -> None:
        super().__init__()
        owner = "GelImageEncoder"
        size = field_shape(owner, space, "rgb", 3)
        if reference is not None and field_shape(owner, space, reference, 3) != size:
            raise WiringError(f"{owner}.reference", f"a picture {size}", f"'{reference}' of another size", "Resize it.")
        if not (contrast > 0 and 0 <= dark < bright <= 255 and 0 <= most_dead < 1):
            raise WiringError(
                owner, "contrast > 0, 0 <= dark < bright <= 255, 0 <= most_dead < 1",
                f"{contrast}, {dark}, {bright}, {most_dead}", "Correct them.",
            )  # fmt: skip
        self.grid = PadPatches(owner, space, (size[0], size[1]), (patch_px, patch_px), (cell_px, cell_px))
        self._history, self._reference = history, reference
        self._contrast, self._alive, self._most_dead = contrast, (dark, bright), most_dead
        self.cell = nn.Linear(3 * cell_px**2, cell_width)
        self.patch = nn.Sequential(nn.Linear(cell_width * self.grid.cells, width), nn.GELU(), nn.Linear(width, width))
        self.place = nn.Linear(2, width)
        self.norm = nn.LayerNorm(width)
        self._rejected: Tensor
        self.register_buffer("_rejected", torch.zeros((), dtype=torch.long), persistent=False)

    @property
    def num_tokens(self) -> int:
        return self._history * self.grid.patches

    @property
    def patch_size(self) -> int:
        return 3 * self.grid.entries

    @property
    def rejected(self) -> int:
        """Pictures that came and said nothing, since this encoder was made."""
        return int(self._rejected)

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: colours have a natural scale."""

    def forward(self, stream: BatchStream) -> Tokens:
        batch, steps = stream.valid.shape
        pixels, good, usable = self._look(stream)
        self._rejected += (stream.valid & ~usable).sum()
        places = self.grid.places(stream)
        seen = good.any(2)[..., 0].reshape(batch, -1) & per_token(usable, self.grid.patches)
        cells = nn.functional.gelu(self.cell(pixels.reshape(*pixels.shape[:2], self.grid.cells, -1)))
        features = self.norm(self.patch(cells.flatten(2)) + self.place(places.on_pad))
        return Tokens(
            features.reshape(batch, steps * self.grid.patches, -1),
            places.position_m,
            torch.ones_like(places.valid),
            per_token(stream.age_s, self.grid.patches),
            places.valid & seen,
        )

    @torch.no_grad()
    def patches(self, stream: BatchStream) -> tuple[Tensor, Tensor]:
        batch, _ = stream.valid.shape
        pixels, good, usable = self._look(stream)
        good = good & usable.flatten()[:, None, None, None]
        return pixels.reshape(batch, self.num_tokens, -1), good.expand_as(pixels).reshape(batch, self.num_tokens, -1)

    def _look(self, stream: BatchStream) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [M, P, pixels, 3] with dead ones filled, which are good [M, P, pixels, 1], usable frames [B, T]."""
        rgb = colours_of(stream)
        dead = dead_pixels(rgb, *self._alive)
        picture = rgb.float() - 127.5
        if self._reference is not None:
            untouched = stream.data[self._reference].flatten(0, 1)
            untouched = torch.where(stream.valid.flatten()[:, None, None, None], untouched, untouched.new_zeros(()))
            dead = dead | dead_pixels(untouched, *self._alive)
            picture = rgb.float() - untouched.float()
        usable = (dead.float().mean((1, 2)) <= self._most_dead).reshape(stream.valid.shape) & stream.valid
        good = self.grid.split(~dead[..., None])
        pixels = torch.where(good, self.grid.split(picture) / self._contrast, 0.0)
        mean = pixels.sum(2, keepdim=True) / good.sum(2, keepdim=True).clamp_min(1)
        return torch.where(good, pixels, mean), good, usable


def dead_pixels(rgb: Tensor, dark: int = 3, bright: int = 252) -> Tensor:
    """Pixels bool [M, H, W] of pictures [M, H, W, 3] that are black or white in all colours, or no number (NaN)."""
    # "Not alive", so that NaN, which is neither above nor below anything, counts as dead.
    return ~((rgb > dark).any(-1) & (rgb < bright).any(-1) & (rgb == rgb).all(-1))
