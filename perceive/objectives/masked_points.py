"""Masked point modelling: guess the hidden groups of a cloud from the ones that are seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from perceive.batch import Batch, BatchStream
from perceive.encoders.point_groups import CloudGroups, PointGroupEncoder
from perceive.geometry import full_precision, widened
from perceive.objectives.masking import Hiding, check_ratio, check_streams, hide
from perceive.tokens import Tokens
from perceive.trunk import BaseTrunk, Trunk
from sensors.errors import WiringError


@final
class MaskedPoints(nn.Module):
    """Masked autoencoding of point clouds on situated tokens, as Point-MAE does it (Pang et al., ECCV 2022).

    Of each cloud a share of the groups (Yu et al., "Point-BERT", CVPR 2022) is hidden; encoder and trunk see only the
    others, which also saves their time. A small decoder gets what they say and, at the centre of every hidden group, a
    token that knows nothing but its place, and guesses the group's points relative to that centre. Encoders and trunk
    are those of the model that is to be pretrained, by reference: training this trains them. The decoder is thrown away
    afterwards. Groups overlap, so some points of a hidden one are seen in its neighbours; the share is large for that.

    Unlike there, positions are metric and rotary, and lengths are in units of the encoder's ``reach_m``, so that the
    loss of clouds of any size is of order one.

    Args:
        encoders: sensor name -> encoder of groups.
        trunk: what the encoders share, with metric positions.
        width: D of all of them.
        sensor_embedding: sensor name -> [D], what the model adds to the tokens of that sensor
            (``PerceptionModel.sensor_embedding``); trained with the rest. None = nothing.
        mask_ratio: share of the groups that is hidden.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        shortest_m: shortest wavelength of position in the decoder.
        longest_m: longest.

    Raises:
        SpecError: the ratio is not between 0 and 1.
        WiringError: an encoder that is not of groups, or whose tokens do not tell places; a trunk that counts tokens;
            an embedding without an encoder.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        trunk: BaseTrunk,
        width: int,
        sensor_embedding: Mapping[str, nn.Parameter] | None = None,
        mask_ratio: float = 0.6,
        decoder_depth: int = 1,
        decoder_heads: int = 4,
        shortest_m: float = 0.05,
        longest_m: float = 2.0,
    ) -> None:
        super().__init__()
        owner = "MaskedPoints"
        check_ratio(owner, mask_ratio)
        self._ratio = mask_ratio
        self._encoders: dict[str, PointGroupEncoder] = {}
        for name, encoder in encoders.items():
            if not isinstance(encoder, PointGroupEncoder):
                raise WiringError(f"{owner}, '{name}'", "a PointGroupEncoder", type(encoder).__name__, "Leave it out.")
            if not encoder.tells_places:
                raise WiringError(
                    f"{owner}, '{name}'",
                    "an encoder with geometry 'xyz' and placed true: what is to be guessed lies along the base's axes",
                    "one whose tokens tell no places or no directions",
                    "Pretrain with geometry: xyz and placed: true.",
                )
            self._encoders[name] = encoder
        if "index" in dict(trunk.named_parameters(recurse=False)):
            raise WiringError(owner, "a trunk of metric positions", "one of index positions", "Use position: metric.")
        embedding = dict(sensor_embedding or {})
        if sensor_embedding is not None and set(embedding) != set(self._encoders):
            raise WiringError(
                f"{owner}.sensor_embedding", f"one for each of {list(self._encoders)}", f"{list(embedding)}", "Match."
            )
        self.encoders = nn.ModuleDict(self._encoders)
        self.trunk = trunk
        self.sensor_embedding = nn.ParameterDict(embedding)
        self.hidden = nn.Parameter(torch.randn(width) * 0.5)
        self.decoder = Trunk(width, 0, decoder_depth, decoder_heads, shortest_m=shortest_m, longest_m=longest_m)
        self.guess = nn.ModuleDict({n: nn.Linear(width, 3 * encoder.size) for n, encoder in self._encoders.items()})

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``"loss"``: mean over the streams of their own, the Chamfer distance of hidden groups in units of reach.

        Also ``"_name/centre"``: that of guessing all points at the centre, which needs no cloud.

        Args:
            batch: streams by sensor name.
            generator: draws what is hidden.

        Raises:
            WiringError: a stream without an encoder, or no stream.
        """
        check_streams("MaskedPoints", list(batch.streams), list(self._encoders))
        terms: dict[str, Tensor] = {}
        for name in batch.streams:
            guess_m, groups, hiding = self.restore(batch.streams[name], name, generator)
            reach_m = self._encoders[name].reach_m
            with full_precision(guess_m.device):
                truth, there = groups.relative_m[hiding.hidden] / reach_m, groups.member_valid[hiding.hidden]
                terms[name] = _mean(chamfer(widened(guess_m[hiding.hidden]) / reach_m, truth, there))
                terms[f"_{name}/centre"] = _mean(chamfer(torch.zeros_like(truth), truth, there))
        return {"loss": torch.stack([value for key, value in terms.items() if key[0] != "_"]).mean()} | terms

    def restore(
        self, stream: BatchStream, name: str, generator: torch.Generator | None = None
    ) -> tuple[Tensor, CloudGroups, Hiding]:
        """Guesses, metres relative to the centres along the base's axes, float [B, N, K, 3]; the groups; what was seen.

        Args:
            stream: of one sensor.
            name: of that sensor.
            generator: draws what is hidden.
        """
        encoder = self._encoders[name]
        groups = encoder.groups(stream)
        hiding = hide("MaskedPoints", groups.valid, self._ratio, generator)
        shown = groups.take(hiding.index)
        seen = encoder.embed(shown)
        features = seen.features + self.sensor_embedding[name] if name in self.sensor_embedding else seen.features
        seen = Tokens(features, seen.position_m, seen.placed & hiding.shown, seen.age_s, hiding.shown).cleaned()
        origin_m = groups.position_m.new_zeros(len(groups.valid), 3)
        told = self.trunk(seen, origin_m)
        whole = Tokens(
            told.new_zeros(*groups.valid.shape, told.shape[-1]),
            groups.position_m,
            groups.valid,
            groups.age_s,
            groups.valid,
        )
        decoded = self.decoder(hiding.fill(told, self.hidden, whole), origin_m)
        guess: Tensor = self.guess[name](decoded)
        return guess.view(*groups.valid.shape, encoder.size, 3) * encoder.reach_m, groups, hiding


def chamfer(guess: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Chamfer distances [...] between sets of points: of each to the nearest of the other set, squared, mean of each.

    The sum of both ways (Fan et al., "A Point Set Generation Network", CVPR 2017; Chamfer-L2 of Point-MAE).

    Args:
        guess: float [..., K, 3].
        truth: float [..., L, 3]; anything finite where not valid.
        valid: bool [..., L]; where a set has none, the distance is 0.

    Returns:
        Differentiable, in the square of the points' unit.
    """
    with torch.no_grad():
        # Who is nearest is found by the expanded product, which is fast; how near, by differences, which is exact.
        apart = guess.square().sum(-1)[..., :, None] + truth.square().sum(-1)[..., None, :]
        apart = torch.where(valid[..., None, :], apart - 2 * guess @ truth.transpose(-1, -2), torch.inf)
        to_truth, to_guess = apart.argmin(-1), apart.argmin(-2)

    def taken(values: Tensor, index: Tensor) -> Tensor:
        return values.gather(-2, index[..., None].expand(*index.shape, 3))

    forth = (guess - taken(truth, to_truth)).square().sum(-1).mean(-1)
    back = (truth - taken(guess, to_guess)).square().sum(-1)
    back = torch.where(valid, back, 0.0).sum(-1) / valid.sum(-1).clamp_min(1)
    return torch.where(valid.any(-1), forth + back, 0.0)


def _mean(values: Tensor) -> Tensor:
    """0 of none."""
    return values.sum() / max(len(values), 1)
