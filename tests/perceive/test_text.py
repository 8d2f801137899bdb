"""Words to tokens: order matters, nothing depends on the process, the company or the cache, and nothing is lost."""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perceive.augment import SceneAugment
from perceive.batch import ActionTarget, Batch, BatchStream
from perceive.build import build
from perceive.encoders.text import TextEncoder
from perceive.language.base import Language
from perceive.language.pretrained import PretrainedText
from perceive.language.vocabulary import VOCABULARY
from perceive.language.words import WordTable, split
from perceive.model import PerceptionModel
from sensors.errors import SpecError, WiringError
from sensors.spec import box
from tests.contracts import config_files, load_plain
from tests.perceive.scene import SPACES, SPEC, camera_space, config, fake_batch, fake_target
from tests.perceive.text_models import (
    BLUE_ON_RED,
    KINDS,
    LENGTH,
    MOST,
    RED_ON_BLUE,
    assert_same,
    save_text_model,
    text,
)

SPACE = spaces.Dict({"text": box(0, 255, (LENGTH,), np.uint8)})


def table(**changes: Any) -> WordTable:
    torch.manual_seed(0)
    return WordTable(**({"width": 24} | changes))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_text_model(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(params=["table", *KINDS])
def language(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Language:
    """Every language, with random weights."""
    if request.param == "table":
        return table().eval()
    return PretrainedText(str(folders[request.param]), tokens=MOST).eval()


# ----------------------------------------------------------------------------------------------------- every language


def test_tokens_are_as_declared(language: Language) -> None:
    found = language(text(RED_ON_BLUE, "red", ""))
    assert found.tokens.shape == (3, language.num_tokens, language.width)
    assert found.valid.dtype == torch.bool
    assert torch.isfinite(found.tokens).all()
    counts = found.valid.sum(1)
    assert counts[0] > counts[1] > counts[2] == 0
    assert not (found.valid[:, 1:] & ~found.valid[:, :-1]).any(), "what is there comes first"
    assert (found.tokens[~found.valid] == 0).all()
    assert (found.tokens[found.valid].abs().sum(-1) > 0).all()


def test_the_order_of_words_matters(language: Language) -> None:
    """Also to who only averages: the same words are in both."""
    found = language(text(RED_ON_BLUE, BLUE_ON_RED, RED_ON_BLUE)).tokens
    assert torch.equal(found[0], found[2])
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert (found[0].mean(0) - found[1].mean(0)).abs().max() > 1e-4


def test_a_text_does_not_depend_on_its_company(language: Language) -> None:
    said = [BLUE_ON_RED, "", "red", RED_ON_BLUE, "red"]
    together = language(text(*said))
    for row, one in enumerate(said):
        alone = copy.deepcopy(language)(text(one))
        torch.testing.assert_close(alone.tokens[0], together.tokens[row], rtol=0, atol=1e-6)
        assert torch.equal(alone.valid[0], together.valid[row])


def test_nothing_said_and_blanks_are_nothing(language: Language) -> None:
    for said in ("", " ", "\t \n"):
        found = language(text(said, said))
        assert not found.valid.any()
        assert (found.tokens == 0).all()
    assert language(text("red", "")).valid.any(1).tolist() == [True, False]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_no_bytes_are_too_bad_for_a_table(data: list[bytes]) -> None:
    rows = torch.stack([torch.tensor([*one, *[0] * (20 - len(one))], dtype=torch.uint8) for one in data])
    found = table()(rows)
    assert torch.isfinite(found.tokens).all()


def test_bytes_that_are_no_text_are_read_with_replacements(language: Language) -> None:
    damaged = text("red block", "red block")
    damaged[1, 1] = 0xFF
    found = language(damaged)
    assert torch.isfinite(found.tokens).all()
    assert found.valid[1].any()
    assert not torch.equal(found.tokens[0], found.tokens[1])
    noise = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (8, LENGTH), dtype=np.uint8))
    assert torch.isfinite(language(noise).tokens).all()


def test_what_comes_after_a_zero_is_not_read(language: Language) -> None:
    rows = text("red", "red")
    rows[1, 5:9] = rows[1, :4] + 1
    found = language(rows)
    assert torch.equal(found.tokens[0], found.tokens[1])


def test_another_type_or_shape_is_refused(language: Language) -> None:
    for bad in (text("red").long(), text("red")[0]):
        with pytest.raises(SpecError, match="uint8"):
            language(bad)


def test_it_is_built_again_from_plain_data_and_its_weights(language: Language) -> None:
    plain = json.loads(json.dumps(language.config()))
    again = build(plain)
    again.load_state_dict(language.state_dict())
    assert again.config() == plain
    assert_same(again.eval()(text(RED_ON_BLUE, "é")), language(text(RED_ON_BLUE, "é")))


# --------------------------------------------------------------------------------------------------------- word table


def test_words_are_told_apart() -> None:
    one = table(tokens=4)
    numbers = {word: one.number(word) for word in VOCABULARY}
    assert len(set(numbers.values())) == len(VOCABULARY)
    assert max(numbers.values()) < len(VOCABULARY) <= one.number("heliotrope") < len(VOCABULARY) + 512
    assert split("Put the RED block, (2nd!) on_it: don\u2019t\tstop\ufffd") == [
        "put", "the", "red", "block", "2nd", "on", "it", "don't", "stop",
    ]  # fmt: skip
    assert split("cafe\u0301") == split("café") == ["café"]


def test_the_words_of_instructions_are_in_the_vocabulary() -> None:
    """Of each kind that was asked for, and of the tasks that there are."""
    for word in split("red cylinder push between third seven slide drawer left put zone puck marker the"):
        assert word in VOCABULARY


def test_an_unknown_word_differs_from_the_next() -> None:
    found = table()(text("grab the widget", "grab the gizmo")).tokens
    assert torch.equal(found[0, :2], found[1, :2])
    assert not torch.equal(found[0, 2], found[1, 2])


def test_words_mean_the_same_in_every_process() -> None:
    code = (
        "import torch, perceive.language.words as w; torch.manual_seed(0); t = w.WordTable(4);"
        "print([t.number(x) for x in ('red', '123456789', 'größe', '把红色')])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    one = table(width=4)
    expected = [one.number(word) for word in ("red", "123456789", "größe", "把红色")]
    assert said == {f"{expected}\n".encode()}
    assert expected[1] == len(VOCABULARY) + 0xCBF43926 % 512, "the check value of CRC-32"


def test_gradients_reach_the_words_that_were_said() -> None:
    one = table()
    (one(text("red heliotrope")).tokens * torch.randn(16, 24)).sum().backward()
    assert one.table.weight.grad is not None
    assert one.place.grad is not None
    learns = one.table.weight.grad.abs().sum(1) > 0
    assert learns.nonzero().flatten().tolist() == sorted([one.number("red"), one.number("heliotrope")])
    assert (one.place.grad.abs().sum(1) > 0).nonzero().flatten().tolist() == [0, 1]


def test_a_table_learns_to_tell_two_orders_apart() -> None:
    one, head = table(), nn.Linear(16 * 24, 1)
    said = text(RED_ON_BLUE, BLUE_ON_RED)
    optimizer = torch.optim.Adam([*one.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(60):
        answer = head(one(said).tokens.flatten(1))[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(answer, torch.tensor([1.0, 0.0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_remembered_words_change_nothing() -> None:
    fresh, used = table(), table()
    for number in range(3):
        used(text(RED_ON_BLUE, f"block {number}"))
    assert_same(used(text(RED_ON_BLUE)), fresh(text(RED_ON_BLUE)))


def test_memory_of_texts_is_bounded(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    monkeypatch.setattr("perceive.language.words._MOST_KEPT", 3)
    monkeypatch.setattr("perceive.language.pretrained._MOST_KEPT", 3)
    for part in (table(), PretrainedText(str(folders["bert"]), tokens=8)):
        said = text(*(f"block {number}" for number in range(9)))
        first = part(said)
        assert len(part._kept) == 3
        assert_same(part(said), first)


def test_left_out_words_are_logged_once(caplog: pytest.LogCaptureFixture, folders: dict[str, Path]) -> None:
    for part in (table(tokens=4), PretrainedText(str(folders["bert"]), tokens=6)):
        with caplog.at_level(logging.WARNING):
            part(text("put the red block"))
            assert not caplog.records
            long, short = part(text(RED_ON_BLUE)), part(text("put the red block"))
            part(text(BLUE_ON_RED))
        assert_same(long, short)
        assert len(caplog.records) == 1
        assert RED_ON_BLUE in caplog.text
        caplog.clear()


def test_a_vocabulary_of_ones_own_and_bad_ones() -> None:
    one = table(words=["red", "schraube"], buckets=1)
    assert [one.number(word) for word in ("red", "schraube", "blue", "green")] == [0, 1, 2, 2]
    assert one.resolved_arguments()["words"] == ["red", "schraube"]
    for words in (["Red"], ["red block"], ["red", "red"], [""]):
        with pytest.raises(WiringError, match=r"WordTable\.words"):
            WordTable(4, words=words)
    for name in ("width", "tokens", "buckets"):
        with pytest.raises(WiringError, match=f"WordTable.{name}"):
            table(**{name: 0})


# ------------------------------------------------------------------------------------------------------------ encoder


def stream(*said: str, history: int = 1) -> BatchStream:
    rows = text(*said).reshape(-1, history, LENGTH)
    age_s = torch.linspace(0.5, 0.1, history).expand(len(rows), history)
    return BatchStream({"text": rows}, age_s, torch.ones(len(rows), history, dtype=torch.bool))


def encoder_config(folders: dict[str, Path], name: str) -> dict[str, Any]:
    """Of a file in conf/encoder, with a small model in the place of the hub's."""
    plain = load_plain(next(path for path in config_files("encoder") if path.stem == name))
    if "model" in plain["language"]:
        plain["language"] |= {"model": str(folders["clip"]), "tokens": MOST}
    return plain


@pytest.mark.parametrize("name", ["text_table", "text_pretrained"])
def test_tokens_of_a_text_have_no_place_and_end_with_it(folders: dict[str, Path], name: str) -> None:
    encoder = build(encoder_config(folders, name), space=SPACE, history=2, width=32)
    seen = stream("red", RED_ON_BLUE, BLUE_ON_RED, "", history=2)
    seen.valid[1, 0] = False
    tokens = encoder(seen)
    count = encoder.language.num_tokens
    assert encoder.num_tokens == 2 * count
    assert not tokens.placed.any()
    said = encoder.language(text("red", RED_ON_BLUE, "", "")).valid  # the third is absent, the fourth is empty
    assert torch.equal(tokens.valid, said.reshape(2, 2 * count))
    assert torch.equal(tokens.age_s[0], torch.tensor([0.5] * count + [0.1] * count))


@pytest.mark.parametrize("name", ["text_table", "text_pretrained"])
def test_a_model_reads_its_instruction_and_outlives_the_folder(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(folders["t5"], source)  # whose word table has two names
    plain = encoder_config(folders, name)
    if "model" in plain["language"]:
        plain["language"]["model"] = str(source)
    sensor_spaces = {**SPACES, "task": SPACE}
    whole = config()
    whole["encoders"] = whole["encoders"] | {"task": plain}
    torch.manual_seed(0)
    model = PerceptionModel.from_config(whole, sensor_spaces, dict.fromkeys(sensor_spaces, 1), SPEC).eval()
    scene = fake_batch(np.random.default_rng(0), 2)

    def told(*said: str) -> Batch:
        return Batch({**scene.streams, "task": stream(*said)})

    expected = model(told(RED_ON_BLUE, ""))["action"].values
    assert torch.isfinite(expected).all()
    assert not torch.equal(model(told(BLUE_ON_RED, ""))["action"].values[0], expected[0])
    assert torch.equal(model(told(BLUE_ON_RED, ""))["action"].values[1], expected[1])
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(source)
    loaded = PerceptionModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded(told(RED_ON_BLUE, ""))["action"].values, expected)
    again = PerceptionModel.from_pretrained(loaded.save_pretrained(tmp_path / "again"))
    assert torch.equal(again(told(RED_ON_BLUE, ""))["action"].values, expected)


def test_augmentation_leaves_the_words_alone() -> None:
    rng = np.random.default_rng(0)
    batch = Batch({**fake_batch(rng, 3).streams, "task": stream(RED_ON_BLUE, "", "red")})
    settings: dict[str, Any] = {"turn_rad": 1.0, "colour_gain": 0.3, "shift_px": 3, "camera_turn_rad": 0.1}
    target: ActionTarget = fake_target(rng, 3)
    after, _ = SceneAugment(SPEC, **settings, sensor_dropout=0.0)(batch, target, torch.Generator().manual_seed(0))
    said, heard = batch.stream("task"), after.stream("task")
    assert heard.data["text"].dtype == torch.uint8
    assert torch.equal(heard.data["text"], said.data["text"])
    assert torch.equal(heard.valid, said.valid)
    assert not torch.equal(after.stream("front").data["rgb"].float(), batch.stream("front").data["rgb"].float())


def test_what_is_no_text_or_no_language_is_refused() -> None:
    with pytest.raises(WiringError, match="'text'"):
        TextEncoder(camera_space(), 1, 32, table())
    with pytest.raises(WiringError, match="uint8"):
        TextEncoder(spaces.Dict({"text": box(0, 1, (9,))}), 1, 32, table())
    with pytest.raises(WiringError, match="a Language"):
        TextEncoder(SPACE, 1, 32, nn.Linear(2, 2))
