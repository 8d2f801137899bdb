"""The dataset gives what was recorded: history, chunks and masks in closed form, statistics, and typed errors."""

from __future__ import annotations

import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from perceive.batch import Batch, collate
from policies.dataset import EpisodeDataset
from policies.episode_file import Episode
from policies.episodes import EpisodeWriter, episode_path, list_episodes
from policies.schema import check_dataset_fits
from sensors.errors import DataError
from sensors.observation import Observation
from sensors.rig import SensorRig
from sensors.timeline import Timing
from tests.policies.point_env import PointEnv, PointJoints, Scene, header, record, tiny_model


def assert_same_batch(one: Batch, other: Batch) -> None:
    assert list(one.streams) == list(other.streams)
    for name, stream in one.streams.items():
        twin = other.streams[name]
        torch.testing.assert_close(stream.age_s, twin.age_s, rtol=0, atol=0)
        assert torch.equal(stream.valid, twin.valid)
        for field, value in stream.data.items():
            assert value.dtype == twin.data[field].dtype
            assert torch.equal(value, twin.data[field]), f"{name}/{field}"


def numbered(folder: Path, lengths: list[int], camera: Timing | None = None) -> None:
    """Episodes whose labels are episode * 100 + step."""
    for number, length in enumerate(lengths):
        env = PointEnv(camera, max_steps=1000)
        values, info = env.reset(seed=number)
        writer = EpisodeWriter(folder, number, header(env, number))
        for step in range(length):
            writer.add(
                Observation.from_dict(values, info["now_s"]), np.full(10, number * 100 + step), info["action_sent"]
            )
            values, _, _, _, info = env.step(np.zeros(10))
        writer.finish(True)


@pytest.mark.parametrize(
    ("camera", "joints"),
    [
        (Timing(10.0), Timing(10.0)),
        (Timing(10.0, history=3, dropout=0.3), Timing(50.0, history=4, delay_s=0.03)),
        (Timing(4.0, delay_s=0.1, jitter_s=0.05, history=2), Timing(10.0, dropout=1.0)),
    ],
)
def test_a_sample_is_the_observation_that_was_seen(tmp_path: Path, camera: Timing, joints: Timing) -> None:
    seen = [o for episode in record(tmp_path, range(3), PointEnv(camera, joints)) for o in episode]
    dataset = EpisodeDataset(tmp_path, chunk=2)
    assert len(dataset) == len(seen)
    chosen = np.random.default_rng(0).permutation(len(seen))
    batch, _ = dataset.batch(chosen)
    assert_same_batch(batch, collate([seen[i] for i in chosen]))


def test_chunks_and_masks_in_closed_form(tmp_path: Path) -> None:
    numbered(tmp_path, [3, 5, 1])
    _, target = EpisodeDataset(tmp_path, chunk=3).batch(np.arange(9))
    steps = [0, 1, 2, 0, 1, 2, 3, 4, 0]
    ends, first = [2, 2, 2, 4, 4, 4, 4, 4, 0], [0, 0, 0, 100, 100, 100, 100, 100, 200]
    want = [[f + min(s + k, e) for k in range(3)] for s, e, f in zip(steps, ends, first, strict=True)]
    inside = [[s + k <= e for k in range(3)] for s, e in zip(steps, ends, strict=True)]
    assert torch.equal(target.values, torch.tensor(want, dtype=torch.float32)[..., None].expand(-1, -1, 10))
    assert torch.equal(target.valid, torch.tensor(inside))


def test_a_longer_history_is_rebuilt_from_stamps(tmp_path: Path) -> None:
    record(tmp_path / "short", range(3), PointEnv(Timing(10.0), Timing(5.0)))
    record(tmp_path / "long", range(3), PointEnv(Timing(10.0, history=3), Timing(5.0, history=2)))
    short = EpisodeDataset(tmp_path / "short", history={"front": 3, "joints": 2})
    long = EpisodeDataset(tmp_path / "long")
    everything = np.arange(len(long))
    got, want = short.batch(everything)[0], long.batch(everything)[0]
    for name, stream in want.streams.items():
        torch.testing.assert_close(got.streams[name].age_s, stream.age_s, rtol=1e-5, atol=1e-6)
        assert torch.equal(got.streams[name].valid, stream.valid)
        for field, value in stream.data.items():
            assert torch.equal(got.streams[name].data[field], value)
    assert not got.streams["front"].valid[0].all()  # at the first step there was no past
    assert got.streams["front"].valid[3].all()


def test_before_a_frame_too_old_to_show_nothing_is_shown(tmp_path: Path) -> None:
    numbered(tmp_path, [8], Timing(2.5, max_age_s=0.15))
    batch, _ = EpisodeDataset(tmp_path, history={"front": 2}).batch([5, 6, 7])
    newest = batch.streams["front"].valid[:, -1]
    assert newest.tolist() == [True, False, False]
    assert batch.streams["front"].valid[:, 0].tolist() == [True, False, False]


def test_a_shorter_history_is_the_newest_part(tmp_path: Path) -> None:
    record(tmp_path, range(2), PointEnv(Timing(10.0, history=3), Timing(10.0, history=3)))
    long, short = EpisodeDataset(tmp_path).batch([4, 7])[0], EpisodeDataset(tmp_path, history=1).batch([4, 7])[0]
    assert torch.equal(long.streams["front"].data["rgb"][:, -1:], short.streams["front"].data["rgb"])


def test_a_fast_sensor_cannot_get_a_longer_history(tmp_path: Path) -> None:
    record(tmp_path, range(1), PointEnv(joints=Timing(50.0)))
    with pytest.raises(DataError, match=r"sensor 'joints'.*faster than the control rate"):
        EpisodeDataset(tmp_path, history=2)


def test_statistics_are_those_of_the_valid_frames(tmp_path: Path) -> None:
    record(tmp_path, range(4), PointEnv(joints=Timing(10.0, dropout=0.4)))
    dataset = EpisodeDataset(tmp_path)
    stats = dataset.stats()
    assert "front/depth_m" not in stats
    assert "front/rgb" not in stats
    frames = np.concatenate(
        [e.frames("joints", "base_from_tool")[e.frames("joints", "valid") > 0] for e in dataset.episodes]
    )
    got = stats["joints/base_from_tool"]
    assert got.mean.shape == (4, 4)
    np.testing.assert_allclose(got.mean, frames.mean(0, dtype=np.float64), atol=1e-9)
    np.testing.assert_allclose(got.std, frames.std(0, dtype=np.float64), atol=1e-9)
    np.testing.assert_array_equal(got.low, frames.min(0))
    np.testing.assert_array_equal(got.high, frames.max(0))
    assert (got.low[3, 3], got.high[3, 3]) == (1, 1)  # a dropped frame is zeros, and does not count
    actions = np.concatenate([e.action for e in dataset.episodes])
    np.testing.assert_allclose(stats["action"].mean, actions.mean(0, dtype=np.float64), atol=1e-9)


def test_a_copy_in_another_process_reads_the_same(tmp_path: Path) -> None:
    record(tmp_path, range(2))
    dataset = EpisodeDataset(tmp_path, chunk=4)
    before = dataset.batch([0, 5, 3])
    text = pickle.dumps(dataset)
    assert len(text) < 60_000  # no pictures travel
    after = pickle.loads(text).batch([0, 5, 3])  # noqa: S301  # our own bytes
    assert_same_batch(before[0], after[0])
    assert torch.equal(before[1].values, after[1].values)


def test_pictures_stay_on_disk(tmp_path: Path) -> None:
    record(tmp_path, range(1))
    frames = EpisodeDataset(tmp_path).episodes[0].frames("front", "rgb")
    assert not frames.flags.owndata
    assert not frames.flags.writeable


def test_whole_episodes_are_held_back(tmp_path: Path) -> None:
    numbered(tmp_path, [3, 4, 5, 6, 7])
    dataset = EpisodeDataset(tmp_path)
    mine, back = dataset.split(0.4, seed=1)
    assert sorted([*mine, *back]) == list(range(25))
    owner = np.repeat(np.arange(5), [3, 4, 5, 6, 7])
    assert len(set(owner[back])) == 2
    assert not set(owner[mine]) & set(owner[back])
    assert len(dataset.split(0.0, 0)[1]) == 0


def test_damaged_files_are_refused_or_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(tmp_path, range(3))
    bad = episode_path(tmp_path, 1)
    bad.write_bytes(bad.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"episode_000001\.h5"):
        EpisodeDataset(tmp_path)
    with caplog.at_level(logging.WARNING):
        dataset = EpisodeDataset(tmp_path, on_bad="skip")
    assert len(dataset.episodes) == 2
    assert len(dataset.skipped) == 1
    assert "episode_000001.h5" in dataset.skipped[0]
    assert "episode_000001.h5" in caplog.text
    for path in list_episodes(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="3 files, none of them whole"):
        EpisodeDataset(tmp_path, on_bad="skip")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no episode file"):
        EpisodeDataset(tmp_path)
    with pytest.raises(DataError, match="perceive collect"):
        EpisodeDataset(tmp_path / "nowhere")


def joints_only(folder: Path, number: int, timing: Timing) -> None:
    """An episode of another rig."""
    rig = SensorRig({"joints": PointJoints(Scene(), timing)})
    rig.open(None)
    rig.reset(0.0, 0)
    rig.tick(0.0)
    env = PointEnv()
    env.rig = rig
    writer = EpisodeWriter(folder, number, header(env, number))
    writer.add(rig.observe(0.0), np.zeros(10), np.zeros(10))
    writer.finish(True)


def test_an_episode_of_another_rig_is_named(tmp_path: Path) -> None:
    record(tmp_path, range(1))
    joints_only(tmp_path, 5, Timing(10.0))
    with pytest.raises(DataError, match=r"episode_000005.h5.*no sensor 'front'"):
        EpisodeDataset(tmp_path)
    record(tmp_path / "rate", range(1))
    record(tmp_path / "rate2", range(3, 4), PointEnv(Timing(5.0)))
    shutil.copy(episode_path(tmp_path / "rate2", 3), tmp_path / "rate")
    with pytest.raises(DataError, match=r"episode_000003.h5.*rates_hz"):
        EpisodeDataset(tmp_path / "rate")


def test_a_model_of_another_rig_is_refused(tmp_path: Path) -> None:
    joints_only(tmp_path, 0, Timing(10.0))
    model = tiny_model()
    with pytest.raises(DataError, match=r"no sensor 'front'"):
        check_dataset_fits("here", model, EpisodeDataset(tmp_path).header.sensor_spaces)
    rig = PointEnv().rig
    check_dataset_fits("here", model, rig.sensor_spaces)
    more = rig.sensor_spaces | {"frontal": rig.sensor_spaces["front"]}
    with pytest.raises(DataError, match=r"another sensor 'frontal' \(Did you mean 'front'"):
        check_dataset_fits("here", model, more)


def test_a_part_of_the_sensors_can_be_read(tmp_path: Path) -> None:
    record(tmp_path, range(1))
    assert list(EpisodeDataset(tmp_path, sensors=["joints"]).batch([0])[0].streams) == ["joints"]
    with pytest.raises(DataError, match="Did you mean 'joints'"):
        EpisodeDataset(tmp_path, sensors=["joint"])


def test_an_episode_with_a_missing_dataset_is_named(tmp_path: Path) -> None:
    import h5py

    record(tmp_path, range(1))
    with h5py.File(episode_path(tmp_path, 0), "a") as file:
        del file["obs/front/depth_m"]
    with pytest.raises(DataError, match="'obs/front/depth_m'"):
        Episode(episode_path(tmp_path, 0))
