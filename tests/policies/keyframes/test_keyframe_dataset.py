"""The dataset of key poses: what a sample is, the same with and without the store, and in place of dense episodes."""

from __future__ import annotations

import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.batch import Batch
from perceive.cli.collect import collect
from perceive.cli.compose import compose_config
from perceive.model import PerceptionModel
from policies.dataset import EpisodeDataset
from policies.episode_file import Episode
from policies.imitation import train
from policies.keyframes.dataset import KeyframeDataset
from policies.keyframes.discovery import DiscoverySettings
from policies.keyframes.samples import key_episode, trace_of
from policies.sampling import SampleOrder
from policies.settings import TrainSettings
from sensors.action import ActionMode, key_pose_spec
from sensors.errors import DataError, SpecError
from tests.policies.keyframes.demos import CLOSED, JOINTS, OPEN, SIZE, SPEC, Demo, camera_space, pick, write
from tests.policies.point_env import model_config

KEY = key_pose_spec(SPEC)
HALF_QUANTUM_M = 0.5e-4


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four grasps."""
    folder = tmp_path_factory.mktemp("four")
    for number in range(4):
        write(folder, number, pick((0.4 + 0.05 * number, 0.1, 0.02)), lost=(5, 8) if number == 1 else ())
    return folder


def rows_of(dataset: KeyframeDataset, folder: Path) -> list[tuple[int, int]]:
    """(episode, frame) of each sample, out of its pictures alone."""
    found = []
    episodes = [Episode(path) for path in sorted(folder.glob("*.h5"))]
    intrinsics = [e.frames("front", "intrinsics_px") for e in episodes]
    shown = dataset.batch(np.arange(len(dataset)))[0].streams["front"].data["intrinsics_px"][:, -1].numpy()
    for value in shown:
        at = [(n, int(t)) for n, table in enumerate(intrinsics) for t in np.flatnonzero((table == value).all(-1))]
        found.append(at[0])
    return found


def test_a_sample_is_a_frame_and_the_next_key_pose(tmp_path: Path) -> None:
    demo = pick()  # key poses at 6, 17 and 26
    write(tmp_path, 0, demo)
    dataset = KeyframeDataset(tmp_path, every=4)
    assert [frame for frame, _ in dataset.keyframes(0)] == [6, 17, 26]
    # At 12 the hand has arrived and has still to close. At 24 it is where it is to be.
    assert rows_of(dataset, tmp_path) == [(0, t) for t in (0, 4, 6, 8, 12, 17, 20)]
    _, target = dataset.batch(np.arange(len(dataset)))
    assert target.valid.shape == (7, 1)
    assert target.valid.all()
    above, grasp, end = (0.4, 0.1, 0.15), (0.4, 0.1, 0.02), (0.4, 0.1, 0.15)
    ahead = [(*above, OPEN, 1.0)] * 2 + [(*grasp, CLOSED, -1.0)] * 3 + [(*end, CLOSED, -1.0)] * 2
    got = target.values[:, 0].numpy()
    np.testing.assert_allclose(got[:, [0, 1, 2, 9, 10]], ahead, atol=1e-6)
    np.testing.assert_allclose(got[:, 3:9], [[1, 0, 0, 0, 1, 0]] * 7, atol=1e-6)
    assert dataset.action_spec.mode is ActionMode.KEY_POSE
    assert dataset.action_spec.part("avoid") == slice(10, 11)


def test_a_frame_at_the_grasp_with_an_open_hand_has_still_to_close(tmp_path: Path) -> None:
    write(
        tmp_path, 0, Demo.at((0.5, 0.0, 0.3)).move((0.4, 0.1, 0.02), 6).rest(6).grip(CLOSED, 6).move((0.4, 0.1, 0.3), 4)
    )
    dataset = KeyframeDataset(tmp_path, every=1)
    # Arrived at 6 and told to close at 13: from there to the keyframe, 17, it is being done.
    assert rows_of(dataset, tmp_path) == [(0, t) for t in (*range(13), *range(17, 22))]


def test_the_last_key_pose_is_where_the_robot_was_sent(tmp_path: Path) -> None:
    # Success ends an episode in the middle of a move.
    demo = Demo.at((0.5, 0.0, 0.3)).move((0.4, 0.1, 0.02), 6).grip(CLOSED, 6).move((0.4, 0.1, 0.3), 8)
    for part in (demo.position_m, demo.turn_rad, demo.goal_m, demo.moving, demo.command, demo.opening_m):
        del part[-5:]
    write(tmp_path, 0, demo)
    frame, pose = KeyframeDataset(tmp_path).keyframes(0)[-1]
    assert frame == len(demo) - 1
    np.testing.assert_allclose(pose[:3, 3], (0.4, 0.1, 0.3), atol=1e-6)
    assert demo.position_m[-1][2] < 0.15


def test_touching_is_allowed_where_the_hand_acts_and_on_short_moves(tmp_path: Path) -> None:
    demo = Demo.at((0.5, 0.0, 0.3)).move((0.4, 0.1, 0.3), 4).rest(3)  # short of 0.15, but longer than 0.1
    demo.move((0.4, 0.1, 0.02), 4).grip(CLOSED, 7)  # ends in a grasp
    demo.move((0.4, -0.2, 0.3), 4).rest(3)  # starts in one
    demo.move((0.6, -0.2, 0.3), 4).rest(3)
    write(tmp_path, 0, demo.move((0.6, -0.2, 0.25), 4).rest(2))

    def avoid(fine_m: float) -> list[float]:
        targets = KeyframeDataset(tmp_path, every=999, fine_m=fine_m).batch(range(5))[1].values
        return [float(value) for value in targets[:, 0, 10]]

    assert avoid(0.1) == [1, -1, -1, 1, -1]
    assert avoid(0.15) == [-1, -1, -1, 1, -1]
    assert avoid(0.01) == [1, -1, -1, 1, 1]


script = st.lists(
    st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.integers(1, 6), st.integers(0, 4), st.booleans()),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40)  # each writes a file
@given(script, st.integers(1, 7))
def test_every_target_is_the_first_keyframe_strictly_after(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int, int, int, bool]], every: int
) -> None:
    demo, gripper = Demo.at((0.4, 0.0, 0.2)), OPEN
    for x, y, frames, rest, toggles in moves:
        demo.move((0.4 + 0.03 * x, 0.03 * y, 0.2), frames).rest(rest)
        if toggles:
            gripper = -gripper
            demo.grip(gripper, 1 + frames)
    episode = Episode(write(tmp_path_factory.mktemp("demo"), 0, demo.move((0.9, 0.0, 0.4), 3), cameras=()))
    key = key_episode(episode, "joints", KEY, every, 0.1, DiscoverySettings())
    keyframes = key.keyframes.tolist()
    assert keyframes == sorted(set(keyframes))
    assert keyframes[-1] == len(demo) - 1
    assert keyframes[0] > 0
    expected = [next(n for n, k in enumerate(keyframes) if k > row) for row in key.rows.tolist()]
    assert key.goals.tolist() == expected
    assert key.starts.tolist() == [row in (0, *keyframes) for row in key.rows.tolist()]
    assert all(row % every == 0 or row in keyframes for row in key.rows.tolist())
    assert set(key.targets[:, 9]) | set(key.targets[:, 10]) <= {-1.0, 1.0}
    poses = trace_of(episode, "joints").base_from_tool
    for row, goal in zip(key.rows, key.goals, strict=True):
        apart = np.linalg.norm(poses[row, :3, 3] - key.base_from_tool[goal, :3, 3])
        assert apart >= 0.01 or demo.command[row] != key.targets[goal, 9]


def test_a_late_joint_sensor_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "prompt", 0, pick())
    write(tmp_path / "late", 0, pick(), delay=2)
    prompt, late = KeyframeDataset(tmp_path / "prompt"), KeyframeDataset(tmp_path / "late")
    frames = [frame for frame, _ in prompt.keyframes(0)]
    assert [frame for frame, _ in late.keyframes(0)] == frames
    np.testing.assert_array_equal(prompt.batch([0, 3])[1].values, late.batch([0, 3])[1].values)


def assert_close(compact: Batch, dense: Batch) -> None:
    """The same but for the depth, which may be off by half a quantum, or none where it is too far."""
    assert list(compact.streams) == list(dense.streams)
    for name, stream in dense.streams.items():
        twin = compact.streams[name]
        assert torch.equal(twin.valid, stream.valid)
        assert torch.equal(twin.age_s, stream.age_s)
        assert list(twin.data) == list(stream.data)
        for field, value in stream.data.items():
            assert twin.data[field].dtype == value.dtype
            if field == "depth_m":
                far = value > 6.5535
                assert far.any()
                assert not twin.data[field][far].any()
                assert not twin.data[field][value == 0].any()
                off = (twin.data[field] - value)[~far].abs()
                assert 0 < float(off.max()) <= HALF_QUANTUM_M + 1e-6
            else:
                assert torch.equal(twin.data[field], value), f"{name}/{field}"


@pytest.mark.parametrize("history", [1, 2, 3])
def test_the_store_gives_what_the_episodes_hold(tmp_path: Path, history: int) -> None:
    for number in range(3):
        write(tmp_path, number, pick((0.4, 0.05 * number, 0.02)), history=3, lost=(0, 4, 7), cameras=("front", "wrist"))
    compact, dense = (
        KeyframeDataset(tmp_path, history=history),
        KeyframeDataset(tmp_path, history=history, compact=False),
    )
    chosen = np.random.default_rng(0).permutation(len(compact))
    assert len(compact) == len(dense) > 12
    got, want = compact.batch(chosen), dense.batch(chosen)
    assert got[0].streams["front"].data["rgb"].shape == (len(chosen), history, SIZE, SIZE, 3)
    assert not got[0].streams["front"].valid.all()
    assert_close(got[0], want[0])
    assert torch.equal(got[1].values, want[1].values)


def test_it_stands_in_for_dense_episodes(four: Path, tmp_path: Path) -> None:
    dataset = KeyframeDataset(four)
    torch.manual_seed(0)
    sensors = {"front": camera_space(), "joints": JOINTS}
    ones = dict.fromkeys(sensors, 1)
    model = PerceptionModel.from_config(model_config(chunk=1, dropout=0.0), sensors, ones, KEY)
    short = TrainSettings(
        steps=16, batch_size=8, lr=4e-3, warmup_steps=2, ema_decay=0.8, log_every=4, checkpoint_every=16,
        validation_fraction=0.25, device="cpu", threads=1, tensorboard=False,
    )  # fmt: skip
    before = float(model.eval().loss(dataset.batch([0, 1])[0], {"action": dataset.batch([0, 1])[1]})["loss"].detach())
    result = train(model, dataset, short, tmp_path / "run", progress=False)
    assert result.validation_loss is not None
    assert result.loss < 0.5 * before


def test_starts_are_seen_as_often_as_was_asked(four: Path) -> None:
    dataset = KeyframeDataset(four, every=1, keyframe_share=0.6)
    rows = rows_of(dataset, four)
    starts = np.array([row in (0, 6, 17) for _, row in rows])
    mine, back = dataset.split(0.25, seed=3)
    assert 0.58 < starts[mine].mean() < 0.62
    assert 0.58 < starts[back].mean() < 0.62
    assert {rows[i][0] for i in mine} & {rows[i][0] for i in back} == set()
    assert set(mine) | set(back) == set(range(len(dataset)))  # no sample is lost
    counts = np.bincount(mine, minlength=len(dataset))[starts]
    assert counts[counts > 0].max() - counts[counts > 0].min() <= 1
    again = KeyframeDataset(four, every=1, keyframe_share=0.6).split(0.25, seed=3)
    np.testing.assert_array_equal(again[0], mine)
    shown = np.concatenate([SampleOrder(mine, 24, 0).step(step) for step in range(20)])
    assert 0.55 < starts[shown].mean() < 0.65
    assert not len(dataset.split(0.0, 0)[1])


def test_shares_at_the_ends(four: Path) -> None:
    none = KeyframeDataset(four, every=2, keyframe_share=0.0)
    np.testing.assert_array_equal(none.split(0.0, 0)[0], np.arange(len(none)))
    only = KeyframeDataset(four, every=2, keyframe_share=1.0)
    rows = rows_of(only, four)
    assert {rows[i][1] for i in only.split(0.0, 0)[0]} == {0, 6, 17}
    # Where starts are more than their share, nothing is left out.
    sparse = KeyframeDataset(four, every=100, keyframe_share=0.2)
    np.testing.assert_array_equal(sparse.split(0.0, 0)[0], np.arange(len(sparse)))


def test_statistics_are_of_the_key_poses_and_of_all_frames(four: Path) -> None:
    dataset = KeyframeDataset(four)
    stats = dataset.stats()
    dense = EpisodeDataset(four).stats()
    assert set(stats) == set(dense)
    np.testing.assert_array_equal(stats["joints/velocity_rad_s"].mean, dense["joints/velocity_rad_s"].mean)
    poses = np.array([pose[:3, 3] for n in range(4) for _, pose in dataset.keyframes(n)])
    np.testing.assert_allclose(stats["action"].mean[:3], poses.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"].std[:3], poses.std(0), atol=1e-6)
    assert (stats["action"].low[9], stats["action"].high[9]) == (-1, 1)
    assert stats["action"].mean.shape == (11,)


def test_a_copy_in_another_process_reads_the_same(four: Path) -> None:
    dataset = KeyframeDataset(four)
    before = dataset.batch([3, 0, 9])
    text = pickle.dumps(dataset)
    assert before[0].streams["front"].data["rgb"][0].numpy().tobytes() not in text  # no pictures travel
    after = pickle.loads(text).batch([3, 0, 9])  # noqa: S301  # our own bytes
    for name, stream in before[0].streams.items():
        for field, value in stream.data.items():
            assert torch.equal(after[0].streams[name].data[field], value)
    assert torch.equal(after[1].values, before[1].values)


def test_a_part_of_the_sensors_can_be_read(four: Path) -> None:
    batch, target = KeyframeDataset(four, sensors=["front"]).batch([0])
    assert list(batch.streams) == ["front"]
    assert target.values.shape == (1, 1, 11)
    with pytest.raises(DataError, match="Did you mean 'front'"):
        KeyframeDataset(four, sensors=["fron"])


def test_what_cannot_be_used_is_refused_or_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2):
        write(tmp_path, number, pick())
    write(tmp_path, 2, Demo.at((0.5, 0, 0.3), 9))
    write(tmp_path, 3, Demo.at((0.5, 0, 0.3), 1))
    bad = write(tmp_path, 4, pick())
    bad.write_bytes(bad.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"episode_000004\.h5"):
        KeyframeDataset(tmp_path)
    bad.unlink()
    with pytest.raises(DataError, match=r"episode_000002\.h5.*goes somewhere.*9 frames at one pose"):
        KeyframeDataset(tmp_path)
    bad.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        dataset = KeyframeDataset(tmp_path, on_bad="skip")
    assert len(dataset.skipped) == 3
    assert [e.path.name for e in dataset.episodes] == ["episode_000000.h5", "episode_000001.h5"]
    assert "episode_000003.h5: expected at least 2 frames; got 1" in caplog.text
    alone = KeyframeDataset(tmp_path, limit=2)
    assert torch.equal(alone.batch(range(len(alone)))[1].values, dataset.batch(range(len(dataset)))[1].values)
    (tmp_path / "only").mkdir()
    shutil.copy(tmp_path / "episode_000002.h5", tmp_path / "only" / "episode_000002.h5")
    with pytest.raises(DataError, match="none that can be used"):
        KeyframeDataset(tmp_path / "only", on_bad="skip")


def test_skipped_episodes_do_not_shift_the_others(tmp_path: Path) -> None:
    write(tmp_path, 0, Demo.at((0.5, 0, 0.3), 9))
    write(tmp_path, 1, pick())
    for compact in (True, False):
        dataset = KeyframeDataset(tmp_path, on_bad="skip", compact=compact)
        assert {number for number, _ in rows_of(dataset, tmp_path)} == {1}
        assert [row for _, row in rows_of(dataset, tmp_path)] == [0, 4, 6, 8, 12, 17, 20]


def test_wrong_arguments_are_refused(four: Path) -> None:
    for name, value in (("every", 0), ("keyframe_share", 1.5), ("fine_m", -1.0)):
        with pytest.raises(SpecError, match=name):
            KeyframeDataset(four, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(DataError, match="history of at most 1"):
        KeyframeDataset(four, history=2)
    with pytest.raises(DataError, match="Did you mean 'joints'"):
        KeyframeDataset(four, joints="joint")
    with pytest.raises(DataError, match="joints='front'"):
        KeyframeDataset(four, joints="front")


def test_a_longer_history_comes_from_the_episodes(four: Path) -> None:
    assert KeyframeDataset(four, history=2, compact=False).batch([3])[0].streams["front"].valid.shape == (1, 2)


def test_demonstrations_of_the_lift_expert(tmp_path: Path) -> None:
    words = ["env=lift", "rig=reach", "rig.sensors.front.width=32", "rig.sensors.front.height=32", "env.renderer=tiny"]
    collect(compose_config("collect", [*words, "progress=false", "episodes=2", "workers=1", f"output={tmp_path}"]))
    dataset = KeyframeDataset(tmp_path)
    assert len(dataset.episodes) == 2
    for number in range(2):
        frames = dataset.keyframes(number)
        assert len(frames) == 2  # grasp, and up
        (grasp, low), (end, high) = frames
        opening = dataset.episodes[number].frames("joints", "gripper_m")[:, 0]
        assert opening[grasp] < 0.065 < opening[grasp - 2]
        assert low[2, 3] < 0.04
        assert high[2, 3] > 0.12
        assert end == len(dataset.episodes[number]) - 1
    batch, target = dataset.batch(range(len(dataset)))
    assert batch.streams["front"].data["depth_m"].max() > 0.3
    assert set(target.values[:, 0, 9].tolist()) == {CLOSED}
    assert len(dataset.describe()) == 2
    assert "episode_000000.h5: 3 samples, key poses at" in dataset.describe()[0]
