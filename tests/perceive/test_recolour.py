from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from perceive.batch import Batch, BatchStream
from perceive.recolour import ColourWords, recoloured
from sensors.errors import SpecError, WiringError
from sensors.instruction import to_bytes, to_text

HUES = {"red": 0.0, "green": 1 / 3, "blue": 2 / 3}
B = 12


def stream(**data: torch.Tensor) -> BatchStream:
    return BatchStream(data, torch.zeros(B, 1), torch.ones(B, 1, dtype=torch.bool))


def scene(text: str = "stack the red block on the blue block") -> Batch:
    picture = torch.full((B, 1, 3, 4, 3), 128, dtype=torch.uint8)
    picture[..., 0, 0, :] = torch.tensor([250, 0, 0], dtype=torch.uint8)
    picture[..., 1, 1, :] = torch.tensor([20, 30, 220], dtype=torch.uint8)
    words = torch.from_numpy(to_bytes(text, 64))
    return Batch(
        {
            "front": stream(rgb=picture, intrinsics_px=torch.ones(B, 1, 4)),
            "wrist": stream(rgb=picture, intrinsics_px=torch.ones(B, 1, 4)),
            "finger": stream(rgb=picture),  # a gel's picture: it has no lens, and its colours are slopes
            "task": stream(text=words.expand(B, 1, 64)),
        }
    )


def hue_at(batch: Batch, sample: int, row: int, column: int, camera: str = "front") -> float:
    r, g, b = (float(v) for v in batch.stream(camera).data["rgb"][sample, 0, row, column])
    return colorsys.rgb_to_hsv(r, g, b)[0]


def test_pictures_and_words_agree_in_every_sample() -> None:
    out = ColourWords(HUES)(scene(), torch.Generator().manual_seed(0))
    said = set()
    for sample in range(B):
        text = to_text(out.stream("task").data["text"][sample, 0].numpy())
        first, second = text.split()[2], text.split()[6]
        assert text == f"stack the {first} block on the {second} block"
        for camera in ("front", "wrist"):
            assert hue_at(out, sample, 0, 0, camera) == pytest.approx(HUES[first], abs=0.01)
            away = abs(hue_at(out, sample, 1, 1, camera) - HUES[second] + 0.5) % 1.0 - 0.5
            assert abs(away) < 0.03
        said.add((first, second))
    assert len(said) >= 4  # of six pairs
    assert torch.equal(out.stream("finger").data["rgb"], scene().stream("finger").data["rgb"])
    assert bool((out.stream("front").data["rgb"][:, :, 2] == 128).all())  # grey stays grey


def test_shades_stay() -> None:
    rng = np.random.default_rng(0)
    shades = [colorsys.hsv_to_rgb((h + rng.uniform(-0.03, 0.03)) % 1, rng.uniform(0.5, 1), rng.uniform(0.4, 1))
              for h in HUES.values() for _ in range(20)]  # fmt: skip
    picture = torch.tensor(shades, dtype=torch.float32).view(1, 1, 1, -1, 3) * 255
    hues = torch.tensor(list(HUES.values()))
    there = recoloured(picture, hues, torch.tensor([[1, 2, 0]]))
    back = recoloured(there, hues, torch.tensor([[2, 0, 1]]))
    torch.testing.assert_close(back, picture, atol=1e-2, rtol=0)
    torch.testing.assert_close(there.amax(-1), picture.amax(-1), atol=1e-3, rtol=0)  # value
    torch.testing.assert_close(there.amin(-1), picture.amin(-1), atol=1e-3, rtol=0)  # and saturation
    assert float((there - picture).abs().mean()) > 20


def test_a_hue_without_a_name_stays() -> None:
    violet = torch.tensor([140.0, 0.0, 250.0]).view(1, 1, 1, 1, 3)
    hues = torch.tensor([0.0, 1 / 3])
    torch.testing.assert_close(recoloured(violet, hues, torch.tensor([[1, 0]])), violet, atol=1e-3, rtol=0)


def test_words_inside_words_stay() -> None:
    out = ColourWords(HUES)(scene("the reddish greenhouse"), torch.Generator().manual_seed(0))
    assert {to_text(row[0].numpy()) for row in out.stream("task").data["text"]} == {"the reddish greenhouse"}


def test_without_an_instruction_it_is_refused() -> None:
    with pytest.raises(WiringError, match="tsk"):
        ColourWords(HUES, "tsk")(scene(), torch.Generator())
    with pytest.raises(SpecError, match="two or more"):
        ColourWords({"red": 0.0})
