"""How long the multi-view keyframe networks take on a CPU: python -m tests.benchmarks.bench_rvt_networks.

One stage of RVT and of RVT-2 at their published sizes, and of the small preset, from rendered pictures to heatmaps and
tokens, at batch 1 and in full and half precision; for the small preset also a training step per sample. The weights do
not change the time. On one thread the figures are CPU time, which is the wall time of a thread that nobody disturbs; on
two they are wall time. Beside them stands what two rearrangements of the same maths save: the convolution of RVT's
decoder without the enlarged map, and attention in half precision without the fused kernel.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from perceive.results import Figure, start_clock, write_result
from perceive.rvt.blocks import attend_keys
from perceive.rvt.network import StageInput, StageNetwork
from perceive.rvt.presets import PRESETS, build_stages
from perceive.rvt.upsample import EnlargedConv

PRECISIONS = {"float32": False, "bfloat16": True}


def stage_input(network: StageNetwork, tokens: int, batch: int, seed: int = 0) -> StageInput:
    """Noise of the right shapes; ten words are said."""
    draw = torch.Generator().manual_seed(seed)
    views, size = network.views, network.size_px
    valid = torch.zeros(batch, tokens, dtype=torch.bool)
    valid[:, :10] = True
    return StageInput(
        torch.randn(batch, views, 10, size, size, generator=draw),
        torch.zeros(batch, views, 3, size, size),
        torch.ones(batch, views, size, size, dtype=torch.bool),
        torch.randn(batch, 4, generator=draw),
        torch.randn(batch, tokens, 512, generator=draw),
        valid,
    )


def timed_ms(job: Callable[[], object], rounds: int, clock: Callable[[], float]) -> list[float]:
    """Milliseconds of each of ``rounds`` calls after one to warm up."""
    job()
    out = []
    for _ in range(rounds):
        before = clock()
        job()
        out.append((clock() - before) * 1e3)
    return out


def figure(times_ms: list[float], unit: str = "ms", at_most: float | None = None) -> Figure:
    """The median, with the lowest and highest."""
    return Figure(float(np.median(times_ms)), unit, min(times_ms), max(times_ms), n=len(times_ms), at_most=at_most)


def forward_times(preset: str, rounds: int, threads: int, at_most: dict[str, float]) -> dict[str, Figure]:
    """One stage of a preset, batch 1."""
    network = build_stages(preset)[-1].eval()
    stage = stage_input(network, PRESETS[preset]["stages"][-1]["language_tokens"], batch=1)
    torch.set_num_threads(threads)
    out = {}
    for name, half in PRECISIONS.items():

        def job(half: bool = half) -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                network(stage)

        clock = time.process_time if threads == 1 else time.perf_counter
        label = f"{preset}, one stage, {name}, {threads} thread{'s' if threads > 1 else ''}"
        out[label] = figure(timed_ms(job, rounds, clock), at_most=at_most.get(name) if threads == 1 else None)
    torch.set_num_threads(1)
    return out


def training_times(rounds: int, batch: int) -> dict[str, Figure]:
    """Forward and backward of one stage of the small preset, per sample."""
    network = build_stages("rvt_small")[-1].train()
    stage = stage_input(network, 16, batch)
    pixels, bins = torch.full((batch, network.views, 2), 50.0), torch.zeros(batch, 3, dtype=torch.long)
    where = torch.arange(batch * network.views)
    out = {}
    for name, half in PRECISIONS.items():

        def job(half: bool = half) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                features = network(stage)
                pose = network.pose(features, pixels, bins)
            loss = nn.functional.cross_entropy(features.logits.float().flatten(0, 1).flatten(1), where)
            assert pose.rotation is not None
            for part in (pose.rotation.flatten(0, 1), pose.gripper, pose.collision):
                loss = loss + nn.functional.cross_entropy(part.float(), torch.zeros(len(part), dtype=torch.long))
            loss.backward()

        times_ms = [ms / batch for ms in timed_ms(job, rounds, time.process_time)]
        out[f"rvt_small, training, one stage, per sample, {name}"] = figure(times_ms)
    return out


def ratio(slow: Callable[[], object], quick: Callable[[], object], rounds: int) -> Figure:
    """How many times longer the first takes, call beside call."""
    pairs = [timed_ms(slow, 1, time.process_time)[0] / timed_ms(quick, 1, time.process_time)[0] for _ in range(rounds)]
    return figure(pairs, "times")


def rearranged(rounds: int) -> dict[str, Figure]:
    """What the same maths in another order saves."""
    draw = torch.Generator().manual_seed(0)
    quick = EnlargedConv(64, 64, 11, coarse=20, factor=11).requires_grad_(False)
    coarse = torch.randn(1, 64, 20, 20, generator=draw)

    def plain() -> Tensor:
        large = nn.functional.interpolate(coarse, scale_factor=11, mode="bilinear")
        return nn.functional.conv2d(large, quick.weight, quick.bias, padding=5)

    torch.testing.assert_close(quick(coarse), plain(), atol=1e-4, rtol=1e-4)
    query, key, value = (torch.randn(16, 6, 208, 32, generator=draw).bfloat16().requires_grad_() for _ in range(3))
    allowed = torch.ones(16, 1, 1, 208, dtype=torch.bool)

    def fused() -> None:
        nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed
        ).float().square().sum().backward()

    def explicit() -> None:
        attend_keys(query, key, value, allowed).float().square().sum().backward()

    return {
        "decoder convolution of RVT: plain over ours": ratio(plain, lambda: quick(coarse), min(rounds, 3)),
        "attention in bfloat16, forward and backward: fused over ours": ratio(fused, explicit, rounds),
    }


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/rvt_networks.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started = start_clock()
    few = max(arguments.rounds // 3, 1)
    figures = {
        **forward_times("rvt_small", 3 * arguments.rounds, 1, {"float32": 40.0, "bfloat16": 40.0}),
        **training_times(few, arguments.batch),
        **forward_times("rvt2", arguments.rounds, 1, {}),
        **forward_times("rvt2", arguments.rounds, 2, {}),
        **forward_times("rvt", few, 1, {}),
        **rearranged(arguments.rounds),
    }
    torch.set_num_threads(1)
    config = {"rounds": arguments.rounds, "training batch": arguments.batch}
    about = (
        "One stage's network from rendered pictures to heatmaps, batch 1 (training: per sample of a batch). One "
        "thread: CPU time; two threads: wall time on a machine shared with other jobs. The interval is the quickest "
        "and slowest call. 'Over ours' says how many times longer the usual way takes for the same values."
    )
    command = "python -m tests.benchmarks.bench_rvt_networks"
    write_result(
        arguments.out, "Keyframe networks on a CPU", figures, [0], config, started=started, about=about, command=command
    )
    for name, one in figures.items():
        print(f"{name}: {one.value:.2f} {one.unit}" + ("" if one.met is None else f" (met: {one.met})"))


if __name__ == "__main__":
    main()
