"""TouchModel: a stem for each kind of touch sensor, one trunk, a head for each task."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import Batch
from perceive.encoders.base import Encoder
from perceive.geometry import full_precision, widened
from perceive.heads.base import Head, HeadContext
from perceive.model_base import Model, decayed
from perceive.normalize import FieldStats
from perceive.tactile.pad_frame import moved, pad_from_base
from perceive.tactile.stems import StemPlan
from perceive.tokens import Tokens, join
from perceive.trunk import Trunk
from perceive.wiring import check_shapes
from sensors.action import ActionSpec
from sensors.errors import WiringError, nearest
from sensors.spec import space_to_json


@final
class TouchModel(Model):
    """Touch sensors of several kinds -> in-hand results, through one trunk.

    After T3 (J. Zhao, Y. Ma, L. Wang, E. Adelson, "Transferable Tactile Transformers for Representation Learning
    Across Diverse Sensors and Tasks", CoRL 2024): stems know their sensor, the trunk is shared, heads know their task.
    Here the trunk is the project's own and tokens have places: all of them are put into the frame of the pad that is
    felt with (the first of the batch that is there), so that results are in that frame and do not depend on the arm.
    Learned sensor tokens, as many as ``sensor_tokens`` per kind, are added to the tokens (UniTouch: Yang et al.,
    CVPR 2024).

    A batch holds the streams of one sensor, or of several felt at once; which ones may change from batch to batch. A
    sensor without a stem is an error. A new kind gets its stem by :meth:`add_stem`.

    Args:
        sensor_spaces: sensor -> frame space.
        history: sensor -> T.
        action_spec: not used; models of every kind are offered one.
        width: D.
        stems: kind of sensor -> its stem.
        heads: task -> head.
        kinds: sensor -> its kind; None = sensors are named by their kinds. Sensors of one kind share a stem.
        sensor_tokens: learned tokens per kind.
        depth: blocks of the trunk.
        attention_heads: of each block.
        mlp_ratio: of each block.
        dropout: in the trunk, in training.
        shortest_m: shortest wavelength of position in the trunk; of the order of a patch.
        longest_m: longest; of the order of a few pads.

    Raises:
        WiringError: names that do not fit each other, or a stem that does not fit its sensor.
    """

    def __init__(
        self,
        sensor_spaces: Mapping[str, spaces.Dict],
        history: Mapping[str, int],
        action_spec: ActionSpec | None,
        width: int,
        stems: Mapping[str, StemPlan],
        heads: Mapping[str, Head],
        kinds: Mapping[str, str] | None = None,
        sensor_tokens: int = 0,
        depth: int = 4,
        attention_heads: int = 4,
        mlp_ratio: float = 3.0,
        dropout: float = 0.0,
        shortest_m: float = 0.004,
        longest_m: float = 0.064,
    ) -> None:
        super().__init__()
        if not stems or not heads or sensor_tokens < 0:
            got = f"{len(stems)} stems, {len(heads)} heads, {sensor_tokens} sensor tokens"
            raise WiringError("TouchModel", "stems, heads and sensor_tokens >= 0", got, "Add what is missing.")
        self._width, self._sensor_tokens = width, sensor_tokens
        self._plans: dict[str, StemPlan] = {}
        self._spaces: dict[str, tuple[spaces.Dict, int]] = {}  # kind -> frame space and T
        self._kinds: dict[str, str] = {}  # sensor -> kind
        self.stems = nn.ModuleDict()
        self.sensor_tokens = nn.ParameterDict()
        for sensor, kind in ({name: name for name in sensor_spaces} if kinds is None else dict(kinds)).items():
            if sensor not in sensor_spaces:
                raise WiringError(
                    "TouchModel.kinds", "sensors of the rig", f"'{sensor}'", nearest(sensor, sensor_spaces)
                )
            if kind not in stems:
                raise WiringError(
                    f"TouchModel, sensor '{sensor}'", "a kind with a stem", f"'{kind}'", nearest(kind, stems)
                )
            if sensor not in history:
                raise WiringError(f"sensor '{sensor}'", "its number of instants in history", "none", "Pass it.")
            if kind not in self._plans:
                self._build(kind, stems[kind], sensor_spaces[sensor], history[sensor])
            elif self._spaces[kind] != (sensor_spaces[sensor], history[sensor]):
                fix = "Give it a kind and a stem of its own."
                raise WiringError(f"sensor '{sensor}'", f"the frames of the other '{kind}'", "another space", fix)
            self._kinds[sensor] = kind
        for kind in stems:
            if kind not in self._plans:
                raise WiringError(
                    f"TouchModel.stems, '{kind}'",
                    "a sensor of that kind",
                    f"{self._kinds}",
                    nearest(kind, sensor_spaces),
                )
        self.trunk = Trunk(
            width, 0, depth, attention_heads, mlp_ratio, dropout, shortest_m=shortest_m, longest_m=longest_m
        )
        self.heads = nn.ModuleDict(heads)
        self.readouts = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(head.num_readouts, width)) for name, head in heads.items()}
        )

    def _build(self, kind: str, plan: StemPlan, space: spaces.Dict, history: int) -> None:
        if not kind or "." in kind:
            raise WiringError("TouchModel.stems", "names without a dot", repr(kind), "Rename it.")
        self.stems[kind] = plan.build(space, history, self._width)
        if self._sensor_tokens:
            self.sensor_tokens[kind] = nn.Parameter(torch.randn(self._sensor_tokens, self._width) * 0.5)
        self._plans[kind], self._spaces[kind] = plan, (space, history)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of sensors that have a stem."""
        return tuple(self.stems)

    @property
    def sensor_names(self) -> tuple[str, ...]:
        return tuple(self._kinds)

    @property
    def head_names(self) -> tuple[str, ...]:
        return tuple(self.heads)

    def stem(self, kind: str) -> Encoder:
        """The stem of a kind.

        Raises:
            WiringError: there is none.
        """
        if kind not in self.stems:
            raise WiringError("TouchModel.stem", f"one of {list(self.stems)}", f"'{kind}'", nearest(kind, self.stems))
        found = self.stems[kind]
        assert isinstance(found, Encoder)
        return found

    def add_stem(
        self,
        name: str,
        like: str | None = None,
        *,
        plan: StemPlan | None = None,
        space: spaces.Dict | None = None,
        history: int | None = None,
    ) -> Encoder:
        """A stem for a new kind of sensor, which is named like it; the trunk and the heads stay as they are.

        Args:
            name: the new kind.
            like: a kind that there is: the new stem begins with its settings and its weights.
            plan: settings of the new stem, which begins untrained. Either this or ``like``.
            space: frame space of its sensor; None = that of ``like``.
            history: T; None = that of ``like``, or 1.

        Raises:
            WiringError: the kind is there already, ``like`` is not, neither or both of ``like`` and ``plan`` are given,
                or the weights do not fit the new sensor.
        """
        where = f"TouchModel.add_stem, '{name}'"
        if name in self._kinds or name in self.stems:
            raise WiringError(where, f"a name other than {list(self._kinds)}", "one of them", "Choose another.")
        if (like is None) == (plan is None):
            got, fix = "neither" if like is None else "both", f"Kinds: {list(self.stems)}."
            raise WiringError(where, "either like=<kind> or plan=<settings>", got, fix)
        old = None if like is None else self.stem(like)
        if like is not None:
            plan = self._plans[like]
            space, history = space or self._spaces[like][0], history or self._spaces[like][1]
        if plan is None or space is None:
            raise WiringError(where, "the frame space of the new sensor", "none", "Pass space=.")
        built = plan.build(space, history or 1, self._width)
        if old is not None:
            try:
                built.load_state_dict(old.state_dict())
            except RuntimeError as error:
                got = str(error).splitlines()[-1].strip()
                raise WiringError(where, f"a sensor that the weights of '{like}' fit", got, "Pass plan=.") from None
        device = next(self.trunk.parameters()).device
        self._build(name, plan, space, history or 1)
        self.stems[name] = built.to(device)
        if self._sensor_tokens:
            start = self.sensor_tokens[name] if like is None else self.sensor_tokens[like]
            self.sensor_tokens[name] = nn.Parameter(start.detach().clone().to(device))
        self._kinds[name] = name
        self._note(name)
        return built

    def _note(self, kind: str) -> None:
        """Write the new stem into what the model can be built from again, if it was built from a config."""
        if self._config is None:
            return
        config = copy.deepcopy(self._config)
        space, history = self._spaces[kind]
        config["model"]["stems"][kind] = json.loads(json.dumps(self._plans[kind].to_config()))
        if config["model"].get("kinds") is not None:
            config["model"]["kinds"][kind] = kind
        config["sensor_spaces"][kind] = space_to_json(space)
        config["history"][kind] = history
        self._config = config

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit what stems and heads have to fit, ``"sensor/field"``; the first sensor of a kind speaks for it."""
        for sensor, kind in reversed(self._kinds.items()):
            own = {
                key.removeprefix(f"{sensor}/"): value for key, value in stats.items() if key.startswith(f"{sensor}/")
            }
            self.stem(kind).fit(own)
        for head in self.heads.values():
            head.fit(stats)  # type: ignore[operator]  # ModuleDict forgets the type

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Matrices decay; biases, norms, readouts and sensor tokens do not. Frozen ones are left out."""
        return decayed(self, weight_decay, ("readouts", "sensor_tokens"))

    def encode(self, batch: Batch) -> Tokens:
        """Tokens of all streams of the batch, clean, in the frame of the pad, one group per sensor.

        Raises:
            WiringError: a stream without a stem, or no stream.
        """
        if not batch.streams:
            raise WiringError("TouchModel", f"a stream of one of {list(self._kinds)}", "none", "Pass one.")
        parts = {}
        for name, stream in batch.streams.items():
            if name not in self._kinds:
                fix = f"{nearest(name, self._kinds)} For a new kind call add_stem('{name}', like=...) first."
                raise WiringError("TouchModel", f"sensors of {list(self._kinds)}", f"'{name}'", fix)
            kind = self._kinds[name]
            space, history = self._spaces[kind]
            check_shapes(name, stream, {f: (history, *(p.shape or ())) for f, p in space.spaces.items()})
            parts[name] = self._with_sensor_tokens(kind, self.stem(kind)(stream).cleaned())
        return moved(join(parts), pad_from_base(list(batch.streams.values())))

    def _with_sensor_tokens(self, kind: str, tokens: Tokens) -> Tokens:
        if not self._sensor_tokens:
            return tokens
        size = len(tokens.valid)
        own = self.sensor_tokens[kind][None].expand(size, -1, -1)
        nowhere = own.new_zeros(size, self._sensor_tokens, 3)
        there = tokens.valid.any(1, keepdim=True).expand(-1, self._sensor_tokens)
        added = Tokens(own, nowhere, torch.zeros_like(there), nowhere[..., 0], there).cleaned()
        return replace(join({"seen": tokens, "kind": added}), groups={})

    def contexts(self, batch: Batch) -> dict[str, HeadContext]:
        """Head -> what it may read, after the trunk; places are in the frame of the pad."""
        sensed = self.encode(batch)
        size, count = sensed.valid.shape
        origin = sensed.position_m.new_zeros(size, 3)
        upright = torch.eye(3, device=origin.device).expand(size, 3, 3)
        parts = {"": sensed}
        for name, readout in self.readouts.items():
            features = readout[None].expand(size, -1, -1)
            here = features.new_zeros(features.shape[:2])
            parts[name] = Tokens(features, features.new_zeros(*here.shape, 3), here == 0, here, here == 0)
        joined = join(parts)
        groups = {name: joined.groups[name] for name in self.readouts}
        features = widened(self.trunk(joined, origin, list(groups.values())))
        after = replace(sensed, features=features[:, :count])
        return {name: HeadContext(features[:, group], after, origin, upright, batch) for name, group in groups.items()}

    def forward(self, batch: Batch) -> dict[str, Any]:
        """Head -> its result."""
        contexts = self.contexts(batch)
        with full_precision(next(self.trunk.parameters()).device):
            return {name: head(contexts[name]) for name, head in self.heads.items()}

    def loss(self, batch: Batch, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Sum of all terms of the heads that have a target (``"loss"``), and each term as ``"head/term"``.

        Raises:
            WiringError: a target for a head that the model does not have, or no target.
        """
        for name in targets:
            if name not in self.heads:
                raise WiringError(
                    "TouchModel.loss", f"targets for {list(self.heads)}", f"'{name}'", nearest(name, self.heads)
                )
        if not targets:
            raise WiringError("TouchModel.loss", f"a target for one of {list(self.heads)}", "none", "Pass one.")
        contexts = self.contexts(batch)
        terms: dict[str, Tensor] = {}
        with full_precision(next(self.trunk.parameters()).device):
            for name, target in targets.items():
                own: dict[str, Tensor] = self.heads[name].loss(contexts[name], target)  # type: ignore[operator]
                terms |= {f"{name}/{term}": value for term, value in own.items()}
        total = torch.stack([value for key, value in terms.items() if not key.split("/")[1].startswith("_")]).sum()
        return {"loss": total} | terms
