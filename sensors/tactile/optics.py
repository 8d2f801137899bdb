"""From a height map to the picture that the camera behind the gel takes."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from sensors.errors import SpecError
from sensors.tactile.deform import GelDeform, Softness
from sensors.tactile.gel import Gel
from sensors.tactile.picture import to_uint8, with_noise
from sensors.tactile.shadow import Shadow
from sensors.tactile.slopes import slopes
from sensors.tactile.smooth_light import SmoothLight
from sensors.tactile.table import TableColour
from sensors.tactile.vary import Variation

_CHUNK_PX = 1 << 17  # pixels worked on at a time: many calls for few pixels cost more than leaving the cache


@final
class GelOptics(nn.Module):
    """Gel, lights and camera of a fingertip: height map in, picture out.

    The gel follows what is pressed in (:class:`sensors.tactile.deform.GelDeform`), its slopes change the colour of the
    untouched gel (``colour``), and a deep print may throw shadows. A gel that nothing touches gives the background
    exactly. Every picture comes out the same, bit for bit on a processor, whatever stands beside it in the batch.

    Args:
        gel: size and pixels.
        colour: change of colour for slopes: a calibrated table or lights in closed form, for the same gel.
        background: grey values of the untouched gel, [3, h, w], 0 to 255.
        softness: how the gel follows.
        shadow: its shadows; None = none.

    Raises:
        SpecError: the parts are of different gels, or there is no background of that size.
    """

    def __init__(
        self,
        gel: Gel,
        colour: SmoothLight | TableColour,
        background: Tensor | None,
        softness: Softness | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        super().__init__()
        parts: list[tuple[str, Gel]] = [("colour", colour.gel)] + ([("shadow", shadow.gel)] if shadow else [])
        for name, other in parts:
            if other != gel:
                raise SpecError(f"GelOptics, {name}", f"one of {gel}", f"one of {other}", "Build it for the same gel.")
        shape = (3, gel.rows, gel.columns)
        if background is None or tuple(background.shape) != shape or not background.isfinite().all():
            got = (
                "none"
                if background is None
                else str(list(background.shape))
                if tuple(background.shape) != shape
                else "some that are not"
            )
            fix = "Give a picture of the untouched gel, or that of its lights: SmoothLight.flat()."
            raise SpecError("GelOptics, background", f"finite grey values {list(shape)}", got, fix)
        self.gel = gel
        self.colour = colour
        self.deform = GelDeform(gel, softness)
        self.shadow = shadow
        self._others: dict[float, GelDeform] = {}  # gels that are stiffer or softer
        self.register_buffer("background", background.detach().clone().float())

    def forward(self, overlap_m: Tensor, variation: Variation | None = None) -> Tensor:
        """The picture as numbers that can be differentiated: float [B, h, w, 3], grey values, not clipped.

        Args:
            overlap_m: float [B, h, w], metres, >= 0.
            variation: other lights, gels and backgrounds for this batch; its noise is not added here.

        Raises:
            SpecError: not such a height map, or a variation for another batch.
        """
        self._check(overlap_m, variation)
        return self._planes(overlap_m, variation).permute(0, 2, 3, 1)

    @torch.no_grad()
    def picture(
        self, overlap_m: Tensor, variation: Variation | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """The picture as the camera gives it: uint8 [B, h, w, 3].

        Args:
            overlap_m: float [B, h, w], metres, >= 0.
            variation: other lights, gels and backgrounds for this batch.
            generator: draws the noise of the variation; None = no noise.

        Raises:
            SpecError: not such a height map, or a variation for another batch.
        """
        self._check(overlap_m, variation)
        B, h, w = overlap_m.shape
        step = max(1, _CHUNK_PX // (h * w)) if overlap_m.device.type == "cpu" else max(B, 1)
        out = torch.empty(B, h, w, 3, dtype=torch.uint8, device=overlap_m.device)
        for start in range(0, B, step):
            part = slice(start, start + step)
            varied = None if variation is None else variation[part]
            planes = self._planes(overlap_m[part], varied)
            if varied is not None and generator is not None:
                planes = with_noise(planes, varied.noise, generator)
            out[part] = to_uint8(planes)
        return out

    def _check(self, overlap_m: Tensor, variation: Variation | None) -> None:
        self.gel.check(overlap_m, "GelOptics, overlap_m")
        if variation is None:
            return
        expected = (len(overlap_m), 3, self.gel.rows, self.gel.columns)
        if tuple(variation.tint.shape) != expected:
            got, fix = str(list(variation.tint.shape)), "Draw it for this gel and batch."
            raise SpecError("GelOptics, variation", f"one with a tint {list(expected)}", got, fix)

    def _planes(self, overlap_m: Tensor, variation: Variation | None) -> Tensor:
        background = self.get_buffer("background").to(overlap_m)
        if variation is None:
            return self._change(self.deform(overlap_m), None) + background
        face = self._face(overlap_m, variation.stiffness)
        change = self._change(face, variation.turn_rad.to(overlap_m))
        colours = variation.colours.to(change)
        mixed = torch.einsum("bij,bjhw->bihw", colours, change)
        return mixed + background * variation.tint.to(change)

    def _change(self, face_m: Tensor, turn_rad: Tensor | None) -> Tensor:
        along_x, along_y = slopes(face_m, self.gel)
        if turn_rad is not None:
            # Lights that are turned see the slopes turned back.
            cosine, sine = turn_rad.cos()[:, None, None], turn_rad.sin()[:, None, None]
            along_x, along_y = along_x * cosine + along_y * sine, along_y * cosine - along_x * sine
        change: Tensor = self.colour(along_x, along_y)
        return change if self.shadow is None else change + self.shadow(face_m)

    def _face(self, overlap_m: Tensor, stiffness: Tensor) -> Tensor:
        factors = stiffness.tolist()
        if len(set(factors)) == 1:
            face: Tensor = self._deformer(factors[0])(overlap_m)
            return face
        faces: dict[int, Tensor] = {}
        for factor in sorted(set(factors)):
            chosen = [index for index, other in enumerate(factors) if other == factor]
            faces |= dict(zip(chosen, self._deformer(factor)(overlap_m[chosen]), strict=True))
        return torch.stack([faces[index] for index in range(len(factors))])

    def _deformer(self, stiffness: float) -> GelDeform:
        if stiffness == 1.0:
            return self.deform
        if stiffness not in self._others:
            self._others[stiffness] = GelDeform(self.gel, self.deform.softness.scaled(stiffness)).to(
                self.get_buffer("background").device
            )
        return self._others[stiffness]
