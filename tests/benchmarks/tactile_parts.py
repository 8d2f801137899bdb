"""The three parts of :mod:`tests.benchmarks.bench_tactile_learning`: what is trained, and how it is judged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perceive.encoders.rgbd import RgbdPatchEncoder
from perceive.heads.base import Head
from perceive.heads.classification import ClassHead
from perceive.heads.readout import ReadoutHead
from perceive.model import PerceptionModel
from perceive.objectives.contrastive import ContrastiveAlignment, retrieval
from perceive.objectives.masked import MaskedPatches
from perceive.tactile.code_book import CodeBookSettings, TouchCodeBook, psnr
from perceive.tactile.heads import PressPoseHead, pose_errors
from perceive.tactile.model import TouchModel
from perceive.tactile.presses import SHAPES, Bodies, Contacts, Presses, gel_space, press, random_bodies, random_contacts
from perceive.tactile.stems import GelStem
from perceive.trunk import Trunk
from sensors.tactile.vary import Ranges
from tests.benchmarks.seeded_parts import Values
from tests.benchmarks.tactile_worlds import KNOWN, NEW, VIEW_SPACE, chosen, fingertip, view

WIDTH = 64
GALLERY = 64
RANGES = Ranges(gain=0.1, mix=0.03, turn_rad=0.05, tint=0.05, stiffness=0.0, noise=2.0)


@dataclass(frozen=True)
class Effort:
    """Steps and pictures. The defaults take one to two hours of one thread for all seeds."""

    pretrain_steps: int = 2000
    pretrain_pictures: int = 8000
    tune_steps: int = 800
    tune_pictures: int = 2000
    code_steps: int = 1200
    code_pictures: int = 4000
    align_steps: int = 1000
    align_pictures: int = 8000
    test_pictures: int = 1024
    batch: int = 64


def rng_of(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers that no other seed or purpose shares."""
    return np.random.default_rng([seed, *purpose.encode()])


def train(parameters: Sequence[dict[str, Any]], loss: Callable[[int], Tensor], steps: int, lr: float) -> float:
    """AdamW with a warm-up and a cosine; CPU seconds that it took."""
    groups = [group for group in parameters if group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    warm = max(min(100, steps // 10), 1)
    before = time.process_time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.zero_grad(set_to_none=True)
        loss(step).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimizer.step()
    return time.process_time() - before


# ------------------------------------------------------------------------------------------------------------ transfer


def touch_model(kinds: Sequence[str], heads: Mapping[str, Head], sensor_tokens: int = 2) -> TouchModel:
    """Stems of these kinds, a trunk, heads."""
    spaces = {kind: gel_space(fingertip(kind).gel) for kind in kinds}
    stems = {kind: GelStem() for kind in kinds}
    return TouchModel(spaces, dict.fromkeys(kinds, 1), None, WIDTH, stems, heads, sensor_tokens=sensor_tokens, depth=3)


def task_heads() -> dict[str, Head]:
    """In-hand pose and shape."""
    return {"pose": PressPoseHead(WIDTH), "shape": ClassHead(WIDTH, SHAPES)}


def supervised(
    model: TouchModel, data: Mapping[str, Presses], steps: int, batch: int, rng: np.random.Generator
) -> float:
    """Train on labelled pictures, one kind of fingertip per step in turn."""
    kinds = list(data)

    def loss(step: int) -> Tensor:
        kind = kinds[step % len(kinds)]
        some = data[kind][torch.from_numpy(rng.integers(len(data[kind]), size=batch))]
        value: Tensor = model.loss(some.batch(kind), some.targets())["loss"]
        return value

    return train(model.train().parameter_groups(0.01), loss, steps, 1e-3)


@torch.no_grad()
def judged(model: TouchModel, kind: str, test: Presses) -> Values:
    """Errors on held-out pictures."""
    model.eval()
    errors: dict[str, list[Tensor]] = {"place_m": [], "yaw_rad": [], "depth_m": []}
    right = []
    for start in range(0, len(test), 256):
        some = test[slice(start, start + 256)]
        answer, target = model(some.batch(kind)), some.targets()
        found = pose_errors(answer["pose"], target["pose"])
        found["yaw_rad"] = found["yaw_rad"][target["pose"].yaw_known]
        for name, value in found.items():
            errors[name].append(value)
        right.append(answer["shape"].logits.argmax(-1) == target["shape"])
    mean = {name: float(torch.cat(values).mean()) for name, values in errors.items()}
    return {
        "place, mm": 1e3 * mean["place_m"],
        "yaw, degrees": math.degrees(mean["yaw_rad"]),
        "depth, mm": 1e3 * mean["depth_m"],
        "shape right, fraction": float(torch.cat(right).float().mean()),
    }


def transfer(effort: Effort, seed: int) -> Values:
    """Errors of every arm on the new fingertip."""
    out: Values = {}
    data = {kind: press(fingertip(kind), rng_of(seed, kind), effort.pretrain_pictures, ranges=RANGES) for kind in KNOWN}
    few = {NEW: press(fingertip(NEW), rng_of(seed, NEW), effort.tune_pictures, ranges=RANGES)}
    # The same held-out presses for every seed.
    test = press(fingertip(NEW), rng_of(10_000, NEW), effort.test_pictures, ranges=RANGES)

    def fresh(kinds: Sequence[str]) -> TouchModel:
        torch.manual_seed(seed)
        return touch_model(kinds, task_heads())

    def tuned(name: str, model: TouchModel, times: int = 1) -> None:
        steps = times * effort.tune_steps
        taken = supervised(model, few, steps, effort.batch, rng_of(seed, "tune"))
        out.update({f"{name}: {key}": value for key, value in judged(model, NEW, test).items()})
        out[f"{name}: training, CPU s"] = taken
        print(seed, name, {key: round(value, 4) for key, value in out.items() if key.startswith(name)}, flush=True)

    tuned("from scratch", fresh([NEW]))
    tuned("from scratch, 3 times the steps", fresh([NEW]), 3)

    model = fresh(KNOWN)
    out["pretraining, CPU s"] = supervised(model, data, effort.pretrain_steps, effort.batch, rng_of(seed, "pretrain"))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.add_stem(NEW, plan=GelStem(), space=gel_space(fingertip(NEW).gel))
    tuned("pretrained, new stem untrained", model)
    model = fresh(KNOWN)
    model.load_state_dict(state)
    model.add_stem(NEW, like="digit", space=gel_space(fingertip(NEW).gel))
    tuned("pretrained, new stem like digit", model)

    model = fresh(KNOWN)
    hidden = MaskedPatches({kind: model.stem(kind) for kind in KNOWN}, model.trunk, WIDTH)
    rng, draw = rng_of(seed, "masked"), torch.Generator().manual_seed(seed)

    def masked(step: int) -> Tensor:
        kind = KNOWN[step % len(KNOWN)]
        some = data[kind][torch.from_numpy(rng.integers(len(data[kind]), size=effort.batch))]
        value: Tensor = hidden(some.batch(kind), draw)["loss"]
        return value

    decay = [{"params": list(hidden.parameters()), "weight_decay": 0.01}]
    out["masked pretraining, CPU s"] = train(decay, masked, effort.pretrain_steps, 1e-3)
    model.add_stem(NEW, like="digit", space=gel_space(fingertip(NEW).gel))
    tuned("pretrained without labels", model)
    return out


# --------------------------------------------------------------------------------------------------------------- codes


def code_book(pictures: Tensor, effort: Effort, seed: int, learn: bool = True) -> tuple[TouchCodeBook, float]:
    """A code book trained on pictures."""
    torch.manual_seed(seed)
    model = TouchCodeBook(CodeBookSettings(channels=8, blocks=1, learn=learn)).train()
    rng = rng_of(seed, "code steps")

    def loss(step: int) -> Tensor:
        return model.loss(pictures[torch.from_numpy(rng.integers(len(pictures), size=effort.batch // 2))])["loss"]

    taken = train([{"params": list(model.parameters()), "weight_decay": 0.0}], loss, effort.code_steps, 4e-3)
    return model.eval(), taken


def codes(effort: Effort, seed: int) -> Values:
    """How well pictures of other bodies come back."""
    optics = fingertip("gelsight_mini")
    quiet = Ranges(gain=0.0, mix=0.0, turn_rad=0.0, tint=0.0, stiffness=0.0, noise=1.0)
    count = effort.code_pictures
    one = Bodies(
        torch.full((count,), SHAPES.index("box")), torch.tensor([0.003, 0.006]).expand(count, 2), torch.zeros(count)
    )
    train_set = press(optics, rng_of(seed, "one"), count, ranges=quiet, bodies=one).rgb
    every = press(optics, rng_of(seed, "all"), count, ranges=quiet).rgb
    rest = [name for name in SHAPES if name != "box"]
    truth = press(optics, rng_of(10_000, "others"), effort.test_pictures // 4, rest, quiet).rgb
    background = optics.picture(torch.zeros(1, *truth.shape[1:3]))
    touched = (truth.float() - background.float()).abs().amax(-1) > 12
    some = touched.flatten(1).any(1)
    truth, touched = truth[some], touched[some]
    mean = train_set.float().mean(0).round().to(torch.uint8).expand_as(truth)
    trained, taken = code_book(train_set, effort, seed)
    answers = {
        "mean picture": mean,
        "trained on one box": trained.restored(truth),
        "codes that never learn": code_book(train_set, effort, seed, learn=False)[0].restored(truth),
        "trained on all shapes": code_book(every, effort, seed)[0].restored(truth),
    }
    out: Values = {"training, CPU s": taken}
    for name, picture in answers.items():
        out[f"{name}: whole picture, dB"] = float(psnr(picture, truth).mean())
        out[f"{name}: where it is touched, dB"] = float(psnr(picture, truth, touched).mean())
    with torch.no_grad():
        out["trained on one box: codes in use"] = float(trained(truth).codes.perplexity)
    print(seed, {key: round(value, 2) for key, value in out.items()}, flush=True)
    return out


# ----------------------------------------------------------------------------------------------------------- alignment


def vision_tower() -> PerceptionModel:
    """RGB-D patches and a trunk."""
    encoder = RgbdPatchEncoder(VIEW_SPACE, 1, WIDTH, patch_px=8, cell_px=4, cell_width=32, reach_m=0.005)
    trunk = Trunk(WIDTH, 0, 3, 4, shortest_m=0.004, longest_m=0.064)
    return PerceptionModel({"camera": encoder}, trunk, {"features": ReadoutHead(WIDTH)}, WIDTH)


def alignment(effort: Effort, seed: int) -> Values:
    """How often a held-out contact is found among 64."""
    torch.manual_seed(seed)
    kinds = ("digit", "gelsight_mini")
    touch, sight = touch_model(kinds, {"features": ReadoutHead(WIDTH)}), vision_tower()
    align = ContrastiveAlignment({"touch": WIDTH, "vision": WIDTH})
    each = effort.align_pictures // len(kinds)
    pool = {kind: press(fingertip(kind), rng_of(seed, f"touch {kind}"), each, ranges=RANGES) for kind in kinds}
    seen = {kind: view(p.bodies, p.contacts, rng_of(seed, f"view {kind}")) for kind, p in pool.items()}
    rng = rng_of(seed, "align")

    def loss(step: int) -> Tensor:
        kind = kinds[step % len(kinds)]
        index = torch.from_numpy(rng.choice(each, effort.batch, replace=each < effort.batch))
        felt = touch(pool[kind][index].batch(kind))["features"].features
        saw = sight(chosen(seen[kind], index))["features"].features
        value: Tensor = align({"touch": felt, "vision": saw})["loss"]
        return value

    parameters = [*touch.parameter_groups(0.01), *sight.parameter_groups(0.01)]
    taken = train(
        [*parameters, {"params": list(align.parameters()), "weight_decay": 0.0}], loss, effort.align_steps, 1e-3
    )
    touch.eval(), sight.eval()
    out: Values = {"training, CPU s": taken, "temperature": align.temperature}
    test_rng = rng_of(10_000, "alignment")
    count = max(effort.test_pictures // GALLERY, 1) * GALLERY
    for kind in kinds:
        optics = fingertip(kind)
        bodies = random_bodies(test_rng, count)
        anywhere = random_contacts(test_rng, count, optics.gel)
        # One place, turn and depth for all: only the body tells them apart.
        same = Contacts(torch.zeros(count, 2), torch.zeros(count), torch.full((count,), 6e-4))
        for label, contacts in (("anywhere", anywhere), ("all at one place", same)):
            presses = press(optics, test_rng, count, ranges=RANGES, bodies=bodies, contacts=contacts)
            with torch.no_grad():
                felt = align.embed("touch", touch(presses.batch(kind))["features"].features)
                saw = align.embed("vision", sight(view(bodies, contacts, test_rng))["features"].features)
            out[f"{kind}, {label}: vision from touch, fraction"] = float(retrieval(felt, saw, GALLERY).float().mean())
            out[f"{kind}, {label}: touch from vision, fraction"] = float(retrieval(saw, felt, GALLERY).float().mean())
    print(seed, {key: round(value, 3) for key, value in out.items()}, flush=True)
    return out
