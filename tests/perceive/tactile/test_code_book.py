"""The autoencoder of gel pictures: shapes, saving, and that it learns to restore."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from perceive.tactile.code_book import CodeBookSettings, TouchCodeBook, psnr, scaled
from perceive.tactile.presses import press
from sensors.errors import DataError, SpecError
from sensors.tactile.presets import preset_optics

SMALL = CodeBookSettings(codes=32, width=8, channels=8, halvings=2, blocks=1)


def book(**changes: Any) -> TouchCodeBook:
    torch.manual_seed(0)
    return TouchCodeBook(replace(SMALL, **changes))


def pictures(count: int = 8, seed: int = 0) -> torch.Tensor:
    return press(preset_optics("digit", 16, 16), np.random.default_rng(seed), count).rgb


@pytest.mark.parametrize("halvings", [1, 3])
def test_a_code_stands_for_a_square_of_pixels(halvings: int) -> None:
    part = book(halvings=halvings).eval()
    rgb = torch.randint(30, 220, (2, 16, 24, 3)).to(torch.uint8)
    restored = part(rgb)
    cell = 2**halvings
    assert restored.picture.shape == (2, 3, 16, 24)
    assert restored.codes.index.shape == (2, 16 // cell, 24 // cell)
    assert part.restored(rgb).shape == rgb.shape
    assert part.restored(rgb).dtype == torch.uint8


def test_grey_values_come_back_as_they_were() -> None:
    rgb = torch.arange(256).to(torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    back = ((scaled(rgb, 2) + 1) * 127.5).round().movedim(1, -1).to(torch.uint8)
    assert torch.equal(back, rgb)


def test_the_ratio_in_closed_form() -> None:
    truth = torch.full((2, 4, 4, 3), 100, dtype=torch.uint8)
    off = truth.clone()
    off[1, :2] = 110
    ratio = psnr(off, truth)
    assert ratio[1].item() == pytest.approx(10 * np.log10(255**2 / 50))
    assert ratio[0] > 80
    where = torch.zeros(2, 4, 4, dtype=torch.bool)
    where[:, 2:] = True
    assert psnr(off, truth, where)[1] > 80
    assert psnr(off, truth, ~where)[1].item() == pytest.approx(10 * np.log10(255**2 / 100))


def test_pictures_that_are_not_counted_teach_nothing() -> None:
    rgb, counts = pictures(), torch.tensor([True] * 4 + [False] * 4)
    other = rgb.clone()
    other[4:] = 255 - other[4:]
    states = []
    for one in (rgb, other):
        part = book().train()
        part.loss(one, counts)["loss"].backward()
        states.append({n: p.grad for n, p in part.named_parameters()} | dict(part.named_buffers()))
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    part = book().train()
    part.loss(torch.cat([255 - rgb[:4], rgb[4:]]), counts)["loss"].backward()
    assert any(not torch.equal(p.grad, states[0][n]) for n, p in part.named_parameters())
    assert book().train().loss(rgb, torch.zeros(8, dtype=torch.bool))["loss"] == 0


def test_it_learns_to_restore_what_it_has_not_seen() -> None:
    """One shape in training, others in the test: closer than the mean picture, which codes that never learn are not."""
    optics, rng = preset_optics("digit", 16, 16), np.random.default_rng(0)
    seen = press(optics, rng, 256, ("box",)).rgb
    new = press(optics, np.random.default_rng(1), 64, ("ball", "cone", "punch")).rgb
    mean = seen.float().mean(0).round().to(torch.uint8).expand_as(new)
    gains = []
    for learn in (True, False):
        part = book(codes=64, halvings=1, blocks=0, decay=0.9, learn=learn).train()
        optimizer = torch.optim.Adam(part.parameters(), lr=4e-3)
        for _ in range(100):
            optimizer.zero_grad()
            part.loss(seen[torch.from_numpy(rng.integers(256, size=16))])["loss"].backward()
            optimizer.step()
        gains.append(float(psnr(part.eval().restored(new), new).mean() - psnr(mean, new).mean()))
    assert gains[0] > 1.0, gains
    assert gains[1] < gains[0] - 1.0, gains


def test_saving(tmp_path: Any) -> None:
    part = book().train()
    part.loss(pictures())
    part.eval().save_pretrained(tmp_path)
    again = TouchCodeBook.from_pretrained(tmp_path)
    assert again.settings == part.settings
    assert torch.equal(again(pictures()).picture, part(pictures()).picture)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"] = {"_target_": "perceive.trunk.Trunk", "width": 32, "num_tokens": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="TouchCodeBook"):
        TouchCodeBook.from_pretrained(tmp_path)
    with pytest.raises(DataError):
        TouchCodeBook.from_pretrained(tmp_path / "none")


@pytest.mark.parametrize(
    "rgb",
    [
        torch.zeros(2, 16, 16, 3),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 18, 16, 3, dtype=torch.uint8),
        torch.zeros(16, 16, 3, dtype=torch.uint8),
    ],
)
def test_what_is_no_such_picture_is_refused(rgb: torch.Tensor) -> None:
    with pytest.raises(SpecError, match="uint8"):
        book()(rgb)


def test_sizes_that_make_no_sense() -> None:
    for changes in ({"channels": 0}, {"halvings": 0}, {"blocks": -1}, {"width": 0}):
        with pytest.raises(SpecError):
            replace(SMALL, **changes)  # type: ignore[arg-type]
