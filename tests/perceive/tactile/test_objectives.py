"""Vector quantisation, contrastive alignment and masked modelling: closed forms, faults, and that they learn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perceive.batch import Batch
from perceive.encoders.wrench_history import WrenchHistoryEncoder
from perceive.objectives.contrastive import ContrastiveAlignment, retrieval
from perceive.objectives.masked import MaskedPatches
from perceive.objectives.quantise import CodeBook
from perceive.trunk import Trunk
from sensors.errors import SpecError, WiringError
from tests.perceive.scene import WRENCH
from tests.perceive.tactile.test_touch_encoders import GEL, gel, put, stream


def clusters(seed: int, each: int = 40) -> tuple[Tensor, Tensor]:
    """Four tight clouds at the corners of a square, and their middles."""
    draw = torch.Generator().manual_seed(seed)
    middles = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    return middles.repeat(each, 1) + 0.05 * torch.randn(4 * each, 2, generator=draw), middles


# ---------------------------------------------------------------------------------------------------------- code book


def test_each_vector_becomes_its_nearest_code() -> None:
    torch.manual_seed(0)
    book = CodeBook(16, 3).eval()
    vectors = torch.randn(5, 7, 3)
    found = book(vectors)
    wanted = torch.cdist(vectors.reshape(-1, 3), book.codes).argmin(1).reshape(5, 7)
    assert torch.equal(found.index, wanted)
    torch.testing.assert_close(found.values, book.lookup(wanted))
    torch.testing.assert_close(found.commitment, 0.25 * (vectors - book.lookup(wanted)).square().mean())


def test_the_gradient_goes_straight_through_and_to_the_commitment() -> None:
    torch.manual_seed(0)
    book = CodeBook(8, 3).eval()
    vectors = torch.randn(6, 3, requires_grad=True)
    weight = torch.randn(6, 3)
    (book(vectors).values * weight).sum().backward()
    torch.testing.assert_close(vectors.grad, weight)
    vectors.grad = None
    found = book(vectors)
    found.commitment.backward()
    torch.testing.assert_close(vectors.grad, 0.25 * 2 * (vectors - book.lookup(found.index)).detach() / 18)


def test_codes_are_the_moving_average_of_what_is_nearest_to_them() -> None:
    book = CodeBook(2, 1, decay=0.5, revive_below=0.0).train()
    book.codes.copy_(torch.tensor([[0.0], [10.0]]))
    book.started.fill_(True)
    book(torch.tensor([[1.0], [2.0], [12.0]]))
    # uses were 1: (0.5 * 1 * 0 + 0.5 * (1 + 2)) / (0.5 * 1 + 0.5 * 2) and (0.5 * 10 + 0.5 * 12) / (0.5 + 0.5)
    torch.testing.assert_close(book.codes, torch.tensor([[1.0], [11.0]]))
    torch.testing.assert_close(book.uses, torch.tensor([1.5, 1.0]))


def test_nothing_changes_in_evaluation_or_where_it_does_not_learn() -> None:
    vectors, _ = clusters(0)
    for book in (CodeBook(8, 2).eval(), CodeBook(8, 2, learn=False).train()):
        before = book.codes.clone()
        book(vectors)
        assert torch.equal(book.codes, before)
    book = CodeBook(8, 2).train()
    before = book.codes.clone()
    book(vectors)
    assert not torch.equal(book.codes, before)


@pytest.mark.parametrize("revive_below", [0.0, 0.1])
def test_dead_codes_are_put_to_use(revive_below: float) -> None:
    torch.manual_seed(0)
    book = CodeBook(4, 2, decay=0.8, revive_below=revive_below).train()
    _, middles = clusters(0)
    book.codes.copy_(torch.tensor([[0.0, 0.0], [50.0, 50.0], [60.0, 60.0], [70.0, 70.0]]))  # one near, three far off
    book.started.fill_(True)
    for seed in range(60):
        found = book(clusters(seed)[0])
    nearest = torch.cdist(middles, book.codes).amin(1).max()
    if revive_below:
        assert found.perplexity > 3.5
        assert nearest < 0.1
    else:
        assert found.perplexity == pytest.approx(1.0, abs=1e-4), "the control: without revival they stay dead"


def test_what_is_not_finite_or_not_counted_changes_no_code() -> None:
    vectors, _ = clusters(0)
    counts = torch.ones(len(vectors), dtype=torch.bool)
    counts[::3] = False
    honest, spoilt = vectors.clone(), vectors.clone()
    spoilt[::3] = 1e6
    spoilt[0] = torch.nan
    books = []
    for given_ in (honest, spoilt):
        torch.manual_seed(0)
        book = CodeBook(8, 2).train()
        found = book(given_, counts)
        assert torch.isfinite(found.commitment)
        assert torch.isfinite(found.perplexity)
        books.append(book.codes)
    assert torch.equal(books[0], books[1])
    book = CodeBook(8, 2).train()
    before = book.codes.clone()
    book(torch.full((5, 2), torch.nan))
    assert torch.equal(book.codes, before)


def test_a_code_book_is_saved_with_its_codes() -> None:
    book, other = CodeBook(8, 2).train(), CodeBook(8, 2).train()
    book(clusters(0)[0])
    other.load_state_dict(book.state_dict())
    book(clusters(1)[0])
    other(clusters(1)[0])
    assert torch.equal(book.codes, other.codes), "it begins anew after loading"


@pytest.mark.parametrize("changes", [{"size": 1}, {"decay": 1.0}, {"commitment": -1.0}, {"revive_below": -0.1}])
def test_code_books_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        CodeBook(**({"size": 8, "width": 2} | changes))
    with pytest.raises(SpecError, match="vectors of 2"):
        CodeBook(8, 2)(torch.zeros(3, 4))


# ---------------------------------------------------------------------------------------------------------- alignment


def identity_alignment(count: int, temperature: float = 0.1) -> ContrastiveAlignment:
    align = ContrastiveAlignment({"touch": count, "vision": count}, count, temperature=temperature)
    for name in ("touch", "vision"):
        layer = align.project[name]
        assert isinstance(layer, nn.Linear)
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return align.eval()  # features are not standardised by their own batch


@settings(max_examples=25)
@given(st.integers(2, 8), st.floats(0.02, 2.0))
def test_the_loss_in_closed_form(count: int, temperature: float) -> None:
    align = identity_alignment(count, temperature)
    own = torch.eye(count)
    terms = align({"touch": own, "vision": own})
    wanted = math.log(1 + (count - 1) * math.exp(-1 / temperature))
    assert terms["loss"].item() == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert terms["_touch/vision"] == 1
    turned = align({"touch": own, "vision": own.roll(1, 0)})
    assert turned["_touch/vision"] == 0
    assert turned["loss"].item() == pytest.approx(wanted + 1 / temperature, rel=1e-4)
    even = align({"touch": torch.ones(count, count), "vision": torch.ones(count, count)})
    assert even["loss"].item() == pytest.approx(math.log(count), rel=1e-4)


def test_it_is_symmetric() -> None:
    torch.manual_seed(0)
    align = identity_alignment(6)
    one, other = torch.randn(2, 5, 6)
    assert align({"touch": one, "vision": other})["loss"].item() == pytest.approx(
        align({"touch": other, "vision": one})["loss"].item(), rel=1e-5
    )


def test_what_a_sample_lacks_counts_neither_way() -> None:
    torch.manual_seed(0)
    align = ContrastiveAlignment({"touch": 4, "vision": 4, "language": 4}, 8).eval()
    features = {name: torch.randn(6, 4, requires_grad=True) for name in ("touch", "vision", "language")}
    there = torch.tensor([True, True, False, True, True, False])
    spoilt = features | {"touch": torch.where(there[:, None], features["touch"], torch.nan)}
    terms = align(spoilt, {"touch": there})
    without = {name: value[there] for name, value in features.items()}
    torch.testing.assert_close(terms["touch/vision"], align(without)["touch/vision"])
    torch.testing.assert_close(terms["vision/language"], align(features)["vision/language"])
    terms["loss"].backward()
    for value in features.values():
        assert torch.isfinite(value.grad).all()  # type: ignore[arg-type]
    assert all(torch.isfinite(p.grad).all() for p in align.parameters() if p.grad is not None)
    nobody = align(features, {"touch": torch.zeros(6, dtype=torch.bool)})
    assert nobody["touch/vision"] == 0
    assert torch.isfinite(nobody["loss"])


def test_towers_that_say_nearly_the_same_of_all_are_told_apart_all_the_same() -> None:
    """In training the batch's own mean and spread are taken out, of those that are there; running ones afterwards."""
    torch.manual_seed(0)
    align = ContrastiveAlignment({"touch": 4, "vision": 4}, 8)
    features = {name: torch.randn(32, 4) for name in ("touch", "vision")}
    faint = {name: 3.0 + 0.01 * value for name, value in features.items()}
    plain = align(features)["loss"]
    torch.testing.assert_close(align(faint)["loss"], plain, rtol=1e-2, atol=1e-3)
    there = torch.ones(32, dtype=torch.bool)
    there[20:] = False
    some = {name: value[:20] for name, value in features.items()}
    lacking = {name: torch.where(there[:, None], value, torch.nan) for name, value in features.items()}
    both = dict.fromkeys(features, there)
    torch.testing.assert_close(align(lacking, both)["loss"], align(some)["loss"])
    assert torch.isfinite(align({name: value[:1] for name, value in features.items()})["loss"])
    for _ in range(200):
        align(faint)
    align.eval()
    torch.testing.assert_close(align(faint)["loss"], plain, rtol=0.05, atol=0.0)


def test_alignment_learns_what_two_senses_share_and_a_temperature() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(512, 4)
    touch = torch.cat([hidden @ torch.randn(4, 8), torch.randn(512, 8)], 1)  # half of it is noise
    vision = torch.cat([hidden @ torch.randn(4, 8), torch.randn(512, 8)], 1)
    align = ContrastiveAlignment({"touch": 16, "vision": 16}, 8)
    optimizer = torch.optim.Adam(align.parameters(), lr=1e-2)
    start = align.temperature
    for step in range(120):
        part = slice(64 * (step % 6), 64 * (step % 6) + 64)
        optimizer.zero_grad()
        align({"touch": touch[part], "vision": vision[part]})["loss"].backward()
        optimizer.step()
    held = slice(384, 512)
    felt, saw = align.embed("touch", touch[held]), align.embed("vision", vision[held])
    assert retrieval(felt, saw, 64).float().mean() > 0.5
    assert retrieval(felt, saw.roll(1, 0), 64).float().mean() < 0.1
    assert align.temperature != pytest.approx(start, rel=1e-3)


def test_the_temperature_has_a_floor() -> None:
    align = identity_alignment(4)
    with torch.no_grad():
        align.log_scale.fill_(50.0)
    assert align.temperature == pytest.approx(0.01)
    assert torch.isfinite(align({"touch": torch.eye(4), "vision": torch.eye(4).roll(1, 0)})["loss"])


def test_alignments_that_make_no_sense() -> None:
    align = identity_alignment(4)
    with pytest.raises(WiringError, match="'sight'"):
        align({"touch": torch.eye(4), "sight": torch.eye(4)})
    with pytest.raises(WiringError, match="Did you mean 'touch'"):
        align.embed("tuch", torch.eye(4))
    with pytest.raises(SpecError, match="as many of each"):
        align({"touch": torch.eye(4), "vision": torch.eye(4)[:3]})
    with pytest.raises(SpecError):
        align({"touch": torch.eye(4)})
    with pytest.raises(WiringError):
        ContrastiveAlignment({"touch": 4})
    with pytest.raises(WiringError, match="'smell'"):
        ContrastiveAlignment({"touch": 4, "vision": 4}, pairs=[("touch", "smell")])
    with pytest.raises(SpecError):
        ContrastiveAlignment({"touch": 4, "vision": 4}, temperature=0.001)
    with pytest.raises(SpecError, match="64 vectors"):
        retrieval(torch.zeros(10, 4), torch.zeros(10, 4), 64)


# --------------------------------------------------------------------------------------------------------- masked


def masked(ratio: float = 0.5, patch_px: int = 4) -> MaskedPatches:
    stem = gel(patch_px=patch_px, cell_px=4)
    return MaskedPatches({"digit": stem}, Trunk(32, 0, 1, 2, shortest_m=0.004, longest_m=0.06), 32, ratio, 1, 2)


def gel_batch(rgb: Tensor | None = None, size: int = 3) -> Batch:
    data = stream(GEL, size=size)
    data = put(data, size_m=torch.tensor([0.016, 0.024]).expand(size, 1, 2))
    return Batch({"digit": data if rgb is None else put(data, rgb=rgb)})


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_given_share_is_hidden_and_does_not_matter(ratio: float) -> None:
    part, batch = masked(ratio).eval(), gel_batch()
    draw = torch.Generator().manual_seed(1)
    guess, hidden = part.restore(batch, "digit", draw)
    assert torch.equal(hidden.sum(1), torch.full((3,), round(24 * ratio)))
    pixels = hidden.reshape(3, 1, 4, 6).repeat_interleave(4, 2).repeat_interleave(4, 3)[..., None]
    rgb = batch.stream("digit").data["rgb"]
    other = torch.where(pixels, 255 - rgb, rgb)
    again, _ = part.restore(gel_batch(other), "digit", draw.manual_seed(1))
    assert torch.equal(guess, again), "what is hidden is seen"
    changed, _ = part.restore(gel_batch(torch.where(pixels, rgb, 255 - rgb)), "digit", draw.manual_seed(1))
    assert (changed - guess).abs().max() > 1e-3, "what is shown does not matter"


def test_only_what_was_measured_is_hidden_and_scored() -> None:
    part, batch = masked(), gel_batch()
    data = batch.stream("digit")
    rgb = data.data["rgb"].clone()
    rgb[1] = 0  # a black picture
    rgb[2, 0, :4, :8] = 255  # two patches
    valid = data.valid.clone()
    valid[0] = False
    spoilt = Batch({"digit": replace(put(data, rgb=rgb), valid=valid)})
    _, hidden = part.restore(spoilt, "digit")
    assert hidden.sum(1).tolist() == [0, 0, 11]
    assert not hidden[2, :2].any()
    terms = part(spoilt)
    terms["loss"].backward()
    for name, parameter in part.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    nothing = Batch({"digit": replace(data, valid=torch.zeros_like(valid))})
    assert part(nothing)["loss"] == 0


def test_hidden_patches_are_guessed_from_the_others() -> None:
    """Even pictures of a random colour: nine in ten parts of the variance can be had from the patches that are seen."""
    torch.manual_seed(0)
    part, rng = masked(0.67, patch_px=8), np.random.default_rng(0)
    optimizer = torch.optim.Adam(part.parameters(), lr=3e-3)
    blank = gel_batch(size=32)
    for _ in range(100):
        rgb = torch.from_numpy(rng.integers(40, 215, (32, 1, 1, 1, 3))).to(torch.uint8).expand(32, 1, 16, 24, 3)
        terms = part(Batch({"digit": put(blank.stream("digit"), rgb=rgb)}))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert terms["loss"] < 0.1 * terms["_digit/mean"]


def test_masked_modelling_that_makes_no_sense() -> None:
    for ratio in (0.0, 1.0, math.nan):
        with pytest.raises(SpecError, match="mask_ratio"):
            masked(ratio)
    with pytest.raises(WiringError, match="'digit'"):
        masked()(Batch({"digits": stream(GEL)}))
    with pytest.raises(WiringError, match="none"):
        masked()(Batch({}))
    with pytest.raises(WiringError, match="a stem of patches"):
        MaskedPatches({"wrench": WrenchHistoryEncoder(WRENCH, 1, 32)}, Trunk(32, 0, 1, 2), 32)
