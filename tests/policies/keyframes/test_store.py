"""The cache of frames: made once, found again, made again when anything changed or broke, and small."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from policies.episode_file import Episode
from policies.keyframes.dataset import KeyframeDataset
from policies.keyframes.store import Wanted, frame_store
from sensors.errors import DataError
from tests.policies.keyframes.demos import SIZE, pick, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two grasps."""
    for number in range(2):
        write(tmp_path, number, pick((0.4, 0.05 * number, 0.02)))
    return tmp_path


def files(folder: Path) -> dict[str, int]:
    """Cached file -> when it was written, ns."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "keyframes").iterdir()}


def pictures(dataset: KeyframeDataset) -> torch.Tensor:
    return dataset.batch(range(len(dataset)))[0].streams["front"].data["rgb"]


def spoil_pictures(path: Path) -> None:
    """Turn a byte of an episode's pictures."""
    with h5py.File(path, "r") as file:
        offset = file["obs/front/rgb"].id.get_offset()
    with path.open("r+b") as file:
        file.seek(offset + 100)
        byte = file.read(1)[0]
        file.seek(offset + 100)
        file.write(bytes([byte ^ 1]))


def test_what_is_cached_is_not_read_from_the_episodes_again(folder: Path) -> None:
    want = pictures(KeyframeDataset(folder))
    before = files(folder)
    assert len(before) == 2
    spoil_pictures(folder / "episode_000000.h5")
    assert torch.equal(pictures(KeyframeDataset(folder)), want)  # or it would have been noticed
    assert files(folder) == before
    (folder / "keyframes" / min(before)).unlink()
    with pytest.raises(DataError, match=r"episode_000000\.h5, 'obs/front/rgb'.*the bytes that were written"):
        KeyframeDataset(folder)
    assert len(KeyframeDataset(folder, on_bad="skip").episodes) == 1


def test_settings_that_choose_other_frames_make_another_store(folder: Path) -> None:
    KeyframeDataset(folder)
    before = files(folder)
    KeyframeDataset(folder, keyframe_share=0.1, fine_m=0.3)  # the same frames
    assert files(folder) == before
    KeyframeDataset(folder, every=2)
    assert len(files(folder)) == 4
    KeyframeDataset(folder, sensors=["front"])
    after = files(folder)
    assert len(after) == 6
    assert {name: after[name] for name in before} == before


def test_an_episode_that_was_collected_again_makes_another_store(folder: Path) -> None:
    old = pictures(KeyframeDataset(folder))
    before = files(folder)
    write(folder, 7, pick((0.4, 0.05, 0.02)))
    os.replace(folder / "episode_000007.h5", folder / "episode_000001.h5")
    new = pictures(KeyframeDataset(folder))
    half = len(old) // 2
    assert torch.equal(new[:half], old[:half])
    assert not torch.equal(new[half:], old[half:])
    assert len(files(folder)) == 3
    assert before.items() <= files(folder).items()


@pytest.mark.parametrize("damage", ["truncated", "empty", "a byte", "text"])
def test_a_damaged_store_is_made_again_and_said(folder: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    want = pictures(KeyframeDataset(folder))
    path = min((folder / "keyframes").iterdir())
    whole = path.read_bytes()
    with h5py.File(path, "r") as file:
        at = file["obs/front/rgb"].id.get_offset() + 50
    broken = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "a byte": whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :],
        "text": b"no store",
    }[damage]
    path.write_bytes(broken)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(pictures(KeyframeDataset(folder)), want)
    assert path.name in caplog.text
    assert path.read_bytes() == whole
    caplog.clear()
    KeyframeDataset(folder)
    assert not caplog.text


def test_a_store_of_something_else_is_not_taken(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    want = pictures(KeyframeDataset(folder))
    first, second = sorted((folder / "keyframes").iterdir())
    second.write_bytes(first.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert torch.equal(pictures(KeyframeDataset(folder)), want)
    assert "another or an unfinished one" in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    want = pictures(KeyframeDataset(folder))
    (folder / "taken").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        dataset = KeyframeDataset(folder, cache=folder / "taken")
    assert "is held in memory" in caplog.text
    assert torch.equal(pictures(dataset), want)


def test_a_cache_elsewhere(folder: Path, tmp_path: Path) -> None:
    KeyframeDataset(folder, cache=tmp_path / "else" / "where")
    assert len(list((tmp_path / "else" / "where").iterdir())) == 2
    assert not (folder / "keyframes").exists()


def test_a_store_holds_each_frame_once_and_nothing_else(folder: Path) -> None:
    episode = Episode(folder / "episode_000000.h5")
    store = frame_store(episode, Wanted((0, 4, 9), {"front": 1}), folder / "cache", "full")
    assert store.array("obs/front/rgb").shape == (3, SIZE, SIZE, 3)
    np.testing.assert_array_equal(store.array("obs/front/rgb"), episode.frames("front", "rgb")[[0, 4, 9]])
    assert store.array("obs/front/depth_m").dtype == np.uint16
    per_frame = SIZE * SIZE * (3 + 2)
    small = 3 * (4 + 16) * 4 + 3 * (4 + 4 + 1)
    assert store.nbytes == 3 * per_frame + small
    # Colour, depth and points in float32 take 28 bytes a pixel.
    assert 28 * SIZE * SIZE * 3 / store.nbytes > 5
    assert not store.array("obs/front/rgb").flags.writeable


def test_frames_that_a_history_shares_are_kept_once(tmp_path: Path) -> None:
    episode = Episode(write(tmp_path, 0, pick(), history=3))
    store = frame_store(episode, Wanted((4, 5, 6), {"front": 3}), tmp_path / "cache", "full")
    assert len(store.array("obs/front/rgb")) == 5
    np.testing.assert_array_equal(store.array("rows/front/frame"), [[0, 1, 2], [1, 2, 3], [2, 3, 4]])


def test_a_sensor_that_never_spoke(tmp_path: Path) -> None:
    demo = pick()
    write(tmp_path, 0, demo, lost=range(len(demo)))
    dataset = KeyframeDataset(tmp_path)
    stream = dataset.batch(range(len(dataset)))[0].streams["front"]
    assert not stream.valid.any()
    assert not stream.data["rgb"].any()
