"""The benchmark of learning from touch: its parts run, go on where they were interrupted, and judge by their claims."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from perceive.tactile.presses import random_bodies, random_contacts
from tests.benchmarks import bench_tactile_learning as bench
from tests.benchmarks.tactile_worlds import FAR_M, RELIEF_M, VIEW_SPACE, chosen, fingertip, view

SMALL = [
    "--code-steps", "1", "--code-pictures", "8", "--test-pictures", "64", "--batch", "8",
    "--align-steps", "1", "--align-pictures", "16",
]  # fmt: skip


def test_a_part_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    out, work = tmp_path / "out.json", tmp_path / "work"
    first = [*SMALL, "--out", str(out), "--work", str(work), "--seeds", "0"]
    bench.main([*first, "--parts", "codes"])
    kept = json.loads((work / "codes_0.json").read_text())
    kept["values"]["mean picture: whole picture, dB"] = 12.25
    (work / "codes_0.json").write_text(json.dumps(kept))
    bench.main([*first, "--parts", "codes", "alignment"])
    figures = json.loads(out.read_text())["figures"]
    assert figures["codes: mean picture: whole picture"]["value"] == 12.25
    assert any(name.startswith("alignment, claim") for name in figures)
    assert not any(name.startswith("transfer") for name in figures)
    bench.main([*first, "--parts", "codes", "--code-steps", "2"])
    assert json.loads((work / "codes_0.json").read_text())["values"]["mean picture: whole picture, dB"] != 12.25


@pytest.mark.parametrize(("error", "met"), [(0.5, True), (0.95, False)])
def test_claims_are_met_or_not_by_their_figures(error: float, met: bool) -> None:
    run = {f"from scratch: {name}": 2.0 for name in ("place, mm", "yaw, degrees", "depth, mm")}
    run |= {key.replace("from scratch", "pretrained, new stem like digit"): 2.0 * error for key in run}
    figures = bench.figures_of("transfer", [run, run])
    claim = figures["transfer, claim: error of yaw, pretrained over from scratch"]
    assert (claim.value, claim.n, claim.met) == (error, 2, met)
    assert figures["transfer: from scratch: place"].unit == "mm"


def test_a_view_shows_the_body_where_it_will_be_felt() -> None:
    rng = np.random.default_rng(0)
    bodies = random_bodies(rng, 8, ("punch",))
    contacts = random_contacts(rng, 8, fingertip("digit").gel)
    seen = view(bodies, contacts, rng).stream("camera")
    for name, part in VIEW_SPACE.spaces.items():
        assert part.contains(seen.data[name][0, 0].numpy()), name
    depth = seen.data["depth_m"][:, 0]
    body = depth < FAR_M + RELIEF_M / 2
    rows, columns = (torch.arange(64.0)[:, None], torch.arange(64.0)[None])
    focal = seen.data["intrinsics_px"][0, 0, 0]
    for index in range(8):
        weight = body[index].float()
        pixel = torch.stack([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        shift = seen.data["base_from_camera"][index, 0, :2, 3]
        place = (pixel - 31.5) / focal * FAR_M + shift
        assert (place - contacts.xy_m[index]).norm() < 4e-4
    assert chosen(view(bodies, contacts, rng), slice(2)).size == 2
