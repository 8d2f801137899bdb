"""PerceptionModel: encoders, one trunk, heads. Wiring checks, forward and loss."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import Batch
from perceive.build import Resolved, build
from perceive.encoders.base import Encoder
from perceive.geometry import full_precision, widened
from perceive.heads.base import Head, HeadContext
from perceive.model_base import Model, decayed
from perceive.normalize import FieldStats
from perceive.saved import Description, fill, read_model
from perceive.tokens import Tokens, join
from perceive.trunk import BaseTrunk
from perceive.wiring import check_config, check_shapes
from sensors.action import ActionSpec
from sensors.errors import WiringError, nearest


@final
class PerceptionModel(Model):
    """Sensor frames -> tokens -> shared trunk -> head results.

    Built from parts, or from a config by :meth:`from_config` (which can then be saved).

    Args:
        encoders: sensor name -> encoder; their order is the order of the tokens.
        trunk: the shared transformer, made for all tokens plus all readouts.
        heads: head name -> head.
        width: D of all parts.
        origin: name of the sensor with ``base_from_tool`` whose point all positions are relative to; None = the base.

    Raises:
        WiringError: no encoder, no head, or an origin without an encoder.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        trunk: BaseTrunk,
        heads: Mapping[str, Head],
        width: int,
        origin: str | None = None,
    ) -> None:
        super().__init__()
        if not encoders or not heads:
            raise WiringError(
                "PerceptionModel", "at least one encoder and one head", f"{len(encoders)} and {len(heads)}", "Add one."
            )
        if origin is not None and origin not in encoders:
            raise WiringError(
                "PerceptionModel.origin", "a sensor with an encoder", f"'{origin}'", nearest(origin, encoders)
            )
        self._origin = origin
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}  # what from_config was told; sensor -> field -> T, ...
        self.encoders = nn.ModuleDict(encoders)
        self.trunk = trunk
        self.heads = nn.ModuleDict(heads)
        # Of the size of what encoders and places add (order one). Much smaller, and all readouts of a head would look
        # the same to the trunk: every step of a chunk would then learn the same mean action.
        self.sensor_embedding = nn.ParameterDict({n: nn.Parameter(torch.randn(width) * 0.5) for n in encoders})
        self.readouts = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(head.num_readouts, width)) for name, head in heads.items()}
        )
        # Where positions are relative to while the joints are absent; fitted to the mean tool point.
        self.fallback_origin_m: Tensor
        self.register_buffer("fallback_origin_m", torch.zeros(3))

    @staticmethod
    def from_config(
        config: Mapping[str, Any],
        sensor_spaces: Mapping[str, spaces.Dict],
        history: Mapping[str, int],
        action_spec: ActionSpec | None = None,
        allow: Sequence[str] = (),
    ) -> PerceptionModel:
        """Build all parts.

        Args:
            config: ``width``, ``origin``, ``encoders`` (sensor -> class and arguments), ``trunk``, ``heads``, and
                ``ignored_sensors``: sensors of the rig that are meant to have no encoder.
            sensor_spaces: sensor name -> frame space.
            history: sensor name -> T.
            action_spec: given to heads that take an ``action_spec``; those that take ``sensor_spaces`` get them.
            allow: import-path prefixes of encoders and heads outside this project.

        Raises:
            WiringError: names that do not match, with the nearest that would.
        """
        check_config(config, sensor_spaces, history)
        plain: dict[str, Any] = json.loads(json.dumps(config))
        width = int(config["width"])
        encoders = {
            name: build(
                part,
                allow=allow,
                where=f"encoder '{name}'",
                space=sensor_spaces[name],
                history=history[name],
                width=width,
            )
            for name, part in config["encoders"].items()
        }
        heads = {}
        for name, part in config["heads"].items():
            offered: dict[str, Any] = {"sensor_spaces": sensor_spaces}
            if action_spec is not None:
                offered["action_spec"] = action_spec
            heads[name] = build(part, allow=allow, where=f"head '{name}'", offered=offered, width=width)
        for kind, parts in (("encoders", encoders), ("heads", heads)):
            for name, part in parts.items():
                if isinstance(part, Resolved):
                    plain[kind][name] |= part.resolved_arguments()
        count = sum(e.num_tokens for e in encoders.values()) + sum(h.num_readouts for h in heads.values())
        offered = {"sensors": len(encoders)}
        trunk = build(config["trunk"], allow=allow, where="trunk", offered=offered, width=width, num_tokens=count)
        model = PerceptionModel(encoders, trunk, heads, width, config.get("origin"))
        model._shapes = {
            name: {f: (history[name], *(p.shape or ())) for f, p in sensor_spaces[name].spaces.items()}
            for name in encoders
        }
        model.describe(Description(plain, sensor_spaces, history, action_spec))
        return model

    @property
    def sensor_names(self) -> tuple[str, ...]:
        """The sensors that the model reads, in token order."""
        return tuple(self.encoders)

    @property
    def head_names(self) -> tuple[str, ...]:
        return tuple(self.heads)

    def encode(self, batch: Batch) -> Tokens:
        """All sensors' tokens [B, N, D] before the trunk, clean, one group per sensor."""
        parts = {}
        for name, encoder in self.encoders.items():
            stream = batch.stream(name)
            check_shapes(name, stream, self._shapes.get(name, {}))
            tokens = encoder(stream)
            parts[name] = replace(tokens, features=tokens.features + self.sensor_embedding[name]).cleaned()
        return join(parts)

    def contexts(self, batch: Batch) -> dict[str, HeadContext]:
        """Head name -> what that head may read, after the trunk."""
        sensed = self.encode(batch)
        origin_m, rotation = self._origin_of(batch)
        size, count = sensed.valid.shape
        parts = {"": sensed}
        # A readout stands at the tool and starts from what the tool's newest token says (zero where it is absent).
        own = 0.0 if self._origin is None else sensed.features[:, sensed.groups[self._origin]][:, -1:]
        for name, readout in self.readouts.items():
            features = readout[None].expand(size, -1, -1) + own
            here = features.new_zeros(features.shape[:2])
            parts[name] = Tokens(
                features, origin_m[:, None].expand(-1, features.shape[1], -1), here == 0, here, here == 0
            )
        joined = join(parts)
        groups = {name: joined.groups[name] for name in self.readouts}
        # Heads compute in metres, so they run in full precision whatever the trunk ran in.
        # To the trunk the groups are the sensors; the readouts are told apart beside them.
        features = widened(self.trunk(replace(joined, groups=sensed.groups), origin_m, list(groups.values())))
        after = Tokens(features[:, :count], sensed.position_m, sensed.placed, sensed.age_s, sensed.valid, sensed.groups)
        return {n: HeadContext(features[:, group], after, origin_m, rotation, batch) for n, group in groups.items()}

    def forward(self, batch: Batch) -> dict[str, Any]:
        """Head name -> its result."""
        contexts = self.contexts(batch)
        with full_precision(self.fallback_origin_m.device):
            return {name: head(contexts[name]) for name, head in self.heads.items()}

    def loss(self, batch: Batch, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Sum of all terms of the heads that have a target (``"loss"``), and each term as ``"head/term"``.

        Raises:
            WiringError: a target for a head that the model does not have.
        """
        for name in targets:
            if name not in self.heads:
                raise WiringError(
                    "PerceptionModel.loss", f"targets for {list(self.heads)}", f"'{name}'", nearest(name, self.heads)
                )
        contexts = self.contexts(batch)
        terms: dict[str, Tensor] = {}
        for name, target in targets.items():
            head = self.heads[name]
            with full_precision(self.fallback_origin_m.device):
                own: dict[str, Tensor] = head.loss(contexts[name], target)  # type: ignore[operator]  # ModuleDict forgets
            terms |= {f"{name}/{term}": value for term, value in own.items()}
        total = torch.stack([value for key, value in terms.items() if not key.split("/")[1].startswith("_")]).sum()
        return {"loss": total} | terms

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit every normaliser: ``"sensor/field"`` for the encoders, ``"action"`` for the heads."""
        for name, encoder in self.encoders.items():
            own = {key.removeprefix(f"{name}/"): value for key, value in stats.items() if key.startswith(f"{name}/")}
            encoder.fit(own)  # type: ignore[operator]  # ModuleDict forgets the type
        for head in self.heads.values():
            head.fit(stats)  # type: ignore[operator]
        tool = stats.get(f"{self._origin}/base_from_tool")
        if tool is not None:
            self.fallback_origin_m.copy_(torch.as_tensor(tool.mean)[:3, 3])

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups: matrices decay; biases, norms, embeddings and readouts do not. Frozen ones are left out."""
        return decayed(self, weight_decay, ("sensor_embedding", "readouts", ".index"))

    @staticmethod
    def from_pretrained(folder: str | Path, device: str = "cpu", allow: Sequence[str] = ()) -> PerceptionModel:
        """The inverse of :meth:`save_pretrained`, in evaluation mode.

        Args:
            folder: a local folder, or ``hf://owner/name`` (with ``@revision`` if wanted) on the Hugging Face hub.
            device: where the model goes.
            allow: import-path prefixes of encoders and heads outside this project.

        Raises:
            DataError: a file is missing, damaged, or of another format.
            WiringError: the config names a class that is not allowed.
        """
        place, was, state = read_model(folder, device)
        model = PerceptionModel.from_config(was.plan, was.sensor_spaces, was.history, was.action_spec, allow)
        fill(model, state, place)
        return model.to(device).eval()

    def _origin_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        size, device = batch.size, self.fallback_origin_m.device
        fallback = self.fallback_origin_m.expand(size, 3)
        upright = torch.eye(3, device=device, dtype=fallback.dtype).expand(size, 3, 3)
        if self._origin is None:
            return torch.zeros_like(fallback), upright
        stream = batch.stream(self._origin)
        # The newest frame that is there: the last one may have been dropped.
        order = torch.arange(stream.valid.shape[1], device=device)
        last = torch.where(stream.valid, order, -1).max(1).values
        newest = stream.data["base_from_tool"].to(fallback.dtype)[torch.arange(size, device=device), last.clamp_min(0)]
        there = last >= 0
        position = torch.where(there[:, None], newest[:, :3, 3], fallback)
        return position, torch.where(there[:, None, None], newest[:, :3, :3], upright)
