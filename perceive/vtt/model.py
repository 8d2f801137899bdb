"""VttModel: a camera, the wrench at the wrist and the joints -> the next K commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import Batch
from perceive.geometry import full_precision, matrix_to_rotation_6d, widened
from perceive.heads.base import ActionChunk, HeadContext
from perceive.heads.regression import RegressionHead
from perceive.model_base import Model, decayed
from perceive.normalize import Affine, FieldStats
from perceive.tokens import Tokens
from perceive.vtt.base import Fused, FusionNetwork
from perceive.vtt.losses import (
    accuracy,
    alignment_loss,
    contact_label,
    contact_loss,
    prior_divergence,
    shuffled_partners,
)
from perceive.vtt.picture import AreaResize
from perceive.wiring import check_sensors
from sensors.action import ActionSpec
from sensors.errors import SpecError, WiringError

HEAD = "action"
OPEN_M = 0.08  # gripper opening that counts as 1
_STATE = 11  # opening, place of the tool, two columns of its rotation, whether all these are known


@dataclass(frozen=True, eq=False)
class _Seen:
    """The newest frames: ``image`` [B, 3, S, S] in [0, 1], ``wrench`` [B, 6] scaled, ``force`` [B, 3] in newton,
    ``image_there`` and ``wrench_there`` bool [B]."""

    image: Tensor
    wrench: Tensor
    force: Tensor
    image_there: Tensor
    wrench_there: Tensor


@final
class VttModel(Model):
    """Visuo-tactile imitation: a fusion network's feature and the robot's state -> an action chunk.

    The network, the scale of the wrench, the two further tasks and their weights are those of Chen, Sipos, Van der
    Merwe and Fazeli, CoRL 2022 (arXiv 2210.00121): is this wrench of this picture, and is it of a contact. What the
    feature serves is another thing: it was published as what a latent-variable model of reinforcement learning reads;
    here it regresses actions from demonstrations, as the project's other policies do, so that they can be compared.
    ``network`` may be VttNetwork or what it is compared to, Concatenation or ProductOfExperts.

    Touch here is one wrench at the wrist. A model of gel pictures beside cameras is perceive.model.PerceptionModel
    with touch encoders, and no VTT.

    Args:
        sensor_spaces: sensor -> frame space.
        history: sensor -> T; the newest frame is used.
        action_spec: of the commands.
        network: of picture and wrench.
        camera: name of a sensor with ``rgb``; a larger picture than the network's is made smaller by areas.
        wrench: name of a sensor with ``force_N`` and ``torque_Nm``.
        joints: name of a sensor with ``base_from_tool`` and ``gripper_m``, read after the fusion; None = none.
        chunk: K.
        hidden: width of what turns the feature into actions.
        force_norm_N: force that is 1 to the network, newton. Published: 50.
        torque_norm_Nm: likewise, newton metres. Published: 50.
        contact_N: above this force it is a contact, newton. Published: 15, of all six numbers of a wrench together;
            here of the force alone, which has a unit.
        alignment_weight: of the loss of alignment; 0 saves the pass over shuffled pairs, which is half of the work.
        contact_weight: of the loss of contact.
        divergence_weight: of the divergence of the feature's Gaussian from the standard one, where the network says
            a Gaussian.
        ignored_sensors: sensors of the rig that are meant not to be read.

    Raises:
        WiringError: parts that do not fit each other or the rig.
        SpecError: a number out of its range.
    """

    def __init__(
        self,
        sensor_spaces: Mapping[str, spaces.Dict],
        history: Mapping[str, int],
        action_spec: ActionSpec | None,
        network: FusionNetwork,
        camera: str,
        wrench: str = "wrench",
        joints: str | None = "joints",
        chunk: int = 8,
        hidden: int = 128,
        force_norm_N: float = 50.0,  # noqa: N803  (units keep their own capital letter)
        torque_norm_Nm: float = 50.0,  # noqa: N803
        contact_N: float = 15.0,  # noqa: N803
        alignment_weight: float = 1.0,
        contact_weight: float = 1.0,
        divergence_weight: float = 0.01,
        ignored_sensors: Sequence[str] = (),
    ) -> None:
        super().__init__()
        owner = "VttModel"
        if action_spec is None:
            raise WiringError(owner, "an action spec", "none", "Build it with action_spec=...")
        if chunk < 1 or hidden < 1 or min(force_norm_N, torque_norm_Nm, contact_N) <= 0:
            raise SpecError(
                owner, "chunk and hidden >= 1; force_norm_N, torque_norm_Nm and contact_N > 0",
                f"{chunk}, {hidden}; {force_norm_N}, {torque_norm_Nm}, {contact_N}", "Correct them.",
            )  # fmt: skip
        if min(alignment_weight, contact_weight, divergence_weight) < 0:
            raise SpecError(
                owner, "weights >= 0", f"{alignment_weight}, {contact_weight}, {divergence_weight}", "Correct them."
            )
        read: list[tuple[str, Sequence[str]]] = [(camera, ("rgb",)), (wrench, ("force_N", "torque_Nm"))]
        if joints is not None:
            read.append((joints, ("base_from_tool", "gripper_m")))
        check_sensors(owner, read, sensor_spaces, ignored_sensors)
        self._sensors = tuple(name for name, _ in read)
        self._camera, self._wrench, self._joints = camera, wrench, joints
        self._contact_N = contact_N
        self._weights = {"alignment": alignment_weight, "contact": contact_weight, "divergence": divergence_weight}
        self._position = action_spec.part("position_m") if "position_m" in action_spec.parts else None
        shape = sensor_spaces[camera].spaces["rgb"].shape
        if shape is None or len(shape) != 3:
            raise WiringError(f"{owner}, sensor '{camera}'", "rgb [H, W, 3]", f"{shape}", "Name another camera.")
        self.resize = AreaResize(shape[0], shape[1], network.image_px)
        self.network = network
        told = network.width + (_STATE if joints is not None else 0)
        self.steps = nn.Sequential(nn.Linear(told, hidden), nn.GELU(), nn.Linear(hidden, chunk * hidden), nn.GELU())
        self.head = RegressionHead(hidden, action_spec, chunk, hidden)
        self.tool = Affine(3, floor=0.01)
        self.wrench_norm: Tensor
        self.fallback_origin_m: Tensor
        norm = torch.tensor([force_norm_N, torque_norm_Nm]).repeat_interleave(3)
        self.register_buffer("wrench_norm", norm, persistent=False)
        # Where actions are relative to while the tool's place is unknown.
        self.register_buffer("fallback_origin_m", torch.zeros(3))

    @property
    def sensor_names(self) -> tuple[str, ...]:
        return self._sensors

    @property
    def head_names(self) -> tuple[str, ...]:
        return (HEAD,)

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit the scale of the actions and of the tool's place. The scale of the wrench is given, as published."""
        self.head.fit(stats)
        tool = stats.get(f"{self._joints}/base_from_tool")
        if tool is not None:
            own = FieldStats(*(np.asarray(x)[:3, 3] for x in (tool.mean, tool.std, tool.low, tool.high)))
            self.tool.fit(own)
            self.fallback_origin_m.copy_(self.tool.shift)
        elif self._position is not None and "action" in stats:
            mean = torch.as_tensor(stats["action"].mean, dtype=torch.float32).flatten()
            self.fallback_origin_m.copy_(mean[self._position])

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Matrices decay; biases, norms, positions and learned tokens do not."""
        return decayed(self, weight_decay, self.network.bare)

    def fuse(self, batch: Batch) -> Fused:
        """What the network makes of each sample."""
        return self._fused(self._seen(batch))

    def forward(self, batch: Batch) -> dict[str, ActionChunk]:
        """``"action"`` -> the chunk of each sample."""
        context = self._context(batch, self.fuse(batch).features)
        with full_precision(self.wrench_norm.device):
            return {HEAD: self.head(context)}

    def loss(self, batch: Batch, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """``action``: L1 of the chunk; ``alignment`` and ``contact``: see :mod:`perceive.vtt.losses`.

        Logged only: ``_alignment_accuracy`` over true and shuffled pairs (0.5 is chance), ``_contact_accuracy`` and
        ``_contact_rate``, which part of the samples is a contact.

        Raises:
            WiringError: a target for another head.
        """
        for name in targets:
            if name != HEAD:
                raise WiringError("VttModel.loss", f"a target for '{HEAD}'", f"'{name}'", "Train heads=[action].")
        seen, size = self._seen(batch), batch.size
        aligning = self._weights["alignment"] > 0
        pairs = _with_shuffled(seen) if aligning else seen
        both = self._fused(pairs)
        context = self._context(batch, both.features[:size])
        with full_precision(self.wrench_norm.device):
            terms = self.head.loss(context, targets[HEAD])
            label, contact = contact_label(seen.force, self._contact_N), both.contact[:size]
            terms["contact"] = self._weights["contact"] * contact_loss(contact, label, seen.wrench_there)
            terms["_contact_accuracy"] = accuracy(contact, label, seen.wrench_there)
            terms["_contact_rate"] = (label & seen.wrench_there).float().mean()
            if aligning:
                counts = pairs.image_there & pairs.wrench_there
                together = torch.arange(len(counts), device=counts.device) < size
                terms["alignment"] = self._weights["alignment"] * alignment_loss(both.alignment, together, counts)
                terms["_alignment_accuracy"] = accuracy(both.alignment, together, counts)
            if both.mean is not None and both.variance is not None:
                divergence = prior_divergence(both.mean[:size], both.variance[:size])
                terms["divergence"] = self._weights["divergence"] * divergence
        total = torch.stack([value for name, value in terms.items() if not name.startswith("_")]).sum()
        return {"loss": total} | {f"{HEAD}/{name}": value for name, value in terms.items()}

    def _fused(self, seen: _Seen) -> Fused:
        fused: Fused = self.network(seen.image, seen.wrench, seen.image_there, seen.wrench_there)
        return fused

    @torch.no_grad()
    def _seen(self, batch: Batch) -> _Seen:
        camera, wrench = batch.stream(self._camera), batch.stream(self._wrench)
        with full_precision(self.wrench_norm.device):
            image = self.resize(camera.data["rgb"][:, -1].movedim(-1, 1).float() / 255)
            force = wrench.data["force_N"][:, -1].float()
            both = torch.cat([force, wrench.data["torque_Nm"][:, -1].float()], -1)
            felt = wrench.valid[:, -1] & both.isfinite().all(-1)
            return _Seen(image, both / self.wrench_norm, force, camera.valid[:, -1], felt)

    def _context(self, batch: Batch, features: Tensor) -> HeadContext:
        """What the head reads: a readout per step of the chunk, and the tool's pose."""
        device, size = self.fallback_origin_m.device, batch.size
        origin, upright = self.fallback_origin_m.expand(size, 3), torch.eye(3, device=device).expand(size, 3, 3)
        told = features
        if self._joints is not None:
            stream = batch.stream(self._joints)
            with full_precision(device):
                tool = stream.data["base_from_tool"][:, -1].float()
                opening = stream.data["gripper_m"][:, -1, :1].float()
                place = self.tool(tool[:, :3, 3]).clamp(-10, 10)
                turned, known = matrix_to_rotation_6d(tool[:, :3, :3]), torch.ones_like(opening)
                state = torch.cat([opening * (2 / OPEN_M) - 1, place, turned, known], -1)
                there = stream.valid[:, -1:] & state.isfinite().all(-1, keepdim=True)
                origin = torch.where(there, tool[:, :3, 3], origin)
                upright = torch.where(there[..., None], tool[:, :3, :3], upright)
                told = torch.cat([widened(features), torch.where(there, state, 0.0)], -1)
        readouts = self.steps(told).unflatten(1, (self.head.num_readouts, -1))
        alone = torch.ones(size, 1, dtype=torch.bool, device=device)
        nowhere = torch.zeros(size, 1, 3, device=device)
        tokens = Tokens(features[:, None], nowhere, ~alone, nowhere[..., 0], alone)
        return HeadContext(widened(readouts), tokens, origin, upright)


def _with_shuffled(seen: _Seen) -> _Seen:
    """The samples, and behind them the same pictures with another's wrench; a batch of one as it is."""
    size = len(seen.wrench)
    if size < 2:
        return seen
    other = shuffled_partners(size).to(seen.wrench.device)
    return _Seen(
        torch.cat([seen.image, seen.image]),
        torch.cat([seen.wrench, seen.wrench[other]]),
        torch.cat([seen.force, seen.force[other]]),
        torch.cat([seen.image_there, seen.image_there]),
        torch.cat([seen.wrench_there, seen.wrench_there[other]]),
    )
